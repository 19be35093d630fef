"""The aiohttp application: a thin skin around the node's ``handle``.

Bodies are read up to their limit and not further; a handler is cancelled when its client goes away, and what was
proposed meanwhile goes on without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from aiohttp import web, web_response

from quorl.cluster.api.channel import Channels, failed, wants_channel
from quorl.cluster.api.dashboard import Dashboard
from quorl.cluster.api.docs import Pages
from quorl.cluster.api.health import Health
from quorl.cluster.api.hosts import Hosts
from quorl.cluster.api.intake import Intake
from quorl.cluster.api.members_only import HEADER, knows
from quorl.cluster.api.requests import call_of, give_leave, respond, waits_for_leave
from quorl.cluster.node.core import PREFIX
from quorl.cluster.protocol.channel import NAME, PATH
from quorl.cluster.protocol.limits import REQUEST_BYTES_MAX
from quorl.cluster.protocol.problems import DETAIL_CHARS_MAX, Problem
from quorl.cluster.protocol.wire import Answer, Call

BODY_S_MAX = 30.0
"""A body that takes longer to arrive is given up: its client is gone, or means no good."""
_CHUNK_BYTES = 64 * 1024
"""What is read at a time of a body that is refused anyway."""
_OF_THE_TABLE = "/v1/"
"""What begins so is never answered here."""


class Handler(Protocol):
    """What answers calls."""

    async def handle(self, call: Call) -> Answer:
        """Answer one call; never raises."""

    def refuse(self, call: Call, problem: Problem) -> Answer:
        """Answer a call that was not even read."""


Stream = Callable[[web.BaseRequest, Call], Awaitable[web.StreamResponse]]
"""Answers a request for as long as its client stays."""


class Skin:
    """The routes of one node."""

    def __init__(
        self,
        node: Handler,
        health: Health,
        hosts: Hosts,
        member_token: str,
        body_bytes_max: int,
        version: str,
        *,
        body_s_max: float = BODY_S_MAX,
        dashboard: Dashboard | None = None,
        streams: Mapping[str, Stream] | None = None,
        metrics: Callable[[Call], Answer] | None = None,
    ) -> None:
        self._node = node
        self._hosts = hosts
        self._token = member_token
        self._body_bytes_max = body_bytes_max
        self._body_bytes_any = min(body_bytes_max, REQUEST_BYTES_MAX)
        """So much may come wherever it goes."""
        self._body_s_max = body_s_max
        self._dashboard = dashboard or Dashboard()
        self.intake = Intake()
        self.channels = Channels(self.take, node.refuse, self.intake)
        self._streams = {**(streams or {}), PATH: self._channel}
        about = Pages(version)
        self._pages: dict[str, Callable[[Call], Answer | Problem]] = {
            "/livez": lambda _: health.live(),
            "/readyz": lambda call: health.ready(verbose="verbose" in call.query),
            "/startupz": lambda _: health.started(),
            "/metrics": metrics or _no_metrics,
            "/version": about.version,
            "/openapi.json": about.openapi,
            "/docs": about.docs,
            "/problems": about.problems,
            "/problems/{code}": about.problems,
            "/": self._of_dashboard,
            "/favicon.ico": self._of_dashboard,
        }

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that are answered here, and not by the node's ``handle``; beside them stand the files below ``/ui/``."""
        return (*self._pages,)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; routing by path is the gateway's business."""
        call = call_of(request)
        path, headers = call.path, call.headers
        if not self._hosts.take(headers.get("host")):
            detail = f"The request is for {headers['host'][:100]}, which is no name of this node."
            return respond(self._node.refuse(call, Problem("forbidden_host", detail)))
        if (answer := self._at_once(call)) is not None:
            return respond(answer)
        if (stream := self._streams.get(path)) is not None:
            return await stream(request, call)
        body: bytes | Problem
        try:
            async with asyncio.timeout(self._body_s_max):
                body = await self._read_body(request, self._body_bytes_of(path))
        except TimeoutError:
            detail = f"The body did not arrive within {self._body_s_max:g} s."
            body = Problem("request_timeout", detail)
        if isinstance(body, Problem):
            response = respond(self._node.refuse(call, body))
            response.force_close()  # where the next request would begin, there may be more of this body
            return response
        return respond(await self._told(call._replace(body=body)))

    async def _channel(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        if wants_channel(call.headers) and call.method == "GET" and not request.body_exists:
            return await self.channels.serve(request, call.headers)
        detail = f"This path takes a GET with the headers Connection: Upgrade and Upgrade: {NAME}, and no body."
        answer = self._node.refuse(call, Problem("upgrade_required", detail))
        return respond(answer._replace(headers={**answer.headers, "connection": "upgrade", "upgrade": NAME}))

    async def take(self, call: Call) -> Answer:
        """Answer one call that came on a channel, as if it had come by itself. The channel's host was looked at before."""
        answer = self._at_once(call)
        size = len(call.body)
        if answer is None and size > self._body_bytes_any and size > self._body_bytes_of(call.path):
            answer = self._node.refuse(call, self._too_large())
        if answer is None:
            answer = await self._told(call)
        return answer if call.method != "HEAD" else answer._replace(body=b"")

    async def _told(self, call: Call) -> Answer:
        """What the node answers. A HEAD of what only reads is a GET, whose body does not travel: over HTTP the library sees to that."""
        if call.method == "HEAD" and call.path.startswith(_OF_THE_TABLE):
            call = call._replace(method="GET")
        return await self._node.handle(call)

    def _at_once(self, call: Call) -> Answer | None:
        """What is answered here, before anybody reads a body; None for what is the node's business."""
        try:
            return self._here(call)
        except Exception as error:
            return failed(self._node.refuse, call, error)

    def _here(self, call: Call) -> Answer | None:
        _, path, _, headers, _ = call
        if not path.startswith(_OF_THE_TABLE):
            if (page := self._page(path)) is not None:
                return self._shown(page, call)
            if file := self._dashboard.answer(call.method, path, headers):
                return file
        if path.startswith(PREFIX) and not knows(self._token, headers.get(HEADER)):
            plain = {"content-type": "text/plain; charset=utf-8"}
            return Answer(403, plain, b"These routes are for members of the cluster only.\n")
        if headers.get("content-encoding", "identity").lower() != "identity":
            detail = f"The body is said to be {headers['content-encoding'][:50]}; send it as it is."
            return self._node.refuse(call, Problem("unsupported_media_type", detail))
        return None

    def _body_bytes_of(self, path: str) -> int:
        """What members tell each other is bounded by themselves; a setting for clients must not cut it off."""
        return REQUEST_BYTES_MAX if path.startswith(PREFIX) else self._body_bytes_max

    def _too_large(self) -> Problem:
        detail = f"The body is larger than the {self._body_bytes_max} bytes that this node takes."
        return Problem("payload_too_large", detail)

    def _page(self, path: str) -> Callable[[Call], Answer | Problem] | None:
        """What answers a path here: whole paths, and whatever lies below ``/problems/``."""
        return self._pages.get("/problems/{code}" if path.startswith("/problems/") else path)

    def _of_dashboard(self, call: Call) -> Answer:
        found = self._dashboard.answer(call.method, call.path, call.headers)
        assert found is not None, "these two paths are its own"
        return found

    def _shown(self, page: Callable[[Call], Answer | Problem], call: Call) -> Answer:
        if call.method not in {"GET", "HEAD"}:
            problem = Problem("method_not_allowed", f"{call.method[:20]} is not for pages.", allow=("GET", "HEAD"))
            return self._node.refuse(call, problem)
        found = page(call)
        return self._node.refuse(call, found) if isinstance(found, Problem) else found

    def unreadable(self, code: str, detail: str) -> web.StreamResponse:
        """Answer what could not be read as a request, and so has no path or headers that are known."""
        return respond(self._node.refuse(Call("GET", "/", "", {}, b""), Problem(code, detail[:DETAIL_CHARS_MAX])))

    async def _read_body(self, request: web.BaseRequest, most: int) -> bytes | Problem:
        """The body; or what is wrong with it, as one that is too large, of which no more than the limit was read."""
        if not request.body_exists:
            return b""
        waits = waits_for_leave(request)
        if (request.content_length or 0) > most:
            if not waits:
                # A little of it is read, so that the client sees the answer instead of a reset while it still sends.
                await request.content.read(_CHUNK_BYTES)
            return self._too_large()
        if waits:
            await give_leave(request)
        parts, size = [], 0
        try:
            while part := await request.content.readany():
                parts.append(part)
                size += len(part)
                if not self.intake.add(len(part)):
                    return Problem("too_many_requests", "The bodies that are arriving here are too many for this node.")
                if size > most:
                    return self._too_large()
        finally:
            self.intake.add(-size)
        return b"".join(parts)


def introduce(version: str) -> None:
    """Let every answer of this process name us as its ``Server``, and not the versions of what lies beneath.

    The library has no setting for it; a header on our own answers would leave out those that it gives by itself.
    """
    web_response.SERVER_SOFTWARE = f"quorl/{version}"  # type: ignore[attr-defined]


def _no_metrics(_call: Call) -> Problem:
    return Problem("route_not_found", "This node's configuration says `[metrics] enabled = false`.")
