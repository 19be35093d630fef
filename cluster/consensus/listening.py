"""A port that goes on when descriptors are short.

When ``accept`` fails for want of descriptors, asyncio logs it and tries again a second later, but only after as many tries, each
with a traceback and with such a second of its own, as the backlog that it was told, from Python 3.13 on with one more: with
many of them a node does nothing else any more, and fills its log. So it is told 1, and the system more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from typing_extensions import override

BACKLOG = 1024
"""How many connections wait for ``accept`` at most."""


class _Once(int):
    """One, and one more of it is one: two tries a second would be four a second later, and eight then."""

    @override
    def __add__(self, _more: int) -> int:
        return 1


async def listen(make: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> asyncio.Server:
    """Serve on all addresses of a host; raises ``OSError`` as ``create_server`` does."""
    server = await asyncio.get_running_loop().create_server(make, host, port, backlog=_Once(1))
    for sock in server.sockets:
        with sock.dup() as same:
            same.listen(BACKLOG)
    return server
