"""The door: how many connections come in, and how long one may stand there without asking for anything.

What is not even HTTP is told so in the node's own words, and is no matter for the log: strangers send it.

Sockets are the process's too: the log, the state and the other members need some. So strangers who only connect are sent
away after a while, and beyond a number nobody else is let in until somebody leaves. So is who asks and does not take the
answer, of which each may have megabytes: the system ends a connection on which nothing is taken for so long, however slowly
others take theirs.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import ClientPayloadError, http_exceptions, web
from typing_extensions import override

FILES_RESERVED = 256
"""Open files that are kept for the log, the state, the other members and calls to them."""
SILENCE_S_MAX = 10.0
"""Who has connected and asked for nothing by then is sent away."""
UNTAKEN_S_MAX = 30.0
"""As channels have it."""
HEADER_BYTES_MAX = 16 * 1024
"""Of one header. With the 8 KiB that aiohttp takes by itself a target of TARGET_BYTES_MAX would not fit into the
first line."""
LINE_BYTES_MAX = HEADER_BYTES_MAX + 1
"""Of the first line. One more than of a header, so that it can be told which of them was too long."""
HEADERS_MAX = 128
"""Of one request: browsers send some 20, proxies a few more."""
_TOO_MANY = "Too many headers received"
_UNREADABLE = (http_exceptions.HttpProcessingError, ClientPayloadError, web.RequestPayloadError)


def raise_file_limit() -> int:
    """Take as many open files as the machine allows; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1_048_576


def connections_max(files: int) -> int:
    """How many connections may stand, given how many files may be open: half of the rest is for calls to members."""
    return max(64, (files - FILES_RESERVED) // 2)


class _Full(asyncio.Protocol):
    """One connection too many."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


Refuse = Callable[[str, str], web.StreamResponse]
"""Answers a request that could not be read: the code of the problem, and what the parser said."""


def _told(error: BaseException | None, message: str) -> tuple[str, str]:
    """Say what is wrong with the head of a request: the code, and the detail.

    The library has one error for all that is too long; of its arguments the limit tells which, as the two differ.
    """
    limit = error.args[1] if isinstance(error, http_exceptions.LineTooLong) else None
    if limit == LINE_BYTES_MAX:
        return "target_too_long", f"The first line is longer than {HEADER_BYTES_MAX} bytes."
    if limit == HEADER_BYTES_MAX:
        return "headers_too_large", f"A header is longer than {HEADER_BYTES_MAX} bytes."
    return "headers_too_large" if message.endswith(_TOO_MANY) else "malformed_request", message


class _Listener(web.RequestHandler):
    """aiohttp's side of one connection, whose errors are told as problems."""

    __slots__ = ("refuse",)

    refuse: Refuse

    @override
    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status == 500 and not isinstance(exc, _UNREADABLE):
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        code, detail = _told(exc, message or str(exc)) if status != 500 else ("malformed_request", message or str(exc))
        answer = self.refuse(code, " ".join(detail.split()))
        answer.force_close()
        return answer


class Door(web.Server):
    """aiohttp's server with a bound on connections and on their silence."""

    def __init__(
        self,
        *args: Any,
        most: int,
        refuse: Refuse,
        silence_s: float = SILENCE_S_MAX,
        untaken_s: float = UNTAKEN_S_MAX,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args, max_line_size=LINE_BYTES_MAX, max_field_size=HEADER_BYTES_MAX, max_headers=HEADERS_MAX, **kwargs
        )
        self._most = most
        self._refuse = refuse
        self._silence_s = silence_s
        self._untaken_ms = round(1000 * untaken_s)
        self._asked: set[Any] = set()

    @override
    def __call__(self) -> Any:
        if len(self.connections) >= self._most:
            return _Full()
        listener = _Listener(self, loop=self._loop, **self._kwargs)
        listener.refuse = self._refuse
        return listener

    @override
    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._untaken_ms)
        asyncio.get_running_loop().call_later(self._silence_s, self._look, handler, transport)

    @override
    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        self._asked.discard(handler)
        super().connection_lost(handler, exc)

    def _look(self, handler: Any, transport: asyncio.Transport) -> None:
        if handler not in self._asked:
            transport.abort()

    @override
    def _make_request(self, message: Any, payload: Any, protocol: Any, *rest: Any) -> Any:
        self._asked.add(protocol)
        return super()._make_request(message, payload, protocol, *rest)
