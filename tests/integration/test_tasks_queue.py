"""Tasks, as whoever submits them sees them through any node: features B3 to B11, C4 to C6, C10, E5."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, pairwise
from typing import Any

import pytest

from quorl import Client
from tests import taskkit as kit
from tests.harness import LocalCluster, call, converge, until
from tests.taskkit import Hand

FOUNDING = {"task_id": "b3 d0cf3b56", "task_type": "add", "task_args": ["1", "2"], "task_tries": 0}
AT_ONCE = {"kind": "fixed", "first_ms": 0, "jitter": 0}


def test_b3_the_founding_task_line_is_accepted_unchanged(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("b3")
    first = call(n1, "POST", f"{kit.queue_path(queue)}/tasks", FOUNDING)
    assert (first.status, first.json["id"], first.json["status"]) == (201, "b3 d0cf3b56", "QUEUED")
    assert first.headers["location"] == kit.task_path("b3 d0cf3b56")
    again = call(n2, "POST", f"{kit.queue_path(queue)}/tasks", FOUNDING)
    assert (again.status, again.json["existing"]) == (200, True)
    other = call(n3, "POST", f"{kit.queue_path(queue)}/tasks", FOUNDING | {"task_args": ["1", "3"]})
    assert (other.status, other.json["code"]) == (409, "task_exists")
    task = kit.task_of(n3, "b3 d0cf3b56")
    assert (task["name"], task["args"], task["tries"], task["attempts"]) == ("add", ["1", "2"], 0, 0)
    claimed = Hand(n2, queue).one()
    assert (claimed["name"], claimed["args"], claimed["attempt"]) == ("add", ["1", "2"], 1)


def test_c5_the_same_task_in_other_json_is_the_same_at_any_node_and_another_is_told_by_what_differs(
    cluster: LocalCluster,
) -> None:
    """Under its id, and under an idempotency key: what is said counts, and not how."""
    queue = kit.fresh("c5")
    path = f"{kit.queue_path(queue)}/tasks"
    first = b'{"id": "%s", "name": "add", "args": [{"a":1,"b":2}]}' % queue.encode()
    again = b'{"name": "add", "args": [ {"b": 2, "a": 1} ], "kwargs": {}, "id": "%s"}' % queue.encode()
    assert call(cluster.urls[0], "POST", path, first).status == 201
    for url in cluster.urls:
        for _ in range(2):  # a repeat of the repeat, which is answered by its receipt
            reply = call(url, "POST", path, again, headers={"idempotency-key": "c5-other-json"})
            assert (reply.status, reply.json["id"], reply.json["existing"]) == (200, queue, True)
        other = call(url, "POST", path, again.replace(b'"b": 2', b'"b": 3'))
        assert (other.status, other.json["code"]) == (409, "task_exists")
        assert 'It differs in args ([{"a":1,"b":2}] there, [ {"b": 3, "a": 1} ] here).' in other.json["detail"]
    key = {"idempotency-key": "c5-first-json"}
    made = call(cluster.urls[0], "POST", path, {"name": "add", "kwargs": {"x": 1, "y": 2}}, headers=key)
    for url in cluster.urls:
        reply = call(url, "POST", path, b'{"name": "add", "kwargs": {"y":2, "x":1}}', headers=key)
        assert (reply.status, reply.json["id"], reply.headers["idempotent-replay"]) == (201, made.json["id"], "true")
        other = call(url, "POST", path, {"name": "add", "kwargs": {"x": 1}}, headers=key)
        assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")
        assert 'It differs in kwargs ({"x": 1, "y": 2} there, {"x": 1} here).' in other.json["detail"]
    with Client(cluster.urls[1:]) as client:
        made_ids = {
            client.tasks.submit("add", kwargs=kwargs, queue=queue, idempotency_key="c5-python").id
            for kwargs in ({"x": 1, "y": 2}, {"y": 2, "x": 1})
        }
        existing = [
            client.tasks.submit("add", kwargs=kwargs, queue=queue, id=f"{queue}-python").existing
            for kwargs in ({"x": 1, "y": 2}, {"y": 2, "x": 1})
        ]
    assert (len(made_ids), existing) == (1, [False, True])
    assert len(kit.all_tasks(cluster.urls[0], queue)) == 4


@pytest.mark.parametrize("key", ["task-id", "task_id", "id"])
@pytest.mark.parametrize("name", ["task", "task_type", "name"])
def test_c5_every_spelling_is_accepted_as_it_is(cluster: LocalCluster, key: str, name: str) -> None:
    queue = kit.fresh("c5")
    body = {key: f"c5 {key} {name}", name: "multiply", "args": [4, 5]}
    reply = call(cluster.urls[0], "POST", f"{kit.queue_path(queue)}/tasks", body)
    assert (reply.status, reply.json["id"]) == (201, f"c5 {key} {name}")
    task = kit.task_of(cluster.urls[1], f"c5 {key} {name}")
    assert (task["name"], task["args"]) == ("multiply", [4, 5])


def test_c5_a_missing_id_is_made(cluster: LocalCluster) -> None:
    queue = kit.fresh("c5")
    ids = [kit.submit_one(url, queue, task="multiply", args=[4, 5]) for url in cluster.urls]
    assert len({*ids, ""}) == 4
    assert [kit.task_of(cluster.urls[0], task_id)["id"] for task_id in ids] == ids


def test_d15_the_trace_of_a_submit_goes_with_its_task_through_any_node(cluster: LocalCluster) -> None:
    queue = kit.fresh("d15")
    for number, url in enumerate(cluster.urls, 1):
        traces = [f"00-{number:032x}-{span:016x}-01" for span in (1, 2)]
        body = {"name": "add", "id": f"{queue}-{number}"}
        for trace in [*traces, "nonsense"]:
            headers = {"traceparent": trace, "tracestate": "a=1,\t b=2", "idempotency-key": f"d15-{number}"}
            reply = call(url, "POST", f"{kit.queue_path(queue)}/tasks", body, headers=headers)
            assert (reply.status, reply.json["id"]) == (201, body["id"])
        assert call(url, "POST", f"{kit.queue_path(queue)}/tasks", body).json["existing"]
        for task in (kit.task_of(cluster.urls[0], body["id"]), Hand(url, queue).one()):
            assert (task["traceparent"], task["tracestate"]) == (traces[0], "a=1,b=2")


def test_b4_tasks_are_dealt_round_robin_over_partitions_and_a_key_overrides(cluster: LocalCluster) -> None:
    """Through three nodes at once, in requests of different sizes."""
    queue = kit.fresh("b4")
    kit.put_queue(cluster.urls[0], queue, partitions=7)

    def deal(number: int, url: str) -> None:
        kit.submit(url, queue, *({"name": "add", "args": [number, k]} for k in range(number % 5 + 1)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(deal, range(30), cycle(cluster.urls)))
    tasks = kit.all_tasks(cluster.urls[1], queue)
    shares = Counter(task["partition"] for task in tasks)
    assert sum(shares.values()) == sum(number % 5 + 1 for number in range(30))
    assert set(shares) == set(range(7))
    assert max(shares.values()) - min(shares.values()) <= 1
    kit.submit(cluster.urls[2], queue, *({"name": "add", "key": "one customer"} for _ in range(20)))
    (only,) = {task["partition"] for task in kit.all_tasks(cluster.urls[2], queue)[-20:]}
    assert only in range(7)


def test_b5_recorded_at_acceptance(cluster: LocalCluster) -> None:
    """The record and the enqueue are one entry: there is one transition, and it says both."""
    n1, n2, n3 = cluster.urls
    task_id = kit.submit_one(n1, kit.fresh("b5"), name="add", args=["1", "2"])
    for url in (n2, n3):
        task = kit.task_of(url, task_id)
        assert (task["status"], task["attempts"], task["result"], task["history"]) == ("QUEUED", 0, None, [])
        (event,) = kit.events_of(url, task_id)
        assert (event["kind"], event["status"]) == ("submitted", "QUEUED")
    reply = call(n2, "GET", kit.task_path(task_id, "/result"))
    assert (reply.status, reply.json["status"], reply.json["result"]) == (202, "QUEUED", None)


def test_b5_several_tasks_are_stored_all_or_none(cluster: LocalCluster) -> None:
    queue = kit.fresh("b5")
    kit.submit_one(cluster.urls[0], queue, id=f"{queue} taken", name="add")
    body = {"tasks": [{"id": f"{queue} new", "name": "add"}, {"id": f"{queue} taken", "name": "subtract"}]}
    assert call(cluster.urls[1], "POST", f"{kit.queue_path(queue)}/tasks", body).status == 409
    assert call(cluster.urls[2], "GET", kit.task_path(f"{queue} new")).status == 404
    assert len(kit.all_tasks(cluster.urls[1], queue)) == 1


def test_b6_a_sealed_queue_takes_nothing_more_and_says_when_it_is_drained(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("b6")
    task_id = kit.submit_one(n1, queue, name="add")
    hand, idle = Hand(n2, queue), Hand(n3, queue)
    claimed = hand.one()
    assert kit.ok(call(n3, "PATCH", kit.queue_path(queue), {"sealed": True}))["health"] == "sealed"
    refused = call(n1, "POST", f"{kit.queue_path(queue)}/tasks", {"name": "add"})
    assert (refused.status, refused.json["code"]) == (409, "queue_sealed")
    not_yet = kit.ok(idle.sync(claim={"queues": [queue]}))
    assert not not_yet["directives"].get("drained")  # the last task might still come back
    with ThreadPoolExecutor(1) as thread:
        told = thread.submit(idle.sync, claim={"queues": [queue], "wait": 20})
        assert hand.complete(claimed, 3).status == 200
        assert kit.ok(told.result(60))["directives"]["drained"]
    assert kit.task_of(n1, task_id)["result"] == 3  # results stay


def test_b8_the_success_record(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("b8")
    task_id = kit.submit_one(n1, queue, name="divide", args=[7, 2], max_attempts=3)
    hand = Hand(n2, queue)
    assert hand.fail(hand.one(), delay_ms=0).json["status"] == "QUEUED"
    assert hand.complete(hand.one(), {"quotient": 3.5}).status == 200
    result = call(n3, "GET", kit.task_path(task_id, "/result"))
    assert (result.status, result.json["id"], result.json["status"]) == (200, task_id, "SUCCESS")
    assert (result.json["result"], result.json["attempts"]) == ({"quotient": 3.5}, 2)
    task = kit.task_of(n1, task_id)
    assert [attempt["outcome"] for attempt in task["history"]] == ["failed", "success"]


def test_b9_three_attempts_then_a_failure_record_with_every_error(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("b9")
    task_id = kit.submit_one(n1, queue, task_type="add", task_args=["1", "ejnf"], backoff=AT_ONCE)
    hands = [Hand(url, queue) for url in cluster.urls]
    for number, hand in enumerate(hands, 1):
        claimed = hand.one()
        assert claimed["attempt"] == number
        said = hand.fail(claimed, f"attempt {number}: invalid literal for int() with base 10: 'ejnf'")
        assert said.json["status"] == ("FAILED" if number == 3 else "QUEUED")
    assert [hand.claim() for hand in hands] == [[], [], []]
    for url in (n1, n2, n3):
        task = kit.task_of(url, task_id)
        assert (task["status"], task["attempts"], task["result"], task["reason"]) == ("FAILED", 3, None, "ERROR")
        assert [error["attempt"] for error in task["errors"]] == [1, 2, 3]
        for number, error in enumerate(task["errors"], 1):
            assert error["type"] == "ValueError"
            assert error["message"].startswith(f"attempt {number}:")
            assert "Traceback" in error["traceback"]
        assert [attempt["worker"] for attempt in task["history"]] == [hand.name for hand in hands]
    result = call(n2, "GET", kit.task_path(task_id, "/result")).json
    assert (result["status"], result["result"], result["attempts"]) == ("FAILED", None, 3)
    assert result["error"]["message"].startswith("attempt 3:")


ORDER = {
    None: {"QUEUED"},
    "QUEUED": {"PROCESSING"},
    "PROCESSING": {"SUCCESS", "FAILED"},
    "SUCCESS": set[str](),
    "FAILED": set[str](),
}


def test_b11_clients_never_see_another_order_and_final_states_stay(cluster: LocalCluster) -> None:
    """Watched through all nodes at once, by linearizable reads one after the other at each."""
    queue = kit.fresh("b11")
    ids = [kit.submit_one(cluster.urls[0], queue, name="work", max_attempts=1) for _ in range(12)]
    seen: dict[tuple[str, str], list[str]] = {(url, task_id): [] for url in cluster.urls for task_id in ids}
    stop = threading.Event()

    def watch(url: str) -> None:
        while True:
            last = stop.is_set()
            for task_id in ids:
                states = seen[url, task_id]
                status = kit.task_of(url, task_id)["status"]
                if states[-1:] != [status]:
                    states.append(status)
            if last:
                return

    with ThreadPoolExecutor(3) as threads:
        watching = [threads.submit(watch, url) for url in cluster.urls]
        hands = [Hand(url, queue) for url in cluster.urls]
        for number, hand in zip(range(12), cycle(hands), strict=False):
            claimed = hand.one()
            report = hand.fail(claimed) if number % 3 == 0 else hand.complete(claimed, number)
            assert report.status == 200
            late = hand.complete(claimed, "too late")
            assert (late.status, late.json["code"]) == (409, "lease_lost")
        stop.set()
        for watcher in watching:
            watcher.result(60)
    for states in seen.values():
        path: list[str | None] = [None, *states]
        for before, after in pairwise(path):
            reachable = _reachable(before)
            assert after in reachable, states
        assert states[-1] in {"SUCCESS", "FAILED"}


def _reachable(status: str | None) -> set[str]:
    """What may be seen next: a watcher may miss a state, and never goes back."""
    found: set[str] = set()
    ways = set(ORDER[status])
    while ways:
        found |= ways
        ways = {after for way in ways for after in ORDER[way]} - found
    return found


def test_c4_a_waiting_client_at_another_node_is_told_without_polling(cluster: LocalCluster) -> None:
    """How fast is a figure of the benchmark; here, that the news ends the waiting long before its time is over."""
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("c4")
    task_id = kit.submit_one(n1, queue, name="add")
    hand = Hand(n2, queue)
    claimed = hand.one()
    with ThreadPoolExecutor(2) as threads:
        started_s = time.monotonic()
        waiting = [
            threads.submit(call, n3, "GET", kit.task_path(task_id, path), timeout_s=60)
            for path in ("/result?wait=25", "?wait=25")
        ]
        assert hand.complete(claimed, 9).status == 200
        told: list[Any] = [reply.result(60).json for reply in waiting]
    assert [(one["status"], one["result"]) for one in told] == [("SUCCESS", 9)] * 2
    assert time.monotonic() - started_s < 15


def test_c4_a_wait_that_is_over_answers_what_it_knows(cluster: LocalCluster) -> None:
    task_id = kit.submit_one(cluster.urls[0], kit.fresh("c4"), name="add")
    reply = call(cluster.urls[1], "GET", kit.task_path(task_id, "/result?wait=0.2"))
    assert (reply.status, reply.json["status"]) == (202, "QUEUED")


@pytest.mark.parametrize(("result", "text"), [(3, "3"), ("3", "3"), ("äh", "äh"), ([7], "[7]"), (None, "null")])
def test_c6_the_compatible_result_route(cluster: LocalCluster, result: Any, text: str) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("c6")
    task_id = kit.submit_one(n1, queue, **{"task-id": f"{queue} 12345abc", "task": "divide", "args": [12, 4]})
    route = f"/results/{task_id.replace(' ', '%20')}"
    waiting = call(n2, "GET", route)
    assert (waiting.status, waiting.json) == (200, {task_id: {"status": "queued", "result": None}})
    hand = Hand(n3, queue)
    assert hand.complete(hand.one(), result).status == 200
    done = call(n2, "GET", route)
    assert (done.status, done.json) == (200, {task_id: {"status": "success", "result": text}})


def test_c6_an_unknown_id_is_not_found_in_its_shape(cluster: LocalCluster) -> None:
    reply = call(cluster.urls[1], "GET", "/results/c6-nowhere")
    assert (reply.status, reply.json) == (404, {"c6-nowhere": {"status": "not_found", "result": None}})


def test_c10_results_live_apart_from_the_queue(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("c10")
    done, waits = (kit.submit_one(n1, queue, name="add", args=[number]) for number in range(2))
    hand = Hand(n2, queue)
    assert hand.complete(hand.one(), "kept").status == 200
    assert kit.ok(call(n3, "POST", f"{kit.queue_path(queue)}/purges", {})) == {"removed": 1, "remaining": 0}
    assert kit.task_of(n1, waits)["status"] == "CANCELLED"
    assert kit.ok(call(n1, "DELETE", kit.queue_path(queue)))
    assert call(n2, "GET", kit.queue_path(queue)).status == 404
    result = call(n3, "GET", kit.task_path(done, "/result"))
    assert (result.status, result.json["result"]) == (200, "kept")


def test_c10_until_their_time_to_live_ends(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("c10")
    kit.put_queue(n1, queue, keep_finished_ms=300)
    task_id = kit.submit_one(n1, queue, name="add")
    hand = Hand(n2, queue)
    assert hand.complete(hand.one(), 3).status == 200
    until(lambda: call(n3, "GET", kit.task_path(task_id)).status == 404, "the result to be forgotten")
    assert kit.ok(call(n1, "GET", kit.queue_path(queue)))["counts"]["success"] == 0


def test_e5_every_transition_is_told_with_its_place_in_the_log(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("e5")
    task_id = kit.submit_one(n1, queue, name="add", delay_ms=50, max_attempts=2)
    hand = Hand(n2, queue)
    assert hand.release(hand.one()).json["status"] == "QUEUED"
    assert hand.fail(hand.one(), delay_ms=50).json["status"] == "RETRY"
    assert hand.complete(hand.one(), 3).status == 200
    converge(cluster)
    told = [kit.events_of(url, task_id) for url in (n1, n2, n3)]
    assert told[0] == told[1] == told[2]
    assert [event["kind"] for event in told[0]] == [
        "submitted", "due", "claimed", "released", "claimed", "failed", "due", "claimed", "success",
    ]  # fmt: skip
    leader = cluster.leader()
    for before, after in pairwise(told[0]):
        assert before["index"] <= after["index"]
        assert before["at"] <= after["at"]
    assert {event["node"] for event in told[0]} == {leader}
    assert {event["worker_id"] for event in told[0] if event["kind"] in {"claimed", "failed", "success"}} == {hand.id}
    assert all(event["term"] >= 1 for event in told[0])


def why(url: str, task_id: str) -> list[str]:
    reply = kit.ok(call(url, "GET", kit.task_path(task_id, "/why")))
    assert all(reason["detail"] for reason in reply["reasons"])
    return [reason["code"] for reason in reply["reasons"]]


def test_e5_why_a_task_is_not_running(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("e5")
    later = kit.submit_one(n1, queue, name="add", delay_ms=3_600_000)
    task_id = kit.submit_one(n1, queue, name="add")
    assert "scheduled" in why(n2, later)
    assert "no_workers" in why(n2, task_id)
    hand = Hand(n3, queue, handlers=[{"name": "subtract"}])
    assert "unknown_name" in why(n2, task_id)
    kit.ok(call(n1, "PATCH", kit.queue_path(queue), {"paused": True}))
    assert why(n2, task_id)[0] == "paused"
    kit.ok(call(n1, "PATCH", kit.queue_path(queue), {"paused": False}))
    claimed = hand.one()
    assert why(n1, task_id) == ["running"]
    kit.ok(hand.fail(claimed, delay_ms=3_600_000))
    assert "backoff" in why(n1, task_id)
    kit.ok(call(n2, "POST", kit.task_path(task_id, "/cancel")))
    assert why(n3, task_id) == ["finished"]


def test_e5_a_failed_task_that_is_retried_keeps_its_history(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    queue = kit.fresh("e5")
    task_id = kit.submit_one(n1, queue, name="add", max_attempts=1)
    hand = Hand(n2, queue)
    assert hand.fail(hand.one()).json["status"] == "FAILED"
    assert kit.ok(call(n3, "POST", kit.task_path(task_id, "/retry")))["status"] == "QUEUED"
    assert hand.complete(hand.one(), 3).status == 200
    task = kit.task_of(n1, task_id)
    assert [attempt["outcome"] for attempt in task["history"]] == ["failed", "success"]
    assert [error["attempt"] for error in task["errors"]] == [1]
    assert "retried" in [event["kind"] for event in kit.events_of(n3, task_id)]
