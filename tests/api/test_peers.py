"""Calls between nodes arrive as they were asked, byte for byte, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from quorl.cluster.api.peers import HttpPeers
from quorl.cluster.node.core import PeerUnreachable
from quorl.cluster.protocol.wire import Call


@pytest.fixture
async def peers() -> AsyncIterator[HttpPeers]:
    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        return web.Response(
            text=f"{request.method} {request.raw_path} {request.headers.get('Content-Type')} {len(body)}"
        )

    runner = web.ServerRunner(web.Server(echo, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    peers = HttpPeers({"n2": f"{host}:{port}"}, "")
    yield peers
    await peers.close()
    await runner.cleanup()


@pytest.mark.parametrize("number", [*range(0x21, 0x7F)])
async def test_d2_every_printable_character_arrives_or_nothing_does(peers: HttpPeers, number: int) -> None:
    path, query = f"/v1/topics/a{chr(number)}b", f"q=a{chr(number)}b"
    if chr(number) in "?#":
        path = "/v1/topics/ab"
    try:
        answer = await peers.call("n2", Call("DELETE", path, query, {}, b""), 5.0)
    except PeerUnreachable:
        assert chr(number) == "#"
        return
    assert answer.body.decode() == f"DELETE {path}?{query} None 0"


async def test_no_content_type_is_made_up(peers: HttpPeers) -> None:
    answer = await peers.call("n2", Call("POST", "/v1/topics", "", {}, b"{}"), 5.0)
    assert answer.body == b"POST /v1/topics None 2"
