"""Several runs made into one line or one table row."""

from __future__ import annotations

import datetime as dt
import json
import os
import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def merged(rows: Sequence[Row]) -> Row:
    """Medians of every figure at the top, smallest and largest beside them, and each run's own figures."""
    figures = [
        name for name, value in rows[0].items() if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    out: Row = {name: value for name, value in rows[0].items() if name not in figures}
    columns = {name: [row[name] for row in rows] for name in figures}
    out |= {name: statistics.median(column) for name, column in columns.items()}
    if len(rows) > 1:
        out["min"] = {name: min(column) for name, column in columns.items()}
        out["max"] = {name: max(column) for name, column in columns.items()}
    return out


def line(workload: str, figures: Row, description: Row) -> Row:
    """What is printed for one workload."""
    at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return {"workload": workload, **figures, "at": at, "load1": round(os.getloadavg()[0], 1), **description}


def as_json(row: Row) -> str:
    """One line."""
    return json.dumps(row)


def spread(row: Row, name: str) -> str:
    """A figure for people: the median, and the range of the runs where there were several."""
    value = row.get(name)
    if value is None:
        return ""
    if name not in row.get("min", {}):
        return number(value)
    return f"{number(value)} [{number(row['min'][name])}–{number(row['max'][name])}]"


def number(value: Any) -> str:
    """A figure with as many digits as it deserves."""
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """A Markdown table; columns that no row has are left out."""
    present = [column for column in columns if any(row.get(column) is not None for row in rows)]
    lines = ["| " + " | ".join(present) + " |", "|" + " --- |" * len(present)]
    lines += ["| " + " | ".join(spread(row, column) for column in present) + " |" for row in rows]
    return "\n".join(lines)
