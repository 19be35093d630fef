"""How much has come in that is not whole yet: bodies of requests, and frames of channels, of all connections together.

Each of them is bounded by itself, and there may be very many of them. Invariant: whoever adds takes away again what he has
added, whole or given up.
"""

from __future__ import annotations

from quorl.cluster.protocol import limits


class Intake:
    """The bytes of one node."""

    def __init__(self) -> None:
        self.held_bytes = 0

    def add(self, size_bytes: int) -> bool:
        """Count what came, or with a negative number what is not held any more; returns whether there is room for it."""
        self.held_bytes += size_bytes
        return size_bytes <= 0 or self.held_bytes <= limits.INTAKE_BYTES_MAX
