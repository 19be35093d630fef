"""What must hold of tasks and workers after every entry, on whichever node applies it first; the others are compared with it.

The tasks themselves are followed by ``task_shadow``. Here are the workers, their shares, and the clock:

* EARLY-DEATH, BEATING-DIED: a worker was declared dead although its last sign of life is younger than its limit, in the log
  or as its program was told.
* OVERDUE-WORKER, OVERDUE-TASK, LATE: what is due happens in the entry that reaches its moment, and a leader proposes one.
* LEASE-OF-DEAD: only who is alive holds leases. KEPT-UNHELD, TAKEN-AWAY: a lease goes back when its worker does not hold
  it, and never while it does.
* OUT-OF-TURN: what waited longer is handed out first. Who may get what is in ``task_shares``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from quorl.cluster.machine import ids
from quorl.cluster.machine.machine import Applied, Outcome
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import AnyCommand, Entry, SignOfLife, decode_entry
from quorl.cluster.protocol.grammar import Rejection
from quorl.cluster.protocol.submitting import SubmitBatch, Submitted
from tests.simulation.task_history import TaskHistory
from tests.simulation.task_shadow import QueueFacts, Shadow, Shadows
from tests.simulation.task_shares import ALIVE, DEAD, LEFT, Alive, Shares

if TYPE_CHECKING:
    from tests.simulation.world import WatchedNode, World

WHOLE_EVERY = 16
"""Every so many entries all rows are looked at, also those that nothing should have touched."""
LATE_MS = 300
"""A leader with nothing under way lets no more cluster time go by before it proposes what is due."""

_decode_command = msgspec.msgpack.Decoder(AnyCommand).decode
_ROW = (
    f"SELECT {ids.of('tasks')}, state, ordinal, queue_id, partition, rank, attempts, max_attempts, lost, max_lost, cancel, reason, leases,"
    " token, worker_id, due_ms FROM tasks"
)


class Row(NamedTuple):
    """What of a task's row is compared."""

    id: str
    state: int
    ordinal: int
    queue_id: int
    partition: int
    rank: int
    attempts: int
    max_attempts: int
    lost: int
    max_lost: int
    cancel: int
    reason: str | None
    leases: int
    token: int | None
    worker_id: int | None
    due_ms: int | None


class TaskChecks:
    """Follows the log of one world."""

    def __init__(self, world: World, history: TaskHistory) -> None:
        self._world = world
        self.history = history
        self.shadows = Shadows(world.problem)
        self.shadows.facts_of = self._facts
        self.workers: dict[int, Alive] = {}
        self.timeline: dict[str, list[tuple[int, str | None]]] = {}
        """The states of each task with the sequences from which on they hold; None: it is gone."""
        self.sequence = max((node.sequence() for node in world.nodes()), default=0)
        self._term = self._term_began_ms = 0
        self._claims: set[tuple[int, int]] = set()
        """Claims that got something."""
        self._shares = Shares(world)
        self._rows: dict[str, Row] = {}
        self._queues: dict[int, tuple[str, QueueFacts]] = {}
        self._hashes: dict[int, tuple[int, str]] = {}
        self._next_ms: int | None = None
        self._moved_in = False

    # -- one entry -------------------------------------------------------------------------------------------------
    def applied(self, node: WatchedNode, index: int, term: int, payload: bytes, applied: Applied) -> None:
        """A node has applied an entry; the first one to do so is looked at closely."""
        sequence, connection = applied.sequence, node.machine._state.connection
        if sequence % WHOLE_EVERY == 0:
            self._compare_nodes(node, sequence)
        if sequence <= self.sequence:
            return
        assert sequence == self.sequence + 1, "entries are applied one after the other, by somebody"
        self.sequence = sequence
        entry = decode_entry(payload)
        shadows = self.shadows
        shadows.now_ms, shadows.wall_ms = max(shadows.now_ms, entry.now_ms), max(shadows.wall_ms, entry.wall_ms)
        if term != self._term:
            self._term, self._term_began_ms = term, shadows.now_ms
        whole = sequence % WHOLE_EVERY == 0
        due = self._next_ms is not None and self._next_ms <= shadows.now_ms
        timed = any(shadow.run_at_ms is not None for shadow in shadows.active.values())
        if not (entry.commands or entry.signs or entry.refresh or due or timed or whole):
            return
        self._read_queues(connection)
        rows = self._read_rows(connection, whole=whole)
        shadows.touched.clear()
        shadows.evidence = dict(
            connection.execute("SELECT token, outcome FROM attempts WHERE ended_index = ? ORDER BY token", (index,))
        )
        commands = [_decode_command(sealed.command) for sealed in entry.commands]
        shadows.purging = any(isinstance(command, q.PurgeQueue | k.ForgetTask) for command in commands)
        self._moved_in = False
        statuses = dict(connection.execute("SELECT worker_id, status FROM workers ORDER BY worker_id"))
        beats = dict(connection.execute("SELECT worker_id, beat_ms FROM workers ORDER BY worker_id"))
        replaced = self._replaced(commands, applied.outcomes)
        self._signs(entry)
        shadows.fall_due({row.id: (k.STATES[row.state], row.reason) for row in rows.values()})
        self._deaths(statuses, beats, replaced)
        self._shares.look(connection)
        granted: list[Shadow] = []
        for command, outcome in zip(commands, applied.outcomes, strict=True):
            self._mention(command)
            if not outcome.replayed and not isinstance(outcome.value, Rejection):
                self._command(connection, command, outcome, rows, granted)
        self._finish(connection, rows, statuses, granted, whole=whole)

    def _compare_nodes(self, node: WatchedNode, sequence: int) -> None:
        """Now and then the rows themselves are compared between nodes: outcomes do not tell all of them."""
        found = node.machine._state.connection.execute(_ROW + " ORDER BY ordinal").fetchall()
        found += node.machine._state.connection.execute(
            "SELECT worker_id, status, beat_ms, leases FROM workers ORDER BY 1"
        ).fetchall()
        mine = hash(repr(found))
        known = self._hashes.setdefault(sequence, (mine, node.name))
        if known[0] != mine:
            self._world.problem(f"ROWS-DIFFER at sequence {sequence}: {node.name} and {known[1]}")

    # -- rows --------------------------------------------------------------------------------------------------------
    def _read_queues(self, connection: Any) -> None:
        statement = (
            "SELECT queue_id, name, default_attempts, max_lost, backoff, partitions FROM queues ORDER BY queue_id"
        )
        for queue_id, name, attempts, lost, backoff, partitions in connection.execute(statement):
            policy = msgspec.json.decode(backoff, type=q.Backoff)
            self._queues[queue_id] = (name, QueueFacts(attempts, lost, policy, partitions))

    def _facts(self, name: str) -> QueueFacts:
        return next(facts for known, facts in self._queues.values() if known == name)

    def _read_rows(self, connection: Any, *, whole: bool) -> dict[str, Row]:
        """The rows of all tasks that are not finished, and of those that the shadow holds for unfinished."""
        if whole:
            found = connection.execute(_ROW)
        else:
            ordinals = ", ".join(str(shadow.ordinal) for shadow in self.shadows.active.values())
            found = connection.execute(f"{_ROW} WHERE state <= 3 OR ordinal IN ({ordinals})")
        return {row[0]: Row(*row) for row in found}

    def _row(self, connection: Any, task_id: str) -> Row | None:
        found = connection.execute(f"{_ROW} WHERE {ids.of('tasks')} = ?", (task_id,)).fetchone()
        return None if found is None else Row(*found)

    # -- signs of life and deaths --------------------------------------------------------------------------------------
    def _signs(self, entry: Entry) -> None:
        for sign in entry.signs:
            worker = self.workers.get(sign.worker_id)
            if worker is not None and worker.status == ALIVE:
                worker.beat_low = worker.beat_high = self.shadows.now_ms
                if sign.tokens is not None:
                    self._give_back(worker, sign)
        if entry.refresh:
            for worker in self.workers.values():
                worker.beat_low = worker.beat_high = self.shadows.now_ms

    def _give_back(self, worker: Alive, sign: SignOfLife) -> None:
        said = e.Beat(tokens=sign.tokens, claims=sign.claims, claimed=sign.claimed)
        life = self.history.lives.get(worker.worker_id)
        for lease in self.shadows.unheld(worker.worker_id, said):
            if life is not None and not life.over and lease.token in life.held:
                self._world.problem(f"TAKEN-AWAY: {lease} by {sign}, and its worker holds {sorted(life.held)}")
            if self.shadows.evidence.get(lease.token) not in {"released", "cancelled"}:
                self._world.problem(f"KEPT-UNHELD: {lease} after {sign}")
            else:
                self.shadows.end(lease, "released")

    def _replaced(self, commands: list[AnyCommand], outcomes: Iterable[Outcome]) -> set[str]:
        """The names under which a command of this entry begins another life."""
        return {
            command.name
            for command, outcome in zip(commands, outcomes, strict=True)
            if isinstance(command, w.EnrolWorker) and not outcome.replayed and not isinstance(outcome.value, Rejection)
        }

    def _deaths(self, statuses: dict[int, int], beats: dict[int, int], replaced: set[str]) -> None:
        now_ms, world_s = self.shadows.now_ms, self._world.clock.now
        for worker in self.workers.values():
            if worker.status != ALIVE:
                continue
            if statuses.get(worker.worker_id) == DEAD:
                # Silence comes before the commands; only the row tells which of both it was.
                if worker.name in replaced and beats[worker.worker_id] + worker.dead_after_ms > now_ms:
                    continue
                if worker.beat_low + worker.dead_after_ms > now_ms:
                    self._world.problem(f"EARLY-DEATH: {worker} at {now_ms}")
                if self._term_began_ms + worker.dead_after_ms > now_ms:
                    self._world.problem(f"EARLY-DEATH: {worker} at {now_ms}; its leader began at {self._term_began_ms}")
                life = self.history.lives.get(worker.worker_id)
                if life is not None and world_s - life.beaten_at < life.dead_after_ms / 1000:
                    ago = world_s - life.beaten_at
                    self._world.problem(f"BEATING-DIED: {worker}, whose beat was acknowledged {ago:.2f} s ago")
                self._die(worker)
            elif worker.beat_high + worker.dead_after_ms <= now_ms:
                self._world.problem(f"OVERDUE-WORKER: {worker} is alive at {now_ms}")

    def _die(self, worker: Alive) -> None:
        worker.status = DEAD
        self._moved_in = True
        self.history.count("dead workers")
        for lease in [one for one in self.shadows.leases.values() if one.worker_id == worker.worker_id]:
            self.shadows.end(lease, "lost")
            self.history.count("lost leases")

    def _leave(self, worker: Alive) -> None:
        worker.status = LEFT
        self._moved_in = True
        for lease in [one for one in self.shadows.leases.values() if one.worker_id == worker.worker_id]:
            self.shadows.end(lease, "released")

    # -- commands ------------------------------------------------------------------------------------------------------
    def _mention(self, command: AnyCommand) -> None:
        """Any call of a worker may have counted as a sign of life."""
        for known in self.shadows.speakers(command):
            if known in self.workers:
                self.workers[known].beat_high = self.shadows.now_ms

    def _command(
        self,
        connection: Any,
        command: AnyCommand,
        outcome: Outcome,
        rows: dict[str, Row],
        granted: list[Shadow],
    ) -> None:
        """Follow a command that was accepted, and is no repeat."""
        value: Any = outcome.value
        shadows = self.shadows
        match command:
            case SubmitBatch():
                self._submitted(connection, command, value, rows)
            case e.Claim():
                self._granted(command, value.grants, granted)
            case g.ClaimBatch():
                for seat, share in zip(command.claims, value.items, strict=True):
                    self._granted(seat, share.grants, granted)
            case e.Settle():
                self._settled(command, value)
            case g.ReportBatch():
                self._ended(command, [one.status is not None for one in value.items])
            case e.Complete():
                shadows.complete(command.lease, command.id, command.result)
            case e.FailTask():
                self._fail(command.id, command)
            case e.ReleaseTask():
                shadows.release(command.lease, command.id, command.delay_ms)
            case e.Hold():
                if command.lease not in shadows.leases:
                    self._world.problem(f"OLD-TOKEN: {command} was accepted")
            case k.CancelTask():
                shadows.cancel(command.id, value.status)
            case k.RetryTask():
                shadows.retry(command.id, self._facts(shadows.tasks[command.id].queue))
            case k.ForgetTask():
                self._forget(command.id)
            case q.PurgeQueue() if not command.dry_run:
                self._purge(command, rows)
            case w.EnrolWorker():
                self._enrolled(command, value)
            case w.RemoveWorker():
                self._removed(command.worker_id)
            case w.QuietWorker() | w.TerminateWorker():
                self.workers[command.worker_id].quiet = self._moved_in = True
            case _:
                pass

    def _submitted(self, connection: Any, command: SubmitBatch, value: Submitted, rows: dict[str, Row]) -> None:
        facts = self._facts(command.queue)
        for task, item in zip(command.tasks, value.items, strict=True):
            if item.existing:
                continue
            row = rows.get(item.id) or self._row(connection, item.id)  # it may be cancelled already
            if row is None:
                self._world.problem(f"SUBMITTED-NOTHING: {item.id} has no row")
                continue
            if item.id in self.shadows.tasks:
                self._world.problem(f"DOUBLED: the id {item.id} was given twice")
            self.shadows.submit(command.queue, facts, task, item.id, row.ordinal, row.partition)
            self.history.count("created tasks")

    def _granted(self, command: e.Claim | g.Seat, grants: Sequence[e.Grant], granted: list[Shadow]) -> None:
        worker = self.workers.get(command.worker_id)
        if len(grants) > command.max:
            self._world.problem(f"GRANTED-MORE: {grants} to {command}")
        if grants and command.number:
            if (command.worker_id, command.number) in self._claims:
                self._world.problem(f"CLAIMED-TWICE: claim {command.number} of {worker}")
            self._claims.add((command.worker_id, command.number))
        for grant in grants:
            shadow = self.shadows.grant(grant.ordinal, grant.token, command.worker_id, command.number)
            self.history.count("leases")
            if shadow is None:
                continue
            granted.append(shadow)
            if worker is None or worker.status != ALIVE:
                self._world.problem(f"GRANTED-DEAD: {shadow.id} to {worker}")
            elif worker.quiet:
                self._world.problem(f"GRANTED-QUIET: {shadow.id} to {worker}")
            if grant.attempt != shadow.attempts + 1:
                self._world.problem(f"ATTEMPT: {grant} of {shadow}")
            if not self._moved_in:
                queue_id = next(number for number, (name, _) in self._queues.items() if name == shadow.queue)
                self._shares.check_grant(shadow, queue_id, command.worker_id)

    def _settled(self, command: e.Settle, value: e.Settled) -> None:
        """Each report took effect or was rejected for itself."""
        rejected = Counter(one.task_id for one in value.rejected)

        def accepted(task_id: str) -> bool:
            if rejected[task_id]:
                rejected[task_id] -= 1
                return False
            return True

        ids = [one.task_id for some in (command.complete, command.fail, command.release) for one in some]
        self._ended(command, [accepted(task_id) for task_id in ids])

    def _ended(self, command: e.Settle | g.ReportBatch, counted: list[bool]) -> None:
        """Which reports count, in the order complete, fail, release."""
        counts = iter(counted)
        for done in command.complete:
            if next(counts):
                self.shadows.complete(done.lease, done.task_id, done.result)
        for failure in command.fail:
            if next(counts):
                self._fail(failure.task_id, failure)
        for given in command.release:
            if next(counts):
                self.shadows.release(given.lease, given.task_id, given.delay_ms)

    def _fail(self, task_id: str, report: e.Failure | e.FailTask) -> None:
        facts = self._facts(self.shadows.tasks[task_id].queue)
        self.shadows.fail(report.lease, task_id, retry=report.retry, delay_ms=report.delay_ms, facts=facts)

    def _forget(self, task_id: str) -> None:
        self.shadows.forget(task_id)
        self._rows.pop(task_id, None)
        self.timeline[task_id].append((self.sequence, None))

    def _purge(self, command: q.PurgeQueue, rows: dict[str, Row]) -> None:
        """What was purged shows in the rows; only what was asked for may be gone or cancelled."""
        for shadow in [one for one in self.shadows.tasks.values() if one.queue == command.queue]:
            if shadow.state not in command.states:
                continue
            row = rows.get(shadow.id)
            if shadow.state in k.FINAL:
                self._forget(shadow.id)
            elif row is None or k.STATES[row.state] == "CANCELLED":
                self.shadows.move(shadow, "CANCELLED", "PURGED")

    def _enrolled(self, command: w.EnrolWorker, value: w.WorkerRegistered) -> None:
        for other in self.workers.values():
            if other.name == command.name and other.status == ALIVE:
                self.history.count("replaced workers")
                self._die(other)
        if value.worker_id in self.workers:
            self._world.problem(f"ID worker {value.worker_id} was given twice")
        now_ms = self.shadows.now_ms
        self.workers[value.worker_id] = Alive(
            value.worker_id, value.name, command.queues, command.standby, value.dead_after_ms, now_ms, now_ms
        )
        self._moved_in = True
        self.history.count("worker lives")

    def _removed(self, worker_id: int) -> None:
        worker = self.workers[worker_id]
        if worker.status == ALIVE:
            self._leave(worker)
        else:
            del self.workers[worker_id]

    # -- after the entry -------------------------------------------------------------------------------------------------
    def _finish(
        self, connection: Any, rows: dict[str, Row], statuses: dict[int, int], granted: list[Shadow], *, whole: bool
    ) -> None:
        shadows = self.shadows
        if shadows.evidence:
            self._world.problem(f"HISTORY: leases {shadows.evidence} ended, and nothing ended them")
        for task_id, row in rows.items():
            shadow = shadows.tasks.get(task_id)
            if shadow is None:
                self._world.problem(f"INVENTED: {row}")
            elif task_id in shadows.touched or self._rows.get(task_id) != row:
                self._compare(connection, shadow, row)
            self._rows[task_id] = row
        for task_id in shadows.touched if not whole else list(shadows.tasks):
            if task_id in shadows.tasks and task_id not in rows:
                self._compare_missing(connection, shadows.tasks[task_id])
        for task_id in shadows.touched & shadows.tasks.keys():
            self.timeline.setdefault(task_id, []).append((self.sequence, shadows.tasks[task_id].state))
        self._check_turns(rows, granted)
        self._check_workers(connection, statuses)
        if whole:
            self._shares.check_counts(connection)
        beats = [one.beat_high + one.dead_after_ms for one in self.workers.values() if one.status == ALIVE]
        self._next_ms = min([*beats, *filter(None, [shadows.next_ms()])], default=None)

    def _compare_missing(self, connection: Any, shadow: Shadow) -> None:
        """A task that the shadow knows and that was not among the rows that were read."""
        row = self._row(connection, shadow.id)
        if row is None:
            self._world.problem(f"LOST-TASK: {shadow} has no row any more")
        else:
            self._compare(connection, shadow, row)

    def _compare(self, connection: Any, shadow: Shadow, row: Row) -> None:
        state = k.STATES[row.state]
        if state == shadow.state == "CANCELLED":  # as what a cancelled run counts is of no consequence
            shadow.attempts, shadow.lost = row.attempts, row.lost
        if state == "RETRY" == shadow.state and shadow.due is not None and row.due_ms is not None:
            if not shadow.due[0] <= row.due_ms <= shadow.due[1]:
                self._world.problem(f"BACK-OFF: {shadow} is due at {row.due_ms}")
            shadow.due = (row.due_ms, row.due_ms)
        lease = shadow.lease
        mine = (shadow.state, shadow.attempts, shadow.max_attempts, shadow.lost, shadow.max_lost, shadow.reason)
        theirs = (state, row.attempts, row.max_attempts, row.lost, row.max_lost, row.reason)
        if mine != theirs or (lease is not None and (lease.token, lease.worker_id) != (row.token, row.worker_id)):
            kind = "FINAL-CHANGED" if shadow.state in k.FINAL and state != shadow.state else "TASK"
            self._world.problem(f"{kind}: {row} at {self.shadows.now_ms}, and by what happened it is {shadow}")
        leases = shadow.ended + (shadow.lease is not None or shadow.result is not None)
        (told,) = connection.execute("SELECT count(*) FROM attempts WHERE ordinal = ?", (row.ordinal,)).fetchone()
        if (row.leases, told) != (leases, shadow.ended):
            self._world.problem(f"HISTORY: {row} with {told} ended leases, and it had {leases}, {shadow.ended} ended")
        if shadow.state == "SUCCESS":
            found = connection.execute("SELECT body FROM results WHERE ordinal = ?", (row.ordinal,)).fetchone()
            if (b"null" if found is None else found[0]) != shadow.result:
                self._world.problem(f"RESULT: {shadow}, and its row has {found}")

    def _check_turns(self, rows: dict[str, Row], granted: list[Shadow]) -> None:
        """Of a queue without partitions, nothing that waited all the while should have come before what was handed out."""
        for shadow in granted:
            if shadow.partition >= 0 or shadow.id not in rows:
                continue
            turn = (shadow.rank, shadow.ordinal)
            for row in rows.values():
                other = self.shadows.tasks.get(row.id)
                waited = other is not None and other.state == "QUEUED" and row.id not in self.shadows.touched
                if other is not None and waited and other.queue == shadow.queue and (row.rank, row.ordinal) < turn:
                    self._world.problem(f"OUT-OF-TURN: {shadow.id} was handed out before {row}")

    def _check_workers(self, connection: Any, statuses: dict[int, int]) -> None:
        mine = {number: worker.status for number, worker in self.workers.items()}
        if mine != statuses:
            self._world.problem(f"WORKERS: {statuses}, and by what happened they are {mine}")
        for lease in self.shadows.leases.values():
            worker = self.workers.get(lease.worker_id)
            if worker is None or worker.status != ALIVE:
                self._world.problem(f"LEASE-OF-DEAD: {lease} of {worker}")
        if self._moved_in or not self.sequence % WHOLE_EVERY:
            self._shares.look(connection)
            self._shares.check_standbys(connection, self.workers)
            self._shares.check_owners(self._queues)

    # -- ticks -----------------------------------------------------------------------------------------------------------
    def ticked(self, node: WatchedNode) -> None:
        """A member's tick is over: a leader that can decide does not sit on what is due."""
        if self._next_ms is None or not node.leads() or node.stopping or node.sequence() != self.sequence:
            return
        late_ms = node._time._base_ms + int(node._time._elapsed_s * 1000) - self._next_ms
        able = node._lead.committer.idle and not self._world.processes[node.name].disk.full
        if late_ms > LATE_MS and able:
            self._world.problem(f"LATE: {node.name} leads, and what was due {late_ms} ms ago has not happened")

    # -- what clients saw ------------------------------------------------------------------------------------------------
    def states_between(self, task_id: str, low: int, high: int) -> set[str | None]:
        """The states that a task had at some sequence between these two."""
        line = [(0, None), *self.timeline.get(task_id, [])]
        following = [*(start for start, _ in line[1:]), high + 1]
        return {state for (start, state), end in zip(line, following, strict=True) if start <= high and end > low}
