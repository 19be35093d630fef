"""Signs of life that nobody waits for: they ride along, or leave by themselves in the end."""

from __future__ import annotations

import asyncio

import pytest

from quorl.cluster.consensus.port import NotApplied
from quorl.cluster.protocol.entry import SignOfLife
from tests.node.toystate import Leader, Toy, passing


async def test_a_sign_rides_along_with_what_others_want() -> None:
    leader = Leader(Toy())
    leader.committer.note(SignOfLife(1), 60.0)
    assert leader.committer.idle
    await leader.submit()
    assert leader.entries[-1].signs == (SignOfLife(1),)
    await passing(100.0)
    assert len(leader.entries) == 1


async def test_the_sign_that_can_wait_the_least_takes_the_others_along() -> None:
    leader = Leader(Toy())
    for worker_id, within_s in ((1, 60.0), (2, 0.5), (3, 60.0)):
        leader.committer.note(SignOfLife(worker_id), within_s)
    await passing(0.49)
    assert leader.entries == []
    await passing(0.02)
    assert leader.entries[-1].signs == (SignOfLife(1), SignOfLife(2), SignOfLife(3))
    await passing(100.0)
    assert len(leader.entries) == 1


async def test_who_does_not_lead_any_more_carries_no_signs() -> None:
    leader = Leader(Toy())
    leader.committer.note(SignOfLife(1), 0.5)
    told = leader.committer.sign([SignOfLife(2)])
    leader.committer.step_aside(NotApplied("no_leader", "n1 does not lead any more"))
    with pytest.raises(NotApplied):
        await told
    leader.committer.lead()
    await passing(1.0)
    assert leader.entries == []


async def test_signs_that_are_late_while_an_entry_travels_leave_with_the_next() -> None:
    leader = Leader(Toy(), held=True)
    barrier = leader.committer.barrier()
    await asyncio.sleep(0)
    leader.committer.note(SignOfLife(1), 0.5)
    await passing(1.0)
    assert len(leader.entries) == 1
    leader.held = False
    leader.apply()
    await barrier
    await passing(0.1)
    assert leader.entries[-1].signs == (SignOfLife(1),)
