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
from quorl.cluster.protocol.leases import Completion, Done, Failure, Return, raw_bytes
from quorl.cluster.protocol.tasks import Status

_NULL = b"null"


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
