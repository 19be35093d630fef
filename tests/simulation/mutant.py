"""What a mutant is: switches that are thrown, and what is played to see whether anybody notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.simulation.scenario import play
from tests.simulation.switches import SWITCHES


class Mutant(NamedTuple):
    """What is switched off, and the seeds that are tried before all others."""

    name: str
    switches: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    play: Callable[[int], list[str]] = lambda seed: play(seed).problems
    """What to play a seed of, and what is reported."""
    what: str = ""

    def describe(self) -> str:
        """What is off, in the words of the switches."""
        return self.what or " ".join((SWITCHES[name].__doc__ or name).strip().splitlines()[0] for name in self.switches)
