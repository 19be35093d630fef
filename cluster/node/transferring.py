"""Handing the lead over because somebody asks for it: at the leader it is done, elsewhere the leader is asked.

Nothing is lost by it: what is under way is finished first, what waits goes to the next leader under its key. While the lead
is on its way, which is a moment, nothing new is proposed; if nobody takes it within ``TRANSFER_S``, the leader goes on.
"""

from __future__ import annotations

from quorl.cluster.node.core import Core, PeerLost, Peers, PeerUnreachable
from quorl.cluster.node.forwarding import Leading, forwarded, relayed
from quorl.cluster.node.visit import Visit
from quorl.cluster.protocol.grammar import Rejection
from quorl.cluster.protocol.problems import problem_of
from quorl.cluster.protocol.system import LeadershipTransferred, TransferLeadership, TransferRefused
from quorl.cluster.protocol.wire import Answer

TRANSFER_S = 2.0
"""Twice the longest time-out of an election by default: who was asked and does not lead by then will not."""


class Transferring:
    """The way of an errand; there is one kind."""

    def __init__(self, core: Core, leading: Leading, peers: Peers) -> None:
        self._core = core
        self._leading = leading
        self._peers = peers

    async def answer(self, visit: Visit) -> Answer:
        """Answer one call."""
        return await self._leading.at_leader(visit, visit.until, self._here, self._there)

    async def _here(self, visit: Visit) -> Answer | None:
        assert isinstance(visit.request, TransferLeadership)
        value = await self._core.transfer(visit.request.to, min(visit.until, self._core.monotonic() + TRANSFER_S))
        if isinstance(value, Rejection):
            return visit.voice.problem(problem_of(value), visit.scene)
        return visit.voice.reply(visit.row, value)

    async def _there(self, visit: Visit, leader: str) -> Answer | None:
        """Ask the leader, and go on asking although it leads no more: it is the one that knows what came of it."""
        now = self._core.monotonic()
        try:
            answer = await self._peers.call(leader, forwarded(visit, now), max(0.0, visit.until - now))
        except (PeerUnreachable, PeerLost):
            return None
        return None if answer.status == 503 else relayed(answer)


def transferred(
    before: str, to: str | None, leader: str | None, term: int, took_ms: int
) -> LeadershipTransferred | TransferRefused:
    """What came of it: who was to lead, and who does."""
    if leader is None or to not in {None, leader} or (to is None and leader == before):
        return TransferRefused(detail=f"{to or 'Nobody'} did not take the lead in time; {leader or 'nobody'} leads.")
    return LeadershipTransferred(from_=before, to=leader, term=term, took_ms=took_ms)
