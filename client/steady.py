"""A steady writer while the lead changes: how long nothing is acknowledged, and what is stored in the end.

The writer is an open loop: a write every 10 ms whatever became of those before, each to the next of the three nodes and,
whenever that fails, to the one after it under the same idempotency key. At the end every acknowledged write must be
stored exactly once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import pairwise

import msgspec

from quorl.client import load
from quorl.client.aio import AsyncClient
from quorl.client.aio_transport import HttpTransport
from quorl.client.flow import Send
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.wire import Answer, encode

EVERY_S = 0.01
ATTEMPT_S = 2.0
GIVE_UP_S = 30.0
LOOK_BACK_S = 1.5
"""A write leaves every hundredth of a second, is tried for so long at one node and so long at all; what was
acknowledged in the last second and a half tells whether it is steady."""
STEADY_SHARE = 0.5
"""The writer is steady again once half of the writes due in the last moments were acknowledged."""
_STEADY_WAIT_S = 60.0
"""Many elections: it is an error then."""


class Writer:
    """The open loop, and the moments of its acknowledgements."""

    def __init__(self, nodes: list[str], topic: str) -> None:
        self.acknowledged: dict[int, float] = {}
        self.lost: list[int] = []
        """Writes that nobody acknowledged in all their time."""
        self._nodes = nodes
        self._topic = topic
        self._transport = HttpTransport()
        self._stopped = asyncio.Event()
        self._ticking = asyncio.create_task(self._tick())
        self._running: set[asyncio.Task[None]] = set()

    async def _tick(self) -> None:
        number, due = 0, time.perf_counter()
        while not self._stopped.is_set():
            task = asyncio.create_task(self._write(number))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            number += 1
            due += EVERY_S
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def _write(self, number: int) -> None:
        message = t.Message(value=msgspec.Raw(load.payload(number)))
        call = encode(t.Append(topic=self._topic, messages=[message]), f"write-{number}")
        end, turn = time.perf_counter() + GIVE_UP_S, number
        while time.perf_counter() < end:
            answer = await self._transport.send(Send(self._nodes[turn % len(self._nodes)], call, ATTEMPT_S))
            if isinstance(answer, Answer) and 200 <= answer.status < 300:
                self.acknowledged[number] = time.perf_counter()
                return
            turn += 1
            await asyncio.sleep(EVERY_S)
        self.lost.append(number)

    def longest_gap_s(self, since: float) -> float:
        """The longest time between two acknowledgements that follow each other."""
        moments = sorted(moment for moment in self.acknowledged.values() if moment >= since)
        return max((after - before for before, after in pairwise(moments)), default=0.0)

    async def until_steady(self) -> None:
        """Wait until writes are acknowledged about as fast as they come."""
        deadline = time.perf_counter() + _STEADY_WAIT_S
        enough = STEADY_SHARE * LOOK_BACK_S / EVERY_S
        while True:
            now = time.perf_counter()
            if sum(moment > now - LOOK_BACK_S for moment in self.acknowledged.values()) > enough:
                return
            if now > deadline:
                raise RuntimeError(f"writes did not become steady again in {_STEADY_WAIT_S:g} s")
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Begin no more writes, and see those that run to their end."""
        self._stopped.set()
        await self._ticking
        await asyncio.gather(*self._running)
        await self._transport.close()


async def check(client: AsyncClient, topic: str, writer: Writer) -> dict[str, object]:
    """Read everything back: what was acknowledged must be there once; what was not, at most once."""
    stored: Counter[int] = Counter()
    offset = 0
    while True:
        page = await client.call(t.Browse(topic=topic, start=str(offset), limit=1000), consistency="linearizable")
        if not page.items:
            break
        stored.update(load.number_of(bytes(item.value)) for item in page.items)
        offset = page.next
    acknowledged = writer.acknowledged
    return {
        "acked": len(acknowledged),
        "stored": stored.total(),
        "missing": sum(number not in stored for number in acknowledged),
        "doubled": sum(count > 1 for count in stored.values()),
        "unacked": len(writer.lost),
    }
