"""Writes through the gateway: forwarded, repeated under one key, and answered truthfully."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.node.patience import Haste
from quorl.cluster.protocol.entry import Sealed
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer, Call
from tests.node.fakecore import AnswerLost, Cluster
from tests.node.gateway.topic import MESSAGES, TOPIC, with_topic


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


@pytest.mark.parametrize(
    ("asked", "detail", "hint"),
    [
        ("n2", "n1 leads, as far as n2 knows, but gives it no answer.", "See whether n1 hangs, or the disks"),
        ("n1", "n1 leads, but could not have it stored by a majority in time.", "An election is under way"),
    ],
)
async def test_d4_a_leader_that_is_known_is_not_said_to_be_missing(asked: str, detail: str, hint: str) -> None:
    cluster = await with_topic(deadline_s=0.2)
    cluster.core(asked).why_not = Problem("no_leader", f"{asked} knows of no leader at the moment.")
    cluster.core("n1").script = [NotApplied("no_leader", "not yet")] * 99
    cluster.peers.script = [PeerUnreachable("refused")] * 99
    status, body, _ = await cluster.call(asked, "POST", MESSAGES, {"value": 1})
    assert (status, body["code"], body["detail"]) == (503, "no_leader", detail)
    assert body["hint"].startswith(hint)


async def test_d4_a_leader_that_answers_that_it_cannot_is_not_said_to_give_no_answer() -> None:
    cluster = await with_topic(deadline_s=0.2)
    cluster.core("n2").why_not = Problem("no_leader", "n2 knows of no leader at the moment.")
    cluster.peers.script = [problem(503, "not_ready")] * 99
    status, body, _ = await cluster.call("n2", "POST", MESSAGES, {"value": 1})
    assert (status, body["code"]) == (503, "no_leader")
    assert body["detail"] == "n1 leads, as far as n2 knows, and answers, but could not see to it."
    assert body["hint"].startswith("The log of n1 says")


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
