"""What is left to chance, decided by the leader's dice in the entry: ids of tasks, and how far a back-off is shortened.

Whole numbers only, so that every node comes to the same, whatever its processor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import count

import msgspec

from quorl.cluster.protocol.queues import Backoff

_DOUBLINGS_MAX = 60
"""More than lead from a millisecond to any limit."""
_decode_backoff = msgspec.json.Decoder(Backoff).decode


def task_ids(wall_ms: int, seed: int, first: int) -> Iterator[str]:
    """Ids of the tasks from that ordinal on, in the shape of UUIDs of version 7.

    They begin with the moment; what follows counts up from where the dice fell, so that ids sort about as tasks come.
    """
    moment = f"{wall_ms:012x}"
    head = f"{moment[:8]}-{moment[8:]}-7"

    def text(number: int) -> str:
        return f"{head}{number >> 62 & 0xFFF:03x}-{0x8000 | number >> 48 & 0x3FFF:04x}-{number & 0xFFFF_FFFF_FFFF:012x}"

    return map(text, count(int.from_bytes(_dice(seed, 0, 0)[:10], "big") + first))


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
