"""The leader's sending: entries in windows, at most one hint to a follower that needs a snapshot.

Replaces the library's send loop, which runs until a timer ends it, splits big entries wrongly, floods a follower that
waits for a snapshot, and keeps no bound on what is under way.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from quorl.cluster.consensus.library import Member
from quorl.cluster.consensus.messages import AppendEntries, LogEntry
from quorl.cluster.protocol import limits

if TYPE_CHECKING:
    from quorl.cluster.consensus.engine import Engine


class Replication:
    """What a leader has sent to each follower and not yet seen acknowledged."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._under_way: dict[Member, deque[tuple[int, int]]] = {}
        self._probes: dict[Member, tuple[int, float]] = {}
        """Where, and since when, a follower that asked to go back is tried with one message at a time."""
        self.blank: set[Member] = set()
        """Members that acknowledge from a disk that was empty: they get entries, and do not count."""
        self.took_at: dict[Member, float] = {}
        """When each member that counts last took what was sent to it."""
        self.waited: set[Member] = set()
        """Members at which somebody waits, by their last word."""
        self._told: dict[Member, int] = {}
        """How far each member was told that the log is committed."""

    def forget(self, member: Member) -> None:
        """The connection is new: what was under way is lost, and sending goes on from what is known to be there."""
        self._under_way.pop(member, None)
        self._probes.pop(member, None)
        self._told.pop(member, None)
        matched = self._engine.match_index.get(member, 0)
        if matched:
            self._engine.next_index[member] = matched + 1

    def forget_all(self) -> None:
        """A new leadership: nothing is known of anybody."""
        self._under_way.clear()
        self._probes.clear()
        self.blank.clear()
        self.took_at.clear()
        self.waited.clear()
        self._told.clear()

    def note_waited(self, member: Member, *, waited: bool) -> None:
        """Note whether somebody waits there."""
        if waited:
            self.waited.add(member)
        else:
            self.waited.discard(member)

    def owes_word(self, member: Member) -> bool:
        """Whether more is committed than the member was told."""
        return self._told.get(member, 0) < self._engine.commit_index

    def acknowledged(self, member: Member, index: int) -> None:
        """Everything up to ``index`` has arrived: make room in the window."""
        self._probes.pop(member, None)
        queue = self._under_way.get(member)
        while queue and queue[0][0] <= index:
            queue.popleft()

    def restart(self, member: Member, next_index: int) -> None:
        """The follower asks to go back.

        It does so for every message of a pipeline that it cannot take, for example because its disk is full. Were each
        of these answers a reason to send the pipeline again, their number would multiply with every round.
        """
        engine = self._engine
        index, since = self._probes.get(member, (0, 0.0))
        if index == next_index and engine.now() - since < engine.conf.appendEntriesPeriod / 2:
            return
        self._probes[member] = (next_index, engine.now())
        self._under_way.pop(member, None)
        engine.next_index[member] = min(next_index, engine.log.last_index + 1)

    def send_to(self, member: Member, *, sign_of_life: bool) -> None:
        """Send what the window allows; at least one message if it is to be a sign of life."""
        engine, log = self._engine, self._engine.log
        owed = sign_of_life
        while True:
            next_index = engine.next_index[member]
            if next_index <= log.first_index:
                if owed:
                    hint = AppendEntries(engine.term, engine.commit_index, None, 0, [], first_index=log.first_index)
                    engine.say(member, hint)
                    # It cannot take what is committed: to say that again would only be answered again.
                    self._told[member] = engine.commit_index
                return
            entries = self._next_entries(member, next_index)
            if not entries and not owed:
                return
            owed = False
            prev = next_index - 1
            proof = self._proof(member) if member in self.blank else 0
            message = AppendEntries(engine.term, engine.commit_index, prev, log.term_at(prev) or 0, entries, proof)
            if not engine.say(member, message):
                return
            self._told[member] = engine.commit_index
            if not entries:
                return
            engine.next_index[member] = entries[-1][1] + 1
            size = sum(len(entry[0]) for entry in entries)
            self._under_way.setdefault(member, deque()).append((entries[-1][1], size))

    def _next_entries(self, member: Member, next_index: int) -> list[LogEntry]:
        if next_index > self._engine.log.last_index:
            return []
        under_way = self._under_way.get(member)
        if under_way and member in self._probes:
            return []
        room = limits.REPLICATION_WINDOW_BYTES
        for _, size in under_way or ():
            room -= size
        if room <= 0:
            return []
        return self._engine.log.entries_from(next_index, min(room, limits.APPEND_BYTES_MAX))

    def _proof(self, member: Member) -> int:
        # The highest index of this term that a majority without the blank member holds durably. What that majority
        # committed includes every vote that the lost disk may have given away.
        engine = self._engine
        held = sorted(
            (engine.match_index.get(m, 0) for m in engine.others if m != member and m not in self.blank), reverse=True
        )
        held.insert(0, engine.log.durable_index)
        held.sort(reverse=True)
        if len(held) < engine.majority:
            return 0
        index = held[engine.majority - 1]
        return index if engine.log.term_at(index) == engine.term else 0
