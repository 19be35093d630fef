"""Writes: at the leader into the log, elsewhere byte for byte to the leader, and again until the outcome is known.

Every try of a call goes under the same key, so that however often it is repeated it happens once. An answer leaves
this node only after this node has applied what it tells of, so that the caller's next read here sees it.
"""

from __future__ import annotations

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.node.core import Core, PeerLost, PeerUnreachable
from quorl.cluster.node.forwarding import Leading, forwarded, relayed, sequence_of
from quorl.cluster.node.polls import LongPolls
from quorl.cluster.node.visit import Declined, Visit
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Rejection
from quorl.cluster.protocol.problems import CATALOGUE, Problem, problem_of
from quorl.cluster.protocol.wire import Answer

_TRY_ELSEWHERE = {"no_leader", "no_quorum", "not_ready", "shutting_down"}
_STATUS_NOT_APPLIED = {429, 503, 507, 508}
_STATUS_UNKNOWN = {502, 504}


class Writing:
    """The way of a command."""

    def __init__(self, core: Core, leading: Leading, polls: LongPolls) -> None:
        self._core = core
        self._leading = leading
        self._polls = polls

    async def write(self, visit: Visit) -> Answer:
        """Answer one write."""
        return await self._leading.at_leader(
            visit, visit.until, lambda: self._commit(visit), lambda leader: self._forward(visit, leader)
        )

    async def _commit(self, visit: Visit) -> Answer | None:
        """Commit here. An empty ``Consume`` is tried again whenever something happens to its topic.

        Its last try says so in the log: after it, no copy of an earlier one can take messages that nobody would get.
        """
        assert visit.sealed is not None
        last = visit.patient is None
        while True:
            last = last or self._core.monotonic() >= visit.poll_until
            before, visit.maybe_applied = visit.maybe_applied, True
            try:
                outcome, sequence = await self._core.submit(visit.sealed if last else visit.patient or visit.sealed)
            except NotApplied as reason:
                visit.maybe_applied = before
                _refuse_if_final(visit, reason)
                return None
            except OutcomeUnknown:
                return None
            value = await self._core.render(outcome.value)
            visit.maybe_applied = False
            if last or not isinstance(value, t.Consumed) or value.items:
                break
            assert isinstance(visit.request, t.Consume)
            # An append may stand behind this very command in its entry: what came with it counts as news, too.
            last = not await self._polls.wait_topic(visit.request.topic, sequence - 1, visit.poll_until)
        if isinstance(value, Rejection):
            answer = visit.voice.problem(problem_of(value), visit.scene)
        else:
            answer = visit.voice.reply(visit.row, value)
        if outcome.replayed:
            answer.headers["idempotent-replay"] = "true"
        answer.headers["quorl-sequence"] = str(sequence)
        return answer

    async def _forward(self, visit: Visit, leader: str) -> Answer | None:
        core = self._core
        before, visit.maybe_applied = visit.maybe_applied, True
        try:
            answer = await self._leading.ask(leader, forwarded(visit, core.monotonic()), visit.until)
        except PeerUnreachable:
            visit.maybe_applied = before
            return None
        except PeerLost:
            return None
        if answer.status in _STATUS_UNKNOWN:
            return None
        if answer.status in _STATUS_NOT_APPLIED:
            visit.maybe_applied = before
            if answer.status == 503 or before:
                return None
        # There is an outcome. Should the time be over before it has left, "certainly not applied" would be a lie.
        await core.wait_applied(sequence_of(answer), visit.until)
        return relayed(answer)


def _refuse_if_final(visit: Visit, reason: NotApplied) -> None:
    """Let the visit go on only if trying elsewhere may help, or an earlier try may have done something."""
    if reason.code in _TRY_ELSEWHERE or visit.maybe_applied:
        return
    assert reason.code in CATALOGUE, f"no problem is called {reason.code}"
    raise Declined(Problem(reason.code, str(reason)))
