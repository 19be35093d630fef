"""Coalescing: what waits when a request leaves goes with it. No socket, no clock, no loop of its own.

A ``Lane`` holds the appends of one client, its submits to one queue, its reports, or its claims (``lanes`` says how each is
asked and answered). One flight at a time is in the air per lane: throughput rises with load, latency at rest stays one round trip,
and things are stored in the order in which they were called. Each caller is told what came of his own.

Invariants: a flight has one body and one idempotency key for all its repeats; every part that is taken is resolved, also
when the flight is broken off, wherever that is; nobody fails for what is wrong with another one's item: a refused flight of several
parts goes again part by part; nobody waits longer than his own deadline for what may still be undone.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from quorl.client.errors import OutcomeUnknown, Rejected, Unavailable
from quorl.client.flow import BACKOFF_S_MIN, Plan, Sleep, flow, held_back_s
from quorl.client.route import Route
from quorl.cluster.protocol.grammar import Request

FLIGHT_BYTES_MAX = 512 * 1024
"""Half of a request: what is longer would keep those that come next from leaving."""
HURRY_SHARE = 0.05
"""Who has less than this share of a call's time left after a flight that failed is told so, and not put on another."""

ItemT = TypeVar("ItemT")
PlaceT = TypeVar("PlaceT")


class Part(Generic[ItemT, PlaceT]):
    """What one call brought; it waits for a flight, or is on one."""

    __slots__ = ("deadline", "done", "flight", "items", "outcome", "size_bytes", "to", "wake")

    def __init__(
        self,
        items: list[ItemT],
        size_bytes: int,
        deadline: float | None,
        wake: Callable[[Part[ItemT, PlaceT]], None],
        to: str = "",
    ) -> None:
        self.items = items
        self.to = to
        """Where they go in a lane that goes to several places."""
        self.size_bytes = size_bytes
        self.deadline = deadline
        """None: its time starts when its flight leaves."""
        self.wake = wake
        self.done = False
        self.flight: tuple[str, Request[Any]] | None = None
        """Key and request of the flight that it is on; None: nothing of it has left."""
        self.outcome: Sequence[PlaceT] | Exception = ()

    def resolve(self, outcome: Sequence[PlaceT] | Exception) -> None:
        """Hand over what came of it, once; said again it wakes again, for the first time may have been broken off."""
        if not self.done:
            self.outcome = outcome
            self.done = True
        self.wake(self)

    def places(self) -> list[PlaceT]:
        """Return what came of it; raises what went wrong."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return list(self.outcome)


class Lane(ABC, Generic[ItemT, PlaceT]):
    """What one client sends to one place, in order."""

    ITEMS_MAX: int

    def __init__(self, route: Route, name: str, *, timeout_s: float, flight_bytes_max: int = FLIGHT_BYTES_MAX) -> None:
        self.name = name
        """Of the topic, or of the queue; empty for what goes to neither, or to several."""
        self.queue: deque[Part[ItemT, PlaceT]] = deque()
        self.flying = False
        """For the hands on asyncio: whether somebody is driving flights of this lane."""
        self.aboard: list[Part[ItemT, PlaceT]] = []
        """What ``fly`` has taken from the queue and not yet dealt with."""
        self._route = route
        self._timeout_s = timeout_s
        self._flight_bytes_max = flight_bytes_max

    # -- what differs from lane to lane -------------------------------------------------------------------------------
    @abstractmethod
    def describe(self) -> str:
        """Say what is called: ``append 'logs'``."""

    @abstractmethod
    def request(self, parts: list[Part[ItemT, PlaceT]]) -> Request[Any]:
        """Return the request of one flight."""

    @abstractmethod
    def shares(
        self, parts: list[Part[ItemT, PlaceT]], reply: Any
    ) -> Plan[Sequence[Sequence[PlaceT] | Exception | None]]:
        """Return what came of each part, its refusal included; ``LookupError`` says that this cannot be known.

        None: it waits for another flight. Nothing is said to a part any more that has flown once more meanwhile.
        """

    def alone(self, part: Part[ItemT, PlaceT]) -> bool:  # noqa: ARG002 - lanes that need not know
        """Whether a part had better fly alone."""
        return False

    def concerns_all(self, refused: Rejected) -> bool:  # noqa: ARG002 - lanes that need not know
        """Whether a refusal would be the same for each part by itself."""
        return False

    def refused(self, part: Part[ItemT, PlaceT]) -> None:
        """Take note that a part that flew alone was refused."""

    # -- flying -------------------------------------------------------------------------------------------------------
    def fly(self) -> Plan[None]:
        """Plan one flight of what waits now; it ends when that is resolved or, with time left, waits again."""
        parts = self.take()
        if parts:
            yield from self.flight(parts)
        self.aboard = []

    def break_off(self, parts: Sequence[Part[ItemT, PlaceT]]) -> None:
        """Resolve parts of a flight that nobody drives any more."""
        for part in parts:
            if part.flight is None:
                part.resolve(Unavailable(f"interrupted before calling {self.describe()}"))
            else:
                part.resolve(OutcomeUnknown(f"interrupted while calling {self.describe()}", *part.flight))

    def abandon(self, error: Exception) -> None:
        """Resolve everything that has not left yet."""
        while self.queue:
            self.queue.popleft().resolve(copy.copy(error))

    def take(self) -> list[Part[ItemT, PlaceT]]:
        """Return what flies next, which waits no longer."""
        parts: list[Part[ItemT, PlaceT]] = []
        self.aboard = parts
        count = size_bytes = 0
        while self.queue:
            part = self.queue[0]
            if part.done:
                self.queue.popleft()
                continue
            alone = self.alone(part)
            count += len(part.items)
            size_bytes += part.size_bytes
            if parts and (alone or count > self.ITEMS_MAX or size_bytes > self._flight_bytes_max):
                break
            parts.append(part)  # before it leaves the queue, so that it is always in one of both
            self.queue.popleft()
            if alone:
                break
        return parts

    def flight(self, parts: list[Part[ItemT, PlaceT]]) -> Plan[None]:
        """Plan the flight of these parts."""
        try:
            refused = yield from self._attempt(parts)
            if refused and len(parts) > 1 and not self.concerns_all(refused):
                yield from self.one_by_one(parts)
            elif refused:
                _fail(parts, refused)
                if len(parts) == 1:
                    self.refused(parts[0])
        except BaseException:
            self.break_off(parts)
            raise

    def _attempt(self, parts: list[Part[ItemT, PlaceT]]) -> Plan[Rejected | None]:
        request = self.request(parts)
        key = self._route.make_key()
        now = self._route.clock()
        for part in parts:
            part.flight = key, request
            if part.deadline is None:
                part.deadline = now + self._timeout_s
        return (yield from self._repeated(parts, request, key))

    def one_by_one(self, parts: list[Part[ItemT, PlaceT]]) -> Plan[None]:
        """Let each part of a refused flight answer for itself."""
        for part in parts:
            part.flight = None
        for part in parts:
            if not part.done:
                yield from self.flight([part])

    def _repeated(self, parts: list[Part[ItemT, PlaceT]], request: Request[Any], key: str) -> Plan[Rejected | None]:
        """Fly until it is known what became of the request, or nobody waits for that any more."""
        doubt = False
        while True:
            wait_s = held_back_s(request)
            left_s = max(0.001, self._left_s(parts) - wait_s)
            owners_until = self._route.clock() + left_s + wait_s + HURRY_SHARE * self._timeout_s
            try:
                reply = yield from flow(self._route, request, key=key, timeout_s=left_s, doubt=doubt)
            except Rejected as refused:
                return refused
            except Unavailable as error:
                _give_up(parts, error, owners_until)
                if not all(part.done for part in parts):
                    yield Sleep(error.retry_after_s or BACKOFF_S_MIN)
                    self.queue.extendleft(part for part in reversed(parts) if not part.done)
                return None
            except OutcomeUnknown as error:
                _give_up(parts, error, owners_until)
                doubt = True
                if all(part.done for part in parts):
                    return None
            else:
                yield from self._land(parts, request, key, reply)
                return None

    def _left_s(self, parts: list[Part[ItemT, PlaceT]]) -> float:
        """How long the first that waits can still wait: a flight is never longer, so none is told too late."""
        now = self._route.clock()
        return min((part.deadline or math.inf) - now for part in parts if not part.done)

    def _land(self, parts: list[Part[ItemT, PlaceT]], request: Request[Any], key: str, reply: object) -> Plan[None]:
        """Tell each part what came of it."""
        called = self.describe()
        try:
            shares = yield from self.shares(parts, reply)
        except LookupError as error:
            shares = [error] * len(parts)
        for part, mine in zip(parts, shares, strict=True):
            if isinstance(mine, LookupError):
                detail = f"{called} was applied, but where is not known: {mine.args[0]}"
                _fail([part], OutcomeUnknown(detail, key, request))
            elif mine is not None:
                part.resolve(mine)
            elif not part.done:
                self.queue.append(part)


def items_of(parts: Sequence[Part[ItemT, Any]]) -> list[ItemT]:
    """Return what these parts brought, in their order."""
    return [item for part in parts for item in part.items]


def _give_up(parts: Sequence[Part[ItemT, PlaceT]], error: Exception, owners_until: float) -> None:
    """Tell those whose time is up; the flight was no longer than theirs."""
    _fail([part for part in parts if (part.deadline or math.inf) <= owners_until], error)


def _fail(parts: Sequence[Part[ItemT, PlaceT]], error: Exception) -> None:
    for part in parts:
        part.resolve(copy.copy(error))  # each caller raises his own, with his own traceback
