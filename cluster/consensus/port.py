"""What passes between the consensus room and the floors above, and what the room needs from the outside world.

What the floors above may ask of the room is what ``replica.Replica`` offers; its words stand here. Everything that a test may want to fake is a protocol here: time, dice, disk, network. Nothing in this room reads a
clock, rolls a die, opens a file or a socket in any other way, so that a whole cluster runs in one thread under a seed.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import msgspec

NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
"""The errors of whoever could open no file, because too many are open in the process or on the machine."""


# -- outcomes: three colours and no other (a value is the third) ---------------------------------------------------
class NotApplied(Exception):
    """Certainly not applied, now or later: try again, here or at another node. ``code`` is the problem code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class OutcomeUnknown(Exception):
    """Perhaps applied: only a repeat under the same idempotency key can tell."""


class Damaged(Exception):
    """What the disk holds is not what was written there. The node must not start, and must not guess."""


class InUse(Damaged):
    """Another process runs on this disk. Nothing is wrong with what it holds, and nobody else may touch it."""


class OtherFormat(Damaged):
    """The files are sound, and another version of quorl wrote them. Nothing is lost, and nothing was changed."""


class Role(StrEnum):
    """What a member is in its current term."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Status(NamedTuple):
    """What a member knows of its group at this moment. Reading it never blocks. Indexes are of the Raft log."""

    role: Role
    term: int
    leader: str | None
    quorum_fresh: bool
    """For a leader: whether a majority of members that count, and hold what is committed, answered within the last election
    time-out."""
    first_index: int
    last_index: int
    commit_index: int
    applied_index: int
    matched: dict[str, int]
    """For a leader: how far each other member's durable log is known to equal its own."""
    connected: frozenset[str]
    blank: bool
    """Whether this member's disk was empty when it met a formed cluster, and it does not count yet."""


class Glance(NamedTuple):
    """As much of a member's ``Status`` as every tick asks for."""

    leads: bool
    """False also once it has stopped itself."""
    term: int
    leader: str | None
    quorum_fresh: bool
    applied_index: int


class Timing(NamedTuple):
    """Seconds that shape elections. ``step_down_s`` is how long a leader believes in itself without a majority."""

    election_min_s: float = 0.5
    election_max_s: float = 1.0
    heartbeat_s: float = 0.1
    step_down_s: float = 1.0


Apply = Callable[[int, int, bytes], Any]
"""``apply(index, term, payload)`` on every member, in log order, each index once per life of the state."""


class Ahead(Protocol):
    """What can be done for an entry before it is known to be committed."""

    def prepare(self, index: int, term: int, payload: bytes) -> None:
        """Do all of applying an entry that can be undone; called on the member that proposed it. Raises nothing."""

    def retract(self) -> None:
        """Undo what was prepared, if anything still is: its proposer does not lead any more."""


# -- the outside world --------------------------------------------------------------------------------------------
class Clock(Protocol):
    """The only source of time."""

    def monotonic(self) -> float:
        """Seconds that never run backwards and know no calendar."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 in UTC, as this machine believes; may jump."""


class LogFile(Protocol):
    """One append-only file. Every error of ``sync`` is final: a second try would lie about the first.

    Behind its end there may be *room*: zeros, or what an older file held, that are there already, so that what is
    written over them changes neither the file's length nor where it lies, and a sync has only the data to wait for.
    Whoever opens the file, or reads it whole, finds the room as a part of it.
    """

    @property
    def size(self) -> int:
        """Bytes written, synced or not, room not included."""

    def append(self, data: bytes, room_bytes: int = 0) -> None:
        """Write at the end. If it does not fit into the room there, so much new room is made behind it.

        On ``OSError`` nothing of it remains, and no room.
        """

    def sync(self) -> None:
        """Return once everything appended or truncated before is durable (fdatasync)."""

    def sync_soon(self, ended: Callable[[OSError | None], None]) -> bool:
        """Begin what ``sync`` does for everything appended or truncated before, and return.

        ``ended`` is called once that is over, with the error if there was one: on the loop, or from within ``sync``,
        which waits for it. False, and it is never called: this cannot be begun now, or here, and ``sync`` is left.
        """

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes, and all room with it; durable after the next ``sync``."""

    def close(self) -> None:
        """Let go of the file, without any promise about unsynced bytes."""


class Disk(Protocol):
    """One node's data directory, flat. Names are plain file names."""

    def lock(self) -> None:
        """Take the directory for this process; raises ``Damaged`` naming the holder if another has it.

        Every name that is visible afterwards is durable. Taking it twice is nothing new.
        """

    def names(self) -> list[str]:
        """The files that exist, sorted."""

    def read(self, name: str) -> bytes:
        """The whole content of a file; ``FileNotFoundError`` if it is missing."""

    def read_at(self, name: str, offset: int, size_bytes: int) -> bytes:
        """A part of a file as this process has written it; shorter where the file ends."""

    def write_atomically(self, name: str, data: bytes) -> None:
        """Replace a file: temporary name, write, fsync, rename, fsync of the directory. Durable on return."""

    def create(self, name: str, head: bytes) -> LogFile:
        """Create a file that starts with ``head``, durable with its name on return, open for appending.

        It appears with the whole of ``head`` or not at all. What was set aside may serve it, as room behind the head.
        """

    def open(self, name: str) -> LogFile:
        """Open an existing file for appending at its end."""

    def remove(self, name: str) -> None:
        """Remove a file if it exists; durable on return."""

    def set_aside(self, name: str) -> None:
        """Remove a file, and keep what it takes on the medium for later calls of ``create``.

        Nothing waits for the medium: a power cut may bring the name back, even for what was made of the file since.
        """

    def free_bytes(self, wanted_bytes: int = 0) -> int:
        """Space left for this process. Where that is less than it wants, what was set aside is given back first."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """How a member introduces itself on a new connection, checked before anything else is read."""

    cluster: str
    cluster_id: str | None
    group: int
    node: str
    incarnation: str
    """Random per process, so that a restarted peer is told from its former self."""
    pristine: bool
    """Whether the disk is as empty as at birth: no term seen, nothing in the log."""
    version: str


class NetworkEvents(Protocol):
    """What a network tells its user; called on the node's loop, never concurrently."""

    def hello(self) -> Hello:
        """This member's introduction at this moment."""

    def on_connected(self, peer: str, hello: Hello) -> None:
        """An authenticated connection to a member is up."""

    def on_frame(self, peer: str, frame: bytes) -> None:
        """A whole frame arrived, in order within one connection."""

    def on_disconnected(self, peer: str) -> None:
        """The connection is gone; frames on their way are lost."""

    def on_refused(self, peer: str) -> None:
        """A redial right after a lost connection was refused: the peer's process is dead."""


class Network(Protocol):
    """Authenticated, ordered connections to the other members, at most one each, redialled for ever."""

    async def start(self, events: NetworkEvents) -> None:
        """Listen and begin to dial; raises ``OSError`` if the address cannot be bound."""

    def send(self, peer: str, frame: bytes) -> bool:
        """Queue a frame; False if there is no connection. Never blocks."""

    def ping(self) -> None:
        """Tell all who are connected at once how this member stands; they hear of it some times a second anyway."""

    async def close(self) -> None:
        """Stop listening and close every connection."""


class Offload(Protocol):
    """Runs what would block the loop somewhere else."""

    def run(self, work: Callable[[], Any]) -> Awaitable[Any]:
        """Run ``work`` in a thread (in a simulation: later) and give what it returned or raised.

        Work that has begun is not broken off: who is cancelled meanwhile goes on once it has ended, and never beside it.
        """


class Snapshot(NamedTuple):
    """A checked copy of the state database as one file. Index and term are read from the copy itself."""

    name: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    term: int
    sequence: int
    size_bytes: int
    sha256: str


class StateFiles(Protocol):
    """The SQLite files of one node. Everything but the two ``open`` calls may block and belongs into an ``Offload``."""

    def exists(self) -> bool:
        """Whether there is a state at all; false on a new node."""

    def open(self) -> sqlite3.Connection:
        """The one connection that writes; WAL, ``synchronous=NORMAL``, no automatic checkpoints."""

    def open_reader(self) -> sqlite3.Connection:
        """Another connection, read only, usable from any one thread at a time."""

    def checkpoint(self) -> int | None:
        """Make the database file itself durable; the Raft index that it then surely contains, None if readers held it."""

    def copy(self) -> Snapshot:
        """Make a consistent, checked, durable copy while the state goes on being written."""

    def read(self, snapshot: Snapshot, offset: int, size_bytes: int) -> bytes:
        """A piece of a copy; empty at its end."""

    def receive(self, offset: int, data: bytes) -> None:
        """Write a piece of an incoming copy; offset 0 begins anew."""

    def forget_incoming(self) -> None:
        """Give back the room of an incoming copy that will not be installed."""

    def install(self, snapshot: Snapshot) -> None:
        """Check the received copy (size, sha256, SQLite's own check, position) and put it durably in the state's place.

        No connection may be open. Raises ``Damaged`` if the copy is not what ``snapshot`` says; the state is then
        untouched.
        """
