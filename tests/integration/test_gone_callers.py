"""Workers that hang up while they wait for a task, at the leader and elsewhere: what comes then goes to others."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest

from tests import taskkit as kit
from tests.harness import LocalCluster
from tests.taskkit import Hand


@pytest.mark.parametrize("place", [0, 1, 2])
def test_who_hung_up_is_granted_nothing(cluster: LocalCluster, place: int) -> None:
    url = cluster.urls[place]
    queue = kit.fresh("gone")
    gone, there = (Hand(url, queue, dead_after_ms=60_000, heartbeat_ms=20_000) for _ in range(2))
    where = urlsplit(url)
    body = json.dumps({"worker_id": gone.id, "wait": 20}).encode()
    head = f"POST /v1/claims HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((where.hostname, where.port)) as caller:
        caller.sendall(head.encode() + body)
        kit.wait_running(cluster, 1)
    kit.wait_running(cluster, 0)
    task_id = kit.submit_one(url, queue, name="x")
    assert there.one()["id"] == task_id
