"""Elections: who may stand, who may vote, and when nobody should.

The library raises its term as soon as its timer fires. A member that was paused or cut off would then depose a healthy
leader on its return. So before the library may campaign, a *pre-vote* asks the others whether they would vote, which
changes nothing anywhere; and members that hear from a live leader answer neither pre-votes nor votes (*sticky leader*).
A leader's own dying connection lifts that stickiness, and a transfer that the leader itself asked for passes it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from quorl.cluster.consensus import library
from quorl.cluster.consensus.messages import PreVote, PreVoteGranted, RequestVote, TermHint, Vote
from quorl.cluster.consensus.port import Clock

if TYPE_CHECKING:
    from quorl.cluster.consensus.engine import Engine

_BEREFT_RETRY_S = (0.02, 0.12)
"""Pause between pre-votes while the leader is known to be dead: short, and random so that two seldom ask at once."""
_SPLIT_RETRY_S = (0.05, 0.2)
"""Pause after a campaign in which two asked at once all the same: longer than the votes of a healthy pair take."""


class Election:
    """The election state of one member, beside the library's."""

    def __init__(self, engine: Engine, clock: Clock, dice: random.Random, min_timeout_s: float) -> None:
        self._engine = engine
        self._clock = clock
        self._dice = dice
        self._min_timeout_s = min_timeout_s
        self._leader_contact = -math.inf
        self._bereft = False
        self._round = 0
        self._asked = -math.inf
        self._granted: set[str] = set()
        self._won = False
        self._votes_counted: set[tuple[int, str]] = set()
        self.may_stand: Callable[[], bool] = lambda: True
        self.may_vote: Callable[[], bool] = lambda: True
        self.campaign_is_transfer = False

    # -- the leader's life ------------------------------------------------------------------------------------------
    def leader_spoke(self) -> None:
        """A message of the current leader arrived: whatever a pre-vote under way brings is void."""
        self._leader_contact = self._clock.monotonic()
        self._bereft = False
        self._round += 1
        self._won = False

    def leader_died(self) -> None:
        """The leader's process is gone: do not wait for the time-out, and do not protect it."""
        self._leader_contact = -math.inf
        self._bereft = True
        self._engine.election_deadline = self._clock.monotonic() + self._dice.uniform(*_BEREFT_RETRY_S) / 2

    def leader_is_fresh(self) -> bool:
        """Whether a live leader is known: by its messages, or, on the leader, by answers of a majority.

        Whoever asks for an election meanwhile gets no answer from this member.
        """
        engine, now = self._engine, self._clock.monotonic()
        if not engine.leads:
            return now - self._leader_contact < self._min_timeout_s
        answered = sum(1 for m in engine.others if engine.last_response.get(m, 0.0) > now - self._min_timeout_s)
        return 1 + answered >= engine.majority

    def can_decide(self) -> bool:
        """On the leader: whether a majority of members that count, itself included, could commit an entry now.

        Who only answers is not enough: one that fills an empty disk or waits for a snapshot takes nothing yet.
        """
        engine = self._engine
        if not engine.leads:
            return False
        since, committed, matched = (
            self._clock.monotonic() - self._min_timeout_s,
            engine.commit_index,
            engine.match_index,
        )
        able = 1
        for member, at in engine.replication.took_at.items():
            able += at > since and matched.get(member, 0) >= committed
        return able >= engine.majority

    # -- standing ---------------------------------------------------------------------------------------------------
    def before_tick(self) -> None:
        """Turn a fired election timer into a pre-vote, and let the library campaign only after one was won."""
        engine = self._engine
        self.campaign_is_transfer = engine.transfer_asked
        won, self._won = self._won, False
        if engine.leads or engine.election_deadline >= self._clock.monotonic() or engine.transfer_asked:
            return
        # Grants that were slept over speak of a past in which there was no leader.
        if won and self.may_stand() and self._clock.monotonic() - self._asked < self._min_timeout_s:
            return
        pause = self._dice.uniform(*_BEREFT_RETRY_S) if self._bereft else engine.fresh_timeout()
        engine.election_deadline = self._clock.monotonic() + pause
        engine.forget_leader()
        if self.may_stand():
            self._ask()

    def after_tick(self) -> None:
        """Let a candidate that splits the votes of a dead leader's followers try again soon, as a pre-vote would."""
        engine, now = self._engine, self._clock.monotonic()
        if self._bereft and engine.role == library.CANDIDATE and engine.election_deadline > now + _SPLIT_RETRY_S[1]:
            engine.election_deadline = now + self._dice.uniform(*_SPLIT_RETRY_S)

    def _ask(self) -> None:
        engine, log = self._engine, self._engine.log
        self._round += 1
        self._asked = self._clock.monotonic()
        self._granted = {engine.name}
        question = PreVote(self._round, engine.term + 1, log.last_index, log.term_at(log.last_index) or 0)
        for member in engine.reachable:
            engine.say(member, question)
        self._count()

    def _count(self) -> None:
        if len(self._granted) >= self._engine.majority:
            self._won = True
            self._engine.election_deadline = 0.0
            self._engine.wants_tick()

    # -- what the others ask and answer -----------------------------------------------------------------------------
    def on_pre_vote(self, member: library.Member, asked: PreVote) -> None:
        """Say whether this member would vote, which promises nothing."""
        engine, log = self._engine, self._engine.log
        if asked.term <= engine.term:
            engine.say(member, TermHint(engine.term))
        elif self._votes() and not self.leader_is_fresh() and self._up_to_date(asked, log.last_index):
            engine.say(member, PreVoteGranted(asked.round))

    def _votes(self) -> bool:
        return not self._engine.blank and self.may_vote()

    def _up_to_date(self, asked: PreVote, last_index: int) -> bool:
        last_term = self._engine.log.term_at(last_index) or 0
        return (asked.last_term, asked.last_index) >= (last_term, last_index)

    def on_pre_vote_granted(self, member: library.Member, granted: PreVoteGranted) -> None:
        """Count a promise of the current round."""
        if granted.round == self._round and not self._engine.leads:
            self._granted.add(str(member.id))
            self._count()

    def on_request_vote(self, asked: RequestVote) -> bool:
        """Whether the library may look at this request: not while a leader lives, and not from an empty disk."""
        return self._votes() and (asked.transfer or not self.leader_is_fresh())

    def on_vote(self, member: library.Member, vote: Vote) -> bool:
        """Whether this vote counts: once per member and term."""
        ballot = (vote.term, str(member.id))
        if ballot in self._votes_counted:
            return False
        self._votes_counted = {b for b in self._votes_counted if b[0] == vote.term} | {ballot}
        return True
