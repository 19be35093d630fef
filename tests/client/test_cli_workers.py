"""``quorl worker`` and ``quorl monitor``, and how times are told."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from quorl.client.cli import output, times
from quorl.client.cli.options import BackoffSpec, backoff_text
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from tests.client import sights
from tests.client.commands import Quorl, start
from tests.client.desk import (
    at,
    listed,
    summary,
    worker_info,
)
from tests.client.scripted import problem
from tests.client.stand_in import StandIn


# -- workers --------------------------------------------------------------------------------------------------------
def workers_of(cluster: StandIn, *known: w.WorkerInfo) -> None:
    listed(cluster, "list_workers", w.WorkerList, *known)
    by_id = {one.worker_id: one for one in known}
    cluster.answers["get_worker"] = lambda request: by_id.get(request.worker_id) or w.WorkerNotFound(detail="no worker")


ALIVE = worker_info(1, "w-7f3a", leases=3, state="BUSY")
OTHERS = (
    worker_info(2, "w-b2e4", "DEAD", silent_ms=41_000, succeeded=2201),
    worker_info(3, "w-spare", standby=True, active=False, queues=["default", "emails"]),
    worker_info(4, "w-quiet", quiet=True, standby=True),
    worker_info(5, "w-b2e4", "LEFT"),
)
RUNNING = [
    summary("t1", "PROCESSING", worker_id=1, name="emails.send"),
    summary("t2", "PROCESSING", worker_id=1),
    summary("t3", "PROCESSING", worker_id=1),
]


def test_worker_ls(quorl: Quorl, cluster: StandIn) -> None:
    workers_of(cluster, ALIVE, *OTHERS)
    listed(cluster, "list_tasks", k.TaskList, *RUNNING)
    slow = sights.worker(2, "w-b2e4", status="DEAD", heartbeat_ms=20_000, beats="0" * 50 + "1010100000")
    seen = [sights.worker(1, "w-7f3a", beats="2" * 56 + "0210"), slow]
    cluster.answers["get_overview"] = lambda _: sights.overview(cluster.info(), workers=seen)
    rows = [re.split(r"  +", line.strip()) for line in quorl("worker", "ls").stdout.splitlines()]
    assert rows[0] == [
        "WORKER",
        "NAME",
        "STATUS",
        "HOST",
        "PID",
        "QUEUES",
        "BUSY",
        "DONE",
        "FAILED TRIES",
        "LOST",
        "LAST BEAT",
        "BEATS (2 min)",
        "NOW",
    ]
    assert rows[1] == ["1", "w-7f3a", "ALIVE", "web-1", "4121", "default", "3/4", "10 412", "17", "0", "900 ms", "||||||||·|||", "emails.send, demo.add ×2"]  # fmt: skip
    assert rows[2] == [
        "2",
        "w-b2e4",
        "DEAD",
        "web-1",
        "4121",
        "default",
        "–",
        "2 201",
        "17",
        "0",
        "41.0 s",
        "··||||||····",
        "–",
    ]
    assert [row[2] for row in rows[3:]] == ["ALIVE (stand-by)", "ALIVE (quiet) (stands in)", "LEFT"]
    assert len(json.loads(quorl("worker", "ls", "--json").stdout)) == 5
    asked = listed(cluster, "list_workers", w.WorkerList)
    assert "quorl worker run" in quorl("worker", "ls", "-q", "x", "--status", "dead").stderr
    assert (asked[0].queue, asked[0].status) == ("x", "DEAD")


def test_worker_show(quorl: Quorl, cluster: StandIn) -> None:
    running = [w.RunningTask(id="t1", name="demo.add", queue="default", token=77, started_at=at(3))]
    workers_of(cluster, msgspec.structs.replace(ALIVE, running=running, beats=[at(0), at(5), at(12)]), *OTHERS)
    shown = quorl("worker", "show", "w-7f3a").stdout
    assert shown.startswith("w-7f3a  worker 1  ALIVE · BUSY\n host web-1 · pid 4121 · version 0.1.0\n")
    assert f"last heartbeat {at(9)}, 900 ms ago · one every 5.0 s, DEAD after 15.0 s" in shown
    assert "3 heartbeats on record, the longest gap 7.0 s" in shown
    assert re.search(r"t1 +demo.add +default +77", shown)
    assert re.search(r"demo.add  \(x: int, y: int\) -> int  Add\.\n", shown)
    assert json.loads(quorl("worker", "show", "5", "--json").stdout)["status"] == "LEFT"
    assert json.loads(quorl("worker", "show", "w-b2e4", "--json").stdout)["worker_id"] == 5
    assert quorl("worker", "show", "9").exit_code == 3
    unknown = quorl("worker", "show", "nosuch")
    assert (unknown.exit_code, unknown.stderr.splitlines()) == (
        3,
        [
            "error  no worker is called nosuch",
            "why    no worker has this name, neither alive nor gone lately, and ids are numbers",
            "try    quorl worker ls",
        ],
    )
    assert quorl("worker", "show", "nobody").exit_code == 3


def test_worker_quiet_and_stop(quorl: Quorl, cluster: StandIn) -> None:
    workers_of(cluster, ALIVE, *OTHERS)
    told: list[Any] = []

    def tell(word: Any) -> Callable[[Any], Any]:
        def answer(request: Any) -> Any:
            if request.worker_id == 2:
                return w.WorkerNotAlive(detail="worker 2 is DEAD")
            told.append((word, request.worker_id))
            return w.WorkerTold(worker_id=request.worker_id, directive=word)

        return answer

    cluster.answers |= {"quiet_worker": tell("quiet"), "terminate_worker": tell("terminate")}
    assert "w-7f3a learns it with its next heartbeat" in quorl("worker", "quiet", "w-7f3a").stderr
    assert quorl("worker", "stop", "2", "1").exit_code == 4
    assert told == [("quiet", 1), ("terminate", 1)]
    assert json.loads(quorl("worker", "stop", "1", "--json").stdout)["directive"] == "terminate"


# -- the monitor ----------------------------------------------------------------------------------------------------
def test_b16_monitor_has_one_line_per_worker(quorl: Quorl, cluster: StandIn) -> None:
    workers_of(cluster, ALIVE, *OTHERS)
    listed(cluster, "list_tasks", k.TaskList, *RUNNING)
    result = quorl("monitor", "--once")
    rows = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    assert rows[:3] == [
        ["NAME", "STATUS", "LAST HEARTBEAT", "AGO", "BUSY", "NOW"],
        ["w-7f3a", "ALIVE", at(9), "900 ms", "3/4", "emails.send, demo.add ×2"],
        ["w-b2e4", "DEAD", at(9), "41.0 s", "–", "–"],
    ]
    assert len(rows) == 5, "who has LEFT is not shown"
    assert len(quorl("monitor", "--once", "--all").stdout.splitlines()) == 6
    assert json.loads(quorl("monitor", "--once", "--json").stdout)["workers"][0]["name"] == "w-7f3a"
    workers_of(cluster)
    assert quorl("monitor", "--once").stderr == "no worker\n"


def test_tables_one_after_the_other_stand_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    with output.screen(live=False) as screen:
        for ago in ("10.0 s", "0 ms", "1.0 s"):
            screen.show(("NAME", "AGO", "BUSY"), [("w1", ago, "0/4")])
    assert capsys.readouterr().out.splitlines() == [
        "NAME  AGO     BUSY",
        "w1    10.0 s  0/4",
        "w1    0 ms    0/4",
        "w1    1.0 s   0/4",
    ]


def test_the_monitor_goes_on_through_an_outage_and_ends_with_ctrl_c(cluster: StandIn) -> None:
    workers_of(cluster, ALIVE)
    listed(cluster, "list_tasks", k.TaskList)
    with start(cluster, "monitor", "--every", "0.1", "--timeout", "1") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"NAME")
        assert process.stdout.readline().startswith(b"w-7f3a  ALIVE")
        for mishaps in cluster.mishaps:
            mishaps.extend([problem("not_ready")] * 300)
        assert b"going on" in process.stderr.readline()
        for mishaps in cluster.mishaps:
            mishaps.clear()
        while process.stdout.readline():
            break
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert b"NAME" not in process.stdout.read()


def test_the_monitor_draws_in_its_place_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with output.screen(live=True) as screen:
        screen.show(("NAME", "STATUS"), [("w1", "ALIVE")])
        screen.say("no node answers; going on")
        screen.show(("NAME", "STATUS"), [("w1", "DEAD")])
    shown = capsys.readouterr()
    assert "ALIVE" in shown.out
    assert "DEAD" in shown.out
    assert "\x1b[" in shown.out
    assert "no node answers; going on" in shown.out, "below the table, where it is drawn over"
    assert shown.err == ""


# -- words ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "–"),
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (59_999, "59.9 s"),
        (584_000, "9m 44s"),
        (11_520_000, "3h 12m"),
        (190_800_000, "2d 5h"),
    ],
)
def test_spans(ms: int | None, text: str) -> None:
    assert times.span(ms) == text


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("500ms", 500),
        ("1.5", 1_500),
        ("30s", 30_000),
        ("1h30m", 5_400_000),
        ("1d", 86_400_000),
        ("5x", None),
        ("", None),
    ],
)
def test_durations(text: str, ms: int | None) -> None:
    assert times.read_duration(text) == ms


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("exponential", "exponential from 1.0 s to 5m 0s, jitter 0.2"),
        ("linear:2s:1m", "linear from 2.0 s to 1m 0s, jitter 0.2"),
        ("10ms,1s", "10 ms, 1.0 s"),
        ("1s,1h", "1.0 s, 1h 0m"),
        ("fixed:10m", "fixed from 10m 0s to 10m 0s, jitter 0.2"),
    ],
)
def test_backoffs(text: str, told: str) -> None:
    backoff = BackoffSpec().convert(text, None, None)
    assert backoff_text(backoff) == told
    assert b.fault_of_backoff(backoff) is None
    assert BackoffSpec().convert(backoff, None, None) is backoff


def test_long_calls_are_cut_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from quorl.client.cli.telling import CALL_CHARS_MAX, short_call

    args = msgspec.Raw(b'["' + b"x" * 100 + b'"]')
    assert len(short_call("demo.add", args)) > 100
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    assert len(short_call("demo.add", args)) == CALL_CHARS_MAX


def test_moments_are_short_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (times.moment(at(3)), times.moment(None)) == (at(3), "–")
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    assert times.moment(at(3)) == "01-01 13:00:03Z"
