"""Shares of partitions: even, and no more of them move than that takes."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from quorl.cluster.machine.ownership import shares
from tests.machine.desk import Desk

workers = st.lists(st.integers(1, 12), unique=True, max_size=8).map(sorted)
owners: st.SearchStrategy[list[int | None]] = st.lists(st.one_of(st.none(), st.integers(1, 12)), max_size=20)


@given(owners, workers)
def test_shares_are_even_and_as_little_moves_as_can_be(before: list[int | None], active: list[int]) -> None:
    after = shares(before, active)
    assert len(after) == len(before)
    if not active:
        assert after == [None] * len(before)
        return
    counts = [after.count(worker) for worker in active]
    assert sum(counts) == len(before)
    assert max(counts) - min(counts) <= 1
    share, larger = divmod(len(before), len(active))
    held = sorted((before.count(worker) for worker in active), reverse=True)
    staying = sum(min(count, share + (place < larger)) for place, count in enumerate(held))
    assert sum(old == new for old, new in zip(before, after, strict=True)) == staying
    assert shares(after, active) == after


def test_ties_go_to_the_lower_id() -> None:
    assert shares([None] * 5, [3, 7]) == [3, 3, 3, 7, 7]
    assert shares([7, 7, 7, 7, 7], [3, 7]) == [7, 7, 7, 3, 3]


def test_who_comes_or_goes_among_very_many_costs_no_look_at_the_others() -> None:
    desk = Desk(first_way=None)
    desk.put("p", partitions=2)
    for _ in range(40):
        desk.enrol("", "q", "r", "s")
    desk.enrol("s", "q", standby=True)
    few = _steps(desk, lambda: desk.enrol("", "q", "r", "s"))
    for _ in range(400):
        desk.enrol("", "q", "r", "s")
    many = _steps(desk, lambda: desk.enrol("", "q", "r", "s"))
    assert many < few + 400 * 5  # that is to count who is alive; a look at each in each queue takes more
    desk.sound()


def test_a_name_that_very_many_have_had_costs_no_look_at_them() -> None:
    desk = Desk(first_way=None)
    desk.enrol("a")
    few = _steps(desk, lambda: desk.enrol("a"))
    for _ in range(300):
        desk.enrol("a")
    assert _steps(desk, lambda: desk.enrol("a")) < few + 100


def _steps(desk: Desk, work: Callable[[], object]) -> int:
    """How many steps of SQLite's machine something takes."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    desk.connection.set_progress_handler(step, 1)
    work()
    desk.connection.set_progress_handler(None, 1)
    return steps
