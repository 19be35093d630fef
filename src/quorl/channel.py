"""The calling side of channels, on asyncio: one kept connection to a node, and all calls to it at the same time.

The client library calls nodes through it, and nodes the leader. What goes over the wire is in ``cluster.protocol.channel``.

Invariants: a call ends exactly once: with its answer, or with what is known of it. It is ``NotSent`` only if not one byte of it
was handed to the connection. Whoever stops waiting for an answer is forgotten at both ends. A channel on which something
came that is no frame, or nothing at all while a call waited in vain, takes no more calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeAlias, cast
from urllib.parse import urlsplit

from typing_extensions import override

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.channel import (
    CLOSED_UNMET,
    NAME,
    PATH,
    Answered,
    Asked,
    Broken,
    Frames,
    NotHttp,
    Silent,
    check_head,
    frame_of_call,
    frames_of_calls,
    read_answering,
)
from quorl.cluster.protocol.wire import Answer, Call
from quorl.soonest import Soonest
from quorl.vanished import Socket, allow_for_full, notice_full, notice_vanished

IDLE_S_MAX = 50.0
"""Nodes end a channel that was idle for longer than this; none is used that may be ending."""
WITHOUT_S = 60.0
"""A server that has no channel is not asked for one again for so long: it may be replaced by a newer one."""
ASK_AGAIN_S = 5.0
"""The same of a server that was in trouble when it was asked."""
SILENT_S = 1.0
"""One caller's shorter patience says nothing about the channel that all share."""
_HEAD_BYTES_MAX = 16 * 1024
_SWITCHING = 101


class NotSent(Exception):
    """The call certainly did not reach the node."""


class Lost(Exception):
    """The call may have reached the node, and no answer came."""


class NoChannel(Exception):
    """The server does not speak this: it is older, or something stands before it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status} instead of a channel")
        self.status = status


Outcome: TypeAlias = Answer | NotSent | Lost
"""What becomes of a call."""
_Call: TypeAlias = tuple[Callable[[Outcome], None], float, float, int]
"""Of one that waits for its answer: who is to be told, when it was asked, for how long it waits, and what had come before."""


async def dial(
    url: str, headers: Mapping[str, str], timeout_s: float, reached: Callable[[], None] = lambda: None
) -> Channel:
    """Open a channel to the node at ``http(s)://host:port``, with headers for the upgrade.

    ``reached`` is told when somebody has taken the connection.
    Raises ``OSError`` where nobody listens, ``TimeoutError``, ``NotHttp`` where no node is, and ``NoChannel``.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if secure else 80)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        _, channel = await loop.create_connection(Channel, parts.hostname, port, ssl=secure)
        reached()
        host = parts.netloc.rpartition("@")[2]
        wanted = {"Host": host, "Connection": "Upgrade", "Upgrade": NAME, **headers}
        lines = [f"GET {parts.path.rstrip('/')}{PATH} HTTP/1.1", *(f"{name}: {text}" for name, text in wanted.items())]
        try:
            await channel.upgraded("\r\n".join(lines).encode() + b"\r\n\r\n")
        except BaseException:
            channel.abort()
            raise
    return channel


class Channel(asyncio.Protocol):
    """One channel. Made by ``dial``."""

    def __init__(self) -> None:
        self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        self._transport: asyncio.Transport | None = None
        self._socket: Socket | None = None
        self._switched: asyncio.Future[None] | None = self._loop.create_future()
        self._head = b""
        self._frames = Frames(limits.CHANNEL_ANSWER_BYTES_MAX)
        self._last = 0
        self._waiting: dict[int, _Call] = {}
        self._soonest: Soonest[int] = Soonest()
        self._noted = 0
        """The number of the last call that a look for those whose time is over has met."""
        self._unsent: dict[int, Asked] = {}
        self._gone: list[int] = []
        self._congested = self._flush_wanted = False
        self._heard, self._heard_s = 0, self._loop.time()
        """How often something came, and when it last did."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        """When it is looked next for calls whose time is over: never later than the first of them is."""
        self.closed = False
        """Whether it takes no more calls."""

    # -- calls -----------------------------------------------------------------------------------------------------
    @property
    def usable(self) -> bool:
        """Whether a call may be made on it."""
        if self.closed or len(self._waiting) >= limits.CHANNEL_CALLS_MAX:
            return False
        return bool(self._waiting) or self._loop.time() - self._heard_s < IDLE_S_MAX

    def begin(self, call: Call, headers: dict[str, str], timeout_s: float, tell: Callable[[Outcome], None]) -> int:
        """Make a call with these headers; within so long ``tell`` learns what became of it. Raises ``NotSent``.

        Returns its number, by which it can be left. ``tell`` must not raise.
        """
        if self.closed:
            raise NotSent("the connection is closed")
        now_s = self._loop.time()
        number = self._last = self._last + 1
        self._waiting[number] = (tell, now_s, timeout_s, self._heard)
        self._unsent[number] = Asked(number, call.method, call.path, call.query, headers, call.body)
        if len(self._waiting) == 1:
            self._flush()  # nobody to travel with
        elif not self._flush_wanted:
            self._flush_wanted = True
            self._loop.call_soon(self._flush)
        if now_s + timeout_s < self._timer_s:
            self._look_at(now_s + timeout_s)
        return number

    def leave(self, number: int) -> None:
        """Wait for the answer to a call no more."""
        self._forget(number)

    async def ask(self, call: Call, headers: dict[str, str], timeout_s: float) -> Answer:
        """Make a call, and wait so long for its answer. Raises ``NotSent`` or ``Lost``."""
        answer: asyncio.Future[Answer] = self._loop.create_future()
        number = self.begin(call, headers, timeout_s, partial(_settle, answer))
        try:
            return await answer
        except asyncio.CancelledError:
            self.leave(number)
            raise

    def _look_at(self, moment_s: float) -> None:
        """Look then for calls whose time is over: one timer for all, which moves when the first of them changes."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = moment_s
        self._timer = self._loop.call_at(moment_s, self._look)

    def _look(self) -> None:
        now_s = max(self._loop.time(), self._timer_s)  # a timer may come a little early
        self._timer, self._timer_s = None, math.inf
        over, first_s = self._soonest.look(self._fresh(), self._waiting, now_s)
        for number in over:
            self._expire(number, now_s)
        if first_s < self._timer_s and not self.closed:
            self._look_at(first_s)

    def _fresh(self) -> Iterator[tuple[float, int]]:
        """The calls that were made since it was looked last; the later one has the greater number."""
        noted, self._noted = self._noted, self._last
        for number in reversed(self._waiting):
            if number <= noted:
                return
            _, asked_s, for_s, _ = self._waiting[number]
            yield asked_s + for_s, number

    def _expire(self, number: int, now_s: float) -> None:
        waiting = self._waiting.get(number)
        if waiting is None:
            return
        tell, asked_s, timeout_s, heard = waiting
        error = self._forget(number, f"no answer in {timeout_s:.1f} s")
        # Counted, and not by the clock: in one tick of it there is room for an answer and the next call.
        if isinstance(error, Lost) and self._heard == heard and asked_s <= now_s - SILENT_S:
            self.abort()  # whatever is at the other end, it has said nothing to anybody
        tell(error)

    def _forget(self, number: int, why: str = "") -> NotSent | Lost:
        """Wait for an answer no more, and let the node know."""
        if self._waiting.pop(number, None) is None:
            return Lost(why)
        if self._unsent.pop(number, None) is not None:
            return NotSent(why)
        if not self.closed:
            self._gone.append(number)
            if not self._flush_wanted:
                self._flush_wanted = True
                self._loop.call_soon(self._flush)
        return Lost(why)

    def _flush(self) -> None:
        self._flush_wanted = False
        if self._is_congested() or self.closed or self._transport is None:
            return
        if len(self._unsent) == 1 and not self._gone:  # nearly always
            self._transport.write(frame_of_call(self._unsent.popitem()[1]))
            return
        gone, self._gone = self._gone, []
        for calls, frame in frames_of_calls([*self._unsent.values()], gone):
            for one in calls:
                del self._unsent[one.number]
            self._transport.write(frame)
            if self._is_congested():  # the rest can still be taken back
                return

    def _is_congested(self) -> bool:
        return self._congested

    # -- the connection --------------------------------------------------------------------------------------------
    async def upgraded(self, request: bytes) -> None:
        """Ask for the upgrade; raises ``NoChannel`` or ``OSError``."""
        assert self._transport is not None
        assert self._switched is not None
        self._transport.write(request)
        await self._switched

    def abort(self) -> None:
        """End it at once."""
        self._end(None)

    def leave_behind(self) -> None:
        """Let go of the connection: its event loop runs no more, and nobody can close it in order."""
        self.closed = True
        transport, self._transport, self._waiting, self._unsent = self._transport, None, {}, {}
        if transport is None:
            return
        known, ours = transport.get_extra_info("socket"), self._process == os.getpid()
        if ours:  # else the process that this one was forked from goes on with it, and it would end there, too
            with contextlib.suppress(OSError, AttributeError, TypeError):  # it is closed; or other loops keep theirs
                known.shutdown(socket.SHUT_RDWR)  # the node hears of it now, and not when the garbage is collected
        if ours and not self._loop.is_closed():
            transport.abort()
        elif (real := getattr(known, "_sock", None)) is not None:  # other loops than asyncio's keep theirs
            real.close()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # other loops have transports of their own
        self._socket = transport.get_extra_info("socket")
        notice_vanished(self._socket)
        notice_full(self._socket)

    @override
    def data_received(self, data: bytes) -> None:
        self._heard, self._heard_s = self._heard + 1, self._loop.time()
        if self._switched is not None:
            data = self._read_head(data)
        if not data or self.closed:
            return
        try:
            for frame in self._frames.feed(data):
                for one in read_answering(frame).answers:
                    self._answered(one)
        except Broken as error:
            self._end(error)

    def _read_head(self, data: bytes) -> bytes:
        """Take the answer to the upgrade; return what came behind it."""
        assert self._switched is not None
        self._head += data
        try:
            check_head(self._head)
        except NotHttp as error:
            self._end(error)
            return b""
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end and len(self._head) <= _HEAD_BYTES_MAX:
            return b""
        first = head.split(b"\r\n", 1)[0].split(b" ")
        status = int(first[1]) if len(first) > 1 and first[1].isdigit() else 0
        named = f"upgrade: {NAME}".encode() in head.lower()
        if status == _SWITCHING and end and named:
            if not self._switched.done():
                self._switched.set_result(None)
            self._switched, self._head = None, b""
            return rest
        self._end(NoChannel(status))
        return b""

    def _answered(self, one: Answered) -> None:
        waiting = self._waiting.pop(one.number, None)
        if waiting is None:  # nobody waits for it any more; or it is the last word
            if one.number == 0:
                raise Broken(one.body[:200].decode(errors="replace"))
            return
        waiting[0](Answer(one.status, one.headers, one.body))

    @override
    def pause_writing(self) -> None:
        self._congested = True
        allow_for_full(self._socket, full=True)

    @override
    def resume_writing(self) -> None:
        self._congested = False
        allow_for_full(self._socket, full=False)
        self._flush()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionResetError(CLOSED_UNMET if self._switched is not None else "closed by the node"))

    def _end(self, reason: Exception | None) -> None:
        """Take no more calls, and tell those that wait what is known of theirs."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        if self._switched is not None and not self._switched.done():
            if reason is None:
                self._switched.cancel()  # whoever dialled has given up
            else:
                self._switched.set_exception(reason)
                self._switched.exception()  # whoever dialled may be gone before he came to wait for it
        why = f"connection lost: {_words(reason)}" if reason else "connection given up: nothing came from the node"
        waiting, unsent = self._waiting, self._unsent
        self._waiting, self._unsent = {}, {}
        for number, (tell, *_) in waiting.items():
            tell(NotSent(why) if number in unsent else Lost(why))


class Line:
    """The channels to one node, at ``http(s)://host:port``: one, and more while very many calls are under way.

    ``headers`` go with the upgrade; ``connect_s`` is how long a connection may take.
    """

    def __init__(self, node: str, headers: Mapping[str, str], connect_s: float) -> None:
        self._node = node
        self._headers = headers
        self._connect_s = connect_s
        self._channels: list[Channel] = []
        self._dialling: asyncio.Task[Channel] | None = None
        self._reached = False
        """Whether somebody has taken the connection that is being dialled, or was last."""
        self._plain_until_s = float("inf") if "@" in node else 0.0  # a name and a password are HTTP's business

    @property
    def plain(self) -> bool:
        """Whether the node has no channel, as far as is known."""
        return self._plain_until_s > 0 and asyncio.get_running_loop().time() < self._plain_until_s

    def ready(self) -> Channel | None:
        """Return an open channel that has room, if there is one."""
        for channel in self._channels:
            if channel.usable:
                return channel
        return None

    async def ask(self, call: Call, headers: dict[str, str], timeout_s: float) -> Answer:
        """Make a call on a channel that has room, or on a new one.

        Raises as ``dial`` and ``Channel.ask``, and ``Silent`` where somebody takes the connection and says nothing in time.
        """
        ready = self.ready()
        if ready is not None:
            return await ready.ask(call, headers, timeout_s)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        channel = await self._dialled(min(self._connect_s, timeout_s))
        return await channel.ask(call, headers, max(0.001, timeout_s - (loop.time() - began_s)))

    async def _dialled(self, timeout_s: float) -> Channel:
        """Return a new one, the same for all who want one at the same time."""
        if self._dialling is None or self._dialling.done():
            self._channels = [channel for channel in self._channels if not channel.closed]
            self._reached = False
            self._dialling = asyncio.ensure_future(self._dial())
            self._dialling.add_done_callback(lambda done: done.cancelled() or done.exception())
        dialling = self._dialling
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait([dialling])
            if dialling.cancelled():
                raise NotSent("the client is closed")
            return dialling.result()
        except TimeoutError:
            if self._reached:
                raise Silent(timeout_s) from None
            raise

    def _note_reached(self) -> None:
        self._reached = True

    async def _dial(self) -> Channel:
        try:
            channel = await dial(self._node, self._headers, self._connect_s, self._note_reached)
        except NoChannel as error:
            self._plain_until_s = asyncio.get_running_loop().time() + (
                WITHOUT_S if 400 <= error.status < 500 else ASK_AGAIN_S
            )
            raise
        self._channels.append(channel)
        return channel

    def leave_behind(self) -> None:
        """Let go of all of them: their event loop has ended."""
        for channel in self._channels:
            channel.leave_behind()
        self._channels, self._dialling = [], None

    async def close(self) -> None:
        """End them."""
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.gather(self._dialling, return_exceptions=True)
        for channel in self._channels:
            channel.abort()


def _words(error: Exception) -> str:
    """What went wrong, in the words that people know."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _settle(answer: asyncio.Future[Answer], outcome: Outcome) -> None:
    """Tell whoever waits for an answer, if he still does."""
    if answer.done():
        return
    if isinstance(outcome, Answer):
        answer.set_result(outcome)
    else:
        answer.set_exception(outcome)
