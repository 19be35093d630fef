"""The door of the machine: entries go in, outcomes and events come out.

An entry takes effect in this order: signs of life, what is due at its moment, the commands, and some clearing away. The
layers of ``apply``, from the outside in: the transaction of the entry, the receipt of the command, and the one ``match``
over commands. Nearly always nothing goes wrong, so an entry is applied as a whole at first. An exception that is the same
on every node undoes it, and it is applied again with *care*: each step in a savepoint of its own, so that the one that
fails is undone alone and the exception becomes the command's outcome. What may differ between nodes goes up and undoes the entry.

An entry that is about to be committed can be *prepared*: all of it is done but the last step, the end of its transaction.
Until that comes with ``apply``, reads see the state without it, through a connection of their own. ``retract`` undoes it.

An entry that is committed can be left *open*: it is applied, and every read sees it, but its transaction goes on with the
entries that follow, so that pages which all of them change are written once. ``close_open`` ends that. Whoever loses an open
transaction finds its entries in the log.

SQLite itself undoes a transaction when anything in it meets a broken disk or no memory, also a read that has nothing to do
with it. Whoever comes next applies again what was open, before anything is read or built upon its absence.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args

import msgspec

from quorl.cluster.machine import (
    claiming,
    due,
    graves,
    leaders,
    outcomes,
    outlook,
    queries,
    reading,
    receipts,
    sameness,
    samples,
    schema,
    task_queries,
    waiting,
    workers,
)
from quorl.cluster.machine.deciding import decide
from quorl.cluster.machine.events import CommandSpoiled, EntrySkipped, Event
from quorl.cluster.machine.outcomes import Outcome
from quorl.cluster.machine.schema import StateError
from quorl.cluster.machine.shelf import Shelf
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.crc import crc32
from quorl.cluster.protocol.entry import AnyCommand, Entry, Sealed, decode_entry
from quorl.cluster.protocol.grammar import Query, Rejection, Reply
from quorl.cluster.protocol.problems import CommandFailed, IdempotencyKeyReused

__all__ = ["Applied", "Machine", "Outcome", "Position", "StateError"]

T = TypeVar("T")
_decode_command = msgspec.msgpack.Decoder(AnyCommand).decode
_TAGS = {kind: str(kind.__struct_config__.tag) for kind in get_args(AnyCommand)}

_SAME_EVERYWHERE = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
    }
)
"""SQLite's primary result codes that depend on the statement and the rows alone."""


class Position(NamedTuple):
    """How far a state has come: entries applied, and the Raft index and term of the last of them."""

    sequence: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    term: int


class _Prepared(NamedTuple):
    """An entry of which all is done but the last step, and what it comes to."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    term: int
    payload: bytes
    applied: Applied


class Applied(NamedTuple):
    """What an entry came to. ``outcomes`` has one for each command of the entry, in order."""

    sequence: int
    outcomes: list[Outcome]
    events: list[Event]


class Machine:
    """The replicated state on one node. Not safe for use by two threads at once."""

    VERSION: ClassVar[int] = schema.VERSION

    def __init__(
        self, connection: sqlite3.Connection, open_reader: Callable[[], sqlite3.Connection] | None = None
    ) -> None:
        """Take over a connection opened with ``isolation_level=None``; raises ``StateError`` if the file is not ours.

        ``open_reader`` opens another one to the same file, for reads beside an entry that is prepared; without it none is.
        """
        assert connection.isolation_level is None, "transactions are opened and ended here, by statements"
        self._state = State(connection)
        self._shelf = Shelf()
        self._open_reader = open_reader
        self._reader: sqlite3.Connection | None = None
        self._prepared: _Prepared | None = None
        self._open: list[tuple[int, int, bytes]] = []
        """The entries that were left open, in order."""
        self._stuck = False
        self._careful = False
        """Whether each step of the entry has a savepoint."""

    @property
    def position(self) -> Position:
        """The last entry applied."""
        header = self._state.committed_header
        return Position(header.sequence, header.raft_index, header.raft_term)

    @property
    def now_ms(self) -> int:
        """Cluster time."""
        return self._state.committed_header.now_ms

    @property
    def wall_ms(self) -> int:
        """The calendar's time of the last entry, in UTC."""
        return self._state.committed_header.wall_ms

    @property
    def cluster_id(self) -> str | None:
        """The cluster that the state belongs to, once it has been founded."""
        return self._state.committed_header.cluster_id

    @property
    def digest(self) -> str:
        """The chain over all entries and outcomes: equal at equal sequence, or two nodes have diverged."""
        return self._state.committed_header.digest.hex()

    @property
    def due(self) -> bool:
        """Whether work is left that any next entry, also an empty one, goes on with."""
        if self._state.grave is not None and not self._stuck:
            return True
        alarm_ms, calendar_ms = self.next_alarm_ms, self.next_calendar_ms
        return (alarm_ms is not None and alarm_ms <= self.now_ms) or (
            calendar_ms is not None and calendar_ms <= self.wall_ms
        )

    @property
    def next_alarm_ms(self) -> int | None:
        """The next moment of cluster time at which something happens by itself; None: nothing will."""
        return due.next_alarm_ms(self._state)

    @property
    def next_calendar_ms(self) -> int | None:
        """The next moment of calendar time at which a task is due; None: there is no such task."""
        return due.next_calendar_ms(self._state)

    def claimable(self, claim: c.Claim) -> bool:
        """Whether a claim would now be answered with anything but nothing: tasks, a refusal, that its queues are drained.

        A cheap look, at memory and at the first row of each queue or partition; it changes nothing.
        """
        return claiming.claimable(self._state, claim)

    def worker(self, worker_id: int) -> outlook.WorkerState | None:
        """What is known of a worker, as far as its claims depend on it; None if nobody has that id."""
        return outlook.worker(self._state, worker_id)

    def outlook(self, queue: str) -> outlook.Outlook:
        """What a queue has to give."""
        return outlook.outlook(self._state, queue)

    def waits(self) -> bool:
        """Whether any task is QUEUED."""
        return outlook.waits(self._state)

    def serves(self, worker_id: int, queue: str) -> bool:
        """Whether a task that comes to a queue now may go to that worker."""
        return outlook.serves(self._state, worker_id, queue)

    def coming(self, now_ms: int, wall_ms: int) -> dict[str, int]:
        """How many tasks of which queues an entry of that moment would make claimable by itself."""
        return outlook.coming(self._state, now_ms, wall_ms)

    def remembers(self, op: str, key: str) -> bool:
        """Whether there is a receipt of an operation, by its tag in the log, under that key."""
        return receipts.known(self._state, op, key)

    def reload(self) -> None:
        """Read everything remembered anew, after somebody else has written the rows."""
        self.retract()
        self.close_open()
        self._state.reload()
        self._shelf = Shelf()
        self._stuck = False

    def prepare(self, index: int, term: int, payload: bytes) -> None:
        """Do what applying an entry takes but for the last step: before ``apply`` no read sees anything of it.

        Looks of the leader (``claimable``, ``worker``, ``outlook``, ``serves``, ``coming``, ``remembers``) may see it: they decide
        nothing. Whatever goes wrong here is undone, and met again by ``apply``. Nothing may be open.
        """
        assert not self._open, "what is open would be undone with what is prepared"
        if self._prepared is not None or not self._has_reader():
            return
        try:
            self._prepared = _Prepared(index, term, payload, self._enter(index, term, payload))
        except BaseException as error:
            self._state.abandon()
            if not isinstance(error, Exception):
                raise

    def _has_reader(self) -> bool:
        if self._reader is None and self._open_reader is not None:
            with contextlib.suppress(sqlite3.Error):  # then entries are applied when they are committed, as anywhere
                self._reader = self._open_reader()
        return self._reader is not None

    def retract(self) -> None:
        """Undo what was prepared, if anything was: it may never be committed."""
        if self._prepared is not None:
            self._prepared = None
            self._stuck = False
            self._state.abandon()

    def apply(self, index: int, term: int, payload: bytes, *, leave_open: bool = False) -> Applied:
        """Apply one committed entry, in one transaction, or leave that open. Total, but for what may differ between nodes."""
        self._hold()
        prepared = self._prepared
        if prepared is not None and prepared[:3] != (index, term, payload):
            self.retract()
        try:
            applied = self._enter(index, term, payload) if self._prepared is None else self._prepared.applied
            if leave_open:
                self._state.keep()
                self._open.append((index, term, payload))
            else:
                self._state.commit()
                self._open.clear()
        except BaseException:
            self._open.clear()
            self._state.abandon()
            raise
        finally:
            self._prepared = None
        return applied

    def close_open(self) -> None:
        """End the transaction of what was left open, if anything was. After an error the state is not what was told of it."""
        self._hold()
        if self._open:
            self._open.clear()
            try:
                self._state.commit()
            except BaseException:
                self._state.abandon()
                raise

    def close(self) -> None:
        """Close the connections, which undoes what was prepared or left open."""
        self._prepared = self._open_reader = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._open.clear()
        self._state.connection.close()

    def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has; None if there is no such topic."""
        found = self._state.topic(topic)
        return None if found is None else found.partitions

    def query(self, request: Query[Any]) -> Reply | Rejection:
        """Answer a read from the rows as they are now."""
        if isinstance(request, sameness.Compare):
            return sameness.compare(self._readable_from, self._state, request)
        return queries.query(self._readable_from, request, self._shelf.decode)

    def render(self, value: Reply | Rejection) -> Reply | Rejection:
        """Put what was decided about into the outcome of a ``Consume`` or of claims; others are complete as they are."""
        connection = self._readable_from
        if isinstance(value, t.ConsumedSpans):
            return reading.consumed(connection, value, self._shelf.decode)
        if isinstance(value, c.Granted):
            with reading.one_moment(connection):
                return task_queries.claims(connection, value)
        if isinstance(value, g.GrantedMany):
            with reading.one_moment(connection):
                return task_queries.claims_of_many(connection, value)
        return value

    @property
    def _readable_from(self) -> sqlite3.Connection:
        """The connection on which nothing is seen but what was committed."""
        self._hold()
        if self._prepared is None:
            return self._state.connection
        assert self._reader is not None, "it is opened before anything is prepared"
        return self._reader

    def _hold(self) -> None:
        """Make good that SQLite has undone what was prepared or left open, if it has."""
        if (self._open or self._prepared is not None) and not self._state.connection.in_transaction:
            if self._prepared is not None:
                self.retract()
            else:
                self._apply_again()

    def _apply_again(self) -> None:
        """Apply what was left open and is undone; what it comes to is known. What fails stays to be done: nobody may pass over it."""
        again, self._open = self._open, []
        try:
            self._state.bring_back()
            while again:
                self.apply(*again[0])
                del again[0]
        finally:
            self._open = again

    # -- inside the transaction ---------------------------------------------------------------------------------
    def _enter(self, index: int, term: int, payload: bytes) -> Applied:
        """Open the transaction of an entry, and do everything in it but end it."""
        state = self._state
        assert index > state.header.raft_index, f"entry {index} after entry {state.header.raft_index}"
        state.begin(index, term, within=bool(self._open))
        try:
            try:
                results = self._apply_entry(index, term, payload)
            except Exception as error:
                if not _same_everywhere(error):
                    raise
                self._begin_again(index, term)
                self._careful = True
                results = self._apply_entry(index, term, payload)
            state.write()
        finally:
            self._careful = False
        return Applied(state.header.sequence, results, state.events)

    def _begin_again(self, index: int, term: int) -> None:
        """Undo what was done of an entry, and open its transaction anew."""
        if not self._open:
            self._state.begin_again()
            return
        self._apply_again()
        self._state.begin(index, term, within=False)

    def _apply_entry(self, index: int, term: int, payload: bytes) -> list[Outcome]:
        state, header = self._state, self._state.header
        entry = self._readable(payload)
        now_ms, wall_ms, commands = (0, 0, ()) if entry is None else (entry.now_ms, entry.wall_ms, entry.commands)
        before_ms, before_wall_ms = header.now_ms, header.wall_ms
        header.now_ms = max(header.now_ms, now_ms)
        header.wall_ms = max(header.wall_ms, wall_ms)
        chain = hashlib.blake2b(state.header.digest, digest_size=32)
        chain.update(len(payload).to_bytes(8, "big"))
        # By its checksum: what makes two nodes differ is an accident, and hashing all that is stored would cost more than that.
        chain.update(crc32(payload).to_bytes(4, "big"))
        if header.now_ms // samples.STEP_MS > before_ms // samples.STEP_MS and header.sequence:
            self._guarded(lambda: samples.tick(state, before_ms, before_wall_ms))
        if entry is not None:
            self._before_commands(entry)
        apply = self._apply_guarded if self._careful else self._apply_once
        done = [apply(sealed) for sealed in commands]
        chain.update(b"".join([blob for _, blob in done]))
        waiting.write(state)
        self._clear_graves(len(commands), len(payload))
        receipts.write(state)
        header = state.header  # another object, if a command was undone
        header.sequence += 1
        header.raft_index = index
        header.raft_term = term
        header.digest = chain.digest()
        return [outcome for outcome, _ in done]

    def _before_commands(self, entry: Entry) -> None:
        """What comes before the commands: who leads, the signs of life, and whatever is due."""
        state = self._state
        state.seed = entry.seed
        leaders.note(state, entry.node)
        room = limits.DUE_TASKS_PER_ENTRY
        for sign in entry.signs:
            given = self._guarded(lambda: workers.heed(state, sign, room))  # noqa: B023  # it is called at once
            room -= given if isinstance(given, int) else 0
        if entry.refresh:
            workers.refresh(state)
        due.attend(state, self._guarded)

    def _readable(self, payload: bytes) -> Entry | None:
        """The entry, or None when no node can read it or could store its times."""
        try:
            entry = decode_entry(payload)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            self._state.events.append(EntrySkipped(str(error)))
            return None
        if 0 <= entry.now_ms <= limits.INTEGER_MAX and 0 <= entry.wall_ms <= moment.LAST_MS:
            return entry
        self._state.events.append(EntrySkipped(f"times out of range: {entry.now_ms}, {entry.wall_ms}"))
        return None

    def _apply_guarded(self, sealed: Sealed) -> tuple[Outcome, bytes]:
        """Apply one command so that it happens whole or not at all, beside others that do happen."""
        done = self._guarded(lambda: self._apply_once(sealed))
        if isinstance(done, Exception):
            failed = CommandFailed(detail=f"The command could not be applied ({type(done).__name__}).")
            return Outcome(failed, replayed=False), outcomes.encode(failed)
        return done

    def _clear_graves(self, commands: int, payload_bytes: int) -> None:
        """Clear away some of what deleted topics have left: more than entries like this one add to it."""
        if self._state.grave is not None:
            rows = limits.PURGED_ROWS_PER_ENTRY + limits.PURGED_ROWS_PER_COMMAND * commands
            size_bytes = limits.PURGED_BYTES_PER_ENTRY + payload_bytes
            done = self._guarded(lambda: graves.clear(self._state, rows, size_bytes))
            self._stuck = isinstance(done, Exception)

    def _guarded(self, work: Callable[[], T]) -> T | Exception:
        """Do something whole or not at all; the error, if every node meets it. Without care the entry is undone by it."""
        if not self._careful:
            return work()
        state = self._state
        state.open_command()
        try:
            done = work()
        except Exception as error:
            if not _same_everywhere(error):
                raise
            state.undo_command()
            state.events.append(CommandSpoiled(f"{type(error).__name__}: {error}"))
            return error
        state.keep_command()
        return done

    def _apply_once(self, sealed: Sealed) -> tuple[Outcome, bytes]:
        """Apply one command, unless a receipt says that it has been."""
        state = self._state
        command = _decode_command(sealed.command)
        if sealed.key is None:
            value = self._decide(command)
            return Outcome(value, replayed=False), outcomes.encode(value)
        op = _TAGS[type(command)]
        known = receipts.find(state, op, sealed.key, sealed.digest)
        if known is not None:
            return Outcome(known, replayed=not isinstance(known, IdempotencyKeyReused)), outcomes.encode(known)
        value = self._decide(command)
        blob = outcomes.encode(value)
        if receipts.is_kept(command, value):
            receipts.keep(state, op, sealed.key, sealed.digest, blob)
        return Outcome(value, replayed=False), blob

    def _decide(self, command: AnyCommand) -> Reply | Rejection:
        """Apply one command, and see to the rows that wait (see ``waiting``)."""
        if type(command) not in waiting.LEAVING:
            waiting.write(self._state)
        value = decide(self._state, command)
        if self._careful:
            waiting.write(self._state)
        return value


def _same_everywhere(error: Exception) -> bool:
    """Whether every node that applies the same entry to the same rows meets this error."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)  # errors of the Python module itself have none
        return code is None or code & 0xFF in _SAME_EVERYWHERE
    return not isinstance(error, (MemoryError, OSError))
