"""Node processes on this machine: start them, wait until they serve, kill, pause and stop them.

Every node is a process in a session of its own, so that signals reach it only from here; ``stop`` leaves none behind.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from quorl.client import direct

READY_S = 60.0
"""Generous: on a busy machine a Python process alone may need seconds to start."""
STOP_S = 15.0
"""A node takes four seconds at most to leave; on a busy machine more."""
_POLL_S = 0.02
"""How often it is looked whether something has come to be."""


class NodeFailed(Exception):
    """A node ended by itself, or did not get ready in time."""


class LocalNode:
    """One node: its config, and the process that runs it now, if any."""

    def __init__(
        self,
        config: Path,
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        before_exec: Callable[[], None] | None = None,
    ) -> None:
        settings = tomllib.loads(config.read_text(encoding="utf-8"))["node"]
        self.name: str = settings["name"]
        self.url = f"http://{settings['http']}"
        self.ports = [int(settings[key].rpartition(":")[2]) for key in ("http", "raft")]
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.command = [sys.executable, "-m", "quorl.cluster.main", "--config", str(config)]
        self._environment = environment or {}
        self._before_exec = before_exec

    @property
    def alive(self) -> bool:
        """Whether the process runs, or is paused."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process; the same command for the first time, again, and after a crash."""
        assert not self.alive, f"{self.name} runs already"
        with contextlib.ExitStack() as stack:
            output: IO[bytes] | None = None if self.log is None else stack.enter_context(self.log.open("ab"))
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self._environment},
                preexec_fn=self._before_exec,  # noqa: PLW1509 - tests tie the node's life to theirs
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it still runs."""
        if self.alive:
            assert self.process is not None
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill -9, and wait until the process is gone: no goodbye, nothing flushed."""
        self.signal(signal.SIGKILL)
        self.wait()

    def pause(self) -> None:
        """Freeze the process where it stands."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on, as if no time had passed."""
        self.signal(signal.SIGCONT)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Wait for the end of the process and return its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self, timeout_s: float = STOP_S) -> int:
        """Stop the process gracefully, the hard way if it does not heed; its exit code."""
        self.resume()
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()

    def ask(self, path: str, timeout_s: float = 2.0) -> tuple[int, bytes]:
        """GET a path from this node; status 0 stands for no answer."""
        try:
            with direct.get(self.url + path, timeout_s) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read()
        except (OSError, ValueError, http.client.HTTPException) as error:
            return 0, str(error).encode()

    def cluster(self) -> dict[str, Any] | None:
        """The cluster as this node sees it, None if it does not answer."""
        status, body = self.ask("/v1/cluster")
        seen: dict[str, Any] | None = json.loads(body) if status == 200 else None
        return seen

    def last_words(self, lines: int = 15) -> str:
        """The end of the node's log."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class LocalCluster:
    """Several nodes that belong together. Leaving ``with`` stops all of them."""

    def __init__(self, nodes: Iterable[LocalNode]) -> None:
        self.nodes = {node.name: node for node in nodes}

    def __getitem__(self, name: str) -> LocalNode:
        return self.nodes[name]

    @property
    def urls(self) -> list[str]:
        """Where the nodes answer, in the order of their configs."""
        return [node.url for node in self.nodes.values()]

    def start(self) -> Self:
        """Start every node that does not run, and wait until all serve."""
        for node in self.nodes.values():
            if not node.alive:
                node.start()
        self.wait_ready()
        return self

    def wait_ready(self, *names: str, timeout_s: float = READY_S) -> None:
        """Wait until these nodes, or all, take requests. A node that ends meanwhile ends the waiting."""
        for node in [self.nodes[name] for name in names] or self.nodes.values():

            def ready(node: LocalNode = node) -> bool:
                if not node.alive:
                    code = None if node.process is None else node.process.returncode
                    raise NodeFailed(f"{node.name} ended with exit code {code}\n{node.last_words()}")
                return node.ask("/readyz")[0] == 200

            until(ready, f"{node.name} to be ready", timeout_s, node.last_words)

    def leader(self, *, other_than: str | None = None, timeout_s: float = READY_S) -> str:
        """Wait until the nodes that run agree on a leader (another one than ``other_than``) and return its name."""
        agreed: list[str] = []

        def agree() -> bool:
            views = [node.cluster() for node in self.nodes.values() if node.alive]
            leaders = {None if view is None else view["leader"] for view in views}
            agreed[:] = [name for name in leaders if name and name != other_than]
            return len(leaders) == len(agreed) == 1

        until(agree, "the nodes to agree on a leader", timeout_s)
        return agreed[0]

    def stop(self) -> None:
        """Stop every node, all at the same time."""
        running = [node for node in self.nodes.values() if node.alive]
        for node in running:
            node.resume()
            node.signal(signal.SIGTERM)
        for node in running:
            node.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def until(
    condition: Callable[[], bool], what: str, timeout_s: float = READY_S, why: Callable[[], str] = lambda: ""
) -> None:
    """Ask again and again until ``condition`` holds; raises ``NodeFailed`` when it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise NodeFailed(f"waited {timeout_s:.0f} s for {what}\n{why()}".rstrip())
        time.sleep(_POLL_S)
