"""Sessions of aiohttp as the client and the nodes need them, for calls that go over HTTP.

aiohttp makes a call of some methods, DELETE and PUT among them, again by itself when its connection is lost. Should the second
try then find nobody, its error says that of the first one as well, which may have arrived. So whoever calls keeps a ``Sent``.

Loaded with aiohttp, which takes its time: only where a call goes over HTTP.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import aiohttp

from quorl.vanished import notice_vanished


class Sent:
    """Whether anything of a call has left; given along as ``trace_request_ctx``."""

    def __init__(self) -> None:
        self.any = False


async def _note(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.any = True


def open_session(made: Callable[[socket.socket], None] | None = None, **options: Any) -> aiohttp.ClientSession:
    """Open a session without limits, whose connections are lost soon if the other machine vanishes; ``made`` is told of each socket.

    No limits, as a call that waits for news holds its connection, and nothing may queue behind those.
    """

    def watched(address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = address
        one = socket.socket(family, kind, protocol)
        notice_vanished(one)
        if made is not None:
            made(one)
        return one

    notes = aiohttp.TraceConfig()
    notes.on_request_headers_sent.append(_note)
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=30, socket_factory=watched)
    return aiohttp.ClientSession(connector=connector, trace_configs=[notes], **options)
