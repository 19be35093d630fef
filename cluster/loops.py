"""The event loop of a node: uvloop's where there is one, else asyncio's own, with the same guarantees.

No policy is set: programs that use the client library keep the loop that they have. Workers keep asyncio's, for their loop
runs the handlers of users. What uvloop does otherwise, and what is done about it:

* Before 0.23 it wrote at the end of a turn, which is behind the leader's fsync: followers would begin theirs only then. So
  0.23 is the oldest that is taken.
* A connection that comes up in the turn in which its dial is given up is closed, and its protocol not told: the dial does it.
* What is due at once is a ``Handle`` and has no ``when()``; its transports are no ``asyncio.Transport``; one that is closed
  raises ``RuntimeError`` when it is written to. Nobody asks for the first two, and everybody looks before he writes.
* Its clock has whole milliseconds, and timers round to them: they go off up to 1.5 ms early. What is measured is measured by
  another clock, and whoever looks behind a deadline leaves room.
* Without descriptors it closes connections too many at once, and logs nothing; asyncio lets them wait. The door keeps files
  back so that it does not come to this, and members dial again.
* Names are resolved by two threads at a time: each is asked for once at a time, and addresses need none.
* A refused dial is told without the address: whoever tells it on names the address himself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version


def factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop of a node's process."""
    try:
        import uvloop
    except ImportError:  # Windows and PyPy have none
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def name() -> str:
    """The loop that runs, as a report of a bug should name it."""
    room = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    return room if room == "asyncio" else f"{room} {version(room)}"
