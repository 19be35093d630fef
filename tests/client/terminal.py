"""A terminal of its own for a command: a test reads what stands on it, and types.

Invariants: no read lasts for ever – it ends with the command, or with the time that a slow machine is given – and a test that
waits in vain is told all that was printed.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from fcntl import ioctl
from typing import Any

from quorl.client.local.processes import READY_S
from tests.client.commands import heeding_interrupts


class Terminal:
    """A command of ours, and what it prints. Use ``terminal()``."""

    def __init__(self, *words: str, environment: Mapping[str, str], lines: int = 24, columns: int = 80) -> None:
        self.seen = ""
        """Everything that was printed."""
        self._read = 0
        """How much of it was waited for already."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._descriptor, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = self.settings
        with heeding_interrupts():
            self.process = subprocess.Popen(
                [sys.executable, "-m", "quorl.client.cli", *words],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # noqa: PLW1509 - makes it the terminal of the session
            )
        os.close(theirs)  # or no read would end with the command

    @property
    def settings(self) -> list[Any]:
        """Those of the terminal, as ``stty`` shows them."""
        return termios.tcgetattr(self._descriptor)

    def until(self, pattern: str) -> re.Match[str]:
        """Read until a pattern has come in ``seen`` that was not read before; what came up to its end is then done with."""
        deadline = time.monotonic() + READY_S
        while (found := re.compile(pattern).search(self.seen, self._read)) is None:
            assert time.monotonic() < deadline, f"waited {READY_S:g} s for {pattern!r} in\n{self._unread}"
            if not self._more(0.1):
                assert re.compile(pattern).search(self.seen, self._read), (
                    f"it ended ({self.process.wait(READY_S)}) without {pattern!r}:\n{self._unread}"
                )
        self._read = found.end()
        return found

    def ended(self) -> int:
        """Read on until the command has ended; returns its exit code."""
        deadline = time.monotonic() + READY_S
        while self._more(0.1):
            assert time.monotonic() < deadline, f"waited {READY_S:g} s for its end after\n{self._unread}"
        return self.process.wait(READY_S)

    def press(self, key: str) -> None:
        """Type something."""
        os.write(self._descriptor, key.encode())

    def close(self) -> None:
        """Close the window."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1  # its number is soon another file's

    @property
    def _unread(self) -> str:
        return self.seen[self._read :]

    def _more(self, wait_s: float) -> bool:
        """Take what comes in this time, if anything does; returns whether more can come."""
        if not select.select([self._descriptor], [], [], wait_s)[0]:
            return True
        try:
            self.seen += self._decoder.decode(os.read(self._descriptor, 65536))
        except OSError:  # nobody has the other end any more
            return False
        return True


@contextlib.contextmanager
def terminal(*words: str, environment: Mapping[str, str], **size: int) -> Iterator[Terminal]:
    """Run a command on a terminal; it ends with the test."""
    opened = Terminal(*words, environment=environment, **size)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        opened.close()
