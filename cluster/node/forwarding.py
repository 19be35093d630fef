"""Finding the leader, and asking it: one hop, again at a new leader, until an answer is there or the time is over.

A try ends with a result or with None, which means: try again. Whether an earlier try may have done something is the
visit's ``maybe_applied``; it decides between "certainly not applied" and "outcome unknown" in the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from quorl.cluster.node.core import Core, PeerLost, Peers
from quorl.cluster.node.visit import Declined, Visit
from quorl.cluster.protocol.problems import REPEAT, Problem
from quorl.cluster.protocol.tracing import HEADER, STATE_HEADER
from quorl.cluster.protocol.wire import Answer, Call

T = TypeVar("T")

_PAUSE_S_MIN = 0.05
_PAUSE_S_MAX = 1.0
"""Seconds between tries while the leader stays the same, doubling: it answers that it cannot, or not at all. At first sooner than
an election takes, then no burden to a leader that is in need."""
_LATELY_S = 2.0
"""A leader that answered some call within so long is not said to give no answer: between two tries there is half of it."""
_SENT_ON = ("content-type", HEADER, STATE_HEADER)
"""Headers of the caller's that change what the call means."""
_RELAYED = (
    "content-type",
    "location",
    "idempotent-replay",
    "idempotency-key",
    "retry-after",
    "allow",
    "quorl-sequence",
)


class Leading:
    """The way to the leader, which may be here."""

    def __init__(self, core: Core, peers: Peers, leader_wait_s: float) -> None:
        self._core = core
        self._peers = peers
        self._leader_wait_s = leader_wait_s
        self.asked = 0
        """How often another node was asked because it leads."""
        self._heard = "", 0.0
        """Who answered anything last, and when."""

    async def at_leader(
        self,
        visit: Visit,
        until: float,
        here: Callable[[Visit], Awaitable[T | None]],
        there: Callable[[Visit, str], Awaitable[T | None]],
    ) -> T:
        """Try ``here`` while this node leads and ``there`` at whoever does, until one gives a result.

        Raises ``Declined`` when the time is over, when there is no leader for too long, and at once for a call that
        was forwarded to a node that does not lead: the node that sent it knows better where to try next.
        """
        core = self._core
        pause_s = _PAUSE_S_MIN
        while True:
            leads = core.leads()
            leader = core.name if leads else core.leader()
            if visit.options.hops and leader != core.name:
                raise gave_up(core, visit, Problem("no_leader", f"{core.name} does not lead."))
            if leader is None:
                await self._wait_for_leader(visit, until)
                continue
            result = await here(visit) if leads else None if leader == core.name else await there(visit, leader)
            if result is not None:
                return result
            if core.monotonic() >= until:
                raise gave_up(core, visit, self._unheard(leader))
            await core.wait_leader(leader, min(until, core.monotonic() + pause_s))
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)

    async def _wait_for_leader(self, visit: Visit, until: float) -> None:
        """An outcome that is unknown is worth the whole time; other calls had better go elsewhere soon."""
        soon = until if visit.maybe_applied else min(until, self._core.monotonic() + self._leader_wait_s)
        visit.leaderless = True
        if await self._core.wait_leader(None, soon) is None:
            raise gave_up(self._core, visit, self._core.outage())
        visit.leaderless = False

    def _unheard(self, leader: str) -> Problem:
        """Say why nothing was decided although somebody leads: enough members are there, but that one did not see to it."""
        why, here = self._core.outage(), self._core.name
        if why.code != "no_leader":
            return why
        if leader == here:
            return Problem("no_leader", f"{here} leads, but could not have it stored by a majority in time.")
        who, when_s = self._heard
        if who == leader and self._core.monotonic() - when_s < _LATELY_S:
            detail = f"{leader} leads, as far as {here} knows, and answers, but could not see to it."
            return Problem("no_leader", detail, hint=f"The log of {leader} says what holds it up. {REPEAT}")
        detail = f"{leader} leads, as far as {here} knows, but gives it no answer."
        hint = f"See whether {leader} hangs, or the disks of a majority, or {here} cannot reach its http port. {REPEAT}"
        return Problem("no_leader", detail, hint=hint)

    async def ask(self, leader: str, call: Call, until: float) -> Answer:
        """Send a call to the leader; gives it up as lost when another node comes to lead meanwhile."""
        self.asked += 1
        asked = asyncio.ensure_future(self._peers.call(leader, call, max(0.0, until - self._core.monotonic())))
        changed = asyncio.ensure_future(self._core.wait_leader(leader, until))
        try:
            await asyncio.wait([asked, changed], return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                answer = asked.result()
                self._heard = leader, self._core.monotonic()
                return answer
            raise PeerLost(f"{leader} did not answer before {changed.result() or 'the deadline'} took its place")
        finally:
            asked.cancel()
            changed.cancel()


def forwarded(visit: Visit, now: float) -> Call:
    """Return the call as it goes to the leader: the same bytes, under a key, one hop on."""
    call = visit.call
    headers = {
        "idempotency-key": visit.key,
        "quorl-hops": str(visit.options.hops + 1),
        "quorl-wait-ms": str(max(0, round(1000 * (visit.poll_until - now)))),
        "request-id": visit.scene.request_id,
    }
    for name in _SENT_ON:
        if name in call.headers:
            headers[name] = call.headers[name]
    return call._replace(headers=headers)


def relayed(answer: Answer) -> Answer:
    """Return the leader's answer as it goes to the caller."""
    return answer._replace(headers={name: answer.headers[name] for name in _RELAYED if name in answer.headers})


def sequence_of(answer: Answer) -> int:
    """Return the sequence that an answer names, or 0."""
    text = answer.headers.get("quorl-sequence", "")
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def gave_up(core: Core, visit: Visit, certain: Problem) -> Declined:
    """Return the end of a visit without an outcome; ``certain`` is why, if nothing was done."""
    if not visit.maybe_applied:
        return Declined(certain)
    detail = f"{core.name} could not learn what became of the write under the key {visit.key}. {certain.detail}"
    return Declined(Problem("commit_unknown", detail))
