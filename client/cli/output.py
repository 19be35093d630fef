"""Printing data: tables for people, JSON, CSV and names for programs.

On a terminal tables are drawn by rich, which leaves out what matters least if there is no room; elsewhere they are plain
text with full values, because whoever reads a pipe wants all of it. Names come from anybody, so control characters are shown and never sent to a terminal; the values of messages
go out as they are.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import click
from typing_extensions import override

from quorl.client.cli.common import current

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table as RichTable

GAP = "  "
COLUMN_CHARS = 8
"""What every column has where a table is wider than the terminal."""
LOOSE_CHARS = 20
"""Room that a folded column should have at least."""
ID_CHARS = 36
"""What stands first is copied, and stays in one piece up to this length while the terminal has room for it."""


STYLES = {
    "LEADER": "bold",
    "ok": "green",
    "ALIVE": "green",
    "SUCCESS": "green",
    "paused": "yellow",
    "sealed": "yellow",
    "RETRY": "yellow",
    "catching up": "yellow",
    "NO WORKERS": "bold red",
    "FULL": "bold red",
    "UNREACHABLE": "bold red",
    "DISK FULL": "bold red",
    "DEAD": "bold red",
    "FAILED": "red",
    "WARN": "yellow",
    "CRIT": "bold red",
    "UNKNOWN": "yellow",
}
"""By what a cell says."""


class Cell(str):
    """What people read in a table, and beside it what programs get in CSV: a plain number, seconds, the whole text."""

    __slots__ = ("raw",)

    raw: object

    def __new__(cls, text: str, raw: object) -> Self:
        """Join the two."""
        cell = super().__new__(cls, text)
        cell.raw = raw
        return cell


NOTHING = Cell("–", "")


def state(state: str) -> str:
    """Return what is said of a member's state: in capitals what somebody has to see to."""
    words = state.replace("_", " ")
    return words.upper() if state in {"unreachable", "disk_full"} else words


def is_terminal() -> bool:
    """Whether stdout is one."""
    return sys.stdout.isatty()


def clean(text: object) -> str:
    """Return one line of text without control characters."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


def word(name: object) -> str:
    """Return a name as one word of a command that is shown to be copied: a task may be called ``invoice 17``."""
    return shlex.quote(clean(name))


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
    spare: Sequence[str] = (),
    loose: Sequence[str] = (),
    headed: bool = True,
    before: dict[str, int] | None = None,
) -> None:
    """Print a table; the columns named in ``numbers`` stand to the right.

    ``spare``: columns that a terminal without room for all does without, in this order. ``loose``: those that are folded there
    to make room, and no others if it is given. ``headed``: with their names. ``before``: how wide
    columns have been in the tables above this one, where that is no terminal: they are as wide again, so that all stand in line.
    """
    settings = current()
    headed = headed and settings.headers
    if settings.form == "csv":
        _comma_separated(columns, rows, headed=headed)
        return
    if settings.form == "name":
        write_lines([clean(row[0]).encode() for row in rows])
        return
    lines = [[clean(cell) for cell in row] for row in rows]
    if is_terminal():
        if settings.form != "wide":
            columns, lines = fitted(columns, lines, spare, loose, shutil.get_terminal_size().columns)
        _draw(columns, lines, numbers, loose, headed=headed)
        return
    before = {} if before is None else before
    for name, *cells in zip(columns, *lines, strict=True):
        before[name] = max(before.get(name, len(name)), *map(len, cells), 0)
    widths = [before[name] for name in columns]
    for line in [list(columns), *lines] if headed else lines:
        cells = [
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        ]
        click.echo(GAP.join(cells).rstrip())


def _comma_separated(columns: Sequence[str], rows: Sequence[Sequence[object]], *, headed: bool) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if headed:
        writer.writerow(columns)
    for row in rows:
        raw = ["" if cell == NOTHING else getattr(cell, "raw", cell) for cell in row]
        writer.writerow([clean(cell) if isinstance(cell, str) else cell for cell in raw])
    sys.stdout.write(text.getvalue())


def fitted(
    columns: Sequence[str], lines: list[list[str]], spare: Sequence[str], loose: Sequence[str], room: int
) -> tuple[Sequence[str], list[list[str]]]:
    """Leave out columns that matter least until the table fits into ``room``, or none is left to leave out."""
    widths = {
        name: min(max(map(len, cells)), LOOSE_CHARS if name in loose else room) + len(GAP)
        for name, cells in zip(columns, zip(columns, *lines, strict=True), strict=True)
    }
    left_out: list[str] = []
    for name in (*spare, *reversed(spare)):  # what was left out early may fit once something wider is gone
        kept = [column for column in columns if column not in left_out]
        fits = sum(widths[column] for column in kept) - len(GAP) <= room
        if name not in left_out and not fits:
            left_out.append(name)
        elif name in left_out and sum(widths[column] for column in (*kept, name)) - len(GAP) <= room:
            left_out.remove(name)
    places = [place for place, name in enumerate(columns) if name not in left_out]
    return [columns[place] for place in places], [[line[place] for place in places] for line in lines]


def _draw(
    columns: Sequence[str],
    lines: list[list[str]],
    numbers: Sequence[str],
    loose: Sequence[str] = (),
    *,
    headed: bool = True,
) -> None:
    from rich.console import Console

    console = Console(no_color=None if current().color else True, highlight=False)
    console.print(drawn(columns, lines, numbers, loose, headed=headed))


def drawn(
    columns: Sequence[str],
    lines: list[list[str]],
    numbers: Sequence[str],
    loose: Sequence[str] = (),
    *,
    headed: bool = True,
) -> RichTable:
    """Return a table as rich draws it; the cells are clean already."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", show_header=headed)
    room = shutil.get_terminal_size().columns - COLUMN_CHARS * (len(columns) - 1)
    for place, name in enumerate(columns):
        longest = max((len(line[place]) for line in lines), default=0)
        whole = (place == 0 and longest <= min(ID_CHARS, room)) or (bool(loose) and place > 0 and name not in loose)
        drawn.add_column(name, justify="right" if name in numbers else "left", overflow="fold", no_wrap=whole)
    for line in lines:
        drawn.add_row(*[Text(cell, style=STYLES.get(cell, "")) for cell in line])
    return drawn


@contextmanager
def screen(*, live: bool) -> Iterator[Screen]:
    """Give a way to show a table again and again: in its place on a terminal, line after line elsewhere."""
    if not live or not is_terminal():
        yield Screen()
        return
    from rich.live import Live

    with Live(auto_refresh=False) as drawing:
        yield _Drawn(drawing)


class Screen:
    """Tables one after the other, their head once; talk goes to stderr."""

    def __init__(self) -> None:
        self._shown = False
        self._widths: dict[str, int] = {}

    def show(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Show the table of now."""
        table(columns, rows, headed=not self._shown, before=self._widths)
        self._shown = True

    def say(self, text: str) -> None:
        """Say something of now; not with --quiet."""
        current().say(text)


class _Drawn(Screen):
    """One table in its place, and below it what was said since: a line on stderr would land in the middle of the drawing."""

    def __init__(self, drawing: Live) -> None:
        super().__init__()
        self._drawing = drawing
        self._table: RichTable | None = None

    @override
    def show(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self._table = drawn(columns, [[clean(cell) for cell in row] for row in rows], ())
        self._drawing.update(self._table, refresh=True)

    @override
    def say(self, text: str) -> None:
        from rich.console import Group
        from rich.text import Text

        if not current().quiet:
            above = [] if self._table is None else [self._table]
            self._drawing.update(Group(*above, Text(clean(text))), refresh=True)


def emit(value: Any) -> None:
    """Print one value as a line of JSON, or with ``-o ndjson`` a list as a line for each item."""
    import msgspec

    items = value if isinstance(value, list) and current().form == "ndjson" else [value]
    write_lines([msgspec.json.encode(item) for item in items])


def write_lines(lines: Sequence[bytes]) -> None:
    """Write lines to stdout as they are, at once."""
    sys.stdout.flush()
    out = sys.stdout.buffer
    out.write(b"".join([line + b"\n" for line in lines]))
    out.flush()


def grouped(number: int) -> Cell:
    """Return a number as people read it: 49 999."""
    return Cell(f"{number:,}".replace(",", " "), number)


def rate(per_s: float | None) -> Cell:
    """Return a rate with one decimal; None: it is not known."""
    return NOTHING if per_s is None else Cell(f"{per_s:,.1f}".replace(",", " "), per_s)


def counted(number: int, thing: str) -> str:
    """Return so many things: 1 message, 2 messages."""
    return f"{grouped(number)} {thing}{'' if number == 1 else 's'}"


def rounded(number: float) -> str:
    """Return a number with three digits that count: 26 300."""
    if number < 100:
        return f"{number:.3g}"
    scale = 10 ** (len(str(int(number))) - 3)
    return grouped(round(number / scale) * scale)
