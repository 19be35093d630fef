"""Whatever was done to queues, tasks and workers, all that can be asked about them says the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from quorl.cluster.machine.queries import BeatLog, Heartbeats
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import Entry, encode_entry
from quorl.cluster.protocol.grammar import Command
from tests.machine.rig import Rig

QUEUES = ("a", "p")
STEPS: dict[tuple[str | None, str], set[str]] = {
    (None, "submitted"): {"SCHEDULED", "QUEUED"},
    ("SCHEDULED", "due"): {"QUEUED"},
    ("RETRY", "due"): {"QUEUED"},
    ("QUEUED", "claimed"): {"PROCESSING"},
    ("PROCESSING", "success"): {"SUCCESS"},
    ("PROCESSING", "failed"): {"RETRY", "QUEUED", "FAILED"},
    ("PROCESSING", "timeout"): {"RETRY", "QUEUED", "FAILED", "CANCELLED"},
    ("PROCESSING", "lost"): {"QUEUED", "FAILED", "CANCELLED"},
    ("PROCESSING", "released"): {"QUEUED", "RETRY"},
    ("PROCESSING", "cancel_requested"): {"PROCESSING"},
    ("PROCESSING", "cancelled"): {"CANCELLED"},
    **{(status, "cancelled"): {"CANCELLED"} for status in ("SCHEDULED", "QUEUED", "RETRY")},
    **{(status, "expired"): {"EXPIRED"} for status in ("SCHEDULED", "QUEUED", "RETRY")},
    **{(status, "retried"): {"QUEUED"} for status in ("FAILED", "CANCELLED", "EXPIRED")},
}
"""From which state an event may lead to which."""

number = st.integers(0, 3)
tasks = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from([0, 9]),
        "delay_ms": st.sampled_from([0, 2_000]),
        "expires_ms": st.just(3_000),
        "timeout_ms": st.just(2_500),
        "max_attempts": st.integers(1, 2),
        "max_lost": st.integers(1, 2),
        "backoff": st.just(q.Backoff(kind="fixed", first_ms=1_000)),
        "key": st.text(max_size=2),
    },
)
submits = st.tuples(st.just("submit"), st.sampled_from(QUEUES), st.lists(tasks, min_size=1, max_size=3))
claims = st.tuples(st.just("claim"), number, st.integers(1, 3))
reports = st.tuples(st.sampled_from(["complete", "fail", "fail", "release", "hold"]), number)
seldom = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(["w1", "w2"]), st.booleans(), st.sampled_from([QUEUES, ("p",)])),
    st.tuples(st.sampled_from(["cancel", "cancel", "retry", "forget"]), number),
    st.tuples(st.sampled_from(["pause", "resume", "seal", "open", "purge", "delete"]), st.sampled_from(QUEUES)),
    st.tuples(st.sampled_from(["quiet", "remove"]), number),
)
passing = st.tuples(st.just("later"), st.sampled_from([0, 1_000, 1_000, 4_000]), st.booleans())
deeds = st.one_of(submits, claims, reports, reports, passing, seldom)


class Doing:
    """Carries out deeds; a number chooses among what there is."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.workers: list[int] = []
        self.leases: list[tuple[str, int]] = []
        self.rig.outcome(q.PutQueue(queue="p", partitions=2))
        self.do("register", "w0", False, QUEUES)

    def tasks(self, **asked: Any) -> list[k.TaskSummary]:
        items: list[k.TaskSummary] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self.rig.ask(k.ListTasks(**asked, limit=3, cursor=cursor), k.TaskList)
            items += page.items
            cursor = page.next
        return items

    def do(self, what: str, *how: Any) -> None:
        if what == "later":
            self.rig.now_ms += how[0]
            self.rig.wall_ms += how[0]
            entry = Entry(self.rig.now_ms, self.rig.wall_ms, (), refresh=how[1])
            self.rig.apply_raw(encode_entry(entry))
            return
        command = self.command(what, *how)
        if command is not None:
            value = self.rig.outcome(command).value
            if isinstance(value, w.WorkerRegistered):
                self.workers.append(value.worker_id)
            if isinstance(value, e.Granted):
                rendered = self.rig.machine.render(value)
                assert isinstance(rendered, e.Claims)
                assert [one.lease.token for one in rendered.tasks] == [grant.token for grant in value.grants]
                self.leases += [(one.id, one.lease.token) for one in rendered.tasks]

    def command(self, what: str, *how: Any) -> Command[Any] | None:
        match what, how:
            case "submit", (queue, wanted):
                return b.Submit(queue=queue, tasks=[b.NewTask(name="n", **one) for one in wanted])
            case "register", (name, standby, queues):
                return w.RegisterWorker(name=name, standby=standby, queues=queues, dead_after_ms=5_000)
            case "pause" | "resume", (queue,):
                return q.PatchQueue(queue=queue, paused=what == "pause")
            case "seal" | "open", (queue,):
                return q.PatchQueue(queue=queue, sealed_=what == "seal")
            case "purge", (queue,):
                return q.PurgeQueue(queue=queue, states=("QUEUED", "FAILED", "SUCCESS"))
            case "delete", (queue,):
                return q.DeleteQueue(queue=queue)
            case "cancel" | "retry" | "forget", (number,):
                found = self.tasks()
                kinds: dict[str, Any] = {"cancel": k.CancelTask, "retry": k.RetryTask, "forget": k.ForgetTask}
                return kinds[what](id=found[number % len(found)].id) if found else None
            case _, (number, *rest) if what in {"claim", "quiet", "remove"}:
                return self.of_a_worker(what, number, rest)
            case _, (number,):
                return self.report(what, number)
        raise AssertionError(what)

    def of_a_worker(self, what: str, number: int, rest: list[int]) -> Command[Any]:
        worker_id = self.workers[-1 - number % len(self.workers)]
        if what == "claim":
            return e.Claim(worker_id=worker_id, max=rest[0])
        return w.QuietWorker(worker_id=worker_id) if what == "quiet" else w.RemoveWorker(worker_id=worker_id)

    def report(self, what: str, number: int) -> Command[Any] | None:
        if not self.leases:
            return None
        task_id, token = self.leases[-1 - number % len(self.leases)]
        match what:
            case "complete":
                return e.CompleteTask(id=task_id, lease=token, result=msgspec.Raw(b"[1]"))
            case "fail":
                return e.FailTask(id=task_id, lease=token, error=k.TaskError(type="E", message=str(token)))
            case "release":
                return e.ReleaseTask(id=task_id, lease=token, delay_ms=700 * (number % 2))
            case _:
                return e.HoldTask(id=task_id, lease=token, progress=token % 100, checkpoint=msgspec.Raw(b"1"))


@settings(max_examples=100)
@given(st.lists(deeds, min_size=10, max_size=50))
def test_everything_that_is_asked_agrees(done: list[tuple[Any, ...]]) -> None:
    doing = Doing()
    for deed in done:
        doing.do(*deed)
    everything = doing.tasks()
    for item in everything:
        _agrees(doing.rig, item)
    _lists_agree(doing, everything)
    _queues_agree(doing, everything)
    _workers_agree(doing, everything)
    doing.rig.sound()


def _agrees(rig: Rig, item: k.TaskSummary) -> None:
    """What is told of one task."""
    info = rig.ask(k.GetTask(id=item.id), k.TaskInfo)
    for name in ("name", "queue", "partition", "status", "attempts", "max_attempts", "lost", "worker_id", "reason"):
        assert getattr(info, name) == getattr(item, name)
    events = rig.ask(k.GetTaskEvents(id=item.id), k.TaskEvents).items
    status: str | None = None
    for event in events:
        assert event.status in STEPS[status, event.kind], (status, event)
        status = event.status
    assert status == info.status
    kinds = Counter(event.kind for event in events)
    assert info.attempts == kinds["success"] + kinds["failed"] + kinds["timeout"]
    assert info.lost == kinds["lost"]
    assert len(info.history) == kinds["claimed"]
    assert [one.number for one in info.history] == list(range(1, kinds["claimed"] + 1))
    assert len({one.token for one in info.history}) == kinds["claimed"]
    assert (
        (info.finished_at is not None)
        == (info.status in k.FINAL)
        == (info.reason is not None or info.status == "SUCCESS")
    )
    assert (info.due_at is not None) == (info.status in {"SCHEDULED", "RETRY"})
    assert bytes(info.result) == (b"[1]" if info.status == "SUCCESS" else b"null")
    result = rig.ask(k.GetResult(id=item.id), k.TaskResult)
    assert (result.status, bytes(result.result), result.attempts) == (info.status, bytes(info.result), info.attempts)
    why = rig.ask(k.GetTaskWhy(id=item.id), k.TaskWhy)
    first = {"SCHEDULED": "scheduled", "RETRY": "backoff", "PROCESSING": "running"}
    if info.status == "QUEUED":
        assert why.reasons[0].code not in {*first.values(), "finished"}
    else:
        assert why.reasons[0].code == first.get(info.status, "finished")


def _lists_agree(doing: Doing, everything: list[k.TaskSummary]) -> None:
    """Filters leave the order alone, and leave out what does not fit."""
    assert [item.id for item in doing.tasks(order="oldest")] == [item.id for item in everything][::-1]
    for status in k.STATES:
        assert doing.tasks(status=status) == [item for item in everything if item.status == status]
    for worker_id in doing.workers:
        assert doing.tasks(worker_id=worker_id) == [item for item in everything if item.worker_id == worker_id]


def _queues_agree(doing: Doing, everything: list[k.TaskSummary]) -> None:
    for info in doing.rig.ask(q.ListQueues(), q.QueueList).items:
        assert info == doing.rig.ask(q.GetQueue(queue=info.name), q.QueueInfo)
        listed = doing.tasks(queue=info.name)
        counted = Counter(item.status.lower() for item in listed)
        assert {name: getattr(info.counts, name) for name in counted} == counted
        assert sum(msgspec.structs.astuple(info.counts)) == len(listed)
        assert (info.oldest_ms is not None) == (info.counts.queued > 0)
        assert {item.id for item in listed} <= {item.id for item in everything if item.queue == info.name}


def _workers_agree(doing: Doing, everything: list[k.TaskSummary]) -> None:
    listed = doing.rig.ask(w.ListWorkers(), w.WorkerList).items
    newest = {info.name: info.status for info in listed if info.status != "LEFT"}
    newest = {
        name: status for name, status in newest.items() if [i for i in listed if i.name == name][-1].status == status
    }
    beats = doing.rig.ask(Heartbeats(), BeatLog).beats
    assert {name: beat.status for name, beat in beats.items()} == newest
    for info in listed:
        one = doing.rig.ask(w.GetWorker(worker_id=info.worker_id), w.WorkerInfo)
        assert msgspec.structs.replace(one, running=[], beats=[]) == info
        runs = [item.id for item in everything if item.status == "PROCESSING" and item.worker_id == info.worker_id]
        assert [task.id for task in one.running] == runs[::-1]
        assert (info.leases, info.state == "BUSY") == (len(runs), bool(runs))
        assert len(one.beats) <= limits.BEATS_KEPT
        told = doing.rig.machine.query(e.GetDirectives(worker_id=info.worker_id, tokens=(1,)))
        assert isinstance(told, e.Directives if info.status == "ALIVE" else w.WorkerNotAlive)
