"""What a node does while it leads: it stamps and proposes entries, parks claims, and sees to what is due.

Invariants: nothing is stamped or decided here before everything that older leaders committed was applied here. Nothing
stays behind when the lead is lost: what was not proposed fails with ``NotApplied``, and goes to the next leader. Where the
members have said that too few of them have room on their disks, nothing that is asked for is proposed. An entry
for its own sake (something is due, something is left to clear away) leaves when nobody asks for one, and no faster than
once a tick.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

from quorl.cluster.consensus.port import Clock, Glance, NotApplied
from quorl.cluster.consensus.replica import TICK_S
from quorl.cluster.machine.events import Event
from quorl.cluster.machine.machine import Machine
from quorl.cluster.node.committer import Committer, Decided, Proposer
from quorl.cluster.node.meters import Meters
from quorl.cluster.node.parking import Parking, gather_s
from quorl.cluster.node.patience import Haste
from quorl.cluster.node.sight import StateSight
from quorl.cluster.node.subjects import Subject, subjects_of
from quorl.cluster.node.timekeeper import Stamp, Timekeeper
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import Sealed, SignOfLife, encode_command
from quorl.cluster.protocol.leases import Claim, GetDirectives
from quorl.cluster.protocol.system import Found
from quorl.cluster.protocol.together import ClaimBatch
from quorl.shielding import shield

_SEED_BITS = 63
"""Of the dice in an entry: as many as SQLite's integers hold without a sign."""
_MISSED_MS = 1_000
_MISSED_SHARE = 100
"""A hundredth of a wait, and a second at least, may be lost when the lead changes: see ``_would_be_missed``."""
_QUIET_MS = 10_000
"""While tasks are QUEUED, cluster time goes on in steps of this size at most."""


class Footing(NamedTuple):
    """What a leadership needs of its node."""

    name: str
    clock: Clock
    dice: random.Random
    new_token: Callable[[], str]
    replica: Proposer
    glance: Callable[[], Glance]
    machine: Callable[[], Machine]
    """The state as it is now; another object after a snapshot was put in place."""
    term_at: Callable[[int], int | None]
    """The term of the log's entry at an index."""


class Leadership:
    """One node's lead, while it has it."""

    def __init__(self, footing: Footing, time: Timekeeper, meters: Meters | None = None) -> None:
        self._footing = footing
        self._machine = footing.machine
        self._time = time
        self.term = 0
        """The term in which this node serves as the leader, else 0."""
        self._pulsed_s = 0.0
        self._rested_at = -1
        """The index of the last entry after which nothing is QUEUED, as far as was looked."""
        self._founding = False
        self._lacking = ""
        """Why no majority can store what is new, as far as the members have said."""
        self._sight = StateSight(footing.machine)
        self.parking = Parking(self._sight, lambda: self.committer, footing.clock.monotonic)
        self.committer = Committer(
            footing.replica,
            self._stamp,
            self._partitions,
            node=footing.name,
            seed=partial(footing.dice.getrandbits, _SEED_BITS),
            company=self.parking,
            meters=meters,
        )

    # -- what the node says ----------------------------------------------------------------------------------------
    def look(self, now: Glance, *, stopping: bool) -> None:
        """Something of what is known of the group may have changed, or a tick went by."""
        self._time.look(deciding=now.quorum_fresh)
        if now.leads and self.term != now.term:
            if self._footing.term_at(now.applied_index) == now.term:
                self._begin(now.term)
        elif not now.leads and self.term:
            self.term = 0
            self.step_aside(NotApplied("no_leader", f"{self._footing.name} does not lead any more"))
        if now.leads and self.term == now.term and not stopping and self.committer.idle:
            self._pulse()

    def applied(self, events: Sequence[Event]) -> None:
        """An entry was applied here."""
        if self.term:
            for event in events:
                found = subjects_of(event)
                if found is not None and found.kind != "task":  # claims wait for queues, and for news of their workers
                    for name in found.names:
                        self.parking.news(Subject(found.kind, name))

    def step_aside(self, reason: NotApplied) -> None:
        """This node leads no longer, or is about to leave."""
        self.parking.step_aside(reason)
        self.committer.step_aside(reason)

    def told_of_room(self, lacking: str) -> None:
        """Take note of why no majority can store what is new; empty: one can, as far as is known.

        What was not proposed then is refused at once, which is certain: nobody has seen it. What is under way stays so,
        and so do entries for the cluster's own sake, of which one may come to be under way.
        """
        before, self._lacking = self._lacking, lacking
        if lacking and not before:
            self.parking.step_aside(self._refusal())
            self.committer.turn_away(self._refusal())
        elif before and not lacking:
            self.committer.refresh()

    def _refusal(self) -> NotApplied:
        return NotApplied("storage_full", self._lacking)

    def _check_room(self) -> None:
        if self._lacking:
            raise self._refusal()

    # -- what requests ask ------------------------------------------------------------------------------------------
    def submit(self, sealed: Sealed, haste: Haste = Haste.SOON) -> Awaitable[Decided]:
        """See ``Core``. Who goes away before his command was proposed is not waited for; later it makes no difference."""
        self._check_room()
        return self.committer.submit(sealed, haste)

    async def barrier(self) -> int:
        """See ``Core``."""
        self._check_room()
        return await shield(self.committer.barrier())

    async def claim(
        self, sealed: Sealed, claim: Claim | ClaimBatch, until: float, news: GetDirectives | None
    ) -> Decided | None:
        """See ``Core``. Not shielded: who goes away before the claim was proposed is granted nothing."""
        self._check_room()
        return await self.parking.claim(sealed, claim, until, news)

    async def sign(self, signs: Sequence[SignOfLife]) -> int:
        """See ``Core``."""
        return await shield(self.committer.sign([one for one in signs if self._alive(one.worker_id)]))

    def note(self, sign: SignOfLife) -> None:
        """See ``Core``."""
        worker = self._sight.worker(sign.worker_id)
        if worker is not None and worker.alive:
            self.committer.note(sign, gather_s(worker.dead_after_ms))

    def _alive(self, worker_id: int) -> bool:
        worker = self._sight.worker(worker_id)
        return worker is not None and worker.alive

    # -- its own doing ---------------------------------------------------------------------------------------------
    def _begin(self, term: int) -> None:
        """Everything that older leaders committed is applied here: this node may stamp and decide."""
        machine = self._machine()
        self.term = term
        self._time.take_over(machine.now_ms)
        self.committer.lead()
        if machine.cluster_id is None and not self._founding:
            self._founding = True
            command = encode_command(Found(cluster_id=self._footing.new_token()))
            founded = self.committer.submit(Sealed(None, b"", command))
            founded.add_done_callback(self._founded)
        elif machine.next_alarm_ms is not None:
            self._own_entry()  # so that workers are refreshed now, and silence counts from here on

    def _founded(self, done: asyncio.Future[Decided]) -> None:
        self._founding = False
        if not done.cancelled():
            done.exception()

    def _pulse(self) -> None:
        """Nobody asks for anything: an empty entry lets the machine go on with what is due or left to clear away."""
        now = self._footing.clock.monotonic()
        if now - self._pulsed_s < TICK_S:
            return
        self._pulsed_s = now
        machine, stamp = self._machine(), self._time.stamp()
        if (
            machine.due
            or _would_be_missed(machine.now_ms, machine.next_alarm_ms, stamp.now_ms)
            or _reached(machine.next_alarm_ms, stamp.now_ms)
            or _reached(machine.next_calendar_ms, stamp.wall_ms)
            or (stamp.now_ms - machine.now_ms >= _QUIET_MS and self._waits(machine))
        ):
            self._own_entry()

    def _waits(self, machine: Machine) -> bool:
        """Whether tasks are QUEUED: how long they have been so is seen by the time of the last entry, and nothing else makes one."""
        index = machine.position.index
        if self._rested_at != index and not self._sight.waits():
            self._rested_at = index  # nothing comes without an entry, so that one look at an idle cluster is enough
        return self._rested_at != index

    def _own_entry(self) -> None:
        self.committer.barrier().add_done_callback(lambda done: done.cancelled() or done.exception())

    def _stamp(self) -> Stamp:
        self._time.look(deciding=self._footing.glance().quorum_fresh)
        return self._time.stamp()

    def _partitions(self, topic: str) -> int | None:
        try:
            return self._machine().partitions(topic)
        except sqlite3.Error:
            # What a broken disk means is judged where the entry is applied; until then the topic counts as the largest.
            return limits.PARTITIONS_MAX


def _would_be_missed(last_ms: int, alarm_ms: int | None, now_ms: int) -> bool:
    """Whether so much time has gone by since the last entry that the next leader, who goes on from there, ought to know.

    What waits for a moment loses a hundredth of its wait, or a second, when the lead changes; and a cluster in which
    something is due in a week is not kept busy by that.
    """
    return alarm_ms is not None and now_ms - last_ms >= max(_MISSED_MS, (alarm_ms - last_ms) // _MISSED_SHARE)


def _reached(moment_ms: int | None, now_ms: int) -> bool:
    return moment_ms is not None and moment_ms <= now_ms
