"""The command line in tests: in this process, or as a process of its own with real pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from click.testing import Result

from tests.client.stand_in import StandIn

Quorl = Callable[..., Result]


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """What starts in here ends by Ctrl-C. A shell's background jobs ignore it, and so does whatever these start in turn."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def environment(cluster: StandIn) -> dict[str, str]:
    """What a command needs to find this code and that cluster."""
    return {**os.environ, "PYTHONPATH": ":".join(sys.path), "QUORL_SERVER": cluster.servers}


@contextmanager
def start(cluster: StandIn, *words: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A command as a terminal starts it; a test that fails does not wait for its end."""
    command = [sys.executable, "-m", "quorl.client.cli", *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with heeding_interrupts():
        started: subprocess.Popen[bytes] = subprocess.Popen(command, env=environment(cluster), **{**pipes, **options})
    with started as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def run(cluster: StandIn, data: bytes, *words: str) -> tuple[int, str, str]:
    with start(cluster, *words) as process:
        out, err = process.communicate(data, timeout=60)
    return process.returncode, out.decode(), err.decode()
