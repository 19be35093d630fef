"""What a node remembers of the last minutes: bounded, true to a few percent, and forgotten in time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from quorl.cluster.machine.events import RunsSucceeded, TasksStarted, WorkerHeard
from quorl.cluster.node.lately import Durations, Timelines, percentile, rounded_up

NOW_MS = 1_700_000_005_000


@given(some.integers(0, 10**12))
def test_durations_are_rounded_up_by_less_than_a_32nd(ms: int) -> None:
    assert ms <= rounded_up(ms) <= ms + ms / 32
    assert rounded_up(rounded_up(ms)) == rounded_up(ms)


def test_a_calendar_that_was_set_back_makes_no_negative_durations() -> None:
    assert [rounded_up(ms) for ms in (-1, -10_000, 0, 63, 64, 65)] == [0, 0, 0, 63, 64, 66]


@given(some.lists(some.integers(0, 500), min_size=1), some.integers(1, 100))
def test_percentiles_are_those_of_the_sorted_list(values: list[int], percent: int) -> None:
    at = -(-len(values) * percent // 100) - 1
    assert percentile(Counter(values), percent) == sorted(values)[at]


def test_a_minute_is_kept_however_much_happens_in_it() -> None:
    now = [10.0]
    durations = Durations(lambda: now[0])
    for second in range(300):
        now[0] = 10.0 + second
        durations.applied([TasksStarted(tuple(range(0, 100_000, 97))), RunsSucceeded((second,))])
    assert len(durations._seconds) == 60
    assert max(len(second.waits) for second in durations._seconds) < 500
    found = durations.latency()
    assert (found.succeeded, found.run_p50_ms) == (60, 272)
    assert found.wait_p50_ms == pytest.approx(50_000, rel=1 / 32)
    now[0] += 60
    assert durations.latency().started == 0


def test_of_each_cell_as_many_beats_as_were_heard_or_are_replicated() -> None:
    lines = Timelines()
    replicated = "0" * 59 + "2"
    assert lines.beats(1, replicated, NOW_MS) == replicated
    lines.applied([WorkerHeard(1, NOW_MS), WorkerHeard(1, NOW_MS - 30_000), WorkerHeard(1, NOW_MS - 700_000)])
    assert lines.beats(1, replicated, NOW_MS) == "0" * 56 + "1002"
    lines.applied([WorkerHeard(1, NOW_MS + 10_000)] * 20)
    assert lines.beats(1, "0" * 60, NOW_MS + 20_000) == "0" * 54 + "100190"
    assert lines.beats(1, "0" * 60, NOW_MS + 2_000_000) == "0" * 60


def test_who_was_not_heard_for_ten_minutes_is_forgotten() -> None:
    lines = Timelines()
    lines.applied([WorkerHeard(number, NOW_MS) for number in range(5)])
    lines.applied([WorkerHeard(3, NOW_MS + 300_000)])
    lines.applied([WorkerHeard(9, NOW_MS + 601_000)])
    assert sorted(lines._lines) == [3, 9]
