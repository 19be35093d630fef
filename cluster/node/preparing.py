"""What a leader does for an entry while the others write it: all of applying it that can be undone."""

from __future__ import annotations

from collections.abc import Callable

from quorl.cluster.machine.machine import Machine


class Preparing:
    """Implements ``consensus.port.Ahead`` over a node's state, but not while that is ``busy`` with a checkpoint.

    The last step of a checkpoint gives up if a transaction is open, and nearly always one would be.
    """

    def __init__(self, machine: Callable[[], Machine], busy: Callable[[], bool]) -> None:
        self._machine = machine
        self._busy = busy

    def prepare(self, index: int, term: int, payload: bytes) -> None:
        """See ``Ahead``."""
        if not self._busy():
            self._machine().prepare(index, term, payload)

    def retract(self) -> None:
        """See ``Ahead``."""
        self._machine().retract()
