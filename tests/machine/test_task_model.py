"""The machine's task side against a model of it: whatever comes, both say the same and hold the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from quorl.cluster.machine import ids
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.machine.dump import dump, load
from quorl.cluster.machine.machine import Machine
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import SignOfLife
from quorl.cluster.protocol.grammar import Command, Rejection
from tests.machine import task_model as m
from tests.machine.desk import Desk, new, seal
from tests.machine.rig import connect

NAMES = ("q", "p")
"""Queues; ``p`` has partitions."""
BACKOFF = q.Backoff(kind="fixed", first_ms=m.BACKOFF_MS, jitter=0)

names = st.sampled_from(NAMES)
places = st.integers(0, 5)
"""Which of the tasks or leases that have been seen, counted from the newest."""
workers = st.integers(1, 6)
actions = st.one_of(
    *[
        st.tuples(
            st.just("submit"),
            names,
            st.sampled_from([5, 5, 9]),
            st.sampled_from([0, 0, 700]),
            st.sampled_from([None, None, 400, 3_000]),
            st.sampled_from([None, 2_500]),
        )
    ]
    * 3,
    *[st.tuples(st.just("claim"), workers, st.sampled_from([1, 2, 9]))] * 4,
    *[st.tuples(st.sampled_from(["complete", "fail", "give_up", "release", "put_off"]), places)] * 2,
    st.tuples(st.sampled_from(["cancel", "retry"]), places),
    *[
        st.tuples(
            st.just("enrol"),
            st.sampled_from("abcd"),
            st.sampled_from([("q",), ("p",), ("q", "p")]),
            st.sampled_from([False, False, True]),
        )
    ]
    * 2,
    st.tuples(st.sampled_from(["quiet", "remove"]), workers),
    st.tuples(st.sampled_from(["pause", "seal"]), names, st.booleans()),
)
heads = st.tuples(
    st.sampled_from([0, 1, 500, 1_000, 4_000, 10_000, 60_000]),
    st.sets(workers),
    st.sampled_from([False, False, False, True]),
    st.one_of(st.none(), workers),
)
"""Of an entry: how much later it comes, who beats, whether a new leader begins, and whose answers were lost."""
entries = st.lists(st.tuples(heads, st.lists(actions, max_size=5)), max_size=16)


class Pair:
    """The machine and the model, side by side."""

    def __init__(self, first_way: int = 0) -> None:
        self.desk = Desk(first_way=first_way)
        self.model = m.TaskModel()
        self.seen: list[tuple[int, int]] = []
        """Leases that were ever granted: the task's number, and the token."""
        for name, partitions in (("q", 0), ("p", 3)):
            config = {"default_attempts": m.ATTEMPTS, "max_lost": m.MAX_LOST, "backoff": BACKOFF}
            self.desk.put(name, partitions=partitions, keep_finished_ms=m.KEEP_MS, **config)
            self.model.queues[name] = m.Queue(partitions, owners=dict.fromkeys(range(partitions)))

    def head(self, later: int, beating: set[int], refresh: bool, lost: int | None) -> None:
        desk = self.desk
        desk.now_ms += later
        desk.wall_ms += later
        desk.signs = tuple(SignOfLife(number) for number in sorted(beating))
        desk.refresh = refresh
        self.model.now = desk.now_ms
        if lost is not None:
            tokens = tuple(token for _, token in self.seen[::2])
            desk.signs += (SignOfLife(lost, tokens, (1,), 2),)
            worker = self.model.worker(lost)
            if not isinstance(worker, str):
                self.model.lost_answers(lost, tokens, (1,), 2)
                beating = {*beating, lost}
        desk.entry()
        self.model.entry(desk.now_ms, tuple(beating), refresh)
        self.deal()

    def deal(self) -> None:
        """Who owns what is for the machine to say, if it is fair."""
        self.model.deal("p", dict(enumerate(self.desk.owners("p"))))

    def lease(self, place: int) -> tuple[int, int]:
        """A lease that was granted once, or never."""
        return self.seen[-1 - place] if place < len(self.seen) else (10**6, 1)

    def act(self, action: tuple[Any, ...], number: int) -> None:
        """Both do the same, and say the same."""
        model, (kind, *given_) = self.model, action
        command: Command[Any]
        match kind:
            case "submit":
                queue, priority, delay, expires, timeout = given_
                task_id = f"t{model.submitted + 1}"
                options = {"delay_ms": delay, "expires_ms": expires, "timeout_ms": timeout}
                command = s.Submit(queue=queue, tasks=[new(id=task_id, priority=priority, **options)])
                expected = model.submit(*given_)
            case "claim":
                command = c.Claim(worker_id=given_[0], max=given_[1], number=number)
                expected = model.claim(given_[0], given_[1], number)
            case "enrol":
                name, queues, standby = given_
                command = w.RegisterWorker(name=name, queues=queues, standby=standby, dead_after_ms=m.DEAD_MS)
                expected = model.enrol(*given_)
            case "quiet" | "remove":
                command, expected = self._worker(kind, given_[0])
            case "pause" | "seal":
                queue, value = given_
                flag = {"paused": value} if kind == "pause" else {"sealed_": value}
                command = q.PatchQueue(queue=queue, **flag)
                setattr(model.queues[queue], "paused" if kind == "pause" else "sealed", value)
                expected = "QueueInfo"
            case _:
                command, expected = self._task(kind, given_[0])
        (outcome,) = self.desk.apply(seal(command)).outcomes
        got = self._plain(outcome.value)
        assert got == expected, (action, got, expected)
        self.deal()
        if kind == "claim" and isinstance(expected, list):
            self.seen += [(task, token) for task, token, _ in expected]

    def _worker(self, kind: str, number: int) -> tuple[Command[Any], Any]:
        worker = self.model.worker(number)
        if kind == "quiet":
            if isinstance(worker, str):
                return w.QuietWorker(worker_id=number), worker
            worker.quiet = True
            self.model._deal()
            return w.QuietWorker(worker_id=number), "WorkerTold"
        if not isinstance(worker, str):
            self.model._over(worker, "LEFT")
            worker.filled = True
            return w.RemoveWorker(worker_id=number), "WorkerGone"
        # Who is not alive would be forgotten, which the model knows nothing of: ask for somebody who never was.
        return w.RemoveWorker(worker_id=10**6), "worker_not_found"

    def _task(self, kind: str, place: int) -> tuple[Command[Any], Any]:
        number, token = self.lease(place)
        task_id = f"t{number}"
        match kind:
            case "cancel" | "retry":
                number = max(1, self.model.submitted - place)
                task_id = f"t{number}"
                if kind == "cancel":
                    return k.CancelTask(id=task_id), self.model.cancel(number)
                return k.RetryTask(id=task_id), self.model.retry(number)
            case "complete":
                return c.CompleteTask(id=task_id, lease=token), self.model.report(number, token, "success")
            case "release":
                return c.ReleaseTask(id=task_id, lease=token), self.model.report(number, token, "released")
            case "put_off":
                command = c.ReleaseTask(id=task_id, lease=token, delay_ms=700)
                return command, self.model.report(number, token, "released", delay_ms=700)
        retry = kind == "fail"
        return c.FailTask(id=task_id, lease=token, retry=retry), self.model.report(number, token, "failed", retry)

    def _plain(self, value: Any) -> Any:
        match value:
            case Rejection():
                return str(value.__struct_config__.tag)
            case s.Submitted():
                return value.status
            case c.Granted():
                return [(grant.ordinal, grant.token, grant.attempt) for grant in value.grants]
            case w.WorkerRegistered():
                return value.worker_id
            case k.TaskStatus() | k.Cancelled():
                return value.status
        return type(value).__name__

    def agree(self) -> None:
        """Both hold the same: states, counts, tokens, limits, who is alive, who is active, who owns what."""
        desk, model = self.desk, self.model
        rows = desk.sql(
            f"SELECT {ids.of('tasks')}, state, attempts, lost, max_attempts, max_lost,"
            " CASE state WHEN 2 THEN token END FROM tasks ORDER BY ordinal"
        )
        expected = [
            (
                f"t{task.number}",
                k.STATES.index(task.state),
                task.attempts,
                task.lost,
                task.max_attempts,
                task.max_lost,
                task.token if task.state == "PROCESSING" else None,
            )
            for task in model.tasks
        ]
        assert rows == expected
        for name in NAMES:
            assert desk.counts(name) == model.counts(name)
            assert desk.active(name) == model.active(name)
        assert [desk.life(worker.number) for worker in model.workers] == [worker.status for worker in model.workers]
        tokens = desk.sql("SELECT token FROM tasks WHERE state = 2 ORDER BY 1")
        assert len(set(tokens)) == len(tokens)
        for task in model.tasks:
            ended = [outcome for (outcome,) in desk.sql(
                "SELECT outcome FROM attempts WHERE ordinal = ? ORDER BY number", task.number
            )]  # fmt: skip
            assert ended == [outcome for outcome in task.outcomes if outcome != "success"]
        desk.sound()


@settings(max_examples=100)
@given(entries)
def test_the_machine_does_with_tasks_what_the_model_does(run: list[Any]) -> None:
    pair = Pair()
    for number, (head, acts) in enumerate(run):
        pair.head(*head)
        for action in acts:
            pair.act(action, number % 4)
        pair.agree()


@settings(max_examples=40)
@given(entries, st.integers(0, 16))
def test_replicas_agree_about_tasks_also_after_a_dump_in_the_middle(run: list[Any], middle: int) -> None:
    pair, other = Pair(), Pair(first_way=1)
    for number, (head, acts) in enumerate(run):
        if number == middle:
            connection = connect()
            load(connection, list(dump(other.desk.connection)))
            assert content_digest(connection) == content_digest(other.desk.connection)
            other.desk.connection, other.desk.machine = connection, Machine(connection)
        if number % 3 == 2:
            other.desk.machine.reload()
        for one in (pair, other):
            one.head(*head)
            for action in acts:
                one.act(action, number % 4)
    assert pair.desk.machine.digest == other.desk.machine.digest
    assert content_digest(pair.desk.connection) == content_digest(other.desk.connection)
