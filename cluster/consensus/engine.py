"""pysyncobj's engine, mended: election timer, vote rules and commit rule are the library's, the rest is replaced.

Driven from outside by ``tick`` and ``receive``; it owns no thread, no socket and no file. ``die`` is fail-stop: after it
nothing is said, stored, applied or answered any more.
"""

from __future__ import annotations

import asyncio
import errno
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from quorl.cluster.consensus import library
from quorl.cluster.consensus.damage import is_damage
from quorl.cluster.consensus.election import Election
from quorl.cluster.consensus.filter import Filter
from quorl.cluster.consensus.library import Member
from quorl.cluster.consensus.link import Link
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.consensus.messages import Message
from quorl.cluster.consensus.names import Named
from quorl.cluster.consensus.port import NO_DESCRIPTORS, Ahead, Apply, Clock, NotApplied, OutcomeUnknown, Timing
from quorl.cluster.consensus.replication import Replication
from quorl.cluster.protocol import limits


class Outside(NamedTuple):
    """What the engine calls: to send, to apply, and to tell what it cannot decide."""

    send: Callable[[str, Message], bool]
    apply: Apply
    ahead: Ahead
    wants_tick: Callable[[], None]
    snapshot_needed: Callable[[str], None]
    died: Callable[[str], None]
    waited: Callable[[], bool]


class Dead(Exception):
    """This member has just stopped for good: nothing of what it was doing goes on."""


class Engine(Named):
    """One member's consensus. All methods run on one loop, one at a time."""

    def __init__(
        self,
        name: str,
        others: list[str],
        log: LogStore,
        applied_index: int,
        clock: Clock,
        dice: random.Random,
        timing: Timing,
        outside: Outside,
    ) -> None:
        library.use(clock, dice)
        self.name = name
        self.fatal: str | None = None
        """Why this member has stopped for good."""
        self.damaged = False
        """Whether that was a damaged state: no restart makes it better."""
        self.suspended = False
        """Whether nothing is applied for the time being."""
        self.leaving = False
        """Whether nothing new is proposed, as the lead is about to be given away."""
        self._outside = outside
        self._clock = clock
        self._waiting: dict[int, tuple[int, asyncio.Future[Any]]] = {}
        self._prepared_term = 0
        """The term of the lead in which the state was told to prepare an entry; 0: nothing can be left to retract."""
        self._flush_s = 0.0
        """How long the log's flushes took lately."""
        conf = library.SyncObjConf(
            autoTick=False,
            journalFile=log,
            fullDumpFile=None,
            useFork=False,
            # The library wants more than three heartbeats, where a config may say exactly three; fractions of it round up, too.
            raftMinTimeout=max(timing.election_min_s, math.nextafter(3 * timing.heartbeat_s, math.inf)),
            raftMaxTimeout=timing.election_max_s,
            appendEntriesPeriod=timing.heartbeat_s,
            leaderFallbackTimeout=timing.step_down_s,
            connectionTimeout=max(3.5, timing.election_max_s),
            appendEntriesUseBatch=True,  # its other setting opens a pipe to wake a poller that we do not have
            commandsWaitLeader=False,
            dynamicMembershipChange=False,
        )
        self.election = Election(self, clock, dice, timing.election_min_s)
        self.replication = Replication(self)
        self.filter = Filter(self)
        self._members = {other: Member(other) for other in others}
        self.others = frozenset(self._members.values())
        """The other voting members."""
        self.majority = (len(others) + 1) // 2 + 1
        """How many members, this one included, decide."""
        self.reachable: tuple[Member, ...] = ()
        """The others with a connection now, in one order."""
        super().__init__(Member(name), [*self._members.values()], conf, nodeClass=Member, transport=Link(self))
        self._poller = library.NoPoller()
        # What the state holds is committed and applied: nothing of it may be applied twice.
        self.applied_index = max(applied_index, log.first_index)
        self.commit_index = self.applied_index

    # -- what the outside does -------------------------------------------------------------------------------------
    def tick(self) -> None:
        """Let time pass: elections, commits, applying, heartbeats."""
        if self.fatal is None:
            self.guarded(self._tick)

    def _tick(self) -> None:
        self.election.before_tick()
        self.doTick(0.0)
        self.election.after_tick()
        self._release_waiting()

    def receive(self, peer: str, message: Message) -> bool:
        """Take in one message of a member; whether something can be committed now, so that a tick should not wait."""
        member = self._members.get(peer)
        if self.fatal is None and member is not None:
            before = self._standing()
            self.guarded(lambda: self.filter.receive(member, message))
            if self._can_commit():
                return True
            # Most messages change nothing that a tick acts upon: late acknowledgements, signs of life.
            if self.commit_index > self.applied_index or self._standing() != before:
                self.wants_tick()
        return False

    def _standing(self) -> tuple[object, ...]:
        """What a tick acts upon, but for time and the log."""
        return (self.fatal, self.role, self.term, self.known_leader, self.transfer_asked)

    def _can_commit(self) -> bool:
        """On the leader: whether more of its log than is committed is durable here, and known to be so at a majority."""
        if not self.leads or self.fatal is not None:
            return False
        wanted = self.commit_index + 1
        if wanted > self.log.durable_index:
            return False
        holders = 1
        for index in self.match_index.values():
            holders += index >= wanted
        return holders >= self.majority

    def propose(self, payload: bytes) -> asyncio.Future[Any]:
        """See ``Replica.propose``."""
        if self.fatal is not None or not self.leads or self.leaving:
            raise NotApplied("no_leader", f"{self.name} does not lead")
        index, term = self.log.last_index + 1, self.term
        try:
            self.log.add(library.REGULAR + payload, index, term)
        except OSError as error:
            self.hand_over()  # another member may have room
            raise NotApplied("storage_full", f"{self.name} cannot write to its log: {error.strerror}") from error
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting[index] = (term, future)
        self.guarded(self._replicate)
        # While the followers write, but behind the answers to the entry before, which take up to two turns to leave.
        loop.call_soon(loop.call_soon, self._prepare, index, term, payload)
        return future

    def _replicate(self) -> None:
        # The followers write while the leader does; what it holds itself counts only once it is durable. Should the library
        # find a majority of the others before that, ``setRaftCommitIndex`` waits for it.
        self._SyncObj__sendAppendEntries()
        began_s = self._clock.monotonic()
        takes_long = self._flush_s > limits.FLUSH_BESIDE_S or self.log.unsynced_bytes > limits.FLUSH_BESIDE_BYTES
        if not (takes_long and self.log.sync_soon(partial(self._flushed, began_s))):
            self.sync_log()
            self._flushed(began_s, None)

    def _flushed(self, began_s: float, error: OSError | None) -> None:
        """What was proposed is durable here, or never will be."""
        self._flush_s += (self._clock.monotonic() - began_s - self._flush_s) / 8
        if error is not None:
            self.die(f"the log cannot be made durable: {error}")
        elif self._can_commit():
            self.wants_tick()

    def _prepare(self, index: int, term: int, payload: bytes) -> None:
        """Let the state do all of an entry that can be undone; mostly that is over when a majority has it."""
        is_next = index == self.applied_index + 1 and index in self._waiting
        if is_next and self.leads and self.term == term and self.fatal is None and not self.suspended:
            self._prepared_term = term
            self._outside.ahead.prepare(index, term, payload)

    def announce(self) -> None:
        """Tell the followers at once how far the log is committed."""
        if self.fatal is None and self.leads:
            self.guarded(self._SyncObj__sendAppendEntries)

    def connected_to(self, peer: str) -> None:
        """A connection to a member is up."""
        member = Member(peer)
        self._SyncObj__onNodeConnected(member)
        self._note_reachable()
        self.replication.forget(member)

    def disconnected_from(self, peer: str) -> None:
        """The connection to a member is gone."""
        self._SyncObj__onNodeDisconnected(Member(peer))
        self._note_reachable()

    def _note_reachable(self) -> None:
        self.reachable = tuple(sorted(self.others & self.connected, key=lambda m: str(m.id)))

    def peer_died(self, peer: str) -> None:
        """A member's process is certainly gone."""
        if self.fatal is None and self.known_leader == peer:
            self.election.leader_died()

    def installed(self, index: int, term: int) -> None:
        """The state was replaced by a snapshot of this position: the log goes on from there."""
        if index <= self.applied_index:
            return
        if self.log.term_at(index) != term:
            self.or_die(lambda: self.log.reset_to(index, term))
        self.filter.forget_conflict()
        self.applied_index = index
        self.commit_index = max(self.commit_index, index)

    def hand_over(self, to: str | None = None) -> bool:
        """Ask that follower, or any, to stand for election if it has the whole log; whether one was asked."""
        if not self.leads or self.fatal is not None:
            return False
        able = [m for m in self.reachable if m not in self.replication.blank]
        able = [m for m in able if self.match_index.get(m, 0) == self.log.last_index and to in {None, str(m.id)}]
        if not able:
            return False
        self.guarded(lambda: self.transferLeadership(able[0]))
        return True

    def die(self, reason: str, *, damaged: bool = False) -> None:
        """Stop for good: going on could do harm."""
        if self.fatal is None:
            self.fatal, self.damaged = reason, damaged
            self._release_waiting()
            self._outside.died(reason)

    # -- what the parts use ----------------------------------------------------------------------------------------
    @property
    def blank(self) -> bool:
        """Whether this member is filling a disk that was empty when it met a formed cluster."""
        return self.log.ballot.blank

    @property
    def waited(self) -> bool:
        """Whether somebody here waits for what is about to be committed."""
        return self._outside.waited()

    def say(self, member: Member, message: Message) -> bool:
        """Send a message of ours; False if it certainly does not arrive."""
        return self.fatal is None and self._outside.send(str(member.id), message)

    def sync_log(self) -> None:
        """Make the log durable up to its end, or die."""
        try:
            self.log.sync()
        except OSError as error:
            # After a failed fsync the kernel may have dropped the pages: a second one would succeed and lie.
            self.die(f"the log cannot be made durable: {error}")
            raise Dead from error

    def now(self) -> float:
        """Seconds of the engine's own clock."""
        return self._clock.monotonic()

    def wants_tick(self) -> None:
        """Ask to be ticked soon."""
        self._outside.wants_tick()

    def snapshot_needed(self, leader: str) -> None:
        """Tell that the leader no longer holds what this member needs."""
        self._outside.snapshot_needed(leader)

    def seen_proof(self, term: int, proof: int) -> None:
        """Leave blankness once this log durably holds what a majority of the others decided in the leader's term."""
        if self.blank and proof and self.log.term_at(proof) == term and self.log.durable_index >= proof:
            self.log.ballot.set_identity(self.log.ballot.cluster_id, blank=False)

    def guarded(self, work: Callable[[], Any]) -> None:
        """Do something that touches the disk: a full disk refuses it, any other failure of it is the end."""
        try:
            work()
        except Dead:
            return
        except OSError as error:
            # Too many open files is, like a full disk, a refusal of something new; whatever else fails may have lost.
            if error.errno not in {errno.ENOSPC, *NO_DESCRIPTORS}:
                self.die(f"the disk failed: {error}")
        except Exception as error:
            self.die(f"{type(error).__name__}: {error}")
            raise

    def or_die(self, work: Callable[[], Any]) -> None:
        """Change the shape of the log: after any error only a new start can tell how far that came."""
        try:
            work()
        except OSError as error:
            self.die(f"the log cannot be changed: {error}")

    def _release_waiting(self) -> None:
        """Nobody waits for an entry of a leadership that is over."""
        over = self.fatal is not None or not self.leads
        if self._prepared_term and (over or self._prepared_term != self.term):
            self._prepared_term = 0
            self._outside.ahead.retract()
        gone = [index for index, (term, _) in self._waiting.items() if over or term != self.term]
        for index in gone:
            _, future = self._waiting.pop(index)
            if not future.done():
                future.set_exception(OutcomeUnknown(f"{self.name} lost the lead before entry {index} was applied"))

    # -- what of the library is replaced ---------------------------------------------------------------------------
    def _SyncObj__onBecomeLeader(self) -> None:
        self.replication.forget_all()
        try:
            super()._SyncObj__onBecomeLeader()
        except OSError:
            # Without an entry of its own term it could commit nothing, now or later: somebody else had better lead.
            self.resign()
            raise
        self.sync_log()

    def _SyncObj__setCurrentTerm(self, term: int, vote: str | None) -> None:
        """Durable before it is believed: a vote that was only remembered in memory could be given twice."""
        try:
            self.log.setCurrentTerm(term, vote)
        except OSError as error:
            self.die(f"term and vote cannot be made durable: {error}")
            raise Dead from error
        self._SyncObj__raftCurrentTerm = term
        self._SyncObj__votedForNodeId = vote

    def _SyncObj__sendAppendEntries(self) -> None:
        self.delay_heartbeat(self._clock.monotonic() + self.conf.appendEntriesPeriod)
        for member in self.reachable:
            self.replication.send_to(member, sign_of_life=True)

    def _SyncObj__applyLogEntries(self) -> bool:
        """Apply what is committed, each index once, a bounded amount per tick, never raising into the library."""
        room = limits.APPLY_BYTES_PER_TICK
        self._make_committed_durable()
        while self.commit_index > self.applied_index and self.fatal is None and not self.suspended:
            if room <= 0:
                self.wants_tick()
                break
            command, index, term = self.log.entry(self.applied_index + 1)
            room -= max(len(command), limits.APPLY_ENTRY_BYTES_MIN)
            self._apply_one(command, index, term)
        return False

    def _make_committed_durable(self) -> None:
        # The library counts this member's own copy without asking, and a sync that failed may have been passed over.
        if self.commit_index > self.log.durable_index:
            self.sync_log()

    def _apply_one(self, command: bytes, index: int, term: int) -> None:
        waiting_term, future = self._waiting.pop(index, (0, None))
        result = None
        if command[:1] == library.REGULAR:
            try:
                result = self._outside.apply(index, term, command[1:])
            except Exception as error:  # any error here means that this copy of the state is unsound
                reason = f"entry {index} could not be applied: {type(error).__name__}: {error}"
                self.die(reason, damaged=is_damage(error))
        if self.fatal is None:
            self.applied_index = index
        if future is None or future.done():
            return
        if self.fatal is None and waiting_term == term:
            future.set_result(result)
        else:
            future.set_exception(OutcomeUnknown(f"entry {index} was replaced by another leader's"))

    def _checkCommandsToApply(self) -> None:
        """Nothing: commands come through ``propose`` and are never forwarded or queued by the library."""

    def _SyncObj__tryLogCompaction(self) -> None:
        """Nothing: the state is its own snapshot, and the log is trimmed by the replica."""
