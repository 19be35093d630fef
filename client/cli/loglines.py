"""Lines of logs for people: one JSON object a line as nodes and workers write them, laid out; anything else as it is.

Values come from anybody, so control characters are shown and never sent to a terminal.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from quorl.client.cli.output import clean

_SHOWN_APART = ("event", "level", "time", "node", "worker", "logger", "exception")
_PLAIN = "info"
_BLOCK_BYTES = 64 * 1024
"""Read at a time, from the end of a file on."""


class Line(NamedTuple):
    """One line of a log, as it stands there and as it is understood."""

    text: str
    """Without its end."""
    at: dt.datetime | None = None
    """When it was written; None if the line does not say."""
    fields: dict[str, Any] | None = None
    """None: it is no line of a node or a worker, but what something else wrote."""


def read(text: str) -> Line:
    """Understand one line."""
    text = text.rstrip("\r\n")
    try:
        fields = json.loads(text)
        at = dt.datetime.fromisoformat(fields["time"])
        return Line(
            text, at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC), {**fields, "event": fields["event"]}
        )
    except (ValueError, KeyError, TypeError):
        return Line(text)


def laid_out(line: Line, *, who: str = "", dated: bool = False) -> str:
    """Return a line for people: when (by the clock here), who, how bad, what, and the details.

    ``who`` stands where the line itself does not say who wrote it; ``dated``: with the day before the time.
    """
    if line.fields is None or line.at is None:
        return "  ".join(filter(None, (who, clean(line.text))))
    fields = line.fields
    at = line.at.astimezone()
    stamp = at.strftime("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S") + f".{at.microsecond // 1000:03d}"
    level = str(fields.get("level", _PLAIN))
    told = [f"{clean(name)}={_value(value)}" for name, value in fields.items() if name not in _SHOWN_APART]
    who = clean(fields.get("node") or fields.get("worker") or who)
    head = [stamp, who, *([] if level == _PLAIN else [level.upper()]), clean(fields["event"]), *told]
    trace = str(fields.get("exception") or "").splitlines()
    return "\n".join(["  ".join(filter(None, head)), *(f"    {clean(one)}" for one in trace)])


def _value(value: Any) -> str:
    """Return a value as it stands behind a name: quoted if it has blanks, as JSON if it is more than a word."""
    if not isinstance(value, str):
        return clean(json.dumps(value, ensure_ascii=False))
    return (
        clean(value)
        if value and " " not in value and '"' not in value
        else clean(json.dumps(value, ensure_ascii=False))
    )


def last(path: pathlib.Path, most: int, wanted: Callable[[Line], bool] = lambda _: True) -> tuple[list[Line], int]:
    """Return the last lines of a file that are wanted, at most so many, and where what is written next begins.

    The file is read from its end, and no further back than it takes.
    """
    found: list[Line] = []
    with path.open("rb") as file:
        at = file.seek(0, 2)
        ends, begun = at, b""
        first_block = True
        while at and len(found) < most:
            begin = max(0, at - _BLOCK_BYTES)
            file.seek(begin)
            begun, *whole = (file.read(at - begin) + begun).split(b"\n")
            at = begin
            if (
                first_block and whole
            ):  # the last one has no end yet: it is told as it stands, and once more when it is whole
                first_block, ends = False, ends - len(whole[-1])
            if not at:
                whole, begun, ends = [begun, *whole], b"", 0 if first_block else ends
            lines = (read(one.decode(errors="replace")) for one in reversed(whole) if one)
            found += itertools.islice(filter(wanted, lines), most - len(found))
    return found[::-1], ends
