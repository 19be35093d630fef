"""Machines that vanish: noticing that there is nobody at the other end of a connection any more.

A process that dies closes its connections, and those who wait for it know at once. A machine that loses its power or its
link says nothing at all: the kernel sends again for a quarter of an hour, and whoever only waits, as a long poll does, never
learns of it. So the kernel is asked to look for a sign of life where nothing comes, and to give up soon. A node that is merely busy,
or stopped, is not taken for one: the kernel of its machine answers for it. But Linux has one bound for who answers nothing and for
who answers that he has no room, so whoever sends more than fits must say so (``allow_for_full``). Where a connection carries one
call at a time nobody does: a call that a node does not even take in for so long had better go elsewhere.

Linux knows all bounds; other systems know the first at least. What is lost so may be tried elsewhere under the same key.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from typing import Protocol

QUIET_S = 1
"""After so long without anything on a connection its other end is asked for a sign of life, and again each second."""
ASKED = 2
"""So many times: networks lose packets, and a question has nothing behind it by which the loss would be noticed."""
VANISHED_S = QUIET_S + ASKED
"""Without a sign of life for so long the connection is lost. Longer than the members of a cluster wait for each other: who is
away for so long does not lead any more."""
UNDELIVERED_S = 2.5
"""With something on its way for so long that did not arrive, however often it was sent, it is lost, too. Linux goes by this
bound, and not by how often it has asked, also where it looks for signs of life: so it ends between the last question and the next."""

FULL_S = 10.0
"""The same while the other end takes no more: so long a node takes for a call at most, and who has waited for it is gone then."""

_USER_TIMEOUT = "TCP_USER_TIMEOUT"
_BOUNDS = (
    ("TCP_KEEPIDLE", QUIET_S),
    ("TCP_KEEPALIVE", QUIET_S),  # the same on macOS
    ("TCP_KEEPINTVL", 1),
    ("TCP_KEEPCNT", ASKED),
    (_USER_TIMEOUT, int(1000 * UNDELIVERED_S)),
)
OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *[(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _BOUNDS if hasattr(socket, name)],
)
"""Level, option and value, as far as this system has them."""
_UNSENT_BYTES = 256 * 1024
"""Whoever is told when a connection is full wants no more in the kernel than this, some frame of a channel, beyond what the other
end has room for. Of who leaves so little unread behind for too long it is still said that he has vanished."""


class Socket(Protocol):
    """A socket of Python's, or a loop's view of one."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None:
        """See ``socket.socket``."""


def notice_vanished(one: Socket | None) -> None:
    """Let a TCP connection be lost soon after the machine at its other end has vanished, as far as it can be told to."""
    _set(one, OPTIONS)


def notice_full(one: Socket | None) -> None:
    """Let whoever writes hear soon that the other end takes no more, instead of when the kernel's own buffer is full as well."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        _set(one, [(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)])


def allow_for_full(one: Socket | None, *, full: bool) -> None:
    """While the other end takes no more, as a node does that works off much, wait for it longer.

    It answers each question for room with none, and Linux would take that for silence.
    """
    if hasattr(socket, _USER_TIMEOUT):
        bound_s = FULL_S if full else UNDELIVERED_S
        _set(one, [(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * bound_s))])


def _set(one: Socket | None, options: Iterable[tuple[int, int, int]]) -> None:
    if one is None:  # an event loop that shows none of its sockets
        return
    with contextlib.suppress(OSError):  # the other side has closed it already, which macOS takes ill
        for level, option, value in options:
            one.setsockopt(level, option, value)
