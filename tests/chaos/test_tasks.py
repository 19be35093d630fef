"""Tasks and workers while both workers and nodes are killed and frozen: B9, B10, B13, C9, D6, D8, E2."""

from __future__ import annotations

import datetime as dt
import random
import sys
import time
from pathlib import Path

import pytest

from quorl.client import Client
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from tests.chaos.conftest import ROUNDS
from tests.chaos.task_load import QUEUE, Fleet, Submitters, fleet_in
from tests.chaos.task_verdict import check_rows, judge_tasks
from tests.chaos.test_kill import CALM, pause_between
from tests.harness import LocalCluster, cluster_in, until

TASKS = 10_000 if ROUNDS > 1 else 1_200
FAULTS = 4
"""At least; one of each kind of node and fault."""
WORKERS = 4
DEAD_S = 2.0
"""The workers' limit, of ``tests.chaos.task_worker``."""
MORTAL = ("--heartbeat", "0.5", "--dead-after", f"{DEAD_S}")
TICK_S = 1.0
SLACK_S = 3.0
"""What a busy machine may add."""
DRAIN_S = 300.0
RELAXED = {"raft": CALM}
"""Busy handlers take the processor from the nodes on the same machine, too."""


def shipped(cluster: LocalCluster, queue: str, *more: str) -> list[str]:
    """The command of the worker that ships."""
    command = [sys.executable, "-m", "quorl.client.cli", "worker", "run", "tests.chaos.task_app:app", "-q", queue]
    return [*command, "--server", ",".join(cluster.urls), *more]


def prepare(cluster: LocalCluster) -> None:
    """A queue whose tasks survive any number of killed workers, and that tries again soon."""
    with Client(cluster.urls, timeout_s=60) as client:
        client.call(q.PutQueue(queue=QUEUE, max_lost=100, backoff=q.Backoff(kind="fixed", first_ms=50, jitter=0.5)))


def finished(cluster: LocalCluster) -> bool:
    """Whether nothing waits and nothing runs."""
    with Client(cluster.urls, timeout_s=60) as client:
        counts = client.call(q.GetQueue(queue=QUEUE)).counts
    return counts.scheduled + counts.queued + counts.processing + counts.retry == 0


def wait_finished(cluster: LocalCluster, fleet: Fleet) -> None:
    until(
        lambda: finished(cluster), "all tasks to end", DRAIN_S, lambda: next(iter(fleet.workers.values())).last_words()
    )


@pytest.mark.timeout(1800)
def test_b9_b10_d6_d8_workers_and_nodes_killed_and_frozen_at_once(tmp_path: Path, dice: random.Random) -> None:
    with (
        cluster_in(tmp_path / "cluster") as cluster,
        fleet_in(tmp_path / "fleet", cluster.urls) as fleet,
    ):
        prepare(cluster)
        for number in range(WORKERS):
            if number % 2:
                fleet.run(f"w{number}", shipped(cluster, QUEUE, *MORTAL))
            else:
                fleet.add(f"w{number}")
        fleet.wait_registered()
        with Submitters(cluster.urls, dice) as load:
            faults = 0
            while len(load.acknowledged) < TASKS or faults < FAULTS:
                load.check()
                trouble(cluster, fleet, dice, number=faults)
                faults += 1
        wait_finished(cluster, fleet)
        tasks = judge_tasks(cluster, load, fleet)
        lost = sum(task.lost for task in tasks)
        print(f"{faults} rounds of faults; {lost} leases of killed or frozen workers went back")
        assert lost, "no task was under way when its worker was killed"
        fleet.kill_all()
        check_rows(cluster)


def trouble(cluster: LocalCluster, fleet: Fleet, dice: random.Random, number: int) -> None:
    """One worker killed, another frozen for longer than it may be silent or only for a moment, and one node as well."""
    killed, frozen = dice.sample(sorted(fleet.workers), 2)
    leader = cluster.leader()
    follower = dice.choice([name for name in cluster.nodes if name != leader])
    node = cluster[(leader, follower, leader, follower)[number % 4]]
    freeze_node = number % 4 >= 2
    fleet.workers[frozen].pause()
    frozen_at_s = time.monotonic()
    fleet.workers[killed].kill()
    if freeze_node:
        node.pause()
    else:
        node.kill()
    pause_between(dice, 0.3, 1.5)
    fleet.workers[killed].start()
    if freeze_node:
        node.resume()
    else:
        node.start()
        cluster.wait_ready(node.name)
    if number % 2:
        time.sleep(max(0.0, frozen_at_s + DEAD_S + TICK_S - time.monotonic()))
    fleet.workers[frozen].resume()


def moment(text: str | None) -> float:
    assert text is not None
    return dt.datetime.fromisoformat(text).timestamp()


def test_b13_tasks_of_a_killed_worker_run_elsewhere_within_the_limit_and_a_tick(tmp_path: Path, rounds: int) -> None:
    """No node fails here, so cluster time runs all the time and the bound can be measured."""
    with (
        cluster_in(tmp_path / "cluster") as cluster,
        fleet_in(tmp_path / "fleet", cluster.urls) as fleet,
        Client(cluster.urls, timeout_s=60) as client,
    ):
        prepare(cluster)
        for turn in range(min(rounds, 5)):
            dying = fleet.add(f"dying {turn}", "--slots", "5")
            fleet.wait_registered()
            ids = [f"turn {turn} #{number}" for number in range(5)]
            for task_id in ids:
                client.tasks.submit("square", [3, 60.0, 0], queue=QUEUE, id=task_id)
            until(lambda dying=dying: len(started(dying.read())) == 5, "the tasks to run", why=dying.last_words)  # type: ignore[misc]
            heir = fleet.add(f"heir {turn}", "--slots", "5")
            fleet.wait_registered()
            killed_s = dying.kill()
            until(lambda heir=heir: len(started(heir.read())) == 5, "the tasks to run again", why=heir.last_words)  # type: ignore[misc]
            tasks = [client.call(k.GetTask(id=task_id)) for task_id in ids]
            for task in tasks:
                lost, again = task.history
                assert (lost.outcome, lost.worker, again.worker) == ("lost", dying.name, heir.name)
                assert lost.token < again.token
                assert task.attempts == 0
                assert moment(lost.ended_at) < killed_s + DEAD_S + TICK_S + SLACK_S
                assert moment(again.started_at) - moment(lost.ended_at) < TICK_S + SLACK_S
            late_s = max(moment(task.history[1].started_at) for task in tasks) - killed_s
            print(f"running elsewhere {late_s:.2f} s after the kill, with a limit of {DEAD_S} s")
            heir.kill()
            for task_id in ids:
                client.tasks.cancel(task_id)


def started(notes: list[dict[str, object]]) -> set[object]:
    return {note["task"] for note in notes if note["step"] == "started"}


BUSY_S, LIMIT_S = (60.0, 4.0) if ROUNDS > 1 else (12.0, 2.0)


@pytest.mark.timeout(300)
def test_e2_a_handler_that_needs_all_of_the_processor_keeps_its_lease(tmp_path: Path) -> None:
    """Three times as many of them as there are cores, in threads of one worker and in processes of another."""
    with (
        cluster_in(tmp_path / "cluster", sections=RELAXED) as cluster,
        fleet_in(tmp_path / "fleet", cluster.urls) as fleet,
        Client(cluster.urls, timeout_s=60) as client,
    ):
        ids = []
        for pool in ("thread", "process"):
            limits = ["--heartbeat", f"{LIMIT_S / 4}", "--dead-after", f"{LIMIT_S}"]
            fleet.run(pool, shipped(cluster, pool, "--pool", pool, "--concurrency", "3", *limits))
            ids += [client.tasks.submit("burn", [BUSY_S], queue=pool).id for _ in range(3)]
        for task_id in ids:
            ended = client.tasks.wait(task_id, timeout_s=3 * BUSY_S)
            assert ended.status == "SUCCESS", (ended, fleet.workers["thread"].last_words())
            task = client.tasks.get(task_id)
            (only,) = task.history
            assert moment(only.ended_at) - moment(only.started_at) >= BUSY_S - 0.1
            assert task.lost == 0
        assert {one.status for one in client.workers.list(queue="thread")} == {"ALIVE"}
        assert {one.status for one in client.workers.list(queue="process")} == {"ALIVE"}
