"""The lead is handed over because somebody asks, at any node, under load, and nothing is lost or refused by it."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import pytest

from quorl.client import Client, TransferRefused
from quorl.cluster.protocol.system import TransferLeadership
from tests.harness import CALM, LocalCluster, call, cluster_in, converge, stored, until

TRANSFERS = "/v1/cluster/leader-transfers"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with cluster_in(tmp_path_factory.mktemp("transfer"), sections=CALM) as cluster:
        yield cluster


def test_the_lead_goes_where_it_is_asked_to_go_at_whatever_node_while_writes_go_on(cluster: LocalCluster) -> None:
    with Client(cluster.urls) as client:
        client.topics.create("held")
        topic, stop, sent = client.topic("held"), threading.Event(), [0]

        def write() -> None:
            while not stop.is_set():
                topic.append(sent[0])
                sent[0] += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for at in cluster.urls:
                before = cluster.leader()
                to = next(name for name in cluster.nodes if name != before)
                done = call(at, "POST", TRANSFERS, {"to": to})
                assert done.status == 200, done.body
                assert (done.json["from"], done.json["to"]) == (before, to)
                assert cluster.leader() == to
                seen = sent[0]
                until(functools.partial(has_passed, sent, seen + 5), "writes to go on")
        finally:
            stop.set()
            writer.join()
    for node in cluster.nodes.values():
        converge(cluster)
        assert [one.value for one in stored(node, "held")] == list(range(sent[0]))


def has_passed(sent: list[int], number: int) -> bool:
    return sent[0] > number


def test_somebody_takes_it_if_nobody_is_named_and_who_has_it_keeps_it(cluster: LocalCluster) -> None:
    before = cluster.leader()
    done = call(cluster.urls[0], "POST", TRANSFERS, {}).json
    assert (done["from"], done["to"] != before) == (before, True)
    again = call(cluster.urls[1], "POST", TRANSFERS, {"to": done["to"]}).json
    assert (again["from"], again["to"], again["took_ms"]) == (done["to"], done["to"], 0)


def test_who_is_no_member_or_cannot_be_reached_gets_no_lead(tmp_path: Path) -> None:
    with cluster_in(tmp_path, sections=CALM) as cluster:
        unknown = call(cluster.urls[0], "POST", TRANSFERS, {"to": "n9"})
        assert (unknown.status, unknown.json["code"]) == (404, "member_not_found")
        before = cluster.leader()
        victim = next(name for name in cluster.nodes if name != before)
        cluster.nodes[victim].kill()
        with Client(cluster.nodes[before].url) as client:
            until(lambda: client.cluster().health == "degraded", "the member to be missed")
            with pytest.raises(TransferRefused, match=f"{victim} cannot be reached"):
                client.call(TransferLeadership(to=victim))
        assert cluster.leader() == before


def test_a_cluster_of_one_keeps_its_leader(tmp_path: Path) -> None:
    with cluster_in(tmp_path, size=1) as cluster:
        refused = call(cluster.urls[0], "POST", TRANSFERS, {})
        assert (refused.status, refused.json["code"]) == (409, "transfer_refused")
        assert call(cluster.urls[0], "POST", "/v1/topics", {"name": "t"}).status == 201
