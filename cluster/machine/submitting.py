"""Taking tasks in: all of a submit or none.

Invariants: a refusal has changed nothing, and creates no queue. A task whose id came with it is the same as another only if
everything that was said of it is. What a task does not say itself it takes from its queue as that is now, but for the
back-off, which is looked up when it is needed. Bodies are JSON that every reader can read: that is checked here, once,
although it was checked before it was proposed.
"""

from __future__ import annotations

import hashlib

import msgspec

from quorl.cluster.machine import ids, queues, waiting
from quorl.cluster.machine.books import Coming, Queue
from quorl.cluster.machine.moves import QUEUED, SCHEDULED
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol.placement import partition_of
from quorl.cluster.protocol.queues import QueueFull, QueueSealed, SetQueue
from quorl.cluster.protocol.tasks import STATES, TaskExists

_SAME = ids.ById("SELECT t.state, p.fingerprint FROM tasks t CROSS JOIN payloads p ON p.ordinal = t.ordinal")
_BODY = s.QueuedTask.__struct_fields__.index("body")
_encode_task = msgspec.msgpack.Encoder().encode
_encode_backoff = msgspec.json.Encoder().encode
_encode_body = msgspec.json.Encoder().encode
_read_body = msgspec.json.Decoder(s.TaskBody).decode


def submit(state: State, command: s.SubmitBatch) -> s.Submitted | TaskExists | QueueSealed | QueueFull:
    """Put tasks into a queue, which is created if there is none of that name."""
    tasks = command.tasks
    if not tasks:
        raise ValueError("a submit has no tasks")
    queue = state.queue(command.queue)
    found: list[s.SubmittedTask | None] = []
    prints: list[bytes | None] = []
    alike: list[bool] = []
    before: tuple[object, ...] | None = None
    coming: dict[str, tuple[bytes, str]] = {}
    for task in tasks:
        body = _read_body(task.body)
        traits = _traits(task)
        alike.append(traits == before)
        if traits != before:
            _check(task)
            before = traits
        if task.id is None:
            found.append(None)
            prints.append(None)
            continue
        print_ = fingerprint(command.queue, task, body)
        known = _known(state, coming, task.id, print_)
        if isinstance(known, TaskExists):
            return known
        if known is None:
            coming[task.id] = print_, STATES[_when(state, task)[0]]
        found.append(known)
        prints.append(print_)
    new = found.count(None)
    if new:
        refusal = None if queue is None else _refusal(queue, new)
        if refusal is not None:
            return refusal
        if queue is None:
            queue = queues.create(state, SetQueue(queue=command.queue, defaults=command.defaults))
        _store(state, queue, tasks, prints, found, alike)
    return s.submitted([item for item in found if item is not None])


def _known(
    state: State, coming: dict[str, tuple[bytes, str]], task_id: str, print_: bytes
) -> s.SubmittedTask | TaskExists | None:
    """The task with that id, if there is one already, also in the same submit."""
    waiting.write(state)
    row = _SAME.find(state.execute, task_id)
    if row is not None:
        status, other = STATES[row[0]], row[1]
    elif task_id in coming:
        other, status = coming[task_id]
    else:
        return None
    if other != print_:
        return TaskExists(detail=f'There is another task "{task_id}".')
    return s.SubmittedTask(id=task_id, status=status, existing=True)


def _refusal(queue: Queue, new: int) -> QueueSealed | QueueFull | None:
    if queue.sealed:
        return QueueSealed(detail=f'The queue "{queue.name}" is sealed.')
    if queue.max_depth and queue.waiting + new > queue.max_depth:
        detail = f'The queue "{queue.name}" holds {queue.waiting} of at most {queue.max_depth} waiting tasks.'
        return QueueFull(detail=detail)
    return None


def _store(
    state: State,
    queue: Queue,
    tasks: list[s.QueuedTask],
    prints: list[bytes | None],
    found: list[s.SubmittedTask | None],
    alike: list[bool],
) -> None:
    """Count those that are new, and say so in ``found``; their rows wait. ``alike``: which are as the one before, but for the body."""
    header, changed = state.header, state.news.tasks
    now_ms, wall_ms, ordinal = header.now_ms, header.wall_ms, header.next_ordinal
    die = ids.die(state.seed)
    head = ids.head(wall_ms, die)
    entry, partitions = (state.index, state.term, wall_ms), queue.partitions
    queue_id, default_attempts, max_lost = queue.queue_id, queue.default_attempts, queue.max_lost
    state.change_queue(queue)
    queued, number = 0, QUEUED
    shared: Coming | None = None
    together: list[int] = []
    if state.coming:
        shared, together = state.coming[-1]
    for place, task in enumerate(tasks):
        if found[place] is not None:
            continue
        if not alike[place] or partitions or task.id is not None:
            number, due_ms, calendar_ms = _when(state, task)
            expiry_ms = None if task.expires_ms is None else now_ms + task.expires_ms
            alarm_ms = expiry_ms if due_ms is None else due_ms if expiry_ms is None else min(due_ms, expiry_ms)
            said = Coming(
                task.id or "",
                alarm_ms or 0,
                calendar_ms or 0,
                due_ms or 0,
                expiry_ms or 0,
                task.timeout_ms or queue.timeout_ms or 0,
                0 if task.id else die,
                queue_id,
                _partition(queue, task.key) if partitions else -1,
                number,
                limits.PRIORITY_MAX - task.priority,
                now_ms,
                task.name,
                task.max_attempts or default_attempts,
                task.max_lost or max_lost,
                *entry,
            )
            if said != shared:
                shared, together = said, []
                state.coming.append((shared, together))
            state.wake(alarm_ms)
            if calendar_ms is not None:
                state.calm_calendar_ms = min(state.calm_calendar_ms, calendar_ms)
        task_id = task.id or f"{head}{ordinal:012x}"
        together += (ordinal, len(task.body))
        if task.backoff is None and prints[place] is None:
            state.bodies += (ordinal, task.body)
        else:
            backoff = "" if task.backoff is None else _encode_backoff(task.backoff).decode()
            state.payloads.append((ordinal, prints[place] or "", backoff, task.body))
        found[place] = s.SubmittedTask(id=task_id, status=STATES[number])
        changed[task_id] = None
        queue.counts[number] += 1
        queued += number == QUEUED
        ordinal += 1
    queue.submitted += ordinal - header.next_ordinal
    header.next_ordinal = ordinal
    if queued:
        state.news.ready[queue.name] = None


def _when(state: State, task: s.QueuedTask) -> tuple[int, int | None, int | None]:
    """The state in which a task begins, and when it is due: in cluster time, or by the calendar."""
    header = state.header
    if task.delay_ms:
        return SCHEDULED, header.now_ms + task.delay_ms, None
    if task.run_at_ms is not None and task.run_at_ms > header.wall_ms:
        return SCHEDULED, None, task.run_at_ms
    return QUEUED, None, None


def _partition(queue: Queue, key: str | None) -> int:
    if key is not None:
        return partition_of(key, queue.partitions)
    partition = queue.next_partition
    queue.next_partition = (partition + 1) % queue.partitions
    return partition


def fingerprint(queue: str, task: s.QueuedTask, body: s.TaskBody) -> bytes:
    """What tells a task from another with the same id: everything that was said of it but its trace, and its queue."""
    if body.traceparent is not None:
        untraced = _encode_body(msgspec.structs.replace(body, traceparent=None, tracestate=None))
        task = msgspec.structs.replace(task, body=untraced)
    return hashlib.blake2b(_encode_task((queue, task)), digest_size=16).digest()


def _traits(task: s.QueuedTask) -> tuple[object, ...]:
    """All that was said of a task but its body."""
    said = msgspec.structs.astuple(task)
    return said[:_BODY] + said[_BODY + 1 :]


def _check(task: s.QueuedTask) -> None:
    """Refuse what the checks before the log never let pass, but for the body."""
    within = (
        (task.id is None or (0 < len(task.id) <= limits.TASK_ID_CHARS_MAX and task.id not in {".", ".."}))
        and 0 < len(task.name) <= limits.TASK_NAME_CHARS_MAX
        and 0 <= task.priority <= limits.PRIORITY_MAX
        and 0 <= task.delay_ms <= limits.DELAY_MS_MAX
        and (task.run_at_ms is None or 0 <= task.run_at_ms <= moment.LAST_MS)
        and (task.expires_ms is None or 1 <= task.expires_ms <= limits.DELAY_MS_MAX)
        and (task.timeout_ms is None or 1 <= task.timeout_ms <= limits.DELAY_MS_MAX)
        and (task.max_attempts is None or 1 <= task.max_attempts <= limits.ATTEMPTS_MAX)
        and (task.max_lost is None or 1 <= task.max_lost <= limits.ATTEMPTS_MAX)
        and (task.backoff is None or not s.fault_of_backoff(task.backoff))
    )
    if not within:
        raise ValueError("a task cannot be so")
