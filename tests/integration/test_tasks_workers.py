"""Workers, their leases and their shares, through any node of a cluster that stays up: features B7 to B18, C1 to C9, D8, E3."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import pytest

from tests import taskkit as kit
from tests.harness import LocalCluster, call, converge, until
from tests.taskkit import Crew, Hand, beating

MORTAL: dict[str, Any] = {"heartbeat_ms": 300, "dead_after_ms": 1_500}
"""A worker that is dead soon after it falls silent."""
PATIENT: dict[str, Any] = {"heartbeat_ms": 10_000, "dead_after_ms": 60_000}
"""A worker that stays alive for as long as any test runs."""
TICK_S = 1.0
SLACK_S = 5.0
"""What a busy machine may add."""


# -- shares -------------------------------------------------------------------------------------------------------
def test_c1_three_hundred_equal_tasks_are_spread_evenly_over_three_workers(cluster: LocalCluster) -> None:
    """In four rounds of 75, each of which lasts until all of them run: equal tasks on equal workers, however fast the machine."""
    queue = kit.fresh("c1")
    hands = [Hand(url, queue, **PATIENT) for url in cluster.urls]
    round_of_75 = threading.Barrier(75, timeout=60)
    with Crew(lambda _: round_of_75.wait(), slots=25) as crew:
        for hand in hands:
            crew.join(hand)
        kit.submit(cluster.urls[0], queue, *({"name": "equal", "args": [n]} for n in range(300)))
        until(lambda: len(crew.runs) == 300, "300 tasks to be done", why=lambda: f"{len(crew.runs)} are")
    assert len({run.task_id for run in crew.runs}) == 300
    shares = Counter(run.worker for run in crew.runs)
    assert shares == {hand.name: 100 for hand in hands}


def test_c1_workers_that_all_wait_get_tasks_in_turn(cluster: LocalCluster) -> None:
    """Tasks that come one at a time go to the one who has waited longest."""
    queue = kit.fresh("c1")
    kit.put_queue(cluster.urls[0], queue)
    hands = [Hand(url, queue, **PATIENT) for url in cluster.urls]
    with ThreadPoolExecutor(3) as threads:
        waiting = {hand.name: threads.submit(hand.one, 60) for hand in hands}
        shares: Counter[str] = Counter()
        for _ in range(30):
            kit.wait_running(cluster, 3)
            kit.submit_one(cluster.urls[1], queue, name="equal")
            until(lambda: any(one.done() for one in waiting.values()), "somebody to get it")
            (served,) = [hand for hand in hands if waiting[hand.name].done()]
            shares[served.name] += 1
            assert served.complete(waiting[served.name].result()).status == 200
            waiting[served.name] = threads.submit(served.one, 60)
        kit.submit(cluster.urls[1], queue, *({"name": "the end", "args": [n]} for n in range(3)))
    assert max(shares.values()) - min(shares.values()) <= 3, shares


def test_b7_every_partition_has_exactly_one_owner(cluster: LocalCluster) -> None:
    queue = kit.fresh("b7")
    kit.put_queue(cluster.urls[0], queue, partitions=6)
    hands = [Hand(url, queue, **PATIENT) for url in cluster.urls]
    kit.submit(cluster.urls[0], queue, *({"name": "add", "args": [n]} for n in range(60)))
    with ThreadPoolExecutor(3) as threads:
        got = list(threads.map(lambda hand: hand.claim(max_=100), hands))
    assert sum(map(len, got)) == 60
    served = [{task["partition"] for task in tasks} for tasks in got]
    assert [len(partitions) for partitions in served] == [2, 2, 2]
    assert set.union(*served) == set(range(6))


def test_b7_nothing_comes_from_somebody_elses_partition(cluster: LocalCluster) -> None:
    queue = kit.fresh("b7")
    kit.put_queue(cluster.urls[0], queue, partitions=2)
    one, two = (Hand(url, queue, **PATIENT) for url in cluster.urls[:2])
    kit.submit(cluster.urls[2], queue, *({"name": "add", "args": [n]} for n in range(20)))
    mine = one.claim(max_=100)
    assert len(mine) == 10
    assert len({task["partition"] for task in mine}) == 1
    assert one.claim(max_=100) == []  # ten more wait, and are not this one's
    assert len(two.claim(max_=100)) == 10


def test_c9_workers_join_and_leave_without_loss_and_without_a_task_done_twice(cluster: LocalCluster) -> None:
    queue = kit.fresh("c9")
    kit.put_queue(cluster.urls[0], queue, partitions=8)
    urls = cycle(cluster.urls)
    ids: list[str] = []

    def more(crew: Crew, count: int) -> None:
        ids.extend(kit.submit_one(next(urls), queue, name="equal") for _ in range(count))
        until(lambda: len(crew.runs) >= len(ids) // 2, "half of the tasks to be done")

    with Crew() as crew:
        first = Hand(next(urls), queue, **PATIENT)
        crew.join(first)
        more(crew, 20)
        others = [Hand(next(urls), queue, **PATIENT) for _ in range(3)]
        for hand in others:
            crew.join(hand)
            more(crew, 20)
        for hand in (first, others[0]):
            crew.leave(hand.name)
            more(crew, 20)
        until(lambda: len(crew.runs) >= len(ids), "all tasks to be done", why=lambda: f"{len(crew.runs)} are")
    done = Counter(run.task_id for run in crew.runs if run.accepted)
    assert done == dict.fromkeys(ids, 1)
    assert {run.worker for run in crew.runs} == {first.name, *(hand.name for hand in others)}
    assert {task["status"] for task in kit.all_tasks(cluster.urls[0], queue)} == {"SUCCESS"}
    assert kit.task_of(cluster.urls[2], ids[-1])["worker"] in {hand.name for hand in others[1:]}


# -- dying and standing by ----------------------------------------------------------------------------------------
def test_b10_b13_c2_a_dead_workers_task_runs_elsewhere_and_finished_ones_do_not(cluster: LocalCluster) -> None:
    """Within the dead limit plus one tick; the death counts as no attempt."""
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("b13")
    finished_id, lost_id = (kit.submit_one(n1, queue, name="add", args=[n]) for n in range(2))
    dying = Hand(n1, queue, **MORTAL)
    with beating(dying, cluster.urls):
        finished, lost = dying.claim(max_=2)
        assert dying.complete(finished, "once").status == 200
    last_sign_s = time.monotonic()
    heir = Hand(n2, queue, **PATIENT)
    again = heir.one()
    silent_s = time.monotonic() - last_sign_s
    assert again["id"] == lost["id"] == lost_id
    assert silent_s < 1.5 + TICK_S + SLACK_S
    assert again["lease"]["token"] > lost["lease"]["token"]
    task = kit.task_of(n3, lost_id)
    assert (task["status"], task["worker"], task["attempts"], task["lost"]) == ("PROCESSING", heir.name, 0, 1)
    assert [attempt["outcome"] for attempt in task["history"]] == ["lost", "running"]
    died_after_s = _moment(task["history"][0]["ended_at"]) - _moment(task["history"][0]["started_at"])
    assert died_after_s >= 1.4
    assert heir.complete(again).status == 200
    assert heir.claim() == []
    assert len(kit.task_of(n3, finished_id)["history"]) == 1


def _moment(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def test_b14_a_stand_by_is_idle_until_a_worker_dies_and_then_takes_its_share(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("b14")
    worker = Hand(n1, queue, **MORTAL)
    standby = Hand(n2, queue, standby=True, **PATIENT)
    with beating(worker, cluster.urls) as told:
        lost = kit.submit_one(n1, queue, name="add")
        assert standby.claim(wait_s=0.3) == []
        seen = kit.worker_of(n3, standby.id)
        assert (seen["standby"], seen["active"], seen["state"], seen["status"]) == (True, False, "FREE", "ALIVE")
        assert worker.one()["id"] == lost
        waiting = [kit.submit_one(n1, queue, name="add") for _ in range(3)]
        assert standby.claim(wait_s=0.3) == []
        assert not told.is_set()
    got = [standby.one(), *(standby.one() for _ in waiting)]
    assert {task["id"] for task in got} == {lost, *waiting}
    seen = kit.worker_of(n3, standby.id)
    assert (seen["active"], seen["state"]) == (True, "BUSY")
    kit.wait_status(cluster, worker, "DEAD")


def test_b14_a_stand_by_takes_over_the_partitions_of_the_dead_one_and_no_others(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("b14")
    kit.put_queue(n1, queue, partitions=4)
    alive, dying = Hand(n1, queue, **PATIENT), Hand(n2, queue, **MORTAL)
    standby = Hand(n3, queue, standby=True, **PATIENT)
    kit.wait_status(cluster, dying, "DEAD")
    kit.submit(n1, queue, *({"name": "add", "args": [n]} for n in range(40)))
    mine, taken_over = alive.claim(max_=100), standby.claim(max_=100)
    assert (len(mine), len(taken_over)) == (20, 20)
    assert {task["partition"] for task in mine}.isdisjoint(task["partition"] for task in taken_over)


# -- signs of life ------------------------------------------------------------------------------------------------
def test_b15_heartbeats_are_expected_every_five_seconds_and_replicated(cluster: LocalCluster) -> None:
    n1, n2, _ = cluster.urls
    queue = kit.fresh("b15")
    hand, standby = Hand(n1, queue), Hand(n2, queue, standby=True)
    for one in (hand, standby):
        assert (one.registered["heartbeat_ms"], one.registered["dead_after_ms"]) == (5_000, 15_000)
        kit.ok(one.sync(beat={}))


def test_b15_heartbeats_of_active_and_stand_by_workers_are_replicated(cluster: LocalCluster) -> None:
    n1, n2, _ = cluster.urls
    queue = kit.fresh("b15")
    often: dict[str, Any] = {"heartbeat_ms": 400, "dead_after_ms": 60_000}
    hand, standby = Hand(n1, queue, **often), Hand(n2, queue, standby=True, **often)
    for one in (hand, standby):

        def three_seen(one: Hand = one) -> bool:
            kit.ok(one.sync(beat={}))
            return len(kit.worker_of(n1, one.id)["beats"]) >= 3

        until(three_seen, f"three heartbeats of {one.name}")
    converge(cluster)
    for one in (hand, standby):
        first, *others = [kit.worker_of(url, one.id) for url in cluster.urls]
        assert first["beats"] == sorted(first["beats"])
        assert first["last_heartbeat"] == first["beats"][-1]
        for other in others:
            assert (other["beats"], other["last_heartbeat"]) == (first["beats"], first["last_heartbeat"])


def test_c3_beat_and_limit_can_be_chosen_per_worker(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("c3")
    quick = Hand(n1, queue, heartbeat_ms=300, dead_after_ms=1_000)
    slow = Hand(n2, queue, heartbeat_ms=10_000, dead_after_ms=30_000)
    kit.wait_status(cluster, quick, "DEAD")
    assert kit.worker_of(n3, slow.id)["status"] == "ALIVE"
    refused = quick.claim_reply()
    assert (refused.status, refused.json["code"]) == (409, "worker_not_alive")
    assert slow.claim() == []


def test_b17_the_heartbeat_log_is_the_same_on_every_node(cluster: LocalCluster) -> None:
    queue = kit.fresh("b17")
    alive = Hand(cluster.urls[0], queue, **PATIENT)
    dead = Hand(cluster.urls[1], queue, heartbeat_ms=100, dead_after_ms=300)
    kit.ok(alive.sync(beat={}))
    kit.wait_status(cluster, dead, "DEAD")
    converge(cluster)
    logs = [kit.ok(call(url, "GET", "/all_heartbeats")) for url in cluster.urls]
    for log in logs:
        assert {name: log[name]["status"] for name in (alive.name, dead.name)} == {
            alive.name: "ALIVE",
            dead.name: "DEAD",
        }
        assert log[alive.name] == logs[0][alive.name]
        assert log[dead.name] == logs[0][dead.name]
        assert set(log[alive.name]) == {"last_heartbeat", "status"}


def test_b18_free_or_busy_and_what_it_runs_now(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("b18")
    hand = Hand(n1, queue, concurrency=2, host="a host", pid=4711, **PATIENT)
    seen = kit.worker_of(n2, hand.id)
    assert (seen["state"], seen["running"], seen["host"], seen["pid"]) == ("FREE", [], "a host", 4711)
    task_id = kit.submit_one(n1, queue, name="add")
    claimed = hand.one()
    for url in cluster.urls:
        seen = kit.worker_of(url, hand.id)
        (running,) = seen["running"]
        assert (seen["state"], seen["leases"]) == ("BUSY", 1)
        assert (running["id"], running["name"], running["token"]) == (task_id, "add", claimed["lease"]["token"])
    assert hand.complete(claimed).status == 200
    seen = kit.worker_of(n3, hand.id)
    assert (seen["state"], seen["running"], seen["succeeded"]) == ("FREE", [], 1)


# -- fences -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("report", ["complete", "fail", "release", "hold"])
def test_d8_a_late_report_gets_lease_lost_and_changes_nothing(cluster: LocalCluster, report: str) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("d8")
    task_id = kit.submit_one(n1, queue, name="add")
    late = Hand(n1, queue, **MORTAL)
    with beating(late, cluster.urls):
        old = late.one()
    kit.wait_status(cluster, late, "DEAD")
    heir = Hand(n2, queue, **PATIENT)
    new = heir.one()
    for moment in ("while it runs", "when it is done"):
        before = kit.task_of(n3, task_id)
        refused = getattr(late, report)(old)
        assert (refused.status, refused.json["code"]) == (409, "lease_lost"), moment
        assert kit.task_of(n3, task_id) == before
        if moment == "while it runs":
            assert heir.complete(new, "the heir's").status == 200
    assert kit.task_of(n3, task_id)["result"] == "the heir's"


def test_d8_reports_of_a_sync_are_refused_one_by_one(cluster: LocalCluster) -> None:
    n1, n2, _ = cluster.urls
    queue = kit.fresh("d8")
    kit.submit(n1, queue, *({"name": "add", "args": [n]} for n in range(3)))
    hand = Hand(n2, queue, **PATIENT)
    lost, good, bad = hand.claim(max_=3)
    assert hand.release(lost).status == 200
    answer = kit.ok(
        hand.sync(
            complete=[_report(lost, result=1), _report(good, result=2)],
            fail=[_report(bad, error={"type": "E", "message": "m"}, retry=False)],
        )
    )
    assert answer["accepted"] == 2
    assert answer["rejected"] == [{"task_id": lost["id"], "code": "lease_lost"}]
    assert kit.task_of(n1, good["id"])["result"] == 2
    assert kit.task_of(n1, bad["id"])["reason"] == "NO_RETRY"


def test_d8_a_report_beside_a_heartbeat_that_does_not_name_its_lease_counts(cluster: LocalCluster) -> None:
    """As the protocol's own example has it: what is reported on is not among the tokens that are held any more."""
    n1, n2, _ = cluster.urls
    queue = kit.fresh("d8")
    for number, (said, after) in enumerate(
        (("complete", "SUCCESS"), ("fail", "FAILED"), ("release", "QUEUED"), ("progress", "PROCESSING")), 1
    ):
        task_id = kit.submit_one(n1, queue, name="add", max_attempts=1, priority=number)
        hand = Hand(n2, queue, **PATIENT)
        (task,) = kit.ok(hand.sync(claim={"number": 1}))["tasks"]
        answer = kit.ok(hand.sync(beat={"tokens": [], "claims": [], "claimed": 1}, **{said: [_report(task)]}))
        assert (answer["accepted"], answer["rejected"]) == (1, [])
        assert kit.task_of(n1, task_id)["status"] == after


def _report(task: kit.Task, **more: Any) -> dict[str, Any]:
    return {"task_id": task["id"], "lease": task["lease"]["token"], **more}


def test_e3_tokens_grow_over_the_whole_cluster(cluster: LocalCluster) -> None:
    """Whoever is told of a later lease, of whatever task, holds a greater token; also at the same moment elsewhere."""
    queues = [kit.fresh("e3") for _ in range(3)]
    hands = [Hand(url, queue, **PATIENT) for url, queue in zip(cluster.urls, queues, strict=True)]
    latest = 0
    for _ in range(3):
        for queue, hand in zip(queues, hands, strict=True):
            kit.submit_one(cluster.urls[0], queue, name="add")
            claimed = hand.one()
            assert claimed["lease"]["token"] > latest
            latest = claimed["lease"]["token"]
            assert hand.release(claimed).status == 200
    for queue in queues:
        kit.submit(cluster.urls[0], queue, *({"name": "add", "args": [n]} for n in range(50)))
    with ThreadPoolExecutor(3) as threads:
        got = list(threads.map(lambda hand: hand.claim(max_=50), hands))
    tokens = [task["lease"]["token"] for tasks in got for task in tasks]
    assert len(set(tokens)) == len(tokens) == 150
    assert min(tokens) > latest
