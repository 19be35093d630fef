"""``GET /v1/events``: a stream of server-sent events, on the node's side of the socket.

What is told, and when a client is cut off, is decided in ``node/live.py``; here it becomes an answer that does not end.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol, cast

from aiohttp import ClientConnectionResetError, web

from quorl.cluster.api.requests import respond
from quorl.cluster.node.live import CHANNELS
from quorl.cluster.node.looking import Looking
from quorl.cluster.node.visit import Declined
from quorl.cluster.protocol.overview import Channel
from quorl.cluster.protocol.problems import Problem, ProtocolError
from quorl.cluster.protocol.routes import nearest
from quorl.cluster.protocol.wire import Answer, Call, check_headers, check_target, read_pairs

PATH = "/v1/events"
_TYPE = "text/event-stream"
_SYSTEM_BYTES = 64 * 1024
"""What the system may hold of one stream, beside what this process does."""


class Streaming(Protocol):
    """What the streams need of the node."""

    looking: Looking
    name: str

    def refuse(self, call: Call, problem: Problem) -> Answer:
        """Answer with a problem."""


class _Socket:
    """The connection of a request. Implements ``live.Line``."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        opened = None if request.transport is None else request.transport.get_extra_info("socket")
        if opened is not None:  # else the system takes megabytes for a client that reads nothing
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SYSTEM_BYTES)

    def unsent(self) -> int:
        """See ``Line``."""
        transport = self._request.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def cut(self) -> None:
        """See ``Line``."""
        if self._request.transport is not None:
            self._request.transport.abort()


async def stream(node: Streaming, request: web.BaseRequest, call: Call) -> web.StreamResponse:
    """Answer one request with a stream, until either side has enough of it."""
    try:
        channels = _asked(call)
    except ProtocolError as error:
        return respond(node.refuse(call, error.problem))
    live = node.looking.live
    if live.closed:
        return respond(node.refuse(call, Problem("shutting_down", f"{node.name} is shutting down.")))
    try:
        told = live.open(channels, _Socket(request), resumed="last-event-id" in call.headers)
    except Declined as declined:
        return respond(node.refuse(call, declined.problem))
    if told is None:
        return respond(node.refuse(call, Problem("too_many_streams", f"{node.name} serves {len(live)} streams.")))
    response = web.StreamResponse(
        headers={
            "content-type": f"{_TYPE}; charset=utf-8",
            "cache-control": "no-store",
            "served-by": node.name,
            "x-accel-buffering": "no",
        }
    )
    try:
        with contextlib.suppress(ClientConnectionResetError):  # it has gone, as clients of streams do
            await response.prepare(request)
            while (frame := await told.next()) is not None:
                await response.write(frame)
            if told.ended == "bye":
                await response.write_eof()
    finally:
        live.leave(told)
    return response


def _asked(call: Call) -> frozenset[Channel]:
    """Which channels the call is for; raises ``ProtocolError``."""
    if call.method != "GET":
        raise ProtocolError(Problem("method_not_allowed", f"{PATH} takes GET, not {call.method[:20]}.", allow=("GET",)))
    check_target(call)
    accept = call.headers.get("accept", "")
    if accept and _TYPE not in accept and "*/*" not in accept and "text/*" not in accept:
        raise ProtocolError(Problem("not_acceptable", f"Accept is {accept[:100]}; {PATH} answers with {_TYPE}."))
    check_headers(call._replace(headers={name: text for name, text in call.headers.items() if name != "accept"}))
    words = read_pairs(call.query, ("channels",)).get("channels", "overview").split(",")
    for word in words:
        if word not in CHANNELS:
            detail = f"There is no channel `{word[:100]}`{nearest(word, CHANNELS)}. There are {', '.join(CHANNELS)}."
            raise ProtocolError(Problem("invalid_parameter", detail))
    return frozenset(cast("list[Channel]", words))
