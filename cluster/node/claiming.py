"""Claims at the leader: parked until there is a task, and answered with what the worker has to know to run it.

Invariants: an answer without tasks comes from a node that led after the claim had come. What is answered is read when the
answer leaves, so a repeat gets the tokens that are still its worker's, and no others.
"""

from __future__ import annotations

from typing import NamedTuple

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.machine.outcomes import Outcome
from quorl.cluster.node.core import Core
from quorl.cluster.node.sealing import Sealer
from quorl.cluster.node.visit import Visit, refuse_if_final
from quorl.cluster.protocol.entry import Sealed
from quorl.cluster.protocol.grammar import Rejection
from quorl.cluster.protocol.leases import Claim, Claims, GetDirectives
from quorl.cluster.protocol.problems import problem_of
from quorl.cluster.protocol.together import ClaimBatch, ClaimedBy, ClaimedMany, ClaimMany
from quorl.cluster.protocol.wire import Answer

_LONG_S = 2.0
"""Who led all this time without stepping down had a majority meanwhile, and need not ask for it."""


class Came(NamedTuple):
    """What a command came to, in the form in which it is answered."""

    value: Claims | ClaimedMany | Rejection
    sequence: int
    replayed: bool
    decided: bool = True
    """False: its time was over before anything was put into the log."""


class Claiming:
    """The way of a claim at the leader."""

    def __init__(self, core: Core, sealer: Sealer) -> None:
        self._core = core
        self._sealer = sealer

    async def commit(self, visit: Visit) -> Answer | None:
        """Answer a ``Claim`` or ``ClaimMany``; None to try again."""
        assert isinstance(visit.request, Claim | ClaimMany)
        claim = visit.request if isinstance(visit.request, Claim) else visit.request.sealed()
        came = await self.claim(visit, self._sealer.of(visit), claim)
        if came is None:
            return None
        value = came.value
        if isinstance(value, Rejection):
            answer = visit.voice.problem(problem_of(value), visit.scene)
        else:
            if isinstance(value, ClaimedMany) and isinstance(claim, ClaimBatch):
                value = ClaimedMany(items=value.items + [ClaimedBy()] * (len(claim.claims) - len(value.items)))
            answer = visit.voice.reply(visit.row, value)
        return stamped(answer, came.sequence, replayed=came.replayed)

    async def claim(
        self, visit: Visit, sealed: Sealed, claim: Claim | ClaimBatch, news: GetDirectives | None = None
    ) -> Came | None:
        """Claim; None to try again. Raises ``Declined`` when that would be in vain."""
        core = self._core
        began = core.monotonic()
        before, visit.maybe_applied = visit.maybe_applied, True
        try:
            decided = await core.claim(sealed, claim, visit.poll_until, news)
            if decided is None:
                visit.maybe_applied = before
                return await self._nothing(began, claim)
        except NotApplied as reason:
            visit.maybe_applied = before
            refuse_if_final(visit, reason)
            return None
        except OutcomeUnknown:
            return None
        came = await self._found(decided)
        visit.maybe_applied = False
        return came

    async def attempt(self, visit: Visit, sealed: Sealed, claim: Claim, news: GetDirectives | None = None) -> Came:
        """Claim once, beside something else. Raises ``NotApplied`` or ``OutcomeUnknown``, and leaves the visit's doubts alone."""
        began = self._core.monotonic()
        decided = await self._core.claim(sealed, claim, visit.poll_until, news)
        return await (self._nothing(began, claim) if decided is None else self._found(decided))

    async def _nothing(self, began: float, claim: Claim | ClaimBatch) -> Came:
        core = self._core
        sequence = core.sequence() if core.monotonic() - began >= _LONG_S else await core.barrier()
        nothing = Claims() if isinstance(claim, Claim) else ClaimedMany(items=[])
        return Came(nothing, sequence, replayed=False, decided=False)

    async def _found(self, decided: tuple[Outcome, int]) -> Came:
        outcome, sequence = decided
        value = await self._core.render(outcome.value)
        assert isinstance(value, Claims | ClaimedMany | Rejection), f"a claim came to {type(value).__name__}"
        return Came(value, sequence, outcome.replayed)


def stamped(answer: Answer, sequence: int, *, replayed: bool) -> Answer:
    """Say in an answer which entry it tells of, and whether a receipt gave it."""
    answer.headers["quorl-sequence"] = str(sequence)
    if replayed:
        answer.headers["idempotent-replay"] = "true"
    return answer
