"""What is asked of one node alone is asked of the node, also where the environment names a proxy."""

from __future__ import annotations

import urllib.request

import pytest

from quorl.client import direct
from quorl.cluster.protocol.wire import Answer
from tests.client.commands import Quorl
from tests.client.stand_in import StandIn, closed_port
from tests.client.test_cli_names import offered
from tests.client.test_cli_node import GOOD


@pytest.fixture(autouse=True)
def _proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in many a company: a proxy, which knows no node, and no word of what is to go without it."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", closed_port())
    monkeypatch.setattr(urllib.request, "_opener", None)  # which may have been made before
    direct._opener.cache_clear()


def test_the_health_of_a_node_is_told_by_the_node(quorl: Quorl, cluster: StandIn) -> None:
    cluster.mishaps[0].append(Answer(200, {"content-type": "text/plain"}, GOOD))
    assert quorl("node", "status", "--ready").stdout == GOOD.decode()


def test_names_are_told_by_the_cluster(quorl: Quorl) -> None:
    quorl("topic", "create", "logs")
    assert offered("topic show") == {"logs"}


def test_whoever_waits_for_nodes_asks_them(cluster: StandIn) -> None:
    cluster.mishaps[0].append(Answer(200, {"content-type": "text/plain"}, GOOD))
    with direct.get(f"{cluster.urls[0]}/readyz", 10.0) as answer:
        assert (answer.status, answer.read()) == (200, GOOD)
