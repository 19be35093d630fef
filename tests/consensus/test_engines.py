"""The hand-cranked group itself: what it does without faults, so that tests with faults can be trusted."""

from __future__ import annotations

import pytest

from quorl.cluster.consensus.port import Timing
from tests.consensus.engines import Group, acknowledged


async def test_a_group_founds_writes_and_agrees() -> None:
    group = Group()
    leader = group.found("b")
    futures = group.write(leader, b"one", b"two")
    assert acknowledged(futures) == [b"one", b"two"]
    assert {m.name: m.payloads for m in group.alive()} == {name: [b"base", b"one", b"two"] for name in "abc"}
    group.run(3.0)
    assert group.leaders() == ["b"]


async def test_a_group_elects_by_itself_and_survives_restarts() -> None:
    group = Group("abcde")
    group.boot()
    group.connect()
    group.run(3.0)
    (name,) = group.leaders()
    group.write(group[name], b"found", b"one")
    group.kill(*"abcde", power=True)
    group.boot()
    group.connect()
    group.run(3.0)
    (name,) = group.leaders()
    group.run(0.3)
    assert {m.name: m.payloads for m in group.alive()} == {name: [b"one"] for name in "abcde"}


@pytest.mark.parametrize(("election_ms", "heartbeat_ms"), [((300, 600), 100), ((150, 151), 50), ((210, 300), 70)])
async def test_d1_the_least_patience_that_a_config_may_have_is_enough(
    election_ms: tuple[int, int], heartbeat_ms: int
) -> None:
    low, high = election_ms
    group = Group(timing=Timing(low / 1000, high / 1000, heartbeat_ms / 1000, 1.0))
    group.found("b")
    group.run(3.0)
    assert len(group.leaders()) == 1
