"""Claims: who gets what, in which order, and at what cost."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from quorl.cluster.machine import claiming, state
from quorl.cluster.machine import events as e
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import workers as w
from tests.machine.desk import Desk, new, seal


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.enrol("a")
    return desk


def ids(leases: list[Any]) -> list[str]:
    return [lease.id for lease in leases]


def test_higher_priority_first_and_then_the_order_of_submission(desk: Desk) -> None:
    for i, priority in enumerate((5, 5, 1, 9)):
        desk.submit(id=f"t{i}", priority=priority)
    assert ids(desk.claim(1, 3)) == ["t3", "t0", "t1"]
    assert ids(desk.claim(1, 3)) == ["t2"]
    assert desk.claim(1, 3) == []
    desk.sound()


def test_e3_tokens_grow_over_all_queues_and_workers(desk: Desk) -> None:
    desk.enrol("b", "r")
    for number in range(6):
        desk.submit("qr"[number % 2])
    tokens = [lease.token for worker_id in (1, 2, 1, 2, 1, 2) for lease in desk.claim(worker_id)]
    assert tokens == [1, 2, 3, 4, 5, 6]


def test_what_is_granted_is_told_as_the_task_and_its_lease(desk: Desk) -> None:
    task_id = desk.submit(args=msgspec.Raw(b"[4,5]"), max_attempts=7)
    for attempt in (1, 2):
        granted = desk.do(c.Claim(worker_id=1), c.Granted)
        assert (granted.expires_in_ms, granted.drained) == (15_000, False)
        (grant,) = granted.grants
        assert grant.attempt == attempt
        claims = desk.machine.render(granted)
        assert isinstance(claims, c.Claims)
        (claimed,) = claims.tasks
        assert (claimed.id, claimed.attempt, claimed.max_attempts) == (task_id, attempt, 7)
        assert (bytes(claimed.args), claimed.lease.token, claimed.lease.expires_in_ms) == (b"[4,5]", attempt, 15_000)
        desk.do(c.FailTask(id=task_id, lease=grant.token, delay_ms=0), msgspec.Struct)


def test_several_queues_are_served_in_the_order_in_which_they_are_named(desk: Desk) -> None:
    for name in "rsq":
        desk.submit(name, id=name)
    assert ids(desk.claim(1, 9, "s", "no such", "q")) == ["s", "q"]
    assert desk.claim(1, 9) == []
    desk.enrol("b", "r", "s")
    assert ids(desk.claim(2, 9)) == ["r"]


def test_a_worker_that_is_not_there_or_not_alive_is_refused(desk: Desk) -> None:
    for worker_id in (2, 2**53 - 1):
        assert desk.refused(c.Claim(worker_id=worker_id)) == "worker_not_found"
        assert desk.machine.claimable(c.Claim(worker_id=worker_id))
    desk.do(w.RemoveWorker(worker_id=1), w.WorkerGone)
    assert desk.refused(c.Claim(worker_id=1)) == "worker_not_alive"
    assert desk.machine.claimable(c.Claim(worker_id=1))


def test_nothing_is_handed_out_of_a_queue_that_is_paused_nor_to_a_worker_that_is_quiet(desk: Desk) -> None:
    claim = c.Claim(worker_id=1)
    assert not desk.machine.claimable(claim)
    desk.submit()
    assert desk.machine.claimable(claim)
    desk.patch(paused=True)
    assert not desk.machine.claimable(claim)
    assert desk.claim(1) == []
    applied = desk.apply(seal(q.PatchQueue(queue="q", paused=False)))
    assert e.QueueReady("q") in applied.events
    assert desk.machine.claimable(claim)
    desk.do(w.QuietWorker(worker_id=1), w.WorkerTold)
    assert not desk.machine.claimable(claim)
    assert not desk.machine.claimable(c.Claim(worker_id=1, queues=("q",)))
    assert desk.claim(1, 1, "q") == desk.claim(1) == []
    desk.sound()


def test_b6_a_sealed_queue_in_which_nothing_is_left_is_drained(desk: Desk) -> None:
    claim = c.Claim(worker_id=1, queues=("q", "r"), wait=9)
    lease = desk.run(1)
    desk.put("r")
    desk.patch("r", sealed_=True)
    assert not desk.do(claim, c.Granted).drained
    desk.patch("q", sealed_=True)
    assert not desk.machine.claimable(claim)
    applied = desk.apply(seal(c.CompleteTask(id=lease.id, lease=lease.token)))
    assert e.QueueReady("q") in applied.events
    assert desk.machine.claimable(claim)
    first, second = desk.outcome(claim, "k"), desk.outcome(claim, "k")
    assert (first.value, second.replayed) == (second.value, True)
    assert isinstance(first.value, c.Granted)
    assert first.value.drained
    assert not desk.do(c.Claim(worker_id=1, queues=("q", "none")), c.Granted).drained


def test_a_claim_that_found_nothing_and_waits_is_tried_again_under_its_key(desk: Desk) -> None:
    claim = c.Claim(worker_id=1, wait=5)
    assert not desk.outcome(claim, "k").replayed
    desk.submit()
    first = desk.outcome(claim, "k")
    assert (first.replayed, desk.outcome(claim, "k")) == (False, (first.value, True))
    last = c.Claim(worker_id=1)
    desk.outcome(last, "j")
    desk.submit()
    assert desk.outcome(last, "j").replayed


def test_a_claim_takes_no_more_than_one_answer_carries(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLAIM_BYTES_MAX", 100)
    for size in (200, 30, 30, 60, 10):
        desk.submit(args=msgspec.Raw(b'["' + b"x" * size + b'"]'))
    desk.submit("r", args=msgspec.Raw(b'["' + b"x" * 90 + b'"]'))
    taken = [len(desk.claim(1, 9, "q", "r")) for _ in range(4)]
    assert taken == [1, 2, 2, 1]
    desk.sound()


def test_tasks_whose_time_is_over_are_ended_on_the_way(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DUE_TASKS_PER_ENTRY", 2)
    late = [desk.submit(expires_ms=5) for _ in range(5)]
    good = desk.submit()
    assert desk.machine.next_alarm_ms == 5
    desk.now_ms += 5
    granted, again = desk.entry(c.Claim(worker_id=1), c.Claim(worker_id=1))
    assert isinstance(granted, c.Granted)
    assert isinstance(again, c.Granted)
    assert (granted.grants, len(again.grants)) == ([], 1)
    assert [desk.status(task_id) for task_id in late] == ["EXPIRED EXPIRED"] * 5
    assert desk.status(good) == "PROCESSING"
    desk.sound()


def test_b7_a_partition_is_served_by_its_owner_alone_in_order_over_all_that_it_owns(desk: Desk) -> None:
    desk.put(partitions=5)
    desk.enrol("b")
    assert desk.owners() == [1, 1, 1, 2, 2]
    for number in range(20):
        desk.submit(id=f"t{number}", priority=9 if number > 14 else 5)
    claims = [ids(desk.claim(1, most)) for most in (1, 3, 4, 9)]
    mine = [f"t{n}" for n in (*range(15, 20), *range(15)) if n % 5 < 3]
    assert list(itertools.chain(*claims)) == mine
    assert desk.claim(1) == []
    assert not desk.machine.claimable(c.Claim(worker_id=1))
    assert ids(desk.claim(2, 20)) == [f"t{n}" for n in (*range(15, 20), *range(15)) if n % 5 >= 3]
    desk.enrol("c", "other")
    desk.submit()
    assert desk.claim(3, 9, "q") == []
    desk.sound()


READS = [claiming._FIRST, claiming._NEXT]


@pytest.mark.parametrize("statement", READS)
def test_a_claim_goes_by_an_index_that_holds_nothing_else(desk: Desk, statement: str) -> None:
    marks = statement.count("?")
    plan, *beside = [row[3] for row in desk.connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * marks)]
    assert "USING INDEX tasks_ready (queue_id=? AND partition=?" in plan
    assert beside[1:] == ["SEARCH progress USING INTEGER PRIMARY KEY (rowid=?)"]  # only of those leased before


def test_a_claim_looks_at_no_row_that_it_does_not_hand_out(desk: Desk) -> None:
    """Counted in steps of SQLite's engine: the same for 10 as for 3 000 other tasks, in any state."""
    steps = [steps_of_a_claim(others) for others in (10, 3_000)]
    assert steps[0] == steps[1]


def steps_of_a_claim(others: int) -> list[int]:
    desk = Desk(first_way=None)
    desk.enrol("a")
    desk.put("paused")
    for queue, delay_ms in (("q", 9), ("paused", 0), ("q", 0)):
        for start in range(0, others, 1_000):
            count = min(1_000, others - start)
            desk.do(s.Submit(queue=queue, tasks=[new(delay_ms=delay_ms)] * count), s.Submitted)
    for start in range(0, others, 1_000):
        leases = desk.claim(1, min(1_000, others - start))
        reports = tuple(c.Done(lease.id, lease.token, b"1") for lease in leases)
        desk.do(c.Settle(worker_id=1, complete=reports), c.Settled)
    desk.patch("paused", paused=True)
    desk.submit()
    counted = []
    for claim in (c.Claim(worker_id=1, queues=("paused", "q")), c.Claim(worker_id=1, queues=("paused",), max=9)):
        desk.now_ms += 1
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        payload = desk.payload(seal(claim))
        desk.connection.set_progress_handler(step, 1)
        desk.apply_raw(payload)
        desk.connection.set_progress_handler(None, 0)
        counted.append(steps)
    desk.sound()
    return counted


def test_c1_whoever_asks_gets_and_nothing_is_lost_between_many(desk: Desk) -> None:
    for name in "bc":
        desk.enrol(name)
    desk.do(s.Submit(queue="q", tasks=[new()] * 300), s.Submitted)
    got: dict[int, list[str]] = {1: [], 2: [], 3: []}
    for turn in range(300):
        got[1 + turn % 3] += ids(desk.claim(1 + turn % 3))
    assert [len(leases) for leases in got.values()] == [100, 100, 100]
    assert len({task_id for leases in got.values() for task_id in leases}) == 300
    desk.sound()


def test_what_is_reported_twice_or_under_another_lease_comes_to_the_same_whatever_is_remembered() -> None:
    desks = [Desk(), Desk(), Desk()]
    for forgetful, desk in enumerate(desks):
        desk.enrol("a")
        for task_id in ("x", "y", "z"):
            desk.submit(id=task_id)
        assert [lease.token for lease in desk.claim(1, 3)] == [1, 2, 3]
        if forgetful == 1:
            desk.machine.reload()
        if forgetful == 2:
            del desk.machine._state.leases[2]
        reports = [("x", 1), ("x", 1), ("x", 2), ("y", 2), ("no", 3), ("y", 9), ("z", 3)]
        done = tuple(c.Done(task_id, token, b"null") for task_id, token in reports)
        settled, batch = desk.entry(c.Settle(worker_id=1, complete=done[:4]), g.ReportBatch(complete=done[4:]))
        assert isinstance(settled, c.Settled)
        assert isinstance(batch, g.Reported)
        assert (settled.accepted, [one.task_id for one in settled.rejected]) == (2, ["x", "x"])
        assert [item.code for item in batch.items] == ["task_not_found", "lease_lost", None]
        assert desk.counts() == {"success": 3}
        desk.sound()
    assert len({desk.machine.digest for desk in desks}) == 1


def test_no_more_leases_are_remembered_than_is_good(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_LEASES_REMEMBERED_MAX", 2)
    for _ in range(5):
        desk.submit()
    leases = desk.claim(1, 5)
    for lease in leases:
        assert desk.complete(lease).status == "SUCCESS"
        assert not desk.machine._state.leases
    desk.sound()
