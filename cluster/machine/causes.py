"""What tasks died of: the same errors of tasks of one name together, numbers, ids and quoted names in their messages aside.

Invariants: the cause of a task follows from its row and its last error alone, and only from ASCII patterns, so that every
version of Python finds the same; commands depend on it.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3

from quorl.cluster.machine import task_rows
from quorl.cluster.protocol import tasks as k

ERROR_CHARS_MAX = 300
"""So much of an error is shown in lists, and counts where errors are compared."""
_ROW = "SELECT name, reason, timeout_ms FROM tasks WHERE ordinal = ?"
_VARYING = (
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", re.ASCII), "<id>"),
    (re.compile(r"'[^']*'|\"[^\"]*\"", re.ASCII), "'…'"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{8,}\b", re.ASCII), "<hex>"),
    (re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII), "N"),
)
"""What differs between two cases of one error."""


def normalised(error: str) -> str:
    """An error without what differs from case to case."""
    for pattern, word in _VARYING:
        error = pattern.sub(word, error)
    return error


def in_short(error: k.TaskError | None, reason: str | None) -> str:
    """What lists say that a task died of."""
    return reason or "not known" if error is None else task_rows.in_one_line(error)[:ERROR_CHARS_MAX]


def fingerprint(name: str, error: str) -> str:
    """The short name of what a task of that name died of; ``error`` comes from ``in_short``."""
    return hashlib.blake2b(f"{name}\0{normalised(error)}".encode(), digest_size=8).hexdigest()


def cause(connection: sqlite3.Connection, ordinal: int) -> str:
    """The fingerprint of a task's last error."""
    name, reason, timeout_ms = connection.execute(_ROW, (ordinal,)).fetchone()
    return fingerprint(name, in_short(last_error(connection, ordinal, timeout_ms), reason))


def last_error(connection: sqlite3.Connection, ordinal: int, timeout_ms: int | None) -> k.TaskError | None:
    """The error of the last attempt that had one."""
    found = connection.execute(task_rows.LAST_ERROR, (ordinal,)).fetchone()
    return None if found is None else task_rows.error_of(found[0], found[1], timeout_ms)
