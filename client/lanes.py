"""The lanes there are: appends to a topic, and submits to a queue."""

from __future__ import annotations

from typing import TypeAlias

from typing_extensions import override

from quorl.client.batching import FLIGHT_BYTES_MAX, Lane, Part
from quorl.client.errors import QueueSealed, QuorlError, Rejected, TopicNotFound
from quorl.client.flow import Plan, flow
from quorl.client.route import Route
from quorl.client.sharing import Mismatch, share
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import topics as t

AppendPart: TypeAlias = Part[t.Message, t.Range]
SubmitPart: TypeAlias = Part[b.NewTask, b.SubmittedTask]


class AppendLane(Lane[t.Message, t.Range]):
    """The appends of one client to one topic.

    ``partitions`` remembers how many partitions topics have, for those lanes that had to ask. Producers that were refused
    fly alone until a message of theirs is accepted.
    """

    ITEMS_MAX = limits.APPEND_MESSAGES_MAX

    def __init__(
        self,
        route: Route,
        name: str,
        *,
        timeout_s: float,
        partitions: dict[str, int],
        flight_bytes_max: int = FLIGHT_BYTES_MAX,
    ) -> None:
        super().__init__(route, name, timeout_s=timeout_s, flight_bytes_max=flight_bytes_max)
        self._partitions = partitions
        self._suspects: set[int] = set()

    @override
    def describe(self) -> str:
        return f"append {self.name!r}"

    @override
    def request(self, items: list[t.Message]) -> t.Append:
        return t.Append(topic=self.name, messages=items)

    @override
    def alone(self, part: AppendPart) -> bool:
        return bool(self._suspects) and not self._suspects.isdisjoint(_producers(part))

    @override
    def concerns_all(self, refused: Rejected) -> bool:
        return isinstance(refused, TopicNotFound)

    @override
    def refused(self, part: AppendPart) -> None:
        self._suspects |= _producers(part)

    @override
    def accepted(self, parts: list[AppendPart]) -> None:
        if self._suspects:
            for part in parts:
                self._suspects -= _producers(part)

    @override
    def shares(self, parts: list[AppendPart], reply: t.Appended) -> Plan[list[list[t.Range]]]:
        try:
            return (yield from self._shares(parts, reply.ranges))
        except (QuorlError, Mismatch) as error:
            raise LookupError(str(error) or "the topic was replaced meanwhile") from error

    def _shares(self, parts: list[AppendPart], ranges: list[t.Range]) -> Plan[list[list[t.Range]]]:
        batches = [part.items for part in parts]
        known = self._partitions.get(self.name)
        try:
            shares = share(batches, ranges, known)
        except Mismatch:  # what is remembered is out of date
            shares = None
        if shares is None:
            info = yield from flow(self._route, t.GetTopic(topic=self.name), timeout_s=self._timeout_s)
            self._partitions[self.name] = info.partitions
            shares = share(batches, ranges, info.partitions)
            assert shares is not None, "the number of partitions is known"
        return shares


class SubmitLane(Lane[b.NewTask, b.SubmittedTask]):
    """The submits of one client to one queue. Answers stand in the order of the tasks."""

    ITEMS_MAX = limits.SUBMIT_TASKS_MAX

    @override
    def describe(self) -> str:
        return f"submit {self.name!r}"

    @override
    def request(self, items: list[b.NewTask]) -> b.Submit:
        return b.Submit(queue=self.name, tasks=items)

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


def _producers(part: AppendPart) -> set[int]:
    return {message.producer_id for message in part.items if message.producer_id is not None}
