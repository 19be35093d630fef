"""Counting: buckets as Prometheus wants them, and what of an entry is counted."""

from __future__ import annotations

from quorl.cluster.machine import events as e
from quorl.cluster.node.meters import Histogram, Meters


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 2.0, 3.0):
        histogram.observe(seconds)
    assert histogram.cumulated() == [("0.1", 2.0), ("1.0", 3.0), ("+Inf", 5.0)]
    assert histogram.sum_s == 5.65


def test_calls_that_wait_are_counted_and_not_timed() -> None:
    meters = Meters()
    meters.called("claim", 200, None)
    meters.called("claim", 200, 0.2)
    meters.called("claim", 404, 0.2)
    assert meters.calls == {("claim", 200): 2, ("claim", 404): 1}
    assert sum(meters.call_s["claim"].counts) == 2


def test_of_an_entry_that_failed_only_the_failure_counts() -> None:
    meters = Meters()
    meters.decided(3, 0.01, failed=False)
    meters.decided(9, 9.0, failed=True)
    assert (meters.entries, meters.entries_failed, meters.commands) == (2, 1, 3)
    assert sum(meters.entry_s.counts) == 1


def test_what_entries_did_to_tasks_is_counted() -> None:
    meters = Meters()
    meters.applied([e.TasksStarted((10, 2000)), e.RunsSucceeded((40,)), e.LeaseLost(), e.TasksChanged(("t",))])
    assert (sum(meters.wait_s.counts), sum(meters.run_s.counts), meters.leases_lost) == (2, 1, 1)
    assert meters.run_s.sum_s == 0.04
