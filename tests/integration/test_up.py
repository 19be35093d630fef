"""E6: ``quorl up`` on a terminal: three nodes, a worker, and a key that kills the leader and prints the measured failover."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from quorl.client import Client
from quorl.client.local.ports import holder
from quorl.client.local.processes import until
from tests.client.terminal import Terminal, terminal
from tests.harness import READY_S
from tests.ports import free_base

WORKING = [sys.executable, "-m", "quorl.client.cli"]


@contextlib.contextmanager
def up(home: Path, *options: str) -> Iterator[Terminal]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("QUORL_")}
    with terminal(
        "up", *options, environment=environment | {"XDG_STATE_HOME": str(home), "TMPDIR": str(home)}
    ) as opened:
        yield opened


def base() -> str:
    """From where on a cluster of three finds its ports free, and, where somebody comes before it, the next one, too."""
    return str(free_base([step + room + number for step in (0, 200) for room in (0, 100) for number in (1, 2, 3)]))


def ours(home: Path) -> list[str]:
    """The processes that have to do with a directory."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_text().replace("\0", " ")
            environment = (folder / "environ").read_text(errors="replace")
            if f"XDG_STATE_HOME={home}" in environment and "quorl" in command:
                found.append(command)
    return found


def nothing_runs(home: Path) -> None:
    until(lambda: not ours(home), "everything to end", READY_S, lambda: str(ours(home)))


def test_e6_a_key_kills_the_leader_and_says_what_that_cost(tmp_path: Path) -> None:
    with up(tmp_path, "--port-base", base()) as screen:
        screen.until(r"n\d  http \S+  raft \S+  LEADER   term \d")
        screen.until(r"worker w-demo  queue demo  tasks .*demo\.add")
        screen.until(r"Ready in [\d.]+ s")
        url = screen.until(r"dashboard   (http://127\.0\.0\.1:\d+)/")[1]
        with Client(url) as client:
            found = client.tasks.submit("demo.add", [4, 5], queue="demo")
            assert client.tasks.wait(found.id, timeout_s=READY_S).result == msgspec.Raw(b"9")
        screen.press("?")
        screen.until("kill the leader with SIGKILL")
        screen.press("k")
        killed = screen.until(r"(n\d) is to get SIGKILL")[1]
        line = screen.until(
            r"(n\d) leads after [\d.]+ m?s, term \d+ · writes paused for [\d.]+ m?s"
            r" · (\d+) of (\d+) acknowledged messages lost · (\d+) of (\d+) tasks lost · (\d+) of (\d+) leases kept"
        )
        assert line[1] != killed
        assert (int(line[2]), int(line[4]), int(line[6]), int(line[7])) == (0, 0, 3, 3)
        assert int(line[3]) > 10
        assert int(line[5]) > 3
        screen.press("k")
        screen.until("2 of 3 nodes run: with one less nothing could be written")
        screen.press("r")
        screen.until(rf"{killed} runs again")
        screen.press("k")
        screen.until(r"leads after .* 0 of \d+ acknowledged messages lost · 0 of \d+ tasks lost · 3 of 3 leases kept")
        screen.press("r")
        screen.until("runs again")
        screen.press("w")
        screen.until("worker w-demo-2 · 2 run")
        screen.press("W")
        screen.until("worker w-demo-2 has left · 1 run")
        screen.press("l")
        screen.until(r"n1\.log\s+\d\d:\d\d:\d\d\.\d{3}  n1  [a-z_A-Z]+  ")
        screen.until(r"w-demo\.log\s+\d\d:\d\d:\d\d\.\d{3}  w-demo  [a-z_]+  ")
        screen.press("\x03")
        screen.until("stopped; the data stays in ")
        assert screen.process.wait(READY_S) == 0
    nothing_runs(tmp_path)
    assert (tmp_path / "quorl" / "dev" / "n1").is_dir()


def test_e6_data_stays_until_it_is_wiped(tmp_path: Path) -> None:
    for options, topics in (([], []), ([], ["kept"]), (["--fresh"], [])):
        with up(tmp_path, "--port-base", base(), "--no-demo", "--nodes", "1", *options) as screen:
            url = screen.until(r"dashboard   (http://127\.0\.0\.1:\d+)/")[1]
            screen.until("keys: ")
            with Client(url) as client:
                assert [topic.name for topic in client.topics.list(consistency="linearizable")] == topics
                client.topics.create("kept")
            screen.press("k")
            screen.until("1 of 1 nodes run")
            screen.process.send_signal(signal.SIGTERM)
            screen.until("stopped; the data stays in")
            assert screen.process.wait(READY_S) == 0


def test_e6_an_ephemeral_cluster_leaves_nothing(tmp_path: Path) -> None:
    with up(tmp_path, "--port-base", base(), "--ephemeral", "--nodes", "1") as screen:
        screen.until("keys: ")
        assert list(tmp_path.glob("quorl-up-*"))
        screen.press("\x03")
        screen.until("stopped; nothing is left")
        assert screen.process.wait(READY_S) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_e6_nothing_outlives_its_terminal_or_its_program(tmp_path: Path, how: str) -> None:
    with up(tmp_path, "--port-base", base()) as screen:
        screen.until("keys: ")
        assert len(ours(tmp_path)) >= 5
        if how == "closed":
            screen.close()
        else:
            screen.process.kill()
        screen.process.wait(READY_S)
        nothing_runs(tmp_path)


def test_e6_ports_that_are_taken_are_named_and_others_found(tmp_path: Path) -> None:
    with up(tmp_path / "one", "--port-base", base(), "--nodes", "1", "--no-demo") as first:
        port = int(first.until(r"dashboard   http://127\.0\.0\.1:(\d+)/")[1])
        first.until("keys: ")
        assert re.fullmatch(r"process \d+ \(.+\)", holder(port))
        with up(tmp_path / "two", "--port-base", str(port - 1), "--nodes", "1", "--no-demo") as second:
            second.until(rf"port {port} is held by process \d+ \(\S+\): ports from {port + 199} on instead")
            assert int(second.until(r"dashboard   http://127\.0\.0\.1:(\d+)/")[1]) == port + 200
            second.until(rf"or first    export QUORL_SERVER=127\.0\.0\.1:{port + 200} ")


def test_e6_one_at_a_time_and_members_stay(tmp_path: Path) -> None:
    with up(tmp_path, "--port-base", base(), "--nodes", "1", "--no-demo") as first:
        first.until("keys: ")
        with up(tmp_path, "--port-base", base()) as second:
            second.until(r"error  a cluster runs in \S+ already")
            second.until(rf"process id {first.process.pid} has it")
            assert second.process.wait(READY_S) == 1
        first.press("\x03")
        first.until("stopped")
    with up(tmp_path, "--port-base", base(), "--nodes", "3") as third:
        third.until("has 1 nodes, not 3")
        third.until("--nodes 1, or --fresh")
        assert third.process.wait(READY_S) == 1


def test_e6_without_a_terminal_it_runs_until_it_is_told(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    command = [*WORKING, "up", "--nodes", "1", "--no-demo", "--port-base", base()]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("stop        Ctrl-C" in line for line in lines)
        process.terminate()
        assert "stopped; the data stays in" in process.stdout.read()
    assert process.returncode == 0
    nothing_runs(tmp_path)
