"""The one call of a worker: heartbeat, reports and claim, answered with tasks and with what the worker is asked to do.

Reports take effect at once, under a key of their own; only the claim is waited for. A heartbeat beside them rides along
in the next entry, and nobody waits for it. One that comes alone is gathered at whatever node it came to, and answered
when it is in that node's copy of the state.
"""

from __future__ import annotations

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.node.claiming import Claiming, stamped
from quorl.cluster.node.core import Core
from quorl.cluster.node.gathering import Gathering, Undelivered
from quorl.cluster.node.reading import Reading
from quorl.cluster.node.sealing import Sealer, reports_key
from quorl.cluster.node.visit import Declined, Visit, refuse_if_final
from quorl.cluster.protocol.entry import SignOfLife
from quorl.cluster.protocol.grammar import Rejection
from quorl.cluster.protocol.leases import Claims, Directives, GetDirectives, Settle, Settled, Sync, Synced
from quorl.cluster.protocol.problems import Problem, problem_of
from quorl.cluster.protocol.wire import Answer


class Syncing:
    """The way of a ``Sync``."""

    def __init__(self, core: Core, claiming: Claiming, gathering: Gathering, reading: Reading, sealer: Sealer) -> None:
        self._core = core
        self._claiming = claiming
        self._gathering = gathering
        self._reading = reading
        self._sealer = sealer

    # -- at any node -----------------------------------------------------------------------------------------------
    async def beat(self, visit: Visit) -> Answer:
        """Answer a ``Sync`` that neither reports nor claims."""
        core, request = self._core, _request(visit)
        dead_after_ms = await core.dead_after_ms(request.worker_id)
        if dead_after_ms is None:  # it may have registered elsewhere a moment ago
            await self._reading.become_fresh(visit)
            dead_after_ms = await core.dead_after_ms(request.worker_id)
        if dead_after_ms is None:
            sequence = core.sequence()
        else:
            try:
                until = min(visit.ready_until, core.monotonic() + dead_after_ms / 2000)
                sequence = await self._gathering.deliver(_sign(request), dead_after_ms, until)
            except Undelivered:
                detail = f"{core.name} could not bring the heartbeat into the state in time."
                raise Declined(Problem("not_ready", detail)) from None
        return stamped(await self._answer(visit, None, Claims()), sequence, replayed=False)

    # -- at the leader ---------------------------------------------------------------------------------------------
    async def commit(self, visit: Visit) -> Answer | None:
        """Answer a ``Sync`` that reports or claims; None to try again."""
        request = _request(visit)
        self._core.note(_sign(request))
        settled: Settled | None = None
        claims, replayed, sequence = Claims(), False, 0
        reports = request.reports()
        if reports is not None:
            came = await self._settle(visit, reports)
            if came is None:
                return None
            value, sequence, replayed = came
            if isinstance(value, Rejection):
                return stamped(visit.voice.problem(problem_of(value), visit.scene), sequence, replayed=replayed)
            settled = value
        wish = request.wish()
        if wish is not None:
            sealed = self._sealer.seal(visit.row.name, wish, visit.key)
            granted = await self._claiming.claim(visit, sealed, wish, _directives(request))
            if granted is None:
                return None
            sequence, replayed = max(sequence, granted.sequence), replayed or granted.replayed
            if isinstance(granted.value, Rejection):
                return stamped(visit.voice.problem(problem_of(granted.value), visit.scene), sequence, replayed=replayed)
            claims = granted.value
        return stamped(await self._answer(visit, settled, claims), sequence, replayed=replayed)

    async def _settle(self, visit: Visit, reports: Settle) -> tuple[Settled | Rejection, int, bool] | None:
        """Commit the reports. From here on something was applied: until the answer leaves, the visit says so."""
        before, visit.maybe_applied = visit.maybe_applied, True
        try:
            sealed = self._sealer.seal(visit.row.name, reports, reports_key(visit.key))
            outcome, sequence = await self._core.submit(sealed)
        except NotApplied as reason:
            visit.maybe_applied = before
            refuse_if_final(visit, reason)
            return None
        except OutcomeUnknown:
            return None
        assert isinstance(outcome.value, Settled | Rejection), f"reports came to {type(outcome.value).__name__}"
        return outcome.value, sequence, outcome.replayed

    async def _answer(self, visit: Visit, settled: Settled | None, claims: Claims) -> Answer:
        told = await self._core.read(_directives(_request(visit)))
        if isinstance(told, Rejection):
            return visit.voice.problem(problem_of(told), visit.scene)
        assert isinstance(told, Directives)
        reply = Synced(
            accepted=settled.accepted if settled else 0,
            rejected=settled.rejected if settled else [],
            tasks=claims.tasks,
            directives=told,
        )
        return visit.voice.reply(visit.row, reply)


def _request(visit: Visit) -> Sync:
    assert isinstance(visit.request, Sync)
    return visit.request


def is_beat(request: Sync) -> bool:
    """Whether a ``Sync`` neither reports nor claims."""
    return request.claim is None and not (request.complete or request.fail or request.release or request.progress)


def _sign(request: Sync) -> SignOfLife:
    """The heartbeat for the log. A lease that is reported on is held until then, whether the heartbeat names it or not.

    Signs of life come before all commands: otherwise the lease would go back before its own report.
    """
    beat = request.beat
    if beat is None:
        return SignOfLife(request.worker_id)
    if beat.tokens is None:
        return SignOfLife(request.worker_id, None, beat.claims, beat.claimed)
    reported = (
        one.lease for some in (request.complete, request.fail, request.release, request.progress) for one in some
    )
    return SignOfLife(request.worker_id, tuple(dict.fromkeys((*beat.tokens, *reported))), beat.claims, beat.claimed)


def _directives(request: Sync) -> GetDirectives:
    return GetDirectives(worker_id=request.worker_id, tokens=request.beat.tokens if request.beat else None)
