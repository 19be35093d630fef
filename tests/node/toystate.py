"""A state of queues and workers that is small enough to be seen through, behind a real committer and real parking.

``Toy`` is the state and what the leader sees of it; ``Leader`` puts it behind a log that applies an entry when a test says
so, or at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from quorl.cluster.machine.events import Event, QueueReady, WorkerChanged
from quorl.cluster.machine.machine import Applied, Outcome
from quorl.cluster.machine.outlook import Outlook, WorkerState
from quorl.cluster.node.committer import Committer
from quorl.cluster.node.parking import Parking
from quorl.cluster.node.subjects import Subject, subjects_of
from quorl.cluster.node.timekeeper import Stamp
from quorl.cluster.protocol.entry import AnyCommand, Entry, Sealed, decode_entry, encode_command
from quorl.cluster.protocol.grammar import Rejection, Reply
from quorl.cluster.protocol.leases import Claim, Directives, GetDirectives, Grant, Granted
from quorl.cluster.protocol.submitting import QueuedTask, SubmitBatch, Submitted
from quorl.cluster.protocol.together import ClaimBatch, ClaimMany, GrantedMany, OneClaim, Seat, Share
from quorl.cluster.protocol.workers import WorkerNotAlive

_decode = msgspec.msgpack.Decoder(AnyCommand).decode


class Toy:
    """Queues that are numbers of tasks, and workers that are numbers of leases."""

    def __init__(self, **workers: int) -> None:
        self.tasks: dict[str, int] = {}
        self.leases = dict(enumerate(workers.values(), 1))
        self.dead: set[int] = set()
        self.barred: set[int] = set()
        """Workers to which nothing is handed out."""
        self.resting: set[int] = set()
        """Workers that are known to get nothing."""
        self.sealed = False
        self.told = Directives()
        self.receipts: dict[str, Granted | GrantedMany] = {}
        self.dead_after_ms = 10_000
        self.tokens = 0
        self.soon: dict[str, int] = {}
        """What every entry makes claimable."""

    # -- what the leader sees --------------------------------------------------------------------------------------
    def claimable(self, claim: Claim) -> bool:
        if claim.worker_id in self.dead:
            return True
        waiting = any(self.tasks.get(queue) for queue in claim.queues)
        return (waiting and claim.worker_id not in self.barred) or self._drained(claim)

    def remembers(self, op: str, key: str) -> bool:
        return key in self.receipts

    def worker(self, worker_id: int) -> WorkerState | None:
        leases = self.leases.get(worker_id)
        if leases is None:
            return None
        return WorkerState("DEAD" if worker_id in self.dead else "ALIVE", self.dead_after_ms, ("q",), leases)

    def outlook(self, queue: str) -> Outlook:
        return Outlook(self.tasks.get(queue, 0), drained=self.sealed and not self.tasks.get(queue))

    def serves(self, worker_id: int, queue: str) -> bool:
        return worker_id not in self.resting

    def due(self, now_ms: int, wall_ms: int) -> Mapping[str, int]:
        return self.soon

    def directives(self, request: GetDirectives) -> Directives:
        return self.told

    def _drained(self, claim: Claim) -> bool:
        return self.sealed and not any(self.tasks.get(queue) for queue in claim.queues)

    # -- what entries do to it -------------------------------------------------------------------------------------
    def apply(self, entry: Entry) -> tuple[list[Outcome], list[Event]]:
        events: list[Event] = []
        outcomes = []
        for queue, tasks in self.soon.items():
            self._come(queue, tasks, events)
        for sealed in entry.commands:
            known = self.receipts.get(sealed.key or "")
            if known is not None:
                outcomes.append(Outcome(known, replayed=True))
                continue
            value = self._do(_decode(sealed.command), events)
            if isinstance(value, GrantedMany) and any(one.settled for one in value.items):
                self.receipts[sealed.key or ""] = value
            if isinstance(value, Granted) and value.grants:
                self.receipts[sealed.key or ""] = value
            outcomes.append(Outcome(value, replayed=False))
        return outcomes, events

    def _come(self, queue: str, tasks: int, events: list[Event]) -> None:
        self.tasks[queue] = self.tasks.get(queue, 0) + tasks
        events.append(QueueReady(queue))

    def _do(self, command: Any, events: list[Event]) -> Reply | Rejection:
        match command:
            case SubmitBatch(queue=queue, tasks=tasks):
                self._come(queue, len(tasks), events)
                return Submitted(items=[])
            case ClaimBatch(claims=seats):
                return GrantedMany(items=[self._share(seat) for seat in seats])
            case Claim():
                return self._claim(command)
            case _:
                raise AssertionError(command)

    def _share(self, seat: Seat) -> Share:
        said = self._claim(Claim(worker_id=seat.worker_id, queues=seat.queues, max=seat.max))
        if isinstance(said, WorkerNotAlive):
            return Share(seat.worker_id, code="worker_not_alive", at=seat.at)
        return Share(seat.worker_id, 1, tuple(said.grants), said.drained, at=seat.at)

    def _claim(self, command: Claim) -> Granted | WorkerNotAlive:
        worker_id = command.worker_id
        if worker_id in self.dead:
            return WorkerNotAlive()
        queue = next((name for name in command.queues if self.tasks.get(name)), "")
        got = 0 if worker_id in self.barred else min(command.max, self.tasks.get(queue, 0))
        self.tasks[queue] = self.tasks.get(queue, 0) - got
        self.leases[worker_id] += got
        grants = [Grant(0, self.tokens + number, 1) for number in range(1, got + 1)]
        self.tokens += got
        drained = not got and self._drained(command)
        return Granted(worker_id=worker_id, expires_in_ms=1, grants=grants, drained=drained)


class Leader:
    """A committer and parking over a toy. ``held``: entries are applied only by ``apply``."""

    def __init__(self, toy: Toy, *, held: bool = False) -> None:
        self.toy = toy
        self.held = held
        self.waited = False
        self.entries: list[Entry] = []
        self.under_way: asyncio.Future[Applied]
        self.now_ms = 1
        loop = asyncio.get_running_loop()
        self.parking = Parking(toy, lambda: self.committer, loop.time)
        self.committer = Committer(
            self, lambda: Stamp(self.now_ms, 1), lambda _: 1, node="n1", seed=lambda: 42, company=self.parking
        )
        self.committer.lead()

    def propose(self, payload: bytes) -> asyncio.Future[Applied]:
        self.entries.append(decode_entry(payload))
        self.under_way = asyncio.get_running_loop().create_future()
        if not self.held:
            asyncio.get_running_loop().call_soon(self.apply)
        return self.under_way

    def announce(self) -> None:
        """Nobody listens."""

    def apply(self) -> None:
        """Apply the entry that is under way."""
        outcomes, events = self.toy.apply(self.entries[-1])
        self.tell(*events)
        self.under_way.set_result(Applied(len(self.entries), outcomes, events))

    def tell(self, *events: Event) -> None:
        for event in events:
            found = subjects_of(event)
            assert found is not None
            for name in found.names:
                self.parking.news(Subject(found.kind, name))

    def change(self, worker_id: int) -> None:
        self.tell(WorkerChanged(worker_id))

    def submit(self, tasks: int = 1, queue: str = "q") -> asyncio.Future[Any]:
        blank = QueuedTask(None, "t", b"{}", 5, None, 0, None, None, None, None, None, None)
        command = SubmitBatch(queue=queue, tasks=[blank] * tasks)
        return self.committer.submit(Sealed(None, b"", encode_command(command)))

    def claim(
        self,
        worker_id: int,
        key: str | None = None,
        *,
        most: int = 10,
        wait_s: float = 5.0,
        queues: tuple[str, ...] = ("q",),
        news: bool = False,
    ) -> asyncio.Task[Any]:
        claim = Claim(worker_id=worker_id, queues=queues, max=most)
        sealed = Sealed(key or f"key-{worker_id}", b"d", encode_command(claim))
        until = asyncio.get_running_loop().time() + wait_s
        asked = GetDirectives(worker_id=worker_id) if news else None
        return asyncio.ensure_future(self.parking.claim(sealed, claim, until, asked))

    def claim_many(self, *workers: int, key: str = "many", queue: str = "q", wait_s: float = 5.0) -> asyncio.Task[Any]:
        """One task for each of these workers."""
        request = ClaimMany(claims=tuple(OneClaim(worker_id=one, queues=(queue,)) for one in workers), wait=wait_s)
        sealed = Sealed(key, b"d", encode_command(request))
        until = asyncio.get_running_loop().time() + wait_s
        return asyncio.ensure_future(self.parking.claim(sealed, request.sealed(), until, None))

    def said(self) -> list[list[str]]:
        """The entries, in short: ``submit 2``, ``claim 1 x3`` (worker 1, up to three tasks)."""
        return [[_short(_decode(sealed.command)) for sealed in entry.commands] for entry in self.entries]


def _short(command: Any) -> str:
    if isinstance(command, SubmitBatch):
        return f"submit {len(command.tasks)}"
    if isinstance(command, ClaimBatch):
        return "claims " + " ".join(f"{one.worker_id} x{one.max}" for one in command.claims)
    return f"claim {command.worker_id} x{command.max}"


async def turns(number: int = 9) -> None:
    """Let everything that is ready go on."""
    for _ in range(number):
        await asyncio.sleep(0)


async def passing(seconds: float) -> None:
    """Let so much time go by; only where time jumps."""
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=seconds)
