"""Tasks that are handed out in the entry in which they come: written once, and as if each command had been an entry's only one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from quorl.cluster.machine import arriving, claiming
from quorl.cluster.machine.check import check
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol.grammar import Command
from tests.machine.desk import Desk, expect, new
from tests.machine.test_waiting import statements

SEEDS, ENTRIES = 40, 40


def submit(*tasks: s.NewTask, queue: str = "q") -> s.SubmitBatch:
    return s.Submit(queue=queue, tasks=list(tasks)).sealed()


def seats(*workers: int, most: int = 1) -> g.ClaimBatch:
    return g.ClaimBatch(claims=tuple([g.Seat(worker, (), most, 1, at=at) for at, worker in enumerate(workers)]))


@pytest.fixture
def desk() -> Desk:
    desk = Desk(first_way=None)
    for _ in range(4):
        desk.enrol()
    desk.submit()
    desk.claim(1)  # the queue is there, and empty
    return desk


def granted(desk: Desk, *commands: Command[Any]) -> list[int]:
    """The ordinals that the last of the commands hands out, counted from the first that is new."""
    before = desk.machine._state.header.next_ordinal
    *_, last = desk.entry(*commands)
    desk.sound()
    return [grant.ordinal - before for grant in expect(last, c.Granted).grants]


def test_tasks_that_meet_waiting_claims_are_written_once(desk: Desk) -> None:
    commands: list[Command[Any]] = [submit(*[new() for _ in range(3)]), seats(1, 2), c.Claim(worker_id=3, max=5)]
    asked = statements(desk, *commands, words=3)
    assert asked.count("INSERT INTO tasks") == 2  # of two and one rows
    assert [one for one in asked if one.startswith(("UPDATE tasks", "SELECT rank,"))] == []
    rows = desk.sql("SELECT ordinal, state, token, worker_id, worker, leases, claim FROM tasks WHERE ordinal > 1")
    names = dict(desk.sql("SELECT worker_id, name FROM workers"))
    assert rows == [(2, 2, 2, 1, names[1], 1, 1), (3, 2, 3, 2, names[2], 1, 1), (4, 2, 4, 3, names[3], 1, 0)]
    desk.sound()


def test_claims_of_one_command_read_together_what_waits(desk: Desk) -> None:
    for _ in range(5):
        desk.submit()
    desk.submit(priority=9)
    asked = statements(desk, seats(1, 2, 3, 4))
    assert sum(one.startswith("SELECT rank") for one in asked) == 1
    assert desk.sql("SELECT ordinal, worker_id FROM tasks WHERE state = 2 ORDER BY token") == [
        *[(1, 1), (7, 1)],
        *[(2, 2), (3, 3), (4, 4)],
    ]
    desk.sound()


def test_claims_that_read_together_go_on_behind_what_was_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "_AHEAD_MAX", 2)
    options: list[dict[str, Any]] = [{}, {"expires_ms": 5}, *[{}] * 4]
    tasks = [desk.submit(**some) for some in options]
    desk.now_ms += 6
    desk.entry(seats(1, 2, 3, 4))
    assert [desk.status(task).split()[0] for task in tasks] == ["PROCESSING", "EXPIRED", *["PROCESSING"] * 3, "QUEUED"]
    desk.sound()


def test_an_older_task_goes_first(desk: Desk) -> None:
    desk.submit()
    assert granted(desk, submit(new(), new()), c.Claim(worker_id=1, max=2)) == [-1, 0]


def test_the_more_urgent_goes_first_though_it_comes_last(desk: Desk) -> None:
    commands = submit(new(), new(priority=1)), submit(new(priority=9)), c.Claim(worker_id=1, max=2)
    assert granted(desk, *commands) == [2, 0]


def test_those_that_differ_in_other_things_go_as_they_came(desk: Desk) -> None:
    tasks = new(), new(id="mine", timeout_ms=70), new("other", max_attempts=9)
    assert granted(desk, submit(*tasks), c.Claim(worker_id=1, max=9)) == [0, 1, 2]
    (row,) = desk.sql("SELECT alarm_ms, timeout_ms FROM tasks WHERE given_id = 'mine'")
    assert row == (desk.now_ms + 70, 70)


def test_what_is_not_due_is_not_handed_out(desk: Desk) -> None:
    assert granted(desk, submit(new(delay_ms=5), new()), c.Claim(worker_id=1, max=9)) == [1]


def test_a_task_that_may_expire_does_so_no_more_once_it_is_handed_out(desk: Desk) -> None:
    assert granted(desk, submit(new(expires_ms=5), new()), c.Claim(worker_id=1, max=1)) == [0]
    assert desk.sql("SELECT state, alarm_ms, expiry_ms FROM tasks WHERE ordinal = 2") == [(2, None, None)]
    desk.after(6)
    assert desk.counts() == {"processing": 2, "queued": 1}


def test_only_the_owner_of_its_partition_is_handed_a_task(desk: Desk) -> None:
    desk.put("parts", partitions=2)
    one, other = desk.enrol("one", "parts"), desk.enrol("other", "parts")
    some = submit(*[new(key=key) for key in "abcdef"], queue="parts")
    first, second = c.Claim(worker_id=one, max=9), c.Claim(worker_id=other, max=9)
    _, *shares = desk.entry(some, first, second)
    mine, theirs = ({grant.ordinal for grant in expect(share, c.Granted).grants} for share in shares)
    assert mine.isdisjoint(theirs)
    assert len(mine | theirs) == 6
    for worker, ordinals in ((one, mine), (other, theirs)):
        owned = {partition for partition, owner in enumerate(desk.owners("parts")) if owner == worker}
        assert {desk.sql("SELECT partition FROM tasks WHERE ordinal = ?", one)[0][0] for one in ordinals} <= owned
    desk.sound()


def test_of_many_kinds_the_first_is_handed_out_all_the_same(desk: Desk) -> None:
    kinds = [new(f"n{number}") for number in range(arriving._KINDS_MAX + 1)]
    assert granted(desk, submit(*kinds), c.Claim(worker_id=1, max=2)) == [0, 1]


def test_no_more_bytes_are_handed_out_than_a_claim_may_have(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    large = [new(args=msgspec.Raw(b'["%s"]' % (b"x" * 100))) for _ in range(4)]
    monkeypatch.setattr(limits, "CLAIM_BYTES_MAX", 200)
    assert granted(desk, submit(*large), c.Claim(worker_id=1, max=9)) == [0]
    assert granted(desk, c.Claim(worker_id=2, max=9)) == [-3]


def test_a_paused_queue_keeps_what_comes(desk: Desk) -> None:
    desk.patch(paused=True)
    assert granted(desk, submit(new()), c.Claim(worker_id=1)) == []
    desk.patch(paused=False)
    assert granted(desk, submit(new()), c.Claim(worker_id=1, max=9)) == [-1, 0]


def test_whoever_reads_a_task_that_has_just_been_handed_out_finds_it_running(desk: Desk) -> None:
    token = desk.machine._state.header.next_token
    values = desk.entry(
        submit(new(id="a"), new(id="b"), new(id="c")),
        c.Claim(worker_id=1, max=2),
        submit(new(id="a")),
        c.Complete(id="a", lease=token, result=b"1"),
        k.CancelTask(id="b"),
        k.CancelTask(id="c"),
        c.Claim(worker_id=2, max=9),
    )
    assert expect(values[2], s.Submitted).items[0].status == "PROCESSING"
    assert expect(values[3], k.TaskStatus).status == "SUCCESS"
    assert [expect(value, k.Cancelled).status for value in values[4:6]] == ["PROCESSING", "CANCELLED"]
    assert expect(values[6], c.Granted).grants == []
    desk.sound()


def test_a_task_is_done_in_the_entry_in_which_it_came(desk: Desk) -> None:
    ordinal, token = (getattr(desk.machine._state.header, name) for name in ("next_ordinal", "next_token"))
    desk.entry(submit(new(id="a")), c.Claim(worker_id=1), c.Complete(id="a", lease=token, result=b"1"))
    assert desk.sql("SELECT state, attempts, leases FROM tasks WHERE ordinal = ?", ordinal) == [(4, 1, 1)]
    desk.sound()


class Drawn:
    """Submits and claims that meet in an entry, and little else between them."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def entry(self, desk: Desk) -> list[Command[Any]]:
        return [self._command(desk) for _ in range(self._dice.randint(1, 6))]

    def _command(self, desk: Desk) -> Command[Any]:
        dice = self._dice
        workers = [dice.randint(1, 4) for _ in range(dice.randint(1, 4))]
        leases = [*desk.machine._state.leases.items()]
        token, lease = dice.choice(leases) if leases else (1, None)
        task_id = "none" if lease is None else lease.id
        made: list[Command[Any]] = [
            *[submit(*[self._task() for _ in range(dice.randint(1, 5))], queue=dice.choice("qqr"))] * 4,
            *[seats(*workers, most=dice.randint(1, 3))] * 3,
            *[c.Claim(worker_id=workers[0], max=dice.randint(1, 9), queues=dice.choice([(), ("r", "q")]))] * 3,
            *[c.Complete(id=task_id, lease=token, result=b"1")] * 3,
            c.FailTask(id=task_id, lease=token),
            c.ReleaseTask(id=task_id, lease=token),
            k.CancelTask(id=f"task{dice.randrange(6)}"),
            k.ForgetTask(id=f"task{dice.randrange(6)}"),
            q.PatchQueue(queue="q", paused=dice.random() < 0.2),
            q.PatchQueue(queue="nowhere", paused=True),
        ]
        return dice.choice(made)

    def _task(self) -> s.NewTask:
        dice = self._dice
        if dice.random() < 0.6:
            return new()
        options: list[dict[str, Any]] = [
            {"priority": dice.randrange(10)},
            {"timeout_ms": dice.choice([20, 50])},
            {"delay_ms": 20},
            {"expires_ms": 20},
            {"id": f"task{dice.randrange(6)}"},
            {"max_attempts": 1},
            {"backoff": q.Backoff(kind="fixed", first_ms=10)},
        ]
        return new(dice.choice(["add", "mail"]), **dice.choice(options))


def read_anew(*of: Any, ready: Callable[..., Any] = claiming._ready) -> Any:
    """Every claim reads for itself."""
    *_, shared = of
    shared.ready.clear()
    return ready(*of)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_d5_rows_are_as_if_they_had_been_written_before_they_were_handed_out(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(seed)
    desk, plain = Desk(first_way=None), Desk(first_way=None)
    for one in (desk, plain):
        one.put("q")
        one.put("r", max_depth=9)
        for _ in range(4):
            one.enrol("", "q", "r")
    monkeypatch.setattr(claiming, "_AHEAD_MAX", dice.choice([2, claiming._AHEAD_MAX]))
    drawn, handed = Drawn(dice), 0
    for _ in range(ENTRIES):
        later_ms, commands = dice.choice([0, 0, 5, 30]), drawn.entry(desk)
        with monkeypatch.context() as patch:
            patch.setattr(arriving, "all_queued", lambda state, queue: [])
            patch.setattr(claiming, "_ready", read_anew)
            wanted = plain.after(later_ms, *commands)
        before = desk.machine._state.header.next_ordinal
        assert desk.after(later_ms, *commands) == wanted
        handed += len(desk.sql("SELECT 1 FROM tasks WHERE ordinal >= ? AND leases > 0", before))
        assert desk.machine.digest == plain.machine.digest
        assert content_digest(desk.connection) == content_digest(plain.connection)
    assert handed
    assert not check(desk.connection)
