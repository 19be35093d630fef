"""Messages that do for several leases or claims at once, of whichever workers, what those of ``leases`` do for one.

Clients make them of calls that wait at the same time. Each report and each claim takes effect or is refused for itself.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta
from typing_extensions import override

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Command, Reply
from quorl.cluster.protocol.leases import (
    ClaimedTask,
    ClaimNumber,
    Completion,
    Done,
    Failure,
    Grant,
    Queues,
    Return,
    raw_bytes,
)
from quorl.cluster.protocol.tasks import Status, Wait, WorkerId

_NULL = b"null"


# -- claiming -----------------------------------------------------------------------------------------------------
class OneClaim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``Claim`` of several."""

    worker_id: WorkerId
    queues: Queues = ()
    max: Annotated[int, Meta(ge=1, le=limits.CLAIM_TASKS_EACH_MAX)] = 1
    number: ClaimNumber = 0


class ClaimedBy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one claim came to: the ``tasks`` that are the worker's now, or ``drained`` as in ``Claims``, or the ``code`` of its refusal.

    Without any of these there is no task for it yet.
    """

    tasks: list[ClaimedTask] = msgspec.field(default_factory=list)
    drained: bool = False
    code: str | None = None
    detail: str = ""

    @property
    def settled(self) -> bool:
        """Whether it came to anything."""
        return bool(self.tasks or self.drained or self.code)


class ClaimedMany(Reply, frozen=True):
    """What became of each claim, in their order."""

    items: list[ClaimedBy]


class Share(msgspec.Struct, frozen=True, array_like=True):
    """What the machine decides for one claim of several: see ``Granted``. Refused claims have the code and detail of that.

    ``at`` is the claim's place in the call.
    """

    worker_id: int
    expires_in_ms: int = 0
    grants: tuple[Grant, ...] = ()
    drained: bool = False
    code: str | None = None
    detail: str = ""
    at: int = 0

    @property
    def settled(self) -> bool:
        """Whether the claim came to anything."""
        return bool(self.grants or self.drained or self.code)


class GrantedMany(Reply, frozen=True):
    """What the machine decides for a ``ClaimBatch``. Its node reads the tasks, once, to answer."""

    items: list[Share]


class Seat(msgspec.Struct, frozen=True, array_like=True):
    """A ``OneClaim`` in the log, and its place in the call."""

    worker_id: int
    queues: tuple[str, ...]
    max: int
    number: int
    at: int = 0


class ClaimBatch(Command[ClaimedMany], frozen=True, tag="claim_batch"):
    """The form of a ``ClaimMany`` in the log: those of its claims that may come to something.

    ``wait``: it will be tried again if it finds nothing.
    """

    claims: tuple[Seat, ...]
    wait: int = 0


class ClaimMany(Command[ClaimedMany], frozen=True, tag="claim_many"):
    """Claim for several workers at once.

    With ``wait`` the answer is held back until any of the claims comes to something, or the seconds are over, or half of
    what a worker among them may be silent. Those that have come to nothing by then are claimed for again by another call.
    Who wants more than a few tasks claims alone.
    """

    claims: Annotated[tuple[OneClaim, ...], Meta(min_length=1, max_length=limits.CLAIMS_TOGETHER_MAX)]
    wait: Wait = 0

    @override
    def sealed(self) -> ClaimBatch:
        """The same as a command whose outcome is final."""
        claims = [Seat(one.worker_id, one.queues, one.max, one.number, at) for at, one in enumerate(self.claims)]
        return ClaimBatch(claims=tuple(claims))


# -- reporting ----------------------------------------------------------------------------------------------------
class ReportedTask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one report came to: the task's ``status`` and ``attempts``; or the ``code`` of its refusal, and its ``detail``."""

    id: str
    status: Status | None = None
    attempts: int = 0
    code: str | None = None
    detail: str = ""


class Reported(Reply, frozen=True):
    """What became of each report, in the order complete, fail, release."""

    items: list[ReportedTask]


class ReportBatch(Command[Reported], frozen=True, tag="report_batch"):
    """The form of a ``Report`` in the log."""

    complete: tuple[Done, ...] = ()
    fail: tuple[Failure, ...] = ()
    release: tuple[Return, ...] = ()


class Report(Command[Reported], frozen=True, tag="report"):
    """Report the ends of many leases, whichever workers hold them; each takes effect or is refused for itself.

    A refused one has the ``code`` ``lease_lost`` or ``task_not_found``.
    """

    complete: Annotated[tuple[Completion, ...], Meta(max_length=limits.SETTLE_TASKS_MAX)] = ()
    fail: Annotated[tuple[Failure, ...], Meta(max_length=limits.SETTLE_TASKS_MAX)] = ()
    release: Annotated[tuple[Return, ...], Meta(max_length=limits.SETTLE_TASKS_MAX)] = ()

    @override
    def sealed(self) -> ReportBatch:
        """The same, with the results as bytes."""
        complete = tuple([Done(one.task_id, one.lease, raw_bytes(one.result) or _NULL) for one in self.complete])
        return ReportBatch(complete=complete, fail=self.fail, release=self.release)


OneReport: TypeAlias = Completion | Failure | Return
