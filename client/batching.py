"""Coalescing: appends that wait when a request leaves go with it. No socket, no clock, no loop of its own.

A ``Lane`` holds the appends of one client to one topic. One flight at a time is in the air per lane: throughput rises with
load, latency at rest stays one round trip, and appends are stored in the order in which they were called. Each caller is
told the places of his own messages (``sharing``).

Invariants: a flight has one body and one idempotency key for all its repeats; every part that is taken is resolved, also
when the flight is broken off; nobody fails for what is wrong with another one's message: a refused flight of several
parts goes again part by part; nobody waits longer than his own deadline for what may still be undone.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Sequence

from quorl.client.errors import OutcomeUnknown, QuorlError, Rejected, TopicNotFound, Unavailable
from quorl.client.flow import BACKOFF_S_MIN, Plan, Sleep, flow
from quorl.client.route import Route
from quorl.client.sharing import Mismatch, share
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t

FLIGHT_BYTES_MAX = 512 * 1024
HURRY_SHARE = 0.05
"""Who has less than this share of a call's time left after a flight that failed is told so, and not put on another."""

Outcome = Sequence[t.Range] | Exception


class Part:
    """One append that waits for a flight, or is on one."""

    __slots__ = ("deadline", "done", "messages", "outcome", "size_bytes", "wake")

    def __init__(
        self, messages: list[t.Message], size_bytes: int, deadline: float | None, wake: Callable[[Part], None]
    ) -> None:
        self.messages = messages
        self.size_bytes = size_bytes
        self.deadline = deadline
        """None: its time starts when its flight leaves."""
        self.wake = wake
        self.done = False
        self.outcome: Outcome = ()

    def resolve(self, outcome: Outcome) -> None:
        """Hand over what came of it, once."""
        if not self.done:
            self.done = True
            self.outcome = outcome
            self.wake(self)


class Lane:
    """The appends of one client to one topic, in order.

    ``partitions`` remembers how many partitions topics have, for those lanes that had to ask.
    """

    def __init__(
        self,
        route: Route,
        topic: str,
        *,
        timeout_s: float,
        partitions: dict[str, int],
        flight_bytes_max: int = FLIGHT_BYTES_MAX,
    ) -> None:
        self.topic = topic
        self.queue: deque[Part] = deque()
        self.flying = False
        """For the hands: whether somebody is driving flights of this lane."""
        self._route = route
        self._timeout_s = timeout_s
        self._partitions = partitions
        self._flight_bytes_max = flight_bytes_max
        self._suspects: set[int] = set()
        """Producer ids that were refused: their messages fly alone until one is accepted."""

    def fly(self) -> Plan[None]:
        """Plan one flight of what waits now; it ends when that is resolved or, with time left, waits again."""
        parts = self._take()
        if parts:
            yield from self._flight(parts)

    def abandon(self, error: Exception) -> None:
        """Resolve everything that has not left yet."""
        while self.queue:
            self.queue.popleft().resolve(copy.copy(error))

    def _take(self) -> list[Part]:
        parts: list[Part] = []
        count = size_bytes = 0
        while self.queue:
            part = self.queue[0]
            if part.done:
                self.queue.popleft()
                continue
            alone = bool(self._suspects) and not self._suspects.isdisjoint(_producers(part))
            count += len(part.messages)
            size_bytes += part.size_bytes
            if parts and (alone or count > limits.APPEND_MESSAGES_MAX or size_bytes > self._flight_bytes_max):
                break
            parts.append(self.queue.popleft())
            if alone:
                break
        return parts

    def _flight(self, parts: list[Part]) -> Plan[None]:
        request = t.Append(topic=self.topic, messages=[message for part in parts for message in part.messages])
        key = self._route.make_key()
        now = self._route.clock()
        for part in parts:
            if part.deadline is None:
                part.deadline = now + self._timeout_s
        try:
            refused = yield from self._repeated(parts, request, key)
        except BaseException:
            _fail(parts, OutcomeUnknown(f"interrupted while calling append {self.topic!r}", key, request))
            raise
        if refused and len(parts) > 1 and not isinstance(refused, TopicNotFound):
            yield from self._one_by_one(parts)
        elif refused:
            _fail(parts, refused)
            self._suspects |= _producers(parts[0]) if len(parts) == 1 else set()

    def _one_by_one(self, parts: list[Part]) -> Plan[None]:
        """Let each part of a refused flight answer for itself."""
        try:
            for part in parts:
                if not part.done:
                    yield from self._flight([part])
        except BaseException:
            _fail(parts, Unavailable(f"interrupted before calling append {self.topic!r}"))
            raise

    def _repeated(self, parts: list[Part], request: t.Append, key: str) -> Plan[Rejected | None]:
        """Fly until it is known what became of the request, or nobody waits for that any more."""
        doubt = False
        while True:
            left_s = self._left_s(parts)
            owners_until = self._route.clock() + left_s + HURRY_SHARE * self._timeout_s
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
                yield from self._land(parts, request, key, reply.ranges)
                return None

    def _left_s(self, parts: list[Part]) -> float:
        """How long the first that waits can still wait: a flight is never longer, so none is told too late."""
        now = self._route.clock()
        return max(0.001, min((part.deadline or math.inf) - now for part in parts if not part.done))

    def _land(self, parts: list[Part], request: t.Append, key: str, ranges: list[t.Range]) -> Plan[None]:
        """Tell each part where its messages are."""
        if self._suspects:
            for part in parts:
                self._suspects -= _producers(part)
        try:
            shares = yield from self._shares(parts, ranges)
        except (QuorlError, Mismatch) as error:
            why = str(error) or "the topic was replaced meanwhile"
            _fail(
                parts, OutcomeUnknown(f"append {self.topic!r} was applied, but where is not known: {why}", key, request)
            )
            return
        for part, mine in zip(parts, shares, strict=True):
            part.resolve(mine)

    def _shares(self, parts: list[Part], ranges: list[t.Range]) -> Plan[list[list[t.Range]]]:
        batches = [part.messages for part in parts]
        known = self._partitions.get(self.topic)
        try:
            shares = share(batches, ranges, known)
        except Mismatch:  # what is remembered is out of date
            shares = None
        if shares is None:
            info = yield from flow(self._route, t.GetTopic(topic=self.topic), timeout_s=self._timeout_s)
            self._partitions[self.topic] = info.partitions
            shares = share(batches, ranges, info.partitions)
            assert shares is not None, "the number of partitions is known"
        return shares


def _producers(part: Part) -> set[int]:
    return {message.producer_id for message in part.messages if message.producer_id is not None}


def _give_up(parts: Sequence[Part], error: Exception, owners_until: float) -> None:
    """Tell those whose time is up; the flight was no longer than theirs."""
    _fail([part for part in parts if (part.deadline or math.inf) <= owners_until], error)


def _fail(parts: Sequence[Part], error: Exception) -> None:
    for part in parts:
        part.resolve(copy.copy(error))  # each caller raises his own, with his own traceback
