"""The server: five rooms, one above the other, imports downwards only.

====== ========= ==================================================================================================
floor  room      duty
====== ========= ==================================================================================================
4      api       sockets: HTTP and channels in and out, health, pages; the real clock, disk and threads
3      node      the living process: config, gateway, forwarding, cluster time, group commit, waking, composition
2      consensus the only room that knows pysyncobj: its repairs, log store, ballot, transport, state files
1      machine   the heart: deterministic, versioned; SQL on a connection that it is handed
0      protocol  messages, limits, refusals, the table of operations, wire form; the client may enter here only
====== ========= ==================================================================================================
"""
