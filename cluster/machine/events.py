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


class TasksChanged(NamedTuple):
    """Tasks came, went, or changed their states; each is named once, whatever happened to it in the entry."""

    task_ids: tuple[str, ...]


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


class RunsSucceeded(NamedTuple):
    """Workers have completed tasks, so many milliseconds of calendar time after they had claimed them."""

    ran_ms: tuple[int, ...]


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
    | TasksChanged
    | QueueReady
    | QueueCounted
    | TasksStarted
    | RunsSucceeded
    | LeaseLost
    | WorkerHeard
    | WorkerChanged
    | CommandSpoiled
    | EntrySkipped
)


class News:
    """What happens to so many that the whole entry tells of it at once."""

    __slots__ = ("ran_ms", "ready", "tasks", "waited_ms")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.tasks: dict[str, None] = {}
        """Those that changed."""
        self.waited_ms: list[int] = []
        """Of leases that were granted; see ``TasksStarted``."""
        self.ran_ms: list[int] = []
        self.ready: dict[str, None] = {}
        """Queues; see ``QueueReady``."""

    def copy(self) -> News:
        """The same, to go back to."""
        other = News()
        other.tasks, other.ready = self.tasks.copy(), self.ready.copy()
        other.waited_ms, other.ran_ms = self.waited_ms.copy(), self.ran_ms.copy()
        return other

    def events(self) -> list[Event]:
        """What there is to tell."""
        told: list[Event] = []
        if self.tasks:
            told.append(TasksChanged(tuple(self.tasks)))
        if self.waited_ms:
            told.append(TasksStarted(tuple(self.waited_ms)))
        if self.ran_ms:
            told.append(RunsSucceeded(tuple(self.ran_ms)))
        return told + [QueueReady(name) for name in self.ready]
