"""A cluster, a client and a command line for every test that wants one."""

from __future__ import annotations

import contextlib
import functools
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from typing_extensions import override

from quorl.client import Client, route, sync
from quorl.client.cli import cli, task, waiting
from quorl.client.cli import cluster as cluster_
from tests.client.commands import Quorl
from tests.client.scripted import Clock
from tests.client.stand_in import StandIn, stand_in


@pytest.fixture
def cluster() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def ssh() -> Iterator[str]:
    """The address of a server that speaks no HTTP."""

    class Speaking(socketserver.BaseRequestHandler):
        @override
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
                while self.request.recv(4096):  # to close with something unread would take back what was said
                    pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Speaking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def quorl(cluster: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quorl:
    monkeypatch.setenv("QUORL_SERVER", cluster.servers)
    monkeypatch.delenv("QUORL_CONTEXT", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*words: str, **how: str) -> Result:
        return CliRunner().invoke(cli, list(words), catch_exceptions=False, **how)  # type: ignore[arg-type]

    return run


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of commands that run in this process: it passes while they sleep, and not while they or the nodes work."""
    clock = Clock()
    monkeypatch.setattr(route, "Route", functools.partial(route.Route, clock=clock))
    for module in (sync, cluster_, task, waiting):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def client(cluster: StandIn) -> Iterator[Client]:
    with Client(cluster.servers) as client:
        yield client
