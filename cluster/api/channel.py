"""The node's side of channels: a connection that was upgraded, over which calls come in frames.

Every call of a channel goes the same way as one over HTTP, from the door on: this room only reads frames and writes them.

Invariants: a call is answered once, or its caller or the connection has gone; then it is cancelled like an HTTP request
whose client hangs up. What one channel can hold in memory is bounded: in calls, in the bytes of their bodies, in answers
that its client does not take. A connection that says nothing, takes nothing, or stops half way through a frame, is ended
after a while; so is one on which something comes that is no frame.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import structlog
from aiohttp import ClientConnectionResetError, web

from quorl.cluster.api.intake import Intake
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.channel import (
    NAME,
    Answered,
    Asked,
    Broken,
    Frames,
    fault_of,
    frames_of_answers,
    read_asking,
)
from quorl.cluster.protocol.problems import DETAIL_CHARS_MAX, Problem
from quorl.cluster.protocol.wire import Answer, Call
from quorl.shielding import shield

LOOK_S = 30.0
"""How often it is looked whether a channel is stuck: what is the same twice in a row is."""
IDLE_LOOKS = 2
"""After so many looks without a frame a channel is ended on which nothing is under way."""
_FAREWELL_S = 5.0
"""So long a connection that ends may take to bring its last answers home."""
_LARGE_BYTES = 32 * 1024
"""Smaller ones are too many before they matter: CHANNEL_CALLS_MAX bounds what they hold."""
_OF_THE_CONNECTION = ("host", "origin", "authorization", "quorl-member")
"""Headers of the upgrade that count for every call, whatever the call says: who is calling does not change on the way."""

_BEGUN_AT_ONCE = 32
"""So many calls are begun in one turn of the loop: what many ask at once must not keep the node from its other business."""

Take = Callable[[Call], Awaitable[Answer]]
Refuse = Callable[[Call, Problem], Answer]


def wants_channel(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for an upgrade to what is spoken here."""
    tokens = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    return "upgrade" in tokens and headers.get("upgrade", "").strip().lower() == NAME


def failed(refuse: Refuse, call: Call, error: Exception) -> Answer:
    """Log what nobody expected while a call was answered, and answer it under the same request id."""
    answer = refuse(call, Problem("internal", type(error).__name__))
    structlog.get_logger("quorl.api").error(
        "call_failed",
        request_id=answer.headers.get("request-id", ""),
        method=call.method,
        path=call.path,
        exc_info=error,
    )
    return answer


class Channels:
    """The channels of one node. ``take`` answers a call, ``refuse`` one with which something is wrong."""

    def __init__(self, take: Take, refuse: Refuse, intake: Intake, *, look_s: float = LOOK_S) -> None:
        self._take = take
        self._refuse = refuse
        self._intake = intake
        self._look_s = look_s
        self._open: set[Channel] = set()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    async def serve(self, request: web.BaseRequest, headers: Mapping[str, str]) -> web.StreamResponse:
        """Turn the connection of a request into a channel, until it ends."""
        response = web.StreamResponse(status=101, headers={"Upgrade": NAME, "Connection": "Upgrade"})
        own = {name: headers[name] for name in _OF_THE_CONNECTION if name in headers}
        channel = Channel(request, own, self._take, self._refuse, self._intake)
        request.protocol.set_parser(cast("Any", channel))  # before the answer leaves: what follows it is read as frames
        self._open.add(channel)
        watch = asyncio.ensure_future(self._watch(channel))
        try:
            with contextlib.suppress(ClientConnectionResetError):  # it has hung up already
                await response.prepare(request)
                await shield(channel.ended)
        finally:
            self._open.discard(channel)
            watch.cancel()
            channel.end()
        response.force_close()
        return response

    async def _watch(self, channel: Channel) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            channel.look()

    def close(self) -> None:
        """End all of them. Answers that are known leave before."""
        for channel in list(self._open):
            channel.end()


class Channel:
    """One channel; for aiohttp it is what reads the rest of the connection."""

    def __init__(
        self, request: web.BaseRequest, own: dict[str, str], take: Take, refuse: Refuse, intake: Intake
    ) -> None:
        self._loop = asyncio.get_running_loop()
        assert request.transport is not None
        self._transport = request.transport
        self._drain = request.writer.drain
        self._own = own
        self._take = take
        self._refuse = refuse
        self._intake = intake
        self._half_bytes = 0
        """Of the frame that is not whole."""
        self._frames = Frames(limits.CHANNEL_FRAME_BYTES_MAX)
        self._running: dict[int, tuple[asyncio.Task[None] | None, int]] = {}
        """The calls that came and are not answered; None: one that was not begun yet."""
        self._arrived: deque[tuple[int, Call]] = deque()
        self._begin_wanted = False
        self._last = 0
        self._held_bytes = 0
        self._answers: list[Answered] = []
        self._answer_bytes = self._waiting_bytes = 0
        """Of answers that leave in this turn, and of large ones that wait for room."""
        self._flush_wanted = self._reading_paused = False
        self._room: asyncio.Task[None] | None = None
        self._moves = self._moves_seen = self._idle = 0
        self._whole, self._half_at = 0, -1
        self._sent_bytes = self._stuck_at = 0
        self.ended: asyncio.Future[None] = self._loop.create_future()

    # -- what aiohttp tells ----------------------------------------------------------------------------------------
    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Read frames; True ends the connection."""
        if self.ended.done():
            return True, b""
        self._moves += 1
        try:
            for frame in self._frames.feed(data):
                self._whole += 1
                asking = read_asking(frame)
                if len(asking.calls) > limits.CHANNEL_CALLS_MAX:
                    raise Broken(f"{len(asking.calls)} calls in one frame")
                for asked in asking.calls:
                    self._came(asked)
                self._begin_more()
                for number in asking.gone:
                    self._leave(number)
            if self._half_bytes or self._frames:
                self._hold(len(self._frames))
        except Broken as error:
            self._part(str(error))
            return True, b""
        return False, b""

    def _hold(self, half_bytes: int) -> None:
        more_bytes, self._half_bytes = half_bytes - self._half_bytes, half_bytes
        if not self._intake.add(more_bytes):
            raise Broken("the frames that are arriving at this node are too many for it")

    def feed_eof(self) -> None:
        """The connection is gone."""
        self.end()

    def set_exception(self, error: BaseException, _cause: BaseException | None = None) -> None:
        """The connection broke."""
        del error
        self.end()

    # -- calls -----------------------------------------------------------------------------------------------------
    def _came(self, asked: Asked) -> None:
        if asked.number <= self._last:
            raise Broken(f"call {asked.number} after call {self._last}: numbers grow")
        self._last = asked.number
        call = Call(asked.method, asked.path, asked.query, asked.headers | self._own, asked.body)
        problem = fault_of(asked)
        if problem is None and len(self._running) >= limits.CHANNEL_CALLS_MAX:
            detail = f"{len(self._running)} calls are under way on this channel; open another, or wait."
            problem = Problem("too_many_requests", detail)
        if problem is not None:
            self._answer(asked.number, self._refuse(call._replace(path="/") if not asked.path else call, problem))
            return
        size = len(asked.body)
        self._running[asked.number] = (None, size)
        self._arrived.append((asked.number, call))
        self._held_bytes += size
        if size > _LARGE_BYTES:
            self._balance()

    def _begin_some(self) -> None:
        """Begin calls in the order in which they came, and the rest in the next turns of the loop.

        None while there are answers enough that the client has not taken: those of a thousand calls would be gigabytes.
        """
        if crowded := self._crowded:
            _ = self._drained()
        for _ in range(0 if crowded else min(_BEGUN_AT_ONCE, len(self._arrived))):
            number, call = self._arrived.popleft()
            if number in self._running:  # its caller has not gone meanwhile
                _, size = self._running[number]
                self._running[number] = (self._loop.create_task(self._serve(number, call)), size)
        self._begin_wanted = bool(self._arrived) and not crowded
        if self._begin_wanted:
            self._loop.call_soon(self._begin_some)

    def _begin_more(self) -> None:
        """Go on with those that waited, if there is room now."""
        if self._arrived and not self._begin_wanted and not self._transport.is_closing():
            self._begin_some()

    async def _serve(self, number: int, call: Call) -> None:
        try:
            answer = await self._take(call)
            if len(answer.body) > _LARGE_BYTES:
                await self._until_room(len(answer.body))
            self._answer(number, answer, alone=len(self._running) == 1)
        except ConnectionError:
            pass  # it broke while a large answer waited
        except Exception as error:
            self._answer(number, failed(self._refuse, call, error))
        finally:
            self._release(number)
            self._begin_more()

    def _leave(self, number: int) -> None:
        """The caller has gone."""
        task = self._release(number)
        if task is not None:
            task.cancel()

    def _release(self, number: int) -> asyncio.Task[None] | None:
        task, size = self._running.pop(number, (None, 0))
        self._held_bytes -= size
        if self._reading_paused:
            self._balance()
        return task

    # -- answers ---------------------------------------------------------------------------------------------------
    def _answer(self, number: int, answer: Answer, *, alone: bool = False) -> None:
        self._answers.append(Answered(number, answer.status, answer.headers, answer.body))
        self._answer_bytes += len(answer.body)
        if alone:
            self._flush()
        elif not self._flush_wanted:  # what is answered in the same turn of the loop leaves in the same frame
            self._flush_wanted = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what is answered. One that is called for what has left already finds nothing."""
        self._flush_wanted = False
        answers, self._answers, self._answer_bytes = self._answers, [], 0
        if answers and not self._transport.is_closing():
            data = frames_of_answers(answers)
            self._moves += 1
            self._sent_bytes += len(data)
            self._transport.write(data)
            if len(data) > _LARGE_BYTES:
                self._balance()

    @property
    def _congested(self) -> bool:
        return self._transport.get_write_buffer_size() + self._answer_bytes > limits.CHANNEL_UNSENT_BYTES_MAX

    @property
    def _crowded(self) -> bool:
        untaken = self._transport.get_write_buffer_size() + self._answer_bytes + self._waiting_bytes
        return untaken > limits.CHANNEL_UNSENT_BYTES_MAX

    def _balance(self) -> None:
        """Read on only while what came is worked off, and what was answered is taken."""
        congested = self._congested
        full = congested or self._held_bytes > limits.CHANNEL_BYTES_MAX
        if full == self._reading_paused or self._transport.is_closing():
            return
        self._reading_paused = full
        if full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
        if congested:
            _ = self._drained()

    async def _until_room(self, size: int) -> None:
        """Let an answer wait until the client has taken most of what was sent; raises ``ConnectionError``."""
        self._waiting_bytes += size
        try:
            while self._congested:
                await shield(self._drained())
        finally:
            self._waiting_bytes -= size

    def _drained(self) -> asyncio.Task[None]:
        """What ends when there is room again. One for all who wait: aiohttp's own would end with the first that goes."""
        if self._room is None or self._room.done():
            self._room = self._loop.create_task(self._drain())
            self._room.add_done_callback(self._has_room)
        return self._room

    def _has_room(self, done: asyncio.Task[None]) -> None:
        if not done.cancelled():
            done.exception()  # a connection that broke meanwhile is no event
        self._balance()
        self._begin_more()

    # -- ends ------------------------------------------------------------------------------------------------------
    def look(self) -> None:
        """End the channel if it stands where it stood at the last look: half way through a frame or an answer, or idle."""
        unsent = self._transport.get_write_buffer_size()
        taken = self._sent_bytes - unsent
        stuck = unsent > 0 and taken == self._stuck_at
        self._stuck_at = taken
        half = bool(self._frames) and not self._reading_paused
        stuck |= half and self._whole == self._half_at
        self._half_at = self._whole if half else -1
        silent = self._moves == self._moves_seen
        self._moves_seen = self._moves
        self._idle = self._idle + 1 if silent and not self._running else 0
        if stuck:
            self._transport.abort()
        if stuck or self._idle >= IDLE_LOOKS:
            self.end()

    def _part(self, why: str) -> None:
        """Say why this ends."""
        problem = Problem("malformed_request", f"The channel ends: {why}"[:DETAIL_CHARS_MAX])
        answer = self._refuse(Call("GET", "/", "", {}, b""), problem)
        self._answers.append(Answered(0, answer.status, answer.headers, answer.body))
        self.end()

    def end(self) -> None:
        """Cancel what runs and let go of the connection, once what is known has left."""
        if self.ended.done():
            return
        self._arrived.clear()
        self._hold(0)
        for task, _ in self._running.values():
            if task is not None:
                task.cancel()
        self._flush()
        self.ended.set_result(None)
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(_FAREWELL_S, self._transport.abort)
