"""The lives of workers: they register, give signs of life, are told things, leave, die, and are forgotten.

Invariants: an id is one life and is never used again; of the lives under one name at most one is ALIVE. Who is not ALIVE
never is again. What is asked of all workers (who is alive, who has a name) stands in their rows at once. While a worker is ALIVE its leases stay; when it no longer is they go back, the first of them at once, and
those that are very many with the entries that follow: uncounted if it said that it leaves, as lost if it is DEAD, be it by its silence or because another process came under its name. A worker is forgotten only when it holds none. What each worker
serves is decided anew (see ``ownership``) whenever one comes, goes, dies, or is told to be quiet.
"""

from __future__ import annotations

import msgspec

from quorl.cluster.machine import events as e
from quorl.cluster.machine import moves, ownership
from quorl.cluster.machine.books import Worker
from quorl.cluster.machine.moves import End
from quorl.cluster.machine.schema import ALIVE, DEAD, LEFT
from quorl.cluster.machine.state import State
from quorl.cluster.machine.worker_queries import STATUSES
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import SignOfLife

_INSERT = f"INSERT INTO workers VALUES ({', '.join('?' * 20)})"
_INSERT_PROFILE = "INSERT INTO profiles VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_QUEUE = "INSERT INTO worker_queues VALUES (?1, ?2, ?3, ?4, 1, NOT ?4)"
_DIE = "UPDATE worker_queues SET alive = 0, active = 0 WHERE worker_id = ?"
_LEAVE = "DELETE FROM worker_queues WHERE worker_id = ?"
_COUNT_ALIVE = "SELECT count(*) FROM workers INDEXED BY workers_alive WHERE status = 0"
_OF_NAME = (
    "SELECT worker_id FROM workers INDEXED BY workers_name"
    " WHERE name = ? AND (status = 0 OR (status = 1 AND filled = 0)) ORDER BY worker_id"
)
_UNFILLED = "SELECT min(worker_id) FROM worker_queues INDEXED BY worker_queues_missed WHERE queue = ? AND alive = 0"
_LEASES = (
    "SELECT ordinal, token, claim FROM tasks INDEXED BY tasks_leased WHERE state = 2 AND worker_id = ?"
    " ORDER BY ordinal LIMIT ?"
)
_NOTE_BEAT = "INSERT OR REPLACE INTO beats VALUES (?, ?, ?)"
_REFRESH = "UPDATE workers SET beat_ms = ?1, beat_wall_ms = ?2, alarm_ms = ?1 + dead_after_ms WHERE status = 0"
_FORGET = tuple(
    f"DELETE FROM {table} WHERE worker_id = ?" for table in ("workers", "profiles", "worker_queues", "beats")
)
_encode = msgspec.json.Encoder().encode


# -- who is alive -------------------------------------------------------------------------------------------------
def is_alive(worker: Worker) -> bool:
    """Whether a worker is ALIVE."""
    return worker.status == ALIVE


def _found(state: State, worker_id: int) -> Worker | w.WorkerNotFound:
    worker = state.worker(worker_id) if 0 < worker_id < state.header.next_worker_id else None
    return worker or w.WorkerNotFound(detail=f"There is no worker {worker_id}.")


def alive(state: State, worker_id: int) -> Worker | w.WorkerNotFound | w.WorkerNotAlive:
    """The worker, if it is ALIVE; otherwise the refusal."""
    worker = _found(state, worker_id)
    if isinstance(worker, Worker) and worker.status != ALIVE:
        return w.WorkerNotAlive(detail=f'The worker {worker_id}, "{worker.name}", is {STATUSES[worker.status]}.')
    return worker


def beat(state: State, worker: Worker) -> None:
    """A worker that is ALIVE has given a sign of life at the entry's moment."""
    header = state.header
    if worker.beat_ms == header.now_ms:
        return
    state.change_worker(worker)
    worker.beat_ms, worker.beat_wall_ms = header.now_ms, header.wall_ms
    worker.alarm_ms = header.now_ms + worker.dead_after_ms
    if header.now_ms - worker.noted_ms >= worker.heartbeat_ms // 2:
        _note_beat(state, worker)


def _note_beat(state: State, worker: Worker) -> None:
    slot = worker.beats % limits.BEATS_KEPT
    state.execute(_NOTE_BEAT, (worker.worker_id, slot, worker.beat_wall_ms))
    worker.noted_ms = worker.beat_ms
    worker.beats += 1
    state.events.append(e.WorkerHeard(worker.worker_id, worker.beat_wall_ms))


def refresh(state: State) -> None:
    """Every worker that is ALIVE counts as having given a sign of life: nobody could hear any."""
    state.write_workers()
    state.execute(_REFRESH, (state.header.now_ms, state.header.wall_ms))
    state.forget_workers()
    state.calm_workers_ms = 0


def heed(state: State, sign: SignOfLife, most: int) -> int:
    """Hear a sign of life, and take back what was leased to claims whose answers were lost.

    At most so many leases go back, and the next sign goes on; returns how many did.
    """
    worker = alive(state, sign.worker_id)
    if not isinstance(worker, Worker):
        return 0
    beat(state, worker)
    if sign.tokens is None or not worker.leases or not most:
        return 0
    tokens, claims = frozenset(sign.tokens), frozenset(sign.claims)
    lost = [
        ordinal
        for ordinal, token, claim in state.execute(_LEASES, (worker.worker_id, -1)).fetchall()
        if 0 < claim <= sign.claimed and token not in tokens and claim not in claims
    ]
    for ordinal in lost[:most]:
        moves.end(state, moves.get(state, ordinal), "released")
    return min(len(lost), most)


# -- commands -----------------------------------------------------------------------------------------------------
def enrol(state: State, command: w.EnrolWorker) -> w.WorkerRegistered | w.TooManyWorkers:
    """Register a life; the former one under its name is dead, and it takes the place of one that died."""
    queues = tuple(dict.fromkeys(command.queues))
    _check(command, queues)
    former = _of_name(state, command.name) if command.name else []
    (others,) = state.execute(_COUNT_ALIVE).fetchone()
    if others >= limits.WORKERS_MAX and not any(is_alive(_there(state, worker_id)) for worker_id in former):
        return w.TooManyWorkers(detail=f"{others} workers are alive, and no more may be.")
    touched = dict.fromkeys(queues)
    for worker_id in former:
        touched |= dict.fromkeys(_replaced(state, _there(state, worker_id)))
    if not command.standby and not former:
        touched |= dict.fromkeys(_fill_one(state, queues))
    worker = _born(state, command, queues)
    ownership.settle(state, touched)
    state.events.append(e.WorkerChanged(worker.worker_id))
    return w.WorkerRegistered(
        worker_id=worker.worker_id,
        name=worker.name,
        heartbeat_ms=worker.heartbeat_ms,
        dead_after_ms=worker.dead_after_ms,
    )


def _born(state: State, command: w.EnrolWorker, queues: tuple[str, ...]) -> Worker:
    header = state.header
    worker_id = header.next_worker_id
    heartbeat_ms, dead_after_ms = _beats_of(command)
    worker = Worker(
        worker_id=worker_id,
        name=command.name or _new_name(state, worker_id),
        status=ALIVE,
        standby=int(command.standby),
        filled=0,
        quiet=0,
        terminate=0,
        heartbeat_ms=heartbeat_ms,
        dead_after_ms=dead_after_ms,
        alarm_ms=header.now_ms + dead_after_ms,
        beat_ms=header.now_ms,
        beat_wall_ms=header.wall_ms,
        noted_ms=header.now_ms,
        beats=0,
        leases=0,
        succeeded=0,
        failed=0,
        lost=0,
        registered_ms=header.wall_ms,
        ended_ms=None,
        queues=queues,
        active=frozenset() if command.standby else frozenset(queues),
    )
    state.execute(_INSERT, msgspec.structs.astuple(worker)[:-2])
    names, handlers = _encode(queues).decode(), _encode(command.handlers).decode()
    profile = (command.host, command.pid, command.version, names, command.concurrency, handlers)
    state.execute(_INSERT_PROFILE, (worker_id, *profile))
    for position, name in enumerate(queues):
        state.execute(_INSERT_QUEUE, (name, worker_id, position, worker.standby))
    header.next_worker_id += 1
    state.add_worker(worker)
    _note_beat(state, worker)
    return worker


def _of_name(state: State, name: str) -> list[int]:
    """Those whose place the next life under the name takes."""
    return [worker_id for (worker_id,) in state.execute(_OF_NAME, (name,)).fetchall()]


def _new_name(state: State, worker_id: int) -> str:
    name = f"worker-{worker_id}"
    while _of_name(state, name):
        name += "+"
    return name


def remove(state: State, command: w.RemoveWorker) -> w.WorkerGone | w.WorkerNotFound:
    """Let a worker leave, or forget one that is not ALIVE, unless it has very many leases left to give back."""
    worker = _found(state, command.worker_id)
    if not isinstance(worker, Worker):
        return worker
    held = worker.leases
    if worker.status == ALIVE:
        ownership.settle(state, retire(state, worker, LEFT, limits.DUE_TASKS_PER_ENTRY))
    else:
        give_back(state, worker, limits.DUE_TASKS_PER_ENTRY)
        if not worker.leases:
            forget(state, worker)
    return w.WorkerGone(worker_id=worker.worker_id, released=held)


def quiet(state: State, command: w.QuietWorker) -> w.WorkerTold | w.WorkerNotFound | w.WorkerNotAlive:
    """Tell a worker to claim nothing more; others take over what it served."""
    return _tell(state, command.worker_id, terminate=False)


def terminate(state: State, command: w.TerminateWorker) -> w.WorkerTold | w.WorkerNotFound | w.WorkerNotAlive:
    """Tell a worker to end, which is to be quiet first."""
    return _tell(state, command.worker_id, terminate=True)


def _tell(state: State, worker_id: int, *, terminate: bool) -> w.WorkerTold | w.WorkerNotFound | w.WorkerNotAlive:
    worker = alive(state, worker_id)
    if not isinstance(worker, Worker):
        return worker
    worker.terminate = int(terminate or worker.terminate)
    if not worker.quiet:
        worker.quiet = 1
        ownership.settle(state, _leave(state, worker))
    state.write_worker(worker)
    state.events.append(e.WorkerChanged(worker_id))
    return w.WorkerTold(worker_id=worker_id, directive="terminate" if terminate else "quiet")


# -- the end of a life --------------------------------------------------------------------------------------------
def retire(state: State, worker: Worker, status: int, most: int, *, missed: bool = False) -> tuple[str, ...]:
    """End a life, and give back at most so many of its leases now; returns the queues to be settled anew.

    ``missed``: nobody has come in its place, unless it was a stand-by or told to be quiet.
    """
    state.change_worker(worker)
    worker.status, worker.ended_ms = status, state.header.wall_ms
    if missed and not worker.standby and not worker.quiet:
        state.execute(_DIE, (worker.worker_id,))
        names, worker.active = worker.queues, frozenset()
    else:
        worker.filled = 1
        names = _leave(state, worker)
    give_back(state, worker, most)
    return names


def give_back(state: State, worker: Worker, most: int) -> None:
    """Give leases of a worker back that is not ALIVE, at most so many."""
    how: End = "lost" if worker.status == DEAD else "released"
    for ordinal, _, _ in state.execute(_LEASES, (worker.worker_id, most)).fetchall():
        moves.end(state, moves.get(state, ordinal), how)
    state.change_worker(worker)
    worker.alarm_ms = state.header.now_ms + (0 if worker.leases else limits.WORKER_KEPT_MS)
    state.write_worker(worker)
    state.events.append(e.WorkerChanged(worker.worker_id))


def put_off(state: State, worker_id: int, alarm_ms: int) -> None:
    """Leave what is due of a worker for later."""
    worker = _there(state, worker_id)
    state.change_worker(worker)
    worker.alarm_ms = alarm_ms


def forget(state: State, worker: Worker) -> None:
    """Forget a worker that is not ALIVE and holds nothing."""
    names = _leave(state, worker)
    for statement in _FORGET:
        state.execute(statement, (worker.worker_id,))
    state.forget_worker(worker)
    ownership.settle(state, names)
    state.events.append(e.WorkerChanged(worker.worker_id))


def _leave(state: State, worker: Worker) -> tuple[str, ...]:
    """Count for no queue any more; returns those it counted for."""
    state.execute(_LEAVE, (worker.worker_id,))
    state.change_worker(worker)
    names, worker.queues, worker.active = worker.queues, (), frozenset()
    return names


def _replaced(state: State, worker: Worker) -> tuple[str, ...]:
    """Another life begins under the name: one that is ALIVE died without a word, one that is DEAD is missed no longer.

    Whatever ran there may be what killed it; were its leases not counted as lost, a task could end its worker for ever
    under a supervisor that is quicker than the dead-limit.
    """
    if worker.status == ALIVE:
        return retire(state, worker, DEAD, limits.DUE_TASKS_PER_ENTRY)
    return _fill(state, worker)


def _fill_one(state: State, queues: tuple[str, ...]) -> tuple[str, ...]:
    """Take the place of the worker that died first of those who served one of the queues."""
    missed = [state.execute(_UNFILLED, (name,)).fetchone()[0] for name in queues]
    first = min([worker_id for worker_id in missed if worker_id is not None], default=None)
    return () if first is None else _fill(state, _there(state, first))


def _fill(state: State, worker: Worker) -> tuple[str, ...]:
    state.change_worker(worker)
    worker.filled = 1
    state.write_worker(worker)
    return _leave(state, worker)


def _there(state: State, worker_id: int) -> Worker:
    worker = state.worker(worker_id)
    assert worker is not None, "a row has just named it"
    return worker


def _beats_of(command: w.EnrolWorker) -> tuple[int, int]:
    heartbeat_ms, dead_after_ms = command.heartbeat_ms, command.dead_after_ms
    return (
        command.defaults.heartbeat_ms if heartbeat_ms is None else heartbeat_ms,
        command.defaults.dead_after_ms if dead_after_ms is None else dead_after_ms,
    )


def _check(command: w.EnrolWorker, queues: tuple[str, ...]) -> None:
    """Refuse what the checks before the log never let pass."""
    within = (
        0 < len(queues) <= limits.WORKER_QUEUES_MAX
        and all(0 < len(name) <= limits.QUEUE_NAME_CHARS_MAX for name in queues)
        and all(0 < ms <= limits.HEARTBEAT_MS_MAX for ms in _beats_of(command))
    )
    if not within:
        raise ValueError("a worker cannot be so")
