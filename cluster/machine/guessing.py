"""What was perhaps meant by a name that does not exist, or by the id of a task.

The work is bounded: few names are looked at, those that stand nearest in the order of names, and long ones are not. An id
that was made here ends in the ordinal of its task, by which it is found. Nothing is guessed of one that may have been
forgotten, nor of those that came with their tasks: `order-17` is no slip for `order-16`.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Literal

from quorl.cluster.machine import ids

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

_SHORT = re.compile(r"(.{8})(?:…|\.\.\.)(.{6})").fullmatch
"""An id as workers print it; the second form is what becomes of it where there is no such character."""
_HEX = re.compile(r"[0-9a-f]+", re.ASCII).fullmatch
_TAIL_BITS = 24
"""What the last six digits of an id tell of the ordinal."""
_DIGITS = 12
"""Of the last group of an id that was made here."""
_LIKE_MADE = re.compile(rf"(.{{20,28}})([0-9a-f]{{{_DIGITS}}})", re.ASCII).fullmatch
"""An id that was made here, with what a slip does to its beginning."""
_ORDINAL = f"SELECT {ids.of('t')} FROM tasks t WHERE t.ordinal = ?"
_ORDINALS = f"SELECT {ids.of('t')} FROM tasks t WHERE t.ordinal IN ({','.join('?' * 15 * _DIGITS)})"
_GIVEN = (
    "SELECT given_id FROM (SELECT given_id FROM tasks WHERE given_id >= ? AND given_id < ? ORDER BY given_id DESC LIMIT ?)"
    " WHERE substr(given_id, -6) = ?"
)
SHORT_CANDIDATES_MAX = 10_000
"""The ids that programs make begin alike for a minute; of so many the end is compared, which takes a few milliseconds."""
_NEXT = "SELECT next_ordinal FROM machine"


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


def meant_task(connection: sqlite3.Connection, task_id: str) -> str:
    """What to put behind the news that no task has an id: which one was perhaps meant, or that it is shortened."""
    (next_ordinal,) = connection.execute(_NEXT).fetchone()
    short = _SHORT(task_id)
    if short is not None:
        near = _whole(connection, short[1], short[2], next_ordinal)
        told = " It is shortened, as workers print ids, and no task was found that has one like it."
    else:
        near, told = _misspelt(connection, task_id.lower(), next_ordinal), ""
    return f' Did you mean "{near}"?' if near else told


def _whole(connection: sqlite3.Connection, begin: str, end: str, next_ordinal: int) -> str | None:
    """The id that begins and ends so: among those made here one in 16 million ends like another."""
    near: list[str] = []
    if _HEX(end):
        ordinals = range(int(end, 16), next_ordinal, 1 << _TAIL_BITS)[-SUGGEST_CANDIDATES_MAX:]
        near += [row[0] for ordinal in ordinals for row in connection.execute(_ORDINAL, (ordinal,))]
    # What begins so stands between it with the dash of a UUID behind it, and the same with the character after that.
    near += [row[0] for row in connection.execute(_GIVEN, (f"{begin}-", f"{begin}.", SHORT_CANDIDATES_MAX, end))]
    return next((other for other in near if other.startswith(begin) and other.endswith(end)), None)


def _misspelt(connection: sqlite3.Connection, task_id: str, next_ordinal: int) -> str | None:
    """The id that was made here and differs by a slip from one that nobody has ever had."""
    like = _LIKE_MADE(task_id)
    if like is None:
        return None
    head, ordinal = like[1], int(like[2], 16)
    own = connection.execute(_ORDINAL, (ordinal,)).fetchone()
    if own is not None and _differing(task_id, own[0]) <= _TYPING_ERROR_CHARS:
        return str(own[0])
    if own is None and ordinal < next_ordinal:
        return None  # it may have been forgotten, and is no slip for another of its batch
    slips = [ordinal ^ digit << 4 * place for place in range(_DIGITS) for digit in range(1, 16)]
    near = [str(other) for (other,) in connection.execute(_ORDINALS, slips) if other.startswith(head)]
    return near[0] if len(near) == 1 else None
