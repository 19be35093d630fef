"""The command line of tasks against a real node: from a pipe of lines to results, the dead, and a monitor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import LocalCluster, cluster_in, until

FAST = {"tasks": {"worker_heartbeat_s": 1, "worker_dead_after_s": 2}}
LINES = """\
{"task_id": "good", "task_type": "add", "task_args": ["1", "2"], "task_tries": 0}
{"task_id": "bad", "task_type": "add", "task_args": ["1", "ejnf"], "task_tries": 0}
{ "task-id": "12345abc", "task": "multiply", "args": [4, 5] }
{"task_id": "broken"
{"name": "add", "args": [7, 8], "id": "late", "delay_ms": 300}
end
"""


class Shell:
    """The command line at one node."""

    def __init__(self, url: str) -> None:
        self.environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "QUORL_SERVER": url}

    def start(self, *words: str) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "quorl.client.cli", *words]
        return subprocess.Popen(command, env=self.environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def run(self, *words: str, data: str = "") -> tuple[int, str, str]:
        process = self.start(*words)
        try:
            out, err = process.communicate(data, timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return process.returncode, out, err

    def json(self, *words: str) -> Any:
        code, out, err = self.run(*words, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with cluster_in(tmp_path_factory.mktemp("node"), size=1, sections=FAST) as cluster:
        yield cluster


@pytest.fixture
def shell(node: LocalCluster) -> Shell:
    return Shell(node.urls[0])


def test_b2_b3_b6_b9_from_a_pipe_to_the_dead(shell: Shell, tmp_path: Path) -> None:
    code, out, err = shell.run("task", "import", "-q", "pipe", "--partitions", "2", "-", data=LINES)
    assert code == 1
    assert out.splitlines()[-1] == "# of Tasks -> 4"
    assert err.startswith("line 4: not JSON (")
    assert shell.json("queue", "show", "pipe")["sealed"] is True
    assert shell.run("task", "import", "-q", "pipe", "-", data=LINES)[0] == 4, "it is sealed"
    assert "NO WORKERS" in shell.run("queue", "ls", "pipe")[1]
    working = ("worker", "run", "quorl.demo:app", "-q", "pipe", "--name", "w1", "--dead-after", "60")
    code, _, err = shell.run(*working)
    assert code == 0, err  # the queue is sealed: its worker ends once it is empty
    assert shell.run("task", "result", "12345abc")[1] == "20\n"
    assert shell.run("task", "wait", "good", "late", "bad")[0] == 1
    code, shown, _ = shell.run("task", "show", "bad")
    assert shown.splitlines()[0].startswith('add("1", "ejnf")  FAILED after 3 of 3 attempts in ')
    assert shown.count("  w1  ") == 3
    assert "Traceback" in shown
    assert {one["id"]: one["status"] for one in shell.json("task", "ls", "-q", "pipe")} == {
        "good": "SUCCESS",
        "bad": "FAILED",
        "12345abc": "SUCCESS",
        "late": "SUCCESS",
    }
    (group,) = shell.json("dead", "errors", "-q", "pipe")
    assert (group["count"], group["example"]) == (1, "bad")
    assert shell.run("dead", "export", "-q", "pipe")[1].count("\n") == 1
    assert shell.run("dead", "retry", "--error", group["group"], "-q", "pipe", "-y")[0] == 0
    assert shell.json("task", "why", "bad")["status"] == "QUEUED"
    assert shell.run("task", "cancel", "bad")[0] == 0
    assert shell.run("queue", "rm", "pipe", "-y")[0] == 0
    assert shell.run("task", "result", "good")[1] == "3\n", "results stay"


def test_submit_pause_purge(shell: Shell) -> None:
    assert shell.run("queue", "set", "purge", "--attempts", "2")[0] == 0
    assert shell.run("queue", "pause", "purge")[0] == 0
    ids = [shell.run("task", "submit", "add", str(n), "2", "-q", "purge")[1].strip() for n in (1, -1)]
    assert [one["id"] for one in shell.json("task", "ls", "-q", "purge", "--oldest")] == ids
    assert shell.json("task", "show", ids[1])["args"] == [-1, 2]
    code, _, err = shell.run("task", "submit", "add", "1", "2", "-q", "purge", "--max-wait", "100ms")
    assert code == 6, err
    assert shell.json("queue", "purge", "purge", "--yes")["removed"] == 3
    assert shell.json("task", "show", ids[0])["reason"] == "PURGED"


def test_b16_a_monitor_sees_workers_come_and_die(shell: Shell) -> None:
    worker = shell.start("worker", "run", "quorl.demo:app", "-q", "monitored", "--name", "mortal")
    try:

        def status() -> list[str]:
            lines = shell.run("monitor", "--once", "-q", "monitored")[1].splitlines()[1:]
            return [line.split()[1] for line in lines]

        until(lambda: status() == ["ALIVE"], "the worker to register")
        code, out, _ = shell.run("task", "submit", "add", "4", "5", "-q", "monitored", "--wait")
        assert (code, out) == (0, "9\n")
        worker.send_signal(signal.SIGKILL)
        until(lambda: status() == ["DEAD"], "the worker to be found dead")
        assert shell.run("worker", "quiet", "mortal")[0] == 4
    finally:
        worker.kill()
        worker.communicate()


def test_d15_a_command_asks_a_node_without_loading_an_http_library(shell: Shell) -> None:
    code = "import sys; from quorl.client.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, "queue", "ls", "nosuch"]
    done = subprocess.run(command, env=shell.environment, capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "quorl.client.sync_transport" in loaded
    assert not loaded & {"urllib3", "aiohttp", "asyncio", "http.client", "rich"}
