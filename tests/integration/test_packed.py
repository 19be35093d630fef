"""Large appends on the disks of a real cluster: packed at every member, and read back at each as they were sent."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from quorl.client import Client
from quorl.client.local.processes import LocalNode
from tests.harness import cluster_in, converge, data_dir, stored, until

LINES = [f"line {number} of a log" for number in range(500)]


def newest_body(node: LocalNode) -> bytes:
    with contextlib.closing(sqlite3.connect(f"file:{data_dir(node) / 'state.db'}?mode=ro", uri=True)) as connection:
        row = connection.execute("SELECT body FROM batches ORDER BY rowid DESC LIMIT 1").fetchone()
    return bytes(row[0]) if row else b""  # the transaction of what was applied last may be open for some milliseconds


def test_large_appends_lie_packed_on_every_disk_and_are_read_back_at_every_node(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster, Client(cluster.urls, timeout_s=60) as client:
        client.topics.create("t")
        nodes = cluster.nodes.values()

        def all_pack() -> bool:
            client.topic("t").append_many(LINES)
            converge(cluster)
            bodies = {newest_body(node) for node in nodes}
            return len(bodies) == 1 and bodies.pop()[:1] == b"\x01"

        until(all_pack, "the same packed body on every disk, once all members have said that they can apply that")
        for node in nodes:
            assert [message.value for message in stored(node, "t")][-500:] == LINES
