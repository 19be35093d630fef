"""Doing to several leases in one command what the commands for one of them do."""

from __future__ import annotations

from collections.abc import Iterator

from quorl.cluster.machine import claiming, settling
from quorl.cluster.machine.state import Lease, State
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol.tasks import LeaseLost, TaskNotFound, TaskStatus


def claim(state: State, command: g.ClaimBatch) -> g.GrantedMany:
    """Lease tasks to several workers in turn, together no more bytes than a claim may have."""
    shared = claiming.Shared(sum([max(0, seat.max) for seat in command.claims]))
    items: list[g.Share] = []
    for seat in command.claims:
        if not 0 <= seat.at < limits.CLAIMS_TOGETHER_MAX:
            raise ValueError("a claim has no place in its call")
        one = c.Claim(worker_id=seat.worker_id, queues=seat.queues, max=seat.max, number=seat.number)
        said = claiming.claim_within(state, one, shared)
        if isinstance(said, c.Granted):
            items.append(g.Share(seat.worker_id, said.expires_in_ms, tuple(said.grants), said.drained, at=seat.at))
        else:
            items.append(g.Share(seat.worker_id, code=str(said.__struct_config__.tag), detail=said.detail, at=seat.at))
    return g.GrantedMany(items=items)


def report(state: State, command: g.ReportBatch) -> g.Reported:
    """End leases, or refuse to, one by one."""
    items = [
        g.ReportedTask(id=said.id, status="SUCCESS", attempts=said.attempts + 1)
        if isinstance(said, Lease)
        else _item(done.task_id, said)
        for done, said in zip(command.complete, settling.complete_all(state, command.complete), strict=True)
    ]
    items += [_item(task_id, said) for task_id, said in _reports(state, command)]
    return g.Reported(items=items)


def _reports(state: State, command: g.ReportBatch) -> Iterator[tuple[str, TaskStatus | TaskNotFound | LeaseLost]]:
    for one in command.fail:
        failed = c.FailTask(id=one.task_id, lease=one.lease, error=one.error, retry=one.retry, delay_ms=one.delay_ms)
        yield one.task_id, settling.fail(state, failed)
    for back in command.release:
        given_back = c.ReleaseTask(id=back.task_id, lease=back.lease, delay_ms=back.delay_ms)
        yield back.task_id, settling.release(state, given_back)


def _item(task_id: str, said: TaskStatus | TaskNotFound | LeaseLost) -> g.ReportedTask:
    if isinstance(said, TaskStatus):
        return g.ReportedTask(id=task_id, status=said.status, attempts=said.attempts)
    return g.ReportedTask(id=task_id, code=str(said.__struct_config__.tag), detail=said.detail)
