"""A disk that gives back other than what was written: the node says so and stays down, the others serve, nothing is lost. D5."""

from __future__ import annotations

import contextlib
import http.client
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorl.client import Client
from tests.harness import LocalCluster, LocalNode, call, cluster_in, converge, data_dir, stored

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
    assert node.stop() == 0  # everything is in the file
    cluster.start()
    fill(cluster, 100, 5)
    node.kill()  # beside a write-ahead log that has the newest pages only
    os.truncate(state_of(node), state_of(node).stat().st_size // 2)
    node.start()
    assert node.wait(60) == 78
    assert "state.db, byte " in node.last_words()
    assert "the file is shorter than it says" in node.last_words()
    assert "move this node's whole data directory away" in node.last_words()
    fill(cluster, 105, 5)
    refilled_by_the_others(cluster, node, 110)


def spoil(path: Path) -> None:
    """Other bytes in the second half of a file, which is as long as it was."""
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size_bytes // 2)
        file.write(b"\xff" * (size_bytes - size_bytes // 2))


def stopped_by_damage(node: LocalNode, what: str) -> None:
    assert node.wait(60) == 78
    assert f"{node.name} stopped itself: {what}" in node.last_words()
    assert "malformed" in node.last_words()
    assert "move this node's whole data directory away" in node.last_words()


@pytest.mark.parametrize("met", ["reading", "applying"])
def test_d5_a_node_that_meets_a_damaged_page_stops_and_is_filled_again_by_the_others(
    cluster: LocalCluster, met: str
) -> None:
    with Client(cluster.urls, timeout_s=60) as client:
        client.topics.create("t")
    fill(cluster, 0, 100)
    node = a_follower(cluster)
    assert node.stop() == 0
    spoil(state_of(node))
    node.start()
    if met == "reading":
        cluster.wait_ready(node.name)
        with contextlib.suppress(OSError, http.client.HTTPException):  # it may be gone before it has answered
            answer = call(node.url, "GET", "/v1/topics/t/messages?limit=1000&consistency=local")
            assert (answer.status, answer.json["code"]) == (500, "internal")
        stopped_by_damage(node, "the state could not be read: ")
        fill(cluster, 100, 10)
    else:
        fill(cluster, 100, 10)
        stopped_by_damage(node, "entry ")
    refilled_by_the_others(cluster, node, 110)
