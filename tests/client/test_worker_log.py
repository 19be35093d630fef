"""What a worker says to programs: one JSON object a line, with the names of the logs of nodes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quorl.client.errors import Unavailable
from quorl.client.worker_lines import Lines, made_error
from quorl.client.worker_log import LoggedLines
from quorl.cluster.protocol import leases as e
from tests.client.task_cluster import TaskCluster
from tests.client.test_worker_parts import holding
from tests.client.worker_kit import add, burst, working


@pytest.fixture
def cluster() -> TaskCluster:
    return TaskCluster()


def events(lines: list[str]) -> dict[str, dict[str, Any]]:
    return {line["event"]: line for line in map(json.loads, lines)}


def test_d15_a_run_is_told_with_what_it_was_about(cluster: TaskCluster) -> None:
    task, bad = cluster.add("add", 4, 5), cluster.add("add", 1, "x")
    lines: list[str] = []
    burst(cluster, {"add": add}, lines=LoggedLines(lines.append), name="w-7")
    told = [json.loads(line) for line in lines]
    assert all({"event", "level", "logger", "time", "worker"} <= set(line) for line in told)
    assert {line["worker"] for line in told} == {"w-7"}
    assert told[0]["event"] == "worker_started"
    assert (told[0]["queues"], told[0]["tasks"], told[0]["concurrency"]) == (["default"], ["add"], 8)
    assert (told[1]["event"], told[1]["heartbeat_ms"]) == ("worker_registered", 100)
    assert (told[-1]["event"], told[-1]["tasks_done"], told[-1]["attempts_failed"]) == ("worker_stopped", 1, 3)
    good = [line for line in told if line.get("task_id") == task.id]
    assert [line["event"] for line in good] == ["task_started", "task_succeeded"]
    assert (good[1]["task"], good[1]["queue"], good[1]["attempt"], good[1]["level"]) == ("add", "default", 1, "info")
    assert good[1]["ms"] >= 0
    failed = [line for line in told if line.get("task_id") == bad.id and line["event"] == "task_failed"]
    assert [(line["attempt"], line["retry"], line["level"]) for line in failed] == [
        (1, True, "warning"),
        (2, True, "warning"),
        (3, False, "warning"),
    ]
    assert failed[0]["error"] == "TypeError"
    assert "unsupported operand" in failed[0]["error_message"]
    assert "9" not in {str(line.get("result")) for line in told}


def test_a_name_that_the_cluster_gives_stands_in_every_later_line(cluster: TaskCluster) -> None:
    cluster.down = True
    lines: list[str] = []
    with working(cluster, {"add": add}, lines=LoggedLines(lines.append)):
        cluster.until(lambda: any("cluster_silent" in line for line in lines))
        cluster.down = False
        cluster.until(lambda: any("worker_registered" in line for line in lines))
    told = events(lines)
    assert (told["worker_started"]["worker"], told["cluster_silent"]["level"]) == ("", "warning")
    assert "no node answered" in told["cluster_silent"]["why"]
    assert told["worker_registered"]["worker"] == told["worker_stopped"]["worker"] != ""
    assert list(told).index("cluster_answers") > list(told).index("cluster_silent")


def test_every_line_for_people_has_one_for_programs() -> None:
    """Whatever a worker has to say is said in both forms."""
    one = holding(1).task
    why = Unavailable("no node answered", request_id="r-1")
    failure = e.Failure(task_id=one.id, lease=1, error=made_error("ValueError", "bad"), retry=True, delay_ms=5)
    heard: list[str] = []
    lines = LoggedLines(heard.append, {"worker": "w"})
    lines.died(why, 2)
    lines.heard(why)
    lines.heard(None)
    lines.quiet()
    lines.draining(3, 30.0)
    lines.undelivered(1)
    lines.crashing(4)
    lines.released(one, "the worker stops")
    lines.dropped(one, "its lease is gone")
    lines.cancelled(one)
    lines.failed(one, 0.5, failure)
    told = events(heard)
    assert list(told) == [
        "worker_declared_dead",
        "heartbeats_unheard",
        "heartbeats_heard",
        "worker_quiet",
        "worker_stopping",
        "reports_undelivered",
        "worker_crashing",
        "task_returned",
        "task_dropped",
        "task_cancelled",
        "task_failed",
    ]
    assert told["worker_declared_dead"]["request_id"] == "r-1"
    assert (told["task_failed"]["retry_in_ms"], told["task_failed"]["ms"]) == (5, 500.0)
    said = {name for name, method in vars(Lines).items() if not name.startswith("_") and callable(method)}
    assert said - {"together", "flush"} <= set(vars(LoggedLines)), "each of them says it in its own form"
