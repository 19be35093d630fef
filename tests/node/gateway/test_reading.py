"""Reads through the gateway: as fresh as asked for, at any node."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from structlog.contextvars import get_contextvars

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.protocol.grammar import Query
from quorl.cluster.protocol.wire import Answer, Call
from tests.node.fakecore import Cluster

TOPIC = "/v1/topics/t"
MESSAGES = TOPIC + "/messages"


async def with_topic(partitions: int = 1, **times: float) -> Cluster:
    cluster = Cluster(**times)
    assert (await cluster.call("n1", "POST", "/v1/topics", {"name": "t", "partitions": partitions}))[0] == 201
    return cluster


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_d9_a_local_read_answers_at_once_also_without_a_leader() -> None:
    cluster = await with_topic()
    cluster.group.lead(None)
    assert (await cluster.call("n2", "GET", "/v1/topics"))[1]["items"][0]["name"] == "t"
    assert (await cluster.call("n2", "GET", TOPIC + "?consistency=local"))[0] == 200
    assert (await cluster.call("n2", "GET", "/v1/cluster"))[1]["node"] == "n2"
    assert cluster.peers.calls == []


async def test_d9_a_session_read_waits_until_this_node_has_what_the_caller_saw() -> None:
    cluster = await with_topic()
    follower = cluster.core("n2")
    follower.held = True
    _, _, headers = await cluster.call("n1", "POST", MESSAGES, {"value": 1})
    target = f"{MESSAGES}?consistency=session&min_sequence={headers['quorl-sequence']}"
    read = asyncio.ensure_future(cluster.call("n2", "GET", target))
    await settled()
    assert not read.done()
    follower.catch_up()
    cluster.group.wake()
    status, body, headers = await read
    assert (status, len(body["items"]), headers["quorl-sequence"]) == (200, 1, "2")


async def test_d9_a_session_read_that_cannot_be_served_says_how_far_this_node_is() -> None:
    cluster = await with_topic(deadline_s=0.1)
    status, body, headers = await cluster.call("n2", "GET", TOPIC + "?consistency=session&min_sequence=9")
    assert (status, body["code"], headers["retry-after"]) == (503, "not_ready", "1")
    assert body["detail"] == "n2 has applied 1 entries; the read needs 9."


async def test_d9_a_linearizable_read_gets_a_barrier_from_the_leader_and_answers_itself() -> None:
    cluster = await with_topic()
    follower = cluster.core("n2")
    follower.held = True
    await cluster.call("n1", "POST", MESSAGES, {"value": 1})
    read = asyncio.ensure_future(cluster.call("n2", "GET", TOPIC + "/size"))
    await settled()
    assert not read.done()
    ((peer, call),) = cluster.peers.calls
    assert (peer, call.method, call.path) == ("n1", "GET", "/internal/barrier")
    follower.catch_up()
    cluster.group.wake()
    status, body, headers = await read
    assert (status, body["size"], headers["served-by"]) == (200, 1, "n2")
    assert (await cluster.call("n1", "GET", TOPIC + "/size"))[1]["size"] == 1
    assert cluster.core("n1").barriers == 2


@pytest.mark.parametrize("failure", [PeerUnreachable("n1"), PeerLost("n1"), Answer(503, {}, b"{}")])
async def test_d9_a_barrier_is_asked_for_again(failure: Exception | Answer) -> None:
    cluster = await with_topic()
    cluster.peers.script = [failure]
    assert (await cluster.call("n2", "GET", TOPIC))[0] == 200
    assert len(cluster.peers.calls) == 2


@pytest.mark.parametrize("failure", [NotApplied("no_leader", "no"), OutcomeUnknown()])
async def test_d9_a_leader_that_cannot_give_a_barrier_tries_again(failure: Exception) -> None:
    cluster = await with_topic()
    cluster.core("n1").script = [failure]
    assert (await cluster.call("n1", "GET", TOPIC))[0] == 200
    assert cluster.core("n1").barriers == 2


@pytest.mark.parametrize("name", ["n1", "n2"])
async def test_where_no_barrier_can_be_stored_a_read_is_told_at_once_what_is_missing(name: str) -> None:
    cluster = await with_topic()
    cluster.core("n1").script = [NotApplied("storage_full", "full")] * 9
    began = asyncio.get_running_loop().time()
    status, body, _ = await cluster.call(name, "GET", TOPIC)
    assert (status, body["code"]) == (503, "no_quorum")
    assert asyncio.get_running_loop().time() == began


async def test_d4_a_linearizable_read_without_a_leader_is_refused_with_what_is_missing() -> None:
    cluster = await with_topic()
    cluster.group.lead(None)
    status, body, headers = await cluster.call("n2", "GET", TOPIC)
    assert (status, body["code"], headers["retry-after"]) == (503, "no_quorum", "1")


async def test_d4_a_wait_for_a_leader_that_ended_too_late_is_refused_with_what_is_missing_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = await with_topic(deadline_s=0.05)
    cluster.group.lead(None)

    async def late(other_than: str | None, deadline: float) -> str | None:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    monkeypatch.setattr(cluster.core("n2"), "wait_leader", late)
    for method, path, body in [("GET", TOPIC, None), ("POST", MESSAGES, {"value": 1})]:
        status, told, _ = await cluster.call("n2", method, path, body)
        assert (status, told["code"]) == (503, "no_quorum")


async def test_a_barrier_that_never_comes_is_no_unknown_outcome() -> None:
    cluster = await with_topic(deadline_s=0.1)

    async def hang(peer: str, call: Call) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    cluster.peers.script = [hang] * 9
    assert (await cluster.call("n2", "GET", TOPIC))[0] == 503


async def test_a_read_that_takes_too_long_is_cut_off() -> None:
    cluster = await with_topic(deadline_s=0.05)
    cluster.core("n2").reading = asyncio.get_running_loop().create_future()
    status, body, _ = await cluster.call("n2", "GET", "/v1/topics")
    assert (status, body["code"], body["detail"]) == (503, "not_ready", "n2 could not answer within 0.05 s.")


async def test_who_does_not_wait_at_all_is_told_so_without_a_negative_time(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, ticks = await with_topic(), itertools.count()
    monkeypatch.setattr(cluster.core("n2"), "monotonic", lambda: next(ticks) / 1e6)
    no_time = {"quorl-timeout-ms": "0"}
    status, body, _ = await cluster.call("n2", "GET", "/v1/topics?consistency=linearizable", **no_time)
    assert (status, body["code"], body["detail"]) == (503, "not_ready", "n2 could not answer within 0 s.")


async def test_what_does_not_exist_is_a_problem() -> None:
    cluster = await with_topic()
    status, body, _ = await cluster.call("n2", "GET", MESSAGES + "/0/5")
    assert (status, body["code"], body["node"], body["leader"]) == (404, "message_not_found", "n2", "n1")


@pytest.mark.parametrize("start", ["latest", "0", "earliest"])
async def test_a_browse_that_waits_gets_the_message_that_comes(start: str) -> None:
    cluster = await with_topic()
    browse = asyncio.ensure_future(cluster.call("n2", "GET", f"{MESSAGES}?from={start}&wait=30"))
    await settled()
    assert not browse.done()
    await cluster.call("n3", "POST", MESSAGES, {"value": "hello"})
    status, body, _ = await browse
    assert (status, body["items"][0]["value"], body["next"]) == (200, "hello", 1)


async def test_a_browse_goes_on_waiting_when_only_another_partition_grows() -> None:
    cluster = await with_topic(partitions=2)
    browse = asyncio.ensure_future(cluster.call("n2", "GET", f"{MESSAGES}?partition=0&from=latest&wait=30"))
    await settled()
    offsets: list[int] = []
    while 0 not in offsets:
        assert not browse.done()
        _, body, _ = await cluster.call("n1", "POST", MESSAGES, {"value": len(offsets)})
        offsets.append(body["partition"])
    assert (await browse)[1]["items"][0]["value"] == offsets.index(0)


async def test_a_browse_that_waits_in_vain_ends_empty_and_a_missing_topic_does_not_wait() -> None:
    cluster = await with_topic()
    assert (await cluster.call("n2", "GET", MESSAGES + "?wait=0.05"))[:2] == (200, {"items": [], "next": 0})
    assert (await cluster.call("n2", "GET", "/v1/topics/x/messages?wait=60"))[0] == 404


async def test_a_topic_that_is_deleted_ends_the_wait() -> None:
    cluster = await with_topic()
    browse = asyncio.ensure_future(cluster.call("n2", "GET", MESSAGES + "?wait=30"))
    await settled()
    await cluster.call("n1", "DELETE", TOPIC)
    assert (await browse)[0] == 404


class Broken(Exception):
    """Something nobody expected."""


@pytest.mark.parametrize("error", [Broken("secret"), TimeoutError("a time-out of somebody else")])
async def test_the_unexpected_is_one_answer_and_one_log_line(error: Exception) -> None:
    cluster = await with_topic()

    async def fail(request: Query[Any]) -> None:
        raise error

    cluster.core("n2").read = fail  # type: ignore[method-assign, assignment]
    status, body, headers = await cluster.call("n2", "GET", "/v1/topics", request_id="mine")
    assert (status, body["code"], body["request_id"], headers["served-by"]) == (500, "internal", "mine", "n2")
    assert "secret" not in body["detail"]
    assert cluster.log.told == [{"event": "call_failed", "request_id": "mine", "method": "GET", "path": "/v1/topics"}]
    status, body, _ = await cluster.call("n2", "GET", "/topics")
    assert (status, body["status"], body["code"]) == (500, "failure", "internal")


async def test_d15_what_is_logged_while_a_call_is_served_has_its_request_id() -> None:
    cluster = await with_topic()
    core, seen = cluster.core("n2"), []
    read = core.read

    async def slowly(request: Query[Any]) -> Any:
        seen.append(get_contextvars())
        await settled()
        seen.append(get_contextvars())
        return await read(request)

    core.read = slowly  # type: ignore[method-assign]
    calls = [cluster.call("n2", "GET", "/v1/topics", request_id=name) for name in ("one", "two")]
    assert [status for status, _, _ in await asyncio.gather(*calls)] == [200, 200]
    assert [found["request_id"] for found in seen] == ["one", "two", "one", "two"]
    await cluster.call("n2", "GET", "/v1/topics/none", request_id="three")
    assert get_contextvars() == {}


async def test_a_request_id_that_is_no_plain_text_is_replaced() -> None:
    cluster = await with_topic()
    assert (await cluster.call("n1", "GET", "/v1/topics", request_id="a b"))[2]["request-id"] == "made-id"
    assert (await cluster.call("n1", "GET", "/v1/topics", request_id="a" * 201))[2]["request-id"] == "made-id"


@pytest.mark.parametrize("query", ["from=tomorrow", "from=ts:soon"])
async def test_a_start_that_is_none_is_the_callers_mistake(query: str) -> None:
    cluster = await with_topic()
    status, body, _ = await cluster.call("n1", "GET", f"{MESSAGES}?{query}")
    assert (status, body["code"]) == (400, "invalid_parameter")
    assert "from" in body["detail"]


async def test_a_cursor_of_another_list_is_the_callers_mistake() -> None:
    cluster = await with_topic()
    status, body, _ = await cluster.call("n1", "GET", "/v1/topics?cursor=zzz")
    assert (status, body["code"]) == (400, "invalid_parameter")
