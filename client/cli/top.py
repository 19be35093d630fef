"""``quorl top``: the overview of everything on one screen, made anew every second, until q.

What does not fit on the screen is counted, never half shown. Elsewhere than on a terminal it is printed once, in full.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from quorl.client.cli import output
from quorl.client.cli.cluster import round_trip
from quorl.client.cli.common import Settings, common_options
from quorl.client.cli.glance import beats_text
from quorl.client.cli.queue import HEALTH
from quorl.client.cli.times import span

if TYPE_CHECKING:
    from rich.console import RenderableType

    from quorl.cluster.protocol import overview as o
    from quorl.cluster.protocol.system import MemberInfo

ASK_S = 2.0
"""Until what was seen last is said to be old."""
BLOCKS = " ▁▂▃▄▅▆▇█"
SPARK_CELLS = 12
ALERTS_MAX = 5
"""Cells of a curve, and lines of alerts above the tables."""
_QUIT = frozenset("qQ\x03\x04\x1b")


class Section(NamedTuple):
    """A table of the screen, how many rows the overview has left out, and which columns give way where there is no room."""

    columns: Sequence[str]
    rows: list[Sequence[object]]
    numbers: Sequence[str]
    more: int = 0
    spare: Sequence[str] = ()
    loose: Sequence[str] = ()


@click.command(short_help="Show everything on one screen; q quits.")
@click.option(
    "--every", type=click.FloatRange(min=0.2), default=1.0, show_default=True, metavar="SECONDS", help="Look so often."
)
@click.option("--once", is_flag=True, help="Print it once, and end; so it is anyway where no terminal is.")
@common_options
def top(settings: Settings, every: float, once: bool) -> None:
    """Show everything on one screen: members, queues, workers, topics, and what somebody should look at. q quits."""
    from quorl.client.errors import QuorlError
    from quorl.cluster.protocol.overview import GetOverview

    with settings.client() as client:
        seen = client.call(GetOverview())
        if settings.as_json:
            output.emit(seen)
            return
        if once or not output.is_terminal() or not sys.stdin.isatty():
            _print(seen)
            return

        def look() -> tuple[o.Overview | None, str]:
            try:
                return client.call(GetOverview(), timeout_s=min(ASK_S, settings.timeout_s)), ""
            except QuorlError as error:
                return None, error.detail

        try:
            _live(settings, seen, look, every)
        except KeyboardInterrupt:
            return  # wherever it came: the screen and the terminal are as they were


def _print(seen: o.Overview) -> None:
    click.echo(headline(seen))
    for alert in seen.alerts:
        click.echo(f"! {output.clean(alert.text)}")
    for section in sections(seen):
        if not section.rows:
            continue
        click.echo()
        output.table(section.columns, section.rows, numbers=section.numbers, spare=section.spare, loose=section.loose)
        if section.more:
            click.echo(f"and {output.grouped(section.more)} more")


# -- what there is to see ------------------------------------------------------------------------------------------
def headline(seen: o.Overview) -> str:
    """Return the cluster in one line."""
    totals, counts = seen.totals, seen.totals.counts
    waiting = counts.queued + counts.scheduled + counts.retry
    health = {"ok": "OK", "degraded": "DEGRADED", "no_quorum": "NO QUORUM"}[seen.health]
    dead = f", {totals.workers_dead} DEAD" if totals.workers_dead else ""
    return " · ".join(
        [
            output.clean(seen.cluster),
            health,
            f"leader {seen.leader or 'none'} (term {seen.term})",
            f"in {output.rate(totals.submitted_s)}/s, done {output.rate(totals.succeeded_s)}/s",
            f"{output.grouped(waiting)} waiting, {output.grouped(counts.processing)} running",
            f"{output.counted(totals.workers_alive, 'worker')}{dead}",
            f"messages {output.rate(totals.appended_s)}/s",
        ]
    )


def sections(seen: o.Overview) -> list[Section]:
    """Return the tables, in the order in which they are worth the room."""
    return [
        Section(
            ("NODE", "ROLE", "STATE", "HTTP", "APPLIED", "LAG", "RTT", "UPTIME"),
            [_member(seen, one) for one in seen.members],
            ("APPLIED", "LAG", "RTT", "UPTIME"),
            spare=("UPTIME", "RTT", "HTTP"),
            loose=("NODE",),
        ),
        Section(
            ("QUEUE", "HEALTH", "WAITING", "RUNNING", "FAILED", "IN/s", "DONE/s", "IN (2 min)", "OLDEST", "BUSY"),
            [_queue(one) for one in seen.queues],
            ("WAITING", "RUNNING", "FAILED", "IN/s", "DONE/s", "OLDEST", "BUSY"),
            seen.queues_more,
            spare=("IN (2 min)", "BUSY", "DONE/s", "IN/s"),
            loose=("QUEUE",),
        ),
        Section(
            ("WORKER", "NAME", "STATUS", "QUEUES", "BUSY", "DONE", "LAST BEAT", "BEATS (2 min)", "NOW"),
            [_worker(one) for one in seen.workers],
            ("WORKER", "BUSY", "DONE", "LAST BEAT"),
            seen.workers_more,
            spare=("BEATS (2 min)", "DONE", "QUEUES", "LAST BEAT"),
            loose=("NAME", "QUEUES", "NOW"),
        ),
        Section(
            ("TOPIC", "MESSAGES", "IN/s", "CONSUMERS", "WORST LAG"),
            [_topic(one) for one in seen.topics],
            ("MESSAGES", "IN/s", "CONSUMERS", "WORST LAG"),
            seen.topics_more,
            spare=("CONSUMERS", "IN/s"),
            loose=("TOPIC",),
        ),
    ]


def _member(seen: o.Overview, one: MemberInfo) -> Sequence[object]:
    role = "LEADER" if one.name == seen.leader else one.role
    state = output.state(one.state)
    known = [output.NOTHING if number is None else output.grouped(number) for number in (one.applied_index, one.lag)]
    return one.name, role, state, one.http, *known, round_trip(one), span(one.uptime_ms)


def _queue(one: o.OverviewQueue) -> Sequence[object]:
    counts = one.counts
    waiting = counts.queued + counts.scheduled + counts.retry
    numbers = map(output.grouped, (waiting, counts.processing, counts.failed))
    rates = map(output.rate, (one.submitted_s, one.succeeded_s))
    line = output.NOTHING if one.spark is None else spark(one.spark.submitted)
    health = "FULL" if one.full and one.health == "ok" else HEALTH[one.health]
    return one.queue, health, *numbers, *rates, line, span(one.oldest_ms), f"{one.busy}/{one.slots}"


def _worker(one: o.OverviewWorker) -> Sequence[object]:
    alive = one.status == "ALIVE"
    names: dict[str, int] = {}
    for task in one.running:
        names[task.name] = names.get(task.name, 0) + 1
    now = ", ".join(name if count == 1 else f"{name} ×{count}" for name, count in names.items()) or "–"
    return (
        one.worker_id,
        one.name,
        f"{one.status} (quiet)" if alive and one.quiet else one.status,
        ",".join(one.queues),
        f"{one.leases}/{one.concurrency}" if alive else output.NOTHING,
        output.grouped(one.succeeded),
        span(one.silent_ms),
        beats_text(one),
        now,
    )


def _topic(one: o.OverviewTopic) -> Sequence[object]:
    lag = output.NOTHING if one.worst_lag is None else output.grouped(one.worst_lag)
    return one.topic, output.grouped(one.messages), output.rate(one.appended_s), one.consumers, lag


def spark(numbers: Sequence[int], cells: int = SPARK_CELLS) -> str:
    """Return a curve of the last numbers as blocks, the highest of them as a full one; nothing is a blank."""
    shown = numbers[-cells:]
    most = max(shown, default=0)
    return "".join(BLOCKS[0 if not number else 1 + (len(BLOCKS) - 2) * number // most] for number in shown)


# -- the screen ----------------------------------------------------------------------------------------------------
def _given_way(columns: Sequence[str], cells: list[list[str]], loose: Sequence[str], width: int) -> list[int]:
    """Return how wide each column is: where there is too little room the loose ones give way, and numbers stay whole."""
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    missing = sum(widths) + len(output.GAP) * (len(widths) - 1) - width
    for place, name in enumerate(columns):
        if missing > 0 and name in loose:
            given = min(missing, max(0, widths[place] - output.LOOSE_CHARS))
            widths[place], missing = widths[place] - given, missing - given
    return widths


def page(seen: o.Overview, trouble: str, width: int, height: int) -> RenderableType:
    """Return the screen: rows that do not fit are counted, and columns that matter less give way."""
    from rich.console import Group
    from rich.text import Text

    lines: list[RenderableType] = [Text(headline(seen), style="bold", no_wrap=True, overflow="ellipsis")]
    if trouble:
        lines.append(Text(f"! as it was: {output.clean(trouble)}", style="bold red", no_wrap=True, overflow="ellipsis"))
    elif seen.read_only is not None:
        lines.append(Text(f"! {output.clean(seen.read_only)}", style="bold red", no_wrap=True, overflow="ellipsis"))
    for alert in seen.alerts[:ALERTS_MAX]:
        style = "red" if alert.severity == "critical" else "yellow"
        lines.append(Text(f"! {output.clean(alert.text)}", style=style, no_wrap=True, overflow="ellipsis"))
    room = height - len(lines) - 1  # the last line says how to leave
    for section, rows in zip(sections(seen), shares([len(one.rows) for one in sections(seen)], room), strict=True):
        if rows is None:
            continue
        cells = [[output.clean(cell) for cell in row] for row in section.rows[:rows]]
        columns, cells = output.fitted(section.columns, cells, section.spare, section.loose, width)
        table = output.drawn(columns, cells, section.numbers)
        for column, chars in zip(table.columns, _given_way(columns, cells, section.loose, width), strict=True):
            column.no_wrap, column.overflow, column.max_width = True, "ellipsis", chars
        hidden = len(section.rows) - rows + section.more
        lines += [Text(f"… {output.grouped(hidden)} more" if hidden else ""), table]
    lines.append(Text(f"{seen.node} · q quits", style="dim"))
    return Group(*lines)


def shares(counts: Sequence[int], room: int) -> list[int | None]:
    """Return how many rows of each table are shown: each has two lines of its own; None: not even one row fits."""
    given: list[int | None] = [None] * len(counts)
    for place, count in enumerate(counts):
        if count and room >= 3:
            given[place] = 1
            room -= 3
    while room > 0:
        wanting = [place for place, rows in enumerate(given) if rows is not None and rows < counts[place]]
        if not wanting:
            break
        for place in wanting[:room]:
            given[place] = (given[place] or 0) + 1
        room -= len(wanting[:room])
    return given


def _live(
    settings: Settings, seen: o.Overview, look: Callable[[], tuple[o.Overview | None, str]], every_s: float
) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(no_color=None if settings.color else True, highlight=False)
    trouble = ""
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            live.update(page(seen, trouble, console.width, console.height), refresh=True)
            if pressed(max(0.05, began + every_s - time.monotonic())) & _QUIT:
                return
            fresh, trouble = look()
            seen = fresh or seen


@contextmanager
def _keys() -> Iterator[Callable[[float], frozenset[str]]]:
    """Give a way to wait for keys, so many seconds at most; keys come as they are pressed, without a line's end."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> frozenset[str]:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return frozenset(os.read(descriptor, 64).decode(errors="replace") or "\x04") if ready else frozenset()

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
