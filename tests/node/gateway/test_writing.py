"""Writes through the gateway: forwarded, repeated under one key, and answered truthfully."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.node.patience import Haste
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import Sealed, encode_command
from quorl.cluster.protocol.topics import Append, Message
from quorl.cluster.protocol.wire import Answer, Call
from tests.node.fakecore import AnswerLost, Cluster

TOPIC = "/v1/topics/t"
MESSAGES = TOPIC + "/messages"
CONSUME = TOPIC + "/consumers/1/consume"


async def with_topic(**times: float) -> Cluster:
    cluster = Cluster(**times)
    assert (await cluster.call("n1", "POST", "/v1/topics", {"name": "t"}))[0] == 201
    assert (await cluster.call("n1", "POST", TOPIC + "/consumers"))[0] == 201
    return cluster


async def messages(cluster: Cluster) -> int:
    """How many messages the topic holds, as the first node has them."""
    cluster.core("n1").catch_up()
    _, size, _ = await cluster.call("n1", "GET", TOPIC + "/size?consistency=local")
    return int(size["total"])


def problem(status: int, code: str, **fields: object) -> Answer:
    return Answer(status, {"retry-after": "1"}, msgspec.json.encode({"code": code, **fields}))


async def test_d2_any_node_takes_a_write() -> None:
    cluster = await with_topic()
    status, body, headers = await cluster.call("n2", "POST", MESSAGES, {"value": 1}, x_request_id="mine")
    assert (status, body["first_offset"]) == (201, 0)
    assert headers == {
        "content-type": "application/json",
        "served-by": "n2",
        "quorl-leader": "n1",
        "quorl-term": "7",
        "quorl-sequence": "3",
        "request-id": "mine",
        "cache-control": "no-store",
    }


async def test_d2_a_write_is_forwarded_byte_for_byte_under_a_key_and_one_hop() -> None:
    cluster = await with_topic()
    body = b' {"value" : "\\u00e9"}'
    await cluster.call("n2", "POST", MESSAGES, body, content_type="application/json", request_id="r", accept="*/*")
    ((peer, sent),) = cluster.peers.calls
    assert peer == "n1"
    assert sent == Call(
        "POST",
        MESSAGES,
        "",
        {
            "content-type": "application/json",
            "idempotency-key": "made-3",
            "quorl-hops": "1",
            "quorl-wait-ms": "0",
            "request-id": "r",
        },
        body,
    )
    await cluster.call("n2", "POST", MESSAGES, {"value": 1}, idempotency_key="own")
    assert cluster.peers.calls[1][1].headers["idempotency-key"] == "own"


async def test_d15_the_trace_of_a_call_goes_with_it_to_the_leader() -> None:
    cluster = await with_topic()
    await cluster.call("n2", "POST", MESSAGES, {"value": 1}, traceparent="00-1")
    ((_, sent),) = cluster.peers.calls
    assert sent.headers["traceparent"] == "00-1"


async def test_d2_an_answer_is_relayed_once_this_node_has_applied_it() -> None:
    cluster = await with_topic()
    follower = cluster.core("n2")
    follower.held = True
    write = asyncio.ensure_future(cluster.call("n2", "POST", MESSAGES, {"value": 1}))
    while cluster.core("n1").sequence() < 3:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not write.done()
    follower.catch_up()
    cluster.group.wake()
    assert (await write)[0] == 201


async def test_d2_an_answer_is_not_held_back_for_ever_and_names_its_own_sequence() -> None:
    cluster = await with_topic(deadline_s=0.2)
    cluster.core("n2").held = True
    status, _, headers = await cluster.call("n2", "POST", MESSAGES, {"value": 1})
    assert (status, headers["quorl-sequence"]) == (201, "3")


async def test_d2_a_forwarded_call_is_never_forwarded_again() -> None:
    cluster = await with_topic()
    for leader in ("n1", None):
        cluster.group.lead(leader)
        status, body, headers = await cluster.call("n2", "POST", MESSAGES, {"value": 1}, quorl_hops="1")
        assert (status, body["code"], headers["retry-after"]) == (503, "no_leader", "1")
    assert cluster.peers.calls == []


async def test_d2_a_leader_that_cannot_be_reached_is_given_up_for_the_next_one() -> None:
    cluster = await with_topic()

    async def die(peer: str, call: Call) -> Answer:
        asyncio.get_running_loop().call_soon(cluster.group.lead, "n2")
        raise PeerUnreachable(peer)

    cluster.peers.script = [die]
    assert (await cluster.call("n3", "POST", MESSAGES, {"value": 1}))[0] == 201
    assert [peer for peer, _ in cluster.peers.calls] == ["n1", "n2"]
    assert cluster.peers.calls[0][1] == cluster.peers.calls[1][1]


async def test_d2_the_node_that_comes_to_lead_itself_writes_itself() -> None:
    cluster = await with_topic()

    async def die(peer: str, call: Call) -> Answer:
        cluster.group.lead("n3")
        raise PeerUnreachable(peer)

    cluster.peers.script = [die]
    assert (await cluster.call("n3", "POST", MESSAGES, {"value": 1}))[0] == 201
    assert len(cluster.core("n3").submitted) == 1


@pytest.mark.parametrize(
    "lost", [AnswerLost("reset"), PeerLost("reset"), problem(504, "commit_unknown"), problem(502, "")]
)
async def test_d7_a_write_whose_answer_is_lost_is_repeated_under_its_key_and_happens_once(
    lost: Exception | Answer,
) -> None:
    cluster = await with_topic()
    cluster.peers.script = [lost]
    status, body, headers = await cluster.call("n2", "POST", MESSAGES, {"value": 1})
    assert (status, body["first_offset"]) == (201, 0)
    assert headers.get("idempotent-replay") == ("true" if isinstance(lost, AnswerLost) else None)
    assert len({call.headers["idempotency-key"] for _, call in cluster.peers.calls}) == 1
    assert len(cluster.peers.calls) == 2
    assert await messages(cluster) == 1


async def test_d7_a_leader_that_was_replaced_while_it_kept_silent_is_given_up() -> None:
    cluster = await with_topic()
    silent = asyncio.Event()

    async def hang(peer: str, call: Call) -> Answer:
        await cluster.peers.deliver(peer, call)
        silent.set()
        await asyncio.Event().wait()
        raise AssertionError

    cluster.peers.script = [hang]
    write = asyncio.ensure_future(cluster.call("n3", "POST", MESSAGES, {"value": 1}))
    await silent.wait()
    cluster.group.lead("n2")
    status, _, headers = await write
    assert (status, headers["idempotent-replay"], headers["quorl-leader"]) == (201, "true", "n2")
    assert await messages(cluster) == 1


async def test_a_leader_that_refuses_for_now_is_asked_again() -> None:
    cluster = await with_topic()
    cluster.peers.script = [problem(503, "shutting_down"), problem(503, "no_leader")]
    assert (await cluster.call("n2", "POST", MESSAGES, {"value": 1}))[0] == 201


async def test_d4_without_a_leader_the_answer_comes_soon_and_says_what_is_missing() -> None:
    cluster = await with_topic(deadline_s=60, leader_wait_s=0.05)
    cluster.group.lead(None)
    status, body, headers = await cluster.call("n2", "POST", MESSAGES, {"value": 1})
    assert (status, body["code"], headers["retry-after"], headers["quorl-leader"]) == (503, "no_quorum", "1", "")
    assert "n3 (time-out)" in body["detail"]
    assert body["retryable"]


async def test_d3_a_write_waits_for_the_election() -> None:
    cluster = await with_topic()
    cluster.group.lead(None)
    write = asyncio.ensure_future(cluster.call("n2", "POST", MESSAGES, {"value": 1}))
    await asyncio.sleep(0)
    cluster.group.lead("n3")
    assert (await write)[0] == 201


async def test_a_leader_that_is_never_reached_means_certainly_not_applied() -> None:
    cluster = await with_topic(deadline_s=0.3)
    del cluster.peers.gateways["n1"]
    status, body, _ = await cluster.call("n2", "POST", MESSAGES, {"value": 1})
    assert (status, body["code"]) == (503, "no_quorum")


async def test_d7_an_outcome_that_stays_unknown_is_said_to_be_with_the_key_to_repeat_it() -> None:
    cluster = await with_topic(deadline_s=0.3)
    cluster.peers.script = [PeerLost("time-out")] * 99
    status, body, headers = await cluster.call("n2", "POST", MESSAGES, {"value": 1})
    assert (status, body["code"], body["retryable"], headers["idempotency-key"]) == (
        504,
        "commit_unknown",
        True,
        "made-3",
    )
    assert "made-3" in body["detail"]


async def test_d7_what_comes_after_an_unknown_outcome_does_not_make_it_known() -> None:
    cluster = await with_topic(deadline_s=0.3)
    cluster.peers.script = [PeerLost("reset"), problem(429, "too_many_requests"), PeerUnreachable("refused")]
    cluster.peers.script += [problem(503, "no_leader")] * 99
    status, body, _ = await cluster.call("n2", "POST", MESSAGES, {"value": 1})
    assert (status, body["code"]) == (504, "commit_unknown")


async def test_d7_an_unknown_outcome_is_worth_waiting_for_a_leader_longer() -> None:
    cluster = await with_topic(deadline_s=2, leader_wait_s=0.01)

    async def vanish(peer: str, call: Call) -> Answer:
        cluster.group.lead(None)
        asyncio.get_running_loop().call_later(0.1, cluster.group.lead, "n3")
        raise PeerLost(peer)

    cluster.peers.script = [vanish]
    assert (await cluster.call("n2", "POST", MESSAGES, {"value": 1}))[0] == 201


async def test_a_peer_that_never_answers_is_cut_off_in_time() -> None:
    cluster = await with_topic(deadline_s=0.2)

    async def hang(peer: str, call: Call) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    cluster.peers.script = [hang] * 9
    assert (await cluster.call("n2", "POST", MESSAGES, {"value": 1}))[0] == 504


@pytest.mark.parametrize(
    ("status", "code"), [(429, "too_many_requests"), (507, "storage_full"), (404, "topic_not_found")]
)
async def test_d13_what_the_leader_refuses_is_relayed(status: int, code: str) -> None:
    cluster = await with_topic()
    cluster.peers.script = [problem(status, code)]
    found, body, headers = await cluster.call("n2", "POST", MESSAGES, {"value": 1})
    assert (found, body["code"], headers["retry-after"]) == (status, code, "1")


# -- at the leader -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("status", "code"), [(429, "too_many_requests"), (507, "storage_full")])
async def test_d13_a_leader_that_cannot_take_more_says_so(status: int, code: str) -> None:
    cluster = await with_topic()
    cluster.core("n1").script = [NotApplied(code, "full")]
    found, body, headers = await cluster.call("n1", "POST", MESSAGES, {"value": 1})
    assert (found, body["code"], body["detail"]) == (status, code, "full")
    assert ("retry-after" in headers) == (status == 429)


@pytest.mark.parametrize("code", ["no_leader", "shutting_down"])
async def test_a_leader_that_steps_down_goes_on_as_any_other_node(code: str) -> None:
    cluster = await with_topic()
    cluster.core("n1").script = [NotApplied(code, "no more")]
    asyncio.get_running_loop().call_later(0.01, cluster.group.lead, "n2")
    assert (await cluster.call("n1", "POST", MESSAGES, {"value": 1}))[0] == 201


async def test_d7_a_leader_repeats_an_unknown_outcome_under_the_same_key() -> None:
    cluster = await with_topic()
    cluster.core("n1").script = [OutcomeUnknown()]
    status, _, headers = await cluster.call("n1", "POST", MESSAGES, {"value": 1})
    assert (status, headers["idempotent-replay"]) == (201, "true")
    assert await messages(cluster) == 1


async def test_d7_a_full_queue_after_an_unknown_outcome_leaves_it_unknown() -> None:
    cluster = await with_topic(deadline_s=0.3)
    cluster.core("n1").script = [OutcomeUnknown(), *[NotApplied("too_many_requests", "full")] * 99]
    assert (await cluster.call("n1", "POST", MESSAGES, {"value": 1}))[0] == 504


async def test_d7_a_leader_that_lost_its_place_tells_the_forwarding_node_that_the_outcome_is_unknown() -> None:
    cluster = await with_topic()

    async def commit_and_step_down(peer: str, call: Call) -> Answer:
        cluster.core("n1").script = [OutcomeUnknown()]
        deposed = asyncio.ensure_future(cluster.peers.deliver(peer, call))
        while len(cluster.group.entries) < 3:
            await asyncio.sleep(0)
        cluster.group.lead(None)
        answer = await deposed
        assert (answer.status, msgspec.json.decode(answer.body)["code"]) == (504, "commit_unknown")
        cluster.group.lead("n3")
        return answer

    cluster.peers.script = [commit_and_step_down]
    status, _, headers = await cluster.call("n2", "POST", MESSAGES, {"value": 1})
    assert (status, headers["idempotent-replay"]) == (201, "true")


async def test_a_node_that_is_called_the_leader_but_does_not_serve_yet_waits() -> None:
    cluster = await with_topic()
    core = cluster.core("n1")
    core.leads = lambda: False  # type: ignore[method-assign]
    asyncio.get_running_loop().call_later(0.02, lambda: setattr(core, "leads", lambda: True))
    assert (await cluster.call("n1", "POST", MESSAGES, {"value": 1}))[0] == 201
    assert cluster.peers.calls == []


async def test_a_log_that_never_answers_is_cut_off_in_time() -> None:
    cluster = await with_topic(deadline_s=0.1)

    async def hang(sealed: Sealed, haste: Haste) -> None:
        await asyncio.Event().wait()

    cluster.core("n1").submit = hang  # type: ignore[assignment]
    status, body, headers = await cluster.call("n1", "POST", MESSAGES, {"value": 1}, idempotency_key="k")
    assert (status, body["code"], headers["idempotency-key"]) == (504, "commit_unknown", "k")


async def test_d7_a_repeat_gets_the_first_answer_and_another_request_under_the_key_is_refused() -> None:
    cluster = await with_topic()
    first = await cluster.call("n1", "POST", MESSAGES, {"value": 1}, idempotency_key="k")
    again = await cluster.call("n3", "POST", MESSAGES, {"value": 1}, idempotency_key="k")
    assert again[:2] == first[:2]
    assert "idempotent-replay" not in first[2]
    assert again[2]["idempotent-replay"] == "true"
    status, body, _ = await cluster.call("n2", "POST", MESSAGES, {"value": 2}, idempotency_key="k")
    assert (status, body["code"]) == (422, "idempotency_key_reused")
    assert await messages(cluster) == 1


async def test_a_refusal_of_the_machine_is_a_problem_that_says_where() -> None:
    cluster = await with_topic()
    status, body, headers = await cluster.call("n2", "POST", "/v1/topics/x%20y/messages", {"value": 1})
    assert (status, body["code"], body["type"]) == (404, "topic_not_found", "/problems/topic_not_found")
    assert (body["instance"], body["request_id"], body["node"]) == ("/v1/topics/x%20y/messages", "made-id", "n1")
    assert headers["content-type"] == "application/problem+json"


# -- consuming -----------------------------------------------------------------------------------------------------
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
