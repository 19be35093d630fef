"""A large topic that was deleted goes away in silence, on every node, whatever happens to its leader meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from quorl.cluster.machine.check import check
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from tests.simulation.workload import Actor
from tests.simulation.world import Knobs, World

APPENDS = 300


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PURGED_ROWS_PER_ENTRY", 20)
    monkeypatch.setattr(limits, "PURGED_ROWS_PER_COMMAND", 0)


@pytest.fixture
def world(small_steps: None) -> Iterator[World]:
    """Three nodes: a topic stays, and another, with many batches, was just deleted."""
    world = World(7, Knobs())
    world.boot_all()
    assert world.wait_leader() is not None
    filled = world.actor(fill_and_delete(Actor(world, "client")))
    assert world.run(60.0, filled.done)
    assert filled.exception() is None
    yield world
    loops = [*world.loops, *world._graves, *(p.loop for p in world.processes.values() if p.loop is not None)]
    world.close()
    for loop in loops:
        loop.close()
    assert world.problems == []


async def fill_and_delete(actor: Actor) -> None:
    message = t.Message(value=msgspec.Raw(b'"x"'))
    for name in ("stays", "goes"):
        await actor.surely(t.CreateTopic(name=name))
    for _ in range(APPENDS):
        await actor.surely(t.Append(topic="goes", messages=[message]))
    await actor.surely(t.Append(topic="stays", messages=[message]))
    await actor.surely(t.DeleteTopic(topic="goes"))


def left(world: World) -> list[int]:
    """How many batches each running node holds."""
    return [n.machine._state.execute("SELECT count(*) FROM batches").fetchone()[0] for n in world.nodes()]


def cleared(world: World) -> Callable[[], bool]:
    return lambda: left(world) == [1, 1, 1]


def test_a4_rows_of_a_deleted_topic_go_away_without_any_traffic(world: World) -> None:
    before, after = world.clock.now, left(world)
    assert max(after) > APPENDS // 2
    assert world.run(10.0, cleared(world))
    assert world.clock.now - before > 0.5  # at the pace of ticks, not of the network
    world.run(2.0)
    sequences = [node.sequence() for node in world.nodes()]
    world.run(5.0)
    assert [node.sequence() for node in world.nodes()] == sequences  # nothing is left to do, and nothing is written
    assert len({content_digest(node.committed) for node in world.nodes()}) == 1
    assert [check(node.committed) for node in world.nodes()] == [[], [], []]


def test_a4_the_next_leader_goes_on_where_the_last_one_stopped(world: World) -> None:
    leader = world.leader()
    assert leader is not None
    world.processes[leader].kill()
    assert world.run(10.0, lambda: world.leader() not in {None, leader})
    assert not cleared(world)()
    world.run(0.3)
    world.boot_all()
    assert world.run(20.0, cleared(world))
    assert world.run(5.0, lambda: len({content_digest(node.committed) for node in world.nodes()}) == 1)
    assert [check(node.committed) for node in world.nodes()] == [[], [], []]


def test_a4_without_a_majority_nothing_piles_up(world: World) -> None:
    leader = world.leader()
    assert leader is not None
    for name in world.names:
        if name != leader:
            world.processes[name].kill()
    node = world.processes[leader].node
    assert node is not None
    logged = node.replica.status().last_index
    world.run(10.0)
    assert node.replica.status().last_index <= logged + 2
    world.boot_all()
    assert world.run(30.0, cleared(world))
