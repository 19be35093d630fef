"""A disk that gives back other than what was written: the node says so and stays down, the others serve, nothing is lost. D5."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorl.client import Client
from tests.harness import (
    CALM,
    LocalCluster,
    LocalNode,
    call,
    cluster_in,
    converge,
    data_dir,
    log_begins_at,
    stored,
    until,
)

TEXT = "x" * 2000


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Its logs are shortened often, so that the state of a node cannot be made from them."""
    with cluster_in(tmp_path / "cluster", sections={"raft": {"snapshot_every": 20, **CALM["raft"]}}) as cluster:
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
    for one in cluster.nodes.values() if count else ():
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
    # The second, where the half that is gone has the pages that say what tables there are: where they lie differs.
    told = r"state\.db, byte \d+: (the file is shorter than it says|not readable as a state)"
    assert re.search(told, node.last_words())
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
            assert (answer.status, answer.json["code"]) == (503, "shutting_down"), "ask another node"
        stopped_by_damage(node, "the state could not be read: ")
        fill(cluster, 100, 10)
    else:
        fill(cluster, 100, 10)
        stopped_by_damage(node, "entry ")
    refilled_by_the_others(cluster, node, 110)


def test_d5_a_leader_that_has_no_sound_copy_to_give_lets_another_lead(tmp_path: Path) -> None:
    """A member whose disk is new is filled all the same, from another's state: no log goes back to the beginning."""
    # Calm, so that no node of a busy machine takes the lead before the damaged one is asked for a copy.
    sections = {"raft": {"snapshot_every": 20, "log_bytes_max": 1024**2, **CALM["raft"]}}
    with cluster_in(tmp_path / "cluster", sections=sections) as cluster, Client(cluster.urls, timeout_s=60) as client:
        client.topics.create("t")
        for number in range(100):
            client.topic("t").append(f"{number} {secrets.token_hex(40_000)}")
        until(lambda: all(log_begins_at(node) > 1 for node in cluster.nodes.values()), "every log to be trimmed")
        damaged = a_follower(cluster)
        assert damaged.stop() == 0
        spoil_table(damaged, "progress")
        damaged.start()
        cluster.wait_ready(damaged.name)
        assert call(damaged.url, "POST", "/v1/cluster/leader-transfers", {"to": damaged.name}).status == 200
        node = a_follower(cluster)
        assert node.stop() == 0
        refilled_by_the_others(cluster, node, 100)
        assert cluster.leader() != damaged.name
        assert "state_damaged" in damaged.last_words()
        assert "move this node's whole data directory away" in damaged.last_words()


@pytest.mark.parametrize("table", ["machine", "queues"])
def test_d5_a_state_whose_start_cannot_be_read_is_refused(cluster: LocalCluster, table: str) -> None:
    node = a_follower(cluster)
    assert node.stop() == 0
    spoil_table(node, table)
    node.start()
    assert node.wait(60) == 78
    assert "state.db: not readable as a state (database disk image is malformed)" in node.last_words()
    assert "move this node's whole data directory away" in node.last_words()
    refilled_by_the_others(cluster, node, 0)


@pytest.mark.parametrize(("path", "status"), [("/v1/overview", 500), ("/metrics", 500), ("/v1/topics", 503)])
def test_d5_whoever_comes_upon_a_damaged_page_stops_the_node(cluster: LocalCluster, path: str, status: int) -> None:
    with Client(cluster.urls, timeout_s=60) as client:
        client.topics.create("t")
    fill(cluster, 0, 3)
    node = a_follower(cluster)
    assert node.stop() == 0
    spoil_table(node, "topics")
    node.start()
    cluster.wait_ready(node.name)
    assert node.ask(path)[0] in {0, status}  # it may be gone before it has answered
    stopped_by_damage(node, "the state could not be read: ")


def spoil_table(node: LocalNode, table: str) -> None:
    """Other bytes in the first page of a table."""
    with contextlib.closing(sqlite3.connect(state_of(node))) as state:
        (page,) = state.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    with state_of(node).open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xff" * 4096)
