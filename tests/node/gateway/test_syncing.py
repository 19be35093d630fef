"""A worker's one call: heartbeats that are gathered, reports that take effect at once, claims that are waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.node.core import BEATS, PeerLost, PeerUnreachable
from quorl.cluster.node.gathering import decode_signs, encode_signs
from quorl.cluster.node.internal import Internal
from quorl.cluster.node.visit import Declined
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import SignOfLife
from quorl.cluster.protocol.grammar import Reply
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer, Call
from tests.node.fakecore import AnswerLost, Cluster
from tests.node.gateway.test_claims import now, parked, started, submit, tags
from tests.node.toystate import passing, turns


def sync(cluster: Cluster, node: str, body: object, worker_id: int = 1, **headers: str) -> asyncio.Task[Any]:
    return asyncio.ensure_future(cluster.call(node, "POST", f"/v1/workers/{worker_id}/sync", body, **headers))


async def leased(cluster: Cluster, count: int = 1) -> list[tuple[str, int]]:
    """Submit tasks and have the first worker claim them: ids and tokens."""
    await cluster.call("n1", "POST", "/v1/queues/q/tasks", {"tasks": [{"name": "x"}] * count})
    _, body, _ = await cluster.call("n1", "POST", "/v1/claims", {"worker_id": 1, "max": count, "number": 1})
    return [(task["id"], task["lease"]["token"]) for task in body["tasks"]]


async def status_of(cluster: Cluster, task_id: str) -> str:
    return str((await cluster.call("n1", "GET", f"/v1/tasks/{task_id}"))[1]["status"])


# -- heartbeats ----------------------------------------------------------------------------------------------------
async def test_heartbeats_at_a_follower_reach_the_state_together() -> None:
    cluster = await started("a", "b", deadline_s=10.0)
    began = now()
    beats = [
        sync(cluster, "n2", {"beat": {"tokens": [5], "claims": [2], "claimed": 3}}),
        sync(cluster, "n2", {"beat": {}}, worker_id=2),
    ]
    answers = [await one for one in beats]
    assert [(status, body) for status, body, _ in answers] == [
        (200, {"accepted": 0, "rejected": [], "tasks": [], "directives": body["directives"]}) for _, body, _ in answers
    ]
    assert now() - began == pytest.approx(1.0)
    ((peer, call),) = cluster.peers.calls
    assert (peer, call.path, call.method) == ("n1", BEATS, "POST")
    assert cluster.group.said()[-1].signs == (SignOfLife(1, (5,), (2,), 3), SignOfLife(2))
    assert answers[0][2]["quorl-sequence"] == str(len(cluster.group.entries))


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_b16_a_heartbeat_without_tokens_does_not_take_the_place_of_one_that_names_them(node: str) -> None:
    """Else a lease whose answer was lost would not go back with the heartbeat that was answered."""
    cluster = await started()
    both = [sync(cluster, node, {"beat": {"tokens": [5], "claimed": 3}}), sync(cluster, node, {"beat": {}})]
    assert [(await one)[0] for one in both] == [200, 200]
    assert cluster.group.said()[-1].signs == (SignOfLife(1, (5,), (), 3),)


async def test_a_heartbeat_at_the_leader_is_gathered_too() -> None:
    cluster = await started()
    assert (await sync(cluster, "n1", {"beat": {}}))[0] == 200
    assert (await sync(cluster, "n1", {}))[0] == 200  # to say nothing is a sign of life as well
    assert [entry.signs for entry in cluster.group.said()[1:]] == [(SignOfLife(1),)] * 2


async def test_what_a_call_reports_on_is_held_until_then() -> None:
    cluster = await started()
    four = await leased(cluster, 4)
    reports = [{"task_id": task_id, "lease": token} for task_id, token in four]
    said = dict(zip(("complete", "fail", "release", "progress"), ([one] for one in reports), strict=True))
    status, body, _ = await sync(cluster, "n2", {"beat": {"tokens": [99], "claimed": 1}, **said})
    assert (status, body["accepted"], body["rejected"]) == (200, 4, [])
    assert cluster.group.said()[-1].signs == (SignOfLife(1, (99, *(token for _, token in four)), (), 1),)


async def test_a_heartbeat_leaves_at_least_four_times_in_the_limit_of_its_worker() -> None:
    cluster = Cluster()
    await cluster.call("n1", "POST", "/v1/workers", {"name": "w", "heartbeat_ms": 100, "dead_after_ms": 400})
    began = now()
    assert (await sync(cluster, "n2", {"beat": {}}))[0] == 200
    assert now() - began == pytest.approx(0.1)


async def test_a_heartbeat_that_cannot_wait_takes_the_others_along() -> None:
    cluster = await started("slow")
    await cluster.call("n1", "POST", "/v1/workers", {"name": "quick", "heartbeat_ms": 100, "dead_after_ms": 400})
    began = now()
    slow = sync(cluster, "n2", {"beat": {}})
    await turns()
    assert (await sync(cluster, "n2", {"beat": {}}, worker_id=2))[0] == 200
    assert (await slow)[0] == 200
    assert now() - began == pytest.approx(0.1)
    assert len(cluster.peers.calls) == 1


async def test_a_caller_with_little_patience_is_answered_within_it() -> None:
    cluster = await started()
    began = now()
    assert (await sync(cluster, "n2", {"beat": {}}, quorl_timeout_ms="500"))[0] == 200
    assert now() - began < 0.45


async def test_a_heartbeat_that_does_not_get_through_is_tried_again_and_given_up_in_time() -> None:
    cluster = await started()
    cluster.peers.script = [PeerLost("reset"), PeerUnreachable("refused"), Answer(503, {}, b"{}")]
    assert (await sync(cluster, "n2", {"beat": {}}))[0] == 200
    began = now()
    cluster.peers.script = [PeerLost("reset")] * 9_999
    status, body, _ = await sync(cluster, "n2", {"beat": {}})
    assert (status, body["code"]) == (503, "not_ready")
    assert now() - began <= 7.5  # half of what the worker may be silent
    cluster.peers.script = []


async def test_a_heartbeat_waits_for_a_leader_and_no_longer_than_its_worker_can_be_silent() -> None:
    cluster = await started()
    cluster.group.lead(None)
    beat = sync(cluster, "n2", {"beat": {}})
    await passing(1.5)
    cluster.group.lead("n2")
    assert (await beat)[0] == 200
    assert cluster.group.said()[-1].signs == (SignOfLife(1),)
    cluster.group.lead(None)
    assert (await sync(cluster, "n2", {"beat": {}}))[0] == 503


async def test_a_leader_that_cannot_take_heartbeats_is_asked_again() -> None:
    cluster = await started()
    core = cluster.core("n1")
    careful, errors = core.sign, [NotApplied("no_leader", "no"), OutcomeUnknown()]

    async def unwilling(signs: Any) -> int:
        if errors:
            raise errors.pop()
        return await careful(signs)

    core.sign = unwilling  # type: ignore[method-assign]
    assert (await sync(cluster, "n1", {"beat": {}}))[0] == 200
    errors.append(OutcomeUnknown())
    assert (await sync(cluster, "n2", {"beat": {}}))[0] == 200


async def test_a_heartbeat_is_answered_when_this_node_has_applied_it() -> None:
    cluster = await started(deadline_s=10.0)
    cluster.core("n2").held = True
    beat = sync(cluster, "n2", {"beat": {}})
    await passing(2.0)
    assert not beat.done()
    cluster.core("n2").catch_up()
    cluster.group.wake()
    assert (await beat)[0] == 200


async def test_a_worker_that_registered_elsewhere_a_moment_ago_is_found() -> None:
    cluster = Cluster()
    cluster.core("n2").held = True
    await cluster.call("n1", "POST", "/v1/workers", {"name": "w"})
    beat = sync(cluster, "n2", {"beat": {}})
    await turns()
    cluster.core("n2").held = False
    cluster.core("n2").catch_up()
    cluster.group.wake()
    assert (await beat)[0] == 200


@pytest.mark.parametrize("body", [{"beat": {}}, {"claim": {"wait": 1}}, {"release": [{"task_id": "t", "lease": 1}]}])
async def test_who_is_not_alive_is_told_so(body: object) -> None:
    cluster = await started()
    status, told, _ = await sync(cluster, "n2", body, worker_id=9)
    assert (status, told["code"]) == (404, "worker_not_found")
    await cluster.call("n1", "DELETE", "/v1/workers/1")
    status, told, _ = await sync(cluster, "n2", body)
    assert (status, told["code"]) == (409, "worker_not_alive")


async def test_many_heartbeats_travel_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BEATS_BYTES_TARGET", 50)
    cluster = await started("a", "b", "c", "d", "e")
    beats = [sync(cluster, "n2", {"beat": {}}, worker_id=number) for number in range(1, 6)]
    assert [(await beat)[0] for beat in beats] == [200] * 5
    sizes = [len(decode_signs(call.body)) for _, call in cluster.peers.calls]
    assert sizes == [3, 2]


async def test_a_caller_who_goes_away_leaves_the_others_heartbeats_alone() -> None:
    cluster = await started("a", "b")
    gone, there = sync(cluster, "n2", {"beat": {}}), sync(cluster, "n2", {"beat": {}}, worker_id=2)
    await turns()
    gone.cancel()
    assert (await there)[0] == 200


async def test_a_node_that_stops_lets_its_heartbeats_leave_at_once_and_gives_up_what_does_not() -> None:
    cluster = await started(deadline_s=10.0)
    gateway = cluster.peers.gateways["n2"]
    began = now()
    beat = sync(cluster, "n2", {"beat": {}})
    await turns()
    gateway.drain()
    assert (await beat)[0] == 200
    assert now() == began
    gateway.drain()
    gateway = cluster.peers.gateways["n3"]
    beat = sync(cluster, "n3", {"beat": {}})
    cluster.group.lead(None)
    await passing(2.0)
    await gateway.close()
    assert gateway._gathering._under_way == set()
    beat.cancel()


async def test_heartbeats_from_node_to_node_are_read_with_care() -> None:
    cluster = await started()
    unused: Any = None
    door = Internal(cluster.core("n1"), unused, unused, unused, unused)
    assert (await door.handle(Call("POST", BEATS, "", {}, b"\xc1"))).status == 400
    done = await door.handle(Call("POST", BEATS, "", {}, encode_signs((SignOfLife(1),))))
    assert (done.status, done.body) == (200, b'{"sequence":2}')
    cluster.group.lead("n2")
    assert (await door.handle(Call("POST", BEATS, "", {}, encode_signs((SignOfLife(1),))))).status == 503


# -- reports and claims --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_reports_take_effect_at_once_and_only_the_claim_is_waited_for(node: str) -> None:
    cluster = await started()
    (one, token), (two, other), (three, last) = await leased(cluster, 3)
    body = {
        "beat": {"tokens": [token, other, last], "claims": [4], "claimed": 4},
        "complete": [{"task_id": one, "lease": token, "result": 9}],
        "fail": [{"task_id": two, "lease": 99}],
        "progress": [{"task_id": three, "lease": last, "progress": 50}],
        "claim": {"queues": ["q"], "max": 1, "wait": 5, "number": 4},
    }
    call = sync(cluster, node, body)
    await parked(cluster)
    assert await status_of(cluster, one) == "SUCCESS"
    assert not call.done()
    task_id = await submit(cluster)
    status, answer, headers = await call
    assert (status, answer["accepted"]) == (200, 2)
    assert answer["rejected"] == [{"task_id": two, "code": "lease_lost"}]
    assert [task["id"] for task in answer["tasks"]] == [task_id]
    assert headers["quorl-sequence"] == str(len(cluster.group.entries))
    assert tags(cluster)[-2:] == [["settle"], ["submit_batch", "claim"]]
    assert cluster.group.said()[-2].signs == (SignOfLife(1, (token, other, last, 99), (4,), 4),)


async def test_reports_alone_are_answered_at_once() -> None:
    cluster = await started()
    ((task_id, token),) = await leased(cluster)
    status, answer, _ = await sync(cluster, "n3", {"release": [{"task_id": task_id, "lease": token}]})
    assert (status, answer["accepted"], answer["tasks"]) == (200, 1, [])
    assert await status_of(cluster, task_id) == "QUEUED"


async def test_a_lost_answer_of_a_sync_repeated_under_its_key_is_the_same() -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    await submit(cluster)
    body = {"complete": [{"task_id": one, "lease": token}], "claim": {"wait": 5}}
    cluster.peers.script = [AnswerLost("n1 closed the connection")]
    status, answer, headers = await sync(cluster, "n2", body, idempotency_key="k")
    assert (status, answer["accepted"], len(answer["tasks"])) == (200, 1, 1)
    assert headers["idempotent-replay"] == "true"
    again = await sync(cluster, "n3", body, idempotency_key="k")
    assert again[:2] == (status, answer)
    body["complete"] = []
    status, answer, _ = await sync(cluster, "n3", {**body, "claim": {"wait": 5, "max": 7}}, idempotency_key="k")
    assert (status, answer["code"]) == (422, "idempotency_key_reused")


async def test_reports_under_a_key_that_other_reports_had_are_refused() -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    await sync(cluster, "n2", {"complete": [{"task_id": one, "lease": token}]}, idempotency_key="k")
    status, answer, _ = await sync(cluster, "n2", {"release": [{"task_id": one, "lease": token}]}, idempotency_key="k")
    assert (status, answer["code"]) == (422, "idempotency_key_reused")


async def test_a_sync_whose_leader_changes_after_the_reports_goes_on_at_the_next() -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    call = sync(cluster, "n2", {"complete": [{"task_id": one, "lease": token}], "claim": {"wait": 5}})
    await parked(cluster)
    cluster.group.lead("n3")
    await parked(cluster, 1, "n3")
    await submit(cluster)
    status, answer, headers = await call
    assert (status, answer["accepted"], len(answer["tasks"]), headers["idempotent-replay"]) == (200, 1, 1, "true")


async def test_reports_that_were_applied_are_never_said_not_to_be() -> None:
    """The reports are in the log; then there is no leader for the claim."""
    cluster = await started(deadline_s=0.5)
    ((one, token),) = await leased(cluster)
    body = {"complete": [{"task_id": one, "lease": token}], "claim": {"wait": 5}}
    call = sync(cluster, "n1", body, idempotency_key="k")
    await parked(cluster)
    cluster.group.lead(None)
    status, answer, headers = await call
    assert (status, answer["code"], headers["idempotency-key"]) == (504, "commit_unknown", "k")


@pytest.mark.parametrize("error", [NotApplied("storage_full", "full"), NotApplied("too_many_requests", "full")])
async def test_reports_that_are_not_taken_are_refused(error: NotApplied) -> None:
    cluster = await started()
    cluster.core("n1").script = [error]
    answer = (await sync(cluster, "n1", {"release": [{"task_id": "t", "lease": 1}]}))[1]
    assert answer["code"] == error.code


async def test_reports_of_which_no_outcome_is_known_are_made_again() -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    cluster.core("n1").script = [OutcomeUnknown()]
    status, answer, headers = await sync(cluster, "n1", {"complete": [{"task_id": one, "lease": token}]})
    assert (status, answer["accepted"], headers["idempotent-replay"]) == (200, 1, "true")


async def test_reports_and_a_claim_stand_in_one_entry_when_there_is_work() -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    two = await submit(cluster)
    before = len(cluster.group.entries)
    status, answer, headers = await sync(
        cluster, "n2", {"complete": [{"task_id": one, "lease": token}], "claim": {"wait": 5}}
    )
    assert (status, answer["accepted"], [task["id"] for task in answer["tasks"]]) == (200, 1, [two])
    assert tags(cluster)[before:] == [["settle", "claim"]]
    assert headers["quorl-sequence"] == str(before + 1)


async def test_a_claim_that_does_not_wait_finds_what_its_own_reports_made_claimable() -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    body = {"release": [{"task_id": one, "lease": token}], "claim": {"wait": 0}}
    status, answer, _ = await sync(cluster, "n1", body)
    assert (status, answer["accepted"], [task["id"] for task in answer["tasks"]]) == (200, 1, [one])
    (task,) = answer["tasks"]
    assert task["lease"]["token"] > token
    body = {"complete": [{"task_id": one, "lease": task["lease"]["token"]}], "claim": {"wait": 0}}
    assert (await sync(cluster, "n1", body))[1]["tasks"] == []


@pytest.mark.parametrize("error", [NotApplied("storage_full", "full"), NotApplied("too_many_requests", "full")])
async def test_reports_that_are_not_taken_are_refused_and_nothing_is_claimed_behind_them(error: NotApplied) -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    await submit(cluster)
    cluster.core("n1").script = [error]
    body = {"complete": [{"task_id": one, "lease": token}], "claim": {"wait": 5}}
    before = len(cluster.group.entries)
    _, answer, _ = await sync(cluster, "n1", body, idempotency_key="k")
    assert (answer["code"], len(cluster.group.entries)) == (error.code, before)
    again = await sync(cluster, "n1", body, idempotency_key="k")
    assert (again[0], again[1]["accepted"], len(again[1]["tasks"])) == (200, 1, 1)
    assert "idempotent-replay" not in again[2]


async def test_reports_without_an_outcome_are_made_again_and_so_is_the_claim_behind_them() -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    await submit(cluster)
    cluster.core("n1").script = [OutcomeUnknown()]
    body = {"complete": [{"task_id": one, "lease": token}], "claim": {"wait": 5}}
    status, answer, headers = await sync(cluster, "n1", body)
    assert (status, answer["accepted"], len(answer["tasks"]), headers["idempotent-replay"]) == (200, 1, 1, "true")


async def test_refused_reports_claim_nothing() -> None:
    cluster = await started()
    await submit(cluster)
    body = {"complete": [{"task_id": "t", "lease": 1}], "claim": {"wait": 5}}
    status, answer, _ = await sync(cluster, "n2", body, worker_id=99)
    assert (status, answer["code"]) == (404, "worker_not_found")


async def test_who_goes_away_after_his_reports_is_granted_nothing() -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    call = sync(cluster, "n1", {"complete": [{"task_id": one, "lease": token}], "claim": {"wait": 5}})
    await parked(cluster)
    call.cancel()
    await asyncio.wait([call])
    await asyncio.sleep(0)
    assert await status_of(cluster, one) == "SUCCESS"
    assert await status_of(cluster, await submit(cluster)) == "QUEUED"


# -- directives ----------------------------------------------------------------------------------------------------
async def test_a_worker_that_waits_for_tasks_is_told_at_once_what_it_is_to_do() -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    call = sync(cluster, "n2", {"beat": {"tokens": [token]}, "claim": {"wait": 7}})
    await parked(cluster)
    began = now()
    await cluster.call("n3", "POST", f"/v1/tasks/{one}/cancel")
    status, answer, _ = await call
    assert (status, answer["directives"]["cancel"], answer["tasks"]) == (200, [one], [])
    assert now() == began
    call = sync(cluster, "n2", {"beat": {"tokens": [token]}, "claim": {"wait": 7}})
    assert (await call)[1]["directives"]["cancel"] == [one]
    assert now() - began == pytest.approx(1.0)  # it may not know yet, and it may


async def test_a_heartbeat_is_answered_with_what_its_worker_is_to_do() -> None:
    cluster = await started()
    await cluster.call("n3", "POST", "/v1/workers/1/quiet")
    await cluster.call("n3", "POST", "/v1/workers/1/terminate")
    directives = (await sync(cluster, "n2", {"beat": {}}))[1]["directives"]
    assert (directives["quiet"], directives["terminate"]) == (True, True)


async def test_a_lease_whose_answer_was_lost_goes_back_with_the_next_heartbeat() -> None:
    cluster = await started()
    ((one, token),) = await leased(cluster)
    assert msgspec.json.encode(token)
    answer = (await sync(cluster, "n2", {"beat": {"tokens": [], "claims": [], "claimed": 1}}))[1]
    assert answer["accepted"] == 0
    assert await status_of(cluster, one) == "QUEUED"


@pytest.mark.parametrize("asks", ["reports", "claims", "both"])
async def test_a4_what_took_effect_is_never_told_not_to_have_where_its_answer_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    """The node has stopped itself in between; a repeat under the same key is told what came of it."""
    cluster = await started()
    ((task_id, token),) = await leased(cluster)
    body: dict[str, object] = {}
    if asks != "claims":
        body["complete"] = [{"task_id": task_id, "lease": token, "result": 1}]
    if asks != "reports":
        await submit(cluster)
        body["claim"] = {"max": 1}

    async def read(_: object) -> Reply:
        raise Declined(Problem("shutting_down", "n1 is shutting down."))

    with monkeypatch.context() as stopped:
        stopped.setattr(cluster.core("n1"), "read", read)
        status, told, headers = await sync(cluster, "n1", body, idempotency_key="k")
    assert (status, told["code"], headers["idempotency-key"]) == (504, "commit_unknown", "k")
    status, told, _ = await sync(cluster, "n1", body, idempotency_key="k")
    assert (status, told["accepted"], len(told["tasks"])) == (200, asks != "claims", asks != "reports")
