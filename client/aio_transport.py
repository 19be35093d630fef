"""How the asyncio client's calls get to a node: over a channel, and over HTTP where a node has none.

Invariants: a transport carries one call to one node and says what came of it; it never repeats one. A call is said not to
have arrived only if that is certain.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from quorl.channel import Channel, Lost, NoChannel, NotSent, dial
from quorl.client.flow import CONNECT_TIMEOUT_S, Failure, Send
from quorl.cluster.protocol.channel import fits
from quorl.cluster.protocol.wire import Answer

if TYPE_CHECKING:
    import aiohttp

WITHOUT_S = 60.0
"""A server that has no channel is not asked for one again for so long: it may be replaced by a newer one."""
_ASK_AGAIN_S = 5.0
"""The same of a server that was in trouble when it was asked."""


class AsyncTransport(Protocol):
    """Carries one call to one node. It never raises, except when it is cancelled."""

    async def send(self, send: Send) -> Answer | Failure:
        """Return the answer, or why there is none."""

    async def close(self) -> None:
        """Close what is open."""


class HttpTransport(AsyncTransport):
    """aiohttp, with kept-alive connections."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
            )
        return self._session

    @override
    async def send(self, send: Send) -> Answer | Failure:
        import aiohttp
        from yarl import URL

        call = send.call
        target = f"{send.node}{call.path}?{call.query}" if call.query else send.node + call.path
        timeout = aiohttp.ClientTimeout(total=send.timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, send.timeout_s))
        try:
            async with self._open().request(
                call.method,
                URL(target, encoded=True),  # a name in the path stays encoded as it is
                data=call.body or None,
                headers=send.headers(),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                body = await response.read()
                return Answer(response.status, {name.lower(): text for name, text in response.headers.items()}, body)
        except aiohttp.ConnectionTimeoutError:
            return Failure("unreachable", "time-out while connecting")
        except aiohttp.ClientConnectorError as error:
            return Failure("unreachable", explain(error.os_error))
        except TimeoutError:
            return Failure("lost", f"no answer in {send.timeout_s:.1f} s")
        except (aiohttp.ClientError, OSError) as error:
            return Failure("lost", f"connection lost: {explain(error)}")

    @override
    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def explain(error: BaseException) -> str:
    """Return a failure to connect in the words that people know."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number in errno.errorcode:
        return os.strerror(number).lower()
    return str(error) or type(error).__name__


class ChannelTransport(AsyncTransport):
    """One channel to each node, more when very many calls are under way, and HTTP for what no channel carries."""

    def __init__(self) -> None:
        self._http = HttpTransport()
        self._lines: dict[str, _Line] = {}

    @override
    async def send(self, send: Send) -> Answer | Failure:
        line = self._lines.get(send.node)
        if line is None:
            line = self._lines[send.node] = _Line(send.node)
        if line.plain or not fits(send.call):
            return await self._http.send(send)
        timeout_s, channel = send.timeout_s, line.channel()
        try:
            if channel is None:
                began_s = line.now()
                channel = await line.dialled(min(CONNECT_TIMEOUT_S, timeout_s))
                timeout_s = max(0.001, timeout_s - (line.now() - began_s))
            return await channel.ask(send.call, send.headers(), timeout_s)
        except NoChannel:
            return await self._http.send(send._replace(timeout_s=timeout_s))
        except TimeoutError:
            return Failure("unreachable", "time-out while connecting")
        except (NotSent, OSError) as error:
            return Failure("unreachable", explain(error))
        except Lost as error:
            return Failure("lost", str(error))

    @override
    async def close(self) -> None:
        for line in self._lines.values():
            await line.close()
        self._lines.clear()
        await self._http.close()


class _Line:
    """The channels to one node."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._channels: list[Channel] = []
        self._dialling: asyncio.Task[Channel] | None = None
        self._plain_until_s = float("inf") if "@" in node else 0.0  # a name and a password are HTTP's business

    @staticmethod
    def now() -> float:
        """Seconds of the loop's clock."""
        return asyncio.get_running_loop().time()

    @property
    def plain(self) -> bool:
        """Whether the node has no channel, as far as is known."""
        return self._plain_until_s > 0 and self.now() < self._plain_until_s

    def channel(self) -> Channel | None:
        """Return one that takes a call; None if there is none."""
        for channel in self._channels:
            if channel.usable:
                return channel
        return None

    async def dialled(self, timeout_s: float) -> Channel:
        """Return a new one, the same for all who want one at the same time. Raises as ``dial``."""
        if self._dialling is None or self._dialling.done():
            self._channels = [channel for channel in self._channels if not channel.closed]
            self._dialling = asyncio.ensure_future(self._dial())
            self._dialling.add_done_callback(lambda done: done.cancelled() or done.exception())
        dialling = self._dialling
        async with asyncio.timeout(timeout_s):
            await asyncio.wait([dialling])
        if dialling.cancelled():
            raise NotSent("the client is closed")
        return dialling.result()

    async def _dial(self) -> Channel:
        try:
            channel = await dial(self._node, {}, CONNECT_TIMEOUT_S)
        except NoChannel as error:
            self._plain_until_s = self.now() + (WITHOUT_S if 400 <= error.status < 500 else _ASK_AGAIN_S)
            raise
        self._channels.append(channel)
        return channel

    async def close(self) -> None:
        """End them."""
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.gather(self._dialling, return_exceptions=True)
        for channel in self._channels:
            channel.abort()
