"""Transfers of the lead through the gateway: done at the leader, asked for elsewhere, and said as it came."""

from __future__ import annotations

from quorl.cluster.node.core import PeerLost
from quorl.cluster.node.transferring import transferred
from quorl.cluster.protocol.system import LeadershipTransferred, TransferRefused
from tests.node.fakecore import Cluster

TRANSFERS = "/v1/cluster/leader-transfers"


async def test_the_leader_hands_over_and_says_to_whom() -> None:
    cluster = Cluster()
    status, body, _ = await cluster.call("n1", "POST", TRANSFERS, {"to": "n2"})
    assert (status, body["from"], body["to"]) == (200, "n1", "n2")
    assert cluster.group.leader == "n2"


async def test_another_node_asks_the_leader_and_relays_what_it_says() -> None:
    cluster = Cluster()
    status, body, _ = await cluster.call("n3", "POST", TRANSFERS, {})
    assert (status, body["from"]) == (200, "n1")
    status, body, _ = await cluster.call("n3", "POST", TRANSFERS, {"to": "n9"})
    assert (status, body["code"]) == (404, "member_not_found")


async def test_without_a_leader_there_is_nobody_to_hand_over() -> None:
    cluster = Cluster()
    cluster.group.lead(None)
    status, body, _ = await cluster.call("n2", "POST", TRANSFERS, {})
    assert (status, body["code"]) == (503, "no_quorum")


async def test_a_leader_that_is_lost_on_the_way_is_asked_again_where_it_is_now() -> None:
    cluster = Cluster()
    cluster.peers.script.append(PeerLost("reset"))
    status, body, _ = await cluster.call("n2", "POST", TRANSFERS, {"to": "n3"})
    assert (status, body["to"]) == (200, "n3")


def test_what_came_of_it_is_said_as_it_is() -> None:
    assert transferred("n1", None, "n2", 3, 4) == LeadershipTransferred(from_="n1", to="n2", term=3, took_ms=4)
    assert transferred("n1", "n1", "n1", 3, 0) == LeadershipTransferred(from_="n1", to="n1", term=3, took_ms=0)
    for to, leader in (("n2", "n3"), ("n2", "n1"), (None, "n1"), (None, None)):
        assert isinstance(transferred("n1", to, leader, 3, 4), TransferRefused)
