"""Machines that vanish: noticing that there is nobody at the other end of a connection any more.

A process that dies closes its connections, and those who wait for it know at once. A machine that loses its power or its
link says nothing at all: the kernel sends again for a quarter of an hour, and whoever only waits, as a long poll does, never
learns of it. So the kernel is asked to look for a sign of life where nothing comes, and to give up soon. A node that is merely busy,
or stopped, is not taken for one: the kernel of its machine answers for it.

Linux knows both bounds; other systems know the first at least. What is lost so may be tried elsewhere under the same key.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

QUIET_S = 1
"""After so long without anything on a connection its other end is asked for a sign of life, and again each second."""
VANISHED_S = 2
"""Without one for so long, or with something sent that did not arrive, the connection is lost. Longer than the members of a
cluster wait for each other: who is away for so long does not lead any more."""

_BOUNDS = (
    ("TCP_KEEPIDLE", QUIET_S),
    ("TCP_KEEPALIVE", QUIET_S),  # the same on macOS
    ("TCP_KEEPINTVL", 1),
    ("TCP_KEEPCNT", VANISHED_S - QUIET_S),
    ("TCP_USER_TIMEOUT", 1000 * VANISHED_S),
)
OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *[(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _BOUNDS if hasattr(socket, name)],
)
"""Level, option and value, as far as this system has them."""


class Socket(Protocol):
    """A socket of Python's, or a loop's view of one."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None:
        """See ``socket.socket``."""


def notice_vanished(one: Socket | None) -> None:
    """Let a TCP connection be lost soon after the machine at its other end has vanished, as far as it can be told to."""
    if one is None:  # an event loop that shows none of its sockets
        return
    with contextlib.suppress(OSError):  # the other side has closed it already, which macOS takes ill
        for level, option, value in OPTIONS:
            one.setsockopt(level, option, value)
