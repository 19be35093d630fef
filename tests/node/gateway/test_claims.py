"""Claims and waits for tasks through the gateway, at any node."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.node.core import PeerLost
from quorl.cluster.node.gateway import Gateway
from quorl.cluster.protocol.queues import Defaults
from quorl.cluster.protocol.wire import Answer, Call
from tests.node.fakecore import AnswerLost, Cluster
from tests.node.toystate import passing, turns

TASKS = "/v1/queues/q/tasks"


async def started(*workers: str, **times: float) -> Cluster:
    """A cluster with workers, whose ids count from 1."""
    cluster = Cluster(**times)
    for name in workers or ("w",):
        assert (await cluster.call("n1", "POST", "/v1/workers", {"name": name, "queues": ["q"]}))[0] == 201
    return cluster


def now() -> float:
    return asyncio.get_running_loop().time()


def claim(cluster: Cluster, node: str = "n2", worker_id: int = 1, **more: Any) -> asyncio.Task[Any]:
    headers = {name: more.pop(name) for name in list(more) if name in {"idempotency_key", "quorl_timeout_ms"}}
    body = {"worker_id": worker_id, "wait": 5, **more}
    return asyncio.ensure_future(cluster.call(node, "POST", "/v1/claims", body, **headers))


async def parked(cluster: Cluster, count: int = 1, node: str = "n1") -> None:
    """Wait until so many claims are parked at a node."""
    places = cluster.core(node).parking._workers
    while sum(map(len, places.values())) < count:
        await passing(0.0001)


async def submit(cluster: Cluster, node: str = "n3", **task: Any) -> str:
    status, body, _ = await cluster.call(node, "POST", TASKS, {"name": "x", **task})
    assert status == 201
    return str(body["id"])


def tags(cluster: Cluster) -> list[list[str]]:
    """What each entry held."""
    return [[msgspec.msgpack.decode(one.command)["op"] for one in entry.commands] for entry in cluster.group.said()]


# -- claims --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_a_task_that_comes_is_leased_in_its_own_entry(node: str) -> None:
    cluster = await started()
    waiting = claim(cluster, node)
    await parked(cluster)
    task_id = await submit(cluster, args=[1])
    status, body, headers = await waiting
    (task,) = body["tasks"]
    assert (status, task["id"], task["args"], task["attempt"]) == (200, task_id, [1], 1)
    assert task["lease"] == {"token": 1, "expires_in_ms": 15_000}
    assert tags(cluster)[-1] == ["submit_batch", "claim"]
    assert (headers["quorl-sequence"], headers["served-by"]) == ("2", node)


async def test_a_claim_without_wait_that_finds_nothing_is_answered_by_a_leader_and_writes_nothing() -> None:
    cluster = await started()
    assert (await cluster_claim_raw(cluster, {"worker_id": 1}))[0] == 204
    assert (cluster.core("n1").barriers, len(cluster.group.entries)) == (1, 1)
    await passing(1.1)
    (sign,) = cluster.group.said()[-1].signs  # to have asked was a sign of life
    assert (sign.worker_id, tags(cluster)[1:]) == (1, [[]])


async def cluster_claim_raw(cluster: Cluster, body: object, node: str = "n1") -> tuple[int, bytes, dict[str, str]]:
    """A claim whose answer may have no body."""
    answer = await cluster.peers.gateways[node].handle(Call("POST", "/v1/claims", "", {}, msgspec.json.encode(body)))
    return answer.status, answer.body, answer.headers


async def test_a_wait_that_brings_nothing_ends_in_time_and_no_later_than_half_of_the_limit() -> None:
    cluster = await started()
    began = now()
    assert (await cluster_claim_raw(cluster, {"worker_id": 1, "wait": 3}, "n2"))[:2] == (204, b"")
    assert now() - began == pytest.approx(3.0)
    assert (await cluster_claim_raw(cluster, {"worker_id": 1, "wait": 60}, "n2"))[0] == 204
    assert now() - began == pytest.approx(3.0 + 7.5)
    assert ["claim"] not in tags(cluster)


async def test_a_claim_of_nobody_is_refused_at_once() -> None:
    cluster = await started()
    status, body, _ = await claim(cluster, worker_id=9)
    assert (status, body["code"]) == (404, "worker_not_found")
    await cluster.call("n1", "DELETE", "/v1/workers/1")
    status, body, _ = await claim(cluster)
    assert (status, body["code"]) == (409, "worker_not_alive")


async def test_a_worker_that_leaves_while_it_waits_is_told() -> None:
    cluster = await started()
    waiting = claim(cluster)
    await parked(cluster)
    await cluster.call("n3", "DELETE", "/v1/workers/1")
    status, body, _ = await waiting
    assert (status, body["code"]) == (409, "worker_not_alive")


@pytest.mark.parametrize("wait", [0, 5])
async def test_a_lost_answer_repeated_under_its_key_gives_the_same_tokens(wait: float) -> None:
    cluster = await started()
    await submit(cluster)
    cluster.peers.script = [AnswerLost("n1 closed the connection")]
    status, body, headers = await claim(cluster, wait=wait, idempotency_key="k")
    assert (status, headers["idempotent-replay"]) == (200, "true")
    again = await claim(cluster, "n3", wait=wait, idempotency_key="k")
    assert (again[1]["tasks"], again[2]["idempotent-replay"]) == (body["tasks"], "true")
    status, body, _ = await claim(cluster, "n3", wait=wait, max=7, idempotency_key="k")
    assert (status, body["code"]) == (422, "idempotency_key_reused")


async def test_a_claim_goes_to_the_new_leader_when_its_own_loses_the_lead() -> None:
    cluster = await started()
    at_leader, at_follower = claim(cluster, "n1", idempotency_key="a"), claim(cluster, "n2", idempotency_key="b")
    await parked(cluster, 2)
    cluster.group.lead("n3")
    await parked(cluster, 2, "n3")
    assert cluster.core("n1").parking._workers == {}
    await submit(cluster, "n2")
    await submit(cluster, "n2")
    tokens = [task["lease"]["token"] for one in (at_leader, at_follower) for task in (await one)[1]["tasks"]]
    assert sorted(tokens) == [1, 2]


async def test_a_leader_that_is_not_there_for_a_moment_costs_a_claim_nothing() -> None:
    cluster = await started()
    waiting = claim(cluster, "n2")
    await parked(cluster)
    cluster.group.lead(None)
    await turns(20)
    cluster.group.lead("n1")
    await parked(cluster)
    await submit(cluster)
    assert (await waiting)[0] == 200


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_a_caller_who_has_gone_is_never_granted_a_task(node: str) -> None:
    cluster = await started()
    waiting = claim(cluster, node)
    await parked(cluster)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await turns()
    assert cluster.core("n1").parking._workers == {}
    task_id = await submit(cluster)
    _, task, _ = await cluster.call("n1", "GET", f"/v1/tasks/{task_id}")
    assert task["status"] == "QUEUED"
    assert [gateway.running for gateway in cluster.peers.gateways.values()] == [0, 0, 0]


async def test_c1_tasks_are_spread_evenly_over_three_workers_that_wait() -> None:
    cluster = await started("a", "b", "c")
    claims = [claim(cluster, node, number, max=300) for number, node in ((1, "n1"), (2, "n2"), (3, "n3"))]
    await parked(cluster, 3)
    await cluster.call("n2", "POST", TASKS, {"tasks": [{"name": "x"}] * 300})
    assert [len((await one)[1]["tasks"]) for one in claims] == [100, 100, 100]


async def test_an_outcome_that_is_unknown_is_asked_for_again_under_the_same_key() -> None:
    cluster = await started()
    await submit(cluster)
    core = cluster.core("n1")
    careful, lost = core.claim, [OutcomeUnknown()]

    async def lossy(*args: Any) -> Any:
        decided = await careful(*args)
        if lost:
            raise lost.pop()
        return decided

    core.claim = lossy  # type: ignore[assignment]
    status, body, headers = await claim(cluster, "n1")
    assert (status, len(body["tasks"]), headers["idempotent-replay"]) == (200, 1, "true")


async def test_d13_a_leader_that_takes_no_more_says_so() -> None:
    cluster = await started()

    async def full(*_args: Any) -> Any:
        raise NotApplied("too_many_requests", "full")

    cluster.core("n1").claim = full  # type: ignore[assignment]
    assert (await claim(cluster, "n1"))[0] == 429


async def test_an_outcome_that_stays_unknown_is_said_to_be() -> None:
    cluster = await started(deadline_s=0.3)
    cluster.peers.script = [PeerLost("reset")] * 99
    status, body, headers = await claim(cluster, "n2", wait=0, idempotency_key="k")
    assert (status, body["code"], headers["idempotency-key"]) == (504, "commit_unknown", "k")


async def test_draining_ends_the_claims_that_wait() -> None:
    cluster = await started()
    waiting = asyncio.ensure_future(cluster_claim_raw(cluster, {"worker_id": 1, "wait": 30}, "n2"))
    await parked(cluster)
    cluster.core("n1").parking.drain()
    assert (await waiting)[0] == 204


async def test_what_is_due_by_itself_is_claimed_in_the_entry_that_makes_it_so() -> None:
    cluster = await started()
    await submit(cluster, delay_ms=60_000)
    waiting = claim(cluster, "n2")
    await parked(cluster)
    cluster.group.passed_ms += 60_000
    await cluster.core("n1").committer.barrier()
    assert len((await waiting)[1]["tasks"]) == 1
    assert tags(cluster)[-1] == ["claim"]


# -- waiting for results -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("what", ["", "/result"])
async def test_c4_a_result_reaches_a_client_that_waits_at_another_node(what: str) -> None:
    cluster = await started()
    task_id = await submit(cluster)
    reading = asyncio.ensure_future(cluster.call("n3", "GET", f"/v1/tasks/{task_id}{what}?wait=30"))
    _, body, _ = await claim(cluster)
    await turns()
    assert not reading.done()  # that it runs is no result
    began = now()
    lease = body["tasks"][0]["lease"]["token"]
    await cluster.call("n2", "POST", f"/v1/tasks/{task_id}/complete", {"lease": lease, "result": [9]})
    status, body, headers = await reading
    assert (status, body["status"], body["result"], headers["served-by"]) == (200, "SUCCESS", [9], "n3")
    assert now() == began
    assert cluster.core("n1").barriers == 1


async def test_a_result_that_does_not_come_is_202_when_the_wait_is_over() -> None:
    cluster = await started()
    task_id = await submit(cluster)
    began = now()
    status, body, headers = await cluster.call("n2", "GET", f"/v1/tasks/{task_id}/result?wait=2")
    assert (status, body["status"], headers["retry-after"]) == (202, "QUEUED", "1")
    assert now() - began == pytest.approx(2.0)
    status, body, _ = await cluster.call("n2", "GET", "/v1/tasks/nobody/result?wait=2")
    assert (status, body["code"]) == (404, "task_not_found")
    assert now() - began == pytest.approx(2.0)


async def test_a_task_that_is_cancelled_is_finished() -> None:
    cluster = await started()
    task_id = await submit(cluster)
    reading = asyncio.ensure_future(cluster.call("n3", "GET", f"/v1/tasks/{task_id}?wait=30"))
    await turns()
    await cluster.call("n1", "POST", f"/v1/tasks/{task_id}/cancel")
    status, body, _ = await reading
    assert (status, body["status"]) == (200, "CANCELLED")


# -- settings ------------------------------------------------------------------------------------------------------
async def test_what_a_node_is_configured_with_holds_for_what_is_made_through_the_leader() -> None:
    cluster = await started()
    made = Defaults(attempts=7, heartbeat_ms=1_000, dead_after_ms=4_000)
    cluster.peers.gateways["n1"] = Gateway(
        cluster.core("n1"), cluster.peers, cluster._key, lambda: "made-id", defaults=made
    )
    _, worker, _ = await cluster.call("n2", "POST", "/v1/workers", {"name": "new", "queues": ["q"]})
    assert (worker["heartbeat_ms"], worker["dead_after_ms"]) == (1_000, 4_000)
    await cluster.call("n2", "PUT", "/v1/queues/put")
    await cluster.call("n2", "POST", "/v1/queues/made/tasks", {"name": "x"})
    for queue in ("put", "made"):
        assert (await cluster.call("n3", "GET", f"/v1/queues/{queue}"))[1]["default_attempts"] == 7


async def test_a_repeat_is_the_same_request_also_at_a_node_that_is_configured_otherwise() -> None:
    cluster = await started()
    first = await cluster.call("n1", "POST", TASKS, {"name": "x"}, idempotency_key="k")
    cluster.peers.gateways["n1"] = Gateway(
        cluster.core("n1"), cluster.peers, cluster._key, lambda: "made-id", defaults=Defaults(attempts=9)
    )
    again = await cluster.call("n1", "POST", TASKS, {"name": "x"}, idempotency_key="k")
    assert (again[0], again[1], again[2]["idempotent-replay"]) == (201, first[1], "true")


async def test_a_wait_is_no_longer_than_the_caller_waits() -> None:
    cluster = await started(deadline_s=10.0)
    began = now()
    answer: Answer = await cluster.peers.gateways["n2"].handle(
        Call("POST", "/v1/claims", "", {"quorl-timeout-ms": "4000"}, b'{"worker_id":1,"wait":60}')
    )
    assert answer.status == 204
    assert now() - began == pytest.approx(2.7)


# -- several claims in one call --------------------------------------------------------------------------------------
def claim_many(cluster: Cluster, *workers: int, node: str = "n2", **more: Any) -> asyncio.Task[Any]:
    body = {"claims": [{"worker_id": worker_id} for worker_id in workers], "wait": 5, **more}
    return asyncio.ensure_future(cluster.call(node, "POST", "/v1/claims/batch", body))


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_claims_of_several_workers_are_answered_in_one_entry_with_their_tasks(node: str) -> None:
    cluster = await started("a", "b", "c")
    waiting = claim_many(cluster, 1, 2, 3, node=node)
    await parked(cluster, 3)
    tasks = [{"name": "x"}, {"name": "y"}]
    status, made, _ = await cluster.call("n3", "POST", TASKS, {"tasks": tasks})
    assert status == 201
    status, body, headers = await waiting
    assert status == 200
    assert [[task["id"] for task in one.get("tasks", ())] for one in body["items"]] == [
        [made["items"][0]["id"]],
        [made["items"][1]["id"]],
        [],
    ]
    assert tags(cluster)[-1] == ["submit_batch", "claim_batch"]
    assert headers["served-by"] == node


async def test_claims_of_several_that_find_nothing_say_so_in_time() -> None:
    cluster = await started("a", "b")
    began = now()
    assert (await claim_many(cluster, 1, 2, wait=0))[:2] == (200, {"items": [{}, {}]})
    assert (await claim_many(cluster, 1, 2, wait=3))[:2] == (200, {"items": [{}, {}]})
    assert now() - began == pytest.approx(3.0)
    assert ["claim_batch"] not in tags(cluster)


async def test_a_claim_of_nobody_among_several_is_refused_for_itself() -> None:
    cluster = await started("a")
    task_id = await submit(cluster)
    status, body, _ = await claim_many(cluster, 9, 1)
    assert status == 200
    refused, served = body["items"]
    assert (refused["code"], bool(refused["detail"])) == ("worker_not_found", True)
    assert [task["id"] for task in served["tasks"]] == [task_id]
