"""A share of seeds, the seeds that once failed, and the claim on which all of them rest: a seed replays exactly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.scenario import Load, load_of, play, play_drawn

FRESH_FIRST, FRESH_CHUNKS, FRESH_PER_CHUNK = 10_000, 15, 15

ONCE_FAILED = {
    0: "an emptied disk could not fetch a snapshot: the call named the cluster of a state that it did not have",
    3: "a graceful stop on a full disk ended by an exception",
    7: "an emptied member pulled one snapshot after the other",
    20: "a follower with a full disk and its leader answered each other in growing numbers",
    110: "a follower that was paused after the leader's yes said that nothing had happened",
    1281: "a late copy of an empty consume took messages that nobody got",
    2035: "with a full disk, a member did not note that its disk had been emptied, and went on",
    3192: "two members that were behind took each other's snapshot away, again and again",
    3637: "the same, with partitions",
    10_113: "a read that ran while its node left met a closed database",
    10_218: "a node that had left was still taken for the leader",
    2367: "waiters were woken in the order of their addresses, and the seed did not replay",
}
ONCE_FAILED_TASKS = {
    20_164: "cluster time ran while nobody but members that were behind answered the leader",
    2_026_112_885: "the simulation's own fault: a coin let its workers give a task back twelve times after healing",
}
"""Seeds by what they found. A change of the simulation makes other stories of them; they stay, as good as any."""


@pytest.mark.parametrize("chunk", range(FRESH_CHUNKS))
def test_no_promise_is_broken_under_faults(chunk: int) -> None:
    first = FRESH_FIRST + chunk * FRESH_PER_CHUNK
    verdicts = [play_drawn(seed) for seed in range(first, first + FRESH_PER_CHUNK)]
    assert {v.seed: v.problems for v in verdicts if v.problems} == {}
    # A simulation in which nothing happens breaks no promise either.
    topics = sum(load_of(v.seed) != "tasks" for v in verdicts)
    assert sum(v.acknowledged for v in verdicts) > 100 * topics
    assert sum(v.looks for v in verdicts) > 10 * topics
    assert sum(v.consumed for v in verdicts) > 100 * topics
    tasks = sum(load_of(v.seed) != "topics" for v in verdicts)
    tally = sum((Counter(v.tally) for v in verdicts), Counter())
    assert min(topics, tasks) > FRESH_PER_CHUNK // 4
    assert tally["created tasks"] > 15 * tasks
    assert tally["leases"] > 20 * tasks
    assert tally["success"] > 5 * tasks
    assert tally["looks at tasks"] > 20 * tasks
    for rare in ("failed", "dead workers", "replaced workers", "lost leases", "freezes", "crashes"):
        assert tally[rare] > 0, rare
    assert sum(v.leaders for v in verdicts) > 2 * FRESH_PER_CHUNK
    assert sum(v.snapshots for v in verdicts) > topics // 5


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_what_failed_once_does_not_fail_again(seed: int) -> None:
    assert play(seed).problems == []


@pytest.mark.parametrize("seed", ONCE_FAILED_TASKS)
def test_what_failed_once_with_tasks_does_not_fail_again(seed: int) -> None:
    assert play(seed, load="tasks").problems == []


@pytest.mark.parametrize(("seed", "load"), [(1, "topics"), (8, "both"), (2367, "topics"), (4, "tasks")])
def test_a_seed_replays_exactly_also_in_another_process(seed: int, load: Load) -> None:
    here = play(seed, load=load)
    assert play(seed, load=load) == here
    code = f"from tests.simulation.scenario import play; print(play({seed}, load={load!r}).digest)"
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert there.stdout.strip() == here.digest
