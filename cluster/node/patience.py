"""How soon a command leaves, and whether it pays for one that is in no hurry to wait for an entry that others want.

An entry costs every node about as much as ten tasks in it. Workers' reports and claims come in a rhythm of their own: if
they leave in the entry that the next submit wants anyway, that cost is paid once. Where nobody comes, waiting is in vain;
after that fewer and fewer try, until it pays again.
"""

from __future__ import annotations

from enum import Enum, auto

WAIT_S = 0.001
"""How long a patient command waits for others. The event loop counts whole milliseconds: up to twice that."""
BUSY_S = 0.02
"""Whoever is the first for so long does not wait: others are rare."""
LEFT_OUT_MAX = 32
"""Of so many occasions one is tried at least."""


class Haste(Enum):
    """How soon a command is to leave."""

    AT_ONCE = auto()
    """Its caller has nothing to put behind it in the same entry."""
    SOON = auto()
    """What comes in the same turn of the loop travels in the same entry."""
    PATIENT = auto()
    """It may wait a little for an entry that others want."""


class Patience:
    """What came of waiting lately."""

    __slots__ = ("_left_out", "_pause")

    def __init__(self) -> None:
        self._pause = 1
        """How many occasions are left out after one in vain."""
        self._left_out = 0
        """How many are to be left out now."""

    def pays(self, since_s: float) -> bool:
        """Whether to wait, that long after the last entry began."""
        if since_s > BUSY_S:
            return False
        if self._left_out:
            self._left_out -= 1
            return False
        return True

    def paid(self) -> None:
        """Others came."""
        self._pause = 1

    def in_vain(self) -> None:
        """Nobody came."""
        self._left_out = self._pause
        self._pause = min(2 * self._pause, LEFT_OUT_MAX)
