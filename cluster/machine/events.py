"""Facts for whoever watches the machine. They say what has happened; what to do about it is decided elsewhere.

Events are local news: they are neither replicated nor part of any digest, and those of a command that was undone are
never told.
"""

from __future__ import annotations

from typing import NamedTuple


class TopicCreated(NamedTuple):
    """A topic exists from now on."""

    topic: str


class TopicDeleted(NamedTuple):
    """A topic is gone, with everything that belonged to it."""

    topic: str


class Appended(NamedTuple):
    """A partition has grown by so many ``messages``; ``next_offset`` is where it ends now."""

    topic: str
    partition: int
    next_offset: int
    messages: int


class TaskChanged(NamedTuple):
    """A task came, went, or changed its state."""

    task_id: str


class QueueReady(NamedTuple):
    """A queue may have tasks to hand out that it had not, or has changed so that claims on it are worth another look."""

    queue: str


class QueueCounted(NamedTuple):
    """The tally of a queue (see ``books.Tally``) was ``before`` and is ``after`` this entry."""

    queue: str
    before: tuple[int, ...]
    after: tuple[int, ...]


class TasksStarted(NamedTuple):
    """Leases were granted of tasks that had been QUEUED for so long, in milliseconds of cluster time."""

    waited_ms: tuple[int, ...]


class RunSucceeded(NamedTuple):
    """A worker has completed a task, so many milliseconds of calendar time after it had claimed it."""

    ran_ms: int


class LeaseLost(NamedTuple):
    """A report came too late, and was refused."""


class WorkerHeard(NamedTuple):
    """A heartbeat of a worker was noted, at that moment of the calendar."""

    worker_id: int
    at_ms: int


class WorkerChanged(NamedTuple):
    """A worker came, went, died, or is to be told something."""

    worker_id: int


class CommandSpoiled(NamedTuple):
    """A command was answered with ``command_failed``, or something that was to happen by itself could not.

    ``reason`` is for the log of this node only.
    """

    reason: str


class EntrySkipped(NamedTuple):
    """An entry could not be read, and was only counted. ``reason`` is for the log of this node only."""

    reason: str


Event = (
    TopicCreated
    | TopicDeleted
    | Appended
    | TaskChanged
    | QueueReady
    | QueueCounted
    | TasksStarted
    | RunSucceeded
    | LeaseLost
    | WorkerHeard
    | WorkerChanged
    | CommandSpoiled
    | EntrySkipped
)
