"""The synchronous client: the hands of ``flow`` on sockets. One client serves any number of threads.

Invariants: all thinking is in ``flow`` and ``batching``; a transport only carries one call to one node and says what came
of it; there is no thread and no event loop behind it: of the threads that append to a topic at the same time one leads,
sends what all of them brought, and hands over to one of those that came later once its own messages are stored. An exception
may come between any two steps of it, for signal handlers raise where they like: whoever leaves his lane, however that
happens, resolves what he had taken and hands over, and that can be broken off and done again. A handler may also call the
client, in the thread that it interrupted somewhere in here: what it brings travels alone, and waits for nobody, because the
one that it would wait for may lie below it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from typing_extensions import override

from quorl.client.batching import ItemT, Lane, Part, PlaceT
from quorl.client.errors import OutcomeUnknown, QuorlError, Unavailable, outward
from quorl.client.flow import TIMEOUT_S, Plan, Sleep, flow
from quorl.client.forking import Renewed
from quorl.client.lanes import AppendLane, ReportLane, SubmitLane
from quorl.client.locks import Lock
from quorl.client.model import size_bytes, topic_bytes
from quorl.client.route import Route, chosen_servers
from quorl.client.sync_transport import ChannelTransport, Transport
from quorl.client.tasking import report_bytes, tasks_bytes
from quorl.client.tasks import Queues, Tasks, Workers
from quorl.client.topics import Topic, Topics
from quorl.client.tracing import sending
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Consistency, Request
from quorl.cluster.protocol.system import ClusterInfo, GetCluster
from quorl.cluster.protocol.together import OneReport

R = TypeVar("R")


class Client(Renewed):
    """A client for threads. Close it, or use ``with``.

    ``servers``: addresses of nodes, a list or separated by commas; by default ``QUORL_SERVER``, else the three nodes of
    ``configs/`` on this machine. A host alone is the node there, on port 7101.
    ``timeout_s``: bounds every call, repeats included.
    ``refused_s``: bounds those that find no cluster: all refuse the connection or are no nodes, and none has answered this
    client before; twice as long where one takes the connection and says nothing. None: as ``timeout_s``.
    ``transport``, ``route``: what carries the calls, and what is known of the nodes; for tests, and for clients that share it.

    A signal handler may use the client whose call it interrupts, and may raise: what it appends, submits or reports goes
    out in a call of its own, before or after that of the thread below it. It keeps that thread for as long as its call
    takes; where this is too long, let the handler set a flag or fill a ``queue.SimpleQueue`` for another thread.
    """

    def __init__(
        self,
        servers: str | Iterable[str] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        refused_s: float | None = None,
        transport: Transport | None = None,
        route: Route | None = None,
    ) -> None:
        self._route = route or Route(chosen_servers(servers), refused_s=refused_s)
        self._transport: Transport = transport or ChannelTransport()
        self._timeout_s = timeout_s
        self._closed = False
        super().__init__()
        self.topics = Topics(self)
        self.queues = Queues(self)
        self.tasks = Tasks(self)
        self.workers = Workers(self)

    @override
    def _renew(self) -> None:
        self._lanes: dict[tuple[str, str], Lane[Any, Any]] = {}
        self._leaders: dict[tuple[str, str], Part[Any, Any]] = {}
        """Whose thread drives the flights of each lane."""
        self._boarding = Lock()
        self._boarded: set[int] = set()
        """The threads that are in ``_travel``."""

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

    def topic(self, name: str) -> Topic:
        """Return a handle of a topic, which need not exist yet."""
        return Topic(self, name)

    def cluster(self) -> ClusterInfo:
        """Describe the cluster as one node sees it; answered without a leader too."""
        return self.call(GetCluster())

    def call(
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
            return self.drive(plan)
        except QuorlError as error:
            outward(error)
            raise

    def repeat(self, error: OutcomeUnknown, *, timeout_s: float | None = None) -> object:
        """Make the call again whose outcome is unknown, under its key: it has its effect once in any case."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        plan = flow(self._route, error.request, key=error.key, timeout_s=timeout_s, doubt=True)
        try:
            return self.drive(plan)
        except QuorlError as again:
            outward(again)
            raise

    def drive(self, plan: Plan[R]) -> R:
        """Carry out a plan of ``flow``."""
        if self._closed:
            raise Unavailable("the client is closed")
        try:
            step = next(plan)
            while True:
                if isinstance(step, Sleep):
                    time.sleep(step.seconds)
                    step = plan.send(None)
                else:
                    step = plan.send(self._transport.send(step))
        except StopIteration as done:
            result: R = done.value
            return result
        finally:
            plan.close()

    def append(self, topic: str, messages: list[t.Message]) -> list[t.Range]:
        """Append messages, all or none, together with whatever other threads have waiting."""
        size = size_bytes(messages) + topic_bytes(topic)
        try:
            return self._travel(("append", ""), lambda: self.lane(""), messages, size, to=topic)
        except QuorlError as error:
            outward(error)
            raise

    def submit(self, queue: str, tasks: list[b.NewTask]) -> list[b.SubmittedTask]:
        """Submit tasks, all or none, together with whatever other threads have waiting for the same queue."""

        def make() -> SubmitLane:
            return SubmitLane(self._route, queue, timeout_s=self._timeout_s)

        try:
            with sending(queue, tasks) as traced:
                return self._travel(("submit", queue), make, traced, tasks_bytes(traced))
        except QuorlError as error:
            outward(error)
            raise

    def claim(self, claim: e.Claim) -> e.Claims:
        """Claim tasks for a worker; the call waits as the claim says. Raises ``WorkerNotFound`` or ``WorkerNotAlive``."""
        return self.call(claim)

    def report(self, report: OneReport) -> k.TaskStatus:
        """Report the end of a lease, together with what other threads report; raises ``TaskNotFound`` or ``LeaseLost``."""

        def make() -> ReportLane:
            return ReportLane(self._route, "", timeout_s=self._timeout_s)

        return self._travel(("report", ""), make, [report], report_bytes(report))[0]

    def _travel(
        self,
        place: tuple[str, str],
        make: Callable[[], Lane[ItemT, PlaceT]],
        items: list[ItemT],
        size: int,
        to: str = "",
    ) -> list[PlaceT]:
        """Put things into their lane, and fly it or wait until somebody has."""
        me = threading.get_ident()
        if me in self._boarded:
            return self._travel_alone(make(), items, size, to)
        gate = threading.Lock()
        gate.acquire()
        part: Part[ItemT, PlaceT] = Part(items, size, self._route.clock() + self._timeout_s, lambda _: _open(gate), to)
        try:
            self._boarded.add(me)
            with self._boarding:
                lane = self._lanes.get(place)
                if lane is None:
                    lane = self._lanes[place] = make()
                lane.queue.append(part)
                self._leaders.setdefault(place, part)
            while not part.done:
                with self._boarding:
                    leads = self._leaders.get(place) is part
                if leads:
                    self.drive(lane.fly())
                else:
                    gate.acquire()
        finally:
            try:
                self._leave(place, part)
            finally:
                try:
                    self._leave(place, part)  # a signal handler may have raised in the first
                finally:
                    self._boarded.discard(me)
        return part.places()

    def _travel_alone(self, lane: Lane[ItemT, PlaceT], items: list[ItemT], size: int, to: str) -> list[PlaceT]:
        """Fly with nobody else, in a lane that nobody else sees."""
        part: Part[ItemT, PlaceT] = Part(items, size, self._route.clock() + self._timeout_s, lambda _: None, to)
        lane.queue.append(part)
        while not part.done:
            self.drive(lane.fly())
        return part.places()

    def _leave(self, place: tuple[str, str], part: Part[Any, Any]) -> None:
        """Fly no more. Who leads lets the first that waits lead, by waking it undone; without one the lane closes."""
        with self._boarding:
            part.done = True
            lane = self._lanes.get(place)
            if lane is None or self._leaders.get(place, part) is not part:
                return
            lane.break_off(lane.aboard)
            lane.aboard = []
            while lane.queue and lane.queue[0].done:
                lane.queue.popleft()
            if lane.queue:
                lane.queue[0].wake(lane.queue[0])  # it looks whether it leads once the lock is free
                self._leaders[place] = lane.queue[0]
            else:
                self._leaders.pop(place, None)
                self._lanes.pop(place, None)

    def lane(self, topic: str) -> AppendLane:
        """Return a new lane to a topic, or without a name to all, for whoever wants one of his own."""
        return AppendLane(self._route, topic, timeout_s=self._timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(gate: threading.Lock) -> None:
    """Let the one who waits at it through, now or when he comes."""
    with contextlib.suppress(RuntimeError):  # it is open
        gate.release()
