"""Nodes without consensus for tests of the gateway: a real machine behind a scripted log, and scripted peers.

``Group`` is one replicated log: every ``FakeCore`` of it applies the same entries, followers as soon as they are let.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.machine.events import Appended, TopicDeleted
from quorl.cluster.machine.machine import Machine
from quorl.cluster.machine.outcomes import Outcome
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.node.gateway import Gateway
from quorl.cluster.protocol.entry import Entry, Sealed, encode_entry
from quorl.cluster.protocol.grammar import Inspection, Query, Rejection, Reply
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.system import ClusterInfo
from quorl.cluster.protocol.wire import Answer, Call


class Group:
    """One log, several nodes; ``leader`` is whoever the test says."""

    def __init__(self, *names: str) -> None:
        self.leader: str | None = names[0]
        self.entries: list[bytes] = []
        self.changed: asyncio.Event = asyncio.Event()
        self.cores = {name: FakeCore(name, self) for name in names}

    def lead(self, name: str | None) -> None:
        self.leader = name
        self.wake()

    def wake(self) -> None:
        """Wake everybody who waits for anything; they look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    def commit(self, *sealed: Sealed) -> None:
        now_ms = 1_700_000_000_000 + len(self.entries)
        self.entries.append(encode_entry(Entry(now_ms=now_ms, wall_ms=now_ms, commands=sealed)))


class FakeCore:
    """One node of a group. ``script`` replaces coming submissions: an exception to raise before or after the commit."""

    def __init__(self, name: str, group: Group) -> None:
        self.name = name
        self.group = group
        self.machine = Machine(sqlite3.connect(":memory:", isolation_level=None))
        self.appended: dict[str, int] = {}
        self.script: list[Exception] = []
        self.held = False
        """Whether this node keeps back what it should apply."""
        self.submitted: list[Sealed] = []
        self.behind: list[Sealed] = []
        """Commands that travel in the same entry as the next submission, behind it."""
        self.barriers = 0
        self.reading: Awaitable[None] | None = None

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

    def catch_up(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while self.sequence() < len(self.group.entries):
            index = self.sequence() + 1
            applied = self.machine.apply(index, 1, self.group.entries[index - 1])
            outcomes = applied.outcomes
            for event in applied.events:
                if isinstance(event, (Appended, TopicDeleted)):
                    self.appended[event.topic] = applied.sequence
        return outcomes

    async def submit(self, sealed: Sealed) -> tuple[Outcome, int]:
        self.submitted.append(sealed)
        error = self.script.pop(0) if self.script else None
        if error is not None and not isinstance(error, OutcomeUnknown):
            raise error
        if not self.leads():
            raise NotApplied("no_leader", f"{self.name} does not lead")
        self.group.commit(sealed, *self.behind)
        self.behind = []
        outcome, *_ = self.catch_up()
        for core in self.group.cores.values():
            if not core.held:
                core.catch_up()
        self.group.wake()
        if error is not None:
            raise error
        return outcome, self.sequence()

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

    async def wait_topic(self, topic: str, sequence: int, deadline: float) -> bool:
        return await self._until(lambda: self.appended.get(topic, 0) > sequence, deadline)

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
        return Problem("no_quorum", "2 of 3 members cannot be reached: n2 (refused), n3 (time-out)")


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
        if call.path == "/internal/barrier":
            core = self.group.cores[peer]
            if not core.leads():
                return Answer(503, {}, b"{}")
            return Answer(200, {}, msgspec.json.encode({"sequence": await core.barrier()}))
        return await self.gateways[peer].handle(call)


class Silent:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, object]] = []

    def exception(self, event: str, **fields: object) -> None:
        self.told.append({"event": event, **fields})


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
