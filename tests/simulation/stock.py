"""The stock control: the library as it is shipped, in a world like ours, under the same kinds of fault and the same verdict.

``python -m tests.simulation.stock SEEDS [FIRST]`` plays seeds. It keeps its own journal and its own snapshots (in memory of
the system, where its missing fsync costs nothing), its own rules and its own send loop; only time, dice and the wires are
ours. No power is ever cut here: kill -9, partitions, pauses and slow links are enough. That seeds fail shows that the
simulation can see what our repairs are for, and that the repairs are needed.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pysyncobj import syncobj
from pysyncobj.journal import createJournal

from quorl.cluster.consensus import library

_LOOK_COST_S = 2e-5
"""What a look at the clock costs in virtual time: the library has loops that only time ends."""
_SUCCESS, _DISCARDED = 0, 3


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def read(self) -> float:
        self.now += _LOOK_COST_S
        return self.now


class _Transport(library.Transport):  # type: ignore[misc]
    """The library's messages, as they are, on our wires."""

    def __init__(self, node: Any, own: library.Member, others: set[library.Member]) -> None:
        super().__init__(node, own, others)
        self.name = str(own.id)
        self.up: dict[str, int] = {}
        self.world: StockWorld = node.world
        self.world.transports[self.name] = self

    def send(self, node: library.Member, message: dict[str, Any]) -> bool:
        epoch = self.up.get(str(node.id))
        if epoch is None:
            return False
        self.world.carry(self.name, str(node.id), epoch, dict(message))
        return True


class _Node(library.SyncObj):  # type: ignore[misc]
    """A list to which values are appended, so that every loss, double and reordering shows."""

    def __init__(self, world: StockWorld, name: str, others: list[str], conf: Any) -> None:
        self.world = world
        members = [library.Member(other) for other in others]
        super().__init__(library.Member(name), members, conf, nodeClass=library.Member, transportClass=_Transport)
        self.items: list[str] = []

    @syncobj.replicated  # type: ignore[untyped-decorator]
    def put(self, value: str) -> int:
        self.items.append(value)
        return len(self.items)


class StockVerdict(NamedTuple):
    """What a seed of the stock library came to."""

    seed: int
    problems: list[str]
    acknowledged: int
    attempted: int


class StockWorld:
    """Time, wires and nodes of one seed."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.clock = _Clock()
        self.names = ["n1", "n2", "n3"] if dice.random() < 0.7 else ["n1", "n2", "n3", "n4", "n5"]
        self.latency_s = dice.choice([0.002, 0.02, 0.08])
        self.bandwidth = dice.choice([None, 30_000, 100_000])
        self.options = {
            "logCompactionMinEntries": dice.choice([15, 40, 1_000_000]),
            "appendEntriesBatchSizeBytes": dice.choice([120, 400, 65_536]),
            "leaderFallbackTimeout": dice.choice([2.0, 30.0]),
        }
        self.cut: set[frozenset[str]] = set()
        self.held: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self.transports: dict[str, _Transport] = {}
        self.nodes: dict[str, _Node] = {}
        self.paused: set[str] = set()
        self.outcomes: dict[str, int | None] = {}
        self._serials = itertools.count(1)
        self._wire: list[tuple[float, int, Callable[[], None]]] = []
        self._last_due: dict[tuple[str, str], float] = {}
        self._directory = tempfile.mkdtemp(prefix="stock-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    # -- nodes ---------------------------------------------------------------------------------------------------------
    def boot(self, name: str) -> None:
        path = Path(self._directory)
        conf = library.SyncObjConf(
            autoTick=False,
            useFork=False,
            raftMinTimeout=0.4,
            raftMaxTimeout=1.4,
            appendEntriesPeriod=0.1,
            connectionTimeout=3.5,
            logCompactionBatchSize=256,
            journalFile=str(path / f"{name}.journal"),
            fullDumpFile=str(path / f"{name}.dump"),
            **self.options,
        )
        self.nodes[name] = _Node(self, name, [other for other in self.names if other != name], conf)

    def kill(self, name: str) -> None:
        del self.nodes[name], self.transports[name]
        self.paused.discard(name)
        self._reconcile()

    def put(self, name: str, value: str) -> None:
        self.outcomes[value] = None

        def told(_result: Any, error: int) -> None:
            if self.outcomes[value] is None:
                self.outcomes[value] = error

        self.nodes[name].put(value, callback=told)

    # -- wires ---------------------------------------------------------------------------------------------------------
    def carry(self, source: str, target: str, epoch: int, message: dict[str, Any]) -> None:
        def arrive() -> None:
            there = self.transports.get(target)
            if there is not None and there.up.get(source) == epoch:
                # What a message does to the library is its own affair: its thread logs the error and goes on.
                _survive(lambda: there._onMessageReceived(library.Member(source), message))

        if (source, target) in self.held:
            self.held[source, target].append(arrive)
            return
        due = max(self.clock.now + self.latency_s, self._last_due.get((source, target), 0.0))
        if self.bandwidth:
            size = sum(len(entry[0]) for entry in message.get("entries", ()) if isinstance(entry, tuple)) + 100
            due += size / self.bandwidth
        self._last_due[source, target] = due
        heapq.heappush(self._wire, (due, next(self._serials), arrive))

    def release(self) -> None:
        held, self.held = self.held, {}
        for arrivals in held.values():
            for arrive in arrivals:
                arrive()

    def _reconcile(self) -> None:
        for a, b in itertools.combinations(self.names, 2):
            one, other = self.transports.get(a), self.transports.get(b)
            alive = one is not None and other is not None and frozenset((a, b)) not in self.cut
            serial = next(self._serials)
            for here, peer in ((one, b), (other, a)):
                if here is None or alive == (peer in here.up):
                    continue
                if alive:
                    here.up[peer] = serial
                    here._onNodeConnected(library.Member(peer))
                else:
                    del here.up[peer]
                    here._onNodeDisconnected(library.Member(peer))

    # -- time ----------------------------------------------------------------------------------------------------------
    def step(self, seconds: float) -> None:
        self.clock.now += seconds
        self._reconcile()
        self._deliver()
        for name in sorted(self.nodes):
            if name not in self.paused:
                _survive(lambda node=self.nodes[name]: node.doTick(0))  # type: ignore[misc]
        self._deliver()

    def _deliver(self) -> None:
        while self._wire and self._wire[0][0] <= self.clock.now:
            heapq.heappop(self._wire)[2]()

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        end = self.clock.now + seconds
        while self.clock.now < end and not until():
            self.step(0.02)
        return until()

    def leader(self) -> str | None:
        return next((name for name, node in sorted(self.nodes.items()) if node._isLeader()), None)


def _survive(work: Callable[[], Any]) -> None:
    try:
        work()
    except Exception:
        logging.getLogger("pysyncobj").debug("an error in the library", exc_info=True)


def play(seed: int) -> StockVerdict:
    """Run one seed: faults, healing, verdict."""
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL + 1)
    world = StockWorld(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(syncobj, "monotonicTime", world.clock.read)
        patch.setattr(syncobj, "random", random.Random(seed * 7 + 1))
        patch.setattr(syncobj, "createJournal", createJournal)
        try:
            refused = _disturb(world)
            problems = _heal(world) + _judge(world)
        finally:
            world.close()
    if refused:
        problems.append(f"REFUSED-START: {refused[0]}")
    acknowledged = sum(outcome == _SUCCESS for outcome in world.outcomes.values())
    return StockVerdict(seed, problems, acknowledged, len(world.outcomes))


def _disturb(world: StockWorld) -> list[str]:
    dice, refused, number = world.dice, [], itertools.count()

    def boot(name: str) -> None:
        try:
            world.boot(name)
        except Exception as error:
            refused.append(f"{name}: {error!r}")

    def kill_some() -> None:
        for name in dice.sample(sorted(world.nodes), min(dice.choice([1, 1, 2, 5]), len(world.nodes))):
            world.kill(name)

    def boot_one() -> None:
        down = [name for name in world.names if name not in world.nodes]
        if down:
            boot(dice.choice(down))

    def hold() -> None:
        a, b = dice.sample(world.names, 2)
        world.held.setdefault((a, b), [])

    def isolate() -> None:
        name = dice.choice(world.names)
        world.cut |= {frozenset((name, other)) for other in world.names if other != name}

    acts: list[tuple[float, Callable[[], object]]] = [
        (6, isolate),
        (6, lambda: world.cut.add(frozenset(dice.sample(world.names, 2)))),
        (18, world.cut.clear),
        (4, kill_some),
        (26, boot_one),
        (6, lambda: world.paused.add(dice.choice(world.names))),
        (19, world.paused.clear),
        (5, hold),
        (20, world.release),
        (890, lambda: None),
    ]
    for name in world.names:
        boot(name)
    end = world.clock.now + dice.choice([15.0, 30.0])
    while world.clock.now < end:
        if world.nodes and dice.random() < 0.25:
            world.put(dice.choice(sorted(world.nodes)), f"v{next(number)}" + "." * dice.choice([0, 0, 30, 200]))
        weights, works = zip(*acts, strict=True)
        dice.choices(works, weights)[0]()
        world.step(dice.choice([0.01, 0.02, 0.05]))
    world.cut.clear()
    world.paused.clear()
    world.bandwidth = None
    world.release()
    for name in world.names:
        if name not in world.nodes:
            boot(name)
    return refused


def _heal(world: StockWorld) -> list[str]:
    """Nothing is wrong any more: within a minute a write must go through."""
    end, number, live = world.clock.now + 60.0, itertools.count(), False
    while world.clock.now < end and not live:
        world.run(5.0, lambda: world.leader() is not None)
        leader = world.leader()
        if leader is not None:
            probe = f"probe{next(number)}"
            world.put(leader, probe)
            live = world.run(5.0, lambda p=probe: world.outcomes[p] is not None) and world.outcomes[probe] == _SUCCESS  # type: ignore[misc]
    world.run(12.0)
    return [] if live else ["NOT-LIVE: no write within 60 s of healing"]


def _judge(world: StockWorld) -> list[str]:
    problems = []
    copies = {name: node.items for name, node in world.nodes.items()}
    longest = max(copies.values(), key=len, default=[])
    for name, items in copies.items():
        counts = collections.Counter(items)
        problems += [f"DOUBLED {value} on {name}" for value, count in counts.items() if count > 1][:1]
        if items != longest:
            behind = items == longest[: len(items)]
            problems.append(f"{'STUCK' if behind else 'DIVERGED'}: {name} has {len(items)} of {len(longest)} items")
        if items != longest[: len(items)] or len(items) == len(longest):
            lost = [value for value, outcome in world.outcomes.items() if outcome == _SUCCESS and value not in counts]
            problems += [f"LOST {len(lost)} acknowledged values on {name}: {lost[0]}"] if lost else []
        undead = [value for value, outcome in world.outcomes.items() if outcome == _DISCARDED and value in counts]
        problems += [f"REFUSED-BUT-PRESENT {undead[0]} on {name}"] if undead else []
    return problems


def main(argv: list[str]) -> int:
    """Play seeds of the stock library; 1 if any failed, as they should."""
    count, first = (int(argv[0]) if argv else 60), (int(argv[1]) if len(argv) > 1 else 0)
    verdicts = [play(seed) for seed in range(first, first + count)]
    failed = [verdict for verdict in verdicts if verdict.problems]
    for verdict in failed:
        print(f"seed {verdict.seed}: {'; '.join(verdict.problems[:3])}")
    acknowledged, attempted = sum(v.acknowledged for v in verdicts), sum(v.attempted for v in verdicts)
    print(
        f"the library as shipped: {len(failed)} of {count} seeds failed, {acknowledged} of {attempted} writes acknowledged"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
