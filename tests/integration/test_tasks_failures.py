"""Workers and their leases while nodes die: features B15, D6, E2, E3."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

from tests import taskkit as kit
from tests.harness import LocalCluster, call, cluster_in, converge, until
from tests.taskkit import Hand, beating

LIMIT_S = 2.0
MORTAL: dict[str, Any] = {"heartbeat_ms": 300, "dead_after_ms": int(LIMIT_S * 1000)}


def other_urls(cluster: LocalCluster, name: str) -> list[str]:
    return [node.url for node in cluster.nodes.values() if node.name != name]


def test_d6_a_leader_change_costs_no_live_worker_its_lease(own_cluster: LocalCluster) -> None:
    """A worker that went silent at the same moment is dead afterwards: so the limit has passed since, and was no reason."""
    leader = own_cluster.leader()
    n1, n2 = other_urls(own_cluster, leader)
    queue = kit.fresh("d6")
    kit.submit(n1, queue, *({"name": "add", "args": [n]} for n in range(4)))
    with contextlib.ExitStack() as alive:
        hands, held, told = list[Hand](), list[kit.Task](), list[threading.Event]()
        for url in (n1, n2, n1):
            hands.append(Hand(url, queue, **MORTAL))
            told.append(alive.enter_context(beating(hands[-1], own_cluster.urls)))
            held.append(hands[-1].one())
        silent = Hand(n2, queue, **MORTAL)
        with beating(silent, own_cluster.urls):
            lost = silent.one()
        own_cluster[leader].kill()
        own_cluster.leader(other_than=leader)
        kit.wait_status(own_cluster, silent, "DEAD")
        for hand, task in zip(hands, held, strict=True):
            seen = kit.task_of(n1, task["id"])
            assert (seen["status"], seen["worker"], seen["lost"]) == ("PROCESSING", hand.name, 0)
            assert len(seen["history"]) == 1
            hand.url = n2
            assert hand.complete(task, "in time").status == 200
        assert not any(one.is_set() for one in told)
    again = Hand(n1, queue).one()
    assert again["id"] == lost["id"]
    assert again["lease"]["token"] > max(task["lease"]["token"] for task in (*held, lost))


def test_e2_cluster_time_stands_still_without_a_leader(own_cluster: LocalCluster) -> None:
    """For longer than the dead limit nobody can tell anybody that he is alive: nobody is dead afterwards."""
    n1 = own_cluster.urls[0]
    queue = kit.fresh("e2")
    task_id = kit.submit_one(n1, queue, name="add")
    hand = Hand(n1, queue, **MORTAL)
    with beating(hand, own_cluster.urls) as told:
        claimed = hand.one()
        for name in ("n2", "n3"):
            own_cluster[name].kill()
        down_s = time.monotonic()
        assert hand.sync(beat={}).status == 503
        until(lambda: time.monotonic() > down_s + 1.5 * LIMIT_S, "the dead limit to be over on every wall")
        own_cluster.start()
        own_cluster.leader()
        seen = kit.task_of(own_cluster.urls[1], task_id)
        assert (seen["status"], seen["worker"], seen["lost"]) == ("PROCESSING", hand.name, 0)
        assert hand.complete(claimed, "after the outage").status == 200
        assert not told.is_set()
    assert kit.task_of(own_cluster.urls[2], task_id)["result"] == "after the outage"


def test_b15_c3_beat_and_limit_come_from_the_nodes_config(tmp_path: Path) -> None:
    sections = {"tasks": {"worker_heartbeat_s": 1, "worker_dead_after_s": 2, "default_attempts": 2}}
    with cluster_in(tmp_path / "cluster", sections=sections) as cluster:
        queue = kit.fresh("c3")
        hand = Hand(cluster.urls[0], queue)
        assert (hand.registered["heartbeat_ms"], hand.registered["dead_after_ms"]) == (1_000, 2_000)
        task_id = kit.submit_one(cluster.urls[1], queue, name="add")
        assert kit.task_of(cluster.urls[2], task_id)["max_attempts"] == 2
        kit.wait_status(cluster, hand, "DEAD")


def test_b10_d5_everything_is_there_after_all_nodes_were_killed(own_cluster: LocalCluster) -> None:
    n1, n2, n3 = own_cluster.urls
    queue = kit.fresh("d5")
    kit.put_queue(n1, queue, partitions=2, max_lost=4)
    ids = [item["id"] for item in kit.submit(n1, queue, *({"name": "add", "args": [n]} for n in range(4)))]
    hand = Hand(n2, queue, heartbeat_ms=1_000, dead_after_ms=60_000)
    done, running, failed, _ = hand.claim(max_=4)
    assert hand.complete(done, {"sum": 3}).status == 200
    assert hand.fail(failed, retry=False).status == 200
    before = {task_id: kit.task_of(n3, task_id) for task_id in ids}
    described = kit.ok(call(n1, "GET", kit.queue_path(queue)))
    for node in own_cluster.nodes.values():
        node.kill()
    own_cluster.start()
    converge(own_cluster)
    for url in own_cluster.urls:
        assert {task_id: kit.task_of(url, task_id) for task_id in ids} == before
        assert kit.ok(call(url, "GET", kit.queue_path(queue))) == described
    assert hand.complete(running, "after the restart").status == 200
