"""The ports of tests: what one test run was given, no other is."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import Ports, free_base

ANOTHER_RUN = """
import sys
from tests.ports import Ports
ports = Ports(range(int(sys.argv[1]), int(sys.argv[2])), sys.argv[3])
print(ports.base([0, 1]), flush=True)
sys.stdin.read()
"""


def test_two_runs_never_have_the_same_port_until_one_has_ended(tmp_path: Path) -> None:
    first, locks = free_base([0, 1, 2]), str(tmp_path / "locks")
    few = Ports(range(first, first + 3), locks)
    command = [sys.executable, "-c", ANOTHER_RUN, str(first), str(first + 3), locks]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as another:
        assert another.stdout is not None
        theirs = int(another.stdout.readline())
        assert {theirs, theirs + 1, few.base([0])} == {first, first + 1, first + 2}
        with pytest.raises(RuntimeError, match=f"no such ports are free in range.{first}, "):
            few.base([0])
        another.kill()
    assert {few.base([0]), few.base([0])} == {theirs, theirs + 1}


def test_a_port_that_somebody_listens_on_is_not_given_out_and_not_kept(tmp_path: Path) -> None:
    first = free_base([0, 1])
    few = Ports(range(first, first + 2), str(tmp_path / "locks"))
    with socket.create_server(("127.0.0.1", first + 1)), pytest.raises(RuntimeError):
        few.base([0, 1])
    assert few.base([0, 1]) == first
