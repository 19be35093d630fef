"""The message filter: what stands between a peer's words and the library's rules.

Everything a peer says is checked here first. What the library gets wrong is decided here, and only what its own rules
handle correctly is passed on:

* a follower's log is cut only where it truly conflicts, and never at or below what is committed;
* the commit index is believed only as far as this log is known to equal the leader's;
* acknowledgements count for the term in which they were given, from members that count, up to what was sent;
* an old leader is told the newer term instead of being ignored;
* where a pipeline of messages meets a conflict, the first point of conflict is what the leader hears, every time.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from quorl.cluster.consensus.library import Member
from quorl.cluster.consensus.messages import (
    Acknowledge,
    AppendEntries,
    LogEntry,
    Message,
    PreVote,
    PreVoteGranted,
    RequestVote,
    TermHint,
    TimeoutNow,
    Vote,
)

if TYPE_CHECKING:
    from quorl.cluster.consensus.engine import Engine


class Filter:
    """Receives every message of one member."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._conflict: int | None = None

    def forget_conflict(self) -> None:
        """The log is another one now."""
        self._conflict = None

    def receive(self, member: Member, message: Message) -> None:
        """Check one message of a member and act on it."""
        engine = self._engine
        match message:
            case AppendEntries():
                self._append_entries(member, message)
            case Acknowledge():
                self._acknowledge(member, message)
            case RequestVote():
                if engine.election.on_request_vote(message):
                    engine.receive_as_library(member, _request_vote(message))
            case Vote():
                if engine.election.on_vote(member, message):
                    engine.receive_as_library(member, {"type": "response_vote", "term": message.term})
            case PreVote():
                engine.election.on_pre_vote(member, message)
            case PreVoteGranted():
                engine.election.on_pre_vote_granted(member, message)
            case TermHint():
                if message.term > engine.term:
                    engine.adopt_term(message.term)
            case TimeoutNow():
                if engine.election.may_stand():
                    engine.receive_as_library(member, {"type": "timeout_now", "term": message.term})

    # -- as a follower ----------------------------------------------------------------------------------------------
    def _append_entries(self, member: Member, m: AppendEntries) -> None:
        engine = self._engine
        if m.term < engine.term:
            engine.say(member, TermHint(engine.term))
            return
        if not _well_formed(m):
            return
        engine.election.leader_spoke()
        if m.prev_index is None:
            self._sign_of_life(member, m.term, self._clamped(m.commit_index, engine.commit_index))
            # The answer matters once a snapshot is installed: else the leader would say for ever that one is needed.
            if self._ask_back(member) <= m.first_index:
                engine.snapshot_needed(str(member.id))
            return
        if m.prev_index < engine.log.first_index:
            # What lies before this log's start is applied and equal everywhere: ask for what comes after it.
            self._sign_of_life(member, m.term, engine.commit_index)
            self._answer(member, engine.log.last_index + 1, reset=True, success=False)
            return
        if self._conflicts(m.prev_index, m.prev_term):
            self._sign_of_life(member, m.term, engine.commit_index)
            self._ask_back(member)
            return
        self._conflict = None
        self._store(member, m, m.prev_index)
        engine.seen_proof(m.term, m.proof)

    def _conflicts(self, prev_index: int, prev_term: int) -> bool:
        """Whether this log lacks the entry before the new ones; remembers where to go back to."""
        engine, log = self._engine, self._engine.log
        if prev_index > log.last_index:
            return True
        mine = log.term_at(prev_index)
        if mine == prev_term:
            return False
        index, floor = prev_index, max(log.first_index, engine.commit_index)
        while index - 1 > floor and log.term_at(index - 1) == mine:
            index -= 1
        self._conflict = index
        return True

    def _store(self, member: Member, m: AppendEntries, prev_index: int) -> None:
        engine, log = self._engine, self._engine.log
        known = self._already_here(m.entries)
        match = prev_index + known
        if known == len(m.entries) and log.last_index > match:
            # Nothing new, and more of ours behind it that nobody has contradicted: the library would cut it off.
            self._sign_of_life(member, m.term, self._clamped(m.commit_index, match))
            self._answer(member, match + 1, reset=False, success=True)
            return
        if log.last_index > match and match < engine.commit_index:
            engine.die(f"{member.id}, leading term {m.term}, wants to replace the committed entry {match + 1}")
            return
        engine.receive_as_library(
            member,
            {
                "type": "append_entries",
                "term": m.term,
                "commit_index": self._clamped(m.commit_index, m.entries[-1][1] if m.entries else match),
                "prevLogIdx": match,
                "prevLogTerm": log.term_at(match),
                "entries": m.entries[known:],
            },
        )

    def _already_here(self, entries: list[LogEntry]) -> int:
        """How many of these entries, from the first on, this log holds already."""
        log = self._engine.log
        count = 0
        while count < len(entries) and log.term_at(entries[count][1]) == entries[count][2]:
            count += 1
        return count

    @staticmethod
    def _clamped(commit_index: int, proven: int) -> int:
        """The leader's commit index, believed only as far as this log is proven to equal the leader's."""
        return min(commit_index, proven)

    def _sign_of_life(self, member: Member, term: int, commit_index: int) -> None:
        """Tell the library that the leader lives, and nothing about our log."""
        message = {"type": "append_entries", "term": term, "commit_index": commit_index}
        self._engine.receive_as_library(member, message)

    def _ask_back(self, member: Member) -> int:
        """Ask the leader to go on from the first entry that is not known to be the same; the index of that."""
        after = self._engine.log.last_index + 1
        wanted = min(after, self._conflict or after)
        self._answer(member, wanted, reset=True, success=False)
        return wanted

    def _answer(self, member: Member, next_index: int, *, reset: bool, success: bool) -> None:
        engine = self._engine
        engine.say(member, Acknowledge(engine.term, next_index, reset, success, engine.blank, engine.waited))

    # -- as a leader ------------------------------------------------------------------------------------------------
    def _acknowledge(self, member: Member, m: Acknowledge) -> None:
        engine = self._engine
        if not self._is_for_this_term(m) or not engine.leads or m.next_index < 1:
            return
        if m.success and m.next_index > engine.log.last_index + 1:
            return  # nobody can hold what was never sent
        replication = engine.replication
        if m.blank:
            replication.blank.add(member)
            engine.match_index[member] = 0
        else:
            replication.blank.discard(member)
        if m.reset:
            replication.restart(member, m.next_index)
        elif m.success:
            replication.acknowledged(member, m.next_index - 1)
        counts = m.success and not m.blank
        if counts:
            replication.took_at[member] = engine.now()
        under_way = engine.next_index[member]
        engine.receive_as_library(
            member, {"type": "next_node_idx", "next_node_idx": m.next_index, "reset": False, "success": counts}
        )
        # The library goes back to what is acknowledged; later messages are under way already.
        engine.next_index[member] = max(under_way, engine.next_index[member])
        replication.note_waited(member, waited=m.waited)
        replication.send_to(member, sign_of_life=m.waited and replication.owes_word(member))

    def _is_for_this_term(self, m: Acknowledge) -> bool:
        """Whether it was given to this very leadership: an older one had other entries under the same indexes."""
        return m.term == self._engine.term


def _request_vote(m: RequestVote) -> dict[str, Any]:
    return {"type": "request_vote", "term": m.term, "last_log_index": m.last_index, "last_log_term": m.last_term}


def _well_formed(m: AppendEntries) -> bool:
    """Whether indexes are dense after ``prev_index`` and terms go up to the leader's at most."""
    if m.prev_index is None or not m.entries:
        return not m.entries
    dense = all(entry[1] == m.prev_index + 1 + i for i, entry in enumerate(m.entries))
    rising = all(a[2] <= b[2] for a, b in pairwise(m.entries))
    return dense and rising and m.entries[0][2] >= m.prev_term and m.entries[-1][2] <= m.term
