"""Group commit: everything that waits at the leader becomes one entry, and one entry is under way at a time.

While an entry travels, the next one gathers. So throughput rises with load, and at rest a command waits for nobody.

How far the log is committed travels to the followers with the next entry. An announcement of its own leaves only if none
comes soon, or a follower waits for it: those who sent the commands get their answers before, and mostly instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from quorl.cluster.consensus.port import NotApplied
from quorl.cluster.machine.machine import Applied, Outcome
from quorl.cluster.node.timekeeper import Stamp
from quorl.cluster.node.weighing import Weighing
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import Entry, Sealed, encode_entry

ANNOUNCE_AFTER_S = 0.002
"""How much later than the leader the followers apply an entry that no other follows."""


class Log(Protocol):
    """What the committer needs of consensus."""

    def propose(self, payload: bytes) -> asyncio.Future[Applied]:
        """See ``consensus.port.Consensus``."""

    def announce(self) -> None:
        """Tell the followers how far the log is committed."""


class _Waiting(NamedTuple):
    sealed: Sealed
    size_bytes: int
    future: asyncio.Future[tuple[Outcome, int]]


class Committer:
    """The one way of a command into the log."""

    def __init__(self, log: Log, stamp: Callable[[], Stamp], partitions: Callable[[str], int | None]) -> None:
        self._log = log
        self._stamp = stamp
        self._partitions = partitions
        self._pending: deque[_Waiting] = deque()
        self._pending_bytes = 0
        self._barriers: list[asyncio.Future[int]] = []
        self._open = False
        self._under_way = False
        self._kick_wanted = False
        self._announcement: asyncio.TimerHandle | None = None
        """When the followers will be told what they have not been told yet."""

    # -- what the node says ----------------------------------------------------------------------------------------
    def lead(self) -> None:
        """This node leads and has applied everything older: entries may go out."""
        self._open = True
        self._want_kick()

    def step_aside(self, reason: NotApplied) -> None:
        """This node does not lead any more: whatever was not proposed certainly did not happen."""
        self._open = False
        self._cancel_announcement()
        pending, barriers = self._pending, self._barriers
        self._pending, self._barriers, self._pending_bytes = deque(), [], 0
        for waiting in pending:
            _fail(waiting.future, reason)
        for barrier in barriers:
            _fail(barrier, reason)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not (self._pending or self._barriers or self._under_way)

    # -- what requests ask ------------------------------------------------------------------------------------------
    def submit(self, sealed: Sealed) -> asyncio.Future[tuple[Outcome, int]]:
        """Queue a command for the next entry; the future gives its outcome and the entry's sequence.

        Raises ``NotApplied`` when too much waits already. The future raises ``NotApplied`` or ``OutcomeUnknown``.
        """
        size = len(sealed.command)
        if (
            len(self._pending) >= limits.COMMANDS_PENDING_MAX
            or self._pending_bytes + size > limits.COMMANDS_PENDING_BYTES_MAX
        ):
            raise NotApplied("too_many_requests", f"{len(self._pending)} commands wait for the log already")
        future: asyncio.Future[tuple[Outcome, int]] = asyncio.get_running_loop().create_future()
        self._pending.append(_Waiting(sealed, size, future))
        self._pending_bytes += size
        self._want_kick()
        return future

    def barrier(self) -> asyncio.Future[int]:
        """The sequence of an entry that is proposed after this call: what it has seen was not decided later."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._barriers.append(future)
        self._want_kick()
        return future

    def announce(self) -> None:
        """A follower waits until it has applied what was committed last: tell all of them now, if that is still to do."""
        if self._announcement is not None:
            self._cancel_announcement()
            self._log.announce()

    # -- one entry after the other ----------------------------------------------------------------------------------
    def _want_kick(self) -> None:
        # Not at once: what arrives in the same turn of the loop travels in the same entry.
        if self._open and not self._under_way and not self._kick_wanted:
            self._kick_wanted = True
            asyncio.get_running_loop().call_soon(self._kick)

    def _kick(self) -> None:
        self._kick_wanted = False
        if not self._open or self._under_way or not (self._pending or self._barriers):
            return
        batch = self._take()
        barriers, self._barriers = self._barriers, []
        stamp = self._stamp()
        payload = encode_entry(Entry(stamp.now_ms, stamp.wall_ms, tuple(w.sealed for w in batch)))
        try:
            applied = self._log.propose(payload)
        except NotApplied as reason:
            for waiting in batch:
                _fail(waiting.future, reason)
            for barrier in barriers:
                _fail(barrier, reason)
            self._want_kick()
            return
        self._under_way = True
        self._cancel_announcement()
        applied.add_done_callback(lambda done: self._done(done, batch, barriers))

    def _take(self) -> list[_Waiting]:
        """What goes into the next entry: no more than every node applies in one turn of its loop without being missed."""
        batch: list[_Waiting] = []
        size, weighing = 0, Weighing(self._partitions)
        while (
            self._pending
            and len(batch) < limits.ENTRY_COMMANDS_MAX
            and size < limits.ENTRY_BYTES_TARGET
            and weighing.rows < limits.ENTRY_ROWS_TARGET
        ):
            waiting = self._pending.popleft()
            self._pending_bytes -= waiting.size_bytes
            if waiting.future.done():
                continue  # whoever asked has gone: it was never proposed, and need not be
            batch.append(waiting)
            size += waiting.size_bytes
            weighing.add(waiting.sealed)
        return batch

    def _done(self, done: asyncio.Future[Applied], batch: list[_Waiting], barriers: list[asyncio.Future[int]]) -> None:
        self._under_way = False
        error = done.exception()
        if error is not None:
            for waiting in batch:
                _fail(waiting.future, error)
            for barrier in barriers:
                _fail(barrier, error)
        else:
            self._deliver(done.result(), batch, barriers)
        if self._pending or self._barriers:
            self._kick()
        elif error is None and self._open:
            self._announcement = asyncio.get_running_loop().call_later(ANNOUNCE_AFTER_S, self.announce)

    def _cancel_announcement(self) -> None:
        if self._announcement is not None:
            self._announcement.cancel()
            self._announcement = None

    @staticmethod
    def _deliver(applied: Applied, batch: list[_Waiting], barriers: list[asyncio.Future[int]]) -> None:
        for waiting, outcome in zip(batch, applied.outcomes, strict=True):
            if not waiting.future.done():
                waiting.future.set_result((outcome, applied.sequence))
        for barrier in barriers:
            if not barrier.done():
                barrier.set_result(applied.sequence)


def _fail(future: asyncio.Future[tuple[Outcome, int]] | asyncio.Future[int], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        # Whoever asked may have gone meanwhile; an exception that nobody collects is no event worth a log line.
        future.exception()
