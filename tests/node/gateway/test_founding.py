"""The founding routes, beside /v1, at any node."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.routes import FOUNDING_PATHS
from quorl.cluster.protocol.wire import Call
from tests.node.fakecore import Cluster


async def started() -> Cluster:
    cluster = Cluster()
    assert (await cluster.call("n2", "POST", "/topics", {"name": "t"}))[0] == 200
    assert (await cluster.call("n2", "POST", "/producer/register", {"topic": "t"}))[1]["producer_id"] == 1
    assert (await cluster.call("n3", "POST", "/consumer/register", {"topic": "t"}))[1]["consumer_id"] == 1
    return cluster


async def test_a16_the_founding_names_answer_in_their_shape_at_every_node() -> None:
    cluster = Cluster()
    calls: list[tuple[str, str, str, Any, int, dict[str, Any]]] = [
        (
            "n2",
            "POST",
            "/topics",
            {"name": "t"},
            200,
            {"status": "success", "message": "Topic 't' created successfully"},
        ),
        ("n1", "GET", "/topics", None, 200, {"status": "success", "topics": ["t"]}),
        ("n3", "POST", "/producer/register", {"topic": "t"}, 200, {"status": "success", "producer_id": 1}),
        ("n2", "POST", "/producer/register", {"topic": "t"}, 200, {"status": "success", "producer_id": 2}),
        ("n2", "POST", "/consumer/register", {"topic": "t"}, 200, {"status": "success", "consumer_id": 1}),
        (
            "n2",
            "POST",
            "/producer/produce",
            {"topic": "t", "producer_id": 1, "message": "one é"},
            200,
            {"status": "success", "partition": 0, "offset": 0},
        ),
        (
            "n2",
            "POST",
            "/producer/produce",
            {"topic": "t", "producer_id": "2", "message": {"a": [1]}},
            200,
            {"status": "success", "partition": 0, "offset": 1},
        ),
        ("n3", "GET", "/size?topic=t&consumer_id=1", None, 200, {"status": "success", "size": 2, "total": 2}),
        ("n3", "GET", "/consumer/consume?topic=t&consumer_id=1", None, 200, {"status": "success", "message": "one é"}),
        ("n1", "GET", "/size?topic=t&consumer_id=1", None, 200, {"status": "success", "size": 1, "total": 2}),
        (
            "n1",
            "GET",
            "/consumer/consume?topic=t&consumer_id=1",
            None,
            200,
            {"status": "success", "message": {"a": [1]}},
        ),
        (
            "n2",
            "GET",
            "/consumer/consume?topic=t&consumer_id=1",
            None,
            200,
            {"status": "failure", "message": "no new message"},
        ),
        ("n2", "GET", "/size?topic=t", None, 200, {"status": "success", "size": 2, "total": 2}),
    ]
    for node, method, target, body, status, expected in calls:
        found, answer, headers = await cluster.call(node, method, target, body)
        assert (found, answer) == (status, expected), target
        assert (headers["served-by"], headers["content-type"]) == (node, "application/json")


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "word"),
    [
        ("POST", "/topics", {"name": "t"}, 409, "exists"),
        ("POST", "/topics", {"name": ""}, 400, "at least 1 character"),
        ("POST", "/topics", {"name": "n" * 201}, 400, "at most 200 characters"),
        ("POST", "/topics", {"name": "."}, 400, "URLs drop"),
        ("POST", "/topics", {"nam": "x"}, 400, "did you mean `name`"),
        ("POST", "/topics", None, 400, "missing"),
        ("POST", "/topics", b"{", 400, "line 1"),
        ("POST", "/topics?name=x", {"name": "x"}, 400, "no parameter"),
        ("DELETE", "/topics", None, 405, "GET, POST"),
        ("GET", "/producer/register", None, 405, "POST"),
        ("POST", "/producer/register", {"topic": "x"}, 404, '"x"'),
        ("POST", "/consumer/register", {"topic": "x"}, 404, '"x"'),
        ("POST", "/producer/produce", {"topic": "t", "producer_id": 9, "message": 1}, 404, "9"),
        ("POST", "/producer/produce", {"topic": "t", "producer_id": "x", "message": 1}, 400, "`producer_id`"),
        ("POST", "/producer/produce", {"topic": "t", "producer_id": 0, "message": 1}, 400, "`producer_id`"),
        ("POST", "/producer/produce", {"topic": "t", "producer_id": True, "message": 1}, 400, "`producer_id`"),
        ("POST", "/producer/produce", {"topic": "t", "producer_id": 1}, 400, "`message`"),
        (
            "POST",
            "/producer/produce",
            {"topic": "t", "producer_id": 1, "message": "x" * limits.MESSAGE_VALUE_BYTES_MAX},
            413,
            "262146 bytes",
        ),
        ("GET", "/consumer/consume?topic=t&consumer_id=9", None, 404, "9"),
        ("GET", "/consumer/consume?topic=x&consumer_id=1", None, 404, '"x"'),
        ("GET", "/consumer/consume?topic=t&consumer_id=", None, 400, "`consumer_id`"),
        ("GET", "/consumer/consume?topic=t&consumer_id=" + "9" * 5000, None, 400, "`consumer_id`"),
        ("GET", "/consumer/consume?topic=t", None, 400, "`consumer_id`"),
        ("GET", "/consumer/consume?topic=t&consumer_id=1&consistency=local", None, 400, "Allowed: topic, consumer_id."),
        ("GET", "/size?consumer_id=1", None, 400, "`topic`"),
        ("GET", "/size?topic=t&consistency=strong", None, 400, "consistency"),
        ("GET", "/size?topic=t&min_sequence=x", None, 400, "min_sequence"),
        ("GET", "/size?topic=x", None, 404, '"x"'),
    ],
)
async def test_a16_failures_are_4xx_with_the_reason(
    method: str, target: str, body: Any, status: int, word: str
) -> None:
    cluster = await started()
    found, answer, _ = await cluster.call("n2", method, target, body)
    assert (found, answer["status"]) == (status, "failure")
    assert word in answer["message"]
    assert answer["hint"]


async def test_a16_a_lost_answer_skips_no_message_when_the_call_carries_a_key() -> None:
    cluster = await started()
    for number in range(2):
        await cluster.call("n2", "POST", "/producer/produce", {"topic": "t", "producer_id": 1, "message": number})
    target = "/consumer/consume?topic=t&consumer_id=1"
    answers = [
        await cluster.call(node, "GET", target, idempotency_key=key)
        for node, key in [("n2", "a"), ("n1", "a"), ("n3", "b")]
    ]
    assert [answer["message"] for _, answer, _ in answers] == [0, 0, 1]
    assert [headers.get("idempotent-replay") for _, _, headers in answers] == [None, "true", None]


async def test_d9_founding_reads_take_a_consistency() -> None:
    cluster = await started()
    assert (await cluster.call("n2", "GET", "/topics"))[0] == 200
    assert cluster.core("n1").barriers == 1
    cluster.group.lead(None)
    assert (await cluster.call("n2", "GET", "/topics?consistency=local"))[1]["topics"] == ["t"]
    assert (await cluster.call("n2", "GET", "/topics?consistency=session&min_sequence=3"))[0] == 200
    status, answer, headers = await cluster.call("n2", "GET", "/topics")
    assert (status, answer["status"], headers["retry-after"]) == (503, "failure", "1")


async def test_a4_every_topic_is_listed_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_ITEMS_MAX", 3)
    cluster = Cluster()
    names = sorted(f"t{number}" for number in range(10))
    for name in names:
        await cluster.call("n1", "POST", "/topics", {"name": name})
    assert (await cluster.call("n2", "GET", "/topics"))[1] == {"status": "success", "topics": names}


async def test_others_have_their_turn_while_every_topic_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_ITEMS_MAX", 1)
    cluster = Cluster()
    for number in range(5):
        await cluster.call("n1", "POST", "/topics", {"name": f"t{number}"})
    listing = asyncio.ensure_future(cluster.call("n1", "GET", "/topics"))
    turns = 0
    while not listing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 4
    assert len(listing.result()[1]["topics"]) == 5


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.sampled_from(["GET", "POST", "DELETE"]),
    st.sampled_from([*FOUNDING_PATHS, "/v1/topics", "/v1/topics/t/messages", "/v1/topics/t/consumers/1/consume"])
    | st.text(max_size=20),
    st.text(max_size=20) | st.sampled_from(["topic=t&consumer_id=1", "topic=t&consumer_id=%FF", "limit=1", "wait=0"]),
    st.binary(max_size=30)
    | st.dictionaries(
        st.sampled_from(["topic", "producer_id", "message", "name", "value"]),
        st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers(), max_size=2),
    ).map(msgspec.json.encode),
)
async def test_garbage_never_raises_and_never_is_the_servers_fault(
    method: str, path: str, query: str, body: bytes
) -> None:
    cluster = await started()
    answer = await cluster.peers.gateways["n2"].handle(Call(method, path, query, {}, body))
    assert answer.status < 500
    assert msgspec.json.decode(answer.body) is not None
    assert cluster.log.told == []


# -- tasks ---------------------------------------------------------------------------------------------------------
async def one_task(cluster: Cluster, result: bytes | None) -> str:
    """Run one task to its end, or, without a result, to its failure; gives its id."""
    task = {"task-id": "12345 abc", "task": "multiply", "args": [4, 5], "max_attempts": 1}
    assert (await cluster.call("n2", "POST", "/v1/queues/q/tasks", task))[0] == 201
    _, worker, _ = await cluster.call("n3", "POST", "/v1/workers", {"name": "w", "queues": ["q"]})
    status, body, _ = await cluster.call("n1", "POST", "/v1/claims", {"worker_id": worker["worker_id"]})
    assert status == 200
    lease = body["tasks"][0]["lease"]["token"]
    if result is None:
        done = await cluster.call("n2", "POST", "/v1/tasks/12345%20abc/fail", {"lease": lease})
    else:
        report = b'{"lease":' + str(lease).encode() + b',"result":' + result + b"}"
        done = await cluster.call("n2", "POST", "/v1/tasks/12345%20abc/complete", report)
    assert done[0] == 200
    return "12345 abc"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (b"20", "20"),
        (b'"20"', "20"),
        (b'"\\u00e9\\""', 'é"'),
        (b'{"a": [1, 2.50, null]}', '{"a":[1,2.50,null]}'),
        (b"null", "null"),
    ],
)
async def test_c6_a_result_is_told_in_its_old_shape_at_every_node(result: bytes, text: str) -> None:
    cluster = Cluster()
    task_id = await one_task(cluster, result)
    for node in ("n1", "n2", "n3"):
        status, answer, headers = await cluster.call(node, "GET", "/results/12345%20abc")
        assert (status, answer) == (200, {task_id: {"status": "success", "result": text}})
        assert headers["content-type"] == "application/json"


async def test_c6_what_has_no_result_is_told_in_the_same_shape() -> None:
    cluster = Cluster()
    status, answer, _ = await cluster.call("n2", "GET", "/results/12345%20abc")
    assert (status, answer) == (404, {"12345 abc": {"status": "not_found", "result": None}})
    task = {"task_id": "t", "task_type": "add", "task_args": ["1", "ejnf"]}
    assert (await cluster.call("n2", "POST", "/v1/queues/other/tasks", task))[0] == 201
    assert (await cluster.call("n3", "GET", "/results/t"))[1] == {"t": {"status": "queued", "result": None}}
    task_id = await one_task(cluster, None)
    assert (await cluster.call("n3", "GET", "/results/12345%20abc"))[1] == {
        task_id: {"status": "failed", "result": None}
    }


@pytest.mark.parametrize(
    ("method", "target", "status", "word"),
    [
        ("POST", "/results/t", 405, "GET"),
        ("GET", "/results/t?wait=1", 400, "no parameter"),
        ("GET", "/results/t?consistency=never", 400, "consistency"),
        ("GET", "/results/", 404, "/results/{id}"),
        ("GET", "/results/a/b", 404, "route_not_found"),
        ("POST", "/all_heartbeats", 405, "GET"),
    ],
)
async def test_c6_what_is_asked_wrongly_is_explained(method: str, target: str, status: int, word: str) -> None:
    cluster = Cluster()
    found, answer, _ = await cluster.call("n2", method, target)
    assert (found, word in str(answer)) == (status, True), answer


async def test_b17_the_log_of_heartbeats_is_the_same_at_every_node() -> None:
    cluster = Cluster()
    for name in ("worker b", "worker a"):
        limit = {"heartbeat_ms": 100, "dead_after_ms": 1_000} if name == "worker b" else {}
        await cluster.call("n2", "POST", "/v1/workers", {"name": name, "queues": ["q"], **limit})
    cluster.group.passed_ms += 2_000
    await cluster.call("n2", "POST", "/v1/queues/q/tasks", {"name": "x"})
    logs = [await cluster.call(node, "GET", "/all_heartbeats") for node in ("n1", "n2", "n3")]
    assert [status for status, _, _ in logs] == [200] * 3
    first = logs[0][1]
    assert [log for _, log, _ in logs] == [first] * 3
    assert {name: told["status"] for name, told in first.items()} == {"worker a": "ALIVE", "worker b": "DEAD"}
    assert list(first["worker a"]) == ["last_heartbeat", "status"]
    assert first["worker a"]["last_heartbeat"].startswith("2023-11-14T22:13:20.")
