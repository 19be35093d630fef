"""Calls from this node to the others: over channels, and over HTTP for copies of the state and to nodes without channels."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL

from quorl.channel import Line, Lost, NoChannel, NotSent
from quorl.cluster.api.members_only import HEADER
from quorl.cluster.node.core import SNAPSHOT, PeerLost, PeerUnreachable
from quorl.cluster.protocol.channel import fits
from quorl.cluster.protocol.wire import Answer, Call
from quorl.sessions import Sent, open_session

_CONNECT_TIMEOUT_S = 1.0
"""Within a data centre a connection takes a millisecond: who takes none by then is as good as away, and the call goes
on."""


class HttpPeers:
    """Implements ``core.Peers``."""

    def __init__(self, addresses: dict[str, str], token: str) -> None:
        self._addresses = addresses
        self._token = token
        self._session: aiohttp.ClientSession | None = None
        self._lines = {
            peer: Line(f"http://{address}", {HEADER: token}, _CONNECT_TIMEOUT_S) for peer, address in addresses.items()
        }

    async def call(self, peer: str, call: Call, timeout_s: float) -> Answer:
        """See ``core.Peers``."""
        line = self._lines[peer]
        # Pieces of a copy are large, and would hold up every call on the same connection.
        if line.plain or call.path.startswith(SNAPSHOT) or not fits(call):
            return await self._over_http(peer, call, timeout_s)
        try:
            return await line.ask(call, dict(call.headers), max(0.001, timeout_s))
        except NoChannel:
            return await self._over_http(peer, call, timeout_s)
        except (NotSent, TimeoutError, OSError) as error:
            raise PeerUnreachable(f"{peer} at {self._addresses[peer]}: {error}") from error
        except Lost as error:
            raise PeerLost(f"{peer} at {self._addresses[peer]}: {error}") from error

    async def _over_http(self, peer: str, call: Call, timeout_s: float) -> Answer:
        target = call.path + (f"?{call.query}" if call.query else "")
        url = URL(f"http://{self._addresses[peer]}{target}", encoded=True)
        if url.raw_path_qs != target:
            # What arrives must be what was asked, byte for byte; anything else might be another operation.
            raise PeerUnreachable(f"{target[:200]!r} cannot be sent on as it is")
        sent = Sent()
        timeout = aiohttp.ClientTimeout(total=max(0.001, timeout_s), sock_connect=_CONNECT_TIMEOUT_S)
        headers = {**call.headers, HEADER: self._token}
        try:
            async with self._opened().request(
                call.method,
                url,
                data=call.body or None,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                trace_request_ctx=sent,
            ) as response:
                body = await response.read()
                return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            unheard: type[Exception] = PeerLost if sent.any else PeerUnreachable
            raise unheard(f"{peer} at {self._addresses[peer]}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise PeerLost(f"{peer} at {self._addresses[peer]}: {type(error).__name__}") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # How many calls wait is bounded where they come in.
            self._session = open_session(
                auto_decompress=False, skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type")
            )
        return self._session

    async def close(self) -> None:
        """Close every connection."""
        for line in self._lines.values():
            await line.close()
        if self._session is not None:
            await self._session.close()
