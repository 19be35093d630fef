"""How the asyncio client's calls get to a node: over a channel, and over HTTP where a node has none.

Invariants: a transport carries one call to one node and says what came of it; it never repeats one. A call is said not to
have arrived only if that is certain.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

from typing_extensions import override

from quorl.channel import Line, Lost, NoChannel, NotSent, Outcome
from quorl.client.flow import CONNECT_TIMEOUT_S, Failure, Send, unreached
from quorl.client.sync_transport import tls_words
from quorl.cluster.protocol.channel import fits, foreign_words
from quorl.cluster.protocol.wire import Answer

if TYPE_CHECKING:
    import aiohttp


Leave: TypeAlias = Callable[[], None]
"""Waits for an answer no more."""


_of_parents: list[object] = []
"""What is never to be used, nor ended, in this process."""


class AsyncTransport(Protocol):
    """Carries one call to one node. It never raises, except when it is cancelled."""

    def begin(self, send: Send, tell: Callable[[Outcome], None]) -> Leave | None:  # noqa: ARG002 - some always wait
        """Send a call at once if nothing has to be waited for, and ``tell`` what becomes of it; None: ``send`` it."""
        return None

    async def send(self, send: Send) -> Answer | Failure:
        """Return the answer, or why there is none."""

    def leave_behind(self) -> None:
        """Use nothing any more of what is open, and let nodes see that: it belongs to an event loop that runs no more.

        In a forked process it belongs to the one that forked, too, and stays open there.
        """

    async def close(self) -> None:
        """Close what is open."""


class HttpTransport(AsyncTransport):
    """aiohttp, with kept-alive connections."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        """Where the session was made, as is its loop."""
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        from quorl.sessions import open_session

        if self._session is None:
            self._session = open_session(self._sockets.add, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True)
            self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        return self._session

    @override
    async def send(self, send: Send) -> Answer | Failure:
        import aiohttp
        from yarl import URL

        from quorl.sessions import Sent

        call = send.call
        target = f"{send.node}{call.path}?{call.query}" if call.query else send.node + call.path
        sent = Sent()
        timeout = aiohttp.ClientTimeout(total=send.timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, send.timeout_s))
        try:
            async with self._open().request(
                call.method,
                URL(target, encoded=True),  # a name in the path stays encoded as it is
                data=call.body or None,
                headers=send.headers(),
                timeout=timeout,
                allow_redirects=False,
                trace_request_ctx=sent,
            ) as response:
                body = await response.read()
                return Answer(response.status, {name.lower(): text for name, text in response.headers.items()}, body)
        except aiohttp.ConnectionTimeoutError:
            return Failure("lost" if sent.any else "unreachable", "time-out while connecting")
        except aiohttp.ClientConnectorError as error:
            return Failure("lost" if sent.any else "refused", explain(error.os_error))
        except TimeoutError:
            return Failure("lost", f"no answer in {send.timeout_s:.1f} s")
        except aiohttp.ClientResponseError as error:
            foreign = error.message.startswith("Bad status line")
            why = foreign_words() if foreign else error.message
            return Failure("lost", f"connection lost: {why}", foreign)
        except (aiohttp.ClientError, OSError) as error:
            return Failure("lost", f"connection lost: {explain(error)}")

    @override
    def leave_behind(self) -> None:
        session, self._session = self._session, None
        left, self._sockets = list(self._sockets), weakref.WeakSet()
        if session is None:
            return
        connector, ours = session.connector, self._process == os.getpid()
        session.detach()
        closed = self._loop is None or self._loop.is_closed()
        for one in left:
            if ours:  # else the process that this one was forked from goes on with it, and it would end there, too
                with contextlib.suppress(OSError):  # it is closed
                    one.shutdown(socket.SHUT_RDWR)
            if closed or not ours:
                one.close()
        if not ours:
            _of_parents.append(connector)  # at its end it would take its connections out of the loop there
        elif connector is not None:
            # aiohttp has no public way for this. Its ``close`` is a coroutine that waits in the connector's own loop, which
            # runs no more and may not be run from here: others' callbacks lie in it. To shut the sockets is not enough
            # either: a connector that ends with connections in its pool complains in the log and to that loop, unless
            # it is marked as closed.
            with contextlib.suppress(RuntimeError):  # somebody in its loop, which is closed, can be told nothing more
                connector._close()  # noqa: SLF001

    @override
    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def explain(error: BaseException) -> str:
    """Return a failure to connect in the words that people know."""
    if isinstance(error, ssl.SSLError):  # its number is none of the system's
        return tls_words(error)
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number in errno.errorcode:
        return os.strerror(number).lower()
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved ({(error.strerror or str(error)).lower()})"
    return str(error) or type(error).__name__


def event_of(outcome: Outcome) -> Answer | Failure:
    """Return what became of a call over a channel, as plans are told it."""
    if type(outcome) is Answer:
        return outcome
    return Failure("lost" if isinstance(outcome, Lost) else "unreachable", str(outcome) or type(outcome).__name__)


class ChannelTransport(AsyncTransport):
    """One channel to each node, more when very many calls are under way, and HTTP for what no channel carries."""

    def __init__(self) -> None:
        self._http = HttpTransport()
        self._lines: dict[str, Line] = {}

    @override
    def begin(self, send: Send, tell: Callable[[Outcome], None]) -> Leave | None:
        line = self._lines.get(send.node)
        channel = None if line is None or line.plain else line.ready()
        if channel is None or not fits(send.call):
            return None
        return partial(channel.leave, channel.begin(send.call, send.headers(), send.timeout_s, tell))

    @override
    async def send(self, send: Send) -> Answer | Failure:
        line = self._lines.get(send.node)
        if line is None:
            line = self._lines[send.node] = Line(send.node, {}, CONNECT_TIMEOUT_S)
        if line.plain or not fits(send.call):
            return await self._http.send(send)
        try:
            return await line.ask(send.call, send.headers(), send.timeout_s)
        except NoChannel:
            return await self._http.send(send)
        except (NotSent, Lost) as error:
            return event_of(error)
        except OSError as error:
            return unreached(error, explain(error))

    @override
    def leave_behind(self) -> None:
        self._http.leave_behind()
        for line in self._lines.values():
            line.leave_behind()
        self._lines.clear()

    @override
    async def close(self) -> None:
        for line in self._lines.values():
            await line.close()
        self._lines.clear()
        await self._http.close()
