"""The one call of a worker: heartbeat, reports and claim, answered with tasks and with what the worker is asked to do.

Reports take effect at once, under a key of their own; only the claim is waited for, and stands behind them in the same entry when
there is work already. A heartbeat beside them rides along
in the next entry, and nobody waits for it. One that comes alone is gathered at whatever node it came to, and answered
when it is in that node's copy of the state.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.node.claiming import Came, Claiming, stamped
from quorl.cluster.node.core import Core
from quorl.cluster.node.gathering import Gathering, Undelivered
from quorl.cluster.node.patience import Haste
from quorl.cluster.node.reading import Reading
from quorl.cluster.node.sealing import Sealer, reports_key
from quorl.cluster.node.visit import Declined, Visit, refuse_if_final
from quorl.cluster.protocol.entry import Sealed, SignOfLife
from quorl.cluster.protocol.grammar import Rejection
from quorl.cluster.protocol.leases import Claim, Claims, Directives, GetDirectives, Settle, Settled, Sync, Synced
from quorl.cluster.protocol.problems import Problem, problem_of
from quorl.cluster.protocol.wire import Answer


class Reported(NamedTuple):
    """What reports came to."""

    value: Settled | Rejection
    sequence: int
    replayed: bool


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
        reports, wish = request.reports(), request.wish()
        came: list[Came | Reported | None]
        if reports is None:
            came = [await self._claim(visit)]
        elif wish is None:
            came = [await self._settle(visit, reports)]
        else:
            came = await self._both(visit, reports)
        done = [one for one in came if one is not None]
        if len(done) < len(came):
            return None
        sequence, replayed = max(one.sequence for one in done), any(one.replayed for one in done)
        settled, claims = None, Claims()
        for one in done:
            match one.value:
                case Rejection() as rejection:
                    problem = visit.voice.problem(problem_of(rejection), visit.scene)
                    return stamped(problem, sequence, replayed=replayed)
                case Settled():
                    settled = one.value
                case Claims():
                    claims = one.value
        # And it was: should the state not be readable any more, nobody is to be told otherwise.
        visit.maybe_applied = True
        return stamped(await self._answer(visit, settled, claims), sequence, replayed=replayed)

    async def _claim(self, visit: Visit) -> Came | None:
        """Claim; None to try again."""
        request = _request(visit)
        wish = request.wish()
        assert wish is not None, "a beat never comes here"
        return await self._claiming.claim(visit, self._seal(visit, wish, visit.key), wish, _directives(request))

    async def _settle(self, visit: Visit, reports: Settle) -> Reported | None:
        """Commit the reports; None to try again. From here on something was applied: until the answer leaves, the visit says so."""
        before, visit.maybe_applied = visit.maybe_applied, True
        try:
            return await self._report(visit, reports)
        except NotApplied as reason:
            visit.maybe_applied = before
            refuse_if_final(visit, reason)
            return None
        except OutcomeUnknown:
            return None

    async def _both(self, visit: Visit, reports: Settle) -> list[Came | Reported | None]:
        """Commit the reports, and behind them in the same entry the claim, if there is something to claim already.

        Until the outcome of both is known the visit is in doubt. Each has a key of its own, so a repeat finds what was
        decided of either. Reports may make work: a claim that found nothing, and does not wait, looks again after them.
        """
        request = _request(visit)
        wish = request.wish()
        assert wish is not None, "there is a claim, too"
        before, visit.maybe_applied = visit.maybe_applied, True
        sealed, begun = self._seal(visit, wish, visit.key), False

        async def claim() -> Came:
            nonlocal begun
            begun = True
            return await self._claiming.attempt(visit, sealed, wish, _directives(request))

        claiming = asyncio.ensure_future(claim())  # it begins when the reports are in line, and first wait
        settled: Reported | None = None
        try:
            settled = await self._report(visit, reports)
            if isinstance(settled.value, Rejection):
                return [settled]
            claimed = await claiming
        except NotApplied as reason:
            if settled is None:  # was the claim, which stands behind them, not applied either?
                claiming.cancel()
                await asyncio.wait([claiming])
                if not begun or (not claiming.cancelled() and isinstance(claiming.exception(), NotApplied)):
                    visit.maybe_applied = before
            refuse_if_final(visit, reason)
            return [None]
        except OutcomeUnknown:
            return [None]
        finally:
            claiming.cancel()
            claiming.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not claimed.decided and visit.poll_until <= self._core.monotonic():
            again = await self._claim(visit)
            visit.maybe_applied = True
            return [settled, again]
        return [settled, claimed]

    async def _report(self, visit: Visit, reports: Settle) -> Reported:
        """Commit the reports. Raises ``NotApplied`` or ``OutcomeUnknown``."""
        outcome, sequence = await self._core.submit(self._seal(visit, reports, reports_key(visit.key)), Haste.PATIENT)
        assert isinstance(outcome.value, Settled | Rejection), f"reports came to {type(outcome.value).__name__}"
        return Reported(outcome.value, sequence, outcome.replayed)

    def _seal(self, visit: Visit, command: Settle | Claim, key: str) -> Sealed:
        return self._sealer.seal(visit.row.name, command, key)

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
