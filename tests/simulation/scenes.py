"""Scenes: orders of events that chance finds too seldom, each for one repair. A scene returns every broken promise."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.stage import Stage

Scene = Callable[[int], list[str]]


def late_barrier(seed: int = 1) -> list[str]:
    """A leader hears late that an entry is stored; by then another leader has acknowledged something newer."""
    problems: list[str] = []
    for wait_s in (0.8, 0.95, 1.1):
        with Stage(seed) as stage:
            world, wires = stage.world, stage.world.wires
            old = stage.leader()
            others = stage.followers()
            stage.written(old)
            world.run(0.3)
            wires.slow.update({(other, old): wait_s for other in others})
            asked_at = world.clock.now
            stage.write(old)
            world.run(0.05)
            # The entry is out, its acknowledgements are on their way; from here on nobody hears of the old leader.
            wires.cut |= {(old, other) for other in others}
            led = world.run(wait_s, lambda o=others: any(stage.node(name).leads() for name in o))  # type: ignore[misc]
            if led:
                new = next(name for name in others if stage.node(name).leads())
                stage.write(new)
                world.run(0.02)
            while world.clock.now < asked_at + wait_s + 0.1:
                stage.look(old)
                world.run(0.01)
            world.run(1.0)
            problems += stage.problems()
    return problems


def birth(seed: int = 1) -> list[str]:
    """Three of five were there first; two of them lose their disks, and meet two that never ran."""
    with Stage(seed, born=False, members=5) as stage:
        world = stage.world
        for name in ("n1", "n2", "n3"):
            stage.process(name).boot()
        if world.wait_leader(10.0) is not None:
            world.run(1.0)  # n4 and n5 have never been switched on
        for name in ("n1", "n2"):
            stage.process(name).wipe()
        stage.process("n3").kill()
        for name in ("n1", "n2", "n4", "n5"):
            stage.process(name).boot()
        world.run(10.0)
        second = world.leader()
        stage.process("n3").boot()
        world.run(10.0)
        known = {node.machine.cluster_id for node in world.nodes()} - {None}
        return [f"TWO-CLUSTERS: {known}, {second} leads one of them"] if len(known) > 1 else world.problems


def half_born(seed: int = 1) -> list[str]:
    """Two of five vote in the first term and hear no more of it; two of those who founded the cluster lose their disks."""
    with Stage(seed, born=False, members=5) as stage:
        world = stage.world
        world.boot_all()
        assert world.run(20.0, lambda: any(node.replica.engine.leads for node in world.nodes())), "no leader"
        leader = next(node.name for node in world.nodes() if node.replica.engine.leads)
        late = [name for name in world.names if name != leader][:2]
        founders = [name for name in world.names if name not in late]
        for name in late:
            world.wires.isolate(name, founders)
        assert world.run(5.0, lambda: stage.node(leader).machine.cluster_id is not None), "no cluster"
        world.run(2.5)
        emptied = [leader, next(name for name in founders if name != leader)]
        kept = next(name for name in founders if name not in emptied)
        stage.process(kept).kill()
        for name in emptied:
            stage.process(name).wipe()
        world.wires.heal()
        for name in emptied:
            stage.process(name).boot()
        world.run(10.0)
        stage.process(kept).boot()
        agreed = world.run(20.0, world.agreed)
        known = {node.machine.cluster_id for node in world.nodes()} - {None}
        problems = [f"TWO-CLUSTERS: {known}"] if len(known) > 1 else []
        return world.problems + problems + ([] if agreed else ["STUCK: the members do not agree"])


def half_known_tail(seed: int = 1) -> list[str]:
    """A member returns with a tail that nobody else has, and its leader's first messages hold only what it knows."""
    with Stage(seed, append_bytes_max=1, replication_window_bytes=1, snapshot_every=1_000_000) as stage:
        world, wires = stage.world, stage.world.wires
        old, others = stage.leader(), stage.followers()
        process = stage.process(old)
        process.states.checkpoint()
        stage.written(old, 6)
        wires.isolate(old, world.names)
        for _ in range(3):
            stage.write(old)
            world.run(0.02)
        # Its state forgets the last entries, as a power cut may make it; its log does not.
        process.kill()
        process.states.image = process.states._checkpoint
        assert world.run(5.0, lambda: any(stage.node(name).leads() for name in others)), "no new leader"
        stage.written(stage.leader(), 8)
        process.boot()
        world.run(0.2)
        wires.slow.update({(other, old): 0.3 for other in others})
        wires.heal()
        return stage.problems()


def orphan_and_snapshot(seed: int = 1) -> list[str]:
    """An old leader returns with entries that nobody has, to a cluster that has trimmed what it needs."""
    with Stage(seed, snapshot_every=8, log_bytes_max=4096) as stage:
        world, wires = stage.world, stage.world.wires
        old, others = stage.leader(), stage.followers()
        stage.written(old, 3)
        wires.isolate(old, world.names)
        stage.write(old)
        assert world.run(5.0, lambda: any(stage.node(name).leads() for name in others)), "no new leader"
        new = next(name for name in others if stage.node(name).leads())
        stage.written(new, 60)
        world.run(2.5)  # until the old leader's connections are given up, and it is waited for no longer
        stage.written(new, 30)
        world.run(1.0)
        wires.heal()
        return stage.problems()


def half_seen_leader(seed: int = 1) -> list[str]:
    """Nothing is written; one follower cannot reach the leader, but the other one, whose log is as long as its own."""
    with Stage(seed) as stage:
        world, leader = stage.world, stage.leader()
        world.run(2.0)
        follower = stage.followers()[0]
        world.wires.cut |= {(leader, follower), (follower, leader)}
        world.run(6.0)
        return stage.problems()


def power_during_flush(seed: int = 1) -> list[str]:
    """The same, and what a leader flushes beside its loop takes a while."""
    return power_after_yes(seed, flush_s=0.3)


def power_after_yes(seed: int = 1, *, flush_s: float | None = None) -> list[str]:
    """A write is acknowledged by two of three, whose power fails at once; one of them meets the third again."""
    with Stage(seed) as stage:
        world = stage.world
        for process in world.processes.values():
            process.disk.flush_s = None if flush_s is None else lambda: flush_s
        for again in range(8):
            leader = stage.leader()
            partner, third = stage.followers()
            world.wires.isolate(third, world.names)
            world.run(2.5)  # until its connections are given up: nothing is on its way to it any more
            before, log = stage.node(partner).replica.engine.log.last_index, stage.node(partner).replica.engine.log
            write = stage.write(leader)
            assert world.run(2.0, lambda log=log, before=before: log.last_index > before), "nothing arrived"  # type: ignore[misc]
            # The partner does not hear that the entry is decided: all that it knows is what it said itself.
            world.wires.cut.add((leader, partner))
            assert world.run(2.0, lambda write=write: write.ended > 0), "no answer"  # type: ignore[misc]
            stage.process(leader).kill(power=True)
            stage.process(partner).kill(power=True)
            world.wires.heal()
            first, last = (partner, leader) if again % 2 else (leader, partner)
            stage.process(first).boot()
            if not world.run(20.0, lambda: world.leader() is not None):
                return world.problems or ["NO-LEADER: two of three do not agree"]
            stage.written(stage.leader())
            stage.process(last).boot()
            assert world.run(20.0, world.agreed), "no agreement"
        return stage.problems()


def full_partner(seed: int = 1) -> list[str]:
    """Of two members that could decide, one has no room: nothing is acknowledged, or it is there after a restart."""
    with Stage(seed) as stage:
        world, leader = stage.world, stage.leader()
        partner, third = stage.followers()
        world.wires.isolate(third, world.names)
        world.run(2.5)  # until its connections are given up: nothing is on its way to it any more
        stage.process(partner).disk.full = True
        for _ in range(3):
            stage.write(leader)
        world.run(0.8)
        stage.process(leader).kill()
        stage.process(partner).kill(power=True)
        stage.process(partner).disk.full = False
        world.wires.heal()
        stage.process(partner).boot()
        world.run(4.0)
        stage.process(leader).boot()
        return stage.problems()
