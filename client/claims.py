"""The claims of one client that are made at the same time, as one call.

Other than appends, claims wait for something to come, so many flights are in the air at the same time: each takes what one
turn of the loop brings. As soon as one of its claims comes to something a flight lands, and the others fly again, with as
much of their time as is left: together if most came to something, else each by itself.

Invariants: an answer without tasks is given to a claim only if its flight came to nothing at all, and its wait is over. What
was granted to a claim whose caller has gone is handed to ``unwanted``, to be given back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
from typing_extensions import override

from quorl.client.batching import Lane, Part, items_of
from quorl.client.flow import Plan
from quorl.client.lanes import refusal
from quorl.client.route import Route
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol.grammar import Request

ClaimPart: TypeAlias = Part["Asked", e.Claims]


class Asked:
    """A claim, and how long it waits."""

    __slots__ = ("alone", "claim", "until")

    def __init__(self, claim: e.Claim, until: float) -> None:
        self.claim = claim
        self.until = until
        """When its wait is over."""
        self.alone = claim.max > limits.CLAIM_TASKS_EACH_MAX
        """Whether it flies alone."""


class ClaimLane(Lane[Asked, e.Claims]):
    """The claims of one client. One that flies alone is the plain call."""

    ITEMS_MAX = limits.CLAIMS_TOGETHER_MAX

    def __init__(self, route: Route, *, timeout_s: float, unwanted: Callable[[list[e.ClaimedTask]], None]) -> None:
        super().__init__(route, "", timeout_s=timeout_s)
        self._unwanted = unwanted

    @override
    def describe(self) -> str:
        return "claim"

    @override
    def alone(self, part: ClaimPart) -> bool:
        return part.items[0].alone

    @override
    def request(self, parts: list[ClaimPart]) -> Request[Any]:
        items = items_of(parts)
        wait_s = max(0.0, min(one.until for one in items) - self._route.clock())
        if len(items) == 1:
            return msgspec.structs.replace(items[0].claim, wait=wait_s)
        claims = [
            g.OneClaim(worker_id=one.worker_id, queues=one.queues, max=one.max, number=one.number)
            for one in [item.claim for item in items]
        ]
        return g.ClaimMany(claims=tuple(claims), wait=wait_s)

    @override
    def one_by_one(self, parts: list[ClaimPart]) -> Plan[None]:
        """Each flies alone, and none waits for another."""
        yield from ()
        for part in parts:
            part.items[0].alone = True
        self.queue.extend(parts)

    @override
    def shares(
        self, parts: list[ClaimPart], reply: e.Claims | g.ClaimedMany
    ) -> Plan[Sequence[Sequence[e.Claims] | Exception | None]]:
        yield from ()
        if isinstance(reply, e.Claims):
            if parts[0].done:
                self._unwanted(reply.tasks)
            return [[reply]]
        if len(reply.items) != len(parts):
            raise LookupError("the answer has another number of claims")
        settled = sum(item.settled for item in reply.items)
        for part, item in zip(parts, reply.items, strict=True):
            if part.done and item.tasks:
                self._unwanted(item.tasks)
            # Where tasks are few, claims that wait would else come and go together with each single one of them.
            part.items[0].alone |= 0 < 2 * settled < len(parts)
        over_s = self._route.clock() if not settled else 0.0
        return [_told(part, item, over_s) for part, item in zip(parts, reply.items, strict=True)]


def _told(part: ClaimPart, item: g.ClaimedBy, over_s: float) -> Sequence[e.Claims] | Exception | None:
    """What a claim came to; None: it flies again. ``over_s``: so late it was when nobody had got anything."""
    if item.code is not None:
        return refusal(item.code, item.detail)
    if item.settled or part.items[0].until <= over_s:
        return [e.Claims(tasks=item.tasks, drained=item.drained)]
    return None
