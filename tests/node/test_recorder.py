"""The seconds as one node saw them: what happened, at what rate, and nothing that did not happen."""

from __future__ import annotations

import pytest

from quorl.cluster.machine.events import Appended, QueueCounted, TasksChanged
from quorl.cluster.node.recorder import Rates, Recorder
from quorl.cluster.protocol import limits


class Clock:
    def __init__(self) -> None:
        self.now = 1000.25

    def __call__(self) -> float:
        return self.now


def tally(submitted: int = 0, succeeded: int = 0, waiting: int = 0, running: int = 0) -> tuple[int, ...]:
    return (submitted, 0, succeeded, 0, 0, 0, waiting, running)


def test_a_second_is_told_once_it_is_over() -> None:
    clock = Clock()
    recorder = Recorder(clock)
    recorder.applied([QueueCounted("q", tally(5), tally(7, waiting=2)), TasksChanged(("x",))])
    recorder.applied(
        [QueueCounted("q", tally(7, waiting=2), tally(8, 1, waiting=1, running=1)), Appended("t", 0, 9, 4)]
    )
    assert recorder.counts("q", None)[0].submitted == []
    clock.now += 1
    counts, ago_ms = recorder.counts("q", None)
    assert (counts.submitted, counts.succeeded, counts.waiting, counts.running, ago_ms) == ([3], [1], [1], [1], 250)
    clock.now += 2
    counts, _ = recorder.counts("q", None)
    assert (counts.submitted, counts.waiting) == ([3, 0, 0], [1, 1, 1])
    assert recorder.counts(None, "t")[0].appended == [4, 0, 0]
    everything = recorder.counts(None, None)[0]
    assert (everything.submitted, everything.appended, everything.waiting) == ([3, 0, 0], [4, 0, 0], [1, 1, 1])
    assert recorder.counts("unheard", None)[0].submitted == [0, 0, 0]


def test_a_rate_is_an_average_over_ten_seconds_or_since_the_start() -> None:
    clock = Clock()
    recorder = Recorder(clock)
    assert recorder.rates() == Rates()
    recorder.applied([QueueCounted("q", tally(), tally(30)), Appended("t", 0, 9, 60)])
    assert recorder.rates(queue="q") == Rates()
    clock.now += 3
    assert recorder.rates(queue="q").submitted == 10
    assert (recorder.rates(topic="t").appended, recorder.rates().appended) == (20, 20)
    assert recorder.rates(queue="unheard") == Rates()
    clock.now += 7
    assert recorder.rates().submitted == 3
    clock.now += 1
    assert recorder.rates().submitted == 0


def test_what_waits_and_runs_is_known_from_the_beginning() -> None:
    clock = Clock()
    recorder = Recorder(clock)
    recorder.begin(40, 3)
    recorder.applied([QueueCounted("q", tally(waiting=9), tally(waiting=10))])
    clock.now += 1
    counts, _ = recorder.counts(None, None)
    assert (counts.waiting, counts.running) == ([41], [3])


def test_ten_minutes_are_kept_also_after_a_long_silence() -> None:
    clock = Clock()
    recorder = Recorder(clock)
    for number in range(limits.RECORDED_S + 5):
        recorder.applied([QueueCounted("q", tally(), tally(number, waiting=number))])
        clock.now += 1
    counts, _ = recorder.counts("q", None)
    assert counts.submitted == list(range(5, limits.RECORDED_S + 5))
    clock.now += 5 * limits.RECORDED_S
    counts, _ = recorder.counts("q", None)
    assert (set(counts.submitted), set(counts.waiting)) == ({0}, {limits.RECORDED_S + 4})


def test_of_too_many_queues_those_that_changed_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECORDED_SERIES_MAX", 2)
    clock = Clock()
    recorder = Recorder(clock)
    for name in ("a", "b", "a", "c"):
        recorder.applied([QueueCounted(name, tally(), tally(1))])
        clock.now += 1
    told = {name: sum(recorder.counts(name, None)[0].submitted) for name in "abc"}
    assert told == {"a": 2, "b": 0, "c": 1}
    assert sum(recorder.counts(None, None)[0].submitted) == 4
