"""What can go wrong with a call: three colours of outcome, and what a task can come to.

::

    QuorlError
    ├── Rejected                    the cluster refused: the request itself is the reason, and nothing changed
    │   ├── TopicNotFound
    │   ├── ProducerNotFound
    │   ├── ConsumerNotFound
    │   ├── PartitionNotFound
    │   ├── MessageNotFound
    │   ├── AlreadyExists
    │   ├── TopicNotEmpty
    │   ├── QueueNotFound
    │   ├── QueueDiffers
    │   ├── QueueNotEmpty
    │   ├── QueueSealed
    │   ├── QueueFull               too much waits; the same submit may be accepted later
    │   ├── TaskNotFound
    │   ├── TaskExists
    │   ├── WrongState
    │   ├── LeaseLost
    │   ├── WorkerNotFound
    │   ├── WorkerNotAlive
    │   ├── TooManyWorkers
    │   ├── MemberNotFound
    │   ├── TransferRefused
    │   ├── IdempotencyKeyReused
    │   ├── CommandFailed           a defect of the cluster's; nothing changed
    │   └── Invalid                 a field, a parameter, a size: what was sent breaks a rule
    ├── Unavailable                 certainly not applied; every node was tried
    ├── OutcomeUnknown              perhaps applied; safe to repeat with ``client.repeat(error)``
    ├── NoResult                    the call went well, and the task came to something else than a result
    │   ├── TaskFailed              its last attempt failed, or it lost too many workers
    │   ├── TaskCancelled
    │   └── TaskExpired
    └── NotFinished                 the task was waited for, and is not finished; a ``TimeoutError`` too

Every error says what happened, why, and what to do: ``code``, ``detail``, ``hint``, ``request_id``. One class stands
here for each refusal in the table of operations (a test says so); a refusal that this version does not know is a plain
``Rejected`` with its ``code``. Errors can be pickled.
"""

from __future__ import annotations

import errno
import os
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from typing_extensions import override

from quorl.cluster.protocol.grammar import Request
from quorl.cluster.protocol.problems import SEE_TO, FieldError, ProblemDocument

LATE_SHOWN = 3
"""Of tasks that were waited for in vain so many are named."""
OWN_LINK = "This machine reaches none of their networks: is its own link up?"
_NO_NETWORK = os.strerror(errno.ENETUNREACH).lower()
_RUNS = "Does the cluster run?  quorl cluster status · quorl up (a cluster on this machine)"
_HOME = str(pathlib.Path(__file__).parent.parent)


IN_PYTHON = {
    "topic_not_found": "Create it: client.topics.create(NAME). client.topics.list() returns those that exist.",
    "producer_not_found": "Ids are per topic: client.topic(NAME).register_producer() makes one.",
    "consumer_not_found": "Ids are per topic: client.topic(NAME).register_consumer() makes one.",
    "partition_not_found": "Partitions are numbered from 0: client.topics.get(NAME) says how many there are.",
    "message_not_found": "Offsets are dense from 0: client.topics.get(NAME) says where each partition ends.",
    "queue_not_found": "A queue exists from its first task, or from client.queues.put(NAME). client.queues.list() returns them.",
    "queue_not_empty": "Let workers finish, or take out what waits: client.queues.purge(NAME)",
    "queue_sealed": "Open it: client.queues.unseal(NAME). Or use another queue.",
    "queue_full": "Let workers catch up, or allow more: client.queues.patch(NAME, max_depth=N)",
    "task_not_found": "Use the id that submit returned; finished tasks are forgotten after their queue's keep_finished_s.",
    "member_not_found": "client.cluster() lists the members.",
    "transfer_refused": "client.cluster() says who can be reached and how far behind each member is.",
    "wrong_state": "client.tasks.get(ID) says what state the task is in.",
    "worker_not_found": "client.workers.list() returns those that are alive, and those that died or left lately.",
    "worker_not_alive": "Its leases have been given back: client.workers.list()",
    "no_quorum": f'{SEE_TO} Reads still work with consistency="local".',
}
"""What to do, by code, where the cluster's own hint speaks HTTP."""


class Try(NamedTuple):
    """One node that was asked, and why that led nowhere."""

    node: str
    """Its address."""
    why: str
    """In words."""


class QuorlError(Exception):
    """Anything that a call can end with except its answer."""

    code: str
    """Stable, for programs; ``quorl errors CODE`` explains it."""
    detail: str
    """What happened this time."""
    hint: str
    """What to do."""
    request_id: str
    """Names the call in the logs of the nodes; empty if no node answered."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)

    @override
    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" + (f"\n  {self.hint}" if self.hint else "")


def outward(error: Exception) -> None:
    """Leave out the frames of this library from which an error comes, up to the first of somebody else's, if there is one.

    Before a bare ``raise`` in a function that programs call, which then adds no frame of its own: the traceback that people
    read ends in their own line.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HOME):
        trace = trace.tb_next
    error.__traceback__ = trace


class Rejected(QuorlError):
    """The cluster refused the request; nothing changed, and the same request will be refused again."""

    _by_code: ClassVar[dict[str, type[Rejected]]] = {}

    @override
    def __init_subclass__(cls, code: str = "") -> None:
        """Make ``cls`` the class of the refusals with this code."""
        super().__init_subclass__()
        if code:
            Rejected._by_code[code] = cls

    def __init__(self, problem: ProblemDocument) -> None:
        super().__init__(problem)
        self.problem = problem
        """All that the node answered."""
        self.code = problem.code
        self.status: int = problem.status
        """That of HTTP."""
        self.title: str = problem.title
        """What every refusal with this code says."""
        self.detail = problem.detail or problem.title
        self.hint = IN_PYTHON.get(problem.code, problem.hint)
        self.request_id = problem.request_id
        self.node: str = problem.node
        """The node that answered."""
        self.errors: Sequence[FieldError] = problem.errors or ()
        """The fields that are wrong, if it is about fields."""


class TopicNotFound(Rejected, code="topic_not_found"):
    """No topic has that name."""


class ProducerNotFound(Rejected, code="producer_not_found"):
    """No producer with that id is registered for this topic."""


class ConsumerNotFound(Rejected, code="consumer_not_found"):
    """No consumer with that id is registered for this topic."""


class PartitionNotFound(Rejected, code="partition_not_found"):
    """The topic has no partition with that number."""


class MessageNotFound(Rejected, code="message_not_found"):
    """No message has been stored at that offset yet."""


class AlreadyExists(Rejected, code="already_exists"):
    """Something with that name exists, or exists with another configuration."""


class TopicNotEmpty(Rejected, code="topic_not_empty"):
    """The topic holds messages, and was to be deleted only if it is empty."""


class QueueNotFound(Rejected, code="queue_not_found"):
    """No queue has that name."""


class QueueDiffers(Rejected, code="queue_differs"):
    """The queue exists with another number of partitions."""


class QueueNotEmpty(Rejected, code="queue_not_empty"):
    """The queue holds tasks that are not finished."""


class QueueSealed(Rejected, code="queue_sealed"):
    """The queue takes no new tasks."""


class QueueFull(Rejected, code="queue_full"):
    """As many tasks wait in the queue as it allows; the same submit may be accepted later."""


class TaskNotFound(Rejected, code="task_not_found"):
    """No task has that id, or it was forgotten."""


class TaskExists(Rejected, code="task_exists"):
    """Another task has that id."""


class WrongState(Rejected, code="wrong_state"):
    """The task is in a state in which that cannot be done."""


class LeaseLost(Rejected, code="lease_lost"):
    """The token is not that of the task's current lease."""


class WorkerNotFound(Rejected, code="worker_not_found"):
    """No worker has that id."""


class WorkerNotAlive(Rejected, code="worker_not_alive"):
    """The worker is DEAD or has LEFT; its leases were given back."""


class TooManyWorkers(Rejected, code="too_many_workers"):
    """As many workers are alive as the cluster takes."""


class MemberNotFound(Rejected, code="member_not_found"):
    """No member of the cluster has that name."""


class TransferRefused(Rejected, code="transfer_refused"):
    """The lead stays where it is: nobody could take it, or nobody did in time."""


class IdempotencyKeyReused(Rejected, code="idempotency_key_reused"):
    """The idempotency key was used before, for another request."""


class CommandFailed(Rejected, code="command_failed"):
    """A defect of the cluster's, the same on every node; nothing changed."""


class Invalid(Rejected):
    """What was sent breaks a rule; ``errors`` points at the fields."""


_INVALID_STATUS = frozenset({400, 405, 406, 413, 414, 415, 422})


def rejected(problem: ProblemDocument) -> Rejected:
    """Return the error for a refusal: the class of its code, or the nearest there is."""
    fallback = Invalid if problem.status in _INVALID_STATUS else Rejected
    return Rejected._by_code.get(problem.code, fallback)(problem)  # noqa: SLF001 - the registry of this module


def invalid(detail: str, hint: str = "", pointer: str = "") -> Invalid:
    """Return the error for a request that this library refuses to send."""
    errors = [FieldError(pointer, detail)] if pointer else []
    problem = ProblemDocument(
        code="validation_failed", status=422, title="Invalid request", detail=detail, hint=hint, errors=errors
    )
    return Invalid(problem)


def in_one_line(tries: Sequence[Try]) -> str:
    """Each node and why, and what several say the same once."""
    by_reason: dict[str, list[str]] = {}
    for node, why in tries:
        by_reason.setdefault(why, []).append(node)
    return "; ".join(f"{', '.join(nodes)}{':' * (len(nodes) > 1)} {why}" for why, nodes in by_reason.items())


def _listing(tries: Sequence[Try]) -> str:
    width = max((len(node) for node, _ in tries), default=0)
    return "".join(f"\n  {node:<{width}}  {why}" for node, why in tries)


class Unavailable(QuorlError):
    """Certainly not applied: no node could take the call. ``tries`` lists each node and why."""

    def __init__(
        self,
        detail: str,
        tries: tuple[Try, ...] = (),
        code: str = "unavailable",
        request_id: str = "",
        retry_after_s: float | None = None,
        advice: str = "",
    ) -> None:
        super().__init__(detail, tries, code, request_id, retry_after_s, advice)
        self.detail = detail
        self.tries = tries
        """The nodes that were asked, and why that led nowhere."""
        self.code = code
        """The code of the last problem that a node answered with, or ``unavailable``."""
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        """How long the node that answered last said to wait; None if none said so."""
        self.advice: str = IN_PYTHON.get(code, advice)
        """What to do about it, as the node says that answered with that problem; empty if none did."""
        self.nobody = False
        """Whether it was given up early, as ``refused_s`` says, because no node was met at any of the addresses."""
        if not self.advice and tries:
            self.advice = OWN_LINK if all(why == _NO_NETWORK for _, why in tries) else _RUNS
        self.hint = f"Nothing was applied. {self.advice}".rstrip()

    @override
    def __str__(self) -> str:
        return f"{self.detail}{_listing(self.tries)}\n  {self.hint}"


class OutcomeUnknown(QuorlError):
    """Perhaps applied. ``client.repeat(error)`` sends the same ``request`` under the same ``key``, which is safe.

    An append that went out together with others has the whole batch as its ``request``.
    """

    code = "commit_unknown"

    def __init__(
        self, detail: str, key: str, request: Request[Any], tries: tuple[Try, ...] = (), request_id: str = ""
    ) -> None:
        super().__init__(detail, key, request, tries, request_id)
        self.detail = detail
        self.key = key
        """The idempotency key: the cluster answers a repeat under it with the first outcome."""
        self.request = request
        """What was asked."""
        self.tries = tries
        """The nodes that were asked, and what is known of it."""
        self.request_id = request_id
        self.hint = f"It may have been applied. Repeat it under the same idempotency key, {key}: client.repeat(error)"

    @override
    def __str__(self) -> str:
        return f"{self.detail}{_listing(self.tries)}\n  {self.hint}"


class NoResult(QuorlError):
    """A task has ended without a result."""

    code = "no_result"
    _hint = "quorl task show {id} tells its whole history"

    def __init__(self, task_id: str, detail: str, attempts: int = 0, reason: str | None = None) -> None:
        super().__init__(task_id, detail, attempts, reason)
        self.task_id = task_id
        """Of the task."""
        self.detail = detail
        self.attempts = attempts
        """Its runs that came to an end of their own."""
        self.reason = reason
        """ERROR, TIMEOUT, POISON, NO_RETRY, CANCELLED, PURGED or EXPIRED."""
        self.hint = self._hint.format(id=shlex.quote(task_id))
        self.request_id = ""


class TaskFailed(NoResult):
    """The task is FAILED. What it says of the error is that of the last attempt, as its worker saw it."""

    code = "task_failed"
    _hint = "quorl task show {id} tells its whole history; quorl task retry {id} queues it again"

    def __init__(
        self, task_id: str, remote_type: str, message: str, traceback: str, attempts: int, reason: str | None = None
    ) -> None:
        what = f"{remote_type}: {message}" if message else remote_type
        super().__init__(task_id, f"{what} (attempt {attempts}, {reason or 'ERROR'})", attempts, reason)
        self.args = (task_id, remote_type, message, traceback, attempts, reason)
        self.remote_type = remote_type
        """The name of the exception's class."""
        self.message = message
        """What the exception said."""
        self.traceback = traceback
        """The whole of it, as text; empty if the worker had none."""

    @override
    def __str__(self) -> str:
        remote = f"\n\n{self.traceback.rstrip()}\n" if self.traceback else ""
        return f"{super().__str__()}{remote}"


class TaskCancelled(NoResult):
    """The task was cancelled or purged before it finished."""

    code = "task_cancelled"


class TaskExpired(NoResult):
    """No worker started the task before it expired."""

    code = "task_expired"


class NotFinished(QuorlError, TimeoutError):
    """What was waited for did not finish in time: a task, or several at once. It goes on, and can be waited for again."""

    code = "not_finished"

    def __init__(self, task_id: str, status: str, waited_s: float, others: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(task_id, status, waited_s, others)
        self.task_id = task_id
        """Of the task; of several, the first."""
        self.status = status
        """What it was in when the time was over; empty if nobody said so in time."""
        self.task_ids: tuple[str, ...] = (task_id, *[other for other, _ in others])
        """All that were waited for together and are not finished."""
        look = "show {} says who runs it" if status == "PROCESSING" else "why {} says what it waits for"
        goes_on = "They go on" if others else "It goes on"
        self.detail = f"{_late([(task_id, status), *others])} after {waited_s:g} s of waiting for {'their' if others else 'its'} end"
        self.hint = f"{goes_on}, and can be waited for again. quorl task {look.format(shlex.quote(task_id))}"
        self.request_id = ""


def _late(tasks: Sequence[tuple[str, str]]) -> str:
    """Name tasks that are not finished, with the state that each is in where it is known; of many the first."""
    if len(tasks) == 1:
        return f"task {tasks[0][0]} is {tasks[0][1] or 'not finished'}"
    told = [one + (f" is {status}" if status else "") for one, status in tasks[:LATE_SHOWN]]
    if len(tasks) > LATE_SHOWN:
        told.append(f"and {len(tasks) - LATE_SHOWN} more")
    return f"{len(tasks)} tasks are not finished ({', '.join(told)})"
