"""A topic with a consumer, in a cluster of three nodes that only the gateway is real of."""

from __future__ import annotations

from tests.node.fakecore import Cluster

TOPIC = "/v1/topics/t"
MESSAGES = TOPIC + "/messages"
CONSUME = TOPIC + "/consumers/1/consume"


async def with_topic(**times: float) -> Cluster:
    """Make them; ``times`` are the gateway's."""
    cluster = Cluster(**times)
    assert (await cluster.call("n1", "POST", "/v1/topics", {"name": "t"}))[0] == 201
    assert (await cluster.call("n1", "POST", TOPIC + "/consumers"))[0] == 201
    return cluster
