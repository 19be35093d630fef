"""Printing data: tables for people, JSON for programs.

On a terminal tables are drawn by rich; elsewhere they are plain text with full values, because whoever reads a pipe wants
all of it. Names come from anybody, so control characters are shown and never sent to a terminal; the values of messages
go out as they are.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import click

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Show: TypeAlias = Callable[[Sequence[str], Sequence[Sequence[object]]], None]

GAP = "  "
COLUMN_CHARS = 8
ID_CHARS = 36
"""What stands first is copied, and stays in one piece up to this length while the terminal has room for it."""


def is_terminal() -> bool:
    """Whether stdout is one."""
    return sys.stdout.isatty()


def clean(text: object) -> str:
    """Return one line of text without control characters."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str] = (), headed: bool = True
) -> None:
    """Print a table; the columns named in ``numbers`` stand to the right. ``headed``: with their names."""
    lines = [[clean(cell) for cell in row] for row in rows]
    if is_terminal():
        _draw(columns, lines, numbers)
        return
    widths = [max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    for line in [list(columns), *lines] if headed else lines:
        cells = [
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        ]
        click.echo(GAP.join(cells).rstrip())


def _draw(columns: Sequence[str], lines: list[list[str]], numbers: Sequence[str]) -> None:
    from rich.console import Console

    Console().print(_drawn(columns, lines, numbers))


def _drawn(columns: Sequence[str], lines: list[list[str]], numbers: Sequence[str]) -> RichTable:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    room = shutil.get_terminal_size().columns - COLUMN_CHARS * (len(columns) - 1)
    for place, name in enumerate(columns):
        longest = max((len(line[place]) for line in lines), default=0)
        whole = place == 0 and longest <= min(ID_CHARS, room)
        drawn.add_column(name, justify="right" if name in numbers else "left", overflow="fold", no_wrap=whole)
    for line in lines:
        drawn.add_row(*[Text(cell) for cell in line])
    return drawn


@contextmanager
def screen(*, live: bool) -> Iterator[Show]:
    """Give a way to show a table again and again: in its place on a terminal, line after line elsewhere."""
    if not live or not is_terminal():
        shown = False

        def append(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
            nonlocal shown
            table(columns, rows, headed=not shown)
            shown = True

        yield append
        return
    from rich.live import Live

    with Live(auto_refresh=False) as drawing:

        def show(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
            drawing.update(_drawn(columns, [[clean(cell) for cell in row] for row in rows], ()), refresh=True)

        yield show


def emit(value: Any) -> None:
    """Print one value as a line of JSON."""
    import msgspec

    write_lines([msgspec.json.encode(value)])


def write_lines(lines: Sequence[bytes]) -> None:
    """Write lines to stdout as they are, at once."""
    sys.stdout.flush()
    out = sys.stdout.buffer
    out.write(b"".join([line + b"\n" for line in lines]))
    out.flush()


def grouped(number: int) -> str:
    """Return a number as people read it: 49 999."""
    return f"{number:,}".replace(",", " ")


def counted(number: int, thing: str) -> str:
    """Return so many things: 1 message, 2 messages."""
    return f"{grouped(number)} {thing}{'' if number == 1 else 's'}"


def rounded(number: float) -> str:
    """Return a number with three digits that count: 26 300."""
    if number < 100:
        return f"{number:.3g}"
    scale = 10 ** (len(str(int(number))) - 3)
    return grouped(round(number / scale) * scale)


def ago(ms: int | None) -> str:
    """Return an age."""
    if ms is None:
        return "–"
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s" if ms < 120_000 else f"{ms // 60_000} min"
