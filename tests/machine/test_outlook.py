"""What a leader sees before it proposes."""

from __future__ import annotations

import pytest

from quorl.cluster.machine.outlook import Outlook
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import moment
from quorl.cluster.protocol import workers as w
from tests.machine.desk import Desk, seal


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_what_a_queue_has_to_give(desk: Desk) -> None:
    assert desk.machine.outlook("q") == Outlook(0, drained=False)
    worker = desk.enrol()
    desk.submit()
    desk.submit(delay_ms=1_000)
    assert desk.machine.outlook("q") == Outlook(1, drained=False)
    desk.patch(paused=True, sealed_=True)
    assert desk.machine.outlook("q") == Outlook(0, drained=False)
    desk.patch(paused=False)
    assert desk.machine.outlook("q") == Outlook(1, drained=False)
    (lease,) = desk.claim(worker)
    desk.complete(lease)
    desk.after(1_000)
    desk.complete(desk.claim(worker)[0])
    assert desk.machine.outlook("q") == Outlook(0, drained=True)
    desk.patch(paused=True)
    assert desk.machine.outlook("q") == Outlook(0, drained=True)


def test_whether_any_task_waits(desk: Desk) -> None:
    assert not desk.machine.waits()
    desk.submit(delay_ms=1_000)
    assert not desk.machine.waits()  # its moment is an alarm
    desk.after(1_000)
    assert desk.machine.waits()
    desk.claim(desk.enrol())
    assert not desk.machine.waits()


def test_what_will_be_claimable_by_itself_and_when(desk: Desk) -> None:
    worker = desk.enrol()
    now_ms, wall_ms = desk.now_ms, desk.wall_ms
    desk.run(worker, timeout_ms=10)  # its time-out is an alarm too, and brings nothing
    desk.submit(delay_ms=100)
    desk.submit(delay_ms=200, expires_ms=150)
    desk.submit("other", delay_ms=200)
    desk.submit("other", run_at=moment.to_text(wall_ms + 300))
    assert desk.machine.coming(now_ms + 99, wall_ms + 299) == {}
    assert desk.machine.coming(now_ms + 100, wall_ms) == {"q": 1}
    assert desk.machine.coming(now_ms + 200, wall_ms) == {"q": 1, "other": 1}
    assert desk.machine.coming(now_ms + 200, wall_ms + 300) == {"q": 1, "other": 2}
    desk.after(500)
    assert desk.machine.coming(desk.now_ms, desk.wall_ms) == {}


def test_whether_a_claim_has_a_receipt(desk: Desk) -> None:
    worker = desk.enrol()
    desk.submit()
    desk.apply(seal(c.Claim(worker_id=worker), key="k"))
    assert desk.machine.remembers("claim", "k")
    assert not desk.machine.remembers("claim", "other")
    assert not desk.machine.remembers("consume", "k")


def test_whom_a_task_that_comes_may_go_to(desk: Desk) -> None:
    one, two = desk.enrol("one", "q", "p"), desk.enrol("two", "q", standby=True)
    desk.put("p", partitions=1)
    assert [desk.machine.serves(worker, "q") for worker in (one, two, 9)] == [True, False, False]
    desk.submit()
    assert [desk.machine.serves(worker, "q") for worker in (one, two)] == [True, False]
    assert [desk.machine.serves(worker, "p") for worker in (one, two)] == [True, False]
    desk.patch(paused=True)
    assert not desk.machine.serves(one, "q")
    desk.patch(paused=False)
    desk.do(w.QuietWorker(worker_id=one), w.WorkerTold)
    assert not desk.machine.serves(one, "q")
    desk.do(w.RemoveWorker(worker_id=one), w.WorkerGone)
    assert desk.machine.serves(two, "q")
