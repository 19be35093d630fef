"""Scenes of what is said between members: late, twice, by strangers, to whom it does not concern any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import permutations
from typing import Any

from typing_extensions import override

from quorl.cluster.consensus import library, messages
from quorl.cluster.consensus.engine import Engine
from quorl.cluster.consensus.port import Hello, NetworkEvents
from quorl.cluster.protocol.entry import Entry, encode_entry
from tests.simulation.network import SimNetwork
from tests.simulation.stage import Stage


class NeverStaged(Exception):
    """The scene did not come to its point: nothing was tried."""


def staged(scene: Callable[[Stage], bool], seeds: Iterable[int], **knobs: Any) -> list[str]:
    """Play a scene that chance may spoil under several seeds; it says whether it came to its point."""
    problems, times = [], 0
    for seed in seeds:
        with Stage(seed, **knobs) as stage:
            if scene(stage):
                times += 1
                problems += stage.problems()
    if not times:
        raise NeverStaged
    return problems


def engine_of(stage: Stage, name: str) -> Engine:
    """A member's consensus."""
    return stage.node(name).replica.engine


def both_ways(here: str, *others: str) -> set[tuple[str, str]]:
    """The directions between one member and others."""
    return {pair for other in others for pair in ((here, other), (other, here))}


def unheard(stage: Stage, name: str, voter: str) -> bool:
    """Let a member that leads no more come to lead by the vote of another one, which then hears nothing of it."""
    wires = stage.world.wires
    if not stage.world.run(5.0, lambda: not engine_of(stage, name).leads):
        return False
    stage.world.run(1.5)  # until the connections are given up: what was on its way is lost
    wires.cut -= both_ways(name, voter)
    led = stage.world.run(8.0, lambda: engine_of(stage, name).leads)
    wires.cut |= both_ways(name, voter)
    return led


def late_acknowledgement(seed: int = 1) -> list[str]:
    """A leader comes back to lead, and what was said to its earlier leadership arrives: about other entries."""
    return staged(_late_acknowledgement, range(seed, seed + 4000, 1000), members=5)


def _late_acknowledgement(stage: Stage) -> bool:
    world, wires, slow_s = stage.world, stage.world.wires, 1.8
    a, (b, *rest) = stage.leader(), stage.followers()
    stage.written(a, 2)
    world.run(0.3)
    wires.cut = set(permutations(world.names, 2)) - both_ways(a, b)
    stage.write(a)
    world.run(0.1)
    # Three leaderships without a majority: b stores the first entry of each behind what was written.
    if not all(unheard(stage, a, voter) for voter in rest):
        return False
    started, old = world.clock.now, engine_of(stage, a).log.last_index
    wires.slow[b, a] = slow_s
    world.run(0.1, lambda: engine_of(stage, b).log.last_index == old)
    wires.slow[a, b] = slow_s
    # The others elect one of theirs, who overwrites all of that at a and writes what a was asked for; a takes over again.
    wires.cut -= set(permutations(rest, 2))
    if not world.run(1.3, lambda: any(stage.node(name).leads() for name in rest)):
        return False
    wires.cut -= both_ways(a, *rest)
    log = engine_of(stage, a).log
    world.run(0.3, lambda: log.last_index == old - 2)
    stage.lead(a)
    wires.cut |= both_ways(a, *rest[:2])
    if log.last_index != old - 1:
        return False
    write = stage.write(a)
    if not world.run(0.05, lambda: log.last_index == old) or world.clock.now > started + slow_s:
        return False
    world.run(started + slow_s + 0.1 - world.clock.now, lambda: write.ended > 0)
    for name in world.names:  # all of them, so that nothing is on its way any more
        stage.process(name).kill()
    wires.heal()
    for name in (b, *rest[:2]):
        stage.process(name).boot()
    if world.wait_leader(10.0) is not None:
        stage.written(stage.leader())
    return True


def orphans_trimmed(seed: int = 1) -> list[str]:
    """An old leader has as many entries as the new one, but others; and what it needs has been trimmed."""
    return staged(_orphans_trimmed, range(seed, seed + 4000, 1000), snapshot_every=2, log_bytes_max=4096)


def _orphans_trimmed(stage: Stage) -> bool:
    world, wires = stage.world, stage.world.wires
    a, (b, c) = stage.leader(), stage.followers()
    stage.written(a)
    world.run(0.3)
    base = engine_of(stage, a).log.last_index
    wires.cut = set(permutations(world.names, 2))
    stage.write(a)
    if not all(unheard(stage, a, c) for _ in range(4)):
        return False
    wires.cut -= both_ways(b, c)
    if not world.run(10.0, lambda: stage.node(b).leads() or stage.node(c).leads()):
        return False
    stage.lead(b)
    log, last = engine_of(stage, b).log, engine_of(stage, a).log.last_index
    while log.last_index < last - 1:
        stage.written(b, size=900)
    world.run(1.0)
    if not base < log.first_index < log.last_index == last - 1:
        return False
    wires.cut |= both_ways(b, c)
    write = stage.write(b)
    world.run(0.01)
    wires.cut -= both_ways(a, b)
    world.run(0.5, lambda: write.ended > 0)
    for name in (b, c):
        stage.process(name).kill()
    wires.heal()
    stage.process(c).boot()
    if world.wait_leader(10.0) is not None:
        stage.written(stage.leader())
    stage.process(b).boot()
    return True


def old_leader_told(seed: int = 1) -> list[str]:
    """An old leader meets a member that has a newer one, but not that leader: it is told within a heartbeat or two."""
    return staged(_old_leader_told, range(seed, seed + 4000, 1000))


def _old_leader_told(stage: Stage) -> bool:
    world, wires = stage.world, stage.world.wires
    old, others = stage.leader(), stage.followers()
    world.run(1.0)
    wires.isolate(old, world.names)
    # Soon enough that it would believe in itself for a while yet.
    if not world.run(0.75, lambda: any(stage.node(name).leads() for name in others)):
        return False
    third = next(name for name in others if not stage.node(name).leads())
    wires.cut -= both_ways(old, third)
    if not world.run(0.2, lambda: not engine_of(stage, old).leads):
        world.problem(f"UNTOLD: {old} speaks to {third} as its leader, and hears of no other")
    return True


class Stranger(NetworkEvents):
    """No member, and in the network all the same: it grants what nobody asks it for, and guesses right what they ask each other."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.network = SimNetwork(stage.world, "x", bytes, lambda _peer, _gossip: None)

    async def join(self) -> None:
        """Dial everybody, and speak for ever."""
        await self.network.start(self)
        while True:
            await asyncio.sleep(0.01)
            for node in self._stage.world.nodes():
                engine = node.replica.engine
                for words in (messages.PreVoteGranted(engine.election._round), messages.Vote(engine.term)):
                    self.network.send(node.name, messages.encode(words))

    @override
    def hello(self) -> Hello:
        return Hello(cluster="sim", cluster_id=None, group=0, node="x", incarnation="1", pristine=True, version="0")

    @override
    def on_frame(self, peer: str, frame: bytes) -> None:
        """Hear nothing."""

    @override
    def on_connected(self, peer: str, hello: Hello) -> None:
        """Say nothing."""

    @override
    def on_disconnected(self, peer: str) -> None:
        """Say nothing."""

    @override
    def on_refused(self, peer: str) -> None:
        """Say nothing."""


def stranger(seed: int = 1) -> list[str]:
    """A member is cut off from the others, and somebody who is no member would vote for it."""
    with Stage(seed) as stage:
        world = stage.world
        world.send_off(Stranger(stage).join())
        world.run(1.0)
        world.wires.isolate(stage.followers()[0], world.names)
        world.run(4.0)
        return stage.problems()


def candidates(stage: Stage) -> list[str]:
    """The members that ask for votes."""
    return [node.name for node in stage.world.nodes() if node.replica.engine.role == library.CANDIDATE]


def votes_twice(seed: int = 1) -> list[str]:
    """One of five votes, and its vote arrives twice; the three others know of neither vote nor candidate."""
    return staged(_votes_twice, range(seed, seed + 6000, 1000), members=5)


def _votes_twice(stage: Stage) -> bool:
    world, wires = stage.world, stage.world.wires
    old, others = stage.leader(), stage.followers()
    world.run(1.0)
    stage.process(old).kill()
    wires.twice = True
    world.run(5.0, lambda: bool(candidates(stage)))
    candidate, *rivals = candidates(stage)
    voter = next(name for name in others if name not in {candidate, *rivals})
    for name in (candidate, voter):
        wires.cut |= both_ways(name, *(set(world.names) - {candidate, voter}))
    world.run(0.05)
    if engine_of(stage, voter).log.ballot.vote != candidate:
        return False  # it stood itself in the same moment
    stage.process(old).boot()
    world.run(5.0)
    return True


def slow_reader(seed: int = 1) -> list[str]:
    """A follower takes nothing in for a while: what is under way to it stays within the window."""
    window_bytes = 500
    with Stage(seed, replication_window_bytes=window_bytes, append_bytes_max=200) as stage:
        world, leader = stage.world, stage.leader()
        follower = stage.followers()[0]
        world.wires.cut.add((leader, follower))
        stage.written(leader, 30)
        outbox = world.networks[leader]._ends[follower].outbox
        sent = [messages.decode(data) for _, kind, data in outbox if kind == "data"]
        entries = [
            entry for message in sent if isinstance(message, messages.AppendEntries) for entry in message.entries
        ]
        under_way = sum(len(entry[0]) for entry in entries)
        largest = max(len(entry[0]) for entry in entries)
        if under_way >= window_bytes + largest:
            world.problem(f"UNBOUNDED: {under_way} bytes are under way to {follower}")
        return stage.problems()


def slow_follower(seed: int = 1) -> list[str]:
    """A connected follower is half a second behind, and the state needs nothing of the log any more."""
    with Stage(seed, snapshot_every=8, log_bytes_max=4096, replication_window_bytes=500) as stage:
        world, leader = stage.world, stage.leader()
        follower = stage.followers()[0]
        world.wires.slow[leader, follower] = 0.5
        stage.written(leader, 80)
        world.run(8.0)
        if stage.process(follower).states.installs:
            world.problem(f"NEEDLESS-SNAPSHOT: {follower} was connected all the time")
        return stage.problems()


def caller_gone(seed: int = 1) -> list[str]:
    """Whoever proposed an entry has gone before it is applied."""
    with Stage(seed) as stage:
        leader = stage.leader()
        machine = stage.node(leader).machine
        stage.written(leader)
        payload = encode_entry(Entry(machine.now_ms, machine.wall_ms, ()))
        stage.on(leader, lambda: stage.node(leader).replica.propose(payload).cancel())
        stage.world.run(0.5)
        return stage.problems()
