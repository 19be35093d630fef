"""Floor 4: sockets. Turns HTTP requests into calls and answers into responses, and runs the process.

What a call means is decided below, in ``node.gateway``; this room only moves bytes, answers the health checks and keeps
members' own routes from everybody else.
"""
