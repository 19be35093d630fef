"""What a request says before anybody reads its body, as the call that it makes; and an answer as the response that it is.

Invariants: a header that stands several times is one list (RFC 9110, 5.3), so nothing that was sent is passed over: where
one value is wanted, two are none. Who names the host in the first line means that one, whatever ``Host`` says (RFC 9112, 3.2.2).
"""

from __future__ import annotations

import re

from aiohttp import HttpVersion11, web

from quorl.cluster.protocol.wire import Answer, Call

_ABSOLUTE = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL).fullmatch
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def call_of(request: web.BaseRequest) -> Call:
    """The call of a request, without its body."""
    sent = request.headers
    headers = {name.lower(): value for name, value in sent.items()}
    if len(headers) < len(sent):
        headers = {name: ", ".join(sent.getall(name)) for name in headers}
    target = request.raw_path
    if not target.startswith("/") and (whole := _ABSOLUTE(target)) is not None:
        headers["host"] = whole[1].rpartition("@")[2]
        target = whole[2] if whole[2].startswith("/") else f"/{whole[2]}"
    path, _, query = target.partition("?")
    return Call(request.method, path, query, headers, b"")


def respond(answer: Answer) -> web.Response:
    """The response that carries an answer."""
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def waits_for_leave(request: web.BaseRequest) -> bool:
    """Whether the caller sends no body before he is told to."""
    expected = request.headers.get("Expect", "").lower() == "100-continue"
    return expected and request.version == HttpVersion11


async def give_leave(request: web.BaseRequest) -> None:
    """Tell the caller to send the body. The library does so only for applications of its own."""
    await request.writer.write(_CONTINUE)
    request.writer.output_size = 0  # that was no answer yet
