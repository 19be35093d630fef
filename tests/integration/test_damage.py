"""A disk that gives back other than what was written: the node says so and stays down, the others serve, nothing is lost. D5."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorl.client import Client
from tests.harness import LocalCluster, LocalNode, cluster_in, converge, data_dir, stored, until

TEXT = "x" * 2000


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Its logs are shortened often, so that the state of a node cannot be made from them."""
    with cluster_in(tmp_path / "cluster", sections={"raft": {"snapshot_every": 20}}) as cluster:
        yield cluster


def fill(cluster: LocalCluster, first: int, count: int) -> None:
    with Client(cluster.urls, timeout_s=60) as client:
        for number in range(first, first + count):
            client.topic("t").append(f"{number} {TEXT}")


def a_follower(cluster: LocalCluster) -> LocalNode:
    leader = cluster.leader()
    return next(node for node in cluster.nodes.values() if node.name != leader)


def state_of(node: LocalNode) -> Path:
    return data_dir(node) / "state.db"


def refilled_by_the_others(cluster: LocalCluster, node: LocalNode, count: int) -> None:
    """What the refusal and docs/operating.md advise."""
    data_dir(node).rename(data_dir(node).with_name("moved away"))
    cluster.start()
    converge(cluster)
    for one in cluster.nodes.values():
        assert [str(message.value).split()[0] for message in stored(one, "t")] == [str(n) for n in range(count)]


def test_d5_a_state_that_was_cut_to_half_is_refused_and_filled_again_by_the_others(cluster: LocalCluster) -> None:
    with Client(cluster.urls, timeout_s=60) as client:
        client.topics.create("t")
    fill(cluster, 0, 100)
    node = a_follower(cluster)
    until(lambda: state_of(node).stat().st_size > 100_000, "a checkpoint")
    node.kill()
    os.truncate(state_of(node), state_of(node).stat().st_size // 2)
    node.start()
    assert node.wait(60) == 78
    assert "state.db, byte " in node.last_words()
    assert "the file is shorter than it says" in node.last_words()
    assert "move this node's whole data directory away" in node.last_words()
    fill(cluster, 100, 10)
    refilled_by_the_others(cluster, node, 110)
