"""A whole cluster in one thread, under one seed: real nodes on a fake clock, network and disk.

``World`` owns time. Everything that happens is an event on its heap or work on a process's loop, and both are run in
order of time, so a seed replays exactly.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
import sqlite3
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from typing_extensions import override

from quorl.cluster.consensus.port import Damaged, Timing
from quorl.cluster.machine.machine import Applied
from quorl.cluster.node.members import Member
from quorl.cluster.node.node import Node
from quorl.cluster.node.setting import Ports, Settings
from quorl.cluster.protocol.wire import Answer, Call
from tests.simulation.checks import Checks
from tests.simulation.fakedisk import Died, FakeDisk
from tests.simulation.loop import Clock, SimLoop
from tests.simulation.network import FRAMES_PER_S_MAX, SimNetwork, SimPeers, Storm, Wires
from tests.simulation.states import SimStates
from tests.simulation.task_checks import TaskChecks


class NodeLogger:
    """A node's log, in which nobody reads anything but tracebacks."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    def info(self, event: str, **fields: object) -> None:
        """Say nothing."""

    def warning(self, event: str, **fields: object) -> None:
        """Say nothing."""

    def error(self, event: str, **fields: object) -> None:
        """Say nothing."""

    def exception(self, event: str, **fields: object) -> None:
        """Something unexpected was raised: that is never right."""
        error = sys.exc_info()[1]
        self._world.problem(f"INTERNAL: {self._name}: {event} {fields}: {error!r} {_where(error)}")


class Knobs(NamedTuple):
    """What makes rare branches common, chosen per seed."""

    members: int = 3
    snapshot_every: int = 1_000_000
    log_bytes_max: int = 64 * 1024
    apply_bytes_per_tick: int = 1024 * 1024
    append_bytes_max: int = 2 * 1024 * 1024
    replication_window_bytes: int = 8 * 1024 * 1024
    deadline_s: float = 10.0
    packs_all: bool = False
    """Appends of any size are packed."""


class _NodeClock:
    """A process's own clock: the world's monotonic one, and a calendar that may be wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.wall_error_ms = 0

    def monotonic(self) -> float:
        return self._world.clock.monotonic()

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self._world.clock.now * 1000) + self.wall_error_ms


class _Later:
    """Implements ``port.Offload``: done at a later moment, on the same thread; the result is known later still."""

    def __init__(self, world: World, loop: SimLoop) -> None:
        self._world = world
        self._loop = loop

    async def run(self, work: Callable[[], Any]) -> Any:
        dice = self._world.dice
        await asyncio.sleep(dice.random() * 0.02)
        done = work()
        await asyncio.sleep(dice.random() * dice.choice([0.01, 0.01, 0.3]))
        return done


class WatchedNode(Node):
    """A node whose every applied entry is compared with what the other nodes made of it."""

    world: World

    @property
    def committed(self) -> sqlite3.Connection:
        """The rows without those of an entry that is only prepared."""
        return self.machine._readable_from

    @override
    def _apply(self, index: int, term: int, payload: bytes) -> Applied:
        applied = super()._apply(index, term, payload)
        self.world.applied(self.name, applied.sequence, self.machine.digest)
        self.world.checks.applied(self, payload)
        if self.world.task_checks is not None:
            self.world.task_checks.applied(self, index, term, payload, applied)
        return applied

    @override
    def _on_changed(self) -> None:
        super()._on_changed()
        self.world.checks.ticked(self)
        if self.world.task_checks is not None:
            self.world.task_checks.ticked(self)


class Process:
    """One member's machine: its disk stays, its lives come and go."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.disk = FakeDisk(random.Random(world.dice.random()))
        flushes = random.Random(f"{world.seed} {name} flushes")
        if flushes.random() < 0.75:
            self.disk.flush_s = lambda: flushes.random() * flushes.choice([0.001, 0.001, 0.01, 0.3])
        self.states = SimStates(random.Random(world.dice.random()))
        self.clock = _NodeClock(world)
        self.loop: SimLoop | None = None
        self.node: WatchedNode | None = None
        self.paused = False
        self.refusal: str | None = None
        self.rotten = False
        self.lives = 0
        self._calls: dict[Callable[[], None], None] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def boot(self) -> None:
        """Start the node on what the disk holds."""
        world = self.world
        assert self.loop is None
        if self.refusal is not None and self.rotten:
            self.wipe()  # what the refusal tells the operator to do
        self.loop = SimLoop(world.clock, world.loop_error)
        self.refusal = None
        self.lives += 1
        self._tasks.append(self.loop.create_task(self._start(self.loop)))

    async def _start(self, loop: SimLoop) -> None:
        world = self.world
        members = [Member(n, f"{n}:80", f"{n}:81") for n in world.names]
        ports = Ports(
            clock=self.clock,
            dice=random.Random(world.dice.random()),
            disk=self.disk.boot(),
            states=self.states,
            network=lambda gossip, on_gossip: world.make_network(self.name, gossip, on_gossip),
            peers=SimPeers(world, self.name),
            offload=_Later(world, loop),
            new_token=world.new_token,
            log=NodeLogger(world, self.name),
        )
        knobs = world.knobs
        node = WatchedNode(
            Settings("sim", 0, self.name, members, "0", Timing(), knobs.snapshot_every, knobs.log_bytes_max),
            ports,
        )
        node.world = world
        node.gateway._deadline_s = knobs.deadline_s
        try:
            await node.start()
        except Damaged as damage:
            self.refusal = str(damage)
            if not self.rotten:
                world.problem(f"REFUSED-START: {self.name}: {damage}")
            self.stop_now()
            return
        except OSError as error:
            self.world.deaths.append(f"{self.name}: {error}")
            self.kill()
            return
        if self.loop is loop:
            if self.rotten:
                world.problem(f"ROT-ACCEPTED: {self.name} started on a log that is not what it wrote")
            self.node = node
            node.died.add_done_callback(lambda died: world.node_died(self, died.result()))

    def serve(self, call: Call, reply: Callable[[Answer], None], lost: Callable[[], None]) -> Callable[[], None]:
        """Take in a call, if the process is there to take it; gives what ends it when its caller hangs up."""
        node, loop = self.node, self.loop
        assert node is not None
        assert loop is not None
        self._calls[lost] = None

        tasks: list[asyncio.Task[None]] = []

        async def answer() -> None:
            reply(await node.handle(call))
            self._calls.pop(lost, None)

        def hang_up() -> None:
            if self._calls.pop(lost, self) is None:
                loop.call_soon(lambda: tasks[0].cancel())  # noqa: PLW0108  # it may not have begun

        loop.call_soon(lambda: tasks.append(loop.create_task(answer())))
        return hang_up

    def leave(self) -> None:
        """Ask the process to end, as a service manager would, and give it a few seconds."""
        node, loop = self.node, self.loop
        if node is None or loop is None or node.stopping:
            return

        async def go() -> None:
            try:
                await node.stop()
            except Exception as error:
                self.world.problem(f"STOP-FAILED: {self.name}: {error!r} {_where(error)}")
            patience = 50
            while node.gateway.running and patience:
                patience -= 1
                await asyncio.sleep(0.1)
            if self.loop is loop:
                self.kill()

        self._tasks.append(loop.create_task(go()))

    def stop_now(self) -> None:
        """Drop the process where it stands: kill -9."""
        if self.loop is not None:
            self.world.bury(self.loop)
        self.loop, self.node, self.paused = None, None, False
        network = self.world.networks.get(self.name)
        if network is not None:
            network.killed()
        self._tasks.clear()
        calls, self._calls = self._calls, {}
        for lost in calls:
            lost()

    def kill(self, *, power: bool = False) -> None:
        """End the process, and with ``power`` the machine: what was not synced is at chance's mercy."""
        self.stop_now()
        if power:
            self.disk.power_cut()
            self.states.power_cut()
        else:
            self.disk.kill()
            self.states.kill()

    def wipe(self) -> None:
        """The machine is replaced by a new one with an empty disk."""
        if self.loop is not None:
            self.kill()
        self.disk = FakeDisk(random.Random(self.world.dice.random()), lying=self.disk.lying)
        self.states = SimStates(random.Random(self.world.dice.random()))
        self.rotten = False
        self.refusal = None


def _where(error: BaseException | None) -> str:
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-5:]))


class World:
    """Time, wires, processes, and what was seen."""

    def __init__(self, seed: int, knobs: Knobs) -> None:
        self.seed = seed
        self.knobs = knobs
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.wires = Wires(random.Random(seed + 1))
        self.serials = itertools.count(1)
        self.names = [f"n{i + 1}" for i in range(knobs.members)]
        self.networks: dict[str, SimNetwork] = {}
        self.calls = 0
        self._frames = (0, 0)
        self.problems: list[str] = []
        self.deaths: list[str] = []
        self.digests: dict[int, tuple[str, str]] = {}
        self.leaders: dict[int, str] = {}
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._graves: list[SimLoop] = []
        self._dead: list[asyncio.Task[Any]] = []
        self._tokens = random.Random(seed + 2)
        self.processes = {name: Process(self, name) for name in self.names}
        self.loops: list[SimLoop] = []
        self._actors: list[asyncio.Task[Any]] = []
        self._frozen: dict[SimLoop, None] = {}
        self.hang_ups = False
        """Whether a node learns that the caller of a call has gone."""
        self.task_checks: TaskChecks | None = None
        """Those of tasks, in a world that has some."""
        self.checks = Checks(self)
        self.checks.start()

    @property
    def majority(self) -> int:
        """How many members decide."""
        return len(self.names) // 2 + 1

    # -- time ------------------------------------------------------------------------------------------------------
    def later(self, delay_s: float, work: Callable[[], object]) -> None:
        """Do something when that many seconds have passed."""
        heapq.heappush(self._heap, (self.clock.now + delay_s, next(self._order), work))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let the world go on; whether ``until`` came true."""
        end = self.clock.now + seconds
        while True:
            if until is not None and until():
                return True
            due = self._next_due()
            if due is None or due > end:
                self.clock.now = max(self.clock.now, end)
                return until is None
            self.clock.now = max(self.clock.now, due)
            self._run_due()

    def _next_due(self) -> float | None:
        dues = [self._heap[0][0]] if self._heap else []
        for loop in self._running():
            due = loop.due()
            if due is not None:
                dues.append(due)
        return min(dues, default=None)

    def _running(self) -> list[SimLoop]:
        running = [p.loop for p in self.processes.values() if p.loop is not None and not p.paused]
        return running + [loop for loop in self.loops if loop not in self._frozen]

    def _run_due(self) -> None:
        while self._heap and self._heap[0][0] <= self.clock.now:
            heapq.heappop(self._heap)[2]()
        for process in self.processes.values():
            if process.loop is not None and not process.paused:
                try:
                    process.loop.run_due()
                except Died:
                    process.kill(power=self.dice.random() < 0.5)
        for loop in self.loops:
            if loop not in self._frozen:
                loop.run_due()
        self._note_leaders()

    def actor(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something that is no node, on a loop of its own."""
        loop = SimLoop(self.clock, self.loop_error)
        self.loops.append(loop)
        task = loop.create_task(work)
        self._actors.append(task)
        return task

    def send_off(self, work: Coroutine[Any, Any, Any]) -> None:
        """The same, and nobody waits for it."""
        _ = self.actor(work)

    def freeze(self, loop: SimLoop, seconds: float) -> None:
        """Let nothing of an actor's loop move for a while."""
        self._frozen[loop] = None
        self.later(seconds, lambda: self._frozen.pop(loop, None))

    def drop(self, loop: SimLoop) -> None:
        """End an actor where it stands."""
        if loop in self.loops:
            self.loops.remove(loop)
            self.bury(loop)

    def dismiss_actors(self) -> None:
        """End every client where it stands; none may have ended by an error of its own."""
        for task in self._actors:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                self.problem(f"CLIENT-ENDED by {error!r}")
        self._actors.clear()
        for loop in self.loops:
            self.bury(loop)
        self.loops.clear()

    def bury(self, loop: SimLoop) -> None:
        """Keep a dead process's loop from being collected: its coroutines must not run their ends."""
        self._graves.append(loop)
        self._dead += asyncio.all_tasks(loop)
        loop.drop()

    def close(self) -> None:
        """Let everything go without a word: no task may run its end when it is collected."""
        loops = [*self.loops, *(p.loop for p in self.processes.values() if p.loop is not None)]
        for loop in loops:
            self._dead += asyncio.all_tasks(loop)
        for task in self._dead:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                task.get_coro().close()
        self._dead.clear()
        for loop in [*self._graves, *loops]:
            loop.close()
        self._graves.clear()
        for process in self.processes.values():
            process.states.kill()

    # -- what is seen ----------------------------------------------------------------------------------------------
    def problem(self, text: str) -> None:
        """Note that a promise was broken; the same words once only."""
        kind = text.partition(":")[0]
        if sum(kind in known for known in self.problems) < 3 and len(self.problems) < 20:
            self.problems.append(f"{self.clock.now - 1000:.2f}s {text}")

    def loop_error(self, context: dict[str, Any]) -> None:
        """An exception reached a loop: nothing of ours may raise there."""
        error = context.get("exception")
        self.problem(f"LOOP-ERROR {context.get('message')}: {error!r} {_where(error)}")

    def applied(self, name: str, sequence: int, digest: str) -> None:
        """Compare what an entry did here with what it did elsewhere."""
        known = self.digests.setdefault(sequence, (digest, name))
        if known[0] != digest:
            self.problem(f"DIVERGED at sequence {sequence}: {name} and {known[1]}")

    def node_died(self, process: Process, reason: str) -> None:
        """A node stopped itself; that is right after a disk error, and wrong otherwise."""
        self.deaths.append(f"{process.name}: {reason}")
        if not process.disk.fail_sync and not process.disk.full and "disk" not in reason and "durable" not in reason:
            self.problem(f"DIED {process.name}: {reason}")
        process.kill()

    def _note_leaders(self) -> None:
        for process in self.processes.values():
            if process.node is None or not process.node.replica.engine.leads:
                continue
            term = process.node.replica.engine.term
            known = self.leaders.setdefault(term, process.name)
            if known != process.name:
                self.problem(f"TWO-LEADERS in term {term}: {known} and {process.name}")

    def count_frame(self) -> None:
        """One more frame has travelled."""
        second, count = self._frames
        if second != int(self.clock.now):
            second, count = int(self.clock.now), 0
        self._frames = (second, count + 1)
        if count > FRAMES_PER_S_MAX:
            raise Storm(f"{count} frames within a second")

    # -- what processes need ---------------------------------------------------------------------------------------
    def make_network(
        self, name: str, gossip: Callable[[], bytes], on_gossip: Callable[[str, bytes], None]
    ) -> SimNetwork:
        """A network for a new life of a member."""
        return SimNetwork(self, name, gossip, on_gossip)

    def new_token(self) -> str:
        """Random text that a seed repeats."""
        return f"{self._tokens.getrandbits(64):016x}"

    # -- shorthands ------------------------------------------------------------------------------------------------
    def boot_all(self) -> None:
        """Start what does not run."""
        for process in self.processes.values():
            if process.loop is None:
                process.boot()

    def nodes(self) -> list[WatchedNode]:
        """The nodes that run."""
        return [p.node for p in self.processes.values() if p.node is not None]

    def leader(self) -> str | None:
        """A node that leads and serves."""
        return next((n.name for n in self.nodes() if n.leads()), None)

    def agreed(self) -> bool:
        """Whether all members run, count, know their cluster, and hold the same."""
        nodes = self.nodes()
        return (
            len(nodes) == len(self.names)
            and all(node.machine.cluster_id is not None and not node.replica.engine.blank for node in nodes)
            and len({node.sequence() for node in nodes}) == 1
        )

    def wait_leader(self, seconds: float = 30.0) -> str | None:
        """Let the world go on until somebody leads."""
        self.run(seconds, lambda: self.leader() is not None)
        return self.leader()


assert sqlite3.threadsafety  # the states are used from one thread only, but opened with check_same_thread off
