"""Ports of this machine for tests: one that was given out here is given to no other test run for as long as this process lives.

Invariants: they lie below the range that the system hands out to outgoing connections, so that nobody takes a dead node's
port before it starts again; each is marked by a lock on a byte of a file that all test runs of a user share, which the
system lets go of when the process ends, however it does; nobody listened on it when it was given out.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import socket
from collections.abc import Sequence


class Ports:
    """Those of a range that this process may have."""

    def __init__(self, numbers: range, locks: str) -> None:
        self._numbers = numbers
        self._locks = os.open(locks, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        """Never closed: with any descriptor of the file that a process closes it loses all its locks."""
        self._given: set[int] = set()
        """What this process has, whose own locks do not keep it out."""

    def base(self, offsets: Sequence[int]) -> int:
        """A number from which on, at these distances, all ports are ours from now on."""
        bases = range(self._numbers.start, self._numbers.stop - max(offsets))
        for base in random.SystemRandom().sample(bases, len(bases)):  # by chance, so that few are tried in vain
            if self._take([base + offset for offset in offsets]):
                return base
        raise RuntimeError(f"no such ports are free in {self._numbers}: `ss -ltn` and `lslocks` tell who has them")

    def _take(self, ports: list[int]) -> bool:
        """Make all of the ports ours, or none."""
        taken: list[int] = []
        for port in ports:
            if port in self._given or not self._lock(port):
                break
            taken.append(port)
            if not _unused(port):
                break
        else:
            self._given.update(taken)
            return True
        for port in taken:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, port)
        return False

    def _lock(self, port: int) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            return True
        return False


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that no other test run is given."""
    return [free_base([0]) for _ in range(count)]


def free_base(offsets: Sequence[int]) -> int:
    """The same for programs that count their ports from a number on: one of which all these distances are free."""
    return _ours().base(offsets)


def _unused(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


@functools.cache
def _ours() -> Ports:
    # Not in TMPDIR, which is another for each run, while the ports are the same.
    return Ports(range(11_000, 29_000), f"/tmp/quorl-test-ports-{os.getuid()}")
