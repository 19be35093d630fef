"""``quorl queue`` and ``quorl dead``: their output as a contract, their exit codes, and who is asked before harm is done."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from quorl.cluster.protocol import batches as b
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from tests.client import sights
from tests.client.commands import Quorl
from tests.client.desk import (
    Desk,
    at,
    failed,
    listed,
    queue_info,
    somebody_answers,
    summary,
    tasks_of,
    worker_info,
)
from tests.client.stand_in import StandIn


# -- queues ---------------------------------------------------------------------------------------------------------
def test_queue_ls(quorl: Quorl, cluster: StandIn) -> None:
    busy = queue_info(counts=q.QueueCounts(scheduled=12, queued=1204, processing=16, retry=2, success=90, failed=3), oldest_ms=1800, workers=4)  # fmt: skip
    idle = queue_info("reports", counts=q.QueueCounts(queued=312), health="no_workers", workers=0, oldest_ms=584_000)
    listed(cluster, "list_queues", q.QueueList, busy, idle, queue_info("slow", health="paused"))
    full = sights.queue("default", full=True, submitted_s=210.44, succeeded_s=1208.9)
    cluster.answers["get_overview"] = lambda _: sights.overview(cluster.info(), queues=[full, sights.queue("slow")])
    result = quorl("queue", "ls")
    assert [re.split(r"  +", line) for line in result.stdout.splitlines()] == [
        ["QUEUE", "HEALTH", "QUEUED", "SCHED", "RUNNING", "RETRY", "FAILED", "IN/s", "DONE/s", "OLDEST", "WORKERS"],
        ["default", "FULL", "1 204", "12", "16", "2", "3", "210.4", "1 208.9", "1.8 s", "4"],
        ["reports", "NO WORKERS", "312", "0", "0", "0", "0", "–", "–", "9m 44s", "0"],
        ["slow", "paused", "0", "0", "0", "0", "0", "0.0", "0.0", "–", "1"],
    ]
    hint = "! reports: 312 tasks wait and no worker serves it. Start one: quorl worker run MODULE:APP -q reports\n"
    assert result.stderr == hint
    assert [one["name"] for one in json.loads(quorl("queue", "ls", "--json").stdout)] == ["default", "reports", "slow"]
    listed(cluster, "list_queues", q.QueueList)
    assert "no queues yet" in quorl("queue", "ls").stderr
    assert "no queue begins with" in quorl("queue", "ls", "zz").stderr


@pytest.mark.parametrize(("queues", "more"), [(3, []), (4, ["! and 1 more queue with NO WORKERS"])])
def test_of_many_queues_without_workers_some_are_told(
    quorl: Quorl, cluster: StandIn, queues: int, more: list[str]
) -> None:
    counts = q.QueueCounts(queued=1)
    found = [queue_info(f"q{n}", counts=counts, health="no_workers", workers=0) for n in range(queues)]
    listed(cluster, "list_queues", q.QueueList, *found)
    told = quorl("queue", "ls").stderr.splitlines()
    assert [line.partition(":")[0] for line in told[:3]] == ["! q0", "! q1", "! q2"]
    assert told[3:] == more


def test_queue_set_and_show(quorl: Quorl, cluster: StandIn) -> None:
    desk = Desk(cluster)
    listed(
        cluster,
        "list_workers",
        w.WorkerList,
        worker_info(1, "w1"),
        worker_info(2, "w2", standby=True, active=False),
        worker_info(3, "w3", "LEFT"),
        worker_info(4, "w4", "DEAD"),
    )
    assert quorl("queue", "show", "jobs").exit_code == 3
    assert quorl("queue", "set", "jobs", "--partitions", "6").stderr.startswith("made: jobs\npartitions      6\n")
    asked: list[Any] = []

    def patch(request: q.PatchQueue) -> Any:
        asked.append(request)
        return desk.patch(request)

    cluster.answers["patch_queue"] = patch
    words = [
        "--attempts",
        "5",
        "--max-lost",
        "2",
        "--backoff",
        "1s,5s,1m",
        "--jitter",
        "0",
        "--run-timeout",
        "30",
        "--keep",
        "0",
        "--max-depth",
        "100",
    ]
    assert quorl("queue", "set", "jobs", "--partitions", "6", *words).stderr.startswith("set: jobs\n")
    backoff = q.Backoff(kind="list", delays_ms=(1000, 5000, 60_000), jitter=0)
    assert asked == [
        q.PatchQueue(queue="jobs", default_attempts=5, max_lost=2, backoff=backoff, timeout_ms=30_000, keep_finished_ms=0, max_depth=100)
    ]  # fmt: skip
    assert quorl("queue", "set", "jobs", "--jitter", "0.5").exit_code == 0
    assert asked[-1].backoff == msgspec.structs.replace(backoff, jitter=0.5)
    assert "run time-out    none\n" in quorl("queue", "set", "jobs", "--run-timeout", "0").stderr
    assert "run time-out    none\n" in quorl("queue", "set", "others", "--run-timeout", "0").stderr
    assert quorl("queue", "set", "jobs", "--partitions", "7").exit_code == 4
    assert json.loads(quorl("queue", "set", "jobs", "--json").stdout)["max_depth"] == 100
    shown = quorl("queue", "show", "jobs").stdout
    for line in ("back-off        1.0 s, 5.0 s, 1m 0s, jitter 0.5", "keep finished   for ever", "max depth       100"):
        assert line in shown
    assert re.search(r"2  w2    ALIVE    0/4  stand-by", shown)
    assert re.search(r"4  w4    DEAD     0/4  –", shown), "who is dead has no part in it"
    assert "w3" not in shown
    assert json.loads(quorl("queue", "show", "jobs", "--json").stdout)["partitions"] == 6


def test_queue_pause_resume_seal_unseal(quorl: Quorl, cluster: StandIn) -> None:
    desk = Desk(cluster)
    assert quorl("queue", "pause", "jobs").exit_code == 3
    desk.put(q.PutQueue(queue="jobs"))
    for word, done, fact in (
        ("pause", "paused", ("paused", True)),
        ("resume", "resumed", ("paused", False)),
        ("seal", "sealed", ("sealed", True)),
        ("unseal", "unsealed", ("sealed", False)),
    ):
        ends = "; 1 worker to end, once its queues are all sealed and empty" if word == "seal" else ""
        assert quorl("queue", word, "jobs").stderr == f"{done}: jobs, 0 tasks waiting, 0 running{ends}\n"
        assert getattr(desk.known, fact[0]) is fact[1]
        assert json.loads(quorl("queue", word, "jobs", "--json").stdout)[fact[0]] is fact[1]


def test_queue_purge_asks_with_the_count_and_goes_on_until_nothing_is_left(
    quorl: Quorl, cluster: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"count": 2500}
    states: list[Any] = []

    def purge(request: q.PurgeQueue) -> q.Purged:
        states.append(request.states)
        removed = min(1000, left["count"])
        if request.dry_run:
            return q.Purged(removed=removed, remaining=left["count"] - removed)
        left["count"] -= removed
        return q.Purged(removed=removed, remaining=left["count"])

    cluster.answers["purge_queue"] = purge
    refused = quorl("queue", "purge", "jobs")
    assert refused.exit_code == 2
    assert "nobody is here to answer, so nothing was done" in refused.stderr
    assert refused.stderr.splitlines()[2].startswith("try    quorl queue purge ")
    assert refused.stderr.splitlines()[2].endswith(" --yes")
    somebody_answers(monkeypatch)
    no = quorl("queue", "purge", "jobs", input="n\n")
    assert (no.exit_code, left["count"]) == (1, 2500)
    assert "Cancel 2 500 tasks (SCHEDULED, QUEUED, RETRY) of jobs?" in no.stderr
    assert quorl("queue", "purge", "jobs", input="y\n").stderr.endswith("purged: jobs, 2 500 tasks\n")
    assert left["count"] == 0
    assert json.loads(quorl("queue", "purge", "jobs", "--json").stdout) == {"queue": "jobs", "removed": 0}
    left["count"] = 1
    assert (
        "Forget 1 task (FAILED) of jobs?" in quorl("queue", "purge", "jobs", "--status", "failed", input="n\n").stderr
    )
    assert states[-1] == ("FAILED",)


def test_queue_rm(quorl: Quorl, cluster: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    Desk(cluster).put(q.PutQueue(queue="jobs"))
    cluster.answers["get_queue"] = lambda _: queue_info("jobs", submitted=7)
    cluster.answers["delete_queue"] = lambda _: q.QueueNotEmpty(detail="7 tasks")
    assert quorl("queue", "rm", "jobs").exit_code == 2
    somebody_answers(monkeypatch)
    full = quorl("queue", "rm", "jobs", input="y\n")
    assert "Delete jobs, 7 tasks submitted?" in full.stderr
    assert full.exit_code == 4
    cluster.answers["delete_queue"] = lambda request: q.QueueDeleted(name=request.queue)
    assert quorl("queue", "rm", "jobs", "--yes").stderr == "deleted: jobs\n"
    assert json.loads(quorl("queue", "rm", "jobs", "-y", "--json").stdout) == {"name": "jobs"}


# -- the dead -------------------------------------------------------------------------------------------------------
NUMBER = "0123456789abcdef"
"""The cause of errors about numbers."""


def dead_groups(request: b.ListDeadGroups) -> b.DeadGroups:
    """Two pages, on both of which the same group is."""

    def group(cause: str, error: str, count: int, first: int, last: int, sample_id: str) -> b.DeadGroup:
        return b.DeadGroup(
            cause=cause, queue="default", name="demo.add", reason="ERROR", error=error, count=count,
            first_at=at(first), last_at=at(last), sample_id=sample_id,
        )  # fmt: skip

    number = "ValueError: no number: '…'"
    if not request.cursor:
        return b.DeadGroups(items=[group(NUMBER, number, 2, 3, 5, "t1")], looked_at=2, next="more")
    items = [group(NUMBER, number, 1, 9, 9, "t5"), group("f" * 16, "POISON", 1, 2, 2, "t4")]
    return b.DeadGroups(items=items, looked_at=2, next=None)


@pytest.fixture
def graveyard(cluster: StandIn) -> list[k.TaskSummary]:
    found = [
        summary("t1", error="ValueError: no number: 'ejnf'", finished_at=at(5), cause=NUMBER),
        summary("t2", error='ValueError: no number: "abc"', finished_at=at(3), cause=NUMBER),
        summary("t3", error="KeyError: 17 of 0xdeadbeef", name="demo.get"),
        summary("t4", error=None, reason="POISON", lost=5),
        summary("t5", error="ValueError: no number: 'x y'", finished_at=at(9), cause=NUMBER),
    ]
    listed(cluster, "list_tasks", k.TaskList, *found)
    cluster.answers["list_dead_groups"] = dead_groups
    return found


def test_dead_ls_and_errors(quorl: Quorl, cluster: StandIn, graveyard: list[k.TaskSummary]) -> None:
    columns, first, *_ = quorl("dead", "ls").stdout.splitlines()
    assert columns.split() == ["ID", "TASK", "QUEUE", "TRIES", "FINISHED", "REASON", "ERROR"]
    assert first.endswith(f"3/3  {at(5)}  ERROR   ValueError: no number: 'ejnf'")
    assert len(quorl("dead", "ls", "-n", "3").stdout.splitlines()) == 4
    assert "--all lists all" in quorl("dead", "ls", "-n", "3").stderr
    assert [one["id"] for one in json.loads(quorl("dead", "ls", "--error", "KeyError", "--json").stdout)] == ["t3"]
    groups = json.loads(quorl("dead", "errors", "--json").stdout)
    assert groups[0] == {
        "group": NUMBER,
        "count": 3,
        "name": "demo.add",
        "queue": "default",
        "error": "ValueError: no number: '…'",
        "first": at(3),
        "last": at(9),
        "example": "t5",
    }
    assert {(one["error"], one["count"]) for one in groups[1:]} == {("POISON", 1)}
    assert [one["error"] for one in json.loads(quorl("dead", "errors", "--error", "POI", "--json").stdout)] == [
        "POISON"
    ]
    result = quorl("dead", "errors")
    assert result.stdout.splitlines()[0].split() == [
        "GROUP",
        "COUNT",
        "TASK",
        "QUEUE",
        "FIRST",
        "LAST",
        "EXAMPLE",
        "ERROR",
    ]
    assert groups[0]["group"] in result.stdout
    chosen = json.loads(quorl("dead", "ls", "--error", groups[0]["group"], "-n", "2", "--json").stdout)
    assert [one["id"] for one in chosen] == ["t1", "t2"]
    listed(cluster, "list_tasks", k.TaskList)
    cluster.answers["list_dead_groups"] = lambda _: b.DeadGroups(items=[], looked_at=0, next=None)
    assert quorl("dead", "ls").stderr == quorl("dead", "errors").stderr == "no FAILED task fits\n"


def test_a_long_error_makes_no_other_line_of_dead_errors_longer(quorl: Quorl, cluster: StandIn) -> None:
    def groups(request: b.ListDeadGroups) -> b.DeadGroups:
        page = dead_groups(request)
        long = msgspec.structs.replace(page.items[0], error="ValueError: " + "x" * 2000, cause="e" * 16)
        return msgspec.structs.replace(page, items=[*page.items, long])

    cluster.answers["list_dead_groups"] = groups
    heading, *lines = sorted(quorl("dead", "errors").stdout.splitlines(), key=len)
    assert heading.split()[0] == "GROUP"
    assert lines[-1].endswith("x" * 2000)
    assert max(map(len, lines[:-1])) < 160


def test_dead_retry(
    quorl: Quorl, cluster: StandIn, graveyard: list[k.TaskSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def retry(request: k.RetryTask) -> Any:
        if request.id == "t5":
            return k.WrongState(detail="t5 is QUEUED")
        done.append(request.id)
        return k.TaskStatus(id=request.id, status="QUEUED", attempts=3)

    changed: list[b.ChangeTasks] = []

    def change(request: b.ChangeTasks) -> b.TasksChanged:
        changed.append(request)
        following = 7 if request.dry_run and request.queue and not request.after else None
        done = 3 - request.after // 7 * 3 if request.dry_run else 2
        return b.TasksChanged(action=request.action, matched=done, done=done, refused=[], next=following)

    cluster.answers |= {"retry_task": retry, "change_tasks": change}
    assert quorl("dead", "retry", "t1", "t2").stderr == "t1 retried\nt2 retried\n"
    assert quorl("dead", "retry", "t5").exit_code == 4
    for wrong in ((), ("t1", "--all"), ("t1", "--error", "x"), ("-q", "default")):
        assert quorl("dead", "retry", *wrong).exit_code == 2
    assert quorl("dead", "retry", "--error", "ValueError").exit_code == 2, "nobody to ask"
    somebody_answers(monkeypatch)
    listed(cluster, "list_queues", q.QueueList, queue_info("a", counts=q.QueueCounts(failed=5)), queue_info("b"))
    changed.clear()
    result = quorl("dead", "retry", "--error", NUMBER, input="y\n")
    assert "Retry 3 tasks?" in result.stderr
    assert "2 tasks retried, 1 no longer FAILED" in result.stderr
    assert [(one.queue, one.cause, one.after, one.dry_run) for one in changed] == [
        ("a", NUMBER, 0, True),
        ("a", NUMBER, 7, True),
        ("a", NUMBER, 0, False),
    ]
    changed.clear()
    assert quorl("dead", "retry", "--error", "ValueError", "-y").stderr.startswith("2 tasks retried")
    assert {one.ids for one in changed} == {("t1", "t2", "t5")}
    assert json.loads(quorl("dead", "retry", "--all", "--yes", "--json").stdout) == {
        "retried": 2,
        "changed_meanwhile": 1,
    }


def test_dead_purge_and_export(quorl: Quorl, cluster: StandIn, graveyard: list[k.TaskSummary]) -> None:
    gone: list[Any] = []

    def forget(request: k.ForgetTask) -> k.TaskForgotten:
        gone.append(request.id)
        return k.TaskForgotten(id=request.id)

    def purge(request: q.PurgeQueue) -> q.Purged:
        gone.append((request.queue, request.states))
        return q.Purged(removed=5, remaining=0)

    def change(request: b.ChangeTasks) -> b.TasksChanged:
        done = len(request.ids)
        gone.extend(() if request.dry_run else request.ids)
        return b.TasksChanged(action=request.action, matched=done, done=done, refused=[], next=None)

    cluster.answers |= {"forget_task": forget, "purge_queue": purge, "change_tasks": change}
    assert quorl("dead", "purge", "--error", "POISON", "--yes").stderr == "1 task forgotten\n"
    assert quorl("dead", "purge", "t1").stderr == "t1 forgotten\n"
    assert gone == ["t4", "t1"]
    some = queue_info("a", counts=q.QueueCounts(failed=5, queued=1))
    listed(cluster, "list_queues", q.QueueList, some, queue_info("b"), queue_info("c", counts=q.QueueCounts(failed=1)))
    assert quorl("dead", "purge", "--all").exit_code == 2
    assert quorl("dead", "purge", "--all", "-y").stderr == "10 tasks forgotten\n"
    assert gone[2:] == [("a", ("FAILED",)), ("c", ("FAILED",))]
    tasks_of(cluster, *[failed(one.id) for one in graveyard[:4]])
    result = quorl("dead", "export")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["t1", "t2", "t3", "t4"]
    assert json.loads(result.stdout.splitlines()[0])["errors"][2]["type"] == "ValueError"
    assert result.stderr == "4 tasks\n"
