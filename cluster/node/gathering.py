"""Gathering: heartbeats that come to this node travel to the leader together, about once a second.

Invariants: a heartbeat leaves so soon that at least four fit into the silence that its worker may keep, and before its
caller gives up. It is answered only after the entry that carries it was applied here. What cannot be delivered in time is
said to be undelivered, so that the worker asks another node; that it arrives late all the same does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from quorl.cluster.consensus.port import NotApplied, OutcomeUnknown
from quorl.cluster.node.core import BEATS, Core, PeerLost, PeerUnreachable
from quorl.cluster.node.forwarding import Leading
from quorl.cluster.node.parking import gather_s
from quorl.cluster.node.signs import keep, size_of
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import SignOfLife
from quorl.cluster.protocol.wire import Call
from quorl.shielding import shield

_TRY_S = 1.0
"""A leader that does not take heartbeats for so long is asked again."""
_PAUSE_S = 0.05
"""Before the same leader is asked again."""
_PATIENCE_SHARE = 0.5
"""The share of a caller's patience in which his heartbeat may wait for others."""

encode_signs = msgspec.msgpack.Encoder().encode
decode_signs = msgspec.msgpack.Decoder(tuple[SignOfLife, ...]).decode


class Delivered(msgspec.Struct, frozen=True):
    """What the leader answers: a sequence that contains the signs."""

    sequence: int


_delivered_decoder = msgspec.json.Decoder(Delivered)


class Undelivered(Exception):
    """A heartbeat did not get into the state in time."""


class _Batch:
    """What travels together."""

    def __init__(self) -> None:
        self.signs: dict[int, SignOfLife] = {}
        self.until = 0.0
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None


class Gathering:
    """The heartbeats that have come to this node and not left yet."""

    def __init__(self, core: Core, leading: Leading) -> None:
        self._core = core
        self._leading = leading
        self._batch: _Batch | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def deliver(self, sign: SignOfLife, dead_after_ms: int, until: float) -> int:
        """Bring a heartbeat into the state; gives a sequence that contains it. Raises ``Undelivered`` at ``until``."""
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch()
        keep(batch.signs, sign)
        batch.until = max(batch.until, until)
        left_s = max(0.0, until - self._core.monotonic())
        self._leave_within(batch, min(gather_s(dead_after_ms), _PATIENCE_SHARE * left_s))
        try:
            async with asyncio.timeout(left_s):
                return await shield(batch.done)
        except TimeoutError:
            raise Undelivered from None

    def _leave_within(self, batch: _Batch, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + wait_s
        if batch.timer is None or at < batch.timer.when():
            if batch.timer is not None:
                batch.timer.cancel()
            batch.timer = loop.call_at(at, self._leave)

    def _leave(self) -> None:
        batch, self._batch = self._batch, None
        assert batch is not None, "the timer of a batch that has left"
        task = asyncio.get_running_loop().create_task(self._bring(batch))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def hurry(self) -> None:
        """Let what is gathered leave now: this node is about to stop."""
        if self._batch is not None and self._batch.timer is not None:
            self._batch.timer.cancel()
            self._leave()

    async def close(self) -> None:
        """Give up what is under way."""
        under_way = list(self._under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _bring(self, batch: _Batch) -> None:
        sequence = 0
        for signs in _pieces(batch.signs):
            brought = await self._bring_piece(signs, batch.until)
            if brought is None:
                batch.done.set_exception(Undelivered())
                batch.done.exception()  # all who waited may have gone
                return
            sequence = max(sequence, brought)
        batch.done.set_result(sequence)

    async def _bring_piece(self, signs: tuple[SignOfLife, ...], until: float) -> int | None:
        """Try until a leader has taken it and its entry was applied here; None when the time is over."""
        core = self._core
        while True:
            leader = core.name if core.leads() else core.leader()
            try:
                if core.leads():
                    return await core.sign(signs)
                if leader is not None and leader != core.name:
                    sequence = await self._ask(leader, signs, until)
                    if sequence is not None and await core.wait_applied(sequence, until):
                        return sequence
            except (NotApplied, OutcomeUnknown, PeerLost, PeerUnreachable):
                pass  # to be tried again, at whoever leads by then: a heartbeat does the same however often it comes
            if core.monotonic() >= until:
                return None
            await core.wait_leader(leader, until if leader is None else min(until, core.monotonic() + _PAUSE_S))

    async def _ask(self, leader: str, signs: tuple[SignOfLife, ...], until: float) -> int | None:
        call = Call("POST", BEATS, "", {"quorl-hops": "1"}, encode_signs(signs))
        answer = await self._leading.ask(leader, call, min(until, self._core.monotonic() + _TRY_S))
        return _delivered_decoder.decode(answer.body).sequence if answer.status == 200 else None


def _pieces(signs: dict[int, SignOfLife]) -> Iterator[tuple[SignOfLife, ...]]:
    """Cut into what travels in one message."""
    piece: list[SignOfLife] = []
    size = 0
    for sign in signs.values():
        if size >= limits.BEATS_BYTES_TARGET:
            yield tuple(piece)
            piece, size = [], 0
        piece.append(sign)
        size += size_of(sign)
    yield tuple(piece)
