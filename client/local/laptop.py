"""A cluster for one developer's machine: its directory, its configs, its nodes and its demo workers.

The directory keeps the data from one run to the next. One program at a time has it; everything that it starts ends with it, also
when it is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Self

from quorl.client.local import ports
from quorl.client.local.processes import READY_S, LocalCluster, LocalNode, NodeFailed, until

PORT_BASE = 7100
"""HTTP listens on the ports behind it."""
_NEXT_BASE = 200
_BASES = 20
_RAFT = 100
"""Where ports are taken the next base is tried, so many times; raft listens so far behind HTTP."""
_PDEATHSIG = 1
"""Linux's ``PR_SET_PDEATHSIG``: a process of ours ends with the one that started it."""
_WORKER_STOP_S = 10.0
"""A worker that has not ended by then is killed."""
DEMO_APP = "quorl.demo:app"
DEMO_QUEUE = "demo"
"""Of its own, so that the demo's worker and yours do not take each other's tasks."""


class Refused(Exception):
    """It cannot start: what, why, what to do."""

    def __init__(self, what: str, why: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.why, self.hint = what, why, hint


def state_dir() -> Path:
    """Where the cluster of ``quorl up`` lives: below ``XDG_STATE_HOME``, or ``~/.local/state``."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "quorl" / "dev"


def _with_us() -> Callable[[], None] | None:
    """What a child does between fork and exec, so that the kernel ends it when we are killed; Linux alone can."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def before_exec() -> None:
        libc.prctl(_PDEATHSIG, signal.SIGTERM)

    return before_exec


class DemoWorker:
    """A worker that runs the tasks of ``quorl.demo``."""

    def __init__(self, name: str, servers: str, log: Path, layout: str = "text") -> None:
        self.name = name
        self.log = log
        command = [
            sys.executable,
            "-m",
            "quorl.client.cli",
            "--server",
            servers,
            "worker",
            "run",
            DEMO_APP,
            "-q",
            DEMO_QUEUE,
        ]
        command += ["--name", name, "--concurrency", "4", "--log", layout]
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_with_us(),  # noqa: PLW1509 - this program starts its children from one thread
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def tell(self) -> None:
        """Tell it to finish what it has, and to end."""
        if self.alive:
            self.process.terminate()

    def stop(self) -> None:
        """The same, and wait; the hard way if it does not heed."""
        self.tell()
        try:
            self.process.wait(_WORKER_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Laptop:
    """The directory, the nodes, the workers. Leaving ``with`` stops what was started and gives the directory back."""

    def __init__(
        self,
        size: int = 3,
        base: int = PORT_BASE,
        *,
        directory: Path | None,
        fresh: bool = False,
        log_format: str = "json",
        environment: Mapping[str, str] | None = None,
        stays: bool = False,
    ) -> None:
        """Take the directory (None: a temporary one) and write the configs. With ``stays`` the nodes outlive this program."""
        self.size = size
        self._environment = environment
        self._before_exec = None if stays else _with_us()
        self.moved = ""
        """Why the nodes listen elsewhere than was asked for, if they do."""
        self.ephemeral = directory is None
        self._log_format = log_format
        self._lock: IO[str] | None = None
        self.workers: list[DemoWorker] = []
        self._workers_made = 0
        self.directory = Path(tempfile.mkdtemp(prefix="quorl-up-")) if directory is None else directory
        try:
            self._take_directory()
            if fresh:
                self._empty()
            self.base = self._choose_base(base)
            self.cluster = self._make_cluster()
        except BaseException:
            self._give_back()
            raise

    def _take_directory(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = (self.directory / "lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            pid = lock.read().strip() or "?"
            lock.close()
            raise Refused(
                f"a cluster runs in {self.directory} already",
                f"`quorl up` with process id {pid} has it",
                "Use that one, stop it with Ctrl-C, or start another with --ephemeral.",
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock
        known = len(list(self.directory.glob("n?.toml")))
        if known not in {0, self.size} and any(self.directory.glob("n?/*")):
            self._lock.close()
            raise Refused(
                f"the cluster in {self.directory} has {known} nodes, not {self.size}",
                "The members of a cluster cannot change yet.",
                f"Say --nodes {known}, or --fresh to begin anew: that deletes what is stored there.",
            )

    def _empty(self) -> None:
        for path in self.directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def _choose_base(self, wanted: int) -> int:
        for base in range(wanted, wanted + _BASES * _NEXT_BASE, _NEXT_BASE):
            busy = ports.taken(
                port for number in range(1, self.size + 1) for port in (base + number, base + _RAFT + number)
            )
            if busy is None:
                return base
            self.moved = self.moved or f"port {busy} is held by {ports.holder(busy)}"
        raise Refused("no ports are free", f"{self.moved}, and so on", "Say where to look: --port-base 20000.")

    def _make_cluster(self) -> LocalCluster:
        members = [
            f'    {{ name = "n{number}", http = "127.0.0.1:{self.base + number}", raft = "127.0.0.1:{self.base + _RAFT + number}" }},'
            for number in range(1, self.size + 1)
        ]
        nodes = []
        for number in range(1, self.size + 1):
            name = f"n{number}"
            config = self.directory / f"{name}.toml"
            config.write_text(
                "# Written by `quorl up`, anew at every start.\n"
                f'[node]\nname = "{name}"\nhttp = "127.0.0.1:{self.base + number}"\n'
                f'raft = "127.0.0.1:{self.base + _RAFT + number}"\ndata_dir = "{name}"\n\n'
                '[cluster]\nname = "dev"\nmembers = [\n' + "\n".join(members) + "\n]\n\n"
                f'[log]\nformat = "{self._log_format}"\n',
                encoding="utf-8",
            )
            nodes.append(
                LocalNode(
                    config,
                    log=self.directory / f"{name}.log",
                    environment=self._environment,
                    before_exec=self._before_exec,
                )
            )
        return LocalCluster(nodes)

    # -- what runs -------------------------------------------------------------------------------------------------
    @property
    def servers(self) -> str:
        """All nodes, as ``--server`` takes them."""
        return ",".join(node.url.removeprefix("http://") for node in self.cluster.nodes.values())

    def add_worker(self) -> DemoWorker:
        """Start one more demo worker."""
        self._workers_made += 1
        name = "w-demo" if self._workers_made == 1 else f"w-demo-{self._workers_made}"
        layout = "json" if self._log_format == "json" else "text"
        worker = DemoWorker(name, self.servers, self.directory / f"{name}.log", layout)
        self.workers.append(worker)
        return worker

    def remove_worker(self) -> DemoWorker | None:
        """Stop the worker that came last; None if there is none."""
        if not self.workers:
            return None
        worker = self.workers.pop()
        worker.stop()
        return worker

    def wait_registered(self, worker: DemoWorker) -> None:
        """Wait until the cluster knows a worker as ALIVE: this process, and not one of an earlier run under its name."""
        import json

        def registered() -> bool:
            if not worker.alive:
                words = worker.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
                raise NodeFailed(f"{worker.name} ended with exit code {worker.process.returncode}\n" + "\n".join(words))
            for node in self.cluster.nodes.values():
                status, body = node.ask("/v1/workers?status=ALIVE&limit=1000") if node.alive else (0, b"")
                if status == 200:
                    return any(one["pid"] == worker.process.pid for one in json.loads(body)["items"])
            return False

        until(registered, f"{worker.name} to register", READY_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.tell()
        for worker in self.workers:
            worker.stop()
        self.cluster.stop()
        self._give_back()

    def _give_back(self) -> None:
        if self._lock is not None:
            self._lock.close()
        if self.ephemeral:
            with contextlib.suppress(OSError):
                shutil.rmtree(self.directory)
