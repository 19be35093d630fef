"""Long polls and ends through the gateway: waits that something comes for, are cut off, or end with the node."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from quorl.cluster.node.core import PeerUnreachable
from quorl.cluster.node.patience import Haste
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import Sealed, encode_command
from quorl.cluster.protocol.topics import Append, Message
from tests.node.gateway.topic import CONSUME, MESSAGES, with_topic


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_a9_a_waiting_consumer_gets_the_message_that_comes(node: str) -> None:
    cluster = await with_topic()
    consume = asyncio.ensure_future(cluster.call(node, "POST", CONSUME, {"wait": 30}))
    while len(cluster.core("n1").submitted) < 3:
        await asyncio.sleep(0)
    assert not consume.done()
    await cluster.call("n3", "POST", MESSAGES, {"value": "hello"})
    status, body, headers = await consume
    assert (status, body["items"][0]["value"], body["remaining"]) == (200, "hello", 0)
    assert headers["quorl-sequence"] == "5"


async def test_a9_a_message_in_the_very_entry_of_the_question_wakes_the_consumer() -> None:
    """Group commit may put an append right behind a consume that found nothing: it must not wait for the next one."""
    cluster = await with_topic()
    append = Append(topic="t", messages=[Message(value=msgspec.Raw(b'"at once"'))])
    cluster.core("n1").behind = [Sealed(None, b"", encode_command(append))]
    status, body, _ = await cluster.call("n1", "POST", CONSUME, {"wait": 30})
    assert (status, [item["value"] for item in body["items"]]) == (200, ["at once"])
    loop = asyncio.get_running_loop()
    assert loop.time() < 1001, "it was found only when the time was over"


async def test_a9_a_wait_that_brings_nothing_ends_with_an_empty_answer() -> None:
    cluster = await with_topic()
    assert (await cluster.call("n2", "POST", CONSUME, {"wait": 0.05}))[:2] == (200, {"items": [], "remaining": 0})


async def test_d7_a_repeated_consume_gets_the_same_messages_whatever_it_would_wait() -> None:
    cluster = await with_topic()
    await cluster.call("n1", "POST", MESSAGES, {"messages": [{"value": 1}, {"value": 2}]})
    first = await cluster.call("n1", "POST", CONSUME, {"wait": 5}, idempotency_key="k")
    again = await cluster.call("n2", "POST", CONSUME, {"wait": 1}, idempotency_key="k")
    assert [item["value"] for item in first[1]["items"]] == [1]
    assert again[:2] == first[:2]
    assert again[2]["idempotent-replay"] == "true"


async def test_a_forwarded_wait_is_what_is_left_of_it() -> None:
    cluster = await with_topic()
    asked = {"quorl_hops": "1", "quorl_wait_ms": "20"}
    assert (await cluster.call("n1", "POST", CONSUME, {"wait": 60}, **asked))[1]["items"] == []
    cluster.peers.script = [PeerUnreachable("n1")]
    await cluster.call("n2", "POST", CONSUME, {"wait": 0.5})
    first, second = (int(call.headers["quorl-wait-ms"]) for _, call in cluster.peers.calls)
    assert 500 >= first > second


async def test_d13_long_polls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONG_POLLS_MAX", 1)
    cluster = await with_topic()
    consume = asyncio.ensure_future(cluster.call("n1", "POST", CONSUME, {"wait": 30}))
    await asyncio.sleep(0)
    status, body, headers = await cluster.call("n1", "GET", MESSAGES + "?wait=30")
    assert (status, body["code"], headers["retry-after"]) == (429, "too_many_requests", "1")
    assert (await cluster.call("n1", "GET", MESSAGES))[0] == 200
    cluster.peers.gateways["n1"].drain()
    assert (await consume)[1]["items"] == []


async def test_a_caller_that_says_how_long_it_waits_is_answered_before_that() -> None:
    cluster = await with_topic(deadline_s=10.0, leader_wait_s=2.0)
    cluster.group.lead(None)
    core = cluster.core("n2")
    for given_ms, code, took_s in (
        ("1600", "no_quorum", 1.368),
        ("100", "no_quorum", 0.0855),
        ("60000", "no_quorum", 2.0),
        ("soon", "no_quorum", 2.0),
        ("0", "no_quorum", 0.0),
    ):
        began = core.monotonic()
        status, body, _ = await cluster.call("n2", "POST", MESSAGES, {"value": 1}, quorl_timeout_ms=given_ms)
        assert (status, body["code"], round(core.monotonic() - began, 4)) == (503, code, took_s)


async def test_a_wait_is_no_longer_than_the_caller_waits() -> None:
    cluster = await with_topic(deadline_s=10.0)
    core = cluster.core("n2")
    began = core.monotonic()
    status, body, _ = await cluster.call("n2", "POST", CONSUME, {"wait": 30}, quorl_timeout_ms="10000")
    assert (status, body["items"], round(core.monotonic() - began, 3)) == (200, [], 6.75)


async def test_draining_ends_long_polls_refuses_new_calls_and_lets_running_ones_end() -> None:
    cluster = await with_topic()
    gateway = cluster.peers.gateways["n1"]
    consume = asyncio.ensure_future(cluster.call("n1", "POST", CONSUME, {"wait": 30}))
    forwarded = asyncio.ensure_future(cluster.call("n2", "POST", CONSUME, {"wait": 30}))
    while len(cluster.core("n1").submitted) < 4:
        await asyncio.sleep(0)
    assert gateway.running == 2
    gateway.drain()
    assert (await consume)[:2] == (200, {"items": [], "remaining": 0})
    assert (await forwarded)[:2] == (200, {"items": [], "remaining": 0})
    assert gateway.running == 0
    status, body, headers = await cluster.call("n1", "GET", "/v1/topics")
    assert (status, body["code"], headers["retry-after"]) == (503, "shutting_down", "1")
    gateway.drain()


async def test_draining_breaks_off_what_waits_at_the_leader_and_asks_what_came_of_it() -> None:
    cluster = await with_topic()
    gateway = cluster.peers.gateways["n2"]
    consume = asyncio.ensure_future(cluster.call("n2", "POST", CONSUME, {"wait": 30}))
    while len(cluster.core("n1").submitted) < 3:
        await asyncio.sleep(0)
    began = cluster.core("n2").monotonic()
    gateway.drain()
    assert (await consume)[:2] == (200, {"items": [], "remaining": 0})
    assert cluster.core("n2").monotonic() - began < 1
    waits = [call.headers["quorl-wait-ms"] for _, call in cluster.peers.calls]
    assert (len(waits), waits[-1], gateway.running) == (2, "0", 0)


async def test_a_wait_that_has_no_time_left_when_the_node_drains_does_not_begin() -> None:
    cluster = await with_topic()
    core, gateway = cluster.core("n1"), cluster.peers.gateways["n1"]
    submit = core.submit

    async def drain_meanwhile(sealed: Sealed, haste: Haste) -> object:
        gateway.drain()
        return await submit(sealed, haste)

    core.submit = drain_meanwhile  # type: ignore[assignment]
    assert (await cluster.call("n1", "POST", CONSUME, {"wait": 30}))[:2] == (200, {"items": [], "remaining": 0})


async def test_a_caller_that_goes_away_leaves_nothing_behind() -> None:
    cluster = await with_topic()
    consume = asyncio.ensure_future(cluster.call("n2", "POST", CONSUME, {"wait": 30}))
    while len(cluster.core("n1").submitted) < 3:
        await asyncio.sleep(0)
    consume.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consume
    for _ in range(9):
        await asyncio.sleep(0)
    assert [gateway.running for gateway in cluster.peers.gateways.values()] == [0, 0, 0]
