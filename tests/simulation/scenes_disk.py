"""Scenes of disks that fail, fill up, rot, or lose their power in the middle of something."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from quorl.cluster.machine import topics
from quorl.cluster.node import applying
from quorl.cluster.node.visit import Declined
from quorl.cluster.protocol import topics as t
from tests.simulation.faults import durable_records
from tests.simulation.scenes_words import NeverStaged, candidates, engine_of
from tests.simulation.stage import Stage


def _done(future: asyncio.Future[Any]) -> None:
    """Collect what nobody asks for."""
    future.exception()


def failing_sync(seed: int = 1) -> list[str]:
    """Of two members that could decide, one has a disk whose sync fails once; then the power of that one fails."""
    problems: list[str] = []
    for again in range(6):  # what a failed sync leaves is chance
        with Stage(seed + 1000 * again) as stage:
            world, leader = stage.world, stage.leader()
            partner, third = stage.followers()
            world.wires.isolate(third, world.names)
            world.run(2.5)  # until its connections are given up: nothing is on its way to it any more
            stage.process(partner).disk.fail_sync = True
            write = stage.write(leader)
            world.run(0.5, lambda write=write: write.ended > 0)  # type: ignore[misc]
            stage.process(partner).disk.fail_sync = False  # the next one says that all is well
            stage.process(leader).kill()
            stage.process(partner).kill(power=True)
            world.wires.heal()
            stage.process(partner).boot()
            if world.wait_leader(10.0) is not None:
                stage.written(stage.leader())
            stage.process(leader).boot()
            problems += stage.problems()
    return problems


def power_in_a_cut(seed: int = 1) -> list[str]:
    """An old leader returns, and its power fails while it replaces what nobody else has."""
    problems: list[str] = []
    for operation in range(1, 9):
        with Stage(seed + 1000 * operation) as stage:
            world, wires = stage.world, stage.world.wires
            old, others = stage.leader(), stage.followers()
            stage.written(old, 3)
            world.run(0.3)
            wires.isolate(old, world.names)
            engine = engine_of(stage, old)
            for _ in range(3):
                # Of the size of a leader's first entry: what comes instead may end just where this ended.
                stage.on(old, lambda engine=engine: engine.propose(b"").add_done_callback(_done))  # type: ignore[misc]
                world.run(0.02)
            assert world.run(5.0, lambda others=others: any(stage.node(name).leads() for name in others)), "no leader"  # type: ignore[misc]
            process = stage.process(old)
            process.disk.dies_in, process.disk.reorders = operation, True
            wires.heal()
            world.run(2.0, lambda process=process: process.loop is None)  # type: ignore[misc]
            process.kill(power=True)
            problems += stage.problems()
    return problems


def rotten_end(seed: int = 1) -> list[str]:
    """The very last record of a member at rest is damaged: it was decided, and is no torn tail."""
    with Stage(seed) as stage:
        world, name = stage.world, stage.followers()[0]
        stage.written(stage.leader(), 3)
        world.run(2.5)
        process = stage.process(name)
        last = engine_of(stage, name).log.last_index
        process.kill()
        place = durable_records(process)[-1]
        if place.entry != last:
            raise NeverStaged
        data = bytearray(process.disk.files()[place.file])
        data[place.end - 1] ^= 1
        process.disk.put(place.file, bytes(data))
        process.rotten = True
        process.boot()
        world.run(2.0)
        return stage.problems()


def full_at_the_election(seed: int = 1) -> list[str]:
    """A candidate's disk is full after its ballot was written: it wins, and cannot store its first entry."""
    with Stage(seed) as stage:
        world, old = stage.world, stage.leader()
        stage.written(old)
        world.run(1.0)
        stage.process(old).kill()
        if not world.run(5.0, lambda: bool(candidates(stage))):
            raise NeverStaged
        disk = stage.process(candidates(stage)[0]).disk
        disk.full = True
        world.run(0.3)
        disk.full = False
        if world.wait_leader(15.0) is None:
            world.problem("NO-LEADER: two of three have room, and nobody serves")
        stage.process(old).boot()
        return stage.problems()


def full_majority(seed: int = 1) -> list[str]:
    """Both followers' disks are full: what is under way stays in doubt, what comes later is refused at once and for certain."""
    problems: list[str] = []
    with Stage(seed) as stage:
        world, leader, followers = stage.world, stage.leader(), stage.followers()
        stage.written(leader)
        for name in followers:
            stage.process(name).disk.full = True
        under_way = stage.write(leader, 5.0)  # before the followers have said so
        world.run(1.5)
        for name in (leader, *followers):
            late = stage.write(name)
            world.run(0.3, lambda late=late: late.ended > 0)  # type: ignore[misc]
            if late.outcome != "no":
                problems.append(f"LATE: {name} did not refuse at once what nobody can store: {late}")
        world.run(5.0, lambda: under_way.ended > 0)
        if under_way.outcome != "maybe":
            problems.append(f"TOLD: what was under way is said to be known: {under_way}")
        stage.process(followers[0]).disk.full = False
        world.run(1.5)
        stage.written(leader)
        return problems + stage.problems()


def state_fails(seed: int = 1) -> list[str]:
    """A follower's database has no room for an entry: that node has to begin again from its log."""
    with Stage(seed) as stage:
        name = stage.followers()[0]
        stage.written(stage.leader())
        stage.process(name).states.fill()
        stage.written(stage.leader(), size=40_000)
        stage.written(stage.leader(), 3)
        stage.world.run(0.5)
        return stage.problems()


def poisoned_command(seed: int = 1, *, behind_open: bool = False) -> list[str]:
    """There is a bug in a command, which raises at every member when it is applied."""
    careful = topics.create_topic

    def bug(state: Any, command: Any) -> Any:
        if command.name == "poison":
            raise ValueError("a bug")
        return careful(state, command)

    with pytest.MonkeyPatch.context() as patch, Stage(seed) as stage:
        patch.setattr(topics, "create_topic", bug)
        if behind_open:
            patch.setattr(applying, "OPEN_S", 5.0)
            followers = [stage.node(name) for name in stage.followers()]
            stage.write(stage.leader())
            if not stage.world.run(2.0, lambda: any(node.machine._open for node in followers)):
                raise NeverStaged
        stage.create(stage.leader(), "poison")
        stage.world.run(1.0)
        return stage.problems()


def poison_behind_open(seed: int = 1) -> list[str]:
    """The same, behind entries whose transaction is still open at followers."""
    return poisoned_command(seed, behind_open=True)


def end_fails(seed: int = 1) -> list[str]:
    """A follower cannot end the transaction of what it has told already: nobody is answered from what is left."""
    problems: list[str] = []

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.MonkeyPatch.context() as patch, Stage(seed) as stage:
        patch.setattr(applying, "OPEN_S", 5.0)
        node = stage.node(stage.followers()[0])
        stage.write(stage.leader())
        if not stage.world.run(2.0, lambda: bool(node.machine._open)):
            raise NeverStaged
        told = node.sequence()

        def end() -> None:
            patch.setattr(node.machine._state, "commit", fail)
            node._applying.end()
            for asked in (node.read(t.ListTopics()), node.render(t.TopicNotFound())):
                try:
                    asked.send(None)
                except Declined:
                    continue
                except StopIteration:
                    problems.append(f"BACK: {node.name} told of {told}, and answers from {node.sequence()}")

        stage.on(node.name, end)
        stage.world.run(1.0)
        return problems + stage.problems()
