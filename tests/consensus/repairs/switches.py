"""Every repair of the consensus room has a switch here that takes it away again.

A test of a repair that cannot fail tests nothing: with the switch thrown it must see the very defect that the repair is
there for. The same switches make the mutants on which the simulation tries its checkers.

A switch gets a ``Setter``, such as ``pytest.MonkeyPatch().setattr``, and replaces names of ours through it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quorl.cluster.consensus import library, segment
from quorl.cluster.consensus.ballot import Ballot
from quorl.cluster.consensus.disk import RealDisk
from quorl.cluster.consensus.election import Election
from quorl.cluster.consensus.engine import Engine
from quorl.cluster.consensus.filter import Filter
from quorl.cluster.consensus.library import Member
from quorl.cluster.consensus.link import Link
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.consensus.messages import Acknowledge, AppendEntries, LogEntry, RequestVote
from quorl.cluster.consensus.replica import Replica
from quorl.cluster.consensus.replication import Replication
from quorl.cluster.protocol import limits
from tests.consensus.repairs import outer_switches
from tests.consensus.repairs.setter import FOR_EVER_S, Setter, Switch

__all__ = ["SWITCHES", "Setter", "Switch"]


# -- what is durable before it is said or applied --------------------------------------------------------------------
def barrier(setter: Setter) -> None:
    """Acknowledgements and votes leave before the log is on disk."""
    setter(Link, "make_durable", lambda link: None)


def leader_barrier(setter: Setter) -> None:
    """A leader counts, and everybody applies, an own copy that is not durable."""

    def only_send(engine: Engine) -> None:
        engine._SyncObj__sendAppendEntries()

    def only_note(log: LogStore, index: int) -> None:
        log._floor = max(log._floor, min(index, log.durable_index))

    setter(Engine, "_replicate", only_send)
    setter(Engine, "_make_committed_durable", lambda engine: None)
    setter(LogStore, "setRaftCommitIndex", only_note)


def vote_durable(setter: Setter) -> None:
    """Term and vote are remembered in memory, and written with whatever is written next."""

    def set_term(ballot: Ballot, term: int, vote: str | None, floor: int = 0) -> None:
        ballot._content = msgspec.structs.replace(ballot._content, term=term, vote=vote)

    setter(Ballot, "set_term", set_term)


def cut_sync(setter: Setter) -> None:
    """A cut of conflicting entries is not synced."""
    careful = LogStore.deleteEntriesFrom

    def careless(log: LogStore, position: int) -> None:
        kind: Any = type(log._file)
        sync = kind.sync
        kind.sync = lambda file: None
        try:
            careful(log, position)
        finally:
            kind.sync = sync

    setter(LogStore, "deleteEntriesFrom", careless)


def apply_once(setter: Setter) -> None:
    """A restarted member does not ask its state how far it has come."""
    careful = Engine.__init__

    def forgetful(engine: Engine, name: str, others: list[str], log: LogStore, _applied_index: int, *more: Any) -> None:
        careful(engine, name, others, log, 0, *more)

    setter(Engine, "__init__", forgetful)


def applied_before_told(setter: Setter) -> None:
    """The waiting caller is told before the entry counts as applied, as the library does it."""

    def tell_first(engine: Engine, command: bytes, index: int, term: int) -> None:
        _, future = engine._waiting.pop(index, (0, None))
        result = engine._outside.apply(index, term, command[1:]) if command[:1] == library.REGULAR else None
        if future is not None:
            future.set_result(result)
        engine.applied_index = index

    setter(Engine, "_apply_one", tell_first)


def fail_stop(setter: Setter) -> None:
    """A member that finds itself unsound goes on."""
    setter(Engine, "die", lambda *_, **__: None)


def library_apply(setter: Setter) -> None:
    """The library applies: commands are pickles, and there are entries that change the members or the version."""
    setter(Engine, "_SyncObj__applyLogEntries", library.SyncObj._SyncObj__applyLogEntries)


def fsync_fatal(setter: Setter) -> None:
    """A sync that failed is taken for done."""

    def sync_log(engine: Engine) -> None:
        try:
            engine.log.sync()
        except OSError:
            engine.log._durable = engine.log.last_index

    setter(Engine, "sync_log", sync_log)


# -- what a peer's message may do ------------------------------------------------------------------------------------
def commit_clamp(setter: Setter) -> None:
    """The leader's commit index is believed beyond what this log is proven to share."""
    setter(Filter, "_clamped", staticmethod(lambda commit_index, proven: commit_index))


def snapshot_commit_clamp(setter: Setter) -> None:
    """The commit index of a message without a previous entry is applied to whatever log there is."""
    careful = Filter._append_entries

    def careless(filter_: Filter, member: Member, m: AppendEntries) -> None:
        if m.prev_index is None and m.term >= filter_._engine.term:
            filter_._sign_of_life(member, m.term, m.commit_index)
        careful(filter_, member, m)

    setter(Filter, "_append_entries", careless)


def truncation_guard(setter: Setter) -> None:
    """Entries that are here already are cut off and stored again."""
    setter(Filter, "_already_here", lambda filter_, entries: 0)


def conflict_hint(setter: Setter) -> None:
    """The first point of conflict is told once and forgotten, and the leader goes back with its next heartbeat only.

    Either of the two repairs alone would do: of many answers the last one counts only if nothing was sent in between.
    The leader then sends the whole pipeline again, not one message on trial.
    """
    careful = Filter._acknowledge

    def conflicts(filter_: Filter, prev_index: int, prev_term: int) -> bool:
        log, filter_._conflict = filter_._engine.log, None
        if prev_index <= log.last_index and log.term_at(prev_index) == prev_term:
            return False
        filter_._conflict = prev_index
        return True

    def acknowledge(filter_: Filter, member: Member, m: Acknowledge) -> None:
        engine = filter_._engine
        if not (m.reset and engine.leads and m.term == engine.term):
            careful(filter_, member, m)
            return
        engine.replication._under_way.pop(member, None)
        engine.next_index[member] = min(m.next_index, engine.log.last_index + 1)
        engine.last_response[member] = engine.now()

    setter(Filter, "_conflicts", conflicts)
    setter(Filter, "_acknowledge", acknowledge)


def stale_ack(setter: Setter) -> None:
    """An acknowledgement counts whatever leadership it was given to."""
    setter(Filter, "_is_for_this_term", lambda filter_, m: True)


def ask_back(setter: Setter) -> None:
    """A member that is told to pull a snapshot says nothing, and is told so for ever."""
    careful = Filter._append_entries

    def silent(filter_: Filter, member: Member, m: AppendEntries) -> None:
        if m.prev_index is None and m.term >= filter_._engine.term:
            filter_._sign_of_life(member, m.term, filter_._engine.commit_index)
            filter_._engine.election.leader_spoke()
            filter_._engine.snapshot_needed(str(member.id))
        else:
            careful(filter_, member, m)

    setter(Filter, "_append_entries", silent)


def snapshot_ack(setter: Setter) -> None:
    """A member that needs a snapshot acknowledges the log that it happens to have."""
    careful = Filter._append_entries

    def careless(filter_: Filter, member: Member, m: AppendEntries) -> None:
        careful(filter_, member, m)
        if m.prev_index is None:
            filter_._answer(member, filter_._engine.log.last_index + 1, reset=False, success=True)

    setter(Filter, "_append_entries", careless)


def term_hint(setter: Setter) -> None:
    """A leader of an old term is ignored instead of told."""
    careful = Filter._append_entries

    def silent(filter_: Filter, member: Member, m: AppendEntries) -> None:
        if m.term >= filter_._engine.term:
            careful(filter_, member, m)

    setter(Filter, "_append_entries", silent)


def members_only(setter: Setter) -> None:
    """Whoever has a connection takes part."""

    def receive(engine: Engine, peer: str, message: Any) -> None:
        engine.guarded(lambda: engine.filter.receive(Member(peer), message))

    setter(Engine, "receive", receive)


# -- elections -------------------------------------------------------------------------------------------------------
def vote_once(setter: Setter) -> None:
    """A vote that was given in a term does not keep a member from giving another."""
    careful = Election.on_request_vote

    def set_term(ballot: Ballot, term: int, vote: str | None, floor: int = 0) -> None:
        ballot._write(term=max(term, ballot.term), vote=vote, floor=max(ballot.floor, floor))

    def on_request_vote(election: Election, asked: RequestVote) -> bool:
        election._engine._SyncObj__votedForNodeId = None
        return careful(election, asked)

    setter(Ballot, "set_term", set_term)
    setter(Election, "on_request_vote", on_request_vote)


def distinct_votes(setter: Setter) -> None:
    """A vote that arrives twice counts twice."""
    setter(Election, "on_vote", lambda election, member, vote: True)


def pre_vote(setter: Setter) -> None:
    """A fired timer raises the term at once."""

    def before_tick(election: Election) -> None:
        engine = election._engine
        election.campaign_is_transfer = engine.transfer_asked
        if not engine.leads and not election.may_stand():
            engine.election_deadline = engine.now() + engine.fresh_timeout()

    setter(Election, "before_tick", before_tick)


def sticky_leader(setter: Setter) -> None:
    """Members that hear from a leader let others depose it."""
    setter(Election, "leader_is_fresh", lambda election: False)


def step_down(setter: Setter) -> None:
    """A leader without a majority goes on believing in itself."""
    whole = library.SyncObjConf
    setter(library, "SyncObjConf", lambda **options: whole(**{**options, "leaderFallbackTimeout": FOR_EVER_S}))


def blank(setter: Setter) -> None:
    """A member whose disk was lost votes and counts at once."""
    setter(Ballot, "blank", property(lambda ballot: False))


def counted_majority(setter: Setter) -> None:
    """Cluster time goes on while a majority answers, be it with members that do not count."""
    setter(Election, "can_decide", lambda election: election._engine.leads and election.leader_is_fresh())


def blank_forever(setter: Setter) -> None:
    """A member whose disk was lost never counts again."""
    setter(Engine, "seen_proof", lambda engine, term, proof: None)


def birth(setter: Setter) -> None:
    """A cluster may be founded by any majority of empty disks."""
    setter(Replica, "_may_stand", lambda replica: True)
    setter(Replica, "_may_vote", lambda replica: True)


def resigns(setter: Setter) -> None:
    """A leader that could not store its first entry leads on, and can commit nothing for ever."""

    def become_leader(engine: Engine) -> None:
        engine.replication.forget_all()
        library.SyncObj._SyncObj__onBecomeLeader(engine)

    setter(Engine, "_SyncObj__onBecomeLeader", become_leader)


# -- the log store ---------------------------------------------------------------------------------------------------
def append_undone(setter: Setter) -> None:
    """An entry that did not fit on the disk stays in memory."""
    careful = LogStore.add

    def careless(log: LogStore, command: bytes, idx: int, term: int) -> None:
        try:
            careful(log, command, idx, term)
        except OSError:
            log._entries.append((command, idx, term))
            log._durable = idx
            raise

    setter(LogStore, "add", careless)


def crc(setter: Setter) -> None:
    """Records carry no checksum."""
    setter(segment, "crc32", lambda *_: 0)


def floor(setter: Setter) -> None:
    """Nothing says how far the log must reach."""
    setter(Ballot, "floor", property(lambda ballot: 0))


def reset_note(setter: Setter) -> None:
    """A log is replaced without a note of what it is becoming."""
    setter(Ballot, "begin_reset", lambda ballot, index, term: None)


def trim_note(setter: Setter) -> None:
    """Old segments go without a note of where the log begins now."""
    setter(Ballot, "set_first", lambda ballot, first, floor: None)


def trim_below_checkpoint(setter: Setter) -> None:
    """The log is trimmed to what is applied, durable in the state or not."""
    careful = Replica.trim
    setter(Replica, "trim", lambda replica, durable_index: careful(replica, replica.engine.applied_index))


def one_process(setter: Setter) -> None:
    """A data directory may be taken twice."""
    setter(RealDisk, "lock", lambda disk: None)


# -- sending and snapshots -------------------------------------------------------------------------------------------
def big_window(setter: Setter) -> None:
    """There is no bound on what is under way to one follower."""

    def next_entries(replication: Replication, member: Member, next_index: int) -> list[LogEntry]:
        log = replication._engine.log
        probing = member in replication._probes and replication._under_way.get(member)
        return [] if probing or next_index > log.last_index else log.entries_from(next_index, limits.APPEND_BYTES_MAX)

    setter(Replication, "_next_entries", next_entries)


def one_hint(setter: Setter) -> None:
    """A follower that needs a snapshot is told so whenever anything is sent."""
    careful = Replication.send_to

    def eager(replication: Replication, member: Member, *, sign_of_life: bool) -> None:
        engine = replication._engine
        for _ in range(100 if engine.next_index[member] <= engine.log.first_index else 1):
            careful(replication, member, sign_of_life=sign_of_life)

    setter(Replication, "send_to", eager)


def keep_for_followers(setter: Setter) -> None:
    """The leader trims its log without a look at those who are just behind."""

    def trim(replica: Replica, durable_index: int) -> None:
        engine = replica.engine
        engine.guarded(lambda: replica._log.trim_to(min(durable_index, engine.applied_index)))

    setter(Replica, "trim", trim)


_TABLE: list[Switch] = [
    barrier,
    leader_barrier,
    vote_durable,
    cut_sync,
    apply_once,
    applied_before_told,
    fail_stop,
    library_apply,
    fsync_fatal,
    commit_clamp,
    snapshot_commit_clamp,
    truncation_guard,
    conflict_hint,
    stale_ack,
    ask_back,
    snapshot_ack,
    term_hint,
    members_only,
    vote_once,
    distinct_votes,
    pre_vote,
    sticky_leader,
    step_down,
    blank,
    blank_forever,
    counted_majority,
    birth,
    resigns,
    append_undone,
    crc,
    floor,
    reset_note,
    trim_note,
    trim_below_checkpoint,
    one_process,
    big_window,
    one_hint,
    keep_for_followers,
    outer_switches.copy_checked,
    outer_switches.accept_retried,
    outer_switches.handshake_deadline,
    outer_switches.early_frames,
    outer_switches.proof,
    outer_switches.fence,
    outer_switches.queueing,
    outer_switches.library_forwards,
    outer_switches.poison,
    outer_switches.receipts_kept,
    outer_switches.outcome_colours,
    outer_switches.read_barrier,
    outer_switches.relay_wait,
]
SWITCHES: dict[str, Switch] = {switch.__name__: switch for switch in _TABLE}
