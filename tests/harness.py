"""Real clusters for tests: generated configs on free loopback ports, in a directory of the test's own.

Invariants: a node dies with the test process, however that ends; its ports are its own until then (``ports.py``); a failed
test shows the ends of its nodes' logs.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from examples import ROOT
from quorl.client import Client
from quorl.client.local.processes import READY_S, LocalCluster, LocalNode, until
from tests.ports import free_ports

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

CALM: dict[str, dict[str, Any]] = {"raft": {"election_timeout_ms": [2500, 5000]}}
"""Sections of a config with which whoever leads goes on leading though a node stands still for two seconds on a busy machine."""

running: list[LocalCluster] = []
"""The clusters of the tests that run now."""


def die_with_parent() -> None:
    """Between fork and exec: the kernel ends this process when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def write_configs(
    directory: Path, *, size: int = 3, name: str = "test", sections: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Path]:
    """Write the configs of a new cluster into a directory that will hold its data, too."""
    directory.mkdir(parents=True, exist_ok=True)
    secret = directory / "secret"
    secret.write_text("a secret of this test", encoding="utf-8")
    secret.chmod(0o600)
    ports = free_ports(2 * size)
    members = [(f"n{i + 1}", ports[2 * i], ports[2 * i + 1]) for i in range(size)]
    common = f'[cluster]\nname = "{name}"\nsecret_file = "{secret}"\n'
    for member, http_port, raft_port in members:
        common += (
            f'[[cluster.members]]\nname = "{member}"\nhttp = "127.0.0.1:{http_port}"\nraft = "127.0.0.1:{raft_port}"\n'
        )
    for section, values in (sections or {}).items():
        common += f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    paths = []
    for member, http_port, raft_port in members:
        path = directory / f"{member}.toml"
        own = f'[node]\nname = "{member}"\nhttp = "127.0.0.1:{http_port}"\nraft = "127.0.0.1:{raft_port}"\n'
        path.write_text(f'{own}data_dir = "{directory / "data" / member}"\n{common}', encoding="utf-8")
        paths.append(path)
    return paths


def node_of(config: Path) -> LocalNode:
    """A node that dies with this process. Start it from the main thread: its life hangs on the thread that did."""
    quiet = {name: text for name, text in os.environ.items() if not name.startswith("QUORL_")}
    return LocalNode(config, log=config.with_suffix(".log"), environment=quiet, before_exec=die_with_parent)


@contextmanager
def cluster_in(directory: Path, **how: Any) -> Iterator[LocalCluster]:
    """A cluster that serves; see ``write_configs`` for what can be said about it."""
    cluster = LocalCluster(node_of(config) for config in write_configs(directory, **how))
    running.append(cluster)
    try:
        yield cluster.start()
    finally:
        running.remove(cluster)
        for node in cluster.nodes.values():
            node.kill()


def data_dir(node: LocalNode) -> Path:
    """Where a node of this harness keeps its data."""
    assert node.log is not None
    return node.log.parent / "data" / node.name


def log_begins_at(node: LocalNode) -> int:
    """The first index in the names of a node's log files: it grows when the log is trimmed."""
    return min(int(path.stem.partition("-")[2]) for path in data_dir(node).glob("log-*.seg"))


def term(cluster: LocalCluster, name: str) -> int:
    """The Raft term that a node is in."""
    view = cluster[name].cluster()
    assert view is not None
    return int(view["term"])


class Reply(NamedTuple):
    """What a node answered, byte for byte."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


def call(
    url: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> Reply:
    """One plain HTTP call, without any of the client library's help. Bytes and text are sent as they are."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    data = body if body is None or isinstance(body, bytes | str) else json.dumps(body)
    sent = {"Content-Type": "application/json"} if data is not None else {}
    with contextlib.closing(connection):
        connection.request(method, path, body=data, headers={**sent, **(headers or {})})
        answer = connection.getresponse()
        read = answer.read()
        return Reply(answer.status, {name.lower(): text for name, text in answer.getheaders()}, read)


def converge(cluster: LocalCluster, timeout_s: float = READY_S) -> int:
    """Wait until every node has applied the same entries with the same outcome; returns how many."""
    views: list[tuple[int, str]] = []

    def same() -> bool:
        seen = [node.cluster() for node in cluster.nodes.values()]
        views[:] = [
            (view["sequence"], view["digest"]) if view else (-1, node)
            for view, node in zip(seen, cluster.nodes, strict=True)
        ]
        return len(set(views)) == 1

    until(same, "the nodes to converge", timeout_s, lambda: str(views))
    return views[0][0]


def stored(node: LocalNode, topic: str, partition: int = 0) -> list[Any]:
    """All messages of a partition in one node's own copy."""
    messages: list[Any] = []
    with Client(node.url, timeout_s=READY_S) as client:
        handle = client.topic(topic)
        while page := handle.browse(len(messages), partition=partition, limit=1000, consistency="local"):
            messages += page
    return messages


__all__ = [
    "CALM",
    "READY_S",
    "ROOT",
    "LocalCluster",
    "LocalNode",
    "Reply",
    "call",
    "cluster_in",
    "converge",
    "data_dir",
    "die_with_parent",
    "log_begins_at",
    "node_of",
    "running",
    "stored",
    "until",
    "write_configs",
]
