"""What each command about queues does: configure, pause, seal, purge, delete.

Invariants: a queue's name is free as soon as it is deleted, and its id is never used again. The row of a deleted queue
stays for its finished tasks, and goes with the last of them. Every number of a configuration is within its limit, whatever
the log says, so that nothing that is counted from it can overflow later.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from quorl.cluster.machine import moves, ownership, queue_queries, samples
from quorl.cluster.machine.books import NOTHING, Queue
from quorl.cluster.machine.counted import counted
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol.submitting import fault_of_backoff
from quorl.cluster.protocol.tasks import STATES

_INSERT = (
    "INSERT INTO queues VALUES (?, ?, 0, 0, 0, ?, 0, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ?, ?)"
)
_CONFIGURE = (
    "UPDATE queues SET paused = ?, sealed = ?, default_attempts = ?, max_lost = ?, backoff = ?, timeout_ms = ?,"
    " keep_finished_ms = ?, max_depth = ? WHERE queue_id = ?"
)
_DELETE = "UPDATE queues SET deleted = 1 WHERE queue_id = ?"
_DELETE_EMPTY = "DELETE FROM queues WHERE queue_id = ?"
_QUEUED = (
    "SELECT ordinal FROM tasks INDEXED BY tasks_ready WHERE state = 1 AND queue_id = ?"
    " ORDER BY partition, rank, ordinal LIMIT ?"
)
_RESTING = (
    "SELECT ordinal FROM tasks INDEXED BY tasks_resting WHERE state NOT IN (1, 2) AND queue_id = ? AND state = ?"
    " ORDER BY ordinal LIMIT ?"
)
_encode = msgspec.json.Encoder().encode
_decode_backoff = msgspec.json.Decoder(q.Backoff).decode


def not_found(name: str) -> q.QueueNotFound:
    """The refusal that names the queue."""
    return q.QueueNotFound(detail=f'There is no queue "{name}".')


def _info(state: State, queue: Queue) -> q.QueueInfo:
    """The queue as it is remembered, which is newer than its row."""
    row = queue_queries.QueueRow(
        queue_id=queue.queue_id,
        name=queue.name,
        paused=queue.paused,
        sealed=queue.sealed,
        partitions=queue.partitions,
        default_attempts=queue.default_attempts,
        max_lost=queue.max_lost,
        backoff=queue.backoff,
        timeout_ms=queue.timeout_ms,
        keep_finished_ms=queue.keep_finished_ms,
        max_depth=queue.max_depth,
        submitted=queue.submitted,
        created_ms=queue.created_ms,
        **dict(zip(q.QueueCounts.__struct_fields__, queue.counts, strict=True)),
    )
    return queue_queries.info(state.connection, row, state.header.now_ms)


def put(state: State, command: q.SetQueue) -> q.QueueInfo | q.QueueDiffers:
    """Create a queue, or replace its configuration; it stays paused or sealed as it is."""
    queue = state.queue(command.queue)
    if queue is None:
        queue = create(state, command)
    elif queue.partitions != command.partitions:
        detail = f'The queue "{queue.name}" has {counted(queue.partitions, "partition")}, not {command.partitions}.'
        return q.QueueDiffers(detail=detail)
    else:
        state.change_queue(queue)
        queue.default_attempts = _default_attempts(command)
        queue.max_lost = command.max_lost
        queue.backoff = _encode(command.backoff).decode()
        queue.timeout_ms = command.timeout_ms
        queue.keep_finished_ms = command.keep_finished_ms
        queue.max_depth = command.max_depth
        _configure(state, queue)
    return _info(state, queue)


def create(state: State, command: q.SetQueue) -> Queue:
    """Create a queue, with owners for its partitions."""
    header, name = state.header, command.queue
    if not 0 < len(name) <= limits.QUEUE_NAME_CHARS_MAX or name in {".", ".."}:
        raise ValueError("a queue cannot have this name")
    if not 0 <= command.partitions <= limits.PARTITIONS_MAX:
        raise ValueError("a queue cannot have so many partitions")
    queue = Queue(
        queue_id=header.next_queue_id,
        name=name,
        deleted=0,
        paused=0,
        sealed=0,
        partitions=command.partitions,
        next_partition=0,
        default_attempts=_default_attempts(command),
        max_lost=command.max_lost,
        backoff=_encode(command.backoff).decode(),
        timeout_ms=command.timeout_ms,
        keep_finished_ms=command.keep_finished_ms,
        max_depth=command.max_depth,
        submitted=0,
        sampled=samples.encode(NOTHING),
        created_ms=header.wall_ms,
        counts=[0] * len(STATES),
        totals=[0] * (len(NOTHING) - 3),
    )
    _check(queue)
    config = (queue.default_attempts, queue.max_lost, queue.backoff, queue.timeout_ms)
    kept = (queue.keep_finished_ms, queue.max_depth, queue.sampled, queue.created_ms)
    state.execute(_INSERT, (queue.queue_id, name, queue.partitions, *config, *kept))
    header.next_queue_id += 1
    state.add_queue(queue)
    if queue.partitions:
        ownership.found(state, queue)
    return queue


def patch(state: State, command: q.PatchQueue) -> q.QueueInfo | q.QueueNotFound:
    """Change what is given; what can be handed out from now on, or what has run empty, is told."""
    queue = state.queue(command.queue)
    if queue is None:
        return not_found(command.queue)
    state.change_queue(queue)
    for name in ("paused", "default_attempts", "max_lost", "timeout_ms", "keep_finished_ms", "max_depth"):
        value = getattr(command, name)
        if value is not UNSET:
            setattr(queue, name, int(value) if name == "paused" else value)
    if command.sealed_ is not UNSET:
        queue.sealed = int(command.sealed_)
    if command.backoff is not UNSET:
        queue.backoff = _encode(command.backoff).decode()
    _configure(state, queue)
    if not queue.paused or queue.drained:
        state.news.ready[queue.name] = None
    return _info(state, queue)


def delete(state: State, command: q.DeleteQueue) -> q.QueueDeleted | q.QueueNotFound | q.QueueNotEmpty:
    """Delete a queue in which nothing waits or runs; those of its tasks that are finished stay."""
    queue = state.queue(command.queue)
    if queue is None:
        return not_found(command.queue)
    unfinished = queue.waiting + queue.counts[moves.PROCESSING]
    if unfinished:
        detail = f'The queue "{queue.name}" has {counted(unfinished, "task")} waiting or running.'
        return q.QueueNotEmpty(detail=detail)
    samples.close_queue(state, queue)
    state.drop_queue(queue)
    ownership.dissolve(state, queue)
    queue.deleted = 1
    if any(queue.counts):
        state.execute(_DELETE, (queue.queue_id,))
    else:
        state.execute(_DELETE_EMPTY, (queue.queue_id,))
        state.forget_queue(queue)
    state.news.ready[queue.name] = None
    return q.QueueDeleted(name=queue.name)


def purge(state: State, command: q.PurgeQueue) -> q.Purged | q.QueueNotFound:
    """Take out a bounded number of tasks, state by state, each state's in a fixed order."""
    queue = state.queue(command.queue)
    if queue is None:
        return not_found(command.queue)
    states = [number for number, name in enumerate(STATES) if name in command.states]
    ordinals: list[tuple[int]] = []
    if not command.dry_run:
        for number in states:
            room = limits.PURGED_TASKS_PER_COMMAND - len(ordinals)
            ordinals += (
                state.execute(_QUEUED, (queue.queue_id, room))
                if number == moves.QUEUED
                else state.execute(_RESTING, (queue.queue_id, number, room))
            ).fetchall()
    for (ordinal,) in ordinals:
        task = moves.get(state, ordinal)
        if task.state <= moves.RETRY:
            moves.finish(state, task, moves.CANCELLED, "PURGED")
        else:
            moves.forget(state, task)
    return q.Purged(removed=len(ordinals), remaining=sum(queue.counts[number] for number in states))


def _configure(state: State, queue: Queue) -> None:
    _check(queue)
    flags = (queue.paused, queue.sealed, queue.default_attempts, queue.max_lost, queue.backoff, queue.timeout_ms)
    state.execute(_CONFIGURE, (*flags, queue.keep_finished_ms, queue.max_depth, queue.queue_id))


def _default_attempts(command: q.SetQueue) -> int:
    return command.defaults.attempts if command.default_attempts is None else command.default_attempts


def _check(queue: Queue) -> None:
    """Refuse what the checks before the log never let pass."""
    within = (
        1 <= queue.default_attempts <= limits.ATTEMPTS_MAX
        and 1 <= queue.max_lost <= limits.ATTEMPTS_MAX
        and (queue.timeout_ms is None or 1 <= queue.timeout_ms <= limits.DELAY_MS_MAX)
        and 0 <= queue.keep_finished_ms <= limits.DELAY_MS_MAX
        and 0 <= queue.max_depth <= limits.INTEGER_MAX
        and not fault_of_backoff(_decode_backoff(queue.backoff))
    )
    if not within:
        raise ValueError("a queue cannot be configured so")
