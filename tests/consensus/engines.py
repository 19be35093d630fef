"""One to five engines on fake disks, cranked by hand: a test says when time passes, and when which message arrives.

Messages lie in one queue per directed link, in order, until ``deliver`` or ``settle`` takes them; a connection that is
reset loses them. Nothing else moves, so every schedule that TCP allows can be written down. Each member's state is the
list of what it applied. Like a database file it survives a kill, and a power cut takes it back to its last checkpoint.

Tests that propose must run on an event loop, for futures need one; nothing ever waits on it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

from quorl.cluster.consensus import library, messages
from quorl.cluster.consensus.align import align
from quorl.cluster.consensus.engine import Engine
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.consensus.messages import Message
from quorl.cluster.consensus.port import NetworkEvents, Timing
from quorl.cluster.consensus.replica import Callbacks, Identity, Replica
from tests.simulation.fakedisk import FakeDisk

FOUND = b"found"
"""The payload by which these clusters get their id."""

_TURNS_MAX = 10_000


_TIMING = Timing()


class HandClock:
    """Time that passes when a test says so. There is no calendar: whoever asks for it fails."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        raise AssertionError("consensus knows no calendar")


class Applied(NamedTuple):
    """One entry in a member's state."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    term: int
    payload: bytes


class Proposal:
    """A payload on its way, and what its proposer was told."""

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future

    def done(self) -> bool:
        return self.future.done()

    @property
    def error(self) -> BaseException | None:
        return self.future.exception() if self.future.done() else None


class Member:
    """One member: its disk and its state stay, its lives come and go. Its own network for its replica."""

    def __init__(self, group: Group, name: str) -> None:
        self.group = group
        self.name = name
        self.disk = FakeDisk(random.Random(f"{group.seed} {name}"))
        self.state: list[Applied] = []
        self.checkpointed: list[Applied] = []
        self.life = 0
        self.running: Replica | None = None
        self.died: str | None = None
        self.snapshots_asked: list[str] = []
        self.prepared: Applied | None = None
        self.spoiled: bytes | None = None
        """A payload whose application fails."""

    @property
    def replica(self) -> Replica:
        assert self.running is not None
        return self.running

    @property
    def engine(self) -> Engine:
        return self.replica.engine

    @property
    def log(self) -> LogStore:
        return self.engine.log

    @property
    def payloads(self) -> list[bytes]:
        """What was applied, without the founding."""
        return [applied.payload for applied in self.state if applied.payload != FOUND]

    @property
    def logged(self) -> list[bytes]:
        """The payloads in the log, committed or not."""
        entries = [command[1:] for command, _, _ in self.log[:] if command[:1] == library.REGULAR]
        return [payload for payload in entries if payload != FOUND]

    waited = False
    """Whether somebody waits at this member for what is about to be committed."""

    def propose(self, payload: bytes) -> Proposal:
        return Proposal(self.engine.propose(payload))

    def prepare(self, index: int, term: int, payload: bytes) -> None:
        """Implements ``Ahead``."""
        assert self.prepared is None, "one at a time"
        self.prepared = Applied(index, term, payload)

    def retract(self) -> None:
        """Implements ``Ahead``."""
        self.prepared = None

    # -- life ------------------------------------------------------------------------------------------------------
    def boot(self) -> None:
        group = self.group
        self.life += 1
        self.died = None
        index, term = (self.state[-1].index, self.state[-1].term) if self.state else (0, 0)
        log = LogStore(self.disk.boot(), segment_bytes=group.segment_bytes)
        stands = SimpleNamespace(position=SimpleNamespace(index=index, term=term), cluster_id=None)
        align(log, stands)  # type: ignore[arg-type]
        self.running = Replica(
            Identity("test", 0, self.name, f"life {self.life}", "0"),
            [name for name in group.names if name != self.name],
            log,
            index,
            group.clock,
            group.dice,
            group.timing,
            self,
            Callbacks(self.apply, self, self.snapshots_asked.append, lambda: None, self._on_died, lambda: self.waited),
            has_room=lambda: not self.disk.full,
        )

    def _on_died(self, reason: str) -> None:
        self.died = reason

    def apply(self, index: int, term: int, payload: bytes) -> bytes:
        if payload == self.spoiled:
            raise OSError("the state cannot take this")
        self.prepared = None
        self.state.append(Applied(index, term, payload))
        if payload == FOUND:
            self.replica.set_cluster_id("one")
        return payload

    def checkpoint(self) -> int:
        """Make the state durable; the index that it then surely contains."""
        self.checkpointed = list(self.state)
        return self.state[-1].index

    # -- port.Network ----------------------------------------------------------------------------------------------
    async def start(self, events: NetworkEvents) -> None:
        raise AssertionError("these replicas are cranked by hand")

    async def close(self) -> None:
        raise AssertionError("these replicas are cranked by hand")

    def ping(self) -> None:
        raise AssertionError("nobody here tells how he stands")

    def send(self, peer: str, frame: bytes) -> bool:
        group = self.group
        if frozenset((self.name, peer)) not in group.connections:
            return False
        group.queues[self.name, peer].append(messages.decode(frame))
        return True


class Group:
    """Members, the links between them, and time."""

    def __init__(
        self, names: str = "abc", *, seed: int = 0, segment_bytes: int = 1 << 20, timing: Timing = _TIMING
    ) -> None:
        self.seed = seed
        self.names = list(names)
        self.segment_bytes = segment_bytes
        self.timing = timing
        self.clock = HandClock()
        self.dice = random.Random(seed)
        self.connections: set[frozenset[str]] = set()
        self.queues: dict[tuple[str, str], deque[Message]] = {
            (a, b): deque() for a in self.names for b in self.names if a != b
        }
        self.held: set[tuple[str, str]] = set()
        self.paused: set[str] = set()
        self.members = {name: Member(self, name) for name in self.names}

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    # -- members ---------------------------------------------------------------------------------------------------
    def boot(self, *names: str) -> None:
        for name in names or self.names:
            self[name].boot()

    def kill(self, *names: str, power: bool = False) -> None:
        """End processes; with ``power`` their machines too."""
        for name in names:
            member = self[name]
            self.isolate(name)
            member.running = None
            if power:
                member.disk.power_cut()
                member.state = list(member.checkpointed)
            else:
                member.disk.kill()

    def wipe(self, name: str) -> None:
        """A dead member's disk is lost, and an empty one takes its place."""
        member = self[name]
        assert member.running is None
        member.disk = FakeDisk(random.Random(f"{self.seed} {name} anew"))
        member.state, member.checkpointed = [], []

    def alive(self) -> list[Member]:
        return [m for m in self.members.values() if m.running is not None and m.name not in self.paused]

    def leaders(self) -> list[str]:
        return [m.name for m in self.alive() if m.engine.leads and m.engine.fatal is None]

    # -- links -----------------------------------------------------------------------------------------------------
    def connect(self, *pairs: str) -> None:
        """Open connections: ``connect("ab", "bc")``; without pairs, all between living members."""
        living = [m.name for m in self.members.values() if m.running is not None]
        for a, b in map(_ends, pairs or [a + b for a in living for b in living if a < b]):
            if frozenset((a, b)) not in self.connections:
                self.connections.add(frozenset((a, b)))
                hellos = self[a].replica.hello(), self[b].replica.hello()
                self[a].replica.on_connected(b, hellos[1])
                self[b].replica.on_connected(a, hellos[0])

    def reset(self, *pairs: str) -> None:
        """Break connections: what is on its way in either direction is lost."""
        for a, b in map(_ends, pairs):
            if frozenset((a, b)) in self.connections:
                self.connections.remove(frozenset((a, b)))
                for here, there in ((a, b), (b, a)):
                    self.queues[here, there].clear()
                    self.held.discard((here, there))
                    replica = self[here].running
                    if replica is not None:
                        replica.on_disconnected(there)

    def isolate(self, *names: str) -> None:
        """Break every connection of these members."""
        self.reset(*(a + b for a in names for b in self.names if a != b))

    def only(self, *pairs: str) -> None:
        """Have exactly these connections."""
        wanted = {frozenset(pair) for pair in pairs}
        self.reset(*("".join(sorted(pair)) for pair in sorted(self.connections - wanted, key=sorted)))
        self.connect(*pairs)

    def hold(self, *links: str) -> None:
        """Let messages gather: ``hold("ab")`` is the direction from a to b."""
        self.held |= set(map(_ends, links))

    def release(self, *links: str) -> None:
        self.held -= set(map(_ends, links))

    def queue(self, link: str) -> deque[Message]:
        return self.queues[link[0], link[1]]

    def deliver(self, link: str, count: int | None = None) -> int:
        """Let messages arrive, held or not; how many did."""
        queue, receiver = self.queue(link), self[link[1]]
        number = len(queue) if count is None else count
        for _ in range(number):
            receiver.replica.on_frame(link[0], messages.encode(queue.popleft()))
        return number

    # -- time ------------------------------------------------------------------------------------------------------
    def tick(self, *names: str) -> None:
        for member in self.alive():
            if member.name in names or not names:
                member.engine.tick()

    def settle(self) -> None:
        """Tick and deliver until nothing moves any more; no time passes."""
        for _ in range(_TURNS_MAX):
            self.tick()
            if not sum(self._deliver_all()):
                return
        raise AssertionError("the members never come to rest")

    def _deliver_all(self) -> Iterator[int]:
        for (a, b), queue in self.queues.items():
            receiver = self[b]
            if queue and (a, b) not in self.held and b not in self.paused and receiver.running is not None:
                yield self.deliver(a + b, len(queue))

    def run(self, seconds: float, step_s: float = 0.05) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / step_s)):
            self.clock.now += step_s
            self.settle()

    # -- shorthands ------------------------------------------------------------------------------------------------
    def stand(self, name: str) -> None:
        """Let a member stand for election at once, as if its leader had asked it to; deliver nothing."""
        engine = self[name].engine
        engine._SyncObj__transferInProgress = True
        engine.election_deadline = 0.0
        engine.tick()

    def elect(self, name: str) -> Member:
        """Make a member the leader, with the votes of those it is connected with."""
        self.stand(name)
        self.settle()
        assert self[name].engine.leads, f"{name} was not elected"
        return self[name]

    def found(self, leader: str = "a") -> Member:
        """Boot and connect everybody, and have the cluster founded under a leader."""
        self.boot()
        self.connect()
        member = self.elect(leader)
        member.propose(FOUND)
        self.write(member, b"base")
        return member

    def write(self, leader: Member, *payloads: bytes) -> list[Proposal]:
        """Propose, and let everything that is not held go its way."""
        proposals = [leader.propose(payload) for payload in payloads]
        self.settle()
        leader.engine.announce()
        self.settle()
        return proposals


def _ends(pair: str) -> tuple[str, str]:
    return pair[0], pair[1]


def acknowledged(proposals: list[Proposal]) -> list[bytes]:
    """The payloads whose proposer was told that they are applied."""
    return [p.future.result() for p in proposals if p.done() and p.error is None]


def errors(proposals: list[Proposal]) -> list[str]:
    """What the others were told."""
    return [type(p.error).__name__ for p in proposals if p.error is not None]
