"""Parking: claims that wait at the leader until there is work for them.

The leader looks before it proposes. A claim that would find nothing is parked, and is proposed when its queue has news,
or taken along behind the very tasks that it waits for. Work is dealt task by task, each to the worker that holds the
fewest leases by then, among those to the one that was granted the fewest lately, and among those to the one that has
waited longest; a claim gets into the log with as much as was dealt to it, so no more claims are proposed than there may
be tasks.

Invariants: a parked claim whose caller has gone is never proposed, and what had been dealt to it is dealt again. No claim
waits longer than half the silence that its worker may keep: nothing is known of a worker that only waits. Of several
claims under one key, which are tries of the same request, all end with the outcome of the first.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Protocol, TypeVar

import msgspec

from quorl.cluster.consensus.port import NotApplied
from quorl.cluster.machine.outlook import Outlook, WorkerState
from quorl.cluster.node.committer import Allowance, Decided, Waiting
from quorl.cluster.node.patience import Haste
from quorl.cluster.node.subjects import Subject
from quorl.cluster.node.timekeeper import Stamp
from quorl.cluster.protocol.entry import Sealed, SignOfLife, encode_command
from quorl.cluster.protocol.leases import Claim, Directives, GetDirectives, Granted
from quorl.cluster.protocol.together import ClaimBatch, GrantedMany

K = TypeVar("K", str, int)
V = TypeVar("V")

GATHER_S = 1.0
"""Signs of life travel together about so often."""
BEATS_PER_LIMIT = 4
"""And at least so often while a worker may stay silent."""
_TOLD_S = 1.0
"""A worker that is asked to do something when it comes does not wait longer for work before it is told."""
_LOOKS_AT_LEAST = 32
"""Among so many that have waited longest the least loaded is looked for."""
_GRANTS_BEHIND_MAX = 100
"""So much of what a worker was granted less than another is made up for; then it counts as forgotten."""
_FRUITLESS_MAX = 3
"""After so many tries that found nothing where something seemed to be, only news of the queue lead to another."""


class Sight(Protocol):
    """The leader's own copy of the state, as it is now."""

    def claimable(self, claim: Claim) -> bool:
        """Return whether a claim would come to anything, a refusal included."""

    def remembers(self, op: str, key: str) -> bool:
        """Return whether there is a receipt of an operation, by its tag in the log, under this key."""

    def worker(self, worker_id: int) -> WorkerState | None:
        """Describe a worker; None if there is none."""

    def outlook(self, queue: str) -> Outlook:
        """Say what a queue has to give."""

    def serves(self, worker_id: int, queue: str) -> bool:
        """Return whether a task that comes to a queue now may go to that worker."""

    def due(self, now_ms: int, wall_ms: int) -> Mapping[str, int]:
        """Return how many tasks of which queues will be claimable at that moment and are not yet."""

    def directives(self, request: GetDirectives) -> Directives:
        """Say what a worker is to be told."""


class Outlet(Protocol):
    """What parking needs of the committer."""

    def enqueue(self, waiting: Waiting, haste: Haste) -> None:
        """See ``Committer``."""

    def note(self, sign: SignOfLife, within_s: float) -> None:
        """See ``Committer``."""


class _TimeIsUp(Exception):
    """A parked claim ends without an outcome."""


class _Seat:
    """One claim of one worker: parked, or under way with the others of its place."""

    __slots__ = ("claim", "place", "queues", "share", "ticket")

    def __init__(self, place: _Place, ticket: int, claim: Claim, queues: tuple[str, ...]) -> None:
        self.place = place
        self.ticket = ticket
        self.claim = claim
        self.queues = queues
        self.share = 0
        """How many tasks were dealt to it."""


class _Place:
    """One command: a claim, or several that came together."""

    __slots__ = ("command", "doubtful", "future", "news", "parked", "sealed", "seats", "told")

    def __init__(self, sealed: Sealed, command: Claim | ClaimBatch) -> None:
        self.sealed = sealed
        self.command = command
        self.seats: list[_Seat] = []
        self.future: asyncio.Future[Decided]
        self.parked = False
        self.doubtful = False
        """It was proposed and found nothing: only a look at the state leads to another try."""
        self.news: GetDirectives | None = None
        self.told: Directives | None = None
        """What its worker was to be told when it began to wait."""

    @property
    def ticket(self) -> int:
        return self.seats[0].ticket

    @property
    def queues(self) -> Iterator[str]:
        return (queue for seat in self.seats for queue in seat.queues)

    def whole(self) -> _Place:
        """Ask for all that it wants."""
        for seat in self.seats:
            seat.share = seat.claim.max
        return self

    def proposed(self, *, waits: bool) -> Sealed:
        """The command for the log, for as much as was dealt to it."""
        command: Claim | ClaimBatch
        if isinstance(self.command, Claim):
            command = msgspec.structs.replace(self.command, max=self.seats[0].share, wait=int(waits))
        else:
            claims = zip(self.command.claims, self.seats, strict=True)
            dealt = [msgspec.structs.replace(one, max=seat.share) for one, seat in claims if seat.share]
            command = ClaimBatch(claims=tuple(dealt), wait=int(waits))
        return msgspec.structs.replace(self.sealed, command=encode_command(command))


class Parking:
    """The claims that wait at this node while it leads. Implements ``committer.Company``."""

    def __init__(self, sight: Sight, committer: Callable[[], Outlet], monotonic: Callable[[], float]) -> None:
        self._sight = sight
        self._committer = committer
        self._monotonic = monotonic
        self._tickets = count()
        self._queues: dict[str, dict[int, _Seat]] = {}
        self._workers: dict[int, dict[int, _Seat]] = {}
        self._keys: dict[str, dict[int, _Place]] = {}
        self._grants: dict[int, int] = {}
        """How many tasks each worker was granted; who is new begins like the one that was granted the fewest."""
        self._looks: dict[str, None] = {}
        """The queues that are to be looked at."""
        self._look_wanted = False
        self._draining = False

    # -- the claims ------------------------------------------------------------------------------------------------
    async def claim(
        self, sealed: Sealed, claim: Claim | ClaimBatch, until: float, news: GetDirectives | None
    ) -> Decided | None:
        """Commit a claim, or several in one command, once there is something for it; None when the time is over, or there is news for its worker.

        Raises ``NotApplied`` or ``OutcomeUnknown``.
        """
        place = self._place(sealed, claim)
        place.news = news
        until = self._greet(place, until)
        worth = self._sight.remembers(_op(claim), sealed.key or "") or self._worth(place)
        fruitless = 0
        try:
            while True:
                place.future = asyncio.get_running_loop().create_future()
                if worth:
                    self._committer().enqueue(
                        self._waiting(place.whole(), waits=self._monotonic() < until), Haste.PATIENT
                    )
                elif self._draining or self._monotonic() >= until:
                    return None
                else:
                    until = self._listen(place, until)
                    self._park(place)
                outcome, sequence = await self._turn(place, until)
                if _found(outcome.value) or outcome.replayed or self._monotonic() >= until:
                    self._served(place, outcome.value)
                    return outcome, sequence
                place.doubtful = True
                fruitless = fruitless + 1 if worth else 0
                worth = fruitless < _FRUITLESS_MAX and self._worth(place)
        except _TimeIsUp:
            return None
        except asyncio.CancelledError:
            self._look_again(place.queues)  # what was on its way to a caller who is gone is there for others
            raise
        finally:
            self._leave(place)

    def _place(self, sealed: Sealed, command: Claim | ClaimBatch) -> _Place:
        place = _Place(sealed, command)
        for claim in _claims(command):
            worker = self._sight.worker(claim.worker_id)
            queues = claim.queues or (worker.queues if worker else ())
            place.seats.append(_Seat(place, next(self._tickets), claim, queues))
        return place

    def _worth(self, place: _Place) -> bool:
        """Whether it would come to anything."""
        return any(self._sight.claimable(seat.claim) for seat in place.seats)

    def _greet(self, place: _Place, until: float) -> float:
        """Take the call for a sign of life of its workers; gives the moment until which it may wait."""
        now = self._monotonic()
        for seat in place.seats:
            worker = self._sight.worker(seat.claim.worker_id)
            if worker is None or not worker.alive:
                continue
            self._committer().note(SignOfLife(seat.claim.worker_id), gather_s(worker.dead_after_ms))
            until = min(until, now + worker.dead_after_ms / 2000)
        return until

    def _listen(self, place: _Place, until: float) -> float:
        """Note what its worker is to be told before it waits; gives the moment until which it may wait."""
        if place.news is None or place.told is not None:
            return until
        place.told = self._sight.directives(place.news)
        return until if place.told == Directives() else min(until, self._monotonic() + _TOLD_S)

    async def _turn(self, place: _Place, until: float) -> Decided:
        """Wait until the claim was decided, or until its time is over while it is still parked."""
        left_s = max(0.0, until - self._monotonic())
        timer = asyncio.get_running_loop().call_later(left_s, self._expire, place)
        try:
            return await place.future
        finally:
            timer.cancel()

    def _expire(self, place: _Place) -> None:
        if place.parked:
            self._leave(place)
            _end(place, _TimeIsUp())

    def _served(self, place: _Place, value: object) -> None:
        """A claim has its outcome: other tries of it get the same, and what it left is dealt again."""
        for twin in list(self._keys.get(place.sealed.key or "", {}).values()):
            self._propose(twin.whole())
        if isinstance(value, Granted):
            self._granted(place.seats[0], len(value.grants))
        elif isinstance(value, GrantedMany):
            for one in value.items:
                self._granted(place.seats[one.at], len(one.grants))

    def _granted(self, seat: _Seat, grants: int) -> None:
        worker_id = seat.claim.worker_id
        self._grants[worker_id] = self._grants.get(worker_id, 0) + grants
        if grants < seat.share:
            self._look_again(seat.queues)

    # -- the places ------------------------------------------------------------------------------------------------
    def _park(self, place: _Place) -> None:
        place.parked = True
        for seat in place.seats:
            seat.share = 0
            for queue in seat.queues:
                self._queues.setdefault(queue, {})[seat.ticket] = seat
            self._workers.setdefault(seat.claim.worker_id, {})[seat.ticket] = seat
        self._keys.setdefault(place.sealed.key or "", {})[place.ticket] = place

    def _leave(self, place: _Place) -> None:
        if not place.parked:
            return
        place.parked = False
        for seat in place.seats:
            self._stand_up(seat)
            _drop(self._workers, seat.claim.worker_id, seat.ticket)
        _drop(self._keys, place.sealed.key or "", place.ticket)

    def _stand_up(self, seat: _Seat) -> None:
        """It is dealt no more."""
        for queue in seat.queues:
            _drop(self._queues, queue, seat.ticket)

    def _waiting(self, place: _Place, *, waits: bool) -> Waiting:
        """The claim as it is proposed, for what was dealt to it; it is parked no longer."""
        self._leave(place)
        return Waiting(place.proposed(waits=waits), place.future)

    def _propose(self, place: _Place) -> None:
        try:
            self._committer().enqueue(self._waiting(place, waits=True), Haste.PATIENT)
        except NotApplied as reason:
            _end(place, reason)

    # -- dealing ---------------------------------------------------------------------------------------------------
    def behind(self, supply: Mapping[str, int], left: Allowance) -> list[Waiting]:
        """See ``Company``: claims on these queues that would find nothing yet."""
        taken: dict[_Place, None] = {}
        commands, rows, size = left
        for queue, tasks in supply.items():
            parked = self._queues.get(queue)
            if not parked or commands <= 0 or rows <= 0:
                continue
            eager = (
                seat
                for seat in parked.values()
                if not seat.place.doubtful and self._sight.serves(seat.claim.worker_id, queue)
            )
            for seat, share in self._dealt(eager, min(tasks, rows)):
                if seat.place not in taken:
                    if commands <= 0 or size <= 0:
                        continue
                    taken[seat.place] = None
                    commands, size = commands - 1, size - len(seat.place.sealed.command)
                seat.share, rows = share, rows - share
                self._stand_up(seat)
        return [self._waiting(place, waits=True) for place in taken]

    def due(self, stamp: Stamp) -> Mapping[str, int]:
        """See ``Company``."""
        return self._sight.due(stamp.now_ms, stamp.wall_ms) if self._queues else {}

    def _dealt(self, seats: Iterable[_Seat], tasks: int) -> Iterator[tuple[_Seat, int]]:
        """Deal so many tasks, one by one; those that get none do not come out."""
        chosen = list(islice(seats, max(tasks, _LOOKS_AT_LEAST)))
        loads: dict[int, int] = {}
        for seat in chosen:
            worker_id = seat.claim.worker_id
            if worker_id not in loads:
                worker = self._sight.worker(worker_id)
                loads[worker_id] = worker.leases if worker else 0
        self._level(loads)
        shares = [0] * len(chosen)
        heap = [
            (loads[seat.claim.worker_id], self._grants[seat.claim.worker_id], seat.ticket, number)
            for number, seat in enumerate(chosen)
        ]
        heapq.heapify(heap)
        while tasks and heap:
            load, grants, ticket, number = heapq.heappop(heap)
            claim = chosen[number].claim
            if load == loads[claim.worker_id]:
                tasks -= 1
                shares[number] += 1
                loads[claim.worker_id] += 1
            if shares[number] < claim.max:  # a worker may have got something through another of its claims
                heapq.heappush(heap, (loads[claim.worker_id], grants, ticket, number))
        return ((seat, share) for seat, share in zip(chosen, shares, strict=True) if share)

    def _level(self, workers: Iterable[int]) -> None:
        """Bring what these workers were granted near to each other, so that nobody makes up for long times gone by."""
        known = [self._grants[worker_id] for worker_id in workers if worker_id in self._grants]
        least = max(min(known), max(known) - _GRANTS_BEHIND_MAX) if known else 0
        for worker_id in workers:
            self._grants[worker_id] = max(least, self._grants.get(worker_id, 0))

    # -- news ------------------------------------------------------------------------------------------------------
    def news(self, subject: Subject) -> None:
        """Something happened to a queue or a worker."""
        if subject.kind == "queue" and subject.name in self._queues:
            self._look_again((str(subject.name),))
        elif subject.kind == "worker" and isinstance(subject.name, int):
            for seat in list(self._workers.get(subject.name, {}).values()):
                if seat.place.parked:
                    self._reconsider(seat)
            if subject.name in self._grants and not self._alive(subject.name):
                del self._grants[subject.name]

    def _reconsider(self, seat: _Seat) -> None:
        place = seat.place
        if not self._alive(seat.claim.worker_id):
            seat.share = seat.claim.max
            self._propose(place)  # to be refused
        elif place.news is not None and self._sight.directives(place.news) != place.told:
            self._leave(place)
            _end(place, _TimeIsUp())
        else:
            self._look_again(seat.queues)

    def _alive(self, worker_id: int) -> bool:
        worker = self._sight.worker(worker_id)
        return worker is not None and worker.alive

    def _look_again(self, queues: Iterable[str]) -> None:
        for queue in queues:
            self._looks[queue] = None
        if self._looks and not self._look_wanted:
            self._look_wanted = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Propose claims on queues that have something to give."""
        self._look_wanted = False
        looks, self._looks = self._looks, {}
        for queue in looks:
            parked = self._queues.get(queue)
            if not parked:
                continue
            outlook = self._sight.outlook(queue)
            able = (seat for seat in list(parked.values()) if self._sight.claimable(seat.claim))
            wanted: dict[_Place, None] = {}
            if outlook.drained:
                wanted = {seat.place.whole(): None for seat in able}
            elif outlook.claimable:
                for seat, share in self._dealt(able, outlook.claimable):
                    seat.share = share
                    wanted[seat.place] = None
            for place in wanted:
                self._propose(place)

    # -- the end ---------------------------------------------------------------------------------------------------
    def step_aside(self, reason: NotApplied) -> None:
        """This node does not lead any more: its parked claims go to whoever does."""
        self._grants.clear()
        self._end_all(reason)

    def drain(self) -> None:
        """End every wait now, and let no new one begin."""
        self._draining = True
        self._end_all(_TimeIsUp())

    def _end_all(self, error: Exception) -> None:
        for places in list(self._keys.values()):
            for place in list(places.values()):
                self._leave(place)
                _end(place, error)


def gather_s(dead_after_ms: int) -> float:
    """How long a sign of life may wait for others, given how long its worker may stay silent."""
    return min(GATHER_S, dead_after_ms / 1000 / BEATS_PER_LIMIT)


def _claims(command: Claim | ClaimBatch) -> list[Claim]:
    if isinstance(command, Claim):
        return [command]
    return [Claim(worker_id=one.worker_id, queues=one.queues, max=one.max, number=one.number) for one in command.claims]


def _op(command: Claim | ClaimBatch) -> str:
    return str(command.__struct_config__.tag)


def _found(value: object) -> bool:
    """Whether claims came to anything, a refusal included."""
    if isinstance(value, Granted):
        return bool(value.grants or value.drained)
    return not isinstance(value, GrantedMany) or any(one.settled for one in value.items)


def _drop(places: dict[K, dict[int, V]], name: K, ticket: int) -> None:
    """Take something out, and with the last of them its list."""
    found = places.get(name)
    if found is not None:
        found.pop(ticket, None)
        if not found:
            del places[name]


def _end(place: _Place, error: Exception) -> None:
    if not place.future.done():
        place.future.set_exception(error)
        place.future.exception()  # whoever waited may have gone meanwhile
