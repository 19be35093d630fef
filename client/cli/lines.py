"""Reading lines for ever: as soon as they come, in bounded memory, until the end or Ctrl-C."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import Any, Self

import click

from quorl.client.cli import output

READ_BYTES = 256 * 1024
"""Read at a time."""
LINE_BYTES_MAX = 256 * 1024
"""A longer line could be no message; it is not kept in memory either."""


def open_source(source: str, advice: str = "") -> int:
    """Return the descriptor of a file, or of standard input for ``-``."""
    if source == "-":
        return sys.stdin.fileno()
    try:
        return os.open(source, os.O_RDONLY)
    except OSError as error:
        why = f"cannot read {source}: {error.strerror}"
        if not advice:
            raise click.UsageError(why) from None
        from quorl.client.cli.misuse import Advised

        raise Advised(why, "SOURCE", advice) from None


def read_blocks(
    descriptor: int, interrupt: Interrupt, line_bytes_max: int = LINE_BYTES_MAX
) -> Iterator[list[bytes | None]]:
    """Yield the complete lines of each read as they come; None stands for a line that is too long."""
    rest = b""
    too_long = False
    while chunk := interrupt.read(descriptor):
        first, *more = chunk.split(b"\n")
        if not more:
            rest += first if not too_long else b""
        else:
            lines: list[bytes | None] = [None if too_long else rest + first, *more[:-1]]
            rest, too_long = more[-1], False
            yield lines
        if len(rest) > line_bytes_max:
            rest, too_long = b"", True
    if interrupt.stopped:
        return  # what is left is half a line
    if rest or too_long:
        yield [None if too_long else rest]


class Interrupt:
    """Ctrl-C and SIGTERM: the first ends the reading, and loses nothing that was read; the second ends everything."""

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, Any] = {}
        self._woken, self._wake = -1, -1

    def __enter__(self) -> Self:
        self._woken, self._wake = os.pipe()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._stop)
            except ValueError:
                pass  # not the main thread: whoever runs this there stops it otherwise
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._woken)
        os.close(self._wake)

    def _stop(self, *_: object) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        os.write(self._wake, b"!")

    def read(self, descriptor: int) -> bytes:
        """Return what there is to read, as soon as there is anything; nothing at the end, and when stopped."""
        ready, _, _ = select.select([descriptor, self._woken], [], [])
        return b"" if self._woken in ready else os.read(descriptor, READ_BYTES)


def skipped(number: int, why: str) -> None:
    """Say that a line was left out."""
    click.echo(f"line {output.grouped(number)}: {why}, skipped", err=True)
