"""Signs of life on their way into an entry: at most one of each worker, and who waits until they are applied.

Invariants: a sign that names tokens is never replaced by one that names none. Whoever waits for signs gets the sequence
of an entry by which all of them were carried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import SignOfLife

ROWS_PER_SIGN = 2
"""What one may write: the worker's row, and its ring of heartbeats."""


class Taken(NamedTuple):
    """What one entry carries, and who waits for exactly that entry."""

    signs: dict[int, SignOfLife]
    waiting: list[asyncio.Future[int]]


class Signs:
    """The signs of life that the next entries carry."""

    def __init__(self) -> None:
        self._signs: dict[int, SignOfLife] = {}
        self._waiting: list[asyncio.Future[int]] = []

    def __bool__(self) -> bool:
        return bool(self._signs)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for them."""
        return bool(self._waiting)

    def note(self, signs: Iterable[SignOfLife]) -> None:
        """Add some; nobody waits."""
        for sign in signs:
            keep(self._signs, sign)

    def tell(self, signs: Iterable[SignOfLife]) -> asyncio.Future[int]:
        """Add some; the future gives the sequence by which all of them are in the state."""
        self.note(signs)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def take(self) -> Taken:
        """As many as one entry carries; those who wait are served by the entry that carries the last of them."""
        taken: dict[int, SignOfLife] = {}
        size = 0
        for worker_id, sign in self._signs.items():
            if len(taken) >= limits.ENTRY_SIGNS_MAX or size >= limits.ENTRY_SIGNS_BYTES_TARGET:
                break
            taken[worker_id] = sign
            size += size_of(sign)
        for worker_id in taken:
            del self._signs[worker_id]
        if self._signs:
            return Taken(taken, [])
        waiting, self._waiting = self._waiting, []
        return Taken(taken, waiting)

    def clear(self) -> list[asyncio.Future[int]]:
        """Drop all of them; gives those who waited."""
        waiting, self._waiting = self._waiting, []
        self._signs.clear()
        return waiting


def keep(signs: dict[int, SignOfLife], sign: SignOfLife) -> None:
    """Let a sign travel along: in place of an older one of its worker, unless that names tokens and this does not."""
    if sign.tokens is not None or sign.worker_id not in signs:
        signs[sign.worker_id] = sign


def size_of(sign: SignOfLife) -> int:
    """About how many bytes a sign has."""
    return 24 + 9 * (len(sign.tokens or ()) + len(sign.claims))
