"""What is left to chance, decided by the leader's dice in the entry: ids of tasks, and how far a back-off is shortened.

Whole numbers only, so that every node comes to the same, whatever its processor.

Invariants: an id that was made has the shape of a UUID of version 7: the moment, 26 bits of the dice, and the ordinal of its
task. So its task is found by that, and neither the id nor an index of such ids is kept. Whoever finds a task by an ordinal
compares the id: others may come with ids of that shape.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from quorl.cluster.protocol.queues import Backoff

_MADE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII).fullmatch
_DOUBLINGS_MAX = 60
"""More than lead from a millisecond to any limit."""
_decode_backoff = msgspec.json.Decoder(Backoff).decode


@lru_cache(maxsize=16)
def die(seed: int) -> int:
    """What the dice give for the ids of all tasks of an entry."""
    return int.from_bytes(_dice(seed, 0, 0)[:4], "big") >> 6


@lru_cache(maxsize=256)
def head(wall_ms: int, die: int) -> str:
    """What the ids of all tasks of an entry begin with; the ordinal follows, as 12 hexadecimal digits."""
    return f"{wall_ms >> 16:08x}-{wall_ms & 0xFFFF:04x}-7{die >> 14:03x}-{0x8000 | die & 0x3FFF:04x}-"


def of(tasks: str) -> str:
    """The id of a task in SQL, where the table of tasks has that name."""
    return (
        f"ifnull({tasks}.given_id, printf('%08x-%04x-7%03x-%04x-%012x', {tasks}.created_ms >> 16,"
        f" {tasks}.created_ms & 0xFFFF, {tasks}.die >> 14, 0x8000 | ({tasks}.die & 0x3FFF), {tasks}.ordinal))"
    )


class ById:
    """A statement for the row of the task with an id; ``select`` ends before its WHERE and calls the tasks ``t``."""

    def __init__(self, select: str) -> None:
        """Prepare it for both kinds of ids."""
        self.made = f"{select} WHERE t.ordinal = ? AND {of('t')} = ?"
        self.given = f"{select} WHERE t.given_id = ?"

    def find(self, execute: Callable[..., sqlite3.Cursor], task_id: str) -> tuple[Any, ...] | None:
        """The row, if there is such a task."""
        row: tuple[Any, ...] | None = None
        if _MADE(task_id):
            row = execute(self.made, (int(task_id[24:], 16), task_id)).fetchone()
        return row or execute(self.given, (task_id,)).fetchone()


def delay_ms(backoff: str, failed: int, seed: int, ordinal: int) -> int:
    """How long a task waits after its ``failed``-th failed attempt, by the JSON of its back-off."""
    plan = _decode_backoff(backoff)
    match plan.kind:
        case "fixed":
            base = plan.first_ms
        case "linear":
            base = plan.first_ms * failed
        case "exponential":
            base = plan.first_ms << min(failed - 1, _DOUBLINGS_MAX)
        case _:
            base = plan.delays_ms[min(failed, len(plan.delays_ms)) - 1]
    base = min(base, plan.max_ms)
    permille = round(plan.jitter * 1000)
    dice = int.from_bytes(_dice(seed, ordinal, failed)[10:14], "big")
    return base - base * permille * dice // (1000 << 32)


def _dice(seed: int, ordinal: int, throw: int) -> bytes:
    text = (seed % 2**64).to_bytes(8, "big") + ordinal.to_bytes(8, "big") + throw.to_bytes(8, "big")
    return hashlib.blake2b(text, digest_size=14).digest()
