"""The lives of workers: registering, beating, dying, leaving, being replaced, standing by, being forgotten."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quorl.cluster.machine import events as e
from quorl.cluster.machine.outlook import WorkerState
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import SignOfLife
from tests.machine.desk import Desk, expect, new, seal

LIMIT_MS = 15_000


def beat(desk: Desk, *worker_ids: int) -> None:
    """Heartbeats of those alone, in the next entry."""
    desk.signs = tuple(SignOfLife(worker_id) for worker_id in worker_ids)


def silence(desk: Desk, *beating: int, ms: int = LIMIT_MS) -> list[Any]:
    """So much time passes; only those given beat meanwhile, once at the end."""
    desk.now_ms += ms
    desk.wall_ms += ms
    beat(desk, *beating)
    return desk.apply().events


def test_b16_who_is_silent_for_too_long_is_dead_and_its_tasks_go_back_at_once() -> None:
    desk = Desk()
    registered = desk.do(w.RegisterWorker(name="a", queues=("q",)), w.WorkerRegistered)
    assert (registered.worker_id, registered.heartbeat_ms, registered.dead_after_ms) == (1, 5_000, LIMIT_MS)
    desk.enrol("b")
    lease = desk.run(1)
    assert desk.machine.next_alarm_ms == LIMIT_MS
    silence(desk, 2, ms=LIMIT_MS - 1)
    assert desk.machine.worker(1) == WorkerState("ALIVE", LIMIT_MS, ("q",), 1)
    assert not desk.due()
    events = silence(desk, 2, ms=1)
    assert desk.life(1) == "DEAD"
    assert [desk.machine.worker(number).alive for number in (1, 2)] == [False, True]  # type: ignore[union-attr]
    assert {e.WorkerChanged(1), e.TasksChanged((lease.id,)), e.QueueReady("q")} <= set(events)
    assert desk.story(lease.id) == ["submitted", "claimed", "lost"]
    (again,) = desk.claim(2)
    assert again.id == lease.id
    assert desk.refused(c.Claim(worker_id=1)) == "worker_not_alive"
    assert desk.machine.worker(3) is None
    desk.sound()


def test_signs_of_life_come_before_what_is_due() -> None:
    desk = Desk()
    for name in "abc":
        desk.enrol(name)
    silence(desk, 1, 2, 9, 0, ms=10 * LIMIT_MS)
    assert [desk.life(worker_id) for worker_id in (1, 2, 3)] == ["ALIVE", "ALIVE", "DEAD"]
    silence(desk, 1, 3, ms=LIMIT_MS)
    assert [desk.life(worker_id) for worker_id in (1, 2, 3)] == ["ALIVE", "DEAD", "DEAD"]
    desk.sound()


def test_d6_a_new_leader_begins_with_everybody_alive() -> None:
    desk = Desk()
    desk.enrol("a")
    lease = desk.run(1)
    desk.now_ms += 10 * LIMIT_MS
    desk.refresh = True
    desk.entry()
    assert desk.life(1) == "ALIVE"
    assert desk.machine.next_alarm_ms == desk.now_ms + LIMIT_MS
    desk.complete(lease)
    desk.sound()


def test_every_report_and_claim_is_a_sign_of_life() -> None:
    desk = Desk()
    desk.enrol("a")
    lease = desk.run(1)
    for command in (
        c.Claim(worker_id=1, queues=("none",)),
        c.HoldTask(id=lease.id, lease=lease.token),
        c.Settle(worker_id=1),
        c.CompleteTask(id=lease.id, lease=lease.token),
    ):
        desk.after(LIMIT_MS - 1, command)
        assert desk.sql("SELECT beat_ms FROM workers") == [(desk.now_ms,)]
    assert desk.life(1) == "ALIVE"
    desk.sound()


def test_heartbeats_are_noted_in_a_ring_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BEATS_KEPT", 3)
    desk = Desk()
    desk.enrol("a", heartbeat_ms=100)
    for _ in range(12):
        silence(desk, 1, ms=25)
    info = desk.ask(w.GetWorker(worker_id=1), w.WorkerInfo)
    assert len(info.beats) == 3
    assert desk.sql("SELECT beats, noted_ms FROM workers") == [(7, 300)]


def test_a_name_belongs_to_one_life_at_a_time() -> None:
    desk = Desk()
    desk.put(partitions=2)
    first = desk.enrol("a")
    lease = desk.run(first)
    second = desk.enrol("a")
    assert (desk.life(first), desk.life(second)) == ("DEAD", "ALIVE")
    assert desk.story(lease.id) == ["submitted", "claimed", "lost"]
    assert desk.status(lease.id) == "QUEUED"
    assert desk.owners() == [second, second]
    silence(desk)
    third, fourth = (
        expect(value, w.WorkerRegistered).worker_id
        for value in desk.entry(w.RegisterWorker(name="a", queues=("q",)), w.RegisterWorker(name="a", queues=("q",)))
    )
    assert [desk.life(one) for one in (second, third, fourth)] == ["DEAD", "DEAD", "ALIVE"]
    assert desk.sql("SELECT worker_id, filled FROM workers WHERE status = 1") == [(first, 1), (second, 1), (third, 1)]
    assert desk.sql("SELECT lost FROM workers") == [(1,), (0,), (0,), (0,)]
    desk.sound()


def test_without_a_name_a_worker_gets_one_that_nobody_has() -> None:
    desk = Desk()
    desk.enrol("worker-2")
    desk.enrol()
    desk.enrol()
    assert desk.sql("SELECT name FROM workers ORDER BY 1") == [("worker-2",), ("worker-2+",), ("worker-3",)]


def test_workers_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKERS_MAX", 2)
    desk = Desk()
    desk.enrol("a")
    desk.enrol("b")
    command = w.RegisterWorker(name="c")
    assert isinstance(desk.outcome(command, "k").value, w.TooManyWorkers)
    desk.enrol("a")
    desk.do(w.RemoveWorker(worker_id=2), w.WorkerGone)
    assert isinstance(desk.outcome(command, "k").value, w.WorkerRegistered)
    desk.sound()


def test_leaving_gives_back_and_is_forgotten_after_a_while() -> None:
    desk = Desk()
    desk.enrol("a")
    lease = desk.run(1)
    assert desk.do(w.RemoveWorker(worker_id=1), w.WorkerGone).released == 1
    assert (desk.life(1), desk.status(lease.id)) == ("LEFT", "QUEUED")
    silence(desk, ms=limits.WORKER_KEPT_MS - 1)
    assert desk.life(1) == "LEFT"
    events = silence(desk, ms=1)
    assert e.WorkerChanged(1) in events
    assert desk.life(1) == "gone"
    for table in ("profiles", "beats", "worker_queues"):
        assert desk.sql(f"SELECT * FROM {table}") == []
    assert desk.machine.next_alarm_ms is None
    assert desk.refused(w.RemoveWorker(worker_id=1)) == "worker_not_found"
    desk.sound()


def test_a_dead_worker_is_forgotten_when_somebody_says_so() -> None:
    desk = Desk()
    for name in ("a", "b"):
        desk.enrol(name)
    desk.enrol("s", standby=True)
    silence(desk, 2, 3)
    assert desk.active() == [2, 3]
    assert desk.do(w.RemoveWorker(worker_id=1), w.WorkerGone).released == 0
    assert (desk.life(1), desk.active()) == ("gone", [2])
    desk.sound()


def test_what_a_worker_is_told() -> None:
    desk = Desk()
    desk.put(partitions=2)
    desk.enrol("a")
    desk.enrol("b")
    assert desk.owners() == [1, 2]
    applied = desk.apply(seal(w.QuietWorker(worker_id=1)))
    assert e.WorkerChanged(1) in applied.events
    assert desk.owners() == [2, 2]
    told = desk.do(w.TerminateWorker(worker_id=1), w.WorkerTold)
    assert told.directive == "terminate"
    assert desk.do(w.QuietWorker(worker_id=1), w.WorkerTold).directive == "quiet"
    assert desk.sql("SELECT quiet, terminate FROM workers ORDER BY worker_id") == [(1, 1), (0, 0)]
    for command in (w.QuietWorker, w.TerminateWorker):
        assert desk.refused(command(worker_id=9)) == "worker_not_found"
    silence(desk, 2)
    assert desk.refused(w.QuietWorker(worker_id=1)) == "worker_not_alive"
    assert desk.sql("SELECT filled FROM workers WHERE worker_id = 1") == [(1,)]  # nobody misses it
    desk.sound()


# -- lost answers -------------------------------------------------------------------------------------------------
def test_a_lease_that_was_granted_to_a_lost_answer_goes_back_at_once() -> None:
    desk = Desk()
    desk.enrol("a")
    for _ in range(4):
        desk.submit()
    held, waited, lost, later = (desk.claim(1, number=number)[0] for number in (1, 2, 3, 4))
    desk.signs = (SignOfLife(1), SignOfLife(1, (held.token,), (2,), 3))
    desk.entry()
    assert [desk.status(lease.id) for lease in (held, waited, lost, later)] == [
        "PROCESSING", "PROCESSING", "QUEUED", "PROCESSING",
    ]  # fmt: skip
    assert desk.story(lost.id) == ["submitted", "claimed", "released"]
    desk.signs = (SignOfLife(1, (), (), 9),)
    desk.entry()
    assert desk.counts() == {"queued": 4}
    desk.signs = (SignOfLife(1, (), (), 9), SignOfLife(2**64 - 1, (2**63,), (), 2**64 - 1))
    desk.entry()
    desk.sound()


def test_a_lease_of_a_claim_without_a_number_is_never_taken_for_lost() -> None:
    desk = Desk()
    desk.enrol("a")
    desk.submit()
    lease = desk.claim(1)[0]
    desk.signs = (SignOfLife(1, (), (), 9), SignOfLife(1, ()))
    desk.entry()
    assert desk.status(lease.id) == "PROCESSING"
    desk.sound()


# -- stand-bys ----------------------------------------------------------------------------------------------------
def test_b14_a_stand_by_works_only_in_the_place_of_one_that_died() -> None:
    desk = Desk()
    desk.enrol("a")
    desk.enrol("s", standby=True)
    desk.enrol("t", standby=True)
    desk.submit()
    assert desk.claim(2) == []
    assert not desk.machine.claimable(c.Claim(worker_id=2))
    events = silence(desk, 2, 3)
    assert e.QueueReady("q") in events
    assert desk.active() == [2]
    assert desk.machine.claimable(c.Claim(worker_id=2))
    assert len(desk.claim(2)) == 1
    assert desk.claim(3) == []
    desk.enrol("b")  # a new worker takes the place
    assert desk.active() == [4]
    desk.sound()


def test_a_stand_by_serves_a_queue_that_nobody_else_serves() -> None:
    desk = Desk()
    desk.enrol("s", standby=True)
    desk.enrol("t", standby=True)
    assert desk.active() == [1]
    desk.submit()
    assert len(desk.claim(1)) == 1
    desk.enrol("a")
    assert desk.active() == [3]
    desk.do(w.RemoveWorker(worker_id=3), w.WorkerGone)
    assert desk.active() == [1]
    desk.sound()


def test_as_many_stand_bys_as_workers_died_and_those_that_come_fill_places_from_the_oldest() -> None:
    desk = Desk()
    for name in "abc":
        desk.enrol(name)
    for name in "stu":
        desk.enrol(name, standby=True)
    silence(desk, 3, 4, 5, 6)
    assert desk.active() == [3, 4, 5]
    desk.enrol("new")
    assert desk.sql("SELECT worker_id FROM workers WHERE status = 1 AND filled = 0") == [(2,)]
    assert desk.active() == [3, 4, 7]
    desk.enrol("b")  # the other one comes back under its name
    assert desk.active() == [3, 7, 8]
    silence(desk, 3, 7, 8)
    assert desk.active() == [3, 7, 8]  # stand-bys that died are not missed
    desk.enrol("elsewhere", "r")
    silence(desk, 3, 7, 8)
    assert desk.active("r") == []
    desk.enrol("more", "q", "r")
    assert desk.sql("SELECT filled FROM workers WHERE name = 'elsewhere'") == [(1,)]
    desk.sound()


def test_what_died_and_was_not_replaced_is_missed_until_it_is_forgotten() -> None:
    desk = Desk()
    desk.enrol("a")
    desk.enrol("b", dead_after_ms=3_600_000)
    desk.enrol("s", standby=True, dead_after_ms=3_600_000)
    silence(desk, 2, 3)
    assert desk.active() == [2, 3]
    for _ in range(25):
        silence(desk, 2, 3, ms=3_500_000)
    assert (desk.life(1), desk.active()) == ("gone", [2])
    desk.sound()


# -- owners -------------------------------------------------------------------------------------------------------
def test_c9_partitions_follow_the_workers_and_no_task_is_done_twice() -> None:
    desk = Desk()
    desk.put(partitions=6)
    assert desk.owners() == [None] * 6
    desk.enrol("a")
    assert desk.owners() == [1] * 6
    lease = desk.run(1)
    desk.enrol("b")
    assert desk.owners() == [1, 1, 1, 2, 2, 2]
    desk.enrol("c")
    assert desk.owners() == [1, 1, 3, 2, 2, 3]
    silence(desk, 1, 3)
    assert desk.owners() == [1, 1, 3, 1, 3, 3]
    assert desk.sql("SELECT epoch FROM owners ORDER BY partition") == [(1,), (1,), (2,), (3,), (3,), (3,)]
    desk.complete(lease)
    silence(desk)
    assert desk.owners() == [None] * 6
    desk.do(q.DeleteQueue(queue="q"), q.QueueDeleted)
    assert desk.sql("SELECT * FROM owners") == []
    desk.sound()


def test_a_queue_that_comes_later_is_dealt_out_to_those_who_wait_for_it() -> None:
    desk = Desk()
    desk.enrol("a", "q", "r", "q")
    desk.enrol("s", standby=True)
    desk.put(partitions=2)
    assert desk.owners() == [1, 1]
    desk.machine.reload()
    desk.submit()
    assert len(desk.claim(1)) == 1
    desk.sound()


# -- bounds -------------------------------------------------------------------------------------------------------
def test_very_many_leases_go_back_with_the_entries_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.enrol("a")
    desk.enrol("b")
    for worker_id in (1, 2):
        desk.do(s.Submit(queue="q", tasks=[new()] * 5), s.Submitted)
        assert len(desk.claim(worker_id, 5)) == 5
    monkeypatch.setattr(limits, "DUE_TASKS_PER_ENTRY", 3)
    silence(desk)
    assert (desk.life(1), desk.life(2), desk.counts()) == ("DEAD", "DEAD", {"queued": 3, "processing": 7})
    left = []
    while desk.due():
        desk.entry()
        left.append(desk.counts().get("processing", 0))
        desk.sound()
    assert left == [4, 1, 0]
    assert desk.sql("SELECT lost FROM workers") == [(5,), (5,)]


def test_very_many_leases_of_a_life_that_was_replaced_are_lost_too(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.enrol("a")
    desk.do(s.Submit(queue="q", tasks=[new()] * 5), s.Submitted)
    assert len(desk.claim(1, 5)) == 5
    monkeypatch.setattr(limits, "DUE_TASKS_PER_ENTRY", 3)
    desk.enrol("a")
    assert (desk.life(1), desk.counts()) == ("DEAD", {"queued": 3, "processing": 2})
    desk.sound()
    desk.entry()
    assert (desk.sql("SELECT lost FROM workers"), desk.counts()) == ([(5,), (0,)], {"queued": 5})
    desk.sound()


def test_nobody_stands_in_for_a_life_that_was_replaced() -> None:
    desk = Desk()
    desk.enrol("a")
    desk.enrol("s", standby=True)
    desk.enrol("a")
    assert desk.active() == [3]
    desk.sound()


def test_a_heartbeat_gives_very_many_leases_back_little_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    for worker_id in (1, 2):
        desk.enrol()
        desk.do(s.Submit(queue="q", tasks=[new()] * 4), s.Submitted)
        assert len(desk.claim(worker_id, 4, number=1)) == 4
    monkeypatch.setattr(limits, "DUE_TASKS_PER_ENTRY", 3)
    left = []
    while desk.counts().get("processing"):
        desk.signs = (SignOfLife(1, (), (), 1), SignOfLife(2, (), (), 1))
        desk.entry()
        left.append(desk.sql("SELECT leases FROM workers"))
        desk.sound()
    assert left == [[(1,), (4,)], [(0,), (2,)], [(0,), (0,)]]


def test_who_has_very_many_leases_left_is_not_forgotten_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.enrol()
    desk.do(s.Submit(queue="q", tasks=[new()] * 8), s.Submitted)
    assert len(desk.claim(1, 8)) == 8
    monkeypatch.setattr(limits, "DUE_TASKS_PER_ENTRY", 3)
    removal = w.RemoveWorker(worker_id=1)
    desk.entry(removal, removal)
    assert (desk.life(1), desk.counts()) == ("LEFT", {"queued": 6, "processing": 2})
    desk.sound()
    desk.entry()  # gives back the rest
    desk.entry(removal)
    assert (desk.refused(removal), desk.counts()) == ("worker_not_found", {"queued": 8})
    desk.sound()


def test_nobody_holds_more_than_a_heartbeat_can_name(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.enrol()
    monkeypatch.setattr(limits, "WORKER_LEASES_MAX", 3)
    desk.do(s.Submit(queue="q", tasks=[new()] * 5), s.Submitted)
    held = [*desk.claim(1, 2), *desk.claim(1, 2)]
    assert len(held) == 3
    claim = c.Claim(worker_id=1)
    assert not desk.machine.claimable(claim)
    assert desk.claim(1) == []
    desk.complete(held[0])
    assert desk.machine.claimable(claim)
    assert len(desk.claim(1, 2)) == 1
    desk.sound()


def test_who_is_forgotten_gives_everything_back_before(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.enrol("a")
    desk.do(s.Submit(queue="q", tasks=[new()] * 5), s.Submitted)
    leases = desk.claim(1, 5)
    monkeypatch.setattr(limits, "DUE_TASKS_PER_ENTRY", 1)
    assert desk.do(w.RemoveWorker(worker_id=1), w.WorkerGone).released == 5
    assert desk.counts() == {"queued": 1, "processing": 4}
    desk.complete(leases[4])
    assert desk.counts() == {"success": 1, "queued": 2, "processing": 2}
    assert desk.do(w.RemoveWorker(worker_id=1), w.WorkerGone).released == 1
    assert (desk.life(1), desk.counts()) == ("gone", {"success": 1, "queued": 4})
    desk.sound()


def test_only_so_many_workers_die_in_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DUE_WORKERS_PER_ENTRY", 2)
    desk = Desk()
    for name in "abc":
        desk.enrol(name)
    silence(desk)
    assert [desk.life(worker_id) for worker_id in (1, 2, 3)] == ["DEAD", "DEAD", "ALIVE"]
    assert desk.due()
    desk.entry()
    assert desk.life(3) == "DEAD"
    desk.sound()


@pytest.mark.parametrize(
    "change",
    [
        {"queues": ()},
        {"queues": ("",)},
        {"queues": ("x" * 201,)},
        {"queues": tuple(map(str, range(101)))},
        {"heartbeat_ms": 0},
        {"dead_after_ms": 2**63 - 1},
        {"dead_after_ms": -1},
        {"pid": 2**64 - 1},
        {"concurrency": 2**63},
    ],
)
def test_what_the_checks_before_the_log_never_let_pass_spoils_the_command(change: dict[str, Any]) -> None:
    desk = Desk()
    command = msgspec.structs.replace(w.RegisterWorker(name="a").sealed(), **change)
    assert desk.refused(command) == "command_failed"
    assert desk.sql("SELECT * FROM workers") == []
    desk.enrol("a")
    desk.sound()


def test_e5_who_led_is_remembered_for_a_bounded_number_of_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEADERS_KEPT", 2)
    desk = Desk()
    for term, node in ((1, ""), (1, "n1"), (1, "n2"), (2, "n2"), (4, "n3"), (5, "n1")):
        desk.term, desk.node = term, node
        desk.entry()
        desk.machine.reload()
    assert desk.sql("SELECT term, node FROM leaders ORDER BY term") == [(4, "n3"), (5, "n1")]
