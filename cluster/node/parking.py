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
from quorl.cluster.node.committer import Decided, Room, Waiting
from quorl.cluster.node.subjects import Subject
from quorl.cluster.node.timekeeper import Stamp
from quorl.cluster.protocol.entry import Sealed, SignOfLife, encode_command
from quorl.cluster.protocol.leases import Claim, Directives, GetDirectives, Granted

K = TypeVar("K", str, int)

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

    def remembers(self, key: str) -> bool:
        """Return whether there is a receipt of a claim under this key."""

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


class Log(Protocol):
    """What parking needs of the committer."""

    def enqueue(self, waiting: Waiting) -> None:
        """See ``Committer``."""

    def note(self, sign: SignOfLife, within_s: float) -> None:
        """See ``Committer``."""


class _TimeIsUp(Exception):
    """A parked claim ends without an outcome."""


class _Place:
    """One claim, parked or under way."""

    __slots__ = ("claim", "doubtful", "future", "news", "queues", "sealed", "share", "ticket", "told")

    def __init__(self, ticket: int, sealed: Sealed, claim: Claim, queues: tuple[str, ...]) -> None:
        self.ticket = ticket
        self.sealed = sealed
        self.claim = claim
        self.queues = queues
        self.future: asyncio.Future[Decided]
        self.share = 0
        """How many tasks were dealt to it."""
        self.doubtful = False
        """It was proposed and found nothing: only a look at the state leads to another try."""
        self.news: GetDirectives | None = None
        self.told: Directives | None = None
        """What its worker was to be told when it came."""


class Parking:
    """The claims that wait at this node while it leads. Implements ``committer.Company``."""

    def __init__(self, sight: Sight, log: Callable[[], Log], monotonic: Callable[[], float]) -> None:
        self._sight = sight
        self._log = log
        self._monotonic = monotonic
        self._tickets = count()
        self._queues: dict[str, dict[int, _Place]] = {}
        self._workers: dict[int, dict[int, _Place]] = {}
        self._keys: dict[str, dict[int, _Place]] = {}
        self._grants: dict[int, int] = {}
        """How many tasks each worker was granted; who is new begins like the one that was granted the fewest."""
        self._looks: dict[str, None] = {}
        """The queues that are to be looked at."""
        self._look_wanted = False
        self._draining = False

    # -- the claims ------------------------------------------------------------------------------------------------
    async def claim(self, sealed: Sealed, claim: Claim, until: float, news: GetDirectives | None) -> Decided | None:
        """Commit a claim once there is something for it; None when the time is over, or there is news for its worker.

        Raises ``NotApplied`` or ``OutcomeUnknown``.
        """
        place = self._place(sealed, claim)
        until = self._greet(place, until, news)
        worth = self._sight.remembers(sealed.key or "") or self._sight.claimable(claim)
        fruitless = 0
        try:
            while True:
                place.future = asyncio.get_running_loop().create_future()
                if worth:
                    self._log().enqueue(self._waiting(place, claim.max, waits=self._monotonic() < until))
                elif self._draining or self._monotonic() >= until:
                    return None
                else:
                    self._park(place)
                outcome, sequence = await self._turn(place, until)
                found = not isinstance(outcome.value, Granted) or outcome.value.grants or outcome.value.drained
                if found or outcome.replayed or self._monotonic() >= until:
                    self._served(place, outcome.value)
                    return outcome, sequence
                place.doubtful = True
                fruitless = fruitless + 1 if worth else 0
                worth = fruitless < _FRUITLESS_MAX and self._sight.claimable(claim)
        except _TimeIsUp:
            return None
        except asyncio.CancelledError:
            self._look_again(place.queues)  # what was on its way to a caller who is gone is there for others
            raise
        finally:
            self._leave(place)

    def _place(self, sealed: Sealed, claim: Claim) -> _Place:
        worker = self._sight.worker(claim.worker_id)
        queues = claim.queues or (worker.queues if worker else ())
        return _Place(next(self._tickets), sealed, claim, queues)

    def _greet(self, place: _Place, until: float, news: GetDirectives | None) -> float:
        """Take the call for a sign of life; gives the moment until which it may wait."""
        worker = self._sight.worker(place.claim.worker_id)
        if worker is None or not worker.alive:
            return until
        self._log().note(SignOfLife(place.claim.worker_id), gather_s(worker.dead_after_ms))
        now = self._monotonic()
        until = min(until, now + worker.dead_after_ms / 2000)
        if news is not None:
            place.news, place.told = news, self._sight.directives(news)
            if place.told != Directives():
                until = min(until, now + _TOLD_S)
        return until

    async def _turn(self, place: _Place, until: float) -> Decided:
        """Wait until the claim was decided, or until its time is over while it is still parked."""
        left_s = max(0.0, until - self._monotonic())
        timer = asyncio.get_running_loop().call_later(left_s, self._expire, place)
        try:
            return await place.future
        finally:
            timer.cancel()

    def _expire(self, place: _Place) -> None:
        if place.ticket in self._workers.get(place.claim.worker_id, ()):
            self._leave(place)
            _end(place, _TimeIsUp())

    def _served(self, place: _Place, value: object) -> None:
        """A claim has its outcome: other tries of it get the same, and what it left is dealt again."""
        for twin in list(self._keys.get(place.sealed.key or "", {}).values()):
            self._propose(twin, twin.claim.max)
        if isinstance(value, Granted):
            worker_id = place.claim.worker_id
            self._grants[worker_id] = self._grants.get(worker_id, 0) + len(value.grants)
            if len(value.grants) < place.share:
                self._look_again(place.queues)

    # -- the places ------------------------------------------------------------------------------------------------
    def _park(self, place: _Place) -> None:
        ticket = place.ticket
        for queue in place.queues:
            self._queues.setdefault(queue, {})[ticket] = place
        self._workers.setdefault(place.claim.worker_id, {})[ticket] = place
        self._keys.setdefault(place.sealed.key or "", {})[ticket] = place

    def _leave(self, place: _Place) -> None:
        for queue in place.queues:
            _drop(self._queues, queue, place.ticket)
        _drop(self._workers, place.claim.worker_id, place.ticket)
        _drop(self._keys, place.sealed.key or "", place.ticket)

    def _waiting(self, place: _Place, share: int, *, waits: bool) -> Waiting:
        """The claim as it is proposed, for so many tasks; it is parked no longer."""
        self._leave(place)
        place.share = share
        claim = msgspec.structs.replace(place.claim, max=share, wait=int(waits))
        return Waiting(msgspec.structs.replace(place.sealed, command=encode_command(claim)), place.future)

    def _propose(self, place: _Place, share: int) -> None:
        try:
            self._log().enqueue(self._waiting(place, share, waits=True))
        except NotApplied as reason:
            _end(place, reason)

    # -- dealing ---------------------------------------------------------------------------------------------------
    def behind(self, supply: Mapping[str, int], room: Room) -> list[Waiting]:
        """See ``Company``: claims on these queues that would find nothing yet."""
        taken: list[Waiting] = []
        commands, rows, size = room
        for queue, tasks in supply.items():
            parked = self._queues.get(queue)
            if not parked or commands <= 0 or rows <= 0:
                continue
            eager = (
                place
                for place in parked.values()
                if not place.doubtful and self._sight.serves(place.claim.worker_id, queue)
            )
            for place, share in self._dealt(eager, min(tasks, rows)):
                if commands <= 0 or size <= 0:
                    break
                waiting = self._waiting(place, share, waits=True)
                commands, rows, size = commands - 1, rows - share, size - len(waiting.sealed.command)
                taken.append(waiting)
        return taken

    def due(self, stamp: Stamp) -> Mapping[str, int]:
        """See ``Company``."""
        return self._sight.due(stamp.now_ms, stamp.wall_ms) if self._queues else {}

    def _dealt(self, places: Iterable[_Place], tasks: int) -> Iterator[tuple[_Place, int]]:
        """Deal so many tasks, one by one; those that get none do not come out."""
        chosen = list(islice(places, max(tasks, _LOOKS_AT_LEAST)))
        loads: dict[int, int] = {}
        for place in chosen:
            worker_id = place.claim.worker_id
            if worker_id not in loads:
                worker = self._sight.worker(worker_id)
                loads[worker_id] = worker.leases if worker else 0
        self._level(loads)
        shares = [0] * len(chosen)
        heap = [
            (loads[place.claim.worker_id], self._grants[place.claim.worker_id], place.ticket, number)
            for number, place in enumerate(chosen)
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
        return ((place, share) for place, share in zip(chosen, shares, strict=True) if share)

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
            for place in list(self._workers.get(subject.name, {}).values()):
                self._reconsider(place)
            if subject.name in self._grants and not self._alive(subject.name):
                del self._grants[subject.name]

    def _reconsider(self, place: _Place) -> None:
        if not self._alive(place.claim.worker_id):
            self._propose(place, place.claim.max)  # to be refused
        elif place.news is not None and self._sight.directives(place.news) != place.told:
            self._leave(place)
            _end(place, _TimeIsUp())
        else:
            self._look_again(place.queues)

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
            able = (place for place in list(parked.values()) if self._sight.claimable(place.claim))
            if outlook.drained:
                for place in list(able):
                    self._propose(place, place.claim.max)
            elif outlook.claimable:
                for place, share in self._dealt(able, outlook.claimable):
                    self._propose(place, share)

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
        for places in list(self._workers.values()):
            for place in list(places.values()):
                self._leave(place)
                _end(place, error)


def gather_s(dead_after_ms: int) -> float:
    """How long a sign of life may wait for others, given how long its worker may stay silent."""
    return min(GATHER_S, dead_after_ms / 1000 / BEATS_PER_LIMIT)


def _drop(places: dict[K, dict[int, _Place]], name: K, ticket: int) -> None:
    """Take a place out, and with the last of them its list."""
    found = places.get(name)
    if found is not None:
        found.pop(ticket, None)
        if not found:
            del places[name]


def _end(place: _Place, error: Exception) -> None:
    if not place.future.done():
        place.future.set_exception(error)
        place.future.exception()  # whoever waited may have gone meanwhile
