"""Calls between nodes arrive as they were asked, byte for byte, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from quorl.cluster.api.channel import Channels
from quorl.cluster.api.intake import Intake
from quorl.cluster.api.members_only import HEADER, fingerprint, token
from quorl.cluster.api.peers import HttpPeers
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer, Call


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


class Leader:
    """A node that speaks channels, and notes over what each call came."""

    def __init__(self) -> None:
        self.channels = Channels(self.take, self.refuse, Intake())
        self.came: list[tuple[str, str, str | None]] = []
        self.silent = asyncio.Event()
        self.arrived = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/channel":
            return await self.channels.serve(request, {k.lower(): v for k, v in request.headers.items()})
        self.came.append(("http", request.raw_path, request.headers.get(HEADER)))
        return web.Response()

    async def take(self, call: Call) -> Answer:
        self.came.append(("channel", call.path, call.headers.get(HEADER)))
        self.arrived.set()
        if call.path == "/v1/silent":
            await self.silent.wait()
        return Answer(200, {"quorl-sequence": "7"}, call.body)

    def refuse(self, call: Call, problem: Problem) -> Answer:
        raise AssertionError((call, problem))


@pytest.fixture
async def leader() -> AsyncIterator[tuple[Leader, HttpPeers]]:
    leader = Leader()
    runner = web.ServerRunner(web.Server(leader.handle, access_log=None, handler_cancellation=True))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    peers = HttpPeers({"n2": f"{host}:{port}"}, "a token")
    yield leader, peers
    await peers.close()
    leader.channels.close()
    await runner.cleanup()


async def test_calls_of_members_share_a_channel_and_copies_of_the_state_do_not(
    leader: tuple[Leader, HttpPeers],
) -> None:
    node, peers = leader
    calls = [peers.call("n2", Call("POST", f"/v1/x{number}", "", {}, b"%d" % number), 5.0) for number in range(3)]
    assert [answer.body for answer in await asyncio.gather(*calls)] == [b"0", b"1", b"2"]
    await peers.call("n2", Call("GET", "/internal/snapshot/a", "offset=0", {}, b""), 5.0)
    assert node.came == [
        ("channel", "/v1/x0", "a token"),
        ("channel", "/v1/x1", "a token"),
        ("channel", "/v1/x2", "a token"),
        ("http", "/internal/snapshot/a?offset=0", "a token"),
    ]
    assert len(node.channels) == 1


async def test_a_peer_that_breaks_off_may_have_heard_and_one_that_is_not_there_has_not(
    leader: tuple[Leader, HttpPeers],
) -> None:
    node, peers = leader
    waiting = asyncio.ensure_future(peers.call("n2", Call("POST", "/v1/silent", "", {}, b""), 20.0))
    await node.arrived.wait()
    node.channels.close()
    with pytest.raises(PeerLost, match="n2 at"):
        await waiting
    nobody = HttpPeers({"n3": "127.0.0.1:1"}, "")
    with pytest.raises(PeerUnreachable, match="n3 at"):
        await nobody.call("n3", Call("POST", "/v1/x", "", {}, b""), 5.0)
    await nobody.close()


def test_a_fingerprint_tells_secrets_apart_and_says_nothing_of_the_token() -> None:
    secret = b"5d41402abc4b2a76b9719d911017c592"
    shown = fingerprint(secret)
    assert shown is not None
    assert len(shown) == 4, "more would let a guess at a secret be proven by it"
    assert shown == fingerprint(secret) != fingerprint(secret + b"x")
    assert shown not in token(secret, "")
    assert shown not in secret.decode()
    assert fingerprint(b"") is None
