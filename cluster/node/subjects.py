"""Subjects: what something can happen to, so that somebody waits for it to happen."""

from __future__ import annotations

from typing import Literal, NamedTuple

from quorl.cluster.machine.events import (
    Appended,
    Event,
    QueueReady,
    TasksChanged,
    TopicCreated,
    TopicDeleted,
    WorkerChanged,
)

Kind = Literal["topic", "task", "queue", "worker"]


class Subject(NamedTuple):
    """A topic or a queue by its name, a task or a worker by its id."""

    kind: Kind
    name: str | int


class Subjects(NamedTuple):
    """Several of one kind."""

    kind: Kind
    names: tuple[str | int, ...]


def subjects_of(event: Event) -> Subjects | None:
    """What an event happened to; None if nobody waits for such events."""
    match event:
        case TasksChanged(task_ids=task_ids):
            return Subjects("task", task_ids)
        case Appended(topic=name) | TopicCreated(topic=name) | TopicDeleted(topic=name):
            return Subjects("topic", (name,))
        case QueueReady(queue=queue):
            return Subjects("queue", (queue,))
        case WorkerChanged(worker_id=worker_id):
            return Subjects("worker", (worker_id,))
        case _:
            return None
