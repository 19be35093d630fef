"""Nodes without consensus for tests of the gateway: a real machine behind a scripted log, and scripted peers.

``Group`` is one replicated log: every ``FakeCore`` of it applies the same entries, followers as soon as they are let. What
leads is real from the committer on; only the log beneath commits at once.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import msgspec

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.machine.machine import Applied, Machine
from quorl.cluster.machine.outcomes import Outcome
from quorl.cluster.node.committer import Committer
from quorl.cluster.node.core import PREFIX, PeerLost, PeerUnreachable
from quorl.cluster.node.gateway import Gateway
from quorl.cluster.node.internal import Internal
from quorl.cluster.node.parking import Parking, gather_s
from quorl.cluster.node.patience import Haste
from quorl.cluster.node.sight import StateSight
from quorl.cluster.node.subjects import Subject, subjects_of
from quorl.cluster.node.timekeeper import Stamp
from quorl.cluster.protocol.entry import Entry, Sealed, SignOfLife, decode_entry
from quorl.cluster.protocol.grammar import Inspection, Query, Rejection, Reply
from quorl.cluster.protocol.leases import Claim, GetDirectives
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.system import ClusterInfo, LeadershipTransferred, MemberNotFound
from quorl.cluster.protocol.together import ClaimBatch
from quorl.cluster.protocol.wire import Answer, Call


class Group:
    """One log, several nodes; ``leader`` is whoever the test says."""

    def __init__(self, *names: str) -> None:
        self.leader: str | None = names[0]
        self.entries: list[bytes] = []
        self.changed: asyncio.Event = asyncio.Event()
        self.passed_ms = 0
        self.cores = {name: FakeCore(name, self) for name in names}
        self.cores[names[0]].committer.lead()

    def lead(self, name: str | None) -> None:
        former, self.leader = self.leader, name
        if former is not None and former != name:
            self.cores[former].step_aside()
        if name is not None and former != name:
            self.cores[name].committer.lead()
        self.wake()

    def wake(self) -> None:
        """Wake everybody who waits for anything; they look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    def stamp(self) -> Stamp:
        """A millisecond an entry, and whatever a test has let go by."""
        now_ms = 1_700_000_000_000 + len(self.entries) + self.passed_ms
        return Stamp(now_ms, now_ms)

    def said(self) -> list[Entry]:
        """The entries, read back."""
        return [decode_entry(payload) for payload in self.entries]


class FakeCore:
    """One node of a group. ``script`` replaces coming submissions: an exception to raise before or after the commit."""

    def __init__(self, name: str, group: Group) -> None:
        self.name = name
        self.group = group
        self.machine = Machine(sqlite3.connect(":memory:", isolation_level=None))
        self.news: dict[Subject, int] = {}
        self.script: list[Exception] = []
        self.held = False
        self.waited = False
        """Whether this node keeps back what it should apply."""
        self.submitted: list[Sealed] = []
        self.behind: list[Sealed] = []
        """Commands that travel in the same entry as the next submission, behind it."""
        self.barriers = 0
        self.why_not = Problem("no_quorum", "2 of 3 members cannot be reached: n2 (refused), n3 (time-out)")
        """Why nothing can be decided."""
        self.reading: Awaitable[None] | None = None
        sight = StateSight(lambda: self.machine)
        self.parking = Parking(sight, lambda: self.committer, self.monotonic)
        self.committer = Committer(
            self, group.stamp, self.machine.partitions, node=name, seed=lambda: 42, company=self.parking
        )

    def leader(self) -> str | None:
        return self.group.leader

    def leads(self) -> bool:
        return self.group.leader == self.name

    def sequence(self) -> int:
        return self.machine.position.sequence

    def term(self) -> int:
        return 7

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def may_pack(self) -> bool:
        return True

    def step_aside(self) -> None:
        """Lead no longer."""
        reason = NotApplied("no_leader", f"{self.name} does not lead any more")
        self.parking.step_aside(reason)
        self.committer.step_aside(reason)

    def catch_up(self) -> Applied | None:
        applied = None
        while self.sequence() < len(self.group.entries):
            index = self.sequence() + 1
            applied = self.machine.apply(index, 1, self.group.entries[index - 1])
            for event in applied.events:
                found = subjects_of(event)
                for subject in [Subject(found.kind, name) for name in found.names] if found else []:
                    self.news[subject] = applied.sequence
                    if self.leads():
                        self.parking.news(subject)
        return applied

    # -- the log that the committer stands on ----------------------------------------------------------------------
    def propose(self, payload: bytes) -> asyncio.Future[Applied]:
        self.group.entries.append(payload)
        future: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        applied = self.catch_up()
        assert applied is not None
        future.set_result(applied)
        for core in self.group.cores.values():
            if not core.held:
                core.catch_up()
        self.group.wake()
        return future

    def announce(self) -> None:
        """Everybody knows."""

    # -- Core ------------------------------------------------------------------------------------------------------
    def _check_serving(self) -> None:
        if not self.leads():
            raise NotApplied("no_leader", f"{self.name} does not lead")

    async def submit(self, sealed: Sealed, haste: Haste = Haste.SOON) -> tuple[Outcome, int]:
        self.submitted.append(sealed)
        error = self.script.pop(0) if self.script else None
        if error is not None and not isinstance(error, OutcomeUnknown):
            raise error
        self._check_serving()
        done = self.committer.submit(sealed, Haste.SOON if self.behind else haste)
        for other in self.behind:
            _ = self.committer.submit(other)
        self.behind = []
        decided = await asyncio.shield(done)
        if error is not None:
            raise error
        return decided

    async def claim(
        self, sealed: Sealed, claim: Claim | ClaimBatch, until: float, news: GetDirectives | None = None
    ) -> tuple[Outcome, int] | None:
        self._check_serving()
        return await self.parking.claim(sealed, claim, until, news)

    async def sign(self, signs: Sequence[SignOfLife]) -> int:
        self._check_serving()
        return await self.committer.sign(signs)

    def note(self, sign: SignOfLife) -> None:
        found = self.machine.worker(sign.worker_id)
        if found is not None and found.alive:
            self.committer.note(sign, gather_s(found.dead_after_ms))

    async def dead_after_ms(self, worker_id: int) -> int | None:
        found = self.machine.worker(worker_id)
        return found.dead_after_ms if found is not None and found.alive else None

    def first_index(self) -> int:
        return 1

    async def transfer(self, to: str | None, until: float) -> Reply | Rejection:
        if to not in {None, *self.group.cores}:
            return MemberNotFound(detail=f'No member is called "{to}".')
        new = to or next(name for name in self.group.cores if name != self.name)
        self.group.lead(new)
        return LeadershipTransferred(from_=self.name, to=new, term=self.term(), took_ms=int(until > 0))

    async def barrier(self) -> int:
        self.barriers += 1
        if self.script:
            raise self.script.pop(0)
        return self.sequence()

    async def _until(self, ready: Callable[[], bool], deadline: float) -> bool:
        while not ready():
            try:
                async with asyncio.timeout_at(deadline):
                    await self.group.changed.wait()
            except TimeoutError:
                return ready()
        return True

    async def wait_applied(self, sequence: int, deadline: float) -> bool:
        return await self._until(lambda: self.sequence() >= sequence, deadline)

    async def wait_leader(self, other_than: str | None, deadline: float) -> str | None:
        await self._until(lambda: self.leader() is not None and self.leader() != other_than, deadline)
        return self.leader()

    async def wait_news(self, subject: Subject, sequence: int, deadline: float) -> bool:
        return await self._until(lambda: self.news.get(subject, 0) > sequence, deadline)

    async def read(self, request: Query[Any]) -> Reply | Rejection:
        if self.reading is not None:
            await self.reading
        return self.machine.query(request)

    async def render(self, value: Reply | Rejection) -> Reply | Rejection:
        return self.machine.render(value)

    def inspect(self, request: Inspection[Any]) -> Reply:
        return ClusterInfo(
            name="test",
            cluster_id=None,
            node=self.name,
            leader=self.leader(),
            term=7,
            quorum=2,
            health="ok",
            sequence=self.sequence(),
            machine_version=1,
            digest="",
            members=[],
        )

    def outage(self) -> Problem:
        return self.why_not


class AnswerLost(PeerLost):
    """The peer did what it was asked, and its answer got lost."""


class FakePeers:
    """Calls go to the other gateways of the group. ``script`` replaces coming calls.

    A step is an answer to give, an exception to raise (``AnswerLost`` after the call was done), or a function.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.gateways: dict[str, Gateway] = {}
        self.calls: list[tuple[str, Call]] = []
        self.script: list[Answer | Exception | Callable[[str, Call], Awaitable[Answer]]] = []

    async def call(self, peer: str, call: Call, timeout_s: float) -> Answer:
        self.calls.append((peer, call))
        step = self.script.pop(0) if self.script else None
        if isinstance(step, AnswerLost):
            await self.deliver(peer, call)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Answer):
            return step
        if step is not None:
            return await step(peer, call)
        return await self.deliver(peer, call)

    async def deliver(self, peer: str, call: Call) -> Answer:
        if peer not in self.gateways:
            raise PeerUnreachable(f"{peer}: refused")
        if call.path.startswith(PREFIX):
            return await Internal(self.group.cores[peer], *[cast("Any", None)] * 4).handle(call)
        return await self.gateways[peer].handle(call)


class Silent:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, object]] = []

    def _keep(self, event: str, **fields: object) -> None:
        self.told.append({"event": event, **fields})

    info = warning = error = exception = _keep


class Cluster:
    """A group with a gateway for every node."""

    def __init__(self, *names: str, deadline_s: float = 2.0, leader_wait_s: float = 0.1) -> None:
        self.group = Group(*(names or ("n1", "n2", "n3")))
        self.peers = FakePeers(self.group)
        self.log = Silent()
        self.keys = 0
        for name, core in self.group.cores.items():
            self.peers.gateways[name] = Gateway(
                core,
                self.peers,
                self._key,
                lambda: "made-id",
                deadline_s=deadline_s,
                leader_wait_s=leader_wait_s,
                log=self.log,
            )

    def _key(self) -> str:
        self.keys += 1
        return f"made-{self.keys}"

    def core(self, name: str) -> FakeCore:
        return self.group.cores[name]

    async def call(
        self, node: str, method: str, target: str, body: object = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Call a node's gateway; gives status, parsed body and headers."""
        path, _, query = target.partition("?")
        blob = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.peers.gateways[node].handle(Call(method, path, query, named, blob))
        return answer.status, msgspec.json.decode(answer.body), answer.headers
