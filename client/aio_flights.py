"""How plans of flights are carried out on asyncio without anybody who waits: an answer that comes goes on with them at once.

A call that goes over a channel needs no task: what came of it is handed to the plan in the very turn of the loop in which it
was read. Only where a plan sleeps, or a call needs more than a channel that is open, a task carries it on.

Invariants: a plan is carried out by one at a time, and closed if it does not come to its end; its owner is told once, in
any case. A flight leaves in the next turn of the loop and takes along all that this one brings: who would leave at once
because he was alone lately would leave a crowd behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from quorl.channel import Outcome
from quorl.client.aio_transport import AsyncTransport, Leave, event_of
from quorl.client.batching import Lane
from quorl.client.errors import Unavailable
from quorl.client.flow import Plan, Send, Sleep, Step

CLOSED_BEFORE = "the client was closed before it was sent"


class Flight:
    """One plan under way."""

    __slots__ = ("_ended", "_fleet", "_leave", "_plan", "_task")

    def __init__(self, fleet: Fleet, plan: Plan[None], ended: Callable[[], None]) -> None:
        self._fleet = fleet
        self._plan = plan
        self._ended: Callable[[], None] | None = ended
        self._leave: Leave | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take the first step."""
        self._fleet.aloft.add(self)
        self._go_on(self._advance(None))

    def close(self) -> None:
        """Break it off."""
        if self._ended is None:
            return
        if self._leave is not None:
            self._leave()
        if self._task is not None:
            self._task.cancel()
        self._end()

    async def gone(self) -> None:
        """Wait until nobody carries it any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _told(self, outcome: Outcome) -> None:
        """A call over a channel has come to its end."""
        self._leave = None
        if self._ended is not None:
            self._go_on(self._advance(event_of(outcome)))

    def _advance(self, event: Any) -> Step | None:
        """Hand the plan what came of its last step; returns the next, or None at its end."""
        try:
            return self._plan.send(event)
        except StopIteration:
            pass
        except Exception as error:  # nobody else sees what goes wrong here
            context = {"message": "a flight has failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        self._end()
        return None

    def _go_on(self, step: Step | None) -> None:
        if step is None:
            return
        if type(step) is Send:
            self._leave = self._fleet.transport.begin(step, self._told)
            if self._leave is not None:
                return
        self._task = asyncio.get_running_loop().create_task(self._carry(step))
        self._task.add_done_callback(self._left)

    async def _carry(self, step: Step | None) -> None:
        """Carry it on to its end."""
        while step is not None:
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
                step = self._advance(None)
            else:
                step = self._advance(await self._fleet.transport.send(step))

    def _left(self, _: asyncio.Task[None]) -> None:
        """Its task is over; one that was cancelled before its first step has run nothing of its own."""
        if self._ended is not None:
            self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        self._fleet.aloft.discard(self)
        self._plan.close()
        if ended is not None:
            ended()


class Fleet:
    """The flights of one client."""

    def __init__(self, transport: AsyncTransport) -> None:
        self.transport = transport
        self.aloft: set[Flight] = set()
        self.closed = False

    def launch(self, lane: Lane[Any, Any], lanes: dict[str, Any]) -> None:
        """See that what waits in a lane flies, and whatever comes to wait there meanwhile."""
        lane.flying = True
        asyncio.get_running_loop().call_soon(self._fly, lane, lanes)

    def _fly(self, lane: Lane[Any, Any], lanes: dict[str, Any]) -> None:
        """Fly what waits, or let the lane go."""
        if self.closed:
            lane.abandon(Unavailable(CLOSED_BEFORE))
        while lane.queue:
            if self._begun(lane, lanes):
                return
        lanes.pop(lane.name, None)

    def _begun(self, lane: Lane[Any, Any], lanes: dict[str, Any]) -> bool:
        """Begin one flight; whether it is under way, so that the next follows at its end.

        Were one that ends at once followed from there, a crowd of such would be a call too deep.
        """
        under_way = over = False

        def ended() -> None:
            nonlocal over
            over = True
            if under_way:
                self._fly(lane, lanes)

        Flight(self, lane.fly(), ended).begin()
        under_way = not over
        return under_way

    async def close(self) -> None:
        """Break off what flies, and let nothing more fly."""
        self.closed = True
        flights = list(self.aloft)
        for flight in flights:
            flight.close()
        for flight in flights:
            await flight.gone()
