"""The package's types, as a user's type checker sees them."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent / "typing"
pytestmark = pytest.mark.timeout(600)  # a checker without a cache on a busy machine: half a minute of a whole core


def check(sample: pathlib.Path) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", str(sample)]
    environment = {"MYPYPATH": "src", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run(command, capture_output=True, check=False, text=True, env=environment).stdout


@pytest.mark.slow
def test_right_uses_are_accepted() -> None:
    assert check(HERE / "accepted.py") == ""


@pytest.mark.slow
def test_wrong_uses_are_refused(tmp_path: pathlib.Path) -> None:
    source = (HERE / "refused.py.txt").read_text(encoding="utf-8")  # no .py, or every checker would complain
    sample = tmp_path / "refused.py"
    sample.write_text(source, encoding="utf-8")
    wanted = {}
    for number, line in enumerate(source.splitlines(), 1):
        if match := re.search(r"  # ([a-z-]+)$", line):
            wanted[number] = match[1]
    found = {}
    for line in check(sample).splitlines():
        if match := re.search(r"refused\.py:(\d+): error: .*\[([a-z-]+)\]$", line):
            found[int(match[1])] = match[2]
    assert found == wanted
