"""Flights of the asyncio client that need no task: when they leave, who is told, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from typing_extensions import override

from quorl.channel import Lost, NotSent, Outcome
from quorl.client import AsyncClient, Invalid, OutcomeUnknown, TopicNotFound, Unavailable
from quorl.client.aio_flights import Fleet, Flight
from quorl.client.aio_transport import AsyncTransport, Leave
from quorl.client.flow import Failure, Plan, Send, Sleep
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import wire
from quorl.cluster.protocol.operations import BY_REQUEST
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer


class Open(AsyncTransport):
    """A channel that is open: calls leave at once, and wait until the test answers them."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.keys: list[str] = []
        self.left: list[int] = []
        self.slowly: list[Send] = []
        self.waited = asyncio.Event()
        self.open = True
        self._tell: list[Callable[[Outcome], None]] = []

    @override
    def begin(self, send: Send, tell: Callable[[Outcome], None]) -> Leave | None:
        if not self.open:
            return None
        self.calls.append(wire.decode(send.call)[1])
        self.keys.append(send.call.headers["idempotency-key"])
        self._tell.append(tell)
        return partial(self.left.append, len(self.calls) - 1)

    @override
    async def send(self, send: Send) -> Answer | Failure:
        self.slowly.append(send)
        self.waited.set()
        await asyncio.Event().wait()
        raise AssertionError

    def tell(self, number: int, outcome: Outcome) -> None:
        self._tell[number](outcome)

    def answer(self, number: int, reply: Any) -> None:
        self.tell(number, wire.answer_reply(BY_REQUEST[type(self.calls[number])], reply))

    @override
    def leave_behind(self) -> None:
        pass

    @override
    async def close(self) -> None:
        pass


def stored(first: int, count: int = 1) -> t.Appended:
    return t.Appended(ranges=[t.Range(partition=0, first_offset=first, last_offset=first + count - 1)], partitions=1)


def sizes(transport: Open) -> list[int]:
    return [len(call.messages) for call in transport.calls]


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.fixture
def transport() -> Open:
    return Open()


@pytest.fixture
async def client(transport: Open) -> AsyncIterator[AsyncClient]:
    async with AsyncClient("http://n1", transport=transport) as one:
        yield one


async def alone(client: AsyncClient, transport: Open) -> None:
    """One append that flies alone."""
    first = asyncio.create_task(client.topic("x").append(0))
    await turn()
    transport.answer(len(transport.calls) - 1, stored(0))
    await first


async def test_d13_what_comes_together_travels_together(client: AsyncClient, transport: Open) -> None:
    """Also after something that was alone: the first of a crowd does not leave the others behind."""
    await alone(client, transport)
    for calls in ([1, 3], [1, 3, 3]):
        crowd = [asyncio.create_task(client.topic("x").append(number)) for number in range(3)]
        await turn()
        while not all(one.done() for one in crowd):
            number = len(transport.calls) - 1
            transport.answer(number, stored(number, len(transport.calls[number].messages)))
            await turn()
        assert sizes(transport) == calls
    await alone(client, transport)
    assert sizes(transport)[-1] == 1


async def test_d13_what_waits_meanwhile_flies_next(client: AsyncClient, transport: Open) -> None:
    await alone(client, transport)
    first = asyncio.create_task(client.topic("x").append(1))
    await turn()
    others = [asyncio.create_task(client.topic("x").append(number)) for number in (2, 3)]
    gone = asyncio.create_task(client.topic("x").append(4))
    await turn()
    assert sizes(transport) == [1, 1]
    gone.cancel()
    await turn()
    transport.answer(1, stored(1))
    assert sizes(transport) == [1, 1, 2], "in the turn in which the answer came, without him who has gone"
    transport.answer(2, stored(2, 2))
    assert [place.offset for place in await asyncio.gather(first, *others)] == [1, 2, 3]


async def test_d13_who_goes_away_in_flight_breaks_nothing_off(client: AsyncClient, transport: Open) -> None:
    await alone(client, transport)
    gone = asyncio.create_task(client.topic("x").append(1))
    await turn()
    gone.cancel()
    await turn()
    later = asyncio.create_task(client.topic("x").append(2))
    await turn()
    assert len(transport.calls) == 2, "the order in which they were called is kept"
    transport.answer(1, stored(1))
    transport.answer(2, stored(2))
    assert (await later).offset == 2
    assert transport.left == []


async def test_d13_a_refusal_reaches_its_caller_alone(client: AsyncClient, transport: Open) -> None:
    await alone(client, transport)
    refused = asyncio.create_task(client.topic("y").append(1))
    await turn()
    problem = Problem("topic_not_found", "there is none")
    transport.tell(1, wire.answer_problem(problem, instance="/", request_id="r", node="n1", leader=None))
    with pytest.raises(TopicNotFound):
        await refused
    await alone(client, transport)


async def test_d13_a_crowd_of_flights_that_end_at_once_leaves_nobody_waiting(
    client: AsyncClient, transport: Open
) -> None:
    """Each too large to travel with another, and none that can be sent."""
    refused = [asyncio.create_task(client.topic("x").append("v" * 300_000, key="\ud800")) for _ in range(300)]
    last = asyncio.create_task(client.topic("x").append(1))
    await turn()
    transport.answer(0, stored(0))
    assert (await last).offset == 0
    assert {type(error) for error in await asyncio.gather(*refused, return_exceptions=True)} == {Invalid}


@pytest.mark.parametrize("lost", [Lost("it broke"), NotSent("it was closed")])
async def test_d13_what_was_lost_goes_again_under_its_key(client: AsyncClient, transport: Open, lost: Outcome) -> None:
    await alone(client, transport)
    append = asyncio.create_task(client.topic("x").append(1))
    await turn()
    transport.tell(1, lost)
    transport.open = False
    await transport.waited.wait()
    assert transport.slowly[0].call.headers["idempotency-key"] == transport.keys[1]
    await client.close()
    expected = OutcomeUnknown if isinstance(lost, Lost) else (OutcomeUnknown, Unavailable)
    with pytest.raises(expected):
        await append


async def test_d13_closing_breaks_off_what_flies_and_says_so(client: AsyncClient, transport: Open) -> None:
    await alone(client, transport)
    flying = asyncio.create_task(client.topic("x").append(1))
    await turn()
    waiting = asyncio.create_task(client.topic("x").append(2))
    await turn()
    await client.close()
    outcomes = await asyncio.gather(flying, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, Unavailable]
    assert transport.left == [1]
    transport.answer(1, stored(1))  # too late for anybody


async def test_d13_a_claim_that_nobody_waits_for_is_left(client: AsyncClient, transport: Open) -> None:
    claims = [asyncio.create_task(client.claim(e.Claim(worker_id=number, wait=9.0))) for number in (1, 2)]
    await turn()
    assert len(transport.calls) == 1
    claims[0].cancel()
    await turn()
    assert transport.left == []
    claims[1].cancel()
    await turn()
    assert transport.left == [0]


async def test_d13_only_so_many_lanes_that_rest_are_remembered(client: AsyncClient, transport: Open) -> None:
    for number in range(100):
        submit = asyncio.create_task(client.tasks.submit("nothing", queue=f"q{number}"))
        await turn()
        transport.answer(number, b.Submitted(items=[b.SubmittedTask(id=f"i{number}", status="QUEUED")]))
        await submit
    assert len(client._submits) <= 65


# -- plans that end otherwise ----------------------------------------------------------------------------------------
async def test_d13_a_plan_that_sleeps_goes_on_afterwards(transport: Open) -> None:
    ended: list[str] = []

    def plan() -> Plan[None]:
        yield Sleep(0.001)
        ended.append("slept")

    over = asyncio.Event()
    Flight(Fleet(transport), plan(), over.set).begin()
    assert not ended
    await over.wait()
    assert ended == ["slept"]


async def test_d13_an_error_in_a_plan_is_told_to_the_loop_and_ends_it(transport: Open) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    ended: list[bool] = []

    def plan() -> Plan[None]:
        yield from ()
        raise LookupError("a bug")

    fleet = Fleet(transport)
    Flight(fleet, plan(), lambda: ended.append(True)).begin()
    assert ended == [True]
    assert [type(error) for error in told] == [LookupError]
    assert not fleet.aloft


async def test_d13_a_flight_whose_task_is_cancelled_before_its_first_step_is_broken_off(transport: Open) -> None:
    transport.open = False
    ended: list[str] = []

    def plan() -> Plan[None]:
        try:
            yield Send("http://n1", wire.encode(t.Append(topic="x", messages=[]), "k"), 1.0)
        finally:
            ended.append("closed")

    flight = Flight(Fleet(transport), plan(), lambda: ended.append("ended"))
    flight.begin()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turn()
    assert ended == ["closed", "ended"]
    flight.close()
    await flight.gone()
    assert ended == ["closed", "ended"]
