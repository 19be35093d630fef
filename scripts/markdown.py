"""Markdown as the derived passages of ``docs/`` need it."""

from __future__ import annotations

import re
from collections.abc import Sequence


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table."""
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def plain(docstring: str | None) -> str:
    """A docstring as one line."""
    return re.sub(r"``([^`]+)``", r"`\1`", " ".join((docstring or "").split()))
