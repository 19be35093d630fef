"""A machine on which tasks are submitted, claimed and settled, with the leader's part of an entry in the test's hands."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from typing_extensions import override

from quorl.cluster.machine import ids
from quorl.cluster.machine.machine import Applied
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import Entry, Sealed, SignOfLife, encode_entry
from quorl.cluster.protocol.grammar import Command, Rejection, Reply
from tests.machine.rig import Rig, expect, seal


class Lease(NamedTuple):
    """What a worker has of a task."""

    id: str
    token: int


def new(name: str = "add", **options: Any) -> s.NewTask:
    return s.NewTask(name=name, **options)


class Desk(Rig):
    """One replica; times in milliseconds of both clocks, which go together unless a test says otherwise."""

    def __init__(self, path: str = ":memory:", first_way: int | None = 0) -> None:
        super().__init__(path, first_way)
        self.seed = 7
        self.node = "n1"
        self.term = 1
        self.signs: tuple[SignOfLife, ...] = ()
        """Of the next entry."""
        self.refresh = False

    @override
    def payload(self, *sealed: Sealed) -> bytes:
        signs, self.signs = self.signs, ()
        refresh, self.refresh = self.refresh, False
        self.seed += 1
        return encode_entry(Entry(self.now_ms, self.wall_ms, sealed, self.seed, self.node, signs, refresh))

    @override
    def apply_raw(self, payload: bytes) -> Applied:
        return self.applied(self.term, payload)

    def entry(self, *commands: Command[Any]) -> list[Reply | Rejection]:
        """Several commands in one entry."""
        return [outcome.value for outcome in self.apply(*map(seal, commands)).outcomes]

    def after(self, ms: int, *commands: Command[Any]) -> list[Reply | Rejection]:
        """The same, so much later."""
        self.now_ms += ms
        self.wall_ms += ms
        return self.entry(*commands)

    def refused(self, command: Command[Any]) -> str:
        """The code of the refusal that a command comes to."""
        value = self.outcome(command).value
        assert isinstance(value, Rejection), value
        return str(value.__struct_config__.tag)

    # -- short for the commands that come often -----------------------------------------------------------------
    def submit(self, queue: str = "q", **options: Any) -> str:
        submitted = self.do(s.Submit(queue=queue, tasks=[new(**options)]), s.Submitted)
        return submitted.items[0].id

    def put(self, queue: str = "q", **config: Any) -> q.QueueInfo:
        return self.do(q.PutQueue(queue=queue, **config), q.QueueInfo)

    def patch(self, queue: str = "q", **config: Any) -> q.QueueInfo:
        return self.do(q.PatchQueue(queue=queue, **config), q.QueueInfo)

    def enrol(self, name: str = "", *queues: str, **options: Any) -> int:
        registered = self.do(w.RegisterWorker(name=name, queues=queues or ("q",), **options), w.WorkerRegistered)
        return registered.worker_id

    def claim(self, worker_id: int, most: int = 1, *queues: str, number: int = 0) -> list[Lease]:
        command = c.Claim(worker_id=worker_id, queues=queues, max=most, number=number)
        return self.leases(self.do(command, c.Granted))

    def leases(self, granted: c.Granted) -> list[Lease]:
        return [Lease(self.id_of(grant.ordinal), grant.token) for grant in granted.grants]

    def run(self, worker_id: int, **options: Any) -> Lease:
        """Submit a task and have a worker claim it."""
        task_id = self.submit(**options)
        (lease,) = self.claim(worker_id)
        assert lease.id == task_id
        return lease

    def complete(self, lease: Lease, result: bytes = b"9") -> k.TaskStatus:
        command = c.CompleteTask(id=lease.id, lease=lease.token, result=msgspec.Raw(result))
        return self.do(command, k.TaskStatus)

    def fail(self, lease: Lease, **options: Any) -> k.TaskStatus:
        error = k.TaskError(type="ValueError", message="no", traceback="Traceback …")
        return self.do(c.FailTask(id=lease.id, lease=lease.token, error=error, **options), k.TaskStatus)

    def release(self, lease: Lease, **options: Any) -> k.TaskStatus:
        return self.do(c.ReleaseTask(id=lease.id, lease=lease.token, **options), k.TaskStatus)

    def cancel(self, task_id: str) -> k.Cancelled:
        return self.do(k.CancelTask(id=task_id), k.Cancelled)

    # -- looking ------------------------------------------------------------------------------------------------
    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement, values).fetchall()

    def id_of(self, ordinal: int) -> str:
        return str(self.sql(f"SELECT {ids.of('tasks')} FROM tasks WHERE ordinal = ?", ordinal)[0][0])

    def task(self, task_id: str) -> k.TaskInfo:
        return self.ask(k.GetTask(id=task_id), k.TaskInfo)

    def status(self, task_id: str) -> str:
        """Its state, with the reason of a final one that is no success."""
        task = self.task(task_id)
        return f"{task.status} {task.reason}" if task.reason else task.status

    def story(self, task_id: str) -> list[str]:
        """All that has happened to a task."""
        items = self.ask(k.GetTaskEvents(id=task_id), k.TaskEvents).items
        return [event.kind for event in items]

    def queue(self, name: str = "q") -> q.QueueInfo:
        return self.ask(q.GetQueue(queue=name), q.QueueInfo)

    def counts(self, name: str = "q") -> dict[str, int]:
        """How many tasks are in each state in which there are some."""
        counts = msgspec.structs.asdict(self.queue(name).counts)
        return {state: count for state, count in counts.items() if count}

    def due(self) -> bool:
        return self.machine.due

    def life(self, worker_id: int) -> str:
        found = self.machine.worker(worker_id)
        return "gone" if found is None else found.status

    def active(self, queue: str = "q") -> list[int]:
        rows = self.sql("SELECT worker_id FROM worker_queues WHERE queue = ? AND active = 1 ORDER BY 1", queue)
        return [worker_id for (worker_id,) in rows]

    def owners(self, queue: str = "q") -> list[int | None]:
        statement = "SELECT o.worker_id FROM owners o JOIN queues USING (queue_id) WHERE name = ? ORDER BY partition"
        return [worker_id for (worker_id,) in self.sql(statement, queue)]


__all__ = ["Desk", "Lease", "expect", "new", "seal"]
