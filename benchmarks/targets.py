"""What quorl has to reach beside each rival: the table of targets, and whether figures of one run meet them.

A ratio says how many times as fast quorl was: rates by rates, times the other way round. Two targets are absolute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks import report

OURS = "quorl"


class Target(NamedTuple):
    """One row of the table: our figure of a workload beside a rival's, and what it must and should be."""

    workload: str
    figure: str
    must: float
    goal: float
    rival: str = ""
    """Without one, ``must`` and ``goal`` bound the figure itself from above."""
    their_workload: str = ""
    their_figure: str = ""
    goal_s: float | None = None
    """A goal in seconds for our own figure instead of a ratio."""

    @property
    def beside(self) -> str:
        """The rival's workload."""
        return self.their_workload or self.workload


TARGETS = (
    Target("append-batch", "msgs_s", 5, 10, "nats"),
    Target("append-batch", "msgs_s", 2, 3, "redis"),
    Target("append-64", "msgs_s", 1.1, 1.5, "nats"),
    Target("append-sync", "msgs_s", 1, 1.5, "rabbit"),
    Target("append-sync", "msgs_s", 1, 1.5, "etcd"),
    Target("read", "msgs_s", 0.5, 1, "redis", their_figure="xrange_msgs_s"),
    Target("task-cycle", "tasks_s", 1, 2, "nats"),
    Target("task-cycle-acks", "tasks_s", 1, 2, "nats", "task-cycle"),
    Target("task-cycle-32", "tasks_s", 3, 5, "nats", "task-cycle"),
    Target("task-cycle-app", "tasks_s", 5, 20, "celery", "task-cycle"),
    Target("task-cycle", "idle_p50_ms", 0.5, 1, "nats"),
    Target("failover", "median_s", 1, 1, "rabbit", goal_s=0.3),
    Target("memory", "node_mb", 150, 100),
)

Measured = Mapping[tuple[str, str], Mapping[str, Any]]
"""The figures by system and workload."""


def judged(target: Target, measured: Measured) -> report.Row:
    """A target with both figures, the ratio and the verdict: ``goal``, ``must``, ``missed``, or what is missing."""
    ours = _median(measured.get((OURS, target.workload), {}), target.figure)
    theirs = _median(measured.get((target.rival, target.beside), {}), target.their_figure or target.figure)
    row: report.Row = {"workload": target.workload, "figure": target.figure, "rival": target.rival or None}
    row |= {"quorl": ours, "theirs": theirs, "ratio": None, "must": _bound(target, target.must)}
    row |= {"goal": _bound(target, target.goal) if target.goal_s is None else f"{target.goal_s:g} s"}
    if ours is None or (target.rival and theirs is None):
        return row | {"met": "not measured"}
    if not target.rival:
        return row | {"met": _met(must=ours <= target.must, goal=ours <= target.goal)}
    assert theirs is not None
    less_is_more = target.figure.endswith(("_ms", "median_s"))
    if not (ours and theirs):
        return row | {"met": "missed" if not ours and not less_is_more else "not measured"}
    ratio = theirs / ours if less_is_more else ours / theirs
    goal = ratio >= target.goal if target.goal_s is None else ours <= target.goal_s
    return row | {"ratio": round(ratio, 3), "met": _met(must=ratio >= target.must, goal=goal)}


def table(targets: Iterable[Target], measured: Measured) -> str:
    """The table of targets as Markdown."""
    rows = [judged(target, measured) for target in targets]
    for row in rows:
        row["ratio"] = None if row["ratio"] is None else f"{row['ratio']:.2f} x"
    columns = ("workload", "figure", "rival", "quorl", "theirs", "ratio", "must", "goal", "met")
    return report.table(rows, columns)


def _met(*, must: bool, goal: bool) -> str:
    return "goal" if must and goal else "must" if must else "missed"


def _bound(target: Target, bound: float) -> str:
    return f"{bound:g} x" if target.rival else f"{bound:g} MiB"


def _median(figures: Mapping[str, Any], name: str) -> float | None:
    value = figures.get(name)
    return value if isinstance(value, int | float) else None
