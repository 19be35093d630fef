"""How a node applies entries: which are prepared, and which leave their transaction of the state open for those that follow.

An entry is told of as soon as it is applied; when its transaction ends decides only how much is written, and when. Several
entries that share one write their common pages once. At the leader the answers to an entry leave before that end: it
comes with the next entry that is prepared, while the followers write.

What is open is lost with the process, and found in the log, which is trimmed only below what the state's file durably holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorl.cluster.machine.machine import Applied, Machine

OPEN_S = 0.01
"""How long a transaction stays open, about, if nothing ends it before."""
OPEN_ENTRIES_MAX = 32
"""More than come in that time, unless a backlog is applied."""
OPEN_BYTES_MAX = 512 * 1024
"""Of entries: whoever ends their transaction waits until all of their pages are written, about a millisecond."""


class Applying:
    """Implements ``consensus.port.Ahead`` over a node's state. ``failed`` hears of an end that failed: the node must not go on.

    While the state is ``busy`` with a checkpoint nothing is prepared or left open: its last step gives up if a transaction is
    open, and nearly always one would be.
    """

    def __init__(
        self, machine: Callable[[], Machine], busy: Callable[[], bool], failed: Callable[[Exception], None]
    ) -> None:
        self._machine = machine
        self._busy = busy
        self._failed = failed
        self._entries = self._bytes = 0
        """What is open."""
        self._timer: asyncio.TimerHandle | None = None

    def apply(self, index: int, term: int, payload: bytes) -> Applied:
        """See ``consensus.port.Apply``."""
        entries, size_bytes = self._entries + 1, self._bytes + len(payload)
        leave_open = entries < OPEN_ENTRIES_MAX and size_bytes < OPEN_BYTES_MAX and not self._busy()
        self._entries, self._bytes = (entries, size_bytes) if leave_open else (0, 0)
        applied = self._machine().apply(index, term, payload, leave_open=leave_open)
        if leave_open and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(OPEN_S, self._late)
        return applied

    def end(self) -> bool:
        """End the transaction that is open, if there is one; whether the state is what was told of it."""
        if self._entries:
            self._entries = self._bytes = 0
            try:
                self._machine().close_open()
            except Exception as error:
                self._failed(error)
                return False
        return True

    def _late(self) -> None:
        self._timer = None
        self.end()

    def prepare(self, index: int, term: int, payload: bytes) -> None:
        """See ``Ahead``."""
        if self.end() and not self._busy():
            self._machine().prepare(index, term, payload)

    def retract(self) -> None:
        """See ``Ahead``."""
        self._machine().retract()
