"""The command line in tests: in this process, or as a process of its own with real pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from click.testing import Result

from tests.client.stand_in import StandIn

Quorl = Callable[..., Result]


def start(cluster: StandIn, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "QUORL_SERVER": cluster.servers}
    command = [sys.executable, "-m", "quorl.client.cli", *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, **{**pipes, **options})


def run(cluster: StandIn, data: bytes, *words: str) -> tuple[int, str, str]:
    process = start(cluster, *words)
    out, err = process.communicate(data, timeout=60)
    return process.returncode, out.decode(), err.decode()
