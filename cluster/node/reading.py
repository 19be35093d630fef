"""Reads: answered from this node's own copy, once that is as fresh as the caller asks for.

``local`` answers at once; ``session`` waits until this node has applied what the caller has seen; ``linearizable`` first
gets a barrier from the leader, asked for after the read arrived, and waits for that.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.machine.queries import BadCursor, BadStart, ListNames, Names
from quorl.cluster.machine.worker_queries import BeatLog, Heartbeats
from quorl.cluster.node.core import BARRIER, Core, PeerLost, PeerUnreachable
from quorl.cluster.node.forwarding import Leading
from quorl.cluster.node.polls import LongPolls
from quorl.cluster.node.subjects import Subject
from quorl.cluster.node.visit import Declined, Visit
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Inspection, Query, Rejection, Reply
from quorl.cluster.protocol.problems import Problem, problem_of
from quorl.cluster.protocol.wire import Answer, Call

_STATUS_FULL = 507
"""What a leader answers for a barrier for which too few disks have room."""


class _Barrier(msgspec.Struct, frozen=True):
    sequence: int


_barrier_decoder = msgspec.json.Decoder(_Barrier)


class Reading:
    """The way of a query."""

    def __init__(self, core: Core, leading: Leading, polls: LongPolls) -> None:
        self._core = core
        self._leading = leading
        self._polls = polls

    async def read(self, visit: Visit) -> Answer:
        """Answer one read."""
        request = visit.request
        if isinstance(request, Inspection):
            return visit.voice.reply(visit.row, self._core.inspect(request))
        assert isinstance(request, Query)
        await self.become_fresh(visit)
        try:
            value = await self._value(request, visit.poll_until)
        except (BadStart, BadCursor) as error:
            raise Declined(Problem("invalid_parameter", str(error))) from error
        if isinstance(value, Rejection):
            return visit.voice.problem(problem_of(value), visit.scene)
        return visit.voice.reply(visit.row, value)

    async def _value(self, request: Query[Any], poll_until: float) -> Reply | Rejection:
        match request:
            case t.Browse():
                return await self._browse(request, poll_until)
            case k.GetTask() | k.GetResult():
                return await self._finished(request, poll_until)
            case _:
                return await self._core.read(request)

    async def list_names(self, visit: Visit) -> Answer:
        """Answer with the names of all topics at once; others have their turn between one page of them and the next."""
        await self.become_fresh(visit)
        names: list[str] = []
        while True:
            page = await self._core.read(ListNames(after=names[-1] if names else "", limit=limits.PAGE_ITEMS_MAX))
            assert isinstance(page, Names)
            names += page.names
            if not page.more:
                return visit.voice.reply(visit.row, Names(names=names, more=False))
            await asyncio.sleep(0)

    async def _browse(self, request: t.Browse, poll_until: float) -> Reply | Rejection:
        while True:
            sequence = self._core.sequence()
            value = await self._core.read(request)
            if not isinstance(value, t.MessagePage) or value.items:
                return value
            if not await self._polls.wait_news(Subject("topic", request.topic), sequence, poll_until):
                return value
            if request.start == "latest":  # which would by now lie behind the very message that was waited for
                request = msgspec.structs.replace(request, start=str(value.next))

    async def log_of_heartbeats(self, visit: Visit) -> Answer:
        """Answer with the last heartbeat of every worker."""
        await self.become_fresh(visit)
        log = await self._core.read(Heartbeats())
        assert isinstance(log, BeatLog)
        return visit.voice.reply(visit.row, log)

    async def _finished(self, request: k.GetTask | k.GetResult, poll_until: float) -> Reply | Rejection:
        """The task or its result, once it is finished or the time is over."""
        while True:
            sequence = self._core.sequence()
            value = await self._core.read(request)
            if not isinstance(value, k.TaskInfo | k.TaskResult) or value.status in k.FINAL:
                return value
            if not await self._polls.wait_news(Subject("task", request.id), sequence, poll_until):
                return value

    async def become_fresh(self, visit: Visit) -> None:
        """Wait until this node's copy is as fresh as the call asks for; raises ``Declined``."""
        needed = visit.options.min_sequence
        if visit.options.consistency == "linearizable":
            needed = max(needed, await self._barrier(visit))
        if needed <= self._core.sequence() or await self._core.wait_applied(needed, visit.ready_until):
            return
        detail = f"{self._core.name} has applied {self._core.sequence()} entries; the read needs {needed}."
        raise Declined(Problem("not_ready", detail))

    async def _barrier(self, visit: Visit) -> int:
        until = visit.ready_until
        found = await self._leading.at_leader(
            visit, until, self._barrier_here, lambda _, name: self._barrier_at(name, until)
        )
        return found.sequence

    async def _barrier_here(self, _: Visit) -> _Barrier | None:
        try:
            return _Barrier(await self._core.barrier())
        except NotApplied as reason:
            self._end_if_full(full=reason.code == "storage_full")
            return None
        except OutcomeUnknown:
            return None

    def _end_if_full(self, *, full: bool) -> None:
        """A barrier is an entry: where too few disks have room for one, only somebody who makes room helps."""
        if full and (why := self._core.outage()).code == "no_quorum":
            raise Declined(why)

    async def _barrier_at(self, leader: str, until: float) -> _Barrier | None:
        call = Call("GET", BARRIER, "", {"quorl-hops": "1"}, b"")
        try:
            answer = await self._leading.ask(leader, call, until)
        except (PeerUnreachable, PeerLost):
            return None
        self._end_if_full(full=answer.status == _STATUS_FULL)
        return _barrier_decoder.decode(answer.body) if answer.status == 200 else None
