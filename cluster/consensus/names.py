"""The library's private names, each under a word of ours; those that ``engine`` replaces, or passes on to, stand there.

``self.__x`` inside pysyncobj's class is the ordinary attribute ``_SyncObj__x``; a change of any of these names shows as
a changed source in ``library.changed_sources``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quorl.cluster.consensus import library
from quorl.cluster.consensus.library import Member

if TYPE_CHECKING:
    from quorl.cluster.consensus.logstore import LogStore


class Named(library.SyncObj):  # type: ignore[misc]
    """pysyncobj's engine with readable names; it changes nothing."""

    _SyncObj__raftLeader: Any

    @property
    def log(self) -> LogStore:
        """The log store that the engine was given."""
        store: LogStore = self._SyncObj__raftLog
        return store

    @property
    def role(self) -> int:
        """FOLLOWER, CANDIDATE or LEADER of ``library``."""
        role: int = self._SyncObj__raftState
        return role

    @property
    def leads(self) -> bool:
        """Whether this member believes that it leads its current term."""
        return bool(self._SyncObj__raftState == library.LEADER)

    @property
    def term(self) -> int:
        """The highest term seen."""
        term: int = self._SyncObj__raftCurrentTerm
        return term

    @property
    def known_leader(self) -> str | None:
        """The leader of the current term, as far as heard of."""
        node = self._SyncObj__raftLeader
        return None if node is None else str(node.id)

    @property
    def commit_index(self) -> int:
        """The highest index known to be committed here."""
        index: int = self._SyncObj__raftCommitIndex
        return index

    @commit_index.setter
    def commit_index(self, index: int) -> None:
        self._SyncObj__raftCommitIndex = index

    @property
    def applied_index(self) -> int:
        """The highest index that was applied here."""
        index: int = self._SyncObj__raftLastApplied
        return index

    @applied_index.setter
    def applied_index(self, index: int) -> None:
        self._SyncObj__raftLastApplied = index

    @property
    def election_deadline(self) -> float:
        """When this member stands for election unless it hears from a leader before."""
        return float(self._SyncObj__raftElectionDeadline)

    @election_deadline.setter
    def election_deadline(self, at: float) -> None:
        self._SyncObj__raftElectionDeadline = at

    @property
    def transfer_asked(self) -> bool:
        """Whether the leader asked this member to stand for election at once."""
        return bool(self._SyncObj__transferInProgress)

    @property
    def next_index(self) -> dict[Member, int]:
        """For a leader: the index that each other member gets next."""
        table: dict[Member, int] = self._SyncObj__raftNextIndex
        return table

    @property
    def match_index(self) -> dict[Member, int]:
        """For a leader: the index up to which each other member is known to hold the log durably."""
        table: dict[Member, int] = self._SyncObj__raftMatchIndex
        return table

    @property
    def last_response(self) -> dict[Member, float]:
        """For a leader: when each other member last answered."""
        table: dict[Member, float] = self._SyncObj__lastResponseTime
        return table

    @property
    def connected(self) -> frozenset[Member]:
        """The other members with a connection now."""
        return frozenset(self._SyncObj__connectedNodes)

    def adopt_term(self, term: int) -> None:
        """Follow a higher term, without a vote in it yet; durable on return."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(library.FOLLOWER)
        self._SyncObj__raftLeader = None

    def resign(self) -> None:
        """Stop leading, in the same term."""
        self._SyncObj__setState(library.FOLLOWER)
        self._SyncObj__raftLeader = None

    def forget_leader(self) -> None:
        """Follow nobody until somebody leads again."""
        self._SyncObj__raftLeader = None

    def fresh_timeout(self) -> float:
        """A new random election time-out in seconds."""
        return float(self._SyncObj__generateRaftTimeout())

    def delay_heartbeat(self, until: float) -> None:
        """The leader's next unprompted sign of life is due then."""
        self._SyncObj__newAppendEntriesTime = until

    def receive_as_library(self, member: Member, message: dict[str, Any]) -> None:
        """Hand a checked message to the library's own rules."""
        self._SyncObj__onMessageReceived(member, message)
