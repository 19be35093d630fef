"""Real nodes, three by default, as processes on free loopback ports, with fresh data on a real disk.

Invariants: a cluster's files lie under one temporary directory, which goes with it; its processes die with the one that
started them, however that one ends; nothing is started on a file system that lives in memory.
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from typing_extensions import override

from benchmarks import machine
from examples import ROOT
from quorl.client.local.processes import LocalCluster, LocalNode
from tests.ports import free_ports

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "rootfs"})
_PR_SET_PDEATHSIG = 1

_MEMBER = """
[[cluster.members]]
name = "{name}"
http = "127.0.0.1:{http}"
raft = "127.0.0.1:{raft}"
"""
_CONFIG = """
[node]
name = "{name}"
http = "127.0.0.1:{http}"
raft = "127.0.0.1:{raft}"
data_dir = "{data}"

[log]
format = "json"
level = "warning"

[cluster]
name = "benchmark"
"""


def file_system(path: Path) -> str:
    """The type of the file system that a path lies on, ``unknown`` where the system does not say."""
    table = Path("/proc/self/mountinfo")
    if not table.exists():
        return "unknown"
    best, kind = "", "unknown"
    for line in table.read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split(" ")[4]
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, after.split(" ")[0]
    return kind


def place_for_data(given: str | None) -> Path:
    """Where clusters may keep their data: what was given, else the first usual place that is no memory."""
    if given is not None:
        Path(given).mkdir(parents=True, exist_ok=True)
    usual = [Path(given)] if given is not None else [Path(tempfile.gettempdir()), Path("/var/tmp"), ROOT]
    for place in usual:
        if place.is_dir() and file_system(place) not in MEMORY_FILE_SYSTEMS:
            return place
    raise SystemExit("no place for the data on a real disk: an fsync in memory costs nothing; say one with --dir")


class Cluster(LocalCluster):
    """Nodes with fresh data; leaving ``with`` ends them and removes it. ``profile`` writes their profiles first."""

    def __init__(self, place: Path, *, profile: bool = False, nodes: int = 3) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="quorl-benchmark-", dir=place))
        self._profile = profile
        ports = free_ports(2 * nodes)
        members = [(f"n{i + 1}", ports[2 * i], ports[2 * i + 1]) for i in range(nodes)]
        table = "".join(_MEMBER.format(name=name, http=http, raft=raft) for name, http, raft in members)
        super().__init__(self._node(*member, table) for member in members)

    def _node(self, name: str, http: int, raft: int, table: str) -> LocalNode:
        config = self.directory / f"{name}.toml"
        config.write_text(_CONFIG.format(name=name, http=http, raft=raft, data=self.directory / name) + table)
        node = LocalNode(config, log=self.directory / f"{name}.log", before_exec=_die_with_parent)
        if self._profile:
            node.command[1:1] = ["-m", "cProfile", "-o", str(self.directory / f"{name}.profile")]
        return node

    @property
    def pids(self) -> set[int]:
        """The processes of the nodes."""
        return {node.process.pid for node in self.nodes.values() if node.process is not None}

    def rss_mb(self) -> list[float]:
        """The resident memory of each node that runs, MiB; 0 where the system does not say."""
        return [machine.rss_mb(node.process.pid) for node in self.nodes.values() if node.process and node.alive]

    def leading(self) -> LocalNode:
        """The node that leads."""
        return self[self.leader()]

    def following(self) -> LocalNode:
        """A node that does not lead."""
        leader = self.leader()
        return next(node for name, node in self.nodes.items() if name != leader)

    @override
    def stop(self) -> None:
        if self._profile:
            super().stop()
        for node in self.nodes.values():
            if node.alive:
                node.kill()

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


def _die_with_parent() -> None:
    """Between fork and exec: the kernel ends this process when its parent ends, where the kernel can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
