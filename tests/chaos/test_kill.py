"""Kill -9, of one node and of all, while clients write, read and consume through every node."""

from __future__ import annotations

import random
import time

from tests.chaos.conftest import Start
from tests.chaos.verdict import judge
from tests.harness import LocalCluster, LocalNode, log_begins_at, term, until

CALM = {"election_timeout_ms": [1500, 3000]}
"""A machine that is busy with other things must not depose a leader that a test expects to stay."""
OFTEN = {"snapshot_every": 20, "log_bytes_max": 1024**2}


def pause_between(dice: random.Random, low_s: float, high_s: float) -> None:
    """How long a fault lasts, or the work between two."""
    time.sleep(dice.uniform(low_s, high_s))


def followers(cluster: LocalCluster) -> list[str]:
    leader = cluster.leader()
    return [name for name in cluster.nodes if name != leader]


def test_a11_d3_d5_leader_killed(start: Start, dice: random.Random, rounds: int) -> None:
    cluster, load = start()
    for _ in range(2 * rounds):
        killed = cluster.leader()
        cluster[killed].kill()
        assert cluster.leader(other_than=killed) != killed
        load.more(30)
        cluster[killed].start()
        cluster.wait_ready(killed)
        load.more(30)
        pause_between(dice, 0.1, 0.8)
    judge(cluster, load)


def test_d3_follower_killed_and_the_leader_stays(start: Start, dice: random.Random, rounds: int) -> None:
    cluster, load = start(**CALM)
    leader = cluster.leader()
    for _ in range(2 * rounds):
        killed = dice.choice(followers(cluster))
        cluster[killed].kill()
        load.more(50)
        assert cluster.leader() == leader
        cluster[killed].start()
        cluster.wait_ready(killed)
        load.more(20)
    assert cluster.leader() == leader
    judge(cluster, load)


def test_a11_d5_all_killed(start: Start, dice: random.Random, rounds: int) -> None:
    cluster, load = start()
    for _ in range(2 * rounds):
        load.more(50)
        kill_all(cluster)
        pause_between(dice, 0.0, 0.5)
        cluster.start()
        load.more(50)
    judge(cluster, load)


def test_d5_d11_all_killed_while_compacting(start: Start, dice: random.Random, rounds: int) -> None:
    cluster, load = start(**OFTEN)
    for _ in range(2 * rounds):
        wait_trimmed([*cluster.nodes.values()])
        pause_between(dice, 0.0, 0.3)
        kill_all(cluster)
        cluster.start()
        load.more(50)
    judge(cluster, load)


def test_d11_away_for_longer_than_the_log(start: Start, dice: random.Random, rounds: int) -> None:
    cluster, load = start(**OFTEN)
    for _ in range(rounds):
        away = cluster[dice.choice(followers(cluster))]
        before = snapshots_installed(away)
        away.kill()
        wait_trimmed([node for node in cluster.nodes.values() if node is not away], times=2)
        away.start()
        wait_snapshot(away, before)
        load.more(50)
    judge(cluster, load)


def test_restart_storm(start: Start, dice: random.Random, rounds: int) -> None:
    cluster, load = start(**OFTEN)
    for _ in range(3 * rounds):
        before = term(cluster, cluster.leader())
        for name in dice.sample(sorted(cluster.nodes), k=len(cluster.nodes)):
            if dice.random() < 0.5:
                cluster[name].kill()
            else:
                assert cluster[name].stop() == 0
            pause_between(dice, 0.0, 0.3)
            cluster[name].start()
            if dice.random() < 0.5:  # else the next one falls while this one comes up
                cluster.wait_ready(name)
        assert term(cluster, cluster.leader()) > before, "the leader fell too: who leads now was elected since"
        load.more(20)
    judge(cluster, load)


def kill_all(cluster: LocalCluster) -> None:
    for node in cluster.nodes.values():
        assert node.process is not None
        node.process.kill()
    for node in cluster.nodes.values():
        node.wait()


def wait_trimmed(nodes: list[LocalNode], times: int = 1) -> None:
    """Wait until each of the nodes has shortened its log so many times."""
    for _ in range(times):
        before = {node.name: log_begins_at(node) for node in nodes}

        def moved_on(before: dict[str, int] = before) -> bool:
            return all(log_begins_at(node) > before[node.name] for node in nodes)

        until(moved_on, "the nodes to trim their logs")


def snapshots_installed(node: LocalNode) -> int:
    assert node.log is not None
    return node.log.read_text(encoding="utf-8").count("snapshot_installed")


def wait_snapshot(node: LocalNode, before: int) -> None:
    until(lambda: snapshots_installed(node) > before, f"{node.name} to install a snapshot", why=node.last_words)
