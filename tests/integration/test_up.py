"""E6: ``quorl up`` on a terminal: three nodes, a worker, and a key that kills the leader and prints the measured failover."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from quorl.client import Client
from quorl.client.local.ports import holder
from quorl.client.local.processes import until
from tests.harness import READY_S, free_ports

WORKING = [sys.executable, "-m", "quorl.client.cli"]


class Terminal:
    """A terminal with ``quorl up`` in it, which a test types into and reads."""

    def __init__(self, home: Path, *options: str) -> None:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("QUORL_")}
        environment |= {"XDG_STATE_HOME": str(home), "TMPDIR": str(home)}
        ours, theirs = pty.openpty()
        self.descriptor = ours
        self.text = ""
        self.process = subprocess.Popen(
            [*WORKING, "up", *options],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # noqa: PLW1509 - makes it the terminal of the session
        )
        os.close(theirs)

    def until(self, pattern: str) -> re.Match[str]:
        """Read until a pattern has come that was not read before; what came is then done with."""
        deadline = time.monotonic() + READY_S
        while (found := re.search(pattern, self.text)) is None:
            assert time.monotonic() < deadline, f"waited for {pattern!r} in\n{self.text}"
            if select.select([self.descriptor], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.descriptor, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    assert re.search(pattern, self.text), f"ended without {pattern!r}:\n{self.text}"
        self.text = self.text[found.end() :]
        return found

    def press(self, key: str) -> None:
        os.write(self.descriptor, key.encode())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


@contextlib.contextmanager
def up(home: Path, *options: str) -> Iterator[Terminal]:
    terminal = Terminal(home, *options)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        terminal.close()


def base() -> str:
    return str(free_ports(1)[0])


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
    with up(tmp_path, "--port-base", base()) as terminal:
        terminal.until(r"n\d  http \S+  raft \S+  LEADER   term \d")
        terminal.until(r"worker w-demo  queue demo  tasks .*demo\.add")
        terminal.until(r"Ready in [\d.]+ s")
        url = terminal.until(r"dashboard   (http://127\.0\.0\.1:\d+)/")[1]
        with Client(url) as client:
            found = client.tasks.submit("demo.add", [4, 5], queue="demo")
            assert client.tasks.wait(found.id, timeout_s=READY_S).result == msgspec.Raw(b"9")
        terminal.press("?")
        terminal.until("kill the leader with SIGKILL")
        terminal.press("k")
        killed = terminal.until(r"(n\d) is to get SIGKILL")[1]
        line = terminal.until(
            r"(n\d) leads after \d+ (?:m?s|\.\d s), term \d+ · writes paused for [\d.]+ m?s"
            r" · (\d+) of (\d+) acknowledged messages lost · (\d+) of (\d+) tasks lost · (\d+) of (\d+) leases kept"
        )
        assert line[1] != killed
        assert (int(line[2]), int(line[4]), int(line[6]), int(line[7])) == (0, 0, 3, 3)
        assert int(line[3]) > 10
        assert int(line[5]) > 3
        terminal.press("k")
        terminal.until("2 of 3 nodes run: with one less nothing could be written")
        terminal.press("r")
        terminal.until(rf"{killed} runs again")
        terminal.press("k")
        terminal.until(r"leads after .* 0 of \d+ acknowledged messages lost · 0 of \d+ tasks lost · 3 of 3 leases kept")
        terminal.press("r")
        terminal.until("runs again")
        terminal.press("w")
        terminal.until("worker w-demo-2 · 2 run")
        terminal.press("W")
        terminal.until("worker w-demo-2 has left · 1 run")
        terminal.press("l")
        terminal.until(r"n1\.log\s+\d\d:\d\d:\d\d\.\d{3}  n1  [a-z_A-Z]+  ")
        terminal.until(r"w-demo\.log\s+\d\d:\d\d:\d\d\.\d{3}  w-demo  [a-z_]+  ")
        terminal.press("\x03")
        terminal.until("stopped; the data stays in ")
        assert terminal.process.wait(READY_S) == 0
    nothing_runs(tmp_path)
    assert (tmp_path / "quorl" / "dev" / "n1").is_dir()


def test_e6_data_stays_until_it_is_wiped(tmp_path: Path) -> None:
    for options, topics in (([], []), ([], ["kept"]), (["--fresh"], [])):
        with up(tmp_path, "--port-base", base(), "--no-demo", "--nodes", "1", *options) as terminal:
            url = terminal.until(r"dashboard   (http://127\.0\.0\.1:\d+)/")[1]
            terminal.until("keys: ")
            with Client(url) as client:
                assert [topic.name for topic in client.topics.list(consistency="linearizable")] == topics
                client.topics.create("kept")
            terminal.press("k")
            terminal.until("1 of 1 nodes run")
            terminal.process.send_signal(signal.SIGTERM)
            terminal.until("stopped; the data stays in")
            assert terminal.process.wait(READY_S) == 0


def test_e6_an_ephemeral_cluster_leaves_nothing(tmp_path: Path) -> None:
    with up(tmp_path, "--port-base", base(), "--ephemeral", "--nodes", "1") as terminal:
        terminal.until("keys: ")
        assert list(tmp_path.glob("quorl-up-*"))
        terminal.press("\x03")
        terminal.until("stopped; nothing is left")
        assert terminal.process.wait(READY_S) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_e6_nothing_outlives_its_terminal_or_its_program(tmp_path: Path, how: str) -> None:
    with up(tmp_path, "--port-base", base()) as terminal:
        terminal.until("keys: ")
        assert len(ours(tmp_path)) >= 5
        if how == "closed":
            terminal.close()
        else:
            terminal.process.kill()
        terminal.process.wait(READY_S)
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
