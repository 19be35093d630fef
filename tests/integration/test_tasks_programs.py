"""Tasks through the command line and the library, as the founding systems used them: features B2, B6, B12, B16, C7, C8."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from examples import tasks as founding
from quorl.client import TaskClient, TaskWorker
from tests import taskkit as kit
from tests.harness import ROOT, LocalCluster, call, cluster_in, die_with_parent, until
from tests.taskkit import Hand

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def quorl(*words: str, url: str) -> list[str]:
    return [sys.executable, "-m", "quorl.client.cli", *words, "--server", url]


@contextmanager
def running(command: Sequence[str], log: Path, folder: Path = ROOT) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is gone at the end; what it says goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=ENVIRONMENT,
            cwd=folder,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - its life hangs on ours
        )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.kill()
        process.wait()


def line(task_id: str, kind: str = "add", args: Sequence[str] = ("1", "2")) -> str:
    return json.dumps({"task_id": task_id, "task_type": kind, "task_args": args, "task_tries": 0}) + "\n"


def test_b2_b6_lines_become_tasks_as_they_come_until_the_line_end(cluster: LocalCluster, tmp_path: Path) -> None:
    """A bad line is reported with its number and is not fatal."""
    queue = kit.fresh("b2")
    command = quorl("task", "import", "--queue", queue, "--partitions", "3", "-", url=cluster.urls[1])
    log = tmp_path / "import.log"
    with running(command, log) as producer:
        assert producer.stdin is not None
        for number in range(6):
            text = "no task at all\n" if number == 3 else line(f"{queue} #{number}")
            producer.stdin.write(text.encode())
            producer.stdin.flush()
            if number != 3:
                until(
                    lambda number=number: (
                        call(cluster.urls[2], "GET", kit.task_path(f"{queue} #{number}")).status == 200
                    ),  # type: ignore[misc]
                    f"line {number} to be a task",
                    why=log.read_text,
                )
        producer.stdin.write(b"end\n" + line(f"{queue} too late").encode())
        producer.stdin.flush()
        producer.wait(60)
    said = log.read_text(encoding="utf-8")
    assert "line 4" in said
    assert "# of Tasks -> 5" in said
    assert call(cluster.urls[0], "GET", kit.task_path(f"{queue} too late")).status == 404
    info = kit.ok(call(cluster.urls[0], "GET", kit.queue_path(queue)))
    assert (info["sealed"], info["partitions"], info["submitted"]) == (True, 3, 5)
    shares = Counter(task["partition"] for task in kit.all_tasks(cluster.urls[0], queue))
    assert sorted(shares.values()) == [1, 2, 2]


def worker(url: str, queue: str, name: str, *more: str) -> list[str]:
    words = ("worker", "run", "quorl.demo:app", "-q", queue, "--name", name, "--concurrency", "1", *more)
    return quorl(*words, url=url)


def test_b6_b9_workers_of_a_drained_topic_exit_and_results_stay(cluster: LocalCluster, tmp_path: Path) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("b6")
    lines = [line(f"{queue} {n}", "multiply", (str(n), "3")) for n in range(10)] + [
        line(f"{queue} bad", "add", ("1", "ejnf"))
    ]
    names = [kit.fresh("one"), kit.fresh("two")]
    logs = [tmp_path / f"{name}.log" for name in names]
    with (
        running(worker(n1, queue, names[0]), logs[0]) as one,
        running(worker(n2, queue, names[1]), logs[1]) as two,
    ):
        imported = subprocess.run(
            quorl("task", "import", "--queue", queue, "-", url=n3),
            input="".join([*lines, "end\n"]).encode(),
            env=ENVIRONMENT,
            cwd=ROOT,
            check=False,
            capture_output=True,
            timeout=60,
        )
        assert b"# of Tasks -> 11" in imported.stdout, imported.stderr
        assert [one.wait(60), two.wait(60)] == [0, 0], [log.read_text() for log in logs]
    for number in range(10):
        task_id = f"{queue} {number}"
        result = kit.ok(call(n1, "GET", f"/results/{task_id.replace(' ', '%20')}"))
        assert result == {task_id: {"status": "success", "result": str(number * 3)}}
    bad = kit.task_of(n2, f"{queue} bad")
    assert (bad["status"], bad["attempts"], bad["result"], len(bad["errors"])) == ("FAILED", 3, None, 3)
    for error in bad["errors"]:
        assert error["type"] == "ValueError"
        assert "Traceback" in error["traceback"]
        assert "'ejnf'" in error["message"]


GATED = """
import os
from quorl import App

app = App()


@app.task(name="equal")
def equal(gate: str) -> None:
    os.close(os.open(gate, os.O_RDONLY))  # a pipe with a name: it lasts until that is opened for writing
"""


def test_c1_workers_that_ship_share_three_hundred_equal_tasks_evenly(cluster: LocalCluster, tmp_path: Path) -> None:
    """In four rounds of 75, each of which lasts until all of them run: equal tasks on equal workers, however fast the machine."""
    queue = kit.fresh("c1")
    names = [kit.fresh("equal") for _ in range(3)]
    tmp_path.joinpath("gated.py").write_text(GATED)
    gates = [tmp_path / f"gate-{number}" for number in range(4)]
    for gate in gates:
        os.mkfifo(gate)
    with ExitStack() as stack:
        for name, url in zip(names, cluster.urls, strict=True):
            command = quorl("worker", "run", "gated:app", "-q", queue, "--name", name, "--concurrency", "25", url=url)
            stack.enter_context(running(command, tmp_path / f"{name}.log", tmp_path))
        until(lambda: _serving(cluster.urls[0], queue) == set(names), "the workers to register")
        kit.submit(cluster.urls[0], queue, *({"name": "equal", "args": [str(gates[n // 75])]} for n in range(300)))
        for number, gate in enumerate(gates):
            whole = {"processing": 75, "success": 75 * number}
            until(lambda whole=whole: whole.items() <= _counts(cluster.urls[1], queue).items(), "75 tasks to run")  # type: ignore[misc]
            stack.callback(os.close, os.open(gate, os.O_RDWR))
        until(lambda: _counts(cluster.urls[1], queue)["success"] == 300, "300 tasks to be done")
    shares = Counter(task["worker"] for task in kit.all_tasks(cluster.urls[2], queue))
    assert shares == dict.fromkeys(names, 100)


def _serving(url: str, queue: str) -> set[str]:
    items = kit.ok(call(url, "GET", f"/v1/workers?status=ALIVE&queue={queue.replace(' ', '%20')}"))["items"]
    return {item["name"] for item in items}


def _counts(url: str, queue: str) -> dict[str, int]:
    counts: dict[str, int] = kit.ok(call(url, "GET", kit.queue_path(queue)))["counts"]
    return counts


def test_b12_a_failure_prone_worker_dies_over_its_third_to_fifth_task(cluster: LocalCluster, tmp_path: Path) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("b12")
    name = kit.fresh("prone")
    kit.submit(n1, queue, *({"name": "add", "args": [str(n), "1"]} for n in range(8)))
    with running(worker(n2, queue, name, "--crash-between", "3", "5"), tmp_path / "log") as process:
        assert process.wait(60) not in {0, None}
    until(lambda: bool(_of_worker(n3, queue, name)), "its tasks to be known")
    runs = _of_worker(n3, queue, name)
    assert runs.count("success") <= 4
    assert set(runs) <= {"success", "running", "lost"}
    assert len(runs) > runs.count("success")


POISON = """
import os, signal
from quorl import App

app = App()


@app.task(name="die")
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="live")
def live() -> str:
    return "alive"
"""


def test_e2_a_task_that_kills_its_worker_is_poison_however_quickly_that_is_restarted(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Started again at once under its name, long before it is found dead: after max_lost runs the task ends, and others run."""
    n1, n2, _ = cluster.urls
    queue, name = kit.fresh("e2"), kit.fresh("restarted")
    tmp_path.joinpath("poison.py").write_text(POISON)
    task_id = kit.submit_one(n1, queue, name="die", max_lost=3)
    command = quorl("worker", "run", "poison:app", "-q", queue, "--name", name, "--dead-after", "600", url=n2)
    log = tmp_path / "log"
    for _ in range(3):
        with running(command, log, tmp_path) as process:
            assert process.wait(60) == -signal.SIGKILL, log.read_text()
    with running(command, log, tmp_path):
        until(lambda: kit.task_of(n1, task_id)["status"] == "FAILED", "it to be poison", why=log.read_text)
        other = kit.submit_one(n1, queue, name="live")
        until(lambda: kit.task_of(n1, other)["status"] == "SUCCESS", "another task to run", why=log.read_text)
    task = kit.task_of(n1, task_id)
    assert (task["reason"], task["attempts"], task["lost"]) == ("POISON", 0, 3)
    assert [(run["worker"], run["outcome"]) for run in task["history"]] == [(name, "lost")] * 3


def _of_worker(url: str, queue: str, name: str) -> list[str]:
    return [
        run["outcome"]
        for task in kit.all_tasks(url, queue)
        for run in kit.task_of(url, task["id"])["history"]
        if run["worker"] == name
    ]


def test_b12_ctrl_c_ends_a_worker_and_its_task_goes_back_uncounted(cluster: LocalCluster, tmp_path: Path) -> None:
    n1, n2, _ = cluster.urls
    queue = kit.fresh("b12")
    task_id = kit.submit_one(n1, queue, name="sleep", args=["600"])
    log = tmp_path / "log"
    with running(worker(n2, queue, kit.fresh("interrupted"), "--grace", "0"), log) as process:
        until(lambda: kit.task_of(n1, task_id)["status"] == "PROCESSING", "the task to run", why=log.read_text)
        process.send_signal(signal.SIGINT)
        process.wait(30)
    task = kit.task_of(n1, task_id)
    assert (task["status"], task["attempts"], task["lost"]) == ("QUEUED", 0, 0)
    assert [run["outcome"] for run in task["history"]] == ["released"]


def test_b16_a_monitor_on_the_command_line(cluster: LocalCluster) -> None:
    n1, n2, _ = cluster.urls
    queue = kit.fresh("b16")
    alive = Hand(n1, queue, heartbeat_ms=10_000, dead_after_ms=60_000)
    dead = Hand(n2, queue, heartbeat_ms=100, dead_after_ms=300)
    kit.wait_status(cluster, dead, "DEAD")
    shown = subprocess.run(
        quorl("monitor", "--once", url=n2),
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = {name: row for row in shown.stdout.splitlines() for name in (alive.name, dead.name) if name in row}
    assert "ALIVE" in lines[alive.name]
    assert "DEAD" in lines[dead.name]


def test_c7_the_task_client_of_the_founding_system(cluster: LocalCluster) -> None:
    queue = kit.fresh("c7")
    with TaskClient(cluster.urls[1], queue=queue) as client:
        _use(client, cluster, queue)


def _use(client: TaskClient, cluster: LocalCluster, queue: str) -> None:
    task_id = client.submit("subtract", 7, 4)
    assert client.get_result("c7-nowhere")["status"] == "not_found"
    assert client.wait_for_result(task_id, timeout=0.2)["status"] == "queued"
    hand = Hand(cluster.urls[2], queue)
    claimed = hand.one()
    assert (claimed["name"], claimed["args"]) == ("subtract", [7, 4])
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.wait_for_result, task_id, timeout=30)
        assert hand.complete(claimed, 3).status == 200
        assert waiting.result(60) == {"status": "success", "result": 3}
    assert client.get_result(task_id) == {"status": "success", "result": 3}


def test_c8_a_worker_from_a_dict_and_an_unknown_handler_that_is_named(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("c8")
    handlers = {"multiply": lambda x, y: x * y}
    worker = TaskWorker(kit.fresh("from a dict"), handlers, n2, queues=[queue], write=None)
    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(worker.start)
        try:
            good = kit.submit_one(n1, queue, task="multiply", args=[4, 5])
            unknown = kit.submit_one(n1, queue, task="no.such.handler")
            assert kit.finished(n3, good)["result"] == 20
            task = kit.finished(n3, unknown)
        finally:
            worker.stop()
        working.result(60)
    assert (task["status"], task["attempts"]) == ("FAILED", 1)
    assert "no.such.handler" in task["errors"][0]["message"]


def test_c8_tasks_of_a_new_function_go_to_the_new_worker_while_old_ones_are_still_there(cluster: LocalCluster) -> None:
    """As in a rolling deployment; once the new worker is gone such a task fails, and says who is there."""
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("c8")
    old = TaskWorker(kit.fresh("old"), {"add": lambda x, y: x + y}, n2, queues=[queue], write=None)
    new = TaskWorker(kit.fresh("new"), {"multiply": lambda x, y: x * y}, n3, queues=[queue], write=None)
    with ThreadPoolExecutor(2) as threads:
        working = [threads.submit(worker.start) for worker in (old, new)]
        try:
            until(lambda: len(kit.alive(n1, queue)) == 2, "both workers to register")
            ids = [kit.submit_one(n1, queue, name=name, args=[4, 5]) for name in ("multiply", "add") * 20]
            tasks = [kit.finished(n1, task_id) for task_id in ids]
            new.stop()
            working[1].result(60)
            late = kit.finished(n1, kit.submit_one(n1, queue, name="multiply", args=[4, 5]))
        finally:
            old.stop()
            new.stop()
        working[0].result(60)
    assert [(task["status"], task["attempts"], task["result"]) for task in tasks] == [
        ("SUCCESS", 1, 20),
        ("SUCCESS", 1, 9),
    ] * 20
    assert (late["status"], late["attempts"]) == ("FAILED", 1)
    assert late["errors"][0]["message"].endswith("this worker knows: add; no other worker is alive on its queue")


@pytest.mark.timeout(300)
def test_the_founding_tasks_with_a_worker_and_the_leader_killed(tmp_path: Path) -> None:
    """A smaller version of ``python -m examples.tasks``."""
    sections = {"tasks": {"worker_heartbeat_s": 0.5, "worker_dead_after_s": 2}}
    lines = founding.FILE.read_text(encoding="utf-8").splitlines()[:60]
    with cluster_in(tmp_path / "cluster", sections=sections) as cluster:
        killed: list[str] = []

        def kill() -> None:
            killed.append(cluster.leader())
            cluster[killed[0]].kill()

        verdict = founding.run(cluster.urls, tmp_path / "workers", lines=[*lines, "end"], at_half=kill)
        print(founding.report(verdict))
        assert verdict.good
        assert verdict.tasks == 60
        assert verdict.failed == sum('"ejnf"' in text or '"0"' in text for text in lines)
        assert verdict.run_again >= 1
        assert cluster.leader(other_than=killed[0])
