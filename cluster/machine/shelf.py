"""Batches that were decoded lately, so that who reads a large one message by message does not decode it each time.

Invariants: what a batch holds is never changed and no topic's id is used twice, so nothing here can be out of date;
whether the topic still exists is asked of the rows before. The number of batches and of bytes is bounded, and those that
were not asked for the longest go first. Small batches are decoded faster than they would be worth a place.
"""

from __future__ import annotations

from typing import NamedTuple

from quorl.cluster.machine import reading
from quorl.cluster.machine.reading import Place, StoredPayload
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.packing import unpacked_bytes

_WORTH_MESSAGES = 16
"""A batch of fewer is soon decoded again, and would take the place of one that is not."""


class _Held(NamedTuple):
    payloads: list[StoredPayload]
    size_bytes: int


class Shelf:
    """Decoded batches within reach of one connection's reads."""

    def __init__(self) -> None:
        self._held: dict[Place, _Held] = {}
        """In the order in which they were asked for."""
        self._size_bytes = 0

    def decode(self, place: Place, body: bytes) -> list[StoredPayload]:
        """The messages of a batch, which nobody may change."""
        held = self._held.pop(place, None)
        if held is not None:
            self._held[place] = held
            return held.payloads
        payloads = reading.decode_anew(place, body)
        if len(payloads) >= _WORTH_MESSAGES:
            size_bytes = unpacked_bytes(body, len(body))
            self._held[place] = _Held(payloads, size_bytes)
            self._size_bytes += size_bytes
            while len(self._held) > limits.DECODED_BATCHES_MAX or self._size_bytes > limits.DECODED_BYTES_MAX:
                self._size_bytes -= self._held.pop(next(iter(self._held))).size_bytes
        return payloads
