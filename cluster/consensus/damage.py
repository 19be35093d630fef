"""How a damaged file is reported: where, what it means, what to do. A node never guesses and never goes on."""

from __future__ import annotations

import sqlite3

from quorl.cluster.consensus.port import Damaged, OtherFormat

REMEDY = (
    "This node stays down rather than guess, and the other members go on without it. See first that a majority of them "
    "is healthy (quorl cluster status). Then put back the files as they were when the node stopped, or move this node's "
    "whole data directory away and start it again: the others will refill it."
)


def damaged(name: str, offset: int | None, meaning: str) -> Damaged:
    """The refusal for one file; ``offset`` is the byte at which the trouble begins, None for the file as a whole."""
    where = name if offset is None else f"{name}, byte {offset}"
    return Damaged(f"{where}: {meaning}. {REMEDY}")


def other_format(name: str, written: int | str, read: int) -> OtherFormat:
    """The refusal of a file of another version of quorl."""
    return OtherFormat(f"{name} is written in format {written}, and this quorl reads format {read}.")


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says by it that a file is not what it wrote there."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
