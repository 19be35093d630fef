"""Claims that are made at the same time: one call, and each is told its own, waits its own time, and may go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from quorl.client import AsyncClient
from quorl.client import errors as er
from quorl.client.aio_transport import AsyncTransport
from quorl.client.batching import Part
from quorl.client.flow import Failure, Send
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import wire
from quorl.cluster.protocol.grammar import Request
from quorl.cluster.protocol.operations import BY_REQUEST
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer


class Leader(AsyncTransport):
    """Calls that wait until the test answers them."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.keys: list[str] = []
        self.broken_off: list[Any] = []
        self._answers: list[asyncio.Future[Answer | Failure]] = []
        self._moved = asyncio.Condition()

    @override
    async def send(self, send: Send) -> Answer | Failure:
        _, request, _ = wire.decode(send.call)
        self.calls.append(request)
        self.keys.append(send.call.headers["idempotency-key"])
        answer: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        await self._move()
        try:
            return await answer
        except asyncio.CancelledError:
            self.broken_off.append(request)
            await self._move()
            raise

    async def _move(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def until(self, so: Callable[[], object]) -> None:
        """Wait until something is so; each call is an occasion to look."""
        async with self._moved:
            await self._moved.wait_for(so)

    def answer(self, number: int, reply: Any) -> None:
        """Answer a call, which is counted from 0."""
        if not isinstance(reply, Failure):
            reply = wire.answer_reply(BY_REQUEST[type(self.calls[number])], reply)
        self._answers[number].set_result(reply)

    def refuse(self, number: int, code: str) -> None:
        answer = wire.answer_problem(Problem(code, ""), instance="/", request_id="", node="n1", leader=None)
        self._answers[number].set_result(answer)

    async def asked(self, count: int) -> None:
        """Wait until there were so many calls."""
        await self.until(lambda: len(self.calls) >= count)

    @override
    def leave_behind(self) -> None:
        pass

    @override
    async def close(self) -> None:
        pass


@pytest.fixture
def leader() -> Leader:
    return Leader()


@pytest.fixture
async def client(leader: Leader) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(["http://n1"], transport=leader) as client:
        yield client


def task(task_id: str, token: int = 1) -> e.ClaimedTask:
    none = msgspec.Raw(b"null")
    return e.ClaimedTask(
        id=task_id,
        name="t",
        args=msgspec.Raw(b"[]"),
        kwargs=msgspec.Raw(b"{}"),
        attempt=1,
        max_attempts=3,
        lease=e.Lease(token=token, expires_in_ms=1000),
        queue="q",
        partition=None,
        priority=5,
        timeout_ms=None,
        checkpoint=none,
        meta={},
        traceparent=None,
    )


def claiming(client: AsyncClient, worker_id: int, wait: float = 5, most: int = 1) -> asyncio.Task[e.Claims]:
    return asyncio.ensure_future(client.claim(e.Claim(worker_id=worker_id, wait=wait, max=most)))


def workers(request: Request[Any]) -> list[int]:
    if isinstance(request, e.Claim):
        return [request.worker_id]
    assert isinstance(request, g.ClaimMany)
    return [one.worker_id for one in request.claims]


def came(*items: g.ClaimedBy) -> g.ClaimedMany:
    return g.ClaimedMany(items=list(items))


def got(task_id: str, token: int = 1) -> g.ClaimedBy:
    return g.ClaimedBy(tasks=[task(task_id, token)])


NOTHING = g.ClaimedBy()


async def test_claims_of_one_turn_travel_together_and_each_is_told_its_own(client: AsyncClient, leader: Leader) -> None:
    claims = [claiming(client, worker_id) for worker_id in (1, 2, 3)]
    await leader.asked(1)
    refused = g.ClaimedBy(code="worker_not_alive", detail="it is dead")
    leader.answer(0, came(got("a"), refused, g.ClaimedBy(drained=True)))
    assert [one.id for one in (await claims[0]).tasks] == ["a"]
    with pytest.raises(er.WorkerNotAlive, match="it is dead"):
        await claims[1]
    assert await claims[2] == e.Claims(drained=True)
    assert [workers(call) for call in leader.calls] == [[1, 2, 3]]


async def test_a_claim_that_is_alone_is_the_plain_call(client: AsyncClient, leader: Leader) -> None:
    claim = claiming(client, 1)
    await leader.asked(1)
    assert isinstance(leader.calls[0], e.Claim)
    leader.answer(0, e.Claims())
    assert await claim == e.Claims()


async def test_claims_that_came_to_nothing_fly_again_with_the_time_that_is_left(
    client: AsyncClient, leader: Leader
) -> None:
    claims = [claiming(client, 1), claiming(client, 2, wait=60), claiming(client, 3, wait=60), claiming(client, 4)]
    await leader.asked(1)
    leader.answer(0, came(got("a"), NOTHING, NOTHING, got("d", 4)))
    await claims[0]
    await leader.asked(2)
    assert workers(leader.calls[1]) == [2, 3]
    assert 5 >= leader.calls[0].wait > 0
    assert 60 > leader.calls[1].wait > 50
    assert leader.keys[0] != leader.keys[1]
    leader.answer(1, came(NOTHING, got("b")))
    await leader.asked(3)
    assert workers(leader.calls[2]) == [2]
    leader.answer(2, e.Claims(tasks=[task("c")]))
    assert [[one.id for one in (await claim).tasks] for claim in claims] == [["a"], ["c"], ["b"], ["d"]]


async def test_where_few_came_to_something_the_others_wait_each_by_itself(client: AsyncClient, leader: Leader) -> None:
    claims = [claiming(client, 1), claiming(client, 2), claiming(client, 3)]
    await leader.asked(1)
    leader.answer(0, came(NOTHING, got("a"), NOTHING))
    await leader.asked(3)
    assert [workers(call) for call in leader.calls] == [[1, 2, 3], [1], [3]]
    leader.answer(2, e.Claims(tasks=[task("b")]))
    leader.answer(1, e.Claims())
    assert [len((await claim).tasks) for claim in claims] == [0, 1, 1]


async def test_a_claim_does_not_wait_behind_one_that_is_parked(client: AsyncClient, leader: Leader) -> None:
    parked = claiming(client, 1)
    await leader.asked(1)
    other = claiming(client, 2)
    await leader.asked(2)
    leader.answer(1, e.Claims(tasks=[task("a")]))
    assert len((await other).tasks) == 1
    assert not parked.done()
    leader.answer(0, e.Claims())
    await parked


async def test_no_task_is_said_only_when_nobody_got_any_and_the_time_is_over(
    client: AsyncClient, leader: Leader
) -> None:
    claims = [claiming(client, number, wait=0) for number in (1, 2, 3, 4)]
    await leader.asked(1)
    assert leader.calls[0].wait == 0
    leader.answer(0, came(got("a"), NOTHING, NOTHING, got("d", 4)))
    await leader.asked(2)
    assert (workers(leader.calls[1]), leader.calls[1].wait) == ([2, 3], 0)
    leader.answer(1, came(NOTHING, NOTHING))
    assert [len((await claim).tasks) for claim in claims] == [1, 0, 0, 1]


async def test_who_wants_much_flies_alone(client: AsyncClient, leader: Leader) -> None:
    claims = [claiming(client, 1), claiming(client, 2, most=1000), claiming(client, 3)]
    await leader.asked(3)
    assert [workers(call) for call in leader.calls] == [[1], [2], [3]]
    for number in range(3):
        leader.answer(number, e.Claims())
    await asyncio.gather(*claims)


async def test_a_refusal_of_all_sends_each_alone_and_at_once(client: AsyncClient, leader: Leader) -> None:
    claims = [claiming(client, 1), claiming(client, 2)]
    await leader.asked(1)
    leader.refuse(0, "route_not_found")
    await leader.asked(3)
    assert [workers(call) for call in leader.calls[1:]] == [[1], [2]]
    leader.answer(2, e.Claims(tasks=[task("b")]))
    leader.answer(1, e.Claims())
    assert [len((await claim).tasks) for claim in claims] == [0, 1]


async def test_d7_a_lost_answer_is_asked_for_again_under_its_key(client: AsyncClient, leader: Leader) -> None:
    claims = [claiming(client, 1), claiming(client, 2)]
    await leader.asked(1)
    leader.answer(0, Failure("lost", "connection lost"))
    await leader.asked(2)
    assert leader.calls[0] == leader.calls[1]
    assert leader.keys[0] == leader.keys[1]
    leader.answer(1, came(got("a"), got("b", 2)))
    assert [[one.id for one in (await claim).tasks] for claim in claims] == [["a"], ["b"]]


async def test_a_call_whose_callers_have_all_gone_is_broken_off(client: AsyncClient, leader: Leader) -> None:
    claims = [claiming(client, 1), claiming(client, 2)]
    await leader.asked(1)
    claims[0].cancel()
    await asyncio.gather(claims[0], return_exceptions=True)
    assert not leader.broken_off
    claims[1].cancel()
    await asyncio.gather(claims[1], return_exceptions=True)
    await leader.until(lambda: leader.broken_off == leader.calls)


async def test_what_was_granted_to_a_caller_who_has_gone_is_given_back(client: AsyncClient, leader: Leader) -> None:
    gone, here = claiming(client, 1), claiming(client, 2)
    await leader.asked(1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    leader.answer(0, came(got("a", 7), got("b", 8)))
    assert len((await here).tasks) == 1
    await leader.asked(2)
    assert leader.calls[1] == e.ReleaseTask(id="a", lease=7)
    leader.answer(1, k.TaskStatus(id="a", status="QUEUED", attempts=0))


async def test_who_goes_in_the_turn_in_which_the_answer_comes_gives_it_back(
    client: AsyncClient, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claiming(client, 1)
    resolve = Part.resolve

    def resolve_and_go(part: Part[Any, Any], outcome: Any) -> None:
        resolve(part, outcome)
        if len(leader.calls) == 1:
            claim.cancel()

    monkeypatch.setattr(Part, "resolve", resolve_and_go)
    await leader.asked(1)
    leader.answer(0, e.Claims(tasks=[task("a", 7)]))
    await asyncio.gather(claim, return_exceptions=True)
    assert claim.cancelled()
    async with asyncio.timeout(5):
        await leader.asked(2)
    assert leader.calls[1] == e.ReleaseTask(id="a", lease=7)
    leader.answer(1, k.TaskStatus(id="a", status="QUEUED", attempts=0))


async def test_closing_tells_those_who_claim(leader: Leader) -> None:
    client = AsyncClient(["http://n1"], transport=leader)
    flying = claiming(client, 1)
    await leader.asked(1)
    waiting = claiming(client, 2)
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(er.OutcomeUnknown):
        await flying
    with pytest.raises(er.Unavailable):
        await waiting
    with pytest.raises(er.Unavailable):
        await client.claim(e.Claim(worker_id=1))


async def test_an_answer_with_another_number_of_claims_is_unknown(client: AsyncClient, leader: Leader) -> None:
    claims = [claiming(client, 1), claiming(client, 2)]
    await leader.asked(1)
    leader.answer(0, came(got("a")))
    for claim in claims:
        with pytest.raises(er.OutcomeUnknown):
            await claim
