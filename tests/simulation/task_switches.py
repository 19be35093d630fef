"""Switches of tasks and workers: each takes away one thing that keeps leases, results, counts or the clock right.

They have the shape of those in ``switches``, which joins them.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec

from quorl.cluster.machine import claiming, due, ids, moves, receipts, schema, settling, tasks, workers
from quorl.cluster.machine.books import Queue, Worker
from quorl.cluster.machine.events import TasksChanged
from quorl.cluster.machine.machine import Machine
from quorl.cluster.machine.moves import Task
from quorl.cluster.machine.state import State
from quorl.cluster.node.committer import Committer
from quorl.cluster.node.leadership import Leadership
from quorl.cluster.node.parking import Parking
from quorl.cluster.node.syncing import Syncing
from quorl.cluster.node.watch import Watch
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.entry import Entry, SignOfLife
from quorl.cluster.protocol.together import ClaimBatch
from tests.consensus.repairs.setter import swapped
from tests.consensus.repairs.switches import Setter, Switch


# -- leases ------------------------------------------------------------------------------------------------------------
def lease_token(setter: Setter) -> None:
    """A report counts for whatever lease the task has now."""
    careful = settling._leased

    def careless(state: State, task_id: str, _token: int) -> Any:
        found = moves.find_lease(state, task_id)
        return careful(state, task_id, (found and found[1]) or 0)

    setter(settling, "_leased", careless)


def lease_state(setter: Setter) -> None:
    """A report counts under the last token, also when that lease is over."""
    careful = settling._leased

    def careless(state: State, task_id: str, token: int) -> Any:
        found = moves.find_lease(state, task_id)
        return found[2] if found is not None and found[1] == token else careful(state, task_id, token)

    setter(settling, "_leased", careless)


def tokens_grow(setter: Setter) -> None:
    """Every lease of a worker has the token of its former one."""
    setter(
        claiming, "_LEASE", swapped(claiming._LEASE, "token = ordinal - ?8 + ?10", "token = min(ordinal - ?8 + ?10, 7)")
    )


_CLAIMS = c.Claim | ClaimBatch


def claim_receipt(setter: Setter) -> None:
    """Nothing is remembered of a claim, so that its repeat gets other tasks."""
    careful = receipts.is_kept
    setter(receipts, "is_kept", lambda command, value: not isinstance(command, _CLAIMS) and careful(command, value))


def settle_key(setter: Setter) -> None:
    """The reports in a sync do not go under its key."""
    careful = Syncing._settle

    async def careless(syncing: Syncing, visit: Any, reports: c.Settle) -> Any:
        key, visit.key = visit.key, f"{visit.key}.{random.random()}"
        try:
            return await careful(syncing, visit, reports)
        finally:
            visit.key = key

    setter(Syncing, "_settle", careless)


def sign_claimed(setter: Setter) -> None:
    """A heartbeat gives back what was leased to claims that were sent after it."""
    careful = workers.heed

    def careless(state: State, sign: SignOfLife, most: int) -> int:
        return careful(state, msgspec.structs.replace(sign, claimed=1 << 40), most)

    setter(workers, "heed", careless)


def sign_waiting(setter: Setter) -> None:
    """A heartbeat gives back what was leased to claims that are still waited for."""
    careful = workers.heed

    def careless(state: State, sign: SignOfLife, most: int) -> int:
        return careful(state, msgspec.structs.replace(sign, claims=()), most)

    setter(workers, "heed", careless)


def sign_tokens(setter: Setter) -> None:
    """What a heartbeat does not hold stays leased."""
    careful = workers.heed

    def careless(state: State, sign: SignOfLife, most: int) -> int:
        return careful(state, msgspec.structs.replace(sign, tokens=None), most)

    setter(workers, "heed", careless)


def caller_gone(setter: Setter) -> None:
    """A claim stays parked when its caller has gone."""
    careful = Leadership.claim

    async def careless(leadership: Leadership, *arguments: Any) -> Any:
        return await asyncio.shield(asyncio.ensure_future(careful(leadership, *arguments)))

    setter(Leadership, "claim", careless)


def result_woken(setter: Setter) -> None:
    """Nobody who waits for a result is woken by it."""
    careful = Watch.applied

    def careless(watch: Watch, sequence: int, events: list[Any]) -> None:
        careful(watch, sequence, [event for event in events if not isinstance(event, TasksChanged)])

    setter(Watch, "applied", careless)


def parked_woken(setter: Setter) -> None:
    """No news of a queue reach the claims that wait for them, and no submit takes them along."""
    setter(Parking, "news", lambda _parking, _subject: None)
    setter(Parking, "behind", lambda _parking, _supply, _room: [])


# -- life and death ----------------------------------------------------------------------------------------------------
def refresh(setter: Setter) -> None:
    """A new leader takes the silence while there was none for the workers' own."""
    careful = Committer.lead

    def careless(committer: Committer) -> None:
        careful(committer)
        committer._refresh = False

    setter(Committer, "lead", careless)


def beats_replicated(setter: Setter) -> None:
    """Heartbeats are acknowledged, and stay with the leader."""

    async def sign(leadership: Leadership, _signs: Any) -> int:
        return await leadership.barrier()

    setter(Leadership, "sign", sign)


def signs_first(setter: Setter) -> None:
    """What is due comes before the signs of life that the same entry brings."""

    def before(machine: Machine, entry: Entry) -> None:
        state = machine._state
        state.seed = entry.seed
        due.attend(state, machine._guarded)
        for sign in entry.signs:
            machine._guarded(lambda sign=sign: workers.heed(state, sign, limits.DUE_TASKS_PER_ENTRY))  # type: ignore[misc]
        if entry.refresh:
            workers.refresh(state)

    setter(Machine, "_before_commands", before)


def wall_clock(setter: Setter) -> None:
    """How long workers are silent goes by the calendar."""
    careful = due._attend_workers

    def careless(state: State, guarded: Any) -> None:
        now_ms = state.header.now_ms
        state.header.now_ms = max(now_ms, state.header.wall_ms - 1_700_001_000_000)
        careful(state, guarded)
        state.header.now_ms = now_ms

    setter(due, "_attend_workers", careless)


def dead_let_go(setter: Setter) -> None:
    """The leases of a worker that is not alive any more stay with it."""
    careful = workers.give_back
    setter(workers, "give_back", lambda state, worker, _most: careful(state, worker, 0))


def replaced_counted(setter: Setter) -> None:
    """A worker whose place the next life under its name takes has left, and its leases go back uncounted."""
    careful = workers.retire
    setter(workers, "_replaced", lambda state, worker: careful(state, worker, schema.LEFT, limits.DUE_TASKS_PER_ENTRY))


def silence_noticed(setter: Setter) -> None:
    """Nobody is ever declared dead."""
    setter(due, "_attend_workers", lambda _state, _guarded: None)


def pulse(setter: Setter) -> None:
    """A leader proposes nothing of its own when something is due."""
    setter(Leadership, "_pulse", lambda _leadership: None)


# -- what is due -------------------------------------------------------------------------------------------------------
def _not_due(state_number: int) -> Switch:
    def switch(setter: Setter) -> None:
        careful = due._alarm

        def careless(state: State, ordinal: int) -> None:
            if moves.get(state, ordinal).state != state_number:
                careful(state, ordinal)

        setter(due, "_alarm", careless)

    return switch


def due_scheduled(setter: Setter) -> None:
    """A task whose time has come stays SCHEDULED."""
    _not_due(moves.SCHEDULED)(setter)


def due_retry(setter: Setter) -> None:
    """A task whose back-off is over stays in RETRY."""
    _not_due(moves.RETRY)(setter)


def due_timeout(setter: Setter) -> None:
    """A run may take as long as it likes."""
    _not_due(moves.PROCESSING)(setter)


def due_expiry(setter: Setter) -> None:
    """A task that nobody has started in time is started all the same."""
    _not_due(moves.QUEUED)(setter)


def due_calendar(setter: Setter) -> None:
    """What is to run at a time of the calendar is forgotten about."""
    setter(due, "_CALENDAR", swapped(due._CALENDAR, "calendar_ms <= ?", "calendar_ms <= ? - 100000000000000"))


# -- ends --------------------------------------------------------------------------------------------------------------
def max_lost(setter: Setter) -> None:
    """A task may kill as many workers as it likes."""
    careful = moves._after

    def careless(task: Task, how: Any, attempts: int, lost: int, retry: bool) -> Any:
        return careful(task._replace(max_lost=1 << 40), how, attempts, lost, retry)

    setter(moves, "_after", careless)


def released_uncounted(setter: Setter) -> None:
    """Giving a task back counts as a failure."""
    careful = moves.end

    def careless(state: State, task: Task, how: Any, **options: Any) -> int:
        return careful(state, task, "failed" if how == "released" else how, **options)

    setter(moves, "end", careless)


def released_later(setter: Setter) -> None:
    """What is given back for later is handed out at once."""
    careful = moves.end

    def careless(state: State, task: Task, how: Any, **options: Any) -> int:
        return careful(state, task, how, **(options | {"delay_ms": 0} if how == "released" else options))

    setter(moves, "end", careless)


def lost_uncounted(setter: Setter) -> None:
    """A worker that dies has failed its task."""
    careful = moves.end

    def careless(state: State, task: Task, how: Any, **options: Any) -> int:
        return careful(state, task, "failed" if how == "lost" else how, **options)

    setter(moves, "end", careless)


def retry_history(setter: Setter) -> None:
    """Trying a task again forgets what it came to before."""
    careful = tasks.retry

    def careless(state: State, command: k.RetryTask) -> Any:
        said = careful(state, command)
        state.execute(
            f"DELETE FROM attempts WHERE ordinal = (SELECT ordinal FROM tasks WHERE {ids.of('tasks')} = ?)",
            (command.id,),
        )
        return said

    setter(tasks, "retry", careless)


def cancel_waits(setter: Setter) -> None:
    """Who cancels a task that runs takes it from its worker."""
    setter(tasks, "PROCESSING", -1)


# -- chance ------------------------------------------------------------------------------------------------------------
def seeded_ids(setter: Setter) -> None:
    """Every node throws its own dice for ids."""
    setter(ids, "die", lambda _seed: random.getrandbits(26))


def seeded_jitter(setter: Setter) -> None:
    """Every node throws its own dice for back-offs."""
    careful = ids.delay_ms

    def careless(backoff: str, failed: int, _seed: int, ordinal: int) -> int:
        return careful(backoff, failed, random.getrandbits(63), ordinal)

    setter(ids, "delay_ms", careless)


# -- who gets what -----------------------------------------------------------------------------------------------------
def owners(setter: Setter) -> None:
    """Whoever asks gets tasks of any partition."""
    careful = claiming._open

    def careless(queue: Queue, worker: Worker) -> tuple[int, ...]:
        return tuple(range(queue.partitions)) if careful(queue, worker) and queue.partitions else careful(queue, worker)

    setter(claiming, "_open", careless)


def standbys(setter: Setter) -> None:
    """A stand-by works like everybody else."""
    careful = claiming._open

    def careless(queue: Queue, worker: Worker) -> tuple[int, ...]:
        standby, worker.standby = worker.standby, 0
        try:
            return careful(queue, worker)
        finally:
            worker.standby = standby

    setter(claiming, "_open", careless)


def paused(setter: Setter) -> None:
    """A queue that is paused hands out tasks."""
    careful = claiming._open

    def careless(queue: Queue, worker: Worker) -> tuple[int, ...]:
        was, queue.paused = queue.paused, type(queue.paused)(0)
        try:
            return careful(queue, worker)
        finally:
            queue.paused = was

    setter(claiming, "_open", careless)


def turns(setter: Setter) -> None:
    """What came last is handed out first."""
    setter(claiming, "_FIRST", swapped(claiming._FIRST, "rank, ordinal LIMIT", "rank DESC, ordinal DESC LIMIT"))


def counts(setter: Setter) -> None:
    """A queue counts what comes into a state, and not what goes."""
    careful = moves.count

    def careless(state: State, queue: Queue, task_id: str, before: int, after: int) -> None:
        careful(state, queue, task_id, before, after)
        queue.counts[before] += before == moves.RETRY

    setter(moves, "count", careless)


# -- history -----------------------------------------------------------------------------------------------------------
def samples_anew(setter: Setter) -> None:
    """A node that was started anew takes samples only of what changes from then on."""
    careful = State.reload

    def careless(self: State) -> None:
        careful(self)
        self.unsampled_queues, self.unsampled_topics = set(), set()

    setter(State, "reload", careless)


_TABLE: list[Switch] = [
    lease_token,
    lease_state,
    tokens_grow,
    claim_receipt,
    settle_key,
    sign_claimed,
    sign_waiting,
    sign_tokens,
    caller_gone,
    result_woken,
    parked_woken,
    refresh,
    beats_replicated,
    signs_first,
    wall_clock,
    dead_let_go,
    silence_noticed,
    pulse,
    due_scheduled,
    due_retry,
    due_timeout,
    due_expiry,
    due_calendar,
    max_lost,
    released_uncounted,
    released_later,
    lost_uncounted,
    replaced_counted,
    retry_history,
    cancel_waits,
    seeded_ids,
    seeded_jitter,
    owners,
    standbys,
    paused,
    turns,
    counts,
    samples_anew,
]
TASK_SWITCHES: dict[str, Switch] = {switch.__name__: switch for switch in _TABLE}
"""All of them, by name."""
