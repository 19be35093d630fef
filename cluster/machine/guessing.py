"""What was perhaps meant by a name that does not exist.

The work is bounded: few names are looked at, those that stand nearest in the order of names, and long ones are not.
"""

from __future__ import annotations

import sqlite3
from typing import Literal

_NEAR = {
    "topics": (
        "SELECT name FROM topics WHERE name < ? ORDER BY name DESC LIMIT ?",
        "SELECT name FROM topics WHERE name > ? ORDER BY name LIMIT ?",
    ),
    "queues": (
        "SELECT name FROM queues WHERE deleted = 0 AND name < ? ORDER BY name DESC LIMIT ?",
        "SELECT name FROM queues WHERE deleted = 0 AND name > ? ORDER BY name LIMIT ?",
    ),
}

SUGGEST_CHARS_MAX = 40
SUGGEST_CANDIDATES_MAX = 20
"""A suggestion is looked for among so many names, of at most so many characters; the work is their product."""
_TYPING_ERROR_CHARS = 2
"""One character too many, one missing, one wrong, or two in the wrong order; not more."""


def meant(connection: sqlite3.Connection, table: Literal["topics", "queues"], name: str) -> str:
    """A question to put behind the news that a name does not exist; nothing if no other name is like it."""
    near = suggest(connection, table, name)
    return f' Did you mean "{near}"?' if near else ""


def suggest(connection: sqlite3.Connection, table: Literal["topics", "queues"], name: str) -> str | None:
    """The name that was perhaps meant, among those that stand nearest in the order of names."""
    if len(name) > SUGGEST_CHARS_MAX:
        return None
    near = [row for side in _NEAR[table] for row in connection.execute(side, (name, SUGGEST_CANDIDATES_MAX // 2))]
    judged = [(_differing(name, other), other) for (other,) in near if len(other) <= SUGGEST_CHARS_MAX]
    differing, other = min(judged, default=(len(name), ""))
    return other if differing <= _TYPING_ERROR_CHARS and 2 * differing < len(name) else None


def _differing(name: str, other: str) -> int:
    """How many characters lie between what two names begin with and what they end with."""
    shorter, begin, end = min(len(name), len(other)), 0, 0
    while begin < shorter and name[begin] == other[begin]:
        begin += 1
    while end < shorter - begin and name[-1 - end] == other[-1 - end]:
        end += 1
    return max(len(name), len(other)) - begin - end
