"""What is left to chance, decided by the leader's dice in the entry: ids of tasks, and how far a back-off is shortened.

Whole numbers only, so that every node comes to the same, whatever its processor.
"""

from __future__ import annotations

import hashlib

import msgspec

from quorl.cluster.protocol.queues import Backoff

_DOUBLINGS_MAX = 60
"""More than lead from a millisecond to any limit."""
_decode_backoff = msgspec.json.Decoder(Backoff).decode


def task_id(wall_ms: int, seed: int, ordinal: int) -> str:
    """An id in the shape of a UUID of version 7: it begins with the moment, so that ids sort about as tasks come."""
    dice = int.from_bytes(_dice(seed, ordinal, 0)[:10], "big")
    text = f"{wall_ms:012x}7{dice & 0xFFF:03x}{0x8 | dice >> 12 & 0x3:x}{dice >> 14 & 0xFFF_FFFF_FFFF_FFFF:015x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


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
