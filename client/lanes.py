"""The lanes there are: appends to topics, submits to a queue, and reports on tasks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec import UnsetType
from typing_extensions import override

from quorl.client.batching import FLIGHT_BYTES_MAX, Lane, Part, items_of
from quorl.client.errors import QueueSealed, Rejected, TopicNotFound, rejected
from quorl.client.flow import Plan
from quorl.client.route import Route
from quorl.client.sharing import Mismatch, share
from quorl.cluster.protocol import appends as a
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Request
from quorl.cluster.protocol.problems import CATALOGUE, Problem, ProblemDocument, document_of

AppendPart: TypeAlias = Part[t.Message, t.Range]
SubmitPart: TypeAlias = Part[b.NewTask, b.SubmittedTask]
ReportPart: TypeAlias = Part[g.OneReport, k.TaskStatus]


class AppendLane(Lane[t.Message, t.Range]):
    """The appends of one client, to one topic or to several; what goes to several in one flight is one call all the same.

    Producers that were refused fly alone until a message of theirs is accepted.
    """

    ITEMS_MAX = limits.APPEND_MESSAGES_MAX

    def __init__(
        self,
        route: Route,
        name: str,
        *,
        timeout_s: float,
        flight_bytes_max: int = FLIGHT_BYTES_MAX,
    ) -> None:
        super().__init__(route, name, timeout_s=timeout_s, flight_bytes_max=flight_bytes_max)
        self._suspects: set[tuple[str, int]] = set()
        self._flies_to: tuple[str, ...] = ()

    @override
    def describe(self) -> str:
        topics = self._flies_to
        return f"append {topics[0]!r}" if len(topics) == 1 else f"append to {len(topics)} topics"

    @override
    def request(self, parts: list[AppendPart]) -> t.Append | a.AppendAll:
        groups = self._by_topic(parts)
        self._flies_to = tuple(groups)
        if len(groups) == 1:
            return t.Append(topic=self._flies_to[0], messages=items_of(parts))
        appends = [a.TopicAppend(topic=topic, messages=items_of(mine)) for topic, mine in groups.items()]
        return a.AppendAll(appends=tuple(appends))

    def _by_topic(self, parts: list[AppendPart]) -> dict[str, list[AppendPart]]:
        groups: dict[str, list[AppendPart]] = {}
        for part in parts:
            groups.setdefault(part.to or self.name, []).append(part)
        return groups

    @override
    def alone(self, part: AppendPart) -> bool:
        return bool(self._suspects) and not self._suspects.isdisjoint(self._producers(part))

    @override
    def concerns_all(self, refused: Rejected) -> bool:
        return isinstance(refused, TopicNotFound)

    @override
    def refused(self, part: AppendPart) -> None:
        self._suspects |= self._producers(part)

    def _producers(self, part: AppendPart) -> set[tuple[str, int]]:
        topic = part.to or self.name
        return {(topic, message.producer_id) for message in part.items if message.producer_id is not None}

    @override
    def shares(
        self, parts: list[AppendPart], reply: t.Appended | a.AppendedAll
    ) -> Plan[Sequence[Sequence[t.Range] | Exception]]:
        groups = self._by_topic(parts)
        if isinstance(reply, t.Appended):
            return self._stored(parts, reply.ranges, reply.partitions)
        if len(reply.items) != len(groups):
            raise LookupError("the answer has another number of appends")
        found: dict[AppendPart, Sequence[t.Range] | Exception] = {}
        for mine, item in zip(groups.values(), reply.items, strict=True):
            if item.code is None:
                told = self._stored(mine, item.ranges, item.partitions)
            else:
                told = yield from self._not_stored(mine, refusal(item.code, item.detail))
            found.update(zip(mine, told, strict=True))
        return [found[part] for part in parts]

    def _stored(
        self, parts: list[AppendPart], ranges: list[t.Range], partitions: int | UnsetType
    ) -> Sequence[Sequence[t.Range] | Exception]:
        if self._suspects:
            self._suspects.difference_update(*[self._producers(part) for part in parts])
        try:
            return share([part.items for part in parts], ranges, partitions)
        except Mismatch:
            return [LookupError("the answer is about other messages")] * len(parts)

    def _not_stored(self, parts: list[AppendPart], refused: Rejected) -> Plan[Sequence[Exception]]:
        """Tell all that went to one topic, or let each of them answer for itself."""
        if len(parts) == 1:
            self.refused(parts[0])
        elif not self.concerns_all(refused):
            yield from self.one_by_one(parts)
        return [copy.copy(refused) for _ in parts]


class SubmitLane(Lane[b.NewTask, b.SubmittedTask]):
    """The submits of one client to one queue. Answers stand in the order of the tasks."""

    ITEMS_MAX = limits.SUBMIT_TASKS_MAX

    @override
    def describe(self) -> str:
        return f"submit {self.name!r}"

    @override
    def request(self, parts: list[SubmitPart]) -> b.Submit:
        return b.Submit(queue=self.name, tasks=items_of(parts))

    @override
    def concerns_all(self, refused: Rejected) -> bool:
        return isinstance(refused, QueueSealed)

    @override
    def shares(self, parts: list[SubmitPart], reply: b.Submitted) -> Plan[list[list[b.SubmittedTask]]]:
        yield from ()
        shares = []
        first = 0
        for part in parts:
            shares.append(reply.items[first : first + len(part.items)])
            first += len(part.items)
        if first != len(reply.items):
            raise LookupError("the answer has another number of tasks")
        return shares


class ReportLane(Lane[g.OneReport, k.TaskStatus]):
    """The reports of one client, each a part of its own. One that flies alone is the plain call that it stands for."""

    ITEMS_MAX = limits.SETTLE_TASKS_MAX

    @override
    def describe(self) -> str:
        return "report"

    @override
    def request(self, parts: list[ReportPart]) -> Request[Any]:
        items = items_of(parts)
        if len(items) == 1:
            return _plain(items[0])
        return g.Report(
            complete=tuple([one for one in items if isinstance(one, e.Completion)]),
            fail=tuple([one for one in items if isinstance(one, e.Failure)]),
            release=tuple([one for one in items if isinstance(one, e.Return)]),
        )

    @override
    def shares(
        self, parts: list[ReportPart], reply: k.TaskStatus | g.Reported
    ) -> Plan[Sequence[Sequence[k.TaskStatus] | Exception]]:
        yield from ()
        if isinstance(reply, k.TaskStatus):
            return [[reply]]
        if len(reply.items) != len(parts):
            raise LookupError("the answer has another number of reports")
        found: dict[int, Sequence[k.TaskStatus] | Exception] = {}
        told = iter(reply.items)
        for kind in (e.Completion, e.Failure, e.Return):
            for place, part in enumerate(parts):
                if isinstance(part.items[0], kind):
                    found[place] = _told(next(told))
        return [found[place] for place in range(len(parts))]


def _plain(report: g.OneReport) -> e.CompleteTask | e.FailTask | e.ReleaseTask:
    task_id, lease = report.task_id, report.lease
    match report:
        case e.Completion():
            return e.CompleteTask(id=task_id, lease=lease, result=report.result)
        case e.Failure():
            return e.FailTask(id=task_id, lease=lease, error=report.error, retry=report.retry, delay_ms=report.delay_ms)
        case e.Return():
            return e.ReleaseTask(id=task_id, lease=lease, delay_ms=report.delay_ms)


def _told(item: g.ReportedTask) -> Sequence[k.TaskStatus] | Exception:
    if item.status is not None:
        return [k.TaskStatus(id=item.id, status=item.status, attempts=item.attempts)]
    return refusal(item.code or "refused", item.detail)


def refusal(code: str, detail: str) -> Rejected:
    """Return the error for one of several things in a call that was refused for itself."""
    if code not in CATALOGUE:  # a newer node's
        return rejected(ProblemDocument(code=code, status=409, title="Refused", detail=detail))
    return rejected(document_of(Problem(code, detail), instance="", request_id="", node="", leader=None))
