"""SIGSTOP: nodes that stop without dying, keep their connections, and go on as if no time had passed."""

from __future__ import annotations

import random
import time
from functools import partial

from tests.chaos.conftest import Start
from tests.chaos.load import Load
from tests.chaos.test_kill import CALM, followers
from tests.chaos.verdict import judge
from tests.harness import LocalCluster, term, until

LONG_S = (3.1, 6.0)
"""Longer than an election takes."""
SHORT_S = (0.5, 3.0)


def test_d3_leader_paused(start: Start, dice: random.Random, rounds: int) -> None:
    cluster, load = start()
    for _ in range(rounds):
        paused = cluster.leader()
        before = term(cluster, paused)
        began_s = time.monotonic()
        cluster[paused].pause()
        for name in followers_of(cluster, paused):
            wait_other_leader(cluster, name, paused)
            assert term(cluster, name) > before
        load.more(30)
        time.sleep(max(0.0, dice.uniform(*LONG_S) - (time.monotonic() - began_s)))
        cluster[paused].resume()
        cluster.leader()
        assert term(cluster, paused) > before, "it leads on as if nothing had been"
        load.more(30)
    judge(cluster, load)


def test_d3_leader_paused_shortly(start: Start, dice: random.Random, rounds: int) -> None:
    cluster, load = start()
    for _ in range(3 * rounds):
        paused = cluster.leader()
        cluster[paused].pause()
        time.sleep(dice.uniform(*SHORT_S))
        cluster[paused].resume()
        load.more(30)
    judge(cluster, load)


def test_d3_follower_paused_and_the_leader_stays(start: Start, dice: random.Random, rounds: int) -> None:
    cluster, load = start(**CALM)
    leader = cluster.leader()
    before = term(cluster, leader)
    for _ in range(rounds):
        paused = cluster[dice.choice(followers(cluster))]
        paused.pause()
        time.sleep(dice.uniform(*LONG_S))  # its patience is over when it wakes
        load.more(20)
        paused.resume()
        load.more(20)
    assert cluster.leader() == leader
    assert term(cluster, leader) == before
    judge(cluster, load)


def test_d4_each_node_paused_in_turn_and_a_majority_at_once(start: Start, dice: random.Random, rounds: int) -> None:
    cluster, load = start()
    for _ in range(rounds):
        names = dice.sample(sorted(cluster.nodes), k=len(cluster.nodes))
        for name in names:
            cluster[name].pause()
            time.sleep(dice.uniform(0.5, 1.5))
            cluster[name].resume()
        for name in names[:2]:
            cluster[name].pause()
        time.sleep(dice.uniform(*SHORT_S))
        until(partial(silent, load), "answers to stay away without a majority", 20)
        assert silent(load), "acknowledged without a majority"
        for name in names[:2]:
            cluster[name].resume()
        load.more(50)
    judge(cluster, load)


def silent(load: Load) -> bool:
    """Whether nothing is acknowledged for half a second; what was before may still be on its way to the clients."""
    before = len(load.acknowledged)
    time.sleep(0.5)
    return len(load.acknowledged) == before


def followers_of(cluster: LocalCluster, leader: str) -> list[str]:
    return [name for name in cluster.nodes if name != leader]


def wait_other_leader(cluster: LocalCluster, at: str, than: str) -> None:
    """Wait until a node knows of another leader."""

    def known() -> bool:
        view = cluster[at].cluster()
        return view is not None and view["leader"] not in {None, than}

    until(known, f"{at} to know of another leader than {than}", why=cluster[at].last_words)
