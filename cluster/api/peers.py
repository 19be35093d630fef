"""Calls from this node to the others, over kept-alive connections."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL

from quorl.cluster.api.members_only import HEADER
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.protocol.wire import Answer, Call

_CONNECT_TIMEOUT_S = 1.0


class HttpPeers:
    """Implements ``core.Peers`` over aiohttp."""

    def __init__(self, addresses: dict[str, str], token: str) -> None:
        self._addresses = addresses
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def call(self, peer: str, call: Call, timeout_s: float) -> Answer:
        """See ``core.Peers``."""
        target = call.path + (f"?{call.query}" if call.query else "")
        url = URL(f"http://{self._addresses[peer]}{target}", encoded=True)
        if url.raw_path_qs != target:
            # What arrives must be what was asked, byte for byte; anything else might be another operation.
            raise PeerUnreachable(f"{target[:200]!r} cannot be sent on as it is")
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
            ) as response:
                body = await response.read()
                return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise PeerUnreachable(f"{peer} at {self._addresses[peer]}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise PeerLost(f"{peer} at {self._addresses[peer]}: {type(error).__name__}") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No limit: a call that waits for news holds its connection, and nothing may queue behind those. How many
            # calls wait is bounded where they come in.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
