"""Whether the end of the state's file is missing: SQLite itself would go on, and lack pages when it comes to them.

A file that is shorter than it says is no damage by itself: the pages behind its end may all stand in the write-ahead log,
as after any kill. So the pages are looked for there, by their frames' heads alone, and only those that are nowhere give
rise to a look through everything, which has the last word: a page that holds nothing need not be written anywhere.

Invariant: looking changes no file. A connection that may write takes the log over into the file when it is closed, which
fills the gap with zeros; so this one may only read, and whoever opens a state looks first.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from quorl.cluster.consensus.damage import is_damage

_MAGIC = b"SQLite format 3\0"
_HEAD_BYTES = 32
_PAGE_BYTES_MIN = 512
"""As SQLite's file format has it: the log's head, which is also as much of the state's as is looked at; and the
smallest page."""
_LOCK_BYTE = 0x40000000
"""The page in which this byte lies is never used."""
_LOOK = "PRAGMA quick_check(1)"
_FRAME_HEAD_BYTES = 24
"""Before each page in SQLite's write-ahead log."""
_SALT = slice(16, 24)
"""Of the log's head: what the frames since the log was begun anew repeat, behind 8 bytes of their own."""


def what_is_wrong(path: Path, log: Path) -> tuple[int, str] | None:
    """From which byte on the file is not what it should be, and why; None if nothing is wrong with its ends."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.startswith(_MAGIC[: len(head)]) or 0 < len(head) < _HEAD_BYTES:
        return 0, "not an SQLite database"
    page_bytes = int.from_bytes(head[16:18], "big") if head else 0
    page_bytes = 65_536 if page_bytes == 1 else page_bytes
    if head and page_bytes < _PAGE_BYTES_MIN:
        return 16, f"not an SQLite database: it would have pages of {page_bytes} bytes"
    pages = int.from_bytes(head[28:32], "big")
    shorter = size_bytes, "the file is shorter than it says"
    if not log.exists() or log.stat().st_size == 0:
        return shorter if size_bytes < pages * page_bytes else None
    if size_bytes == 0:
        return shorter  # a log is begun only behind a first page, and SQLite would throw this one away
    return shorter if _lacks_pages(path, log, size_bytes // page_bytes, page_bytes) else None


def _lacks_pages(path: Path, log: Path, there: int, page_bytes: int) -> bool:
    """Whether a page of the state that is behind the end of its file, where ``there`` pages are, is nowhere else."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        missing = set(range(there + 1, pages + 1)) - {_LOCK_BYTE // page_bytes + 1}
        missing -= set(_pages_of(log, page_bytes)) if missing else set()
        return bool(missing) and not _is_sound(connection)


def _is_sound(connection: sqlite3.Connection) -> bool:
    try:
        return bool(connection.execute(_LOOK).fetchone() == ("ok",))
    except sqlite3.DatabaseError as error:  # without some pages it cannot even look
        if not is_damage(error):
            raise
        return False


def _pages_of(log: Path, page_bytes: int) -> Iterator[int]:
    """The pages that frames of a write-ahead log hold. One that was torn is among them; it would be the last."""
    with log.open("rb") as file:
        salt = file.read(_HEAD_BYTES)[_SALT]
        while len(head := file.read(_FRAME_HEAD_BYTES)) == _FRAME_HEAD_BYTES and head[8:16] == salt:
            yield int.from_bytes(head[:4], "big")
            file.seek(page_bytes, 1)
