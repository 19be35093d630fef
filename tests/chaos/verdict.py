"""What must hold after any fault: every acknowledged message there once, in order, at every node, and nothing else changed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.chaos.load import PARTITIONS, TOPIC, Load
from tests.harness import LocalCluster, converge, stored

ACKNOWLEDGED_MIN = 100
"""Fewer, and the faults have met nobody."""


def judge(cluster: LocalCluster, load: Load) -> None:
    """Stop the clients, wait for the nodes to agree, and compare every node's own copy with the history."""
    load.stop()
    sequence = converge(cluster)
    copies = {
        name: [stored(node, TOPIC, partition) for partition in range(PARTITIONS)]
        for name, node in cluster.nodes.items()
    }
    first, *others = copies.values()
    assert all(copy == first for copy in others), "the nodes hold different messages"
    check_history(first, load)
    assert not load.stale, load.stale
    assert len(load.acknowledged) >= ACKNOWLEDGED_MIN, "hardly anything was acknowledged"
    print(
        f"{len(load.acknowledged)} acknowledged, {len(load.refused)} refused, {load.repeats} repeats, "
        f"{sequence} entries, longest gap {load.longest_gap_s:.2f} s"
    )


def check_history(copy: list[list[Any]], load: Load) -> None:
    """Compare one copy, by partition, with what the clients were told."""
    for partition, messages in enumerate(copy):
        assert [m.offset for m in messages] == list(range(len(messages))), f"partition {partition} has holes"
        times = [m.created_at for m in messages]
        assert times == sorted(times), "the time of creation runs backwards"
    missing = [a for a in load.acknowledged if not _is_there(copy, a.partition, a.offset, a.value)]
    assert not missing, f"acknowledged and lost: {missing[:10]}"
    values = Counter(m.value for messages in copy for m in messages)
    doubled = [value for value, times in values.items() if times > 1]
    assert not doubled, f"stored twice: {doubled[:10]}"
    told = {a.value for a in load.acknowledged}
    assert len(told) == len(load.acknowledged)
    assert set(values) == told, f"stored, though no client was told so: {sorted(set(values) - told)[:10]}"
    assert not told & set(load.refused), "stored, though a client was told that it was refused"
    for messages in copy:
        overtaken = _overtaken([m.value for m in messages])
        assert not overtaken, f"out of order: {overtaken[:10]}"
    for partition, messages in enumerate(copy):
        read = [offset for where, offset in load.consumed if where == partition]
        assert read == list(range(len(messages))), f"the consumer skipped or repeated in partition {partition}"


def _is_there(copy: list[list[Any]], partition: int, offset: int, value: str) -> bool:
    messages = copy[partition]
    return offset < len(messages) and messages[offset].value == value


def _overtaken(values: list[str]) -> list[str]:
    latest: dict[str, int] = {}
    overtaken = []
    for value in values:
        writer, _, number = value.partition(" #")
        if int(number) <= latest.get(writer, -1):
            overtaken.append(value)
        latest[writer] = int(number)
    return overtaken
