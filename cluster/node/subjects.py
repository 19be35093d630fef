"""Subjects: what something can happen to, so that somebody waits for it to happen."""

from __future__ import annotations

from typing import Literal, NamedTuple

from quorl.cluster.machine.events import (
    Appended,
    Event,
    QueueReady,
    TopicCreated,
    TopicDeleted,
    WorkerChanged,
)

Kind = Literal["topic", "task", "queue", "worker"]


class Subject(NamedTuple):
    """A topic or a queue by its name, a task or a worker by its id."""

    kind: Kind
    name: str | int


def subject_of(event: Event) -> Subject | None:
    """What an event happened to; None if nobody waits for such events, or it is ``TasksChanged``, which happens to many."""
    match event:
        case Appended(topic=name) | TopicCreated(topic=name) | TopicDeleted(topic=name):
            return Subject("topic", name)
        case QueueReady(queue=queue):
            return Subject("queue", queue)
        case WorkerChanged(worker_id=worker_id):
            return Subject("worker", worker_id)
        case _:
            return None
