"""The asyncio client: the hands of ``flow`` on asyncio.

Invariants: all thinking is in ``flow`` and ``batching``; a transport only carries one call to one node and says what came
of it; nothing connects before the first call; closing resolves everything that still waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from quorl.client.aio_flights import CLOSED_BEFORE, Fleet, Flight
from quorl.client.aio_tasks import AsyncQueues, AsyncTasks, AsyncWorkers
from quorl.client.aio_topics import AsyncTopic, AsyncTopics
from quorl.client.aio_transport import AsyncTransport, ChannelTransport
from quorl.client.batching import ItemT, Lane, Part, PlaceT
from quorl.client.claims import Asked, ClaimLane, ClaimPart
from quorl.client.errors import OutcomeUnknown, QuorlError, Unavailable, outward
from quorl.client.flow import TIMEOUT_S, Plan, Sleep, flow
from quorl.client.lanes import AppendLane, ReportLane, SubmitLane
from quorl.client.model import size_bytes, topic_bytes
from quorl.client.route import Route, chosen_servers
from quorl.client.tasking import report_bytes, tasks_bytes
from quorl.client.tracing import sending
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Consistency, Request
from quorl.cluster.protocol.system import ClusterInfo, GetCluster
from quorl.cluster.protocol.together import OneReport

R = TypeVar("R")


def wake(waiter: asyncio.Future[None]) -> None:
    """Wake whoever waits, if he still does."""
    if not waiter.done():
        waiter.set_result(None)


class AsyncClient:
    """A client for asyncio. Close it, or use ``async with``. Of several event loops each in turn can use it, or each has its own.

    ``servers``: addresses of nodes, a list or separated by commas; by default ``QUORL_SERVER``, else the three nodes of
    ``configs/`` on this machine. A host alone is the node there, on port 7101.
    ``timeout_s``: bounds every call, repeats included.
    ``refused_s``: bounds those that find no cluster: all refuse the connection or are no nodes, and none has answered this
    client before; twice as long where one takes the connection and says nothing. None: as ``timeout_s``.
    ``transport``, ``route``: what carries the calls, and what is known of the nodes; for tests, and for clients that share it.
    """

    def __init__(
        self,
        servers: str | Iterable[str] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        refused_s: float | None = None,
        transport: AsyncTransport | None = None,
        route: Route | None = None,
    ) -> None:
        self._route = route or Route(chosen_servers(servers), refused_s=refused_s)
        self._transport: AsyncTransport = transport or ChannelTransport()
        self._timeout_s = timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        """Of all that is under way; ``_process`` is where it runs."""
        self._process = 0
        self._begin()
        self._closed = False
        self.topics = AsyncTopics(self)
        self.queues = AsyncQueues(self)
        self.tasks = AsyncTasks(self)
        self.workers = AsyncWorkers(self)

    def _begin(self) -> None:
        """Begin with nothing under way."""
        self._appends: dict[str, AppendLane] = {}
        self._submits: dict[str, SubmitLane] = {}
        self._reports: dict[str, ReportLane] = {}
        self._claims = ClaimLane(self._route, timeout_s=self._timeout_s, unwanted=self._give_back)
        self._claiming: dict[ClaimPart, tuple[Flight, list[ClaimPart]]] = {}
        """Which flight each claim is on."""
        self._fleet = Fleet(self._transport)
        self._pumps: set[asyncio.Task[None]] = set()

    def _arrive(self) -> asyncio.AbstractEventLoop:
        """Return the running event loop; in another one than before nothing goes on of what was under way there."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                if self._loop.is_running() and self._process == os.getpid():
                    raise RuntimeError("this client is at work in another event loop: each needs a client of its own")
                self._leave_behind()
            self._loop, self._process = loop, os.getpid()
        return loop

    def _leave_behind(self) -> None:
        """Let go of all that belongs to an event loop that has ended."""
        self._transport.leave_behind()
        self._begin()

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of the nodes."""
        return self._route.nodes

    @property
    def timeout_s(self) -> float:
        """How long a call may take."""
        return self._timeout_s

    @property
    def clock(self) -> Callable[[], float]:
        """The seconds by which it measures."""
        return self._route.clock

    def make_key(self) -> str:
        """Return an idempotency key that nobody else makes."""
        return self._route.make_key()

    def topic(self, name: str) -> AsyncTopic:
        """Return a handle of a topic, which need not exist yet."""
        return AsyncTopic(self, name)

    async def cluster(self) -> ClusterInfo:
        """Describe the cluster as one node sees it; answered without a leader too."""
        return await self.call(GetCluster())

    async def call(
        self,
        request: Request[R],
        *,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        consistency: Consistency | None = None,
    ) -> R:
        """Make one call of any operation in the table; the answer has the type that the request names."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        plan = flow(self._route, request, key=idempotency_key, timeout_s=timeout_s, consistency=consistency)
        try:
            return await self.drive(plan)
        except QuorlError as error:
            outward(error)
            raise

    async def repeat(self, error: OutcomeUnknown, *, timeout_s: float | None = None) -> object:
        """Make the call again whose outcome is unknown, under its key: it has its effect once in any case."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        plan = flow(self._route, error.request, key=error.key, timeout_s=timeout_s, doubt=True)
        try:
            return await self.drive(plan)
        except QuorlError as again:
            outward(again)
            raise

    async def drive(self, plan: Plan[R]) -> R:
        """Carry out a plan of ``flow``."""
        if self._closed:
            raise Unavailable("the client is closed")
        self._arrive()
        try:
            step = next(plan)
            while True:
                if isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                    step = plan.send(None)
                else:
                    step = plan.send(await self._transport.send(step))
        except StopIteration as done:
            result: R = done.value
            return result
        finally:
            plan.close()

    async def append(self, topic: str, messages: list[t.Message]) -> list[t.Range]:
        """Append messages, all or none, together with whatever other appends wait."""
        self._arrive()
        lane = self._appends.get("")
        if lane is None:
            lane = self._appends[""] = self.lane("")
        size = size_bytes(messages) + topic_bytes(topic)
        try:
            return await self._travel(lane, messages, size, self._appends, to=topic)
        except QuorlError as error:
            outward(error)
            raise

    async def submit(self, queue: str, tasks: list[b.NewTask]) -> list[b.SubmittedTask]:
        """Submit tasks, all or none, together with whatever else waits for the same queue."""
        self._arrive()
        lane = self._submits.get(queue)
        if lane is None:
            lane = self._submits[queue] = SubmitLane(self._route, queue, timeout_s=self._timeout_s)
        try:
            with sending(queue, tasks) as traced:
                return await self._travel(lane, traced, tasks_bytes(traced), self._submits)
        except QuorlError as error:
            outward(error)
            raise

    async def report(self, report: OneReport) -> k.TaskStatus:
        """Report the end of a lease, together with whatever other reports wait; raises ``TaskNotFound`` or ``LeaseLost``."""
        self._arrive()
        lane = self._reports.get("")
        if lane is None:
            lane = self._reports[""] = ReportLane(self._route, "", timeout_s=self._timeout_s)
        return (await self._travel(lane, [report], report_bytes(report), self._reports))[0]

    async def claim(self, claim: e.Claim) -> e.Claims:
        """Claim tasks for a worker, together with the claims that are made at the same time; each waits as it says.

        Raises ``WorkerNotFound`` or ``WorkerNotAlive``. Of whoever stops waiting nothing is claimed any more, or it is given back.
        """
        if self._closed:
            raise Unavailable("the client is closed")
        landed: asyncio.Future[None] = self._arrive().create_future()
        until = self._route.clock() + claim.wait
        part: ClaimPart = Part([Asked(claim, until)], 0, until + self._timeout_s, lambda _: wake(landed))
        self._claims.queue.append(part)
        self._send_claims()
        try:
            await landed
        except asyncio.CancelledError:
            if not isinstance(part.outcome, Exception):  # the answer came in the same turn of the loop
                self._give_back([task for claims in part.outcome for task in claims.tasks])
            part.done = True
            flight, others = self._claiming.get(part, (None, ()))
            if flight is not None and all(other.done for other in others):
                flight.close()
            raise
        return part.places()[0]

    def _send_claims(self) -> None:
        """See that what this turn of the loop brings flies."""
        if self._claims.queue and not self._claims.flying and not self._closed:
            self._claims.flying = True
            asyncio.get_running_loop().call_soon(self._fly_claims)

    def _fly_claims(self) -> None:
        self._claims.flying = False
        while not self._closed and (parts := self._claims.take()):
            self._fly_together(parts)

    def _fly_together(self, parts: list[ClaimPart]) -> None:
        def landed() -> None:
            for part in parts:
                self._claiming.pop(part, None)
            self._send_claims()

        flight = Flight(self._fleet, self._claims.flight(parts), landed)
        self._claiming.update(dict.fromkeys(parts, (flight, parts)))
        flight.begin()

    def _give_back(self, tasks: list[e.ClaimedTask]) -> None:
        """Release what was granted to somebody who has gone."""

        async def release(task: e.ClaimedTask) -> None:
            with contextlib.suppress(QuorlError):  # then it goes back with its worker's silence
                await self.report(e.Return(task_id=task.id, lease=task.lease.token))

        for task in tasks:
            self._keep(asyncio.get_running_loop().create_task(release(task)))

    def _keep(self, pump: asyncio.Task[None]) -> None:
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)

    def lane(self, topic: str) -> AppendLane:
        """Return a new lane to a topic, or without a name to all, for whoever wants one of his own."""
        return AppendLane(self._route, topic, timeout_s=self._timeout_s)

    async def _travel(
        self, lane: Lane[ItemT, PlaceT], items: list[ItemT], size: int, lanes: dict[str, Any], to: str = ""
    ) -> list[PlaceT]:
        """Put things into their lane, see that somebody flies it, and wait for what comes of them."""
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[None] = loop.create_future()
        part: Part[ItemT, PlaceT] = Part(items, size, self._route.clock() + self._timeout_s, lambda _: wake(landed), to)
        lane.queue.append(part)
        if not lane.flying:
            self._fleet.launch(lane, lanes)
        try:
            await landed
        finally:
            part.done = True  # one that was cancelled in the queue does not fly
        return part.places()

    async def close(self) -> None:
        """Close the connections. Appends and submits that still wait fail, saying whether they may have been applied."""
        self._arrive()
        self._closed = True
        await self._fleet.close()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._claims.abandon(Unavailable(CLOSED_BEFORE))
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
