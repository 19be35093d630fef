"""What becomes of leases by what their workers report.

Invariants: a report counts only under the token of the task's current lease; any other changes nothing and is refused.
Every report that counts is a sign of life of the worker that holds the lease. What is reported together takes effect or is
refused one by one.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from quorl.cluster.machine import events, moves, waiting, workers
from quorl.cluster.machine.books import Worker
from quorl.cluster.machine.moves import PROCESSING
from quorl.cluster.machine.state import Lease, State
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol.tasks import STATES, LeaseLost, Status, TaskError, TaskNotFound, TaskStatus
from quorl.cluster.protocol.workers import WorkerNotAlive, WorkerNotFound

_HOLD = (
    "INSERT INTO progress VALUES (?1, ?2, ?3, ?4) ON CONFLICT (ordinal) DO UPDATE SET percent = ifnull(?2, percent),"
    " note = CASE ?3 WHEN '' THEN note ELSE ?3 END, checkpoint = ifnull(?4, checkpoint)"
)
_check_json = msgspec.json.Decoder(msgspec.Raw).decode
_encode_error = msgspec.json.Encoder().encode


def complete(state: State, command: c.Complete) -> TaskStatus | TaskNotFound | LeaseLost:
    """A task is done."""
    lease = _settled(state, command.id, command.lease, command.result)
    if not isinstance(lease, Lease):
        return lease
    moves.complete(state, [(lease, command.result)])
    return TaskStatus(id=command.id, status="SUCCESS", attempts=lease.attempts + 1)


def complete_all(state: State, reports: Iterable[c.Done]) -> list[Lease | TaskNotFound | LeaseLost]:
    """These tasks are done: of each the lease that has ended so, or the refusal."""
    said: list[Lease | TaskNotFound | LeaseLost] = []
    ended: list[tuple[Lease, bytes]] = []
    leases, heard = state.leases, 0
    for done in reports:
        result, known = done.result, leases.get(done.lease)
        lease: Lease | TaskNotFound | LeaseLost
        if known is not None and known.id == done.task_id and known.worker_id == heard:
            if result != b"null":
                _check_json(result)
            lease = leases.pop(done.lease)
        else:
            if ended and (known is None or known.id != done.task_id):
                moves.complete(state, ended)  # the row is asked, so it must say what came before
                ended = []
            lease = _settled(state, done.task_id, done.lease, result)
            heard = lease.worker_id if isinstance(lease, Lease) else 0
        if isinstance(lease, Lease):
            ended.append((lease, result))
        said.append(lease)
    if ended:
        moves.complete(state, ended)
    return said


def fail(state: State, command: c.FailTask) -> TaskStatus | TaskNotFound | LeaseLost:
    """An attempt has failed."""
    return _fail(state, command.id, command.lease, command.error, command.retry, command.delay_ms)


def release(state: State, command: c.ReleaseTask) -> TaskStatus | TaskNotFound | LeaseLost:
    """A task is given back."""
    return _release(state, command.id, command.lease, command.delay_ms)


def hold(state: State, command: c.Hold) -> c.TaskHeld | TaskNotFound | LeaseLost:
    """A task is still being worked on."""
    return _hold(state, command.id, command.lease, command.progress, command.note, command.checkpoint)


def settle(state: State, command: c.Settle) -> c.Settled | WorkerNotFound | WorkerNotAlive:
    """All that a worker has to report."""
    worker = workers.alive(state, command.worker_id)
    if not isinstance(worker, Worker):
        return worker
    workers.beat(state, worker)
    statuses: list[Status] = []
    rejected: list[c.Rejected] = []

    def note(task_id: str, said: TaskStatus | c.TaskHeld | TaskNotFound | LeaseLost) -> None:
        if isinstance(said, (TaskNotFound, LeaseLost)):
            rejected.append(c.Rejected(task_id=task_id, code=str(said.__struct_config__.tag)))
        else:
            statuses.append(said.status if isinstance(said, TaskStatus) else "PROCESSING")

    for done, said in zip(command.complete, complete_all(state, command.complete), strict=True):
        if isinstance(said, Lease):
            statuses.append("SUCCESS")
        else:
            note(done.task_id, said)
    for one in command.fail:
        note(one.task_id, _fail(state, one.task_id, one.lease, one.error, one.retry, one.delay_ms))
    for back in command.release:
        note(back.task_id, _release(state, back.task_id, back.lease, back.delay_ms))
    for held in command.progress:
        note(held.task_id, _hold(state, held.task_id, held.lease, held.progress, held.note, held.checkpoint))
    return c.Settled(accepted=len(statuses), rejected=rejected, statuses=statuses)


def _leased(state: State, task_id: str, token: int) -> Lease | TaskNotFound | LeaseLost:
    """The lease, if that is the token of the task's current one."""
    lease = state.leases.get(token)
    if lease is None or lease.id != task_id:
        waiting.write(state)
        found = moves.find_lease(state, task_id)
        if found is None:
            return TaskNotFound(detail=f'There is no task "{task_id}".')
        now, current, lease = found
        if current != token or now != PROCESSING:
            state.events.append(events.LeaseLost())
            return LeaseLost(detail=f'The lease {token} of the task "{task_id}" is over; the task is {STATES[now]}.')
    worker = state.worker(lease.worker_id)
    assert worker is not None, "a worker is not forgotten while it holds leases"
    if worker.beat_ms != state.header.now_ms and workers.is_alive(worker):
        workers.beat(state, worker)
    return lease


def _settled(state: State, task_id: str, token: int, result: bytes) -> Lease | TaskNotFound | LeaseLost:
    """The lease that ends with a result, or the refusal."""
    if result != b"null":
        _check_json(result)
    lease = _leased(state, task_id, token)
    if isinstance(lease, Lease):
        state.leases.pop(token, None)
    return lease


def _fail(
    state: State, task_id: str, token: int, error: TaskError, retry: bool, delay_ms: int | None
) -> TaskStatus | TaskNotFound | LeaseLost:
    lease = _leased(state, task_id, token)
    if not isinstance(lease, Lease):
        return lease
    task = moves.get(state, lease.ordinal)
    text = _encode_error(error).decode()
    after = moves.end(state, task, "failed", error=text, retry=retry, delay_ms=delay_ms)
    return TaskStatus(id=task_id, status=STATES[after], attempts=task.attempts + (not task.cancel))


def _release(state: State, task_id: str, token: int, delay_ms: int) -> TaskStatus | TaskNotFound | LeaseLost:
    lease = _leased(state, task_id, token)
    if not isinstance(lease, Lease):
        return lease
    task = moves.get(state, lease.ordinal)
    after = moves.end(state, task, "released", delay_ms=delay_ms)
    return TaskStatus(id=task_id, status=STATES[after], attempts=task.attempts)


def _hold(
    state: State, task_id: str, token: int, progress: float | None, note: str, checkpoint: bytes | None
) -> c.TaskHeld | TaskNotFound | LeaseLost:
    if checkpoint is not None:
        _check_json(checkpoint)
    lease = _leased(state, task_id, token)
    if not isinstance(lease, Lease):
        return lease
    task = moves.get(state, lease.ordinal)
    if progress is not None or note or checkpoint is not None:
        state.execute(_HOLD, (task.ordinal, progress, note, checkpoint))
    return c.TaskHeld(id=task_id, cancel=bool(task.cancel))
