"""Scenes of tasks and workers: orders of events that chance finds too seldom. A scene returns every broken promise."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from typing_extensions import override

from quorl.cluster.machine import samples
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.operations import BY_REQUEST
from quorl.cluster.protocol.problems import Refusal
from quorl.cluster.protocol.wire import encode, read_answer
from tests.simulation.scenes import Scene
from tests.simulation.stage import Stage
from tests.simulation.task_checks import TaskChecks
from tests.simulation.task_history import Life, Orders, Submission, TaskHistory
from tests.simulation.task_judge import judge_tasks, stored_tasks
from tests.simulation.workload import Actor

R = TypeVar("R")
LIMIT_MS = 1500


class Told:
    """What became of a call by hand."""

    def __init__(self) -> None:
        self.reply: Any = None
        self.code: str | None = None
        """Of the refusal, or ``lost``."""

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.reply is not None or self.code is not None


class TaskStage(Stage):
    """A cluster with one queue, whose workers are led by hand."""

    def __init__(self, seed: int = 1, **knobs: Any) -> None:
        super().__init__(seed, **knobs)
        self.tasks = TaskHistory()
        self.checks = self.world.task_checks = TaskChecks(self.world, self.tasks)
        self.world.hang_ups = True
        self._hand = Actor(self.world, "worker by hand")
        self._claims: dict[int, int] = {}
        self.must(self.leader(), q.PutQueue(queue="q"))

    # -- calls -------------------------------------------------------------------------------------------------------
    def ask(self, name: str, request: Command[Any], timeout_s: float = 5.0) -> Told:
        """Begin a call at this member; what comes of it fills itself in."""
        told, sent_at = Told(), self.world.clock.now

        async def call() -> None:
            try:
                answer = await self._hand.ask(name, encode(request, self._hand.route.make_key()), timeout_s)
                told.reply = read_answer(BY_REQUEST[type(request)], answer)
                if isinstance(request, e.Sync) and request.beat is not None:
                    self.tasks.lives[request.worker_id].beaten_at = sent_at
            except (PeerUnreachable, PeerLost):
                told.code = "lost"
            except Refusal as refusal:
                told.code = refusal.problem.code

        self.world.send_off(call())
        return told

    def must(self, name: str, request: Command[R]) -> R:
        """A call that must be accepted."""
        told = self.ask(name, request)
        self.world.run(6.0, lambda: told.done)
        assert told.reply is not None, f"{request} was not accepted: {told.code}"
        reply: R = told.reply
        return reply

    def submit(self, count: int = 1, **options: Any) -> list[str]:
        """Submit tasks at the leader."""
        serials = [next(self.tasks.serials) for _ in range(count)]
        orders = [msgspec.Raw(msgspec.json.encode(Orders(serial, "ok", 0))) for serial in serials]
        tasks = [b.NewTask(name="do", args=args, **options) for args in orders]
        done = Submission("q", tasks, serials, self.world.clock.now)
        self.tasks.submissions.append(done)
        done.ids = [item.id for item in self.must(self.leader(), b.Submit(queue="q", tasks=tasks)).items]
        done.outcome = "ok"
        return done.ids

    def register(self, name: str, *, dead_after_ms: int = LIMIT_MS, standby: bool = False) -> int:
        """Register a worker at the leader."""
        request = w.RegisterWorker(
            name=name, queues=("q",), standby=standby, dead_after_ms=dead_after_ms, heartbeat_ms=dead_after_ms // 5
        )
        number = self.must(self.leader(), request).worker_id
        self.tasks.lives[number] = Life(number, name, dead_after_ms)
        return number

    def claim(self, worker_id: int, node: str | None = None, *, wait: float = 0.0, timeout_s: float = 5.0) -> Told:
        """Begin to claim one task, at the leader or at this member."""
        number = self._claims[worker_id] = self._claims.get(worker_id, 0) + 1
        request = e.Claim(worker_id=worker_id, wait=wait, number=number)
        return self.ask(node or self.leader(), request, timeout_s)

    def claimed(self, worker_id: int) -> e.ClaimedTask:
        """Claim one task, which must be there."""
        told = self.claim(worker_id)
        self.world.run(6.0, lambda: told.done)
        assert told.reply is not None, told.code
        assert told.reply.tasks, "there was no task"
        found: e.ClaimedTask = told.reply.tasks[0]
        self.tasks.lives[worker_id].held[found.lease.token] = found.id
        return found

    def beat(self, worker_id: int, node: str | None = None, timeout_s: float = 2.0) -> Told:
        """Begin to beat, with what the worker holds."""
        tokens, claimed = tuple(self.tasks.lives[worker_id].held), self._claims.get(worker_id, 0)
        request = e.Sync(worker_id=worker_id, beat=e.Beat(tokens=tokens, claimed=claimed))
        return self.ask(node or self.leader(), request, timeout_s)

    def state(self, task_id: str) -> str:
        """The state of a task as the log tells."""
        return self.checks.shadows.tasks[task_id].state

    # -- the end -----------------------------------------------------------------------------------------------------
    @override
    def problems(self) -> list[str]:
        """Judge the tasks, too."""
        for life in self.tasks.lives.values():
            life.over = True
        found = super().problems()
        return found + judge_tasks(self.checks, {n.name: stored_tasks(n.committed) for n in self.world.nodes()})


def silent_night(seed: int = 1) -> list[str]:
    """Nobody says anything any more: what is due happens all the same, and soon."""
    with TaskStage(seed) as stage:
        world, found = stage.world, []
        worker = stage.register("w")
        (leased,) = stage.submit()
        stage.claimed(worker)
        (later,) = stage.submit(delay_ms=700)
        world.run(0.9)
        if stage.state(later) != "QUEUED":
            found.append(f"LATE: a task that was due 0.2 s ago is {stage.state(later)}")
        world.run(LIMIT_MS / 1000 - 0.6)
        if stage.state(leased) != "QUEUED":
            found.append(f"LATE: the task of a worker that is silent for too long is {stage.state(leased)}")
        return found + stage.problems()


def changed_leader(seed: int = 1) -> list[str]:
    """A worker is silent for a while when the leader dies, and beats as soon as there is another one."""
    with TaskStage(seed) as stage:
        world = stage.world
        worker = stage.register("w")
        (task,) = stage.submit()
        stage.claimed(worker)
        world.run(1.0)
        old = stage.leader()
        stage.must(old, q.PatchQueue(queue="q", max_depth=9))  # cluster time is that of the last entry
        stage.process(old).kill()
        assert world.wait_leader(10.0) is not None, "no leader"
        world.run(0.9)
        told = stage.beat(worker)
        world.run(2.5, lambda: told.done)
        found = [] if told.reply is not None else [f"DEAD: the worker was told {told.code}"]
        if stage.state(task) != "PROCESSING":
            found.append(f"LEASE-GONE: the change of leaders cost a worker its lease; the task is {stage.state(task)}")
        stage.process(old).boot()
        return found + stage.problems()


def frozen_worker(seed: int = 1) -> list[str]:
    """A worker is frozen for longer than its limit; another one has its task when it wakes up and reports."""
    with TaskStage(seed) as stage:
        world = stage.world
        slow = stage.register("slow")
        (task,) = stage.submit()
        mine = stage.claimed(slow)
        world.run(LIMIT_MS / 1000 + 0.5)
        stage.tasks.lives[slow].over = True
        quick = stage.register("quick", dead_after_ms=10_000)
        theirs = stage.claimed(quick)
        late = stage.ask(stage.leader(), e.CompleteTask(id=task, lease=mine.lease.token, result=msgspec.Raw(b'"late"')))
        world.run(2.0, lambda: late.done)
        if late.code != "lease_lost":
            return [f"LATE-REPORT: {late.reply or late.code}", *stage.problems()]
        stage.must(stage.leader(), e.CompleteTask(id=task, lease=theirs.lease.token, result=msgspec.Raw(b'"right"')))
        again = stage.ask(stage.leader(), e.ReleaseTask(id=task, lease=theirs.lease.token))
        world.run(2.0, lambda: again.done)
        return ([] if again.code == "lease_lost" else [f"LATE-REPORT: {again.reply}"]) + stage.problems()


def quick_supervisor(seed: int = 1) -> list[str]:
    """A task kills its worker, which a supervisor starts again at once under its name, until the task is poison."""
    with TaskStage(seed) as stage:
        (poison,), _ = stage.submit(max_lost=3), stage.submit()
        for _ in range(3):
            worker = stage.register("w", dead_after_ms=20_000)
            stage.claimed(worker)
            stage.tasks.lives[worker].over = True
        last = stage.register("w", dead_after_ms=20_000)
        mine = stage.claimed(last)
        stage.must(stage.leader(), e.CompleteTask(id=mine.id, lease=mine.lease.token))
        info = stage.node(stage.leader()).machine.query(k.GetTask(id=poison))
        assert isinstance(info, k.TaskInfo)
        told = (info.status, info.reason, [one.outcome for one in info.history])
        right = told == ("FAILED", "POISON", ["lost"] * 3)
        return ([] if right else [f"POISON: after three lives that it ended a task is {told}"]) + stage.problems()


def hung_up(seed: int = 1) -> list[str]:
    """A worker waits for a task and goes away; whoever is left gets the task."""
    found: list[str] = []
    for at_leader in (True, False):
        with TaskStage(seed) as stage:
            world = stage.world
            gone, there = stage.register("gone", dead_after_ms=20_000), stage.register("there", dead_after_ms=20_000)
            node = stage.leader() if at_leader else stage.followers()[0]
            waiting = stage.claim(gone, node, wait=8.0, timeout_s=0.5)
            world.run(1.0)
            assert waiting.code == "lost", "it did not wait"
            (task,) = stage.submit()
            world.run(0.5)
            if stage.state(task) != "QUEUED":
                found.append(f"GRANTED-TO-NOBODY: {stage.checks.shadows.tasks[task]}")
            else:
                stage.claimed(there)
            found += stage.problems()
    return found


def beat_before_claim(seed: int = 1) -> list[str]:
    """A heartbeat waits for others at a follower, while a claim that was sent after it gets a task at the leader."""
    with TaskStage(seed) as stage:
        world = stage.world
        worker = stage.register("w", dead_after_ms=4_000)
        first = stage.submit(2)
        stage.claimed(worker)
        beating = stage.beat(worker, stage.followers()[0])
        world.run(0.1)
        stage.claimed(worker)
        assert not beating.done, "the heartbeat did not wait"
        world.run(3.0, lambda: beating.done)
        states = [stage.state(task) for task in first]
        found = [] if states == ["PROCESSING", "PROCESSING"] else [f"TAKEN-AWAY: its tasks are {states}"]
        return found + stage.problems()


def lost_answer(seed: int = 1) -> list[str]:
    """The answer to a claim is lost; the next heartbeat, which does not know the lease, gives it back."""
    with TaskStage(seed) as stage:
        world = stage.world
        worker = stage.register("w", dead_after_ms=8_000)
        (task,) = stage.submit()
        stage.tasks.lives[worker].held.pop(stage.claimed(worker).lease.token)
        stage.beat(worker)
        world.run(2.5)
        found = [] if stage.state(task) == "QUEUED" else [f"KEPT-UNHELD: the task is {stage.state(task)}"]
        return found + stage.problems()


def only_beats(seed: int = 1) -> list[str]:
    """A worker does nothing but beat, at one member after the other, for much longer than its limit."""
    with TaskStage(seed) as stage:
        world = stage.world
        worker = stage.register("w")
        (task,) = stage.submit()
        stage.claimed(worker)
        for turn in range(20):
            told = stage.beat(worker, world.names[turn % 3])
            world.run(0.3)
            if told.reply is None and turn < 19:
                world.run(0.3, lambda told=told: told.done)  # type: ignore[misc]
        found = [] if stage.state(task) == "PROCESSING" else [f"LEASE-GONE: the task is {stage.state(task)}"]
        return found + stage.problems()


def late_beat(seed: int = 1) -> list[str]:
    """A heartbeat comes in time, and waits behind an entry that takes long: it is in the entry after its worker's limit."""
    with TaskStage(seed) as stage:
        world, leader = stage.world, stage.leader()
        worker = stage.register("w")
        (task,) = stage.submit()
        mine = stage.claimed(worker)
        world.run(LIMIT_MS / 1000 - 0.25)
        world.wires.slow.update({(name, leader): 0.5 for name in stage.followers()})
        stage.ask(leader, q.PatchQueue(queue="q", max_depth=9))
        world.run(0.05)
        held = stage.ask(leader, e.HoldTask(id=task, lease=mine.lease.token))
        beating = stage.ask(leader, e.Claim(worker_id=worker, number=7))
        world.run(3.0, lambda: held.done and beating.done)
        found = [] if held.reply is not None else [f"LEASE-GONE: {held.code}; the task is {stage.state(task)}"]
        stage.beat(worker)
        return found + stage.problems()


def repeated_report(seed: int = 1) -> list[str]:
    """A report is committed, and its answer is lost with the leader; the node that took it asks the next one."""
    with TaskStage(seed) as stage:
        world, leader = stage.world, stage.leader()
        node = stage.followers()[0]
        worker = stage.register("w", dead_after_ms=20_000)
        (task,) = stage.submit()
        mine = stage.claimed(worker)
        done = e.Completion(task_id=task, lease=mine.lease.token, result=msgspec.Raw(b'"once"'))
        world.wires.cut.add((leader, node))
        told = stage.ask(node, e.Sync(worker_id=worker, complete=(done,)), 9.0)
        assert world.run(2.0, lambda: stage.state(task) == "SUCCESS"), "the report was not committed"
        stage.process(leader).kill()
        world.run(9.0, lambda: told.done)
        world.wires.heal()
        rejected = told.code if told.reply is None else told.reply.rejected
        stage.process(leader).boot()
        return (
            [f"REFUSED-ACCEPTED: the report was refused, and took effect: {rejected}"] if rejected else []
        ) + stage.problems()


def tried_again(seed: int = 1) -> list[str]:
    """A task that failed is tried again, and its history tells of all its runs."""
    with TaskStage(seed) as stage:
        worker = stage.register("w", dead_after_ms=20_000)
        (task,) = stage.submit(max_attempts=1)
        for _ in range(2):
            failed = e.FailTask(id=task, lease=stage.claimed(worker).lease.token, retry=False)
            stage.must(stage.leader(), failed)
            stage.must(stage.leader(), k.RetryTask(id=task))
        stage.must(stage.leader(), e.CompleteTask(id=task, lease=stage.claimed(worker).lease.token))
        info = stage.node(stage.leader()).machine.query(k.GetTask(id=task))
        assert isinstance(info, k.TaskInfo)
        told = [(one.number, one.outcome) for one in info.history]
        right = told == [(1, "failed"), (2, "failed"), (3, "success")] and len(info.errors) == 2
        return ([] if right else [f"HISTORY: {told}, {info.errors}"]) + stage.problems()


def parked_together(seed: int = 1) -> list[str]:
    """Claims wait at all nodes; each of as many tasks goes to another worker at once, one commit after it came."""
    with TaskStage(seed) as stage:
        world = stage.world
        workers = [stage.register(f"w{number}", dead_after_ms=20_000) for number in range(3)]
        waits = [
            stage.claim(one, name, wait=8.0, timeout_s=12.0) for one, name in zip(workers, world.names, strict=True)
        ]
        world.run(0.5)
        stage.submit(3)
        world.run(0.5)
        got = [len(wait.reply.tasks) if wait.reply is not None else None for wait in waits]
        return ([] if got == [1, 1, 1] else [f"ASLEEP: the waiting claims got {got}"]) + stage.problems()


def started_anew(seed: int = 1) -> list[str]:
    """A node is started anew after tasks have come, and nothing happens to their queue until the next sample is taken."""
    with TaskStage(seed) as stage:
        world, follower = stage.world, stage.followers()[0]
        stage.submit(2)
        assert world.run(10.0, world.agreed), "they do not agree"
        stage.process(follower).kill()
        stage.process(follower).boot()
        assert world.run(20.0, world.agreed), "it does not come back"
        world.run(samples.STEP_MS / 1000)
        stage.must(stage.leader(), q.PutQueue(queue="another"))  # an entry of the next ten seconds: it takes the sample
        return stage.problems()


TASK_SCENES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (
        silent_night,
        changed_leader,
        frozen_worker,
        quick_supervisor,
        hung_up,
        beat_before_claim,
        lost_answer,
        only_beats,
        late_beat,
        repeated_report,
        tried_again,
        parked_together,
        started_anew,
    )
}
