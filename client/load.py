"""What `quorl bench` and the benchmarks share: the payload, the loops that keep it in flight, and percentiles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from quorl.cluster.protocol import topics as t

PAYLOAD_BYTES = 200
BATCH = 500
BATCHES_IN_FLIGHT = 4
"""A small JSON object, so many in a call, and so many such calls at once."""
FILL_BYTES = 512 * 1024
"""Half of what a request may hold."""
WARM_UP_S = 0.5
"""Until connections are up."""
_ID = '{"id":"00000000-0000-4000-8000-%012d",'
_HEAD = (
    _ID + '"type":"order.created","ts":1700000000000,'
    '"user":"u-12345678","items":[{"sku":"A-100","qty":2,"price":1999}],"note":"'
)
PAYLOAD_BYTES_MIN = 64
"""Its id takes most of that."""


def payload(number: int = 1, size: int = PAYLOAD_BYTES) -> bytes:
    """A JSON object of ``size`` bytes, at least 64, with a number in its id; one of an order if there is room."""
    head = (_HEAD if size >= PAYLOAD_BYTES else _ID + '"note":"') % number
    assert size >= PAYLOAD_BYTES_MIN
    return (head + "x" * (size - 2 - len(head)) + '"}').encode()


def number_of(value: bytes) -> int:
    """The number in the id of a payload."""
    start = _ID.index("%012d")
    return int(value[start : start + 12])


VALUE = msgspec.Raw(payload())
"""As for the other systems, the payload exists as bytes before the clock starts."""


def one_message() -> list[t.Message]:
    """What an append of one message carries."""
    return [t.Message(value=VALUE)]


def many_messages(count: int = BATCH, value: msgspec.Raw = VALUE) -> list[t.Message]:
    """What an append of a batch carries."""
    return [t.Message(value=value) for _ in range(count)]


class Timed(NamedTuple):
    """What loops did: how often, in what time, and how long each took."""

    seconds: float
    took_s: list[float]

    def figures(self, messages_each: int = 1) -> dict[str, float]:
        """Messages per second and latencies per call."""
        return {
            "msgs_s": round(len(self.took_s) * messages_each / self.seconds),
            "p50_ms": percentile_ms(self.took_s, 0.5),
            "p99_ms": percentile_ms(self.took_s, 0.99),
        }


async def fill(append: Callable[[list[t.Message]], Awaitable[object]], count: int, value: msgspec.Raw = VALUE) -> Timed:
    """Append so many messages, 500 in a call (fewer when they are large), four calls in flight."""
    each = max(1, min(BATCH, FILL_BYTES // len(bytes(value))))
    sizes = iter([each] * (count // each) + ([count % each] if count % each else []))
    took_s: list[float] = []
    started = time.perf_counter()

    async def loop() -> None:
        for size in sizes:
            before = time.perf_counter()
            await append(many_messages(size, value))
            took_s.append(time.perf_counter() - before)

    await asyncio.gather(*(loop() for _ in range(BATCHES_IN_FLIGHT)))
    return Timed(time.perf_counter() - started, took_s)


async def in_flight(call: Callable[[], Awaitable[object]], loops: int, seconds: float) -> Timed:
    """Run loops side by side, each of which calls, waits for the answer, and calls again, for some seconds."""
    took_s: list[float] = []
    started = time.perf_counter()
    end = started + seconds

    async def loop() -> None:
        while (before := time.perf_counter()) < end:
            await call()
            took_s.append(time.perf_counter() - before)

    await asyncio.gather(*(loop() for _ in range(loops)))
    return Timed(time.perf_counter() - started, took_s)


async def warmed(call: Callable[[], Awaitable[object]], loops: int, seconds: float) -> Timed:
    """Warm up, then measure."""
    await in_flight(call, loops, min(WARM_UP_S, seconds))
    return await in_flight(call, loops, seconds)


def percentile_ms(took_s: list[float], share: float) -> float:
    """A percentile in milliseconds; 0 of nothing."""
    ordered = sorted(took_s)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 3) if ordered else 0.0
