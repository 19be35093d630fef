"""The process: what it prints, what it returns, what it says when it cannot run."""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from typing_extensions import override

import quorl
from quorl import logs
from quorl.cluster.api.exits import Exit
from quorl.cluster.consensus.ballot import Ballot
from quorl.cluster.consensus.disk import RealDisk
from quorl.cluster.consensus.port import Damaged, InUse
from quorl.cluster.main import _what_to_do, explain, main
from quorl.cluster.node.config import Address, Config, load
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "node1.toml"


@pytest.fixture
def config() -> Config:
    return load(CONFIG, {})


@pytest.fixture
def free(tmp_path: Path) -> Path:
    """The config of n1 on ports that nothing on this machine listens on."""
    path, text = tmp_path / "node1.toml", CONFIG.read_text(encoding="utf-8")
    for port, other in zip((7101, 7201), free_ports(2), strict=True):
        text = text.replace(f":{port}", f":{other}")
    path.write_text(text, encoding="utf-8")
    return path


def test_d1_check_starts_nothing(free: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(free), "--check"]) == Exit.STOPPED
    said = capsys.readouterr().out
    node = load(free, {}).node
    assert "node1.toml: good" in said
    assert "node n1 of cluster quorl (n1, n2, n3)" in said
    assert f"http {node.http}  raft {node.raft}" in said
    assert "warning" not in said


@pytest.mark.parametrize("key", ["http", "raft"])
def test_a_check_names_a_port_at_which_another_process_listens(
    free: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = getattr(load(free, {}).node, key)
    with socket.create_server((address.host, address.port)):
        assert main(["-c", str(free), "--check"]) == Exit.MACHINE
    captured = capsys.readouterr()
    assert "good" not in captured.out
    first, why, todo = captured.err.splitlines()
    assert first == f"{free}: the config makes sense, but the node could not start here now"
    assert why == f"[node] {key} = {address} cannot be listened on: address already in use, and not by node n1 of quorl"
    assert todo.startswith(f"Stop what uses port {address.port} (ss -ltnp 'sport = :{address.port}'), or set ")


def test_a_check_of_a_node_that_runs_is_good(free: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As before a rolling restart: the node itself has its ports."""
    node = load(free, {}).node
    with standing_in(node.http, "n1", "quorl", node.raft), socket.create_server((node.raft.host, node.raft.port)):
        assert main(["-c", str(free), "--check"]) == Exit.STOPPED
    assert "good\n" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "cluster"), [("n2", "quorl"), ("n1", "dev")])
def test_a_check_names_another_node_at_the_address(
    free: Path, name: str, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    node = load(free, {}).node
    with standing_in(node.http, name, cluster, node.raft):
        assert main(["-c", str(free), "--check"]) == Exit.MACHINE
    assert (
        f"[node] http = {node.http} cannot be listened on: node {name} of {cluster} has it" in capsys.readouterr().err
    )


def test_a_check_names_the_new_raft_port_of_a_node_that_runs_with_the_old_one(
    free: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = load(free, {}).node
    former = f"127.0.0.1:{free_ports(1)[0]}"
    with standing_in(node.http, "n1", "quorl", former), socket.create_server((node.raft.host, node.raft.port)):
        assert main(["-c", str(free), "--check"]) == Exit.MACHINE
    assert f"[node] raft = {node.raft} cannot be listened on" in capsys.readouterr().err


def test_a_check_of_the_config_of_another_machine_says_so(free: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = free.read_text(encoding="utf-8")
    node = load(free, {}).node
    for address in (node.http, node.raft):
        text = text.replace(address, f"192.0.2.1:{address.port}")
    free.write_text(text.replace("[auth]", '[auth]\nmode = "insecure"'), encoding="utf-8")
    assert main(["-c", str(free), "--check"]) == Exit.STOPPED
    said = capsys.readouterr().out
    assert "good" in said
    assert f"warning: 192.0.2.1:{node.raft.port} is no address of this machine, so node n1 starts on another" in said


@pytest.mark.parametrize("where", ["/proc/quorl", "/proc/self/data/n1", "/dev/null/n1"])
def test_a_check_tries_whether_data_could_be_kept(
    free: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUORL_NODE__DATA_DIR", where)
    assert main(["-c", str(free), "--check"]) == Exit.MACHINE
    captured = capsys.readouterr()
    assert "good" not in captured.out
    first, what, advice = captured.err.splitlines()
    assert first == f"{free}: the config makes sense, but the node could not start here now"
    assert what.startswith(f"[node] data_dir = {where} cannot be written: ")
    assert advice == "Set it to a folder of its own on a local disk."


def test_a_check_leaves_nothing_where_data_is_to_be(free: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["-c", str(free), "--check"]) == Exit.STOPPED
    assert sorted(tmp_path.rglob("*")) == before


def test_a_check_says_what_another_user_may_be_allowed(
    free: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of the service, who is not the one that checks."""

    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["-c", str(free), "--check"]) == Exit.STOPPED
    warned = (
        f"warning: [node] data_dir = {load(free, {}).node.data_dir} cannot be written: permission denied. The user as"
    )
    assert warned in capsys.readouterr().out


def test_a_check_of_a_disk_without_room_says_so(
    free: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=50 * 2**20))
    assert main(["-c", str(free), "--check"]) == Exit.STOPPED
    assert "only 50 MiB are free there" in capsys.readouterr().out

    def refuse(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["-c", str(free), "--check"]) == Exit.MACHINE
    assert capsys.readouterr().err.endswith("cannot be written: no space left on device\nMake room.\n")


def test_a_check_knows_the_data_of_another_node(
    free: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUORL_NODE__DATA_DIR", str(tmp_path / "data"))
    disk = RealDisk(tmp_path / "data")
    ballot = Ballot.birth(disk)
    assert main(["-c", str(free), "--check"]) == Exit.STOPPED
    ballot.claim("n1")
    assert main(["-c", str(free), "--check"]) == Exit.STOPPED
    (tmp_path / "data" / "ballot").unlink()
    Ballot.birth(disk).claim("n2")
    assert main(["-c", str(free), "--check"]) == Exit.DAMAGED
    assert f"data_dir = {tmp_path}/data is the data directory of n2, and this node is n1" in capsys.readouterr().err
    (tmp_path / "data" / "ballot").write_bytes(b"spoilt")
    assert main(["-c", str(free), "--check"]) == Exit.DAMAGED
    assert "the ballot is damaged" in capsys.readouterr().err


@contextlib.contextmanager
def standing_in(address: str, name: str, cluster: str, raft: str) -> Iterator[None]:
    """What answers as a node does that is asked who it is."""
    members = [{"name": name, "raft": raft}]

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/cluster"
            body = json.dumps({"node": name, "name": cluster, "members": members}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    host, _, port = address.rpartition(":")
    with http.server.HTTPServer((host, int(port)), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_d1_a_typo_is_explained_and_nothing_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "node.toml"
    path.write_text(CONFIG.read_text().replace("[raft]", "[raft]\nheartbeat = 100"))
    assert main(["-c", str(path)]) == Exit.CONFIG
    said = capsys.readouterr().err
    assert "unknown key `heartbeat` in [raft]; did you mean `heartbeat_ms`?" in said
    assert said.endswith("1 problem. Nothing was started.\n")
    assert list(tmp_path.iterdir()) == [path]


def test_the_warnings_of_a_check_are_shown(
    free: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUORL_AUTH__MODE", "insecure")
    everywhere = f"0.0.0.0:{load(free, {}).node.http.port}"
    monkeypatch.setenv("QUORL_NODE__HTTP", everywhere)
    assert main(["-c", str(free), "--check"]) == Exit.STOPPED
    assert f"warning: anyone who reaches {everywhere}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code"), [([], Exit.CONFIG), (["--confg", "x"], Exit.CONFIG), (["--help"], 0), (["--version"], 0)]
)
def test_arguments(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert ("--config" in captured.err + captured.out) or f"quorl {quorl.__version__}" in captured.out


@pytest.mark.parametrize(
    ("arguments", "what", "why"),
    [
        ([], "quorl-node needs --config", "usage: quorl-node [-h] -c PATH [--check] [--version]"),
        (["-c"], "quorl-node does not take this --config", "expected one argument"),
        (["-c", "x", "--chekc"], "quorl-node does not take --chekc", "did you mean --check?"),
        (["-c", "x", "y"], "quorl-node does not take y", "usage: quorl-node [-h] -c PATH [--check] [--version]"),
        (["-c", "x", "--check=1"], "quorl-node does not take this --check", "ignored explicit argument '1'"),
    ],
)
def test_wrong_arguments_are_told_as_every_error_is(
    arguments: list[str], what: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == Exit.CONFIG
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"error  {what}", f"why    {why}"]
    assert len(lines) == 3
    assert lines[2].startswith("try    quorl-node --")


def test_a_port_in_use_is_named_with_what_to_do(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = f"127.0.0.1:{holder.getsockname()[1]}"
        busy = load(CONFIG, {"QUORL_NODE__RAFT": taken, "QUORL_NODE__HTTP": f"127.0.0.1:{free_ports(1)[0]}"})
        said = explain(OSError(errno.EADDRINUSE, "address already in use"), busy)
    assert said.startswith(f"[node] raft = {taken} cannot be listened on: address already in use")
    assert "QUORL_NODE__RAFT" in said


def test_an_address_of_another_machine_is_named() -> None:
    config = load(CONFIG, {"QUORL_NODE__HTTP": "192.0.2.1:7101", "QUORL_AUTH__MODE": "insecure"})
    said = explain(OSError(errno.EADDRNOTAVAIL, "cannot assign requested address"), config)
    assert said.startswith("[node] http = 192.0.2.1:7101 cannot be listened on: cannot assign requested address")
    assert "no address of this machine" in said
    assert "running already" not in said


def test_what_to_do_about_an_address_depends_on_what_the_machine_says() -> None:
    low = Address("127.0.0.1:80")
    for refusal, told in (
        (OSError(errno.EACCES, "Permission denied"), "Ports below 1024 are for root: set QUORL_NODE__HTTP"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Is this the config of node n1"),
        (OSError(errno.EADDRINUSE, "Address already in use"), "Is this node running already? Else stop"),
    ):
        assert told in _what_to_do("n1", "http", low, refusal)


def test_a_full_disk_and_a_forbidden_folder_are_named(config: Config) -> None:
    assert "is full" in explain(OSError(errno.ENOSPC, "No space left on device"), config)
    forbidden = PermissionError(errno.EACCES, "Permission denied", "/var/lib/quorl/lock")
    what, advice = explain(forbidden, config).splitlines()
    assert what == "/var/lib/quorl/lock: permission denied"
    assert advice.startswith("The user as whom the node runs must be able to write in [node] data_dir")
    assert explain(OSError(errno.EIO, "Input/output error"), config) == f"{config.node.data_dir}: input/output error"


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        (0, Exit.STOPPED, ""),
        (KeyboardInterrupt(), Exit.STOPPED, ""),
        (
            Damaged("segment 7: bad checksum"),
            Exit.DAMAGED,
            "data/n1 cannot be started from: segment 7: bad checksum\nNothing was changed",
        ),
        (InUse("data/n1 is in use by process 17."), Exit.DAMAGED, "data/n1 is in use by process 17.\n"),
        (OSError(errno.ENOSPC, "No space left on device"), Exit.MACHINE, "the disk of"),
    ],
    ids=["asked", "interrupted", "damaged", "in use", "refused"],
)
def test_the_exit_code_says_why_the_node_stopped(
    ending: int | BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def serve(config: Config) -> int:
        assert config.node.name == "n1"
        if isinstance(ending, BaseException):
            raise ending
        return ending

    server = types.ModuleType("quorl.cluster.api.server")
    monkeypatch.setattr(server, "serve", serve, raising=False)
    monkeypatch.setitem(sys.modules, server.__name__, server)
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # it sets up the whole process
    for key, port in zip(("HTTP", "RAFT"), free_ports(2), strict=True):  # whatever else runs on this machine
        monkeypatch.setenv(f"QUORL_NODE__{key}", f"127.0.0.1:{port}")
    assert main(["--config", str(CONFIG)]) == code
    assert said in capsys.readouterr().err


def test_an_interrupt_while_the_node_loads_what_it_needs_stops_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(types.ModuleType):
        @override
        def __getattribute__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setitem(sys.modules, "quorl.cluster.api.server", Interrupted("quorl.cluster.api.server"))
    assert main(["--config", str(CONFIG)]) == Exit.STOPPED


def test_a_port_in_use_is_said_before_anything_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("QUORL_NODE__RAFT", address)
        monkeypatch.setenv("QUORL_NODE__HTTP", f"127.0.0.2:{taken.getsockname()[1]}")
        monkeypatch.setenv("QUORL_NODE__DATA_DIR", str(tmp_path / "data"))
        assert main(["--config", str(CONFIG)]) == 71
    assert f"raft = {address} cannot be listened on" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_d1_a_bare_checkout_runs(tmp_path: Path, free: Path) -> None:
    """``node.py`` finds the package without being installed, from any directory."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "QUORL_"))}
    command = [sys.executable, str(ROOT / "node.py"), "--config", str(free), "--check"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert "good" in done.stdout
