"""Floor 4: sockets. Turns HTTP requests into calls and answers into responses, and runs the process.

What a call means is decided below, in ``node.gateway``; this room only moves bytes, answers the health checks and keeps
members' own routes from everybody else.

``server`` runs the process; ``door`` lets connections in, ``app`` answers their requests (``requests``, ``hosts``, ``intake``),
``channel`` their channels, ``events`` their streams; ``peers`` calls the other nodes, who are known by ``members_only``. Pages:
``health``, ``metrics``, ``docs`` (``docs_html``), ``dashboard``. The real world: ``metered``, ``offload``, ``told`` (the log of
calls), ``place`` and ``secondlook`` (looks at the data directory), ``exits``.
"""
