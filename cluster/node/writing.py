"""Writes: at the leader into the log, elsewhere byte for byte to the leader, and again until the outcome is known.

Every try of a call goes under the same key, so that however often it is repeated it happens once. An answer leaves
this node only after this node has applied what it tells of, so that the caller's next read here sees it.
"""

from __future__ import annotations

import msgspec

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.machine.sameness import Compare, Likeness
from quorl.cluster.node.claiming import Claiming, stamped
from quorl.cluster.node.core import Core, PeerLost, PeerUnreachable
from quorl.cluster.node.forwarding import Leading, forwarded, relayed, sequence_of
from quorl.cluster.node.guessing import with_guess
from quorl.cluster.node.patience import Haste
from quorl.cluster.node.polls import LongPolls
from quorl.cluster.node.sealing import Sealer, patient
from quorl.cluster.node.subjects import Subject
from quorl.cluster.node.syncing import Syncing, is_beat
from quorl.cluster.node.visit import Visit, refuse_if_final
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Rejection, Reply
from quorl.cluster.protocol.leases import Claim, CompleteTask, FailTask, ReleaseTask, Sync
from quorl.cluster.protocol.problems import IdempotencyKeyReused, problem_of
from quorl.cluster.protocol.submitting import Submit
from quorl.cluster.protocol.tasks import TaskExists
from quorl.cluster.protocol.together import ClaimMany, Report
from quorl.cluster.protocol.wire import Answer

_STATUS_NOT_APPLIED = {429, 503, 507, 508}
_STATUS_UNKNOWN = {502, 504}
_OF_WORKERS = (CompleteTask, FailTask, ReleaseTask, Report)


class Writing:
    """The way of a command."""

    def __init__(
        self, core: Core, leading: Leading, polls: LongPolls, claiming: Claiming, syncing: Syncing, sealer: Sealer
    ) -> None:
        self._core = core
        self._leading = leading
        self._polls = polls
        self._claiming = claiming
        self._syncing = syncing
        self._sealer = sealer

    async def write(self, visit: Visit) -> Answer:
        """Answer one write."""
        if isinstance(visit.request, Sync) and is_beat(visit.request):
            return await self._syncing.beat(visit)
        return await self._leading.at_leader(visit, visit.until, self._here, self._forward)

    async def _here(self, visit: Visit) -> Answer | None:
        match visit.request:
            case Claim() | ClaimMany():
                return await self._claiming.commit(visit)
            case Sync():
                return await self._syncing.commit(visit)
            case _:
                return await self._commit(visit)

    async def _commit(self, visit: Visit) -> Answer | None:
        """Commit here, and answer with what it came to; None to try again."""
        decided = await self._decided(visit)
        if decided is None:
            return None
        value, sequence, replayed = decided
        if isinstance(value, (TaskExists, IdempotencyKeyReused)) and isinstance(visit.request, Submit):
            under_its_key = isinstance(value, IdempotencyKeyReused)
            value = await self._as_meant(visit.request, visit.key, value)
            replayed = replayed or (under_its_key and isinstance(value, Reply))
        value = await with_guess(self._core.read, visit.request, value)
        if isinstance(value, Rejection):
            answer = visit.voice.problem(problem_of(value), visit.scene)
        else:
            answer = visit.voice.reply(visit.row, value)
        return stamped(answer, sequence, replayed=replayed)

    async def _decided(self, visit: Visit) -> tuple[Reply | Rejection, int, bool] | None:
        """What the command came to, by the entry of which sequence, and whether it had done so before; None to try again.

        An empty ``Consume`` is tried again here, whenever something happens to its topic. Its last try says so in the log: after
        it, no copy of an earlier one can take messages that nobody would get.
        """
        request, last = visit.request, True
        first = sealed = self._sealer.of(visit)
        if isinstance(request, t.Consume) and visit.until > visit.ready_until:
            first, last = patient(sealed, request), False
        haste = Haste.PATIENT if isinstance(request, _OF_WORKERS) else Haste.AT_ONCE
        while True:
            last = last or self._core.monotonic() >= visit.poll_until
            before, visit.maybe_applied = visit.maybe_applied, True
            try:
                outcome, sequence = await self._core.submit(sealed if last else first, haste)
            except NotApplied as reason:
                visit.maybe_applied = before
                refuse_if_final(visit, reason)
                return None
            except OutcomeUnknown:
                return None
            value = await self._core.render(outcome.value)
            visit.maybe_applied = False
            if last or not isinstance(value, t.Consumed) or value.items:
                return value, sequence, outcome.replayed
            assert isinstance(request, t.Consume)
            # An append may stand behind this very command in its entry: what came with it counts as news, too.
            topic = Subject("topic", request.topic)
            last = not await self._polls.wait_news(topic, sequence - 1, visit.poll_until)

    async def _as_meant(
        self, request: Submit, key: str, refusal: TaskExists | IdempotencyKeyReused
    ) -> Reply | Rejection:
        """What a refused submit is answered with: all the same what it asked for, if it differs in nothing but how its JSON is written."""
        again = isinstance(refusal, IdempotencyKeyReused)
        found = await self._core.read(Compare(submit=request.untraced().sealed(), key=key if again else None))
        if isinstance(found, Likeness) and found.same is not None:
            return found.same
        differs = found.differs if isinstance(found, Likeness) else ""
        detail = f"{refusal.detail} It differs in {differs}." if differs else refusal.detail
        return msgspec.structs.replace(refusal, detail=detail)

    async def _forward(self, visit: Visit, leader: str) -> Answer | None:
        core = self._core
        before, visit.maybe_applied = visit.maybe_applied, True
        try:
            answer = await self._ask(visit, leader)
            if answer is None:
                return None
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

    async def _ask(self, visit: Visit, leader: str) -> Answer | None:
        """Ask the leader. What waits there is broken off when this node is about to stop, and asked for at once.

        That is the same call under the same key: should it have come to something meanwhile, that is the answer.
        """
        now = self._core.monotonic()
        if self._polls.draining:
            visit.poll_until = min(visit.poll_until, now)
        asking = self._leading.ask(leader, forwarded(visit, now), visit.until)
        return await (self._polls.unless_draining(asking) if visit.poll_until > now else asking)
