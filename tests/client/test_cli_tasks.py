"""``quorl task``: its output as a contract, its exit codes."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import msgspec
import pytest

from quorl.client.cli.hints import REASONS
from quorl.client.cli.telling import new_call
from quorl.client.errors import NotFinished, TaskFailed
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from tests.client.commands import Quorl
from tests.client.desk import (
    Desk,
    at,
    failed,
    info,
    lease,
    listed,
    summary,
    tasks_of,
    worker_info,
)
from tests.client.scripted import Clock, problem
from tests.client.stand_in import StandIn


@pytest.fixture
def desk(cluster: StandIn) -> Desk:
    return Desk(cluster, "default")


# -- submit ---------------------------------------------------------------------------------------------------------
def test_submit_prints_the_id(quorl: Quorl, desk: Desk) -> None:
    result = quorl("task", "submit", "demo.add", "4", "-5", "[1, 2]", "five", '"6"', "--kwarg", "deep=true")
    (task_id,) = desk.tasks
    assert result.stdout == f"{task_id}\n"
    assert result.stderr == 'demo.add(4, -5, [1, 2], "five", "6", deep=true) → default, QUEUED\n'
    task = desk.tasks[task_id]
    assert new_call(task).removeprefix("demo.add") == '(4, -5, [1, 2], "five", "6", deep=true)'
    assert json.loads(quorl("task", "submit", "demo.add", "--json").stdout)["items"][0]["status"] == "QUEUED"


def test_submit_takes_every_option(quorl: Quorl, desk: Desk) -> None:
    words = "--id x --priority 9 --delay 1h30m --expires 2d --attempts 5 --max-lost 2 --run-timeout 500ms --key k"
    more = ["--tag", "a", "--tag", "b", "--meta", "by=me", "--backoff", "fixed:5s", "-q", "default"]
    assert quorl("task", "submit", "demo.add", *words.split(), *more).exit_code == 0
    assert desk.tasks["x"] == b.NewTask(
        id="x",
        name="demo.add",
        args=msgspec.Raw(b"[]"),
        kwargs=msgspec.Raw(b"{}"),
        priority=9,
        key="k",
        delay_ms=5_400_000,
        expires_ms=172_800_000,
        timeout_ms=500,
        max_attempts=5,
        max_lost=2,
        backoff=q.Backoff(kind="fixed", first_ms=5_000),
        tags=["a", "b"],
        meta={"by": "me"},
    )
    assert "was there already" in quorl("task", "submit", "demo.add", *words.split(), *more).stderr
    assert quorl("task", "submit", "demo.add", "--id", "x").exit_code == 4
    assert quorl("task", "submit", "a", "--run-at", "2030-01-31T18:00:00Z", "--id", "y").exit_code == 0
    assert desk.tasks["y"].run_at == "2030-01-31T18:00:00+00:00"
    assert quorl("task", "submit", "a", "--run-at", "2030-01-31T18:00", "--id", "z").exit_code == 0
    assert re.fullmatch(r"2030-01-31T18:00:00[+-]\d\d:\d\d", desk.tasks["z"].run_at or ""), "the zone of this machine"


@pytest.mark.parametrize(
    "words",
    [
        ("--priorty", "5"),
        ("--delay", "soon"),
        ("--delay", "30d", "--run-at", "2030-01-01"),
        ("--run-at", "tomorrow"),
        ("--delay", "11000d"),
        ("--kwarg", "x"),
        ("--priority", "10"),
        ("--backoff", "sometimes"),
        ("--backoff", "fixed:1s:2s:3s"),
        ("--backoff", "1s,2s:5s"),
        ("-x",),
    ],
    ids=" ".join,
)
def test_submit_refuses_what_is_no_option(quorl: Quorl, desk: Desk, words: tuple[str, ...]) -> None:
    assert quorl("task", "submit", "demo.add", *words).exit_code == 2
    assert not desk.tasks


def test_what_looks_like_an_option_is_an_argument_after_two_dashes(quorl: Quorl, desk: Desk) -> None:
    assert quorl("task", "submit", "a", "--id", "x", "--", "--flag", "-").exit_code == 0
    assert new_call(desk.tasks["x"]) == 'a("--flag", "-")'


def test_submit_and_wait(quorl: Quorl, cluster: StandIn, desk: Desk) -> None:
    tasks_of(cluster, info(id="x"))
    result = quorl("task", "submit", "demo.add", "4", "5", "--id", "x", "--wait")
    assert result.stdout == "9\n"
    assert result.stderr.splitlines() == [
        "x demo.add(4, 5) → default",
        "SUCCESS in 14 ms (queue 3 ms, run 1 ms) on w1, attempt 1",
    ]
    assert result.exit_code == 0
    tasks_of(cluster, info(id="y", result=msgspec.Raw('"hällo\\n"'.encode())))
    assert quorl("task", "submit", "demo.add", "--id", "y", "--wait", "--quiet").stdout == "hällo\n\n"


def test_waiting_for_a_task_that_fails(quorl: Quorl, cluster: StandIn, desk: Desk) -> None:
    tasks_of(cluster, failed("x"))
    result = quorl("task", "submit", "demo.add", "1", "ejnf", "--id", "x", "--wait")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[1:] == [
        "FAILED after 3 of 3 attempts in 7.0 s (queue 1.0 s, between attempts 1.9 s, run 2 ms), last on w3",
        "error  demo.add is FAILED",
        "why    ValueError: no number: 'ejnf'",
        "try    quorl task show x · quorl task retry x",
    ]
    as_json = quorl("task", "submit", "demo.add", "1", "ejnf", "--id", "x", "--wait", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["status"]) == (1, "FAILED")


def test_waiting_says_why_it_takes_long(quorl: Quorl, cluster: StandIn, desk: Desk) -> None:
    states = iter([info("QUEUED", id="x"), info("QUEUED", id="x"), info("PROCESSING", id="x"), info(id="x")])
    waits: list[float] = []

    def get(request: k.GetTask) -> k.TaskInfo:
        waits.append(request.wait)
        return next(states)

    reason = k.Reason(code="no_workers", detail="no worker alive serves default", hint="start one")
    cluster.answers["get_task"] = get
    cluster.answers["get_task_why"] = lambda _: k.TaskWhy(id="x", status="QUEUED", reasons=[reason])
    result = quorl("task", "submit", "demo.add", "--id", "x", "--wait")
    assert result.stderr.splitlines()[1:4] == [
        "warn   no_workers: no worker alive serves default",
        "why    the task waits in its queue until that changes; Ctrl-C ends the waiting, not the task",
        "try    Start one: quorl worker run MODULE:APP -q default",
    ]
    assert result.stderr.count("no worker alive") == 1
    assert result.stdout == "9\n"
    assert waits == [1, 20, 20, 20]


def test_a_worker_that_comes_at_once_is_not_missed_aloud(quorl: Quorl, cluster: StandIn, desk: Desk) -> None:
    listed(cluster, "list_workers", w.WorkerList)
    cluster.answers["get_task"] = lambda _: info(id="x")
    result = quorl("task", "submit", "demo.add", "--id", "x", "--wait")
    assert (result.exit_code, "warn" in result.stderr) == (0, False)


def test_a_task_that_waits_for_somebody_is_told_of(quorl: Quorl, cluster: StandIn, desk: Desk) -> None:
    listed(cluster, "list_workers", w.WorkerList)
    reasons = [k.Reason(code="no_workers", detail="no worker serves default", hint="")]
    cluster.answers["get_task_why"] = lambda _: k.TaskWhy(id="x", status="QUEUED", reasons=reasons)
    warned = quorl("task", "submit", "demo.add", "1")
    assert warned.stderr.splitlines()[1:] == [
        "warn   no_workers: no worker serves default",
        "why    the task waits in its queue until that changes",
        "try    Start one: quorl worker run MODULE:APP -q default",
    ]
    assert warned.exit_code == 0
    assert quorl("task", "submit", "demo.add", "--quiet").stderr == ""
    reasons[0] = k.Reason(code="ready", detail="a worker takes it next", hint="")
    assert "warn" not in quorl("task", "submit", "demo.add").stderr
    cluster.answers["get_task_why"] = lambda _: k.TaskNotFound(detail="not here yet")
    assert quorl("task", "submit", "demo.add").exit_code == 0


def test_d15_a_name_that_nobody_has_is_a_warning_or_with_strict_an_error(
    quorl: Quorl, cluster: StandIn, desk: Desk
) -> None:
    asked = listed(cluster, "list_workers", w.WorkerList, worker_info(1, "w1"), worker_info(2, "w2"))
    warned = quorl("task", "submit", "demo.ad", "1", "--id", "x")
    assert warned.exit_code == 0
    assert warned.stdout == "x\n"
    assert (asked[0].status, asked[0].queue) == ("ALIVE", "default")
    start = "a worker that has it: quorl worker run MODULE:APP -q default"
    assert warned.stderr.splitlines()[1:] == [
        "warn   no_worker_for_task: nobody alive has registered `demo.ad` - did you mean `demo.add`?",
        "why    2 workers are alive on queue default; known there: demo.add",
        f"try    Look what became of it: quorl task show x, or start {start}",
    ]
    assert "`add` - did you mean `demo.add`?" in quorl("task", "submit", "add", "1", "2", "--strict").stderr
    refused = quorl("task", "submit", "demo.ad", "1", "--strict")
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[0] == warned.stderr.splitlines()[1].replace("warn ", "error")
    assert list(desk.tasks) == ["x"]
    assert quorl("task", "submit", "demo.add", "1", "2", "--strict").exit_code == 0
    listed(cluster, "list_workers", w.WorkerList, worker_info(1, "w1"), worker_info(2, "w2", handlers=[]))
    assert "warn" not in quorl("task", "submit", "demo.ad").stderr, "who names no tasks may have any"
    listed(cluster, "list_workers", w.WorkerList)
    assert "no worker is alive on queue default\n" in quorl("task", "submit", "demo.add", "--strict").stderr


def test_c8_arguments_that_no_worker_takes_are_a_warning_or_with_strict_an_error(
    quorl: Quorl, cluster: StandIn, desk: Desk
) -> None:
    listed(cluster, "list_workers", w.WorkerList, worker_info(1, "w1"))
    warned = quorl("task", "submit", "demo.add", "1", "--id", "x")
    assert (warned.exit_code, warned.stdout) == (0, "x\n")
    assert warned.stderr.splitlines()[1:] == [
        "warn   arguments_refused: the arguments do not fit `demo.add`",
        "why    missing a required argument: 'y'; it is demo.add(x: int, y: int) -> int",
        "try    It ends FAILED; submit it again with other arguments",
    ]
    refused = quorl("task", "submit", "demo.add", "1", "2", "--kwarg", "z=3", "--strict")
    assert refused.exit_code == 1
    assert "got an unexpected keyword argument 'z'" in refused.stderr
    assert list(desk.tasks) == ["x"]
    assert "warn" not in quorl("task", "submit", "demo.add", "1", "--kwarg", "y=2", "--strict").stderr
    named = quorl("task", "submit", "demo.add", "x=4", "y=5")
    assert named.stderr.splitlines()[1:] == [
        'warn   "x=4" is handed over as this text, by its position',
        "why    arguments that are named take --kwarg",
        "try    quorl task submit demo.add --kwarg x=4 --kwarg y=5",
    ]
    assert "warn" not in quorl("task", "submit", "demo.add", "a=4", "x").stderr, "any other text is as good as another"
    other = [w.Handler(name="demo.add", signature="(x)")]
    listed(cluster, "list_workers", w.WorkerList, worker_info(1, "w1"), worker_info(2, "w2", handlers=other))
    assert "warn" not in quorl("task", "submit", "demo.add", "1").stderr, "one of them takes it"
    listed(cluster, "list_workers", w.WorkerList, worker_info(1, "w1"), worker_info(2, "w2", handlers=[]))
    assert "warn" not in quorl("task", "submit", "demo.add", "1").stderr, "who names no tasks may take anything"


def test_what_is_wrong_is_said_before_waiting_too(quorl: Quorl, cluster: StandIn, desk: Desk) -> None:
    tasks_of(cluster, info("SUCCESS", id="x"))
    listed(cluster, "list_workers", w.WorkerList, worker_info(1, "w1"))
    told = quorl("task", "submit", "demo.ad", "1", "2", "--id", "x", "--wait")
    assert "warn   no_worker_for_task: nobody alive has registered `demo.ad`" in told.stderr
    tasks_of(cluster, info("SUCCESS", id="y"))
    assert "warn   arguments_refused" in quorl("task", "submit", "demo.add", "--id", "y", "--wait").stderr
    assert "warn" not in quorl("task", "submit", "demo.add", "--id", "y", "--wait", "--quiet").stderr
    assert "warn" not in quorl("task", "submit", "demo.add", "--id", "y", "--wait", "--json").stderr


@pytest.mark.parametrize("text", ['{"a": 1', "[1, 2", '"half', "{a: 1}", "[" * 2000])
def test_broken_json_is_said_to_be_text(quorl: Quorl, cluster: StandIn, desk: Desk, text: str) -> None:
    listed(cluster, "list_workers", w.WorkerList)
    told = quorl("task", "submit", "demo.add", text, "--kwarg", f"x={text}", "--id", "x")
    assert told.exit_code == 0
    assert told.stderr.count(" looks like JSON and is none (") == 2
    assert msgspec.json.decode(bytes(desk.tasks["x"].args)) == [text]  # type: ignore[arg-type]
    plain = quorl("task", "submit", "demo.add", "text", "{}", "[1]", '"x"', "a[1]", "true")
    assert "looks like JSON" not in plain.stderr


def test_waiting_has_an_end(quorl: Quorl, cluster: StandIn, desk: Desk, still: Clock) -> None:
    def get(request: k.GetTask) -> k.TaskInfo:
        still.sleep(request.wait)  # as the node does, which holds the answer back
        return info("PROCESSING", id="x")

    cluster.answers["get_task"] = get
    for words, seconds in (
        (("submit", "demo.add", "--id", "x", "--max-wait", "0"), 0),
        (("result", "x"), 0),
        (("wait", "x", "--max-wait", "0"), 0),
        (("submit", "demo.add", "--id", "x", "--wait", "--timeout", "30"), 30),
        (("result", "x", "--wait", "--timeout", "30"), 30),
        (("wait", "x", "--timeout", "30"), 30),
        (("wait", "x", "--timeout", "60", "--max-wait", "0"), 0),
        (("wait", "x", "--timeout", "60", "--max-wait", "5"), 5),
    ):
        began = still.now
        result = quorl("task", *words)
        assert result.exit_code == 6
        assert "PROCESSING" in result.stderr + result.stdout
        assert still.now - began == seconds, words


@pytest.mark.parametrize(("status", "look"), [("PROCESSING", "show"), ("QUEUED", "why")])
def test_who_waited_in_vain_is_told_for_what_how_long_and_what_to_do(
    quorl: Quorl, cluster: StandIn, desk: Desk, status: k.Status, look: str
) -> None:
    tasks_of(cluster, info(status, id="x"))
    cluster.answers["get_task_why"] = lambda _: k.TaskWhy(id="x", status=status, reasons=[])
    hint = f"try    quorl task wait x · quorl task {look} x"
    waited = [
        f"error  demo.add is {status} after 20 ms of waiting",
        "why    it was not finished in that time, and goes on",
        hint,
    ]
    for words in (("submit", "demo.add", "--id", "x"), ("result", "x")):
        result = quorl("task", *words, "--max-wait", "20ms")
        assert result.stderr.splitlines()[-3:] == waited
    at_once = quorl("task", "result", "x").stderr.splitlines()
    assert at_once == [f"error  demo.add is {status}", "why    it is not finished, and has no result yet", hint]
    told = quorl("task", "wait", "x", "--max-wait", "20ms")
    assert told.stderr.startswith(f"! x is {status} after 20 ms of waiting, and goes on; again: quorl task wait x · ")
    assert told.stderr.endswith(f": quorl task {look} x\n")


def test_a_submit_of_which_nothing_is_known_can_be_looked_at(quorl: Quorl, cluster: StandIn, desk: Desk) -> None:
    for mishaps in cluster.mishaps:
        mishaps.extend(["reset after", problem("commit_unknown")] * 40)
    result = quorl("task", "submit", "demo.add", "--timeout", "0.4")
    assert result.exit_code == 6
    (task_id,) = desk.tasks
    assert f"quorl task show {task_id} says whether it is there; again with --id {task_id} is safe" in result.stderr
    cluster.mishaps[0].clear()
    for mishaps in cluster.mishaps:
        mishaps.clear()
        mishaps.extend(["reset after"])
    assert quorl("task", "submit", "demo.add", "--timeout", "5").exit_code == 0
    assert len(desk.tasks) == 2


# -- looking at tasks -----------------------------------------------------------------------------------------------
def test_task_ls(quorl: Quorl, cluster: StandIn) -> None:
    long = "x" * 300
    found = [summary("t1"), summary("t2", "SUCCESS", error=None, attempts=1, lost=2), summary("t3", args=msgspec.Raw(b"null")), summary(long)]  # fmt: skip
    asked = listed(cluster, "list_tasks", k.TaskList, *found)
    result = quorl(
        "task", "ls", "-q", "default", "--status", "failed", "--status", "SUCCESS", "--name", "a", "--worker", "7"
    )
    columns, first, second, third, last = result.stdout.splitlines()
    assert columns.split() == ["ID", "TASK", "QUEUE", "STATUS", "TRIES", "WORKER", "CREATED", "TOOK", "ERROR"]
    assert first.endswith(f"3/3  w1      {at(0)}  1.0 s  ValueError: no number: 'ejnf'")
    assert 'demo.add("1", "ejnf")' in first
    assert "1/3 +2 lost" in second
    assert "demo.add(…)" in third
    assert last.startswith(long)
    assert (asked[0].queue, asked[0].status, asked[0].name, asked[0].worker_id) == ("default", "FAILED,SUCCESS", "a", 7)
    assert len(asked) == 2
    assert [one["id"] for one in json.loads(quorl("task", "ls", "--json", "-n", "3").stdout)] == ["t1", "t2", "t3"]
    assert "--all lists all" in quorl("task", "ls", "-n", "4").stderr
    assert quorl("task", "ls", "--all", "--oldest").stderr == ""
    assert asked[-1].order == "oldest"
    listed(cluster, "list_tasks", k.TaskList)
    assert "no task fits" in quorl("task", "ls").stderr
    cluster.answers.pop("list_tasks")
    assert quorl("task", "ls", "--status", "LOST").exit_code == 2


def test_task_show(quorl: Quorl, cluster: StandIn) -> None:
    tasks_of(cluster, failed("t1"))
    result = quorl("task", "show", "t1")
    lines = result.stdout.splitlines()
    assert lines[:4] == [
        'demo.add("1", "ejnf")  FAILED after 3 of 3 attempts in 7.0 s (queue 1.0 s, between attempts 1.9 s, run 2 ms), last on w3',
        " id t1 · queue default · priority 5",
        f" submitted {at(0)} · started {at(0.5)} · finished {at(7)}",
        "",
    ]
    assert lines[4].split() == ["#", "WORKER", "STARTED", "TOOK", "OUTCOME", "ERROR"]
    assert lines[5].split(maxsplit=5) == ["1", "w1", at(1), "2", "ms", "failed   ValueError: no number: 'ejnf'"]
    assert [line.split()[-1] for line in lines[6:8]] == ["″", "″"]
    assert lines[9] == "Traceback of attempt 3"
    assert lines[-1] == "  ValueError: no number: \\x1b[31mejnf", "nothing of a task goes to the terminal as it is"
    assert result.stderr == "→ quorl task retry t1\n"
    assert json.loads(quorl("task", "show", "t1", "--json").stdout)["attempts"] == 3
    missing = quorl("task", "show", "t9")
    assert missing.exit_code == 3
    assert "quorl task ls" in missing.stderr


def test_task_show_of_other_states(quorl: Quorl, cluster: StandIn) -> None:
    running = info(
        "PROCESSING",
        id="run",
        partition=2,
        key="k",
        tags=["a", "b"],
        meta={"by": "me"},
        traceparent="00-4bf9",
        timeout_ms=30_000,
        due_at=at(1),
        progress=40.5,
        note="scaling",
        cancel_requested=True,
        lost=1,
        history=[lease(1, "lost", 2, 3), lease(2, "running", 4, None)],
    )
    never = info("CANCELLED", id="never", reason="PURGED")
    poison = info("FAILED", id="poison", lost=5, reason="POISON", history=[lease(1, "lost", 2, 3)])
    tasks_of(cluster, running, never, poison, info("QUEUED", id="new"), info(id="good"))
    shown = quorl("task", "show", "run").stdout
    assert (
        "queue default, partition 2 · priority 5 · key k · tags a, b · by=me · trace 00-4bf9 · at most 30.0 s for a run"
        in shown
    )
    assert "progress 40.5 % scaling" in shown
    assert "its worker is asked to stop" in shown
    assert "tries 0/3 +1 lost" in shown
    assert "no sign of life of its worker" in shown
    assert quorl("task", "show", "never").stdout.startswith(
        "demo.add(4, 5)  CANCELLED after 14 ms, never started, PURGED"
    )
    assert "1 of 3" not in quorl("task", "show", "poison").stdout
    assert "5 workers lost, POISON" in quorl("task", "show", "poison").stdout
    assert quorl("task", "show", "good").stdout.splitlines()[-1] == "result 9"
    assert quorl("task", "show", "new").stderr == "→ quorl task why new · quorl task cancel new\n"


def test_task_wait_cancel_retry(quorl: Quorl, cluster: StandIn) -> None:
    tasks_of(cluster, info(id="a"), failed("b"))
    result = quorl("task", "wait", "a", "b")
    assert result.exit_code == 1
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["a", "SUCCESS"], ["b", "FAILED"]]
    assert quorl("task", "wait", "a").exit_code == 0
    assert quorl("task", "result", "a").stdout == "9\n"
    assert quorl("task", "result", "b").exit_code == 1

    def cancel(request: k.CancelTask) -> Any:
        if request.id == "done":
            return k.WrongState(detail="done is SUCCESS")
        return k.Cancelled(
            id=request.id, status="PROCESSING" if request.id == "run" else "CANCELLED", cancel_requested=True
        )

    cluster.answers["cancel_task"] = cancel
    cancelled = quorl("task", "cancel", "new", "done", "run")
    assert cancelled.exit_code == 4
    assert "new CANCELLED\n" in cancelled.stderr
    assert "run PROCESSING, its worker is told to stop\n" in cancelled.stderr
    assert "why    done is SUCCESS\n" in cancelled.stderr
    cluster.answers["retry_task"] = lambda request: k.TaskStatus(id=request.id, status="QUEUED", attempts=3)
    assert quorl("task", "retry", "b").stderr == "b QUEUED, after 3 attempts\n"
    assert json.loads(quorl("task", "retry", "b", "--json").stdout)["status"] == "QUEUED"


def test_task_why(quorl: Quorl, cluster: StandIn) -> None:
    reasons = [k.Reason(code="no_workers", detail="No worker alive serves it.", hint="in the words of HTTP")]
    cluster.answers["get_task_why"] = lambda _: k.TaskWhy(id="t1", status="QUEUED", reasons=reasons)
    tasks_of(cluster, info("QUEUED", id="t1", queue="reports"))
    result = quorl("task", "why", "t1")
    assert result.stdout.splitlines() == [
        "t1 QUEUED",
        "no workers: No worker alive serves it.",
        "  try  Start one: quorl worker run MODULE:APP -q reports",
    ]
    assert json.loads(quorl("task", "why", "t1", "--json").stdout)["reasons"][0]["code"] == "no_workers"
    reasons[0] = k.Reason(code="finished", detail="It is FAILED.", hint="in the words of HTTP")
    tasks_of(cluster, failed("t1"))
    assert "  try  quorl task retry t1\n" in quorl("task", "why", "t1").stdout


def test_commands_that_are_told_can_be_copied_whatever_a_task_is_called(quorl: Quorl, cluster: StandIn) -> None:
    name, word = "invoice 17; it's", """'invoice 17; it'"'"'s'"""
    waiting = info("QUEUED", id=name, queue="a b")
    reasons = [k.Reason(code="no_workers", detail="No worker alive serves it.", hint="")]
    cluster.answers["get_task_why"] = lambda _: k.TaskWhy(id=name, status="QUEUED", reasons=reasons)
    tasks_of(cluster, waiting)
    assert quorl("task", "show", name).stderr == f"→ quorl task why {word} · quorl task cancel {word}\n"
    assert "  try  Start one: quorl worker run MODULE:APP -q 'a b'\n" in quorl("task", "why", name).stdout
    assert f"try    quorl task wait {word} · quorl task why {word}\n" in quorl("task", "result", name).stderr
    assert f"again: quorl task wait {word} · " in quorl("task", "wait", name, "--max-wait", "10ms").stderr
    tasks_of(cluster, msgspec.structs.replace(failed("t1"), id=name))
    assert f"try    quorl task show {word} · quorl task retry {word}\n" in quorl("task", "result", name).stderr
    for error in (NotFinished(name, "QUEUED", 1), TaskFailed(name, "ValueError", "", "", 3)):
        assert word in error.hint


def test_every_reason_to_wait_has_a_hint_in_the_words_of_the_command_line() -> None:
    (kind,) = [one.type for one in msgspec.structs.fields(k.Reason) if one.name == "code"]
    codes = set(get_args(kind))
    assert codes - set(REASONS) == {"finished"}
