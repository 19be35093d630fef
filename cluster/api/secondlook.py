"""A second look at a state that SQLite has called damaged: it says the same when the disk did not give a page back.

Invariants: nothing is written, and nothing but advice follows from it: the node has stopped, and stays so. It takes a second
at most, for the process holds its sockets meanwhile; where it comes to no end, the state counts as damaged.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from quorl.cluster.consensus.statefile import STATE_NAME

LOOK_S = 1.0
"""The whole look, so that the process ends soon: of what is larger than a disk reads in that time nothing is said."""
_PIECE_BYTES = 1024 * 1024
"""Read at a time, and the clock looked at in between."""
_STEPS = 10_000
"""So many instructions of SQLite's take far less than a millisecond."""


def second_look(directory: Path) -> str | None:
    """What to do instead, if it is the disk and not the file; None if the file is damaged, or too large to say."""
    until = time.monotonic() + LOOK_S
    for name in (STATE_NAME, f"{STATE_NAME}-wal"):
        with contextlib.suppress(FileNotFoundError):
            refused = _refused(directory / name, until)
            if refused is not None:
                return (
                    f"The disk does not give it back ({name}, {refused}); the file may be sound. See what the system says of "
                    "that disk (dmesg). While a majority of the other members is healthy (quorl cluster status), start this "
                    "node on a sound disk with an empty data directory: the others will refill it. Else let the others come "
                    "up first: what this disk still gives back may be the only copy."
                )
    if time.monotonic() < until and _is_whole(directory / STATE_NAME, until):
        return (
            f"Read once more, {STATE_NAME} is whole: the disk has probably not given it back for a moment. See what the "
            "system says of that disk (dmesg), and start this node again; nothing acknowledged is lost. If it stops so once "
            "more, replace the disk."
        )
    return None


def _refused(path: Path, until: float) -> str | None:
    """Where the system does not give a file back, and what it says."""
    with path.open("rb", buffering=0) as file:
        offset = 0
        while time.monotonic() < until:
            try:
                piece = os.pread(file.fileno(), _PIECE_BYTES, offset)
            except OSError as error:
                return f"byte {offset}: {(error.strerror or str(error)).lower()}"
            if not piece:
                break
            offset += len(piece)
    return None


def _is_whole(path: Path, until: float) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.Error:
        return False
