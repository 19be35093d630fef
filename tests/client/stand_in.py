"""A cluster to test the client against: the real machine and wire form behind real sockets, without consensus.

All nodes share one state, so whatever is forwarded, replicated or elected elsewhere is simply there. What goes wrong is
scripted: each node has a list of mishaps, and each request that arrives takes the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import msgspec
from aiohttp import web

from quorl.cluster.machine.machine import Machine
from quorl.cluster.node.guessing import with_guess
from quorl.cluster.protocol import problems, system, wire
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.appends import AppendAll
from quorl.cluster.protocol.channel import PATH as CHANNEL
from quorl.cluster.protocol.entry import Entry, Sealed, encode_command, encode_entry
from quorl.cluster.protocol.grammar import Command, Inspection, Operation, Query, Rejection, Reply, Request
from quorl.cluster.protocol.operations import BY_REQUEST
from quorl.cluster.protocol.overview import GetOverview
from quorl.cluster.protocol.wire import Answer, Call
from tests.client.sights import overview

Mishap: TypeAlias = Answer | Literal["reset before", "reset after", "hang"] | threading.Event
"""An answer without doing anything; the connection closed before or after doing it; silence; or silence until the event."""


class StandIn:
    """The state, the nodes, and a record of every call."""

    def __init__(self, nodes: int) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.machine = Machine(self._connection)
        self.sockets = [_listen() for _ in range(nodes)]
        self.names = [f"n{number + 1}" for number in range(nodes)]
        self.urls = [f"http://127.0.0.1:{one.getsockname()[1]}" for one in self.sockets]
        self.mishaps: list[deque[Mishap]] = [deque() for _ in range(nodes)]
        self.calls: list[tuple[str, Call]] = []
        self.answers: dict[str, Callable[[Any], Reply | Rejection]] = {}
        """By operation: what it answers in place of the machine."""
        self.leader: str | None = "n1"
        self.health: Literal["ok", "degraded", "no_quorum"] = "ok"
        self.arrived = threading.Event()
        """Set by every call that arrives."""
        self._changed = asyncio.Event()

    @property
    def servers(self) -> str:
        return ",".join(self.urls)

    def operations(self) -> list[str]:
        """The names of the operations that were called, in order."""
        return [wire.decode(call)[0].name for _, call in self.calls]

    # -- one call -------------------------------------------------------------------------------------------------
    async def handle(self, number: int, request: web.Request) -> web.StreamResponse:
        if request.path == CHANNEL:
            return web.Response(status=404)  # as an older node answers; each call then comes by itself
        headers = {name.lower(): text for name, text in request.headers.items()}
        call = Call(
            request.method, request.rel_url.raw_path, request.rel_url.raw_query_string, headers, await request.read()
        )
        self.calls.append((self.names[number], call))
        self.arrived.set()
        mishap = self.mishaps[number].popleft() if self.mishaps[number] else None
        if isinstance(mishap, threading.Event):
            await asyncio.to_thread(mishap.wait, 10)
        elif mishap == "hang":
            await asyncio.Event().wait()
        elif mishap == "reset before":
            return _reset(request)
        answer = mishap if isinstance(mishap, Answer) else await self._answer(call)
        if mishap == "reset after":
            return _reset(request)
        about = {"served-by": self.names[number], "quorl-sequence": str(self.machine.position.sequence)}
        if self.leader is not None:
            about["quorl-leader"] = self.leader
        return web.Response(status=answer.status, headers={**answer.headers, **about}, body=answer.body)

    async def _answer(self, call: Call) -> Answer:
        try:
            row, request, options = wire.decode(call)
        except problems.ProtocolError as error:
            return self._problem(call, error.problem)
        try:
            return await self._reply(call, row, request, options)
        except ValueError as error:  # a start or a cursor that is none
            return self._problem(call, problems.Problem("invalid_parameter", str(error)))

    async def _reply(self, call: Call, row: Operation, request: Request[Any], options: wire.Options) -> Answer:
        deadline = asyncio.get_running_loop().time() + float(getattr(request, "wait", 0))
        while True:
            self._changed.clear()
            value = self._do(request, options.key)
            if getattr(value, "items", True) or asyncio.get_running_loop().time() >= deadline:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
        if isinstance(request, Command) and row.name not in self.answers:
            value = await with_guess(self._read, request, value)
        if isinstance(value, Rejection):
            return self._problem(call, problems.problem_of(value))
        return wire.answer_reply(row, value)

    async def _read(self, request: Query[Any]) -> Reply | Rejection:
        return self.machine.query(request)

    def _do(self, request: Request[Any], key: str | None) -> Reply | Rejection:
        if (answer := self.answers.get(BY_REQUEST[type(request)].name)) is not None:
            return answer(request)
        if isinstance(request, GetOverview):
            return overview(self.info())
        if isinstance(request, Inspection):
            return self.info()
        if isinstance(request, system.TransferLeadership):
            before, self.leader = self.leader or "", request.to
            took_ms = 0 if before == request.to else 5
            return system.LeadershipTransferred(from_=before, to=request.to or "", term=8, took_ms=took_ms)
        if not isinstance(request, Command):
            return self.machine.query(request)  # type: ignore[arg-type]
        if getattr(request, "wait", 0):
            key = None  # a wait that ends without messages is no outcome to keep
        digest = msgspec.msgpack.encode(request)
        position = self.machine.position
        now_ms = position.sequence + 1
        entry = Entry(now_ms, 1_700_000_000_000 + now_ms, (Sealed(key, digest[:32], encode_command(request)),))
        applied = self.machine.apply(position.index + 1, 1, encode_entry(entry))
        if isinstance(request, t.Append | AppendAll):
            self._changed.set()
        return self.machine.render(applied.outcomes[0].value)

    def _problem(self, call: Call, problem: problems.Problem) -> Answer:
        return wire.answer_problem(problem, instance=call.path, request_id="r-1", node="n1", leader=self.leader)

    def info(self) -> system.ClusterInfo:
        """The cluster as its first node sees it."""
        sequence = self.machine.position.sequence
        log = {"term": 7, "commit_index": 18_204, "applied_index": 18_204, "uptime_ms": 11_520_000}
        members = [
            system.MemberInfo(
                name=name,
                http=url.removeprefix("http://"),
                raft=url.removeprefix("http://"),  # where something listens
                role="leader" if name == self.leader else "follower",
                state="ok" if self.health == "ok" or number < 1 else "unreachable",
                sequence=sequence if self.health == "ok" else None,
                lag=0 if self.health == "ok" else None,
                seen_ms_ago=number * 40 if self.health == "ok" else None,
                version="0.1.0",
                **(log if self.health == "ok" or number < 1 else {}),
                rtt_ms=0.6 if number and self.health == "ok" else None,
            )
            for number, (name, url) in enumerate(zip(self.names, self.urls, strict=True))
        ]
        return system.ClusterInfo(
            name="dev",
            cluster_id="5f2c9a17",
            node="n1",
            leader=self.leader,
            term=7,
            quorum=len(members) // 2 + 1,
            health=self.health,
            sequence=sequence,
            machine_version=1,
            digest="00",
            members=members,
            settings=system.NodeSettings(
                secret_fingerprint="3f9a",
                election_timeout_ms=[500, 1000],
                heartbeat_ms=100,
                max_payload_bytes=1_048_576,
                max_wait_s=60.0,
                worker_heartbeat_s=5.0,
                worker_dead_after_s=15.0,
                default_attempts=3,
            ),
        )


def _listen() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def _reset(request: web.Request) -> web.Response:
    transport = request.transport
    assert transport is not None
    transport.abort()
    return web.Response()


@contextlib.contextmanager
def stand_in(nodes: int = 3) -> Iterator[StandIn]:
    """Run a cluster on a thread of its own."""
    cluster = StandIn(nodes)
    loop = asyncio.new_event_loop()
    runners: list[web.ServerRunner] = []

    async def start() -> None:
        for number, listener in enumerate(cluster.sockets):
            server = web.Server(functools.partial(cluster.handle, number))
            runner = web.ServerRunner(server, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            await web.SockSite(runner, listener).start()
            runners.append(runner)

    async def stop() -> None:
        for listener in cluster.sockets:
            loop.remove_reader(listener)
        await asyncio.sleep(0)  # asyncio forgets, and does not close, what it has accepted when its server is closed
        for runner in runners:
            await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:  # those that were scripted to be silent
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield cluster
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        cluster._connection.close()


_shut: list[socket.socket] = []
"""They are bound and never listen, so calls are refused and nobody else gets their ports."""


def closed_port() -> str:
    """Return an address where nobody listens."""
    _shut.append(socket.socket())
    _shut[-1].bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{_shut[-1].getsockname()[1]}"
