"""The overview, history and streams of events of real nodes, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import pytest

from quorl.client import Client
from tests.harness import CALM, LocalCluster, LocalNode, call, cluster_in, until

SECONDS = 15.0


class Frame(NamedTuple):
    """One event as a browser would hand it to its page."""

    event: str
    id: int
    data: Any


class Listener:
    """A browser's end of a stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def greeting(self) -> str:
        return (await self._block())[0]

    async def next(self, event: str | None = None) -> Frame:
        """The next frame, or the next of that event."""
        while True:
            lines = await asyncio.wait_for(self._block(), SECONDS)
            if lines == [": still here"]:
                continue
            fields = dict(line.split(": ", 1) for line in lines)
            frame = Frame(fields["event"], int(fields["id"]), json.loads(fields["data"]))
            if event in {None, frame.event}:
                return frame

    async def _block(self) -> list[str]:
        lines: list[str] = []
        while True:
            line = (await self.answer.content.readuntil(b"\n")).decode().rstrip("\n")
            if not line and lines:
                return lines
            if not line:
                raise EOFError
            lines.append(line)


@asynccontextmanager
async def listening(url: str, query: str = "", **headers: str) -> AsyncIterator[Listener]:
    async with (
        aiohttp.ClientSession(read_bufsize=2**20) as session,
        session.get(f"{url}/v1/events{query}", headers={"Accept": "text/event-stream", **headers}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        listener = Listener(answer)
        assert await listener.greeting() == "retry: 2000"
        yield listener


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with cluster_in(tmp_path_factory.mktemp("events"), sections=CALM) as cluster:
        yield cluster


async def in_thread(work: Any, *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work, *args)


async def test_b1_a_page_sees_at_any_node_what_happens_at_another(cluster: LocalCluster) -> None:
    reader, writer = cluster.urls[2], cluster.urls[0]
    async with listening(reader, "?channels=overview,tasks,topics") as page:
        first = await page.next()
        assert (first.event, first.data["node"], first.data["read_only"]) == ("overview", "n3", None)
        assert {member["name"] for member in first.data["members"]} == {"n1", "n2", "n3"}
        done = await in_thread(
            call, writer, "POST", "/v1/queues/seen/tasks", {"name": "add", "id": "t-1", "args": [1, 2]}
        )
        assert done.status == 201
        frame = await page.next("tasks")
        assert [(task["id"], task["status"]) for task in frame.data["items"]] == [("t-1", "QUEUED")]
        await in_thread(call, writer, "POST", "/v1/topics", {"name": "grows"})
        await in_thread(call, writer, "POST", "/v1/topics/grows/messages", {"value": 1})
        assert (await page.next("topics")).data == {"ends": {"grows": {"0": 1}}, "more": 0}
        frame = await page.next("overview")
        while "seen" not in {queue["queue"] for queue in frame.data["queues"]}:
            frame = await page.next("overview")
        assert {"no_workers"} <= {alert["code"] for alert in frame.data["alerts"]}
        assert frame.id >= frame.data["sequence"]


def test_the_overview_is_the_same_over_plain_http_and_agrees_with_the_rest_of_the_api(cluster: LocalCluster) -> None:
    with Client(cluster.urls[1]) as client:
        client.queues.put("agrees")
        seen = call(cluster.urls[1], "GET", "/v1/overview").json
        until(
            lambda: (
                "agrees" in {queue["queue"] for queue in call(cluster.urls[1], "GET", "/v1/overview").json["queues"]}
            ),
            "the queue to be seen",
        )
        seen = call(cluster.urls[1], "GET", "/v1/overview").json
        info = call(cluster.urls[1], "GET", "/v1/queues/agrees").json
        (queue,) = [queue for queue in seen["queues"] if queue["queue"] == "agrees"]
        assert {name: queue[name] for name in ("health", "counts", "submitted", "workers", "paused")} == {
            name: info[name] for name in ("health", "counts", "submitted", "workers", "paused")
        }
        assert seen["leader"] == client.cluster().leader


def test_history_is_the_same_at_every_node_and_outlives_a_restart(tmp_path: Path) -> None:
    with cluster_in(tmp_path, sections=CALM) as cluster:
        url = cluster.urls[0]
        for number in range(3):
            assert call(url, "POST", "/v1/queues/h/tasks", {"name": "add", "id": f"h-{number}"}).status == 201

        def told(at: str) -> Any:
            return call(at, "GET", "/v1/history?queue=h").json

        def sampled() -> bool:
            # An entry of a later ten seconds ends those before.
            call(url, "POST", "/v1/topics", {"name": "ticking"})
            call(url, "POST", "/v1/topics/ticking/messages", {"value": 1})
            return bool(sum(told(url)["counts"]["submitted"]) == 3)

        until(sampled, "ten seconds to be over", 30)
        assert sum(call(url, "GET", "/v1/history?queue=h&step=1").json["counts"]["submitted"]) == 3
        both: list[Any] = []

        def same() -> bool:
            both[:] = told(url), told(cluster.urls[1])  # of which one may have begun the next ten seconds
            return bool(both[0] == both[1])

        until(same, "both nodes to tell the same", why=lambda: str(both))
        before = both[0]
        assert before["leaders"][-1]["node"] == cluster.leader()
        victim = next(node for node in cluster.nodes.values() if node.url == url)
        victim.kill()
        victim.start()
        until(lambda: victim.cluster() is not None, "the node to be back")

        def kept() -> bool:
            # What was not yet in its file it applies again from its log, once a leader tells how far that is committed.
            again = told(url)["counts"]["submitted"]
            return bool(again[: len(before["at_ms"])] == before["counts"]["submitted"])

        until(kept, "the node to tell again what it told", why=lambda: str(told(url)))
        assert sum(call(url, "GET", "/v1/history?queue=h&step=1").json["counts"]["submitted"]) == 0


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("?channels=taks", {}, 400, "invalid_parameter"),
        ("?chanels=tasks", {}, 400, "invalid_parameter"),
        ("", {"Accept": "application/json"}, 406, "not_acceptable"),
        ("", {"Origin": "http://evil.example"}, 403, "forbidden_origin"),
    ],
)
def test_what_is_no_stream_is_refused(
    cluster: LocalCluster, query: str, headers: dict[str, str], status: int, code: str
) -> None:
    refused = call(cluster.urls[0], "GET", f"/v1/events{query}", headers=headers)
    assert (refused.status, refused.json["code"]) == (status, code)


def test_a_stream_is_only_read(cluster: LocalCluster) -> None:
    refused = call(cluster.urls[0], "POST", "/v1/events")
    assert (refused.status, refused.json["code"], refused.headers["allow"]) == (405, "method_not_allowed", "GET")


async def test_who_comes_back_is_told_to_look_anew(cluster: LocalCluster) -> None:
    async with listening(cluster.urls[0], "?channels=tasks", **{"Last-Event-ID": "3"}) as page:
        assert (await page.next())[::2] == ("reset", {"channels": ["tasks"], "why": "reconnected"})


async def test_a_node_without_a_leader_goes_on_telling_and_says_that_it_is_read_only(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster:
        last, *others = cluster.nodes.values()
        async with listening(last.url) as page:
            await page.next()
            for node in others:
                node.kill()
            while (frame := await page.next()).data["read_only"] is None:
                pass
            assert frame.data["leader"] is None
            assert frame.data["made_at_ms"] >= frame.data["as_of_at_ms"]
            assert "no_quorum" in {alert["code"] for alert in frame.data["alerts"]}


async def test_a_node_that_is_stopped_says_bye_and_where_to_go(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster:
        node = next(iter(cluster.nodes.values()))
        async with listening(node.url) as page:
            await page.next()
            os.kill(pid_of(node), signal.SIGTERM)
            frame = await page.next("bye")
            others = {urlsplit(url).netloc for url in cluster.urls} - {urlsplit(node.url).netloc}
            assert (frame.data["node"], set(frame.data["nodes"])) == (node.name, others)
            with pytest.raises((EOFError, aiohttp.ClientError, asyncio.IncompleteReadError)):
                await page.next()


async def test_a_client_that_reads_nothing_is_cut_off_and_others_are_not(cluster: LocalCluster) -> None:
    url = cluster.urls[0]
    parts = urlsplit(url)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((parts.hostname, parts.port))
        slow.sendall(f"GET /v1/events?channels=tasks HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        async with listening(url, "?channels=tasks") as good:
            told = 0
            for number in range(20):
                tasks = [{"name": "n" * 200, "id": f"slow-{number}-{one}", "args": ["x" * 900]} for one in range(100)]
                done = await in_thread(call, url, "POST", "/v1/queues/slow/tasks", {"tasks": tasks})
                assert done.status == 201
                told += len(json.dumps((await good.next("tasks")).data))
            assert told > 2 * 1024 * 1024
            taken = await in_thread(everything_until_the_end, slow)
            assert taken < told / 2
            await in_thread(call, url, "POST", "/v1/queues/slow/tasks", {"name": "add", "id": "the good one"})
            while "the good one" not in {task["id"] for task in (await good.next("tasks")).data["items"]}:
                pass


def everything_until_the_end(slow: socket.socket) -> int:
    """How many bytes lay there for a client before its connection was ended; it fails while that is open."""
    slow.settimeout(SECONDS)
    taken = 0
    with contextlib.suppress(ConnectionResetError):
        while part := slow.recv(65_536):
            taken += len(part)
    return taken


async def test_fifty_pages_cost_the_node_little(tmp_path: Path) -> None:
    with cluster_in(tmp_path, size=1) as cluster:
        (node,) = cluster.nodes.values()
        for number in range(20):
            call(node.url, "PUT", f"/v1/queues/q{number}", {})
        pages = [listening(node.url, "?channels=overview,tasks,topics") for _ in range(50)]
        opened = [await page.__aenter__() for page in pages]
        readers = [asyncio.ensure_future(drain(page)) for page in opened]
        async with listening(node.url, "?channels=tasks") as page:
            shares = [await share_of_a_core(node, page) for _ in range(3)]
        for reader in readers:
            reader.cancel()
        # The smallest: what others do on this machine at the same time makes every instruction dearer, never cheaper.
        assert min(shares) < 0.05, shares


async def share_of_a_core(node: LocalNode, page: Listener) -> float:
    """The node's own time in twenty turns, each of which has a task to tell of."""
    loop = asyncio.get_running_loop()
    began, used = loop.time(), cpu_s(node)
    for _ in range(20):
        await in_thread(call, node.url, "POST", "/v1/queues/q1/tasks", {"name": "add"})
        await page.next("tasks")
    return (cpu_s(node) - used) / (loop.time() - began)


async def drain(page: Listener) -> None:
    while True:
        await page.next()


def pid_of(node: LocalNode) -> int:
    assert node.process is not None
    return node.process.pid


def cpu_s(node: LocalNode) -> float:
    fields = Path(f"/proc/{pid_of(node)}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
