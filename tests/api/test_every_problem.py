"""Every code of the catalogue, provoked at real nodes over real sockets; a code that nothing here provokes is a red test.

The nodes are whole ones, with disk and consensus, in this process: so bounds can be made small, disks full and code
broken. One is a cluster by itself; of the other's cluster half was never there. D13, D15.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from quorl.client import AsyncClient, Unavailable
from quorl.cluster.api import server
from quorl.cluster.api.app import Skin
from quorl.cluster.machine import topics
from quorl.cluster.node import config as configs
from quorl.cluster.node.node import Node
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.channel import PATH as CHANNEL
from quorl.cluster.protocol.limits import REQUEST_BYTES_MAX, TARGET_BYTES_MAX
from quorl.cluster.protocol.problems import CATALOGUE
from tests.harness import write_configs

FAST = {"raft": {"election_timeout_ms": [150, 300], "heartbeat_ms": 50}}
BODY_S = 0.2
CLIENTS_OWN = "unreadable_answer"
"""The one that no node gives, see the last test."""


class Told(NamedTuple):
    """What a node answered."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]


class Place:
    """A node that serves, and how it is called."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session
        self.node: Node
        self.skin: Skin

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Told:
        data = None if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {"Content-Type": "application/json"} if data is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(method, self.url + path, data=data, headers=sent) as answer:
            read = await answer.read()
            return Told(answer.status, {k.lower(): v for k, v in answer.headers.items()}, msgspec.json.decode(read))

    async def do(self, method: str, path: str, body: object = None, **headers: str) -> dict[str, Any]:
        told = await self.ask(method, path, body, **headers)
        assert told.status < 300, told
        return told.body

    async def raw(self, sent: bytes) -> Told:
        host, _, port = self.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        writer.close()
        return Told(int(lines[0].split()[1]), headers, msgspec.json.decode(body))


class Scene(NamedTuple):
    """What a provocation has at hand."""

    place: Place
    lonely: Place
    """Of a cluster of two, of which the other never was there."""
    patch: pytest.MonkeyPatch


@contextlib.asynccontextmanager
async def serving(config: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """A node as ``quorl node run`` serves it, but for the process around it."""
    listen, found = server._listen, asyncio.get_running_loop().create_future()

    async def listening(config: configs.Config, node: Node, skin: Skin) -> int:
        found.set_result((node, skin))
        return await listen(config, node, skin)

    with patch.context() as inner:
        inner.setattr(server, "_listen", listening)
        inner.setattr(server, "_calm_memory", lambda: None)
        loaded = configs.load(config, {})
        served = asyncio.ensure_future(server.serve(loaded))
        await asyncio.wait([served, found], return_when=asyncio.FIRST_COMPLETED)
    async with aiohttp.ClientSession() as session:
        place = Place(f"http://{loaded.node.http}", session)
        if served.done():
            served.result()
        place.node, place.skin = found.result()
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with session.get(place.url + "/livez"):
                    break
        yield place
    await place.node.stop()
    served.cancel()
    await asyncio.wait([served])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def places(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Place, Place]]:
    with pytest.MonkeyPatch.context() as patch:
        whole, *_ = write_configs(tmp_path_factory.mktemp("whole"), size=1, sections=FAST)
        half, *_ = write_configs(tmp_path_factory.mktemp("half"), size=2, sections=FAST)
        async with serving(whole, patch) as place, serving(half, patch) as lonely:
            assert await place.node.wait_leader(None, place.node.monotonic() + 30)
            await place.do("POST", "/v1/topics", {"name": "t"})
            await place.do("PUT", "/v1/queues/q", {})
            yield place, lonely


Provoke = Callable[[Scene], Awaitable[Told]]
PROVOKED: dict[str, Provoke] = {}


def provokes(code: str) -> Callable[[Provoke], Provoke]:
    def note(provoke: Provoke) -> Provoke:
        assert code not in PROVOKED
        PROVOKED[code] = provoke
        return provoke

    return note


def plain(code: str, method: str, path: str, body: object = None, **headers: str) -> None:
    """A call that is wrong by itself."""
    provokes(code)(lambda scene: scene.place.ask(method, path, body, **headers))


def test_d15_every_code_of_the_catalogue_is_provoked_here() -> None:
    assert sorted([*PROVOKED, CLIENTS_OWN]) == sorted(CATALOGUE)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("code", PROVOKED)
async def test_d15_a_code_comes_as_the_catalogue_has_it(
    code: str, places: tuple[Place, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, kind = await PROVOKED[code](Scene(*places, monkeypatch)), CATALOGUE[code]
    assert (told.status, told.body["code"]) == (kind.status, code), told
    assert told.headers["content-type"] == "application/problem+json"
    found = {name: told.body[name] for name in ("type", "title", "status", "retryable")}
    assert found == {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "retryable": kind.retryable,
    }
    assert told.body["detail"]
    assert told.body["hint"]
    assert ("retry-after" in told.headers) == kind.retryable


# -- what is wrong with a call by itself -----------------------------------------------------------------------------
plain("invalid_json", "POST", "/v1/topics", b"{")
plain("invalid_parameter", "GET", "/v1/topics/t?nothing=1")
plain("forbidden_host", "GET", "/v1/topics", Host="elsewhere.example")
plain("forbidden_origin", "GET", "/v1/topics", Origin="http://elsewhere.example")
plain("route_not_found", "GET", "/v1/nothing")
plain("method_not_allowed", "PUT", "/v1/topics")
plain("not_acceptable", "GET", "/v1/topics", Accept="image/png")
plain("target_too_long", "GET", "/v1/topics/" + "x" * TARGET_BYTES_MAX)
plain("unsupported_media_type", "POST", "/v1/topics", b"x", Content_Type="text/html")
plain("validation_failed", "POST", "/v1/topics", {"name": 5})
plain("upgrade_required", "GET", CHANNEL)


@provokes("malformed_request")
async def malformed_request(scene: Scene) -> Told:
    return await scene.place.raw(b"this is not HTTP\r\n\r\n")


@provokes("headers_too_large")
async def headers_too_large(scene: Scene) -> Told:
    return await scene.place.raw(
        b"GET /v1/topics HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"x" * 20_000 + b"\r\n\r\n"
    )


@provokes("request_timeout")
async def request_timeout(scene: Scene) -> Told:
    scene.patch.setattr(scene.place.skin, "_body_s_max", BODY_S)
    return await scene.place.raw(announced(9) + b'{"name"')


@provokes("payload_too_large")
async def payload_too_large(scene: Scene) -> Told:
    return await scene.place.raw(announced(REQUEST_BYTES_MAX + 1) + b'{"name"')


def announced(size_bytes: int) -> bytes:
    """The head of a call whose body has that size."""
    head = "POST /v1/topics HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {size_bytes}\r\n\r\n".encode()


@provokes("idempotency_key_reused")
async def idempotency_key_reused(scene: Scene) -> Told:
    await scene.place.do("POST", "/v1/topics", {"name": "first"}, Idempotency_Key="k")
    return await scene.place.ask("POST", "/v1/topics", {"name": "second"}, Idempotency_Key="k")


# -- what the state refuses -------------------------------------------------------------------------------------------
plain("topic_not_found", "GET", "/v1/topics/nothing")
plain("partition_not_found", "GET", "/v1/topics/t/messages?partition=7")
plain("message_not_found", "GET", "/v1/topics/t/messages/0/99")
plain("consumer_not_found", "GET", "/v1/topics/t/consumers/99")
plain("producer_not_found", "POST", "/v1/topics/t/messages", {"value": 1, "producer_id": 99})
plain("queue_not_found", "GET", "/v1/queues/nothing")
plain("queue_differs", "PUT", "/v1/queues/q", {"partitions": 7})
plain("task_not_found", "GET", "/v1/tasks/nothing")
plain("worker_not_found", "GET", "/v1/workers/99")
plain("member_not_found", "POST", "/v1/cluster/leader-transfers", {"to": "n9"})
plain("transfer_refused", "POST", "/v1/cluster/leader-transfers", {})


@provokes("already_exists")
async def already_exists(scene: Scene) -> Told:
    return await scene.place.ask("POST", "/v1/topics", {"name": "t", "error_if_exists": True})


@provokes("topic_not_empty")
async def topic_not_empty(scene: Scene) -> Told:
    await scene.place.do("POST", "/v1/topics", {"name": "full"})
    await scene.place.do("POST", "/v1/topics/full/messages", {"value": 1})
    return await scene.place.ask("DELETE", "/v1/topics/full?if_empty=true")


async def submitted(scene: Scene, queue: str, **task: object) -> str:
    answer = await scene.place.do("POST", f"/v1/queues/{queue}/tasks", {"name": "add", **task})
    return str(answer["items"][0]["id"])


@provokes("queue_not_empty")
async def queue_not_empty(scene: Scene) -> Told:
    await submitted(scene, "filled")
    return await scene.place.ask("DELETE", "/v1/queues/filled")


@provokes("queue_sealed")
async def queue_sealed(scene: Scene) -> Told:
    await scene.place.do("PUT", "/v1/queues/sealed", {})
    await scene.place.do("PATCH", "/v1/queues/sealed", {"sealed": True})
    return await scene.place.ask("POST", "/v1/queues/sealed/tasks", {"name": "add"})


@provokes("queue_full")
async def queue_full(scene: Scene) -> Told:
    await scene.place.do("PUT", "/v1/queues/narrow", {"max_depth": 1})
    await submitted(scene, "narrow")
    return await scene.place.ask("POST", "/v1/queues/narrow/tasks", {"name": "add"})


@provokes("task_exists")
async def task_exists(scene: Scene) -> Told:
    await submitted(scene, "q", id="mine")
    return await scene.place.ask("POST", "/v1/queues/q/tasks", {"name": "other", "id": "mine"})


@provokes("wrong_state")
async def wrong_state(scene: Scene) -> Told:
    task_id = await submitted(scene, "q")
    return await scene.place.ask("POST", f"/v1/tasks/{task_id}/retry")


@provokes("lease_lost")
async def lease_lost(scene: Scene) -> Told:
    task_id = await submitted(scene, "q")
    return await scene.place.ask("POST", f"/v1/tasks/{task_id}/complete", {"lease": 99})


@provokes("worker_not_alive")
async def worker_not_alive(scene: Scene) -> Told:
    worker = await scene.place.do("POST", "/v1/workers", {"name": "gone", "queues": ["q"]})
    await scene.place.do("DELETE", f"/v1/workers/{worker['worker_id']}")
    return await scene.place.ask("POST", "/v1/claims", {"worker_id": worker["worker_id"]})


@provokes("too_many_workers")
async def too_many_workers(scene: Scene) -> Told:
    await scene.place.do("POST", "/v1/workers", {"name": "one", "queues": ["q"]})
    scene.patch.setattr(limits, "WORKERS_MAX", 1)
    return await scene.place.ask("POST", "/v1/workers", {"name": "two", "queues": ["q"]})


# -- defects, ours and others' ---------------------------------------------------------------------------------------
def broken(*_: object) -> None:
    raise ValueError("a defect")


@provokes("command_failed")
async def command_failed(scene: Scene) -> Told:
    scene.patch.setattr(topics, "create_topic", broken)
    return await scene.place.ask("POST", "/v1/topics", {"name": "never"})


@provokes("internal")
async def internal(scene: Scene) -> Told:
    scene.patch.setattr(scene.place.node.machine, "query", broken)
    return await scene.place.ask("GET", "/v1/topics")


# -- a cluster that cannot now ---------------------------------------------------------------------------------------
@provokes("too_many_requests")
async def too_many_requests(scene: Scene) -> Told:
    scene.patch.setattr(limits, "LONG_POLLS_MAX", 0)
    return await scene.place.ask("GET", "/v1/topics/t/messages?wait=1")


@provokes("too_many_streams")
async def too_many_streams(scene: Scene) -> Told:
    scene.patch.setattr(limits, "STREAMS_MAX", 0)
    return await scene.place.ask("GET", "/v1/events")


@provokes("no_quorum")
async def no_quorum(scene: Scene) -> Told:
    return await scene.lonely.ask("POST", "/v1/topics", {"name": "never"}, Quorl_Timeout_Ms="500")


@provokes("no_leader")
async def no_leader(scene: Scene) -> Told:
    """As another node is told that took this one for the leader."""
    return await scene.lonely.ask("POST", "/v1/topics", {"name": "never"}, Quorl_Hops="1")


@provokes("not_ready")
async def not_ready(scene: Scene) -> Told:
    target = "/v1/topics?consistency=session&min_sequence=1000000000"
    return await scene.place.ask("GET", target, Quorl_Timeout_Ms="500")


@provokes("shutting_down")
async def shutting_down(scene: Scene) -> Told:
    scene.patch.setattr(scene.lonely.node.gateway._polls, "draining", True)
    return await scene.lonely.ask("GET", "/v1/topics")


@provokes("storage_full")
async def storage_full(scene: Scene) -> Told:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    scene.patch.setattr(scene.place.node.replica.engine.log, "add", full)
    return await scene.place.ask("POST", "/v1/topics", {"name": "never"}, Quorl_Timeout_Ms="2000")


@provokes("commit_unknown")
async def commit_unknown(scene: Scene) -> Told:
    scene.patch.setattr(scene.place.node.replica.engine, "suspended", True)
    return await scene.place.ask("POST", "/v1/topics", {"name": "perhaps"}, Quorl_Timeout_Ms="500")


async def test_d15_an_answer_that_no_node_gives_has_the_code_of_the_clients() -> None:
    async def proxy(_: web.BaseRequest) -> web.Response:
        return web.Response(status=404, text="<html>Not here</html>", content_type="text/html")

    runner = web.ServerRunner(web.Server(proxy))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with AsyncClient(f"http://127.0.0.1:{runner.addresses[0][1]}", timeout_s=0.5) as client:
        with pytest.raises(Unavailable, match=f"404 {CLIENTS_OWN}"):
            await client.topics.list()
    await runner.cleanup()
