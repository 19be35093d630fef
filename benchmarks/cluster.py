"""Three real nodes as processes on free loopback ports, with fresh data on a real disk.

Invariants: a cluster's files lie under one temporary directory, which goes with it; its processes die with the one that
started them, however that one ends; nothing is started on a file system that lives in memory.
"""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from quorl.client import AsyncClient, QuorlError

ROOT = Path(__file__).resolve().parent.parent
MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "rootfs"})
READY_WAIT_S = 60.0
STOP_WAIT_S = 20.0
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
        inside = path.resolve().is_relative_to(mount)
        if inside and len(mount) >= len(best):
            best, kind = mount, after.split(" ")[0]
    return kind


def place_for_data(given: str | None) -> Path:
    """Where clusters may keep their data: what was given, else the first usual place that is no memory."""
    if given is None:
        usual = [Path(tempfile.gettempdir()), Path("/var/tmp"), ROOT]
        places = [place for place in usual if place.is_dir() and file_system(place) not in MEMORY_FILE_SYSTEMS]
    else:
        Path(given).mkdir(parents=True, exist_ok=True)
        places = [Path(given)] if file_system(Path(given)) not in MEMORY_FILE_SYSTEMS else []
    if not places:
        raise SystemExit("no place for the data on a real disk: an fsync in memory costs nothing; say one with --dir")
    return places[0]


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _die_with_parent() -> None:
    """Between fork and exec: the kernel ends this process when its parent ends, where the kernel can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class NodeProcess:
    """One node and its process, if it has one."""

    def __init__(self, name: str, http: int, raft: int, directory: Path) -> None:
        self.name = name
        self.http = http
        self.raft = raft
        self.url = f"http://127.0.0.1:{http}"
        self.directory = directory
        self.config = directory / f"{name}.toml"
        self.profile: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it is ready some time later."""
        profiler = ["-m", "cProfile", "-o", str(self.profile)] if self.profile else []
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *profiler, str(ROOT / "node.py"), "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - prctl takes no lock that another thread could hold
            )

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """Let it end by itself, with its profile written; kill it if it does not."""
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()


class Cluster:
    """Three nodes; use it with ``async with``."""

    def __init__(self, place: Path, *, profile: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="quorl-benchmark-", dir=place))
        self.profiled = profile
        self.nodes = [self._node(f"n{number}") for number in (1, 2, 3)]
        members = "".join(_MEMBER.format(name=n.name, http=n.http, raft=n.raft) for n in self.nodes)
        for node in self.nodes:
            data = self.directory / node.name
            own = _CONFIG.format(name=node.name, http=node.http, raft=node.raft, data=data)
            node.config.write_text(own + members)

    def _node(self, name: str) -> NodeProcess:
        node = NodeProcess(name, free_port(), free_port(), self.directory)
        node.profile = self.directory / f"{name}.profile" if self.profiled else None
        return node

    async def __aenter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                await self.until_ready(node)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pids(self) -> list[int]:
        """The processes of the nodes."""
        return [node.process.pid for node in self.nodes if node.process is not None]

    async def until_ready(self, node: NodeProcess) -> None:
        """Wait until a node says that it is ready: it knows a leader, and has replayed its log."""
        deadline = time.monotonic() + READY_WAIT_S
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                assert node.process is not None
                if node.process.poll() is not None:
                    break
                try:
                    async with session.get(f"{node.url}/readyz", timeout=aiohttp.ClientTimeout(total=2)) as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.05)
        said = (self.directory / f"{node.name}.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{node.name} did not become ready. It said:\n{said}")

    async def leader(self) -> NodeProcess:
        """The node that leads, as soon as all that run agree who that is."""
        deadline = time.monotonic() + READY_WAIT_S
        while time.monotonic() < deadline:
            named = {await self._leader_seen_by(n) for n in self.nodes if n.process and n.process.poll() is None}
            name = named.pop()
            if name is not None and not named:
                return next(node for node in self.nodes if node.name == name)
            await asyncio.sleep(0.05)
        raise RuntimeError("the nodes do not agree on a leader")

    async def _leader_seen_by(self, node: NodeProcess) -> str | None:
        try:
            async with AsyncClient([node.url], timeout_s=2) as client:
                return (await client.cluster()).leader
        except QuorlError:
            return None

    async def stop(self) -> None:
        """End every process; the data goes, unless there are profiles to read."""
        running = [node for node in self.nodes if node.process is not None and node.process.poll() is None]
        end: Callable[[NodeProcess], None] = NodeProcess.terminate if self.profiled else NodeProcess.kill
        await asyncio.gather(*(asyncio.to_thread(end, node) for node in running))
        if not self.profiled:
            self.remove()

    def remove(self) -> None:
        """Remove every file."""
        shutil.rmtree(self.directory, ignore_errors=True)
