"""The tables, in one place, and the recognition of a file that holds them.

Invariants: ``TABLES`` names every table with all its columns and its key, so that digest and dump can miss nothing. The
file carries an application id, so that no other SQLite file is ever mistaken for a state. Times of rows (``created_ms``)
are calendar time, but those of receipts are cluster time, because they decide something; of tasks and workers the comments
say which is which.

Of tasks: the row of ``tasks`` holds the lease that is running, or that made it a ``SUCCESS``, so that neither claiming nor
completing touches a second row of history; leases that ended in any other way stand in ``attempts``, other transitions in
``marks``. A task that is forgotten is gone from every table that has its ordinal. Only what a claim may hand out is in
``tasks_ready``, so a claim never meets a row that is not for it, however many others are kept.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

VERSION = 1
"""The behaviour that this code has; a file with a greater one was written by newer code."""
APPLICATION_ID = 0x51524C53
"""``QRLS`` in the header of the file."""


class StateError(Exception):
    """The database is no state of ours, is newer than this code, or contradicts itself."""


class OtherVersion(StateError):
    """The state is sound, and another version of quorl wrote it."""


class Table(NamedTuple):
    """A table: all its columns in order, and those that identify a row."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


HEADER = (
    "version",
    "sequence",
    "raft_index",
    "raft_term",
    "now_ms",
    "wall_ms",
    "cluster_id",
    "digest",
    "next_topic_id",
    "first_receipt",
    "next_receipt",
    "next_queue_id",
    "next_ordinal",
    "next_token",
    "next_worker_id",
    "loose_count",
    "loose_keys",
    "loose_outcomes",
    "messages",
)
"""The columns of the one row of ``machine``."""

TABLES = (
    Table("machine", HEADER, ("version",)),
    Table(
        "topics",
        (
            "topic_id",
            "name",
            "partitions",
            "next_producer_id",
            "next_consumer_id",
            "next_partition",
            "created_ms",
            "sampled",
        ),
        ("topic_id",),
    ),
    Table("partitions", ("topic_id", "partition"), ("topic_id", "partition")),
    Table(
        "batches",
        ("topic_id", "partition", "base_offset", "count", "created_ms", "end_bytes", "body"),
        ("topic_id", "partition", "base_offset"),
    ),
    Table("producers", ("topic_id", "producer_id", "name", "created_ms"), ("topic_id", "producer_id")),
    Table("consumers", ("topic_id", "consumer_id", "name", "created_ms", "turn"), ("topic_id", "consumer_id")),
    Table(
        "cursors",
        ("topic_id", "consumer_id", "partition", "start_offset", "next_offset"),
        ("topic_id", "consumer_id", "partition"),
    ),
    Table("graves", ("topic_id",), ("topic_id",)),
    Table("receipts", ("ordinal", "count", "kept_ms", "keys", "outcomes"), ("ordinal",)),
    Table(
        "queues",
        (
            "queue_id",
            "name",
            "deleted",
            "paused",
            "sealed",
            "partitions",
            "next_partition",
            "default_attempts",
            "max_lost",
            "backoff",
            "timeout_ms",
            "keep_finished_ms",
            "max_depth",
            "submitted",
            "scheduled",
            "queued",
            "processing",
            "retry",
            "success",
            "failed",
            "cancelled",
            "expired",
            "total_started",
            "total_succeeded",
            "total_failed_attempts",
            "total_lost",
            "total_failed",
            "sampled",
            "created_ms",
        ),
        ("queue_id",),
    ),
    Table(
        "tasks",
        (
            "ordinal",
            "given_id",
            "die",
            "queue_id",
            "partition",
            "state",
            "rank",
            "alarm_ms",
            "calendar_ms",
            "due_ms",
            "expiry_ms",
            "since_ms",
            "name",
            "size_bytes",
            "attempts",
            "max_attempts",
            "lost",
            "max_lost",
            "timeout_ms",
            "cancel",
            "reason",
            "leases",
            "claim",
            "token",
            "worker_id",
            "worker",
            "claimed_index",
            "claimed_term",
            "claimed_ms",
            "created_index",
            "created_term",
            "created_ms",
            "finished_index",
            "finished_term",
            "finished_ms",
        ),
        ("ordinal",),
    ),
    Table("payloads", ("ordinal", "fingerprint", "backoff", "body"), ("ordinal",)),
    Table("results", ("ordinal", "body"), ("ordinal",)),
    Table("progress", ("ordinal", "percent", "note", "checkpoint"), ("ordinal",)),
    Table(
        "attempts",
        (
            "ordinal",
            "number",
            "worker_id",
            "worker",
            "token",
            "outcome",
            "state",
            "claimed_index",
            "claimed_term",
            "claimed_ms",
            "ended_index",
            "ended_term",
            "ended_ms",
            "error",
        ),
        ("ordinal", "number"),
    ),
    Table(
        "marks",
        ("ordinal", "number", "kind", "before", "state", "leases", "at_index", "at_term", "at_ms"),
        ("ordinal", "number"),
    ),
    Table(
        "workers",
        (
            "worker_id",
            "name",
            "status",
            "standby",
            "filled",
            "quiet",
            "terminate",
            "heartbeat_ms",
            "dead_after_ms",
            "alarm_ms",
            "beat_ms",
            "beat_wall_ms",
            "noted_ms",
            "beats",
            "leases",
            "succeeded",
            "failed",
            "lost",
            "registered_ms",
            "ended_ms",
        ),
        ("worker_id",),
    ),
    Table("profiles", ("worker_id", "host", "pid", "version", "queues", "concurrency", "handlers"), ("worker_id",)),
    Table("worker_queues", ("queue", "worker_id", "position", "standby", "alive", "active"), ("queue", "worker_id")),
    Table("beats", ("worker_id", "slot", "at_ms"), ("worker_id", "slot")),
    Table("owners", ("queue_id", "partition", "worker_id", "epoch"), ("queue_id", "partition")),
    Table("leaders", ("term", "node", "at_ms"), ("term",)),
    Table("ticks", ("bucket", "at_ms"), ("bucket",)),
    Table(
        "samples",
        (
            "bucket",
            "kind",
            "ref",
            "submitted",
            "started",
            "succeeded",
            "failed_attempts",
            "lost",
            "failed",
            "appended",
            "waiting",
            "running",
        ),
        ("bucket", "kind", "ref"),
    ),
)

ALIVE, DEAD, LEFT = 0, 1, 2
"""The numbers of a worker's status in its row."""

_DDL = (
    """CREATE TABLE machine (
        version INTEGER NOT NULL, sequence INTEGER NOT NULL, raft_index INTEGER NOT NULL, raft_term INTEGER NOT NULL,
        now_ms INTEGER NOT NULL, wall_ms INTEGER NOT NULL, cluster_id TEXT, digest BLOB NOT NULL,
        next_topic_id INTEGER NOT NULL, first_receipt INTEGER NOT NULL, next_receipt INTEGER NOT NULL,
        next_queue_id INTEGER NOT NULL, next_ordinal INTEGER NOT NULL, next_token INTEGER NOT NULL,
        next_worker_id INTEGER NOT NULL,
        -- the newest receipts, which have no row yet: how many, and what a row would have of them without the heads of the arrays
        loose_count INTEGER NOT NULL, loose_keys BLOB NOT NULL, loose_outcomes BLOB NOT NULL,
        messages INTEGER NOT NULL)""",  # in all topics
    """CREATE TABLE topics (
        topic_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL,
        next_producer_id INTEGER NOT NULL, next_consumer_id INTEGER NOT NULL, next_partition INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        sampled INTEGER NOT NULL DEFAULT 0)""",  # how many messages it had when the last sample of it was taken
    """CREATE TABLE partitions (
        topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, PRIMARY KEY (topic_id, partition)) WITHOUT ROWID""",
    # With a rowid: bodies are large, and a tree with large rows in its inner pages grows deep. New rows go to the end
    # of the file whatever their topic; only the narrow index is spread.
    """CREATE TABLE batches (
        topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, base_offset INTEGER NOT NULL, count INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        end_bytes INTEGER NOT NULL, -- of values and keys, of this batch and all before it in the partition
        body BLOB NOT NULL)""",
    """CREATE UNIQUE INDEX batches_place ON batches (topic_id, partition, base_offset, count, end_bytes)""",
    # Where each partition ends, which its last batch says: an append writes no row for that.
    """CREATE VIEW ends AS SELECT topic_id, partition,
        ifnull((SELECT base_offset + count FROM batches b WHERE b.topic_id = p.topic_id AND b.partition = p.partition
            ORDER BY base_offset DESC LIMIT 1), 0) AS next_offset,
        ifnull((SELECT end_bytes FROM batches b WHERE b.topic_id = p.topic_id AND b.partition = p.partition
            ORDER BY base_offset DESC LIMIT 1), 0) AS size_bytes
        FROM partitions p""",
    """CREATE TABLE producers (
        topic_id INTEGER NOT NULL, producer_id INTEGER NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL,
        PRIMARY KEY (topic_id, producer_id)) WITHOUT ROWID""",
    """CREATE TABLE consumers (
        topic_id INTEGER NOT NULL, consumer_id INTEGER NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL,
        turn INTEGER NOT NULL, PRIMARY KEY (topic_id, consumer_id)) WITHOUT ROWID""",
    """CREATE TABLE cursors (
        topic_id INTEGER NOT NULL, consumer_id INTEGER NOT NULL, partition INTEGER NOT NULL,
        start_offset INTEGER NOT NULL, next_offset INTEGER NOT NULL,
        PRIMARY KEY (topic_id, consumer_id, partition)) WITHOUT ROWID""",
    "CREATE TABLE graves (topic_id INTEGER PRIMARY KEY)",
    # What one entry left, or several that left little: msgpack of [operation, key] for each, and of [fingerprint, outcome] in the same order.
    """CREATE TABLE receipts (
        ordinal INTEGER PRIMARY KEY, -- the number of the first of them; the next row goes on behind the last
        count INTEGER NOT NULL, kept_ms INTEGER NOT NULL, -- cluster time of the last of them
        keys BLOB NOT NULL, outcomes BLOB NOT NULL)""",
)

_DDL_TASKS = (
    """CREATE TABLE queues (
        queue_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL, -- unique among those that are not deleted
        deleted INTEGER NOT NULL, -- 1: gone; the row stays for its finished tasks, until the last is forgotten
        paused INTEGER NOT NULL, -- 1: nothing is handed out
        sealed INTEGER NOT NULL, -- 1: nothing is taken in
        partitions INTEGER NOT NULL, -- 0: none
        next_partition INTEGER NOT NULL, -- where the next task without a key goes
        default_attempts INTEGER NOT NULL, -- the leader's default where the request said nothing
        max_lost INTEGER NOT NULL,
        backoff TEXT NOT NULL, -- JSON of a Backoff
        timeout_ms INTEGER, -- of one attempt; NULL: no bound
        keep_finished_ms INTEGER NOT NULL, -- 0: for ever
        max_depth INTEGER NOT NULL, -- 0: no bound
        submitted INTEGER NOT NULL, -- tasks that ever came
        -- how many tasks are in each state, in the order of tasks.STATES
        scheduled INTEGER NOT NULL, queued INTEGER NOT NULL, processing INTEGER NOT NULL, retry INTEGER NOT NULL,
        success INTEGER NOT NULL, failed INTEGER NOT NULL, cancelled INTEGER NOT NULL, expired INTEGER NOT NULL,
        -- how many there ever were: leases granted; of these, those that were a success, failed (or ran out of time), or were
        -- lost with their worker; and tasks that became FAILED
        total_started INTEGER NOT NULL DEFAULT 0, total_succeeded INTEGER NOT NULL DEFAULT 0,
        total_failed_attempts INTEGER NOT NULL DEFAULT 0, total_lost INTEGER NOT NULL DEFAULT 0,
        total_failed INTEGER NOT NULL DEFAULT 0,
        -- JSON of a Queue.tally when the last sample of it was taken
        sampled TEXT NOT NULL DEFAULT '[0,0,0,0,0,0,0,0]',
        created_ms INTEGER NOT NULL)""",
    "CREATE UNIQUE INDEX queues_name ON queues (name) WHERE deleted = 0",
    """CREATE TABLE tasks (
        ordinal INTEGER PRIMARY KEY, -- in the order of submission, over the whole cluster
        given_id TEXT, -- the id that came with it; NULL: it was made here, of created_ms, die and ordinal (see ids.py)
        die INTEGER NOT NULL, -- what the leader's dice gave for the id; 0 for one that came
        queue_id INTEGER NOT NULL,
        partition INTEGER NOT NULL, -- -1 in a queue without partitions
        state INTEGER NOT NULL, -- the index in tasks.STATES
        rank INTEGER NOT NULL, -- PRIORITY_MAX - priority: the lower goes first
        alarm_ms INTEGER, -- cluster time at which something happens to it by itself; NULL: nothing will
        calendar_ms INTEGER, -- SCHEDULED by run_at: the calendar time at which it is due; otherwise NULL
        due_ms INTEGER, -- SCHEDULED by a delay, or RETRY: the cluster time at which it is due; otherwise NULL
        expiry_ms INTEGER, -- cluster time at which it becomes EXPIRED; NULL: never, and once it was started
        since_ms INTEGER NOT NULL, -- cluster time at which it came into its state
        name TEXT NOT NULL,
        size_bytes INTEGER NOT NULL, -- of its body
        attempts INTEGER NOT NULL, max_attempts INTEGER NOT NULL, -- runs that ended by themselves, and their limit
        lost INTEGER NOT NULL, max_lost INTEGER NOT NULL, -- runs whose worker died, and their limit
        timeout_ms INTEGER, -- of one attempt; its own, or that of its queue when it was submitted
        cancel INTEGER NOT NULL, -- 1: a worker runs it and is asked to stop
        reason TEXT, -- why it is FAILED, CANCELLED or EXPIRED, as TaskInfo.reason
        -- the lease that runs (PROCESSING), or that ended as SUCCESS, or the last one, which attempts has as well;
        -- NULL before the first
        leases INTEGER NOT NULL, -- how many there were: the number of the last one
        claim INTEGER, token INTEGER, worker_id INTEGER, worker TEXT, -- the worker's number of its claim; its name
        claimed_index INTEGER, claimed_term INTEGER, claimed_ms INTEGER, -- the entry, and calendar time
        created_index INTEGER NOT NULL, created_term INTEGER NOT NULL, created_ms INTEGER NOT NULL, -- as above
        finished_index INTEGER, finished_term INTEGER, finished_ms INTEGER)""",  # as above; NULL until it is finished
    "CREATE UNIQUE INDEX tasks_given ON tasks (given_id) WHERE given_id IS NOT NULL",
    "CREATE INDEX tasks_ready ON tasks (queue_id, partition, rank, ordinal) WHERE state = 1",
    "CREATE INDEX tasks_leased ON tasks (worker_id, ordinal) WHERE state = 2",
    # All others of a queue, by state: for purging, and for lists of what failed.
    "CREATE INDEX tasks_resting ON tasks (queue_id, state, ordinal) WHERE state NOT IN (1, 2)",
    "CREATE INDEX tasks_alarm ON tasks (alarm_ms, ordinal) WHERE alarm_ms IS NOT NULL",
    "CREATE INDEX tasks_calendar ON tasks (calendar_ms, ordinal) WHERE calendar_ms IS NOT NULL",
    """CREATE TABLE payloads (
        ordinal INTEGER PRIMARY KEY,
        fingerprint BLOB, -- of the task as it was submitted, if its id came with it
        backoff TEXT, -- JSON of its own Backoff; NULL: that of its queue, as it is when it is needed
        body BLOB NOT NULL)""",  # JSON of a TaskBody
    # The result of a SUCCESS, as JSON; without a row it is null.
    "CREATE TABLE results (ordinal INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    """CREATE TABLE progress (
        ordinal INTEGER PRIMARY KEY,
        percent REAL, -- NULL: never said
        note TEXT NOT NULL,
        checkpoint BLOB)""",  # JSON; NULL: none
    # Leases that have ended, but not as SUCCESS; at most HISTORY_KEPT of a task, the newest.
    """CREATE TABLE attempts (
        ordinal INTEGER NOT NULL,
        number INTEGER NOT NULL, -- counts the task's leases from 1; a SUCCESS is tasks.leases, and not here
        worker_id INTEGER NOT NULL, worker TEXT NOT NULL, token INTEGER NOT NULL,
        outcome TEXT NOT NULL, -- failed, timeout, lost, released, cancelled
        state INTEGER NOT NULL, -- that of the task afterwards
        claimed_index INTEGER NOT NULL, claimed_term INTEGER NOT NULL, claimed_ms INTEGER NOT NULL,
        ended_index INTEGER NOT NULL, ended_term INTEGER NOT NULL, ended_ms INTEGER NOT NULL,
        error TEXT, -- JSON of a TaskError; NULL: none
        PRIMARY KEY (ordinal, number))""",
    # Transitions that neither tasks nor attempts tell: due, cancel_requested, cancelled, expired, retried. In the order of
    # the log: (index, leases, 0) for a claim and for having been submitted, with leases 0; (index, leases, 1) for
    # cancel_requested; (index, leases, 2) for the end of a lease; (index, leases, 3, number) for all other marks.
    """CREATE TABLE marks (
        ordinal INTEGER NOT NULL,
        number INTEGER NOT NULL, -- counts the task's marks from 1; the newest HISTORY_KEPT stay
        kind TEXT NOT NULL,
        before INTEGER NOT NULL, state INTEGER NOT NULL, -- that of the task before it and afterwards
        leases INTEGER NOT NULL, -- how many it has had by then
        at_index INTEGER NOT NULL, at_term INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (ordinal, number)) WITHOUT ROWID""",
)

_DDL_WORKERS = (
    """CREATE TABLE workers (
        worker_id INTEGER PRIMARY KEY, -- counts from 1, one for each life of a program
        name TEXT NOT NULL,
        status INTEGER NOT NULL, -- ALIVE, DEAD or LEFT, by number
        standby INTEGER NOT NULL,
        filled INTEGER NOT NULL, -- DEAD: 1 once another worker came in its place, so no stand-by is needed for it
        quiet INTEGER NOT NULL, terminate INTEGER NOT NULL, -- what it is told
        heartbeat_ms INTEGER NOT NULL, dead_after_ms INTEGER NOT NULL,
        -- cluster time at which it is DEAD, unless it beats; once it is not ALIVE: at which it is forgotten, or at once,
        -- while leases are left to give back
        alarm_ms INTEGER NOT NULL,
        beat_ms INTEGER NOT NULL, beat_wall_ms INTEGER NOT NULL, -- its last sign of life: cluster and calendar time
        noted_ms INTEGER NOT NULL, beats INTEGER NOT NULL, -- the last one that went into beats, and how many have
        leases INTEGER NOT NULL, -- that it holds
        succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, lost INTEGER NOT NULL, -- how its leases ended
        registered_ms INTEGER NOT NULL,
        ended_ms INTEGER)""",  # calendar time at which it died or left
    # Those whose place the next life under their name takes: very many others may have had it.
    "CREATE INDEX workers_name ON workers (name, worker_id) WHERE status = 0 OR (status = 1 AND filled = 0)",
    "CREATE INDEX workers_alive ON workers (worker_id) WHERE status = 0",
    "CREATE INDEX workers_alarm ON workers (alarm_ms, worker_id)",
    # What is large, and never changes: queues is a JSON list of names, handlers one of Handler.
    """CREATE TABLE profiles (
        worker_id INTEGER PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, version TEXT NOT NULL,
        queues TEXT NOT NULL, concurrency INTEGER NOT NULL, handlers TEXT NOT NULL)""",
    # Who counts for a queue, which need not exist: those ALIVE, and those DEAD that were no stand-bys and are not filled.
    """CREATE TABLE worker_queues (
        queue TEXT NOT NULL, worker_id INTEGER NOT NULL,
        position INTEGER NOT NULL, -- in the worker's own order
        standby INTEGER NOT NULL, alive INTEGER NOT NULL, -- as in workers
        active INTEGER NOT NULL, -- 1: ALIVE, and gets tasks of this queue
        PRIMARY KEY (queue, worker_id)) WITHOUT ROWID""",
    "CREATE INDEX worker_queues_worker ON worker_queues (worker_id, position)",
    # Those that are few among very many: who is missed, and who stands by.
    "CREATE INDEX worker_queues_missed ON worker_queues (queue, worker_id) WHERE alive = 0",
    "CREATE INDEX worker_queues_standby ON worker_queues (queue, worker_id) WHERE standby = 1",
    # The last BEATS_KEPT heartbeats of a worker, in calendar time; those closer together than half of heartbeat_ms are
    # left out. The n-th, from 0, is in slot n % BEATS_KEPT.
    """CREATE TABLE beats (
        worker_id INTEGER NOT NULL, slot INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (worker_id, slot)) WITHOUT ROWID""",
    # A row for each partition of a queue that has some. The epoch grows by 1 whenever the owner changes; NULL: nobody.
    """CREATE TABLE owners (
        queue_id INTEGER NOT NULL, partition INTEGER NOT NULL, worker_id INTEGER, epoch INTEGER NOT NULL,
        PRIMARY KEY (queue_id, partition)) WITHOUT ROWID""",
    # Which node led in which term, of the last LEADERS_KEPT terms in which an entry came.
    # at_ms is calendar time.
    "CREATE TABLE leaders (term INTEGER PRIMARY KEY, node TEXT NOT NULL, at_ms INTEGER NOT NULL)",
)

_DDL_HISTORY = (
    # A row for each ten seconds of cluster time in which an entry came, and that are over; at_ms: when, in calendar time.
    "CREATE TABLE ticks (bucket INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL)",
    # What happened in such ten seconds, to the cluster (kind 0, ref 0), a queue (1) or a topic (2), by its id; without a row
    # nothing did. waiting and running: how many tasks there were at the end.
    """CREATE TABLE samples (
        bucket INTEGER NOT NULL, kind INTEGER NOT NULL, ref INTEGER NOT NULL,
        submitted INTEGER NOT NULL, started INTEGER NOT NULL, succeeded INTEGER NOT NULL,
        failed_attempts INTEGER NOT NULL, lost INTEGER NOT NULL, failed INTEGER NOT NULL, appended INTEGER NOT NULL,
        waiting INTEGER NOT NULL, running INTEGER NOT NULL,
        PRIMARY KEY (bucket, kind, ref)) WITHOUT ROWID""",
)


def create(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database, without the row of ``machine``; the caller holds the transaction."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for statement in (*_DDL, *_DDL_TASKS, *_DDL_WORKERS, *_DDL_HISTORY):
        connection.execute(statement)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether nothing was ever created in this database."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    return int(tables) == 0 and int(application_id) == 0


def recognise(connection: sqlite3.Connection) -> None:
    """Raise ``StateError`` unless the database is a state that this code may go on writing."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise StateError("The database is not a state of quorl: its application id is another. Check the path.")
    for table in TABLES:
        columns = tuple(name for _, name, *_ in connection.execute(f"PRAGMA table_info({table.name})"))
        if columns != table.columns:
            raise OtherVersion(f"The table {table.name} has not the columns that version {VERSION} of the state has.")
    rows = connection.execute(
        "SELECT version, sequence, raft_index, raft_term FROM machine ORDER BY version"
    ).fetchall()
    if len(rows) != 1:
        raise StateError(f"The state must have one row in the table machine and has {len(rows)}.")
    version, sequence, raft_index, raft_term = rows[0]
    if version > VERSION:
        raise OtherVersion(f"The state has version {version} and this code knows {VERSION}: start a newer quorl.")
    if not 0 <= sequence <= raft_index or raft_term < 0:
        raise StateError(f"The state's position contradicts itself: {sequence} entries at Raft index {raft_index}.")
