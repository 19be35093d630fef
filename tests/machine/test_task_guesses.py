"""Which task was perhaps meant by an id that none has: shortened as workers print it, or with a slip in it."""

from __future__ import annotations

import pytest

from quorl.client.worker_lines import short
from quorl.cluster.machine import guessing, ids
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from tests.machine.desk import Desk, new
from tests.machine.rows import Rows

GIVEN = "0d5ef6a4-5b0c-4f53-9a53-21c77dbe17a8"


def submitted(desk: Desk, *tasks: s.NewTask) -> list[str]:
    return [item.id for item in desk.do(s.Submit(queue="q", tasks=list(tasks)), s.Submitted).items]


def told(desk: Desk, task_id: str) -> str:
    return desk.ask(k.GetTask(id=task_id), k.TaskNotFound).detail


def meant(desk: Desk, task_id: str) -> str | None:
    _, found, guess = told(desk, task_id).partition(' Did you mean "')
    return guess.removesuffix('"?') if found else None


def slip(task_id: str, place: int) -> str:
    digit = "1" if task_id[place] != "1" else "2"
    return task_id[:place] + digit + task_id[place + 1 :]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_shortened_id_is_told_which_task_has_it(desk: Desk) -> None:
    made, given, bare = submitted(desk, new(), new(id=GIVEN), new(id="order-17"))
    for whole in (made, given):
        assert meant(desk, short(whole)) == whole
        assert meant(desk, short(whole).replace("…", "...")) == whole
        for ask in (k.GetResult, k.GetTaskEvents, k.GetTaskWhy):
            assert desk.ask(ask(id=short(whole)), k.TaskNotFound).detail.endswith(f'Did you mean "{whole}"?')
    assert short(bare) == bare, "what is not shortened is found as it is"


@pytest.mark.parametrize("other", ["00000000…000001", "0d5ef6a4…000000", "01234567…ffffff", "01234567…zzzzzz"])
def test_a_shortened_id_that_no_task_has_is_said_to_be_shortened(desk: Desk, other: str) -> None:
    submitted(desk, new(), new(id=GIVEN))
    assert told(desk, other).endswith(
        " It is shortened, as workers print ids, and no task was found that has one like it."
    )


def test_a_shortened_id_is_found_among_many_that_begin_alike(desk: Desk) -> None:
    many = [f"{GIVEN[:24]}{number:012x}" for number in range(100)]
    submitted(desk, *(new(id=one) for one in many))
    assert [meant(desk, short(one)) for one in (many[0], many[50], many[99])] == [many[0], many[50], many[99]]


def test_the_last_digits_of_an_ordinal_come_again() -> None:
    rows = Rows()
    rows.queue()
    rows.task(ordinal=7, given_id=None)
    rows.task(ordinal=7 + (5 << 24), given_id=None, created_ms=1_800_000_000_000)
    rows.connection.execute("UPDATE machine SET next_ordinal = ?", ((6 << 24) + 8,))
    (whole,) = rows.connection.execute(f"SELECT {ids.of('t')} FROM tasks t WHERE ordinal > 7").fetchone()
    assert guessing.meant_task(rows.connection, short(whole)) == f' Did you mean "{whole}"?'


def test_a_slip_anywhere_in_an_id_is_guessed(desk: Desk) -> None:
    (made,) = submitted(desk, new())
    for place, char in enumerate(made):
        if char != "-":
            assert meant(desk, slip(made, place)) == made, place
    for typed in (made.upper(), made[1:], f"{made[:4]}0{made[4:]}", made[:5] + made[6] + made[5] + made[7:]):
        assert meant(desk, typed) == made
    assert meant(desk, slip(slip(made, 0), 20)) is None


def test_a_task_that_may_have_been_forgotten_is_not_taken_for_another_of_its_batch(desk: Desk) -> None:
    _, second, third = submitted(desk, new(), new(), new())
    desk.do(k.CancelTask(id=second), k.Cancelled)
    desk.do(k.ForgetTask(id=second), k.TaskForgotten)
    assert meant(desk, second) is None
    assert meant(desk, slip(second, 30)) is None, "that may be one for either of the others"
    assert meant(desk, slip(third, 2)) == third


def test_a_slip_that_leads_to_another_task_is_guessed_too(desk: Desk) -> None:
    (first,) = submitted(desk, new())
    desk.after(1 << 20)
    (second,) = submitted(desk, new())
    assert meant(desk, first[:-12] + second[-12:]) == first


def test_ids_that_came_with_their_tasks_are_not_guessed(desk: Desk) -> None:
    submitted(desk, new(id=GIVEN), new(id="order-16"))
    assert meant(desk, "order-17") is None
    assert meant(desk, slip(GIVEN, 0)) is None
