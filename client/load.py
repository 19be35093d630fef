"""What `quorl bench` and the benchmarks share: the payload, the loops that keep it in flight, and percentiles."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
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
_ORDER = '"type":"order.created","ts":%d,"user":"u-%08d","items":[{"sku":"A-%03d","qty":%d,"price":%d}],"note":"'
PAYLOAD_BYTES_MIN = 64
"""Its id takes most of that."""
VARIETY, VARIETY_BYTES = 4_000, 4_000_000
"""So many different payloads are made, of no more bytes together: what compresses looks back for what repeats by 32 KiB."""
_SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]


@functools.cache
def _words() -> list[str]:
    dice = random.Random(0)  # noqa: S311 - the same in every run
    return ["".join(dice.choices(_SYLLABLES, k=dice.randint(1, 4))) for _ in range(2_000)]


def payload(number: int = 1, size: int = PAYLOAD_BYTES) -> bytes:
    """A JSON object of ``size`` bytes, at least 64, with a number in its id: an order if there is room, and in any case a note.

    Each number has an order and a note of its own, so that several compress as lines of a log do, and not to nothing.
    """
    assert size >= PAYLOAD_BYTES_MIN
    dice = random.Random(number)  # noqa: S311 - the same for a number
    head = _ID % number
    if size >= PAYLOAD_BYTES:
        when_ms = 1_700_000_000_000 + dice.randrange(10**9)
        head += _ORDER % (when_ms, *map(dice.randrange, (10**8, 1000, 10, 10**4)))
    else:
        head += '"note":"'
    room = size - 2 - len(head)
    note = " ".join(dice.choices(_words(), k=room // 2 + 1))
    return (head + note[:room] + '"}').encode()


def number_of(value: bytes) -> int:
    """The number in the id of a payload."""
    start = _ID.index("%012d")
    return int(value[start : start + 12])


class Payloads:
    """Payloads of one size, in turn. As for the other systems, they exist as bytes before the clock starts."""

    def __init__(self, size: int = PAYLOAD_BYTES) -> None:
        made = max(1, min(VARIETY, VARIETY_BYTES // size))
        self._turn = itertools.cycle(
            [t.Message(value=msgspec.Raw(payload(number, size))) for number in range(1, made + 1)]
        )

    def value(self) -> msgspec.Raw:
        """The next one."""
        return next(self._turn).value

    def messages(self, count: int = BATCH) -> list[t.Message]:
        """What an append of the next so many carries."""
        return list(itertools.islice(self._turn, count))


payloads = functools.cache(Payloads)
"""Those of a size; all who ask share them."""


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


async def fill(
    append: Callable[[list[t.Message]], Awaitable[object]], count: int, size_bytes: int = PAYLOAD_BYTES
) -> Timed:
    """Append so many messages, 500 in a call (fewer when they are large), four calls in flight."""
    made, each = payloads(size_bytes), max(1, min(BATCH, FILL_BYTES // size_bytes))
    sizes = iter([each] * (count // each) + ([count % each] if count % each else []))
    took_s: list[float] = []
    started = time.perf_counter()

    async def loop() -> None:
        for size in sizes:
            before = time.perf_counter()
            await append(made.messages(size))
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
