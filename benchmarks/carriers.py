"""What it costs to carry one call and its answer, without doing anything: by HTTP, by WebSocket, by channel.

``python -m benchmarks.carriers`` prints microseconds of processor time per call, client and server in one process, the
smallest of five rounds, with 1, 16 and 64 calls in flight. Processor time: waiting is not counted, so a busy machine
disturbs it less than it disturbs latencies.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from quorl.channel import dial
from quorl.cluster.api.channel import Channels
from quorl.cluster.api.intake import Intake
from quorl.cluster.protocol.channel import PATH as CHANNEL
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer, Call

TARGET = "/v1/topics/t/messages"
TIMEOUT_S = 5.0
ROUNDS = 5
CALLS = 640
BODY = b"x" * 250
HEADERS = {
    "accept": "application/json",
    "content-type": "application/json",
    "idempotency-key": "0123456789abcdef-000000000001",
    "quorl-timeout-ms": "4000",
}
_ANSWER = Answer(
    201,
    {
        "content-type": "application/json",
        "quorl-sequence": "12345",
        "served-by": "n1",
        "quorl-leader": "n1",
        "quorl-term": "3",
        "request-id": "0123456789abcdef",
        "cache-control": "no-store",
    },
    b"y" * 120,
)
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Any]).decode
Carry = Callable[[], Awaitable[object]]


async def _take(_call: Call) -> Answer:
    return _ANSWER


def _refuse(call: Call, problem: Problem) -> Answer:
    raise AssertionError((call, problem))


async def _serve(request: web.BaseRequest) -> web.StreamResponse:
    headers = {name.lower(): text for name, text in request.headers.items()}
    if request.path == CHANNEL:
        return await Channels(_take, _refuse, Intake()).serve(request, headers)
    if request.path == "/ws":
        return await _serve_websocket(request)
    answer = await _take(Call(request.method, request.raw_path, "", headers, await request.read()))
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


async def _serve_websocket(request: web.BaseRequest) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)

    async def answer(data: bytes) -> None:
        number, *call = _unpack(data)
        await socket.send_bytes(_pack([number, *await _take(Call(*call))]))

    async with asyncio.TaskGroup() as running:
        async for message in socket:
            running.create_task(answer(message.data))
    return socket


class _Caller:
    """Calls over one WebSocket, any number at the same time."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[list[Any]]] = {}

    async def read(self) -> None:
        async for message in self._socket:
            number, *answer = _unpack(message.data)
            self._waiting.pop(number).set_result(answer)

    async def ask(self) -> None:
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_bytes(_pack([number, "POST", TARGET, "", HEADERS, BODY]))
        async with asyncio.timeout(TIMEOUT_S):
            await answer


async def _cost_us(carry: Carry, loops: int, calls: int) -> float:
    async def loop() -> None:
        for _ in range(calls // loops):
            await carry()

    before = time.process_time()
    await asyncio.gather(*(loop() for _ in range(loops)))
    return (time.process_time() - before) / (calls // loops * loops) * 1e6


async def measure(calls: int = CALLS, rounds: int = ROUNDS) -> dict[int, dict[str, int]]:
    """Microseconds per call, by calls in flight and carrier."""
    async with AsyncExitStack() as ends:
        runner = web.ServerRunner(web.Server(_serve, access_log=None, handler_cancellation=True), shutdown_timeout=1)
        await runner.setup()
        ends.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        session = await ends.enter_async_context(aiohttp.ClientSession())
        socket = await ends.enter_async_context(session.ws_connect(f"{url}/ws"))
        channel = await dial(url, {}, TIMEOUT_S)
        ends.callback(channel.abort)
        caller = _Caller(socket)
        reading = asyncio.ensure_future(caller.read())
        ends.callback(reading.cancel)

        async def by_http() -> None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            async with session.post(url + TARGET, data=BODY, headers=HEADERS, timeout=timeout) as response:
                await response.read()

        carriers: dict[str, Carry] = {
            "http": by_http,
            "websocket": caller.ask,
            "channel": lambda: channel.ask(Call("POST", TARGET, "", {}, BODY), HEADERS, TIMEOUT_S),
        }
        return {
            loops: {
                name: round(min([await _cost_us(carry, loops, calls) for _ in range(rounds)]))
                for name, carry in carriers.items()
            }
            for loops in (1, 16, 64)
        }


def main() -> None:
    """Print the table."""
    print("| in flight | HTTP | WebSocket | channel |\n| --- | --- | --- | --- |")
    for loops, costs in asyncio.run(measure()).items():
        print(f"| {loops} | {' | '.join(f'{cost} µs' for cost in costs.values())} |")


if __name__ == "__main__":
    main()
