"""A stage for scenes: a cluster that is led by hand, step by step, and judged in the end like any seed.

Where seeds meet faults by chance, a scene sets up the one order of events that a repair is there for.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any, Self

import msgspec

from quorl.cluster.consensus.library import Member
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.operations import BY_REQUEST
from quorl.cluster.protocol.problems import Refusal
from quorl.cluster.protocol.wire import Call, encode, read_answer
from tests.simulation.scenario import compare_contents, converge, limited, stored_by
from tests.simulation.workload import TOPIC, Actor, History, Look, Write, judge, set_up
from tests.simulation.world import Knobs, Process, WatchedNode, World


class Stage:
    """One cluster, its only topic, and what clients were told."""

    def __init__(self, seed: int = 1, *, born: bool = True, **knobs: Any) -> None:
        self.world = World(seed, Knobs(**knobs))
        self.history = History()
        self._actor = Actor(self.world, "hand")
        self._number = 0
        if born:
            self.world.boot_all()
            self.found()

    def found(self) -> None:
        """Wait for a leader and make the topic."""
        assert self.world.wait_leader() is not None, "no leader"
        made = self.world.actor(set_up(Actor(self.world, "setup"), 1))
        assert self.world.run(30.0, made.done), "no topic"
        assert self.world.run(10.0, self.world.agreed), "no agreement"

    def __enter__(self) -> Self:
        self._limits = limited(self.world.knobs)
        self._limits.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._limits.__exit__(None, None, None)
        self.world.close()

    # -- who is there --------------------------------------------------------------------------------------------------
    def process(self, name: str) -> Process:
        """A member's machine."""
        return self.world.processes[name]

    def node(self, name: str) -> WatchedNode:
        """A member that runs."""
        node = self.process(name).node
        assert node is not None, f"{name} does not run"
        return node

    def leader(self) -> str:
        """The member that leads and serves in the highest term."""
        leading = [node for node in self.world.nodes() if node.leads()]
        assert leading, "nobody leads"
        return max(leading, key=lambda node: node.term()).name

    def followers(self) -> list[str]:
        """The other members."""
        leader = self.leader()
        return [name for name in self.world.names if name != leader]

    def lead(self, name: str) -> None:
        """Let this member come to lead, by the leader's own wish."""

        def leads() -> bool:
            if self.node(name).leads():
                return True
            leader = self.world.leader()
            if leader is not None and leader != name:
                self.node(leader).replica.engine.transferLeadership(Member(name))
            return False

        assert self.world.run(10.0, leads), f"{name} does not come to lead"

    def on(self, name: str, work: Callable[[], object]) -> None:
        """Do something in a member's own process."""
        loop = self.process(name).loop
        assert loop is not None, f"{name} does not run"
        loop.call_soon(work)

    # -- what clients do -----------------------------------------------------------------------------------------------
    def write(self, name: str, timeout_s: float = 5.0, *, size: int = 0) -> Write:
        """Begin to append one value, of that many characters at least, at this member; the result fills itself in."""
        self._number += 1
        padding = random.Random(self._number).randbytes(size // 2).hex()  # which takes room, however it is packed
        done = Write(f"hand{self._number}", [f"v{self._number}{padding}"], self.world.clock.now)
        self.history.writes.append(done)
        self.world.send_off(self._write(done, name, timeout_s))
        return done

    async def _write(self, done: Write, name: str, timeout_s: float) -> None:
        message = t.Message(value=msgspec.Raw(msgspec.json.encode(done.values[0])))
        call = encode(t.Append(topic=TOPIC, messages=[message]), self._actor.route.make_key())
        try:
            appended = read_answer(BY_REQUEST[t.Append], await self._actor.ask(name, call, timeout_s))
        except PeerUnreachable:
            done.outcome = "no"
        except PeerLost:
            pass
        except Refusal as refusal:
            if refusal.problem.status in {429, 503, 507}:
                done.outcome = "no"
        else:
            assert isinstance(appended, t.Appended)
            done.outcome = "ok"
            done.places = [(appended.ranges[0].partition, appended.ranges[0].first_offset)]
        done.ended = self.world.clock.now

    def written(self, name: str, count: int = 1, *, size: int = 0) -> list[Write]:
        """Append values one after the other, all of which must be acknowledged."""
        done = []
        for _ in range(count):
            write = self.write(name, size=size)
            self.world.run(10.0, lambda w=write: w.ended > 0)  # type: ignore[misc]
            assert write.outcome == "ok", f"{name} did not take a value: {write}"
            done.append(write)
        return done

    def create(self, name: str, topic: str) -> None:
        """Begin to create another topic at this member, whatever becomes of it."""
        call = encode(t.CreateTopic(name=topic), self._actor.route.make_key())
        self.world.send_off(self._ask(name, call))

    async def _ask(self, name: str, call: Call) -> None:
        with contextlib.suppress(PeerUnreachable, PeerLost):
            await self._actor.ask(name, call)

    def look(self, name: str, timeout_s: float = 5.0) -> None:
        """Begin to ask this member for the exact size."""
        self.world.send_off(self._look(name, timeout_s))

    async def _look(self, name: str, timeout_s: float) -> None:
        started = self.world.clock.now
        try:
            answer = await self._actor.ask(name, encode(t.GetSize(topic=TOPIC)), timeout_s)
            size = read_answer(BY_REQUEST[t.GetSize], answer)
        except (PeerUnreachable, PeerLost, Refusal):
            return
        assert isinstance(size, t.TopicSize)
        self.history.looks.append(Look(started, self.world.clock.now, size.size))

    # -- the end -------------------------------------------------------------------------------------------------------
    def problems(self) -> list[str]:
        """Heal everything, wait until all members agree, and judge."""
        world = self.world
        world.wires.heal()
        for process in world.processes.values():
            process.paused = process.disk.full = process.disk.fail_sync = False
        world.run(6.0)
        world.dismiss_actors()
        converge(world)
        world.checks.compare_logs()
        compare_contents(world)
        return world.problems + judge(self.history, stored_by(world, 1))
