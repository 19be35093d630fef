"""Every number that bounds what comes from outside, what the cluster remembers and what a node holds for others.

Each has its unit in its name. Nothing grows without a bound: one that is a single module's own business (what it remembers
to be faster, how much it shows) stands there.
"""

from __future__ import annotations

# -- what users may send ------------------------------------------------------------------------------------------
TOPIC_NAME_CHARS_MAX = 200
PARTITIONS_MAX = 256
"""Every append to a topic writes a row for each partition that it reaches."""
LABEL_CHARS_MAX = 200
"""Names of producers and consumers, which are for people only."""
MESSAGE_VALUE_BYTES_MAX = 256 * 1024
"""A quarter of a request; larger things are better kept elsewhere, and a message name them."""
MESSAGE_KEY_CHARS_MAX = 1024
MESSAGE_HEADERS_MAX = 64
MESSAGE_HEADER_CHARS_MAX = 4096
"""Of a name, and of a value."""
APPEND_MESSAGES_MAX = 10_000
"""Of one call, which stands in one entry: while that is applied nothing else is."""
REQUEST_BYTES_MAX = 1024 * 1024
"""Of a body: one entry holds it whole, and is the pause that everybody else waits for."""
TARGET_BYTES_MAX = 8 * 1024
"""Path and query of one request; 200 characters of a topic name are at most 2 400 bytes percent-encoded."""
IDEMPOTENCY_KEY_CHARS_MAX = 200
"""A receipt holds it for as long as it is remembered."""
PACKED_BYTES_MIN = 4 * 1024
"""Of the messages of an append: less is not worth compressing."""
PACKED_SHARE_MAX = 0.875
"""What compressing does not make smaller by an eighth stays as it is, and is read faster."""
JSON_NESTING_MAX = 100
"""Some readers refuse deeper values."""
WAIT_S_MAX = 60.0
"""Of a long poll; proxies break off what is silent for much longer."""
PAGE_ITEMS_DEFAULT = 100
PAGE_ITEMS_MAX = 1000
PAGE_BYTES_MAX = 4 * 1024 * 1024
"""A page ends where either is reached; a larger one would hold up a node's other answers."""
CONSUME_MESSAGES_MAX = 1000
QUEUE_NAME_CHARS_MAX = 200
TASK_ID_CHARS_MAX = 200
TASK_NAME_CHARS_MAX = 200
SUBMIT_TASKS_MAX = 4_000
"""Fewer than the rows of one entry, with what each of them writes."""
TASK_ARGUMENT_BYTES_MAX = 256 * 1024
"""Of the positional arguments of a task, and as much of those by name."""
RESULT_BYTES_MAX = 256 * 1024
"""As a message."""
CHECKPOINT_BYTES_MAX = 64 * 1024
"""It may be written every half second for as long as a task runs, and each time it goes into the log."""
ERROR_TEXT_CHARS_MAX = 16 * 1024
"""Of a traceback, and of an error's message; what is longer is refused, so that workers cut it where it tells least."""
NOTE_CHARS_MAX = 1_000
"""Of what a task says of its progress."""
TAGS_MAX = 32
TAG_CHARS_MAX = 200
PRIORITY_MAX = 9
PRIORITY_DEFAULT = 5
"""The highest goes first; by default there is room on both sides."""
ATTEMPTS_MAX = 100
"""Of one task; each is kept in its history."""
LOST_DEFAULT = 5
"""A task that has cost so many workers their lives is FAILED: it may be what kills them."""
BACKOFF_DELAYS_MAX = 100
"""Of a list of waits: as many as there may be attempts."""
DELAY_MS_MAX = 10 * 365 * 24 * 3600 * 1000
"""Ten years."""
KEEP_FINISHED_MS_DEFAULT = 7 * 24 * 3600 * 1000
"""Seven days."""
CLAIM_TASKS_MAX = 1_000
CLAIMS_TOGETHER_MAX = 100
"""Of several workers, in one call."""
CLAIM_TASKS_EACH_MAX = CLAIM_TASKS_MAX // CLAIMS_TOGETHER_MAX
"""Of each of several claims, so that together they are never more than one may be."""
CLAIM_BYTES_MAX = 4 * 1024 * 1024
"""Of what is handed out at once: no more than a page of anything else."""
SETTLE_TASKS_MAX = 1_000
"""Reports in one call. Each writes a few rows, and one entry holds them all."""
WORKER_QUEUES_MAX = 100
WORKER_HANDLERS_MAX = 1_000
"""Names of tasks, with their signatures."""
WORKER_CONCURRENCY_MAX = 10_000
"""As many as it may hold leases."""
HEARTBEAT_MS_MIN = 100
HEARTBEAT_MS_MAX = 3600 * 1000
"""From ten a second to one an hour: more often says nothing new, and each goes through the leader."""
INTEGER_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""

# -- what the cluster remembers -----------------------------------------------------------------------------------
RECEIPTS_MAX = 250_000
RECEIPT_AGE_MS_MAX = 24 * 3600 * 1000
"""A repeat under a key is recognised for a day, unless so many newer ones have come."""
RECEIPT_EVICTIONS_PER_COMMAND = 4
"""More than one, so that a backlog of old receipts shrinks; bounded, so that no entry stalls on it."""
RECEIPTS_LOOSE_BYTES = 1_900
"""The newest receipts stand in the one row that every entry writes, until they have more than this: two rows then fill a page."""
PURGED_ROWS_PER_ENTRY = 200
PURGED_BYTES_PER_ENTRY = 256 * 1024
"""What an entry clears away of deleted topics: 0.2 ms for small messages, about 2 ms for rows that fill a page each."""
PURGED_ROWS_PER_COMMAND = 2
"""On top, with as many bytes as the entry has: more than appends leave, so that clearing keeps up with all writing."""

WORKERS_MAX = 10_000
"""Alive at the same time."""
WORKER_LEASES_MAX = 10_000
"""Held by one worker: as many as a heartbeat can name."""
WORKER_KEPT_MS = 24 * 3600 * 1000
"""A worker that is DEAD or LEFT is shown for so long."""
BEATS_KEPT = 120
"""Heartbeats shown of each worker: ten minutes of those that come every five seconds."""
LEADERS_KEPT = 10_000
"""Changes of the leader that are remembered: more than a cluster has in years."""
HISTORY_KEPT = 1_000
"""Leases of one task that ended without success, and as many of its other transitions: the newest of them."""
PURGED_TASKS_PER_COMMAND = 1_000
"""Purged or removed at once; a command that has more to do goes on with the next one."""
BATCH_TASKS_MAX = 1_000
"""Tasks that one call does something to."""
DUE_TASKS_PER_ENTRY = 500
"""Tasks whose moment has come, and that one entry attends to; the next entry goes on."""
DUE_WORKERS_PER_ENTRY = 50
"""Each may bring thousands of leases to their end."""
TICKS_KEPT = 720
"""Samples of ten seconds each that are kept of everything: two hours."""
SAMPLED_PER_TICK_MAX = 500
"""Queues, and as many topics, of which a sample is taken at once."""
SAMPLES_CLEARED_PER_TICK = 3_000
"""More than one tick can add."""
MARKS_MAX = 100
"""Changes of the leader that one history tells of, the newest."""
LISTED_ROWS_MAX = 10_000
"""Rows that one page of a filtered list looks at; the cursor goes on behind them."""

# -- what one node holds in memory --------------------------------------------------------------------------------
DISK_SPARE_BYTES = 64 * 1024 * 1024
"""With less room than this the log takes nothing new, so that what is committed can still be applied and kept."""
COMMANDS_PENDING_MAX = 10_000
COMMANDS_PENDING_BYTES_MAX = 64 * 1024 * 1024
"""Waiting at the leader for an entry: what comes on top is refused with ``too_many_requests``. Seconds of work for
it."""
ENTRY_COMMANDS_MAX = 2_000
"""Each has a receipt and an outcome of its own."""
ENTRY_BYTES_TARGET = 1024 * 1024
"""Group commit closes an entry once it holds this much; one command more may exceed it by REQUEST_BYTES_MAX."""
ENTRY_ROWS_TARGET = 4_096
"""Group commit closes an entry once its commands may write so many rows; one command more may exceed it."""
ENTRY_BYTES_MAX = 4 * 1024 * 1024
"""What an entry has at most, with all that may exceed its targets."""
ENTRY_SIGNS_MAX = 1_000
ENTRY_SIGNS_BYTES_TARGET = 256 * 1024
"""Signs of life that one entry carries; one more, which names all the tokens that a worker may hold, may exceed it."""
BEATS_BYTES_TARGET = 64 * 1024
"""Signs of life in one message from node to node; one more may exceed it."""
LOG_BYTES_KEPT_MAX = 512 * 1024 * 1024
"""Log that is kept on disk for a connected follower that stores nothing."""
FRAME_BYTES_MAX = 16 * 1024 * 1024
"""From a member; more ends the connection."""
HANDSHAKE_BYTES_MAX = 4 * 1024
"""Before a peer has proved anything it may send no more than this."""
PENDING_HANDSHAKES_MAX = 64
"""Who connects beyond that is sent away: strangers would else take all descriptors."""
APPEND_BYTES_MAX = 2 * 1024 * 1024
"""Entries in one append_entries message; at least one entry is always sent, so the true bound is ENTRY_BYTES_MAX."""
REPLICATION_WINDOW_BYTES = 8 * 1024 * 1024
"""Entries sent to one follower and not yet acknowledged."""
FLUSH_BESIDE_BYTES = 32 * 1024
"""From here on the leader flushes an entry beside its loop: to begin that and to be told costs some 50 µs."""
FLUSH_BESIDE_S = 0.001
"""A disk that takes longer lately has all entries flushed so."""
APPLY_BYTES_PER_TICK = 1024 * 1024
"""Of entries that are applied before anything else has its turn, so that heartbeats leave in time."""
APPLY_ENTRY_BYTES_MIN = 16 * 1024
"""What an entry counts for at least: an empty one is work too, all the more while it clears away."""
RECORDED_S = 600
"""Seconds of which this node remembers one by one what happened."""
RECORDED_SERIES_MAX = 200
"""Queues, and as many topics, of which it does."""
METRIC_SERIES_MAX = 100
"""So many queues, topics and consumers have metrics of their own."""
INTAKE_BYTES_MAX = 256 * 1024 * 1024
"""Bodies and frames of which a part has arrived, of all connections together: beyond that the next part is refused."""
LONG_POLLS_MAX = 5_000
"""Calls that wait at one node: beyond that they are refused, and may be repeated without waiting."""
CHANNEL_CALLS_MAX = 1_024
"""Calls under way on one channel; a client that has more opens another."""
CHANNEL_BYTES_MAX = 8 * 1024 * 1024
"""Bodies of calls under way on one channel: beyond that nothing more is read from it for a while."""
CHANNEL_UNSENT_BYTES_MAX = 1024 * 1024
"""Answers that a channel's client has not taken yet: beyond that large ones wait, and no call is read."""
CHANNEL_HEAD_BYTES_MAX = 32 * 1024
"""Method, path, query and headers of one call."""
CHANNEL_FRAME_BYTES_TARGET = 256 * 1024
"""A frame is closed once it holds this much; one call or answer more may exceed it."""
CHANNEL_FRAME_BYTES_MAX = 2 * 1024 * 1024
"""Of a caller."""
CHANNEL_ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""Of a server, which bounds its answers by themselves."""
STREAMS_MAX = 200
"""Streams of events that one node serves."""
STREAM_BYTES_MAX = 256 * 1024
"""Not yet sent on a stream of events: beyond that its client is too slow and is cut off."""
STREAM_TASKS_MAX = 100
STREAM_TOPICS_MAX = 100
"""Told of in one event; a quarter of a second later come the next."""
OVERVIEW_QUEUES_MAX = 200
OVERVIEW_SPARKS_MAX = 50
OVERVIEW_TOPICS_MAX = 50
OVERVIEW_WORKERS_MAX = 50
OVERVIEW_ALERTS_MAX = 50
"""What an overview shows of each; what is left out is counted. All of it is encoded once a second, and sent to every
page."""
DECODED_BATCHES_MAX = 64
"""Batches whose messages are kept decoded for whoever reads them one by one."""
DECODED_BYTES_MAX = 4 * 1024 * 1024
"""Bodies of the batches that are kept decoded; the smallest messages take about ten times as much once decoded."""

assert ENTRY_BYTES_TARGET + 2 * REQUEST_BYTES_MAX <= ENTRY_BYTES_MAX
assert APPEND_BYTES_MAX + ENTRY_BYTES_MAX < FRAME_BYTES_MAX
assert CHANNEL_FRAME_BYTES_TARGET + CHANNEL_HEAD_BYTES_MAX + REQUEST_BYTES_MAX < CHANNEL_FRAME_BYTES_MAX
assert PAGE_BYTES_MAX + CHANNEL_FRAME_BYTES_TARGET + REQUEST_BYTES_MAX < CHANNEL_ANSWER_BYTES_MAX
