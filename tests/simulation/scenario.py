"""One seed from birth to verdict: first safety under every fault, then healing, and liveness."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import msgspec
import pytest

from quorl.cluster.machine.digest import content_digest
from quorl.cluster.machine.machine import Machine
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from tests.simulation.faults import Faults
from tests.simulation.network import Storm
from tests.simulation.task_scenario import TaskLoad
from tests.simulation.workload import TOPIC, Actor, History, Place, consume, judge, read, set_up, trust, write
from tests.simulation.world import Knobs, World

HEAL_S = 60.0
SUPERVISED_S = 0.5
Load = Literal["topics", "tasks", "both"]
"""What the clients of a seed use."""


class Verdict(NamedTuple):
    """What a seed came to; no problems means that every promise held."""

    seed: int
    problems: list[str]
    faults: list[str]
    virtual_s: float
    acknowledged: int
    attempted: int
    looks: int
    consumed: int
    leaders: int
    snapshots: int
    digest: str
    """Equal for two plays of one seed, or the world is not deterministic."""
    tally: dict[str, int]
    """What the clients of tasks did, and what became of it."""


def knobs_of(seed: int) -> tuple[Knobs, int, float]:
    """The seed's cluster: its knobs, the topic's partitions, and how long the faults last."""
    dice = random.Random(seed * 31 + 7)
    knobs = Knobs(
        members=3 if dice.random() < 0.75 else 5,
        snapshot_every=dice.choice([8, 25, 100, 1_000_000]),
        log_bytes_max=dice.choice([4_096, 16_384, 1_000_000]),
        apply_bytes_per_tick=dice.choice([300, 1024 * 1024]),
        append_bytes_max=dice.choice([200, 2_000, 2 * 1024 * 1024]),
        replication_window_bytes=dice.choice([500, 4_000, 8 * 1024 * 1024]),
        deadline_s=dice.choice([1.5, 4.0, 10.0]),
        packs_all=seed % 3 == 1,
    )
    return knobs, dice.choice([1, 1, 3]), dice.choice([8.0, 15.0, 25.0])


def load_of(seed: int) -> Load:
    """What the clients of a seed use: of five seeds in a row, two use topics, two tasks, and one what it draws."""
    dice = random.Random(seed // 5 * 17 + 3)
    loads: list[Load] = ["topics", "topics", "tasks", "tasks", dice.choice(("topics", "tasks", "both", "both"))]
    dice.shuffle(loads)
    return loads[seed % 5]


def play_drawn(seed: int) -> Verdict:
    """Run one seed with the load that it draws."""
    return play(seed, load=load_of(seed))


def play(seed: int, prepare: Callable[[World], None] | None = None, load: Load = "topics") -> Verdict:
    """Run one seed. ``prepare`` may change the world before anything starts."""
    knobs, partitions, fault_s = knobs_of(seed)
    world = World(seed, knobs)
    if prepare is not None:
        prepare(world)
    try:
        with limited(knobs):
            return _play(world, load, partitions, fault_s)
    except (AssertionError, Storm) as error:
        problems = [*world.problems, f"BROKEN-OFF at {world.clock.now - 1000:.2f}: {error!r}"]
        return Verdict(seed, problems, [], world.clock.now - 1000, 0, 0, 0, 0, 0, 0, "", {})
    finally:
        world.close()


@contextlib.contextmanager
def limited(knobs: Knobs) -> Iterator[None]:
    """Within this, the limits are those of the knobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "FLUSH_BESIDE_BYTES", 0)
        if knobs.packs_all:
            patch.setattr(limits, "PACKED_BYTES_MIN", 1)
            patch.setattr(limits, "PACKED_SHARE_MAX", 100)
        patch.setattr(limits, "APPLY_BYTES_PER_TICK", knobs.apply_bytes_per_tick)
        patch.setattr(limits, "APPEND_BYTES_MAX", knobs.append_bytes_max)
        patch.setattr(limits, "REPLICATION_WINDOW_BYTES", knobs.replication_window_bytes)
        yield


def _play(world: World, load: Load, partitions: int, fault_s: float) -> Verdict:
    history = History()
    world.boot_all()
    born = world.run(30.0, lambda: world.leader() is not None)
    if not born:
        world.problem("NEVER-BORN: no leader within 30 s of a quiet start")
    tasks = TaskLoad(world) if load != "topics" else None
    setup = world.actor(set_up(Actor(world, "setup"), partitions))
    world.run(30.0, setup.done)
    if load != "tasks":
        _begin(world, history, partitions)
    if tasks is not None:
        tasks.begin()
    faults = Faults(world, random.Random(world.dice.random()))
    end = world.clock.now + fault_s
    while world.clock.now < end and not world.problems:
        world.run(0.1)
        faults.step()
    faults.heal()
    _check_liveness(world)
    if load != "tasks":
        _check_long_polls(world, partitions)
    if tasks is not None and not world.problems:
        tasks.calm_down(lambda until, seconds: run_supervised(world, until, seconds))
    world.run(3.0)
    world.dismiss_actors()
    converge(world)
    world.checks.compare_logs()
    stored = stored_by(world, partitions)
    contents = compare_contents(world)
    problems = world.problems + judge(history, stored)
    if tasks is not None:
        problems += tasks.judge()
    return Verdict(
        seed=world.seed,
        problems=problems,
        faults=faults.done,
        virtual_s=world.clock.now - 1000,
        acknowledged=sum(len(w.values) for w in history.writes if w.outcome == "ok"),
        attempted=sum(len(w.values) for w in history.writes),
        looks=len(history.looks),
        consumed=sum(map(len, history.consumed.values())),
        leaders=len(world.leaders),
        snapshots=sum(p.states.installs for p in world.processes.values()),
        digest=hashlib.sha256(repr((sorted(contents.items()), faults.done, world.calls)).encode()).hexdigest(),
        tally=tasks.tally() if tasks is not None else {},
    )


def _begin(world: World, history: History, partitions: int) -> None:
    """Let the clients of topics begin."""
    for i in range(3):
        world.send_off(write(Actor(world, f"w{i}"), history))
    for i in range(2):
        world.send_off(read(Actor(world, f"r{i}"), history, partitions))
        world.send_off(consume(Actor(world, f"c{i}"), history))
    world.send_off(trust(Actor(world, "t0"), history))


def run_supervised(world: World, until: Callable[[], bool], seconds: float = HEAL_S) -> bool:
    """Let the world go on, and start again what ended by itself."""

    looked_at = 0.0

    def reached() -> bool:
        nonlocal looked_at
        if world.clock.now - looked_at > SUPERVISED_S:
            looked_at = world.clock.now
            world.boot_all()
        return until()

    return world.run(seconds, reached)


def _check_liveness(world: World) -> None:
    """After healing: a write is accepted, and every member catches up with it."""
    probe = Actor(world, "probe")
    written = world.actor(probe.surely(t.RegisterProducer(topic=TOPIC)))
    if not run_supervised(world, written.done):
        world.problem(f"NOT-LIVE: no write within {HEAL_S:.0f} s of healing")
    elif written.exception() is not None:
        world.problem(f"NOT-LIVE: {written.exception()!r}")


def _check_long_polls(world: World, partitions: int) -> None:
    """Who waits for a message at any node is woken by the next one."""
    run_supervised(world, lambda: len(world.nodes()) == len(world.names))
    sleeper = Actor(world, "sleeper")
    polls = []
    for name in world.names:
        for partition in range(partitions):
            browse = t.Browse(topic=TOPIC, partition=partition, start="latest", wait=40.0)
            polls.append(world.actor(sleeper.wait_at(name, browse)))
    if not run_supervised(world, lambda: all(poll.done() for poll in polls), 10.0):
        world.problem(f"ASLEEP: {sum(not poll.done() for poll in polls)} of {len(polls)} long polls were not woken")


def stored_by(world: World, partitions: int) -> dict[str, dict[Place, str]]:
    """What each node holds, place by place."""
    return {node.name: _content(world, node.machine, partitions) for node in world.nodes()}


def converge(world: World) -> None:
    """All members run and hold the same, in time."""
    if not run_supervised(world, world.agreed):
        where = {p.name: p.node.sequence() if p.node else p.refusal or "down" for p in world.processes.values()}
        world.problem(f"STUCK: members do not converge: {where}")


def compare_contents(world: World) -> dict[str, str]:
    """Return the digest over all rows of each member that runs; they must be the same."""
    contents = {node.name: content_digest(node.committed) for node in world.nodes()}
    if len(set(contents.values())) > 1:
        world.problem(f"CONTENT-DIFFERS {contents}")
    return contents


def _content(world: World, machine: Machine, partitions: int) -> dict[Place, str]:
    found: dict[Place, str] = {}
    for partition in range(partitions):
        offset, before = 0, ""
        while True:
            page = machine.query(t.Browse(topic=TOPIC, partition=partition, start=str(offset), limit=1000))
            if not isinstance(page, t.MessagePage) or not page.items:
                break
            for message in page.items:
                found[message.partition, message.offset] = msgspec.json.decode(message.value)
                if message.created_at < before:
                    world.problem(f"BACKWARDS: {message} was created before the one before it, {before}")
                before = message.created_at
            offset = page.next
    return found
