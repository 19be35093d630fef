"""What the files of deployments start does what they say: their own commands and environments, as plain processes.

Only what a container or systemd would give is put in its place: where the file of the config is mounted, the names of the
other containers, and the socket to which a service of ``Type=notify`` speaks.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from quorl.cluster.api.members_only import fingerprint
from tests.harness import READY_S, ROOT, call, die_with_parent, until, write_configs
from tests.ports import free_ports

BIN = Path(sys.executable).parent
NODES = ("n1", "n2", "n3")
GRACE_S = 20.0


class Containers:
    """The services of docker-compose.yml as processes of this machine."""

    def __init__(self, directory: Path) -> None:
        self.services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        ports = free_ports(6)
        self.http = {name: f"127.0.0.1:{port}" for name, port in zip(NODES, ports[:3], strict=True)}
        self._raft = {name: f"127.0.0.1:{port}" for name, port in zip(NODES, ports[3:], strict=True)}
        self._directory = directory
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """What the service says, with addresses of this machine in the place of the network's names."""
        quiet = {key: text for key, text in os.environ.items() if not key.startswith("QUORL_")}
        own = dict(self.services[name]["environment"])
        if name in NODES:
            members = [{"name": one, "http": self.http[one], "raft": self._raft[one]} for one in NODES]
            own |= {
                "QUORL_NODE__HTTP": self.http[name],
                "QUORL_NODE__RAFT": self._raft[name],
                "QUORL_NODE__DATA_DIR": str(self._directory / name),
                "QUORL_CLUSTER__MEMBERS": json.dumps(members),
                "QUORL_SERVER": self.http[name],  # in its container it is on port 7101 of this very machine
            }
        else:
            for one in NODES:
                own["QUORL_SERVER"] = own["QUORL_SERVER"].replace(f"{one}:7101", self.http[one])
        return {**quiet, **own, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def start(self, name: str) -> None:
        mounted = {"/etc/quorl/node.toml": str(ROOT / "deploy" / "compose.toml")}
        command = [mounted.get(word, word) for word in self.services[name]["command"]]
        with (self._directory / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, cwd=self._directory, env=self.environment(name), stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, start_new_session=True,  # noqa: PLW1509 - as nodes
            )  # fmt: skip

    def healthy(self, name: str) -> bool:
        kind, *words = self.services[name]["healthcheck"]["test"]
        command = words if kind == "CMD" else ["sh", "-c", *words]
        return subprocess.run(command, env=self.environment(name), capture_output=True, check=False).returncode == 0

    def wait_healthy(self, *names: str) -> None:
        for name in names:
            log = self._directory / f"{name}.log"
            until(lambda name=name: self.healthy(name), f"{name} to be healthy", READY_S, log.read_text)  # type: ignore[misc]

    def stop(self, name: str) -> int:
        self.running[name].send_signal(signal.SIGTERM)
        return self.running[name].wait(float(self.services[name]["stop_grace_period"].removesuffix("s")))


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    made = Containers(tmp_path)
    yield made
    for process in made.running.values():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def test_d15_what_docker_compose_starts_is_a_cluster_with_two_workers(containers: Containers) -> None:
    assert not containers.healthy("n1")
    for name in NODES:
        containers.start(name)
    containers.wait_healthy(*NODES)
    assert not containers.healthy("w1")
    for name in ("w1", "w2"):
        containers.start(name)
    containers.wait_healthy("w1", "w2")
    url = f"http://{containers.http['n2']}"
    made = call(url, "POST", "/v1/queues/default/tasks", {"name": "demo.add", "args": [4, 5]}).json
    assert call(url, "GET", f"/v1/tasks/{made['id']}/result?wait=20").json["result"] == 9
    assert containers.stop("w1") == 0
    assert not containers.healthy("w1")
    assert [containers.stop(name) for name in ("w2", *NODES)] == [0, 0, 0, 0]


def test_d15_what_node_init_writes_for_containers_is_a_cluster(tmp_path: Path) -> None:
    """Three plain processes from its services: they use the network of this machine, and ``.`` is ``/var/lib/quorl``."""
    words = ("node", "init", "--cluster", "made", "--members", "127.0.0.1,127.0.0.1,127.0.0.1", "--out", str(tmp_path))
    subprocess.run([BIN / "quorl", *words], check=True, capture_output=True)
    files = [tmp_path / "compose.yaml", *(tmp_path / name / "node.toml" for name in NODES)]
    for place, port in zip(
        [f":{port + number}" for port in (7101, 7201) for number in range(3)], free_ports(6), strict=True
    ):
        for file in files:  # the ports of this test, in the place of those that somebody may use
            file.write_text(file.read_text().replace(place, f":{port}"))
    services = yaml.safe_load(files[0].read_text().replace("/var/lib/quorl", str(tmp_path)))["services"]
    quiet = {key: text for key, text in os.environ.items() if not key.startswith("QUORL_")}
    seen = {name: {**quiet, **one["environment"], "PATH": f"{BIN}:/usr/bin:/bin"} for name, one in services.items()}
    with contextlib.ExitStack() as stack:
        for name in NODES:
            log = stack.enter_context((tmp_path / f"{name}.log").open("ab"))
            process = subprocess.Popen(
                services[name]["command"], env=seen[name], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent, start_new_session=True,  # noqa: PLW1509 - as nodes
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
        for name in NODES:
            ready = services[name]["healthcheck"]["test"][1:]
            until(
                lambda name=name, ready=ready: subprocess.run(ready, env=seen[name], check=False).returncode == 0,  # type: ignore[misc]
                f"{name} to be ready", READY_S, (tmp_path / f"{name}.log").read_text,
            )  # fmt: skip
        url = seen["n3"]["QUORL_SERVER"]
        assert call(url, "POST", "/v1/topics", {"name": "here"}).status == 201
        assert all((tmp_path / "data" / name).is_dir() for name in NODES)
        told = [call(seen[name]["QUORL_SERVER"], "GET", "/v1/cluster").json["settings"] for name in NODES]
        assert told[0] == told[1] == told[2]
        assert told[0]["secret_fingerprint"] == fingerprint((tmp_path / "n1" / "cluster.secret").read_bytes().strip())


class Supervisor:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(READY_S)
        self.environment = {"NOTIFY_SOCKET": str(path)}

    def told(self) -> str:
        return self._socket.recv(4096).decode()

    def heard(self) -> set[str]:
        """What was told already."""
        told = set()
        while select.select([self._socket], [], [], 0)[0]:
            told.add(self.told())
        return told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "notify")
    yield made
    made.close()


def command_of(unit: str, **words: str) -> list[str]:
    """What a unit starts, with the programs of this environment and what its variables would be."""
    text = (ROOT / "deploy" / "systemd" / unit).read_text()
    (line,) = (line.partition("=")[2] for line in text.splitlines() if line.startswith("ExecStart="))
    for name, value in words.items():
        line = line.replace("${" + name + "}", value).replace("$" + name, value).replace(name, value)
    return line.replace("/opt/quorl/bin", str(BIN)).split()


def test_d15_systemd_is_told_of_a_node_and_of_a_worker(tmp_path: Path, supervisor: Supervisor) -> None:
    (config,) = write_configs(tmp_path, size=1)
    url = "http://" + config.read_text().partition('http = "')[2].partition('"')[0]
    node_command = [word.replace("/etc/quorl/node.toml", str(config)) for word in command_of("quorl.service")]
    words = {"QUORL_WORKER_APP": "quorl.demo:app", "QUORL_WORKER_OPTIONS": "--concurrency 2", "%H-%i": "here-1"}
    environment = {**os.environ, **supervisor.environment, "QUORL_SERVER": url}
    with contextlib.ExitStack() as stack:

        def start(command: list[str], **more: str) -> subprocess.Popen[bytes]:
            quiet = stack.enter_context((tmp_path / "output").open("ab"))
            process = subprocess.Popen(
                command,
                env={**environment, **more},
                stdout=quiet,
                stderr=quiet,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        node = start(node_command, WATCHDOG_USEC="200000")
        assert supervisor.told().startswith("READY=1\nSTATUS=serving on 127.0.0.1:")
        assert call(url, "GET", "/startupz").status == 200
        began = time.monotonic()
        assert supervisor.heard() <= {"WATCHDOG=1"}  # which have gathered while this process was late
        assert [supervisor.told() for _ in range(3)] == ["WATCHDOG=1"] * 3
        assert time.monotonic() - began >= 0.15
        worker = start(command_of("quorl-worker@.service", **words))
        while (said := supervisor.told()) == "WATCHDOG=1":
            pass
        assert said.startswith("READY=1\nSTATUS=worker ")
        for process in (worker, node):
            process.terminate()
            while (said := supervisor.told()) == "WATCHDOG=1":
                pass
            assert said == "STOPPING=1"
            assert process.wait(GRACE_S) == 0
