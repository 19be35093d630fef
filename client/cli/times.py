"""Durations and moments: read from the command line, and told to people."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import click
from typing_extensions import override

from quorl.client.cli import output
from quorl.cluster.protocol import limits

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_BARE = re.compile(r"\d+(?:\.\d+)?")


def read_duration(text: str) -> int | None:
    """Return a duration like 500ms, 30s, 1.5h or 1h30m in milliseconds; a number alone means seconds. None: it is none."""
    if _BARE.fullmatch(text):
        text += "s"
    if not _DURATION.fullmatch(text):
        return None
    return round(sum(float(number) * _UNITS_MS[unit] for number, unit in _PART.findall(text)))


class Duration(click.ParamType[int]):
    """A duration, as milliseconds."""

    name = "duration"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        ms = read_duration(str(value).strip())
        if ms is None:
            self.fail(f"{value!r} is no duration: write 500ms, 30s, 5m, 2h, 1d or 1h30m", param, ctx)
        if ms > limits.DELAY_MS_MAX:
            self.fail(f"{value!r} is longer than ten years", param, ctx)
        return ms


class Moment(click.ParamType[dt.datetime]):
    """A moment of the calendar; without a zone it is meant where the command runs."""

    name = "moment"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dt.datetime:
        if isinstance(value, dt.datetime):
            return value
        try:
            moment = dt.datetime.fromisoformat(str(value).strip())
            return moment if moment.tzinfo is not None else moment.astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no moment: write 2030-01-31T18:00 or 2030-01-31T18:00:00Z", param, ctx)


def ms_between(earlier: str | None, later: str | None) -> int | None:
    """Return the milliseconds between two moments of an answer; None if one of them is missing."""
    if earlier is None or later is None:
        return None
    span = dt.datetime.fromisoformat(later) - dt.datetime.fromisoformat(earlier)
    return max(0, round(span.total_seconds() * 1000))


def moment(at: str | None) -> output.Cell:
    """Return a moment of an answer as a table shows it: in short on a terminal, as it is elsewhere."""
    if at is None:
        return output.NOTHING
    return output.Cell(f"{at[5:10]} {at[11:19]}Z" if output.is_terminal() else at, at)


def span(ms: int | None) -> output.Cell:
    """Return how long something took: 14 ms, 1.3 s, 9m 44s, 3h 12m, 2d 5h. In CSV it is seconds."""
    return output.NOTHING if ms is None else output.Cell(_span(ms), ms / 1000)


def _span(ms: int) -> str:
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms // 100 / 10} s"
    if ms < 3_600_000:
        return f"{ms // 60_000}m {ms // 1_000 % 60}s"
    if ms < 86_400_000:
        return f"{ms // 3_600_000}h {ms // 60_000 % 60}m"
    return f"{ms // 86_400_000}d {ms // 3_600_000 % 24}h"
