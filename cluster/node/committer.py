"""Group commit: everything that waits at the leader becomes one entry, and one entry is under way at a time.

While an entry travels, the next one gathers. So throughput rises with load, and at rest a command waits for nobody: after
an entry for one alone, which nothing followed, the next command that can do so leaves at once. Otherwise whatever comes in
the same turn of the loop travels along; and what workers report and claim waits a moment for others, as long as that pays.

Three things travel along with what was asked for. *Signs of life* of workers are in the next entry that leaves, or in one
of their own when they can wait no longer. *Companions* are claims that wait for work: where an entry brings tasks to a
queue, claims on it are taken along behind them, so that a task is leased in the entry in which it comes. And the first
entry of a leadership says *refresh*: no worker is to pay for the time without a leader.

How far the log is committed travels to the followers with the next entry. An announcement of its own leaves only if none
comes soon, or a follower waits for it: those who sent the commands get their answers before, and mostly instead.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from quorl.cluster.consensus.port import NotApplied
from quorl.cluster.machine.machine import Applied, Outcome
from quorl.cluster.node.meters import Meters
from quorl.cluster.node.patience import WAIT_S, Haste, Patience
from quorl.cluster.node.signs import ROWS_PER_SIGN, Signs
from quorl.cluster.node.timekeeper import Stamp
from quorl.cluster.node.weighing import Weighing
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import Entry, Sealed, SignOfLife, encode_entry

ANNOUNCE_SOON_S = 0.001
"""How much later than the leader the followers apply an entry that no other follows."""
ANNOUNCE_LATE_S = 0.005
"""The same after an entry of a crowd, behind which another one mostly comes, if nobody waits at a follower."""
CROWD_ROWS = 8
"""An entry that writes as many is one of a crowd."""


class Proposer(Protocol):
    """What the committer needs of consensus."""

    def propose(self, payload: bytes) -> asyncio.Future[Applied]:
        """See ``consensus.replica.Replica``."""

    @property
    def waited(self) -> bool:
        """Whether somebody waits at a follower for what it will be told."""

    def announce(self) -> None:
        """Tell the followers how far the log is committed."""


_OF_NO_CALL = contextvars.Context()
"""An entry belongs to many calls: what is logged on its way speaks of none of them."""

Decided = tuple[Outcome, int]
"""The outcome of a command, and the sequence of the entry that it stands in."""


class Waiting(NamedTuple):
    """A command on its way into an entry, and who is to learn what it comes to."""

    sealed: Sealed
    future: asyncio.Future[Decided]


class Allowance(NamedTuple):
    """What is left of an entry for those who travel along. The last of them may exceed it."""

    commands: int
    rows: int
    size_bytes: int


class Company(Protocol):
    """Who travels along with entries."""

    def behind(self, supply: Mapping[str, int], left: Allowance) -> list[Waiting]:
        """Return what goes behind the commands of an entry that brings so many tasks to these queues."""

    def due(self, stamp: Stamp) -> Mapping[str, int]:
        """Return how many tasks of which queues come to be claimable at that moment, by themselves."""


class Nobody:
    """The company of a node without workers."""

    def behind(self, supply: Mapping[str, int], left: Allowance) -> list[Waiting]:  # noqa: ARG002
        """See ``Company``."""
        return []

    def due(self, stamp: Stamp) -> Mapping[str, int]:  # noqa: ARG002
        """See ``Company``."""
        return {}


class Committer:
    """The one way of a command into the log. ``seed`` throws the leader's dice; ``node`` is its name."""

    def __init__(
        self,
        replica: Proposer,
        stamp: Callable[[], Stamp],
        partitions: Callable[[str], int | None],
        *,
        node: str = "",
        seed: Callable[[], int] = lambda: 0,
        company: Company | None = None,
        meters: Meters | None = None,
    ) -> None:
        self._replica = replica
        self._stamp = stamp
        self._partitions = partitions
        self._node = node
        self._seed = seed
        self._company = company or Nobody()
        self._meters = meters or Meters()
        self._pending: deque[Waiting] = deque()
        self._pending_bytes = 0
        self._barriers: list[asyncio.Future[int]] = []
        self._signs = Signs()
        self._signs_timer: asyncio.TimerHandle | None = None
        """When signs of life that nobody waits for leave at the latest."""
        self._signs_overdue = False
        self._refresh = False
        self._open = False
        self._under_way = False
        self._began_s = 0.0
        """When what is under way was proposed."""
        self._kick_wanted = False
        self._asked = 0
        """How many commands of what is under way were asked for."""
        self._crowd = False
        """Whether what is under way is of a crowd."""
        self._hurried = 0
        """How many of those that wait are not patient."""
        self._patience = Patience()
        self._patience_ends: asyncio.TimerHandle | None = None
        """When those that wait for others leave by themselves."""
        self._alone_lately = False
        """Whether that was one in the last entry, and nothing had gathered meanwhile."""
        self._announcement: asyncio.TimerHandle | None = None
        """When the followers will be told what they have not been told yet."""

    # -- what the node says ----------------------------------------------------------------------------------------
    def lead(self) -> None:
        """This node leads and has applied everything older: entries may go out."""
        self._open = True
        self._refresh = True
        self._want_kick()

    def step_aside(self, reason: NotApplied) -> None:
        """This node does not lead any more: whatever was not proposed certainly did not happen."""
        self._open = False
        self._cancel_announcement()
        self._signs_left()
        for sign in self._signs.clear():
            _fail(sign, reason)
        self.turn_away(reason)

    def turn_away(self, reason: NotApplied) -> None:
        """What waits, and was not proposed, is not to be waited for. Signs of life stay: they are for whenever an entry leaves."""
        self._stop_waiting()
        pending, barriers = self._pending, self._barriers
        self._pending, self._barriers, self._pending_bytes, self._hurried = deque(), [], 0, 0
        for waiting in pending:
            _fail(waiting.future, reason)
        for barrier in barriers:
            _fail(barrier, reason)

    def refresh(self) -> None:
        """Entries could not be committed for a while: no worker is to pay for that."""
        self._refresh = True

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not (self._wanted or self._under_way)

    @property
    def waiting(self) -> int:
        """How many commands wait for an entry."""
        return len(self._pending)

    @property
    def _wanted(self) -> bool:
        """Whether there is reason for another entry."""
        return bool(self._pending or self._barriers or self._signs.awaited or self._signs_overdue)

    @property
    def _urgent(self) -> bool:
        """Whether that reason is in a hurry."""
        return bool(self._hurried or self._barriers or self._signs.awaited or self._signs_overdue)

    # -- what requests ask ------------------------------------------------------------------------------------------
    def submit(self, sealed: Sealed, haste: Haste = Haste.SOON) -> asyncio.Future[Decided]:
        """Queue a command for the next entry; the future gives its outcome and the entry's sequence.

        Raises ``NotApplied`` when too much waits already. The future raises ``NotApplied`` or ``OutcomeUnknown``.
        """
        future: asyncio.Future[Decided] = asyncio.get_running_loop().create_future()
        self.enqueue(Waiting(sealed, future), haste)
        return future

    def enqueue(self, waiting: Waiting, haste: Haste = Haste.SOON) -> None:
        """See ``submit``; with a future that the caller brings. Once that is done nothing is proposed any more."""
        size = len(waiting.sealed.command)
        if (
            len(self._pending) >= limits.COMMANDS_PENDING_MAX
            or self._pending_bytes + size > limits.COMMANDS_PENDING_BYTES_MAX
        ):
            raise NotApplied("too_many_requests", f"{len(self._pending)} commands wait for the log already")
        self._pending.append(waiting)
        self._pending_bytes += size
        self._hurried += haste is not Haste.PATIENT
        if haste is Haste.AT_ONCE and self._alone_lately and self._open and not (self._under_way or self._kick_wanted):
            _OF_NO_CALL.copy().run(self._kick)
        else:
            self._want_kick()

    def barrier(self) -> asyncio.Future[int]:
        """The sequence of an entry that is proposed after this call: what it has seen was not decided later."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._barriers.append(future)
        self._want_kick()
        return future

    def sign(self, signs: Iterable[SignOfLife]) -> asyncio.Future[int]:
        """Put signs of life into the next entry; the future gives a sequence that contains them. Raises as ``submit``."""
        future = self._signs.tell(signs)
        self._want_kick()
        return future

    def note(self, sign: SignOfLife, within_s: float) -> None:
        """Put a sign of life into the next entry, or after so many seconds into one of its own."""
        self._signs.note((sign,))
        loop = asyncio.get_running_loop()
        at = loop.time() + within_s
        if self._signs_timer is None or at < self._signs_timer.when():
            if self._signs_timer is not None:
                self._signs_timer.cancel()
            self._signs_timer = loop.call_at(at, self._signs_late)

    def announce(self) -> None:
        """A follower waits until it has applied what was committed last: tell all of them now, if that is still to do."""
        if self._announcement is not None:
            self._cancel_announcement()
            self._replica.announce()

    # -- one entry after the other ----------------------------------------------------------------------------------
    def _want_kick(self) -> None:
        # Not at once: what arrives in the same turn of the loop travels in the same entry.
        free = self._open and not self._under_way and not self._kick_wanted
        if free and self._wanted and (self._urgent or not self._waits()):
            self._kick_wanted = True
            asyncio.get_running_loop().call_soon(self._kick, context=_OF_NO_CALL)

    def _waits(self) -> bool:
        """Whether those that are there, none of whom is in a hurry, wait for others."""
        loop = asyncio.get_running_loop()
        if self._patience_ends is None and self._patience.pays(loop.time() - self._began_s):
            self._patience_ends = loop.call_later(WAIT_S, self._waited, context=_OF_NO_CALL)
        return self._patience_ends is not None

    def _waited(self) -> None:
        """Nobody else came."""
        self._patience_ends = None
        self._patience.in_vain()
        self._kick()

    def _stop_waiting(self) -> None:
        if self._patience_ends is not None:
            self._patience_ends.cancel()
            self._patience_ends = None

    def _kick(self) -> None:
        self._kick_wanted = False
        if not self._open or self._under_way or not self._wanted:
            return
        if self._patience_ends is not None:
            self._stop_waiting()
            self._patience.paid()
        stamp = self._stamp()
        signs, told = self._signs.take()
        batch = self._take(stamp, signs)
        barriers, self._barriers = self._barriers, []
        barriers += told
        if not self._signs:
            self._signs_left()
        refresh, self._refresh = self._refresh, False
        entry = Entry(
            stamp.now_ms,
            stamp.wall_ms,
            tuple([waiting.sealed for waiting in batch]),
            self._seed(),
            self._node,
            tuple(signs.values()),
            refresh,
        )
        try:
            applied = self._replica.propose(encode_entry(entry))
        except NotApplied as reason:
            self._refresh = refresh
            for waiting in batch:
                _fail(waiting.future, reason)
            for barrier in barriers:
                _fail(barrier, reason)
            self._want_kick()
            return
        self._under_way = True
        self._began_s = asyncio.get_running_loop().time()
        self._cancel_announcement()
        applied.add_done_callback(partial(self._done, batch, barriers))

    def _take(self, stamp: Stamp, signs: dict[int, SignOfLife]) -> list[Waiting]:
        """What goes into the next entry: no more than every node applies in one turn of its loop without being missed.

        Whoever claims or reports in it is alive: that is added to ``signs``.
        """
        batch: list[Waiting] = []
        size, weighing = 0, Weighing(self._partitions)
        weighing.rows = ROWS_PER_SIGN * len(signs)
        while (
            self._pending
            and len(batch) < limits.ENTRY_COMMANDS_MAX
            and size < limits.ENTRY_BYTES_TARGET
            and weighing.rows < limits.ENTRY_ROWS_TARGET
        ):
            waiting = self._pending.popleft()
            self._pending_bytes -= len(waiting.sealed.command)
            if waiting.future.done():
                continue  # whoever asked has gone: it was never proposed, and need not be
            batch.append(waiting)
            size += len(waiting.sealed.command)
            weighing.add(waiting.sealed)
        self._asked = len(batch)
        self._hurried = len(self._pending)  # they have waited for one entry already
        supply = dict(self._company.due(stamp))
        for queue, count in weighing.submitted.items():
            supply[queue] = supply.get(queue, 0) + count
        if supply:
            left = Allowance(
                limits.ENTRY_COMMANDS_MAX - len(batch),
                limits.ENTRY_ROWS_TARGET - weighing.rows,
                limits.ENTRY_BYTES_TARGET - size,
            )
            for waiting in self._company.behind(supply, left):
                batch.append(waiting)
                weighing.add(waiting.sealed)
        self._crowd = weighing.rows >= CROWD_ROWS
        for worker_id in weighing.workers:
            signs.setdefault(worker_id, SignOfLife(worker_id))
        return batch

    def _done(self, batch: list[Waiting], barriers: list[asyncio.Future[int]], done: asyncio.Future[Applied]) -> None:
        self._under_way = False
        error = done.exception()
        self._meters.decided(len(batch), asyncio.get_running_loop().time() - self._began_s, failed=error is not None)
        if error is not None:
            for waiting in batch:
                _fail(waiting.future, error)
            for barrier in barriers:
                _fail(barrier, error)
        else:
            self._deliver(done.result(), batch, barriers)
        wanted = self._wanted
        self._alone_lately = self._asked == 1 and not wanted
        if wanted and (self._urgent or not self._waits()):
            self._kick()
        elif error is None and self._open:
            late = self._crowd and not self._replica.waited
            after_s = ANNOUNCE_LATE_S if late else ANNOUNCE_SOON_S
            self._announcement = asyncio.get_running_loop().call_later(after_s, self.announce)

    def _signs_late(self) -> None:
        """Signs of life have waited long enough for an entry that others want."""
        self._signs_timer = None
        self._signs_overdue = bool(self._signs)
        self._want_kick()

    def _signs_left(self) -> None:
        """No sign of life waits any more."""
        self._signs_overdue = False
        if self._signs_timer is not None:
            self._signs_timer.cancel()
            self._signs_timer = None

    def _cancel_announcement(self) -> None:
        if self._announcement is not None:
            self._announcement.cancel()
            self._announcement = None

    @staticmethod
    def _deliver(applied: Applied, batch: list[Waiting], barriers: list[asyncio.Future[int]]) -> None:
        for waiting, outcome in zip(batch, applied.outcomes, strict=True):
            if not waiting.future.done():
                waiting.future.set_result((outcome, applied.sequence))
        for barrier in barriers:
            if not barrier.done():
                barrier.set_result(applied.sequence)


def _fail(future: asyncio.Future[Decided] | asyncio.Future[int], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        # Whoever asked may have gone meanwhile; an exception that nobody collects is no event worth a log line.
        future.exception()
