"""Networks on loopback for tests: quick timing, free ports, a recorder to wait on, and raw sockets that speak frames."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic, time
from typing import Any

import msgspec
from typing_extensions import override

from quorl.cluster.consensus import handshake
from quorl.cluster.consensus.framing import FrameReader, pack
from quorl.cluster.consensus.port import Clock, Hello, NetworkEvents
from quorl.cluster.consensus.tcp import Delays, TcpNetwork
from quorl.cluster.protocol import limits
from tests.ports import free_ports

PATIENCE_S = 20.0
_TICK_S = 0.01
SECRET = b"a secret of the cluster"
QUICK = Delays(connect_s=0.5, handshake_s=2.0, retry_first_s=0.01, retry_max_s=0.05, ping_s=0.05, silence_s=0.4)


class RealClock(Clock):
    @override
    def monotonic(self) -> float:
        return monotonic()

    @override
    def wall_ms(self) -> int:
        return int(time() * 1000)


class Lines:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.warnings: list[str] = []

    def info(self, event: str, **fields: object) -> None:
        self.infos.append(_line(event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.warnings.append(_line(event, fields))


def _line(event: str, fields: dict[str, object]) -> str:
    return ", ".join([event, *(f"{name}: {value}" for name, value in fields.items())])


def hello(node: str, **other: Any) -> Hello:
    claims = {"cluster": "prod", "cluster_id": None, "group": 0, "incarnation": "1", "pristine": True, "version": "1"}
    return Hello(node=node, **{**claims, **other})


class Recorder(NetworkEvents):
    """Keeps what happened, in order, and lets a test wait until it looks right."""

    def __init__(self, mine: Hello) -> None:
        self.mine = mine
        self.events: list[tuple[str, str]] = []
        self.frames: list[tuple[str, bytes]] = []
        self.hellos: dict[str, Hello] = {}
        self.gossip: list[tuple[str, bytes]] = []
        self._happened = asyncio.Event()

    async def until(self, right: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not right():
                self._happened.clear()
                await self._happened.wait()

    def count(self, *event: str) -> int:
        return self.events.count(event)  # type: ignore[arg-type]

    def note(self, kind: str, peer: str) -> None:
        self.events.append((kind, peer))
        self._happened.set()

    @override
    def hello(self) -> Hello:
        return self.mine

    @override
    def on_connected(self, peer: str, hello: Hello) -> None:
        self.hellos[peer] = hello
        self.note("connected", peer)

    @override
    def on_frame(self, peer: str, frame: bytes) -> None:
        assert self.is_up(peer)
        self.frames.append((peer, frame))
        self._happened.set()

    @override
    def on_disconnected(self, peer: str) -> None:
        self.note("disconnected", peer)

    @override
    def on_refused(self, peer: str) -> None:
        assert not self.is_up(peer)
        self.note("refused", peer)

    def on_gossip(self, peer: str, gossip: bytes) -> None:
        self.gossip.append((peer, gossip))
        self._happened.set()

    def is_up(self, peer: str) -> bool:
        life = [kind for kind, who in self.events if who == peer and kind != "refused"]
        assert life == (["connected", "disconnected"] * len(life))[: len(life)], "connections overlapped"
        return life[-1:] == ["connected"]


class Node:
    """A network with its recorder and its log."""

    def __init__(self, name: str, addresses: dict[str, tuple[str, int]], **other: Any) -> None:
        claims = other.pop("claims", {})
        gossip = other.pop("gossip", bytes)
        self.log = Lines()
        self.recorder = Recorder(hello(**{"node": name, **claims}))
        self.network = TcpNetwork(
            name,
            addresses[name],
            {peer: address for peer, address in addresses.items() if peer != name},
            other.pop("secret", SECRET),
            RealClock(),
            random.Random(name),
            self.log,
            gossip=gossip,
            on_gossip=self.recorder.on_gossip,
            delays=other.pop("delays", QUICK),
        )
        assert not other
        self.address = addresses[name]

    async def start(self) -> None:
        await self.network.start(self.recorder)

    @property
    def is_settled(self) -> bool:
        peers = self.network._peers.values()
        return all(peer.connection and not peer.dial and not peer.attempt for peer in peers)

    async def until_connected(self, *peers: str) -> None:
        await self.recorder.until(lambda: self.network.connected >= set(peers))


def addresses(*names: str) -> dict[str, tuple[str, int]]:
    return {name: ("127.0.0.1", port) for name, port in zip(names, free_ports(len(names)), strict=True)}


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    """Start the nodes; close them at the end, and see that nothing of them remains."""
    before = asyncio.all_tasks()
    try:
        for node in nodes:
            await node.start()
        yield
    finally:
        for node in nodes:
            await node.network.close()
        assert asyncio.all_tasks() <= before


@contextmanager
def own_time() -> Iterator[Callable[[], float]]:
    """The seconds since, as this loop could use them: while the machine stands still or serves others, a tick passes at most."""
    loop = asyncio.get_running_loop()
    ticks: list[asyncio.TimerHandle] = []

    def tick() -> None:
        ticks.append(loop.call_later(_TICK_S, tick))

    tick()
    try:
        yield lambda: (len(ticks) - 1) * _TICK_S
    finally:
        ticks[-1].cancel()


async def becomes(right: Callable[[], object]) -> None:
    """Let the loop turn until a state is reached of which no event tells."""
    async with asyncio.timeout(PATIENCE_S):
        while not right():
            await asyncio.sleep(0)


async def settled(*nodes: Node) -> None:
    """Wait until all nodes are connected and no dial is under way that could still replace a connection."""
    await becomes(lambda: all(node.is_settled for node in nodes))


@asynccontextmanager
async def impersonating(claims: Hello, address: tuple[str, int]) -> AsyncIterator[asyncio.Queue[Stranger]]:
    """Listen in a member's place and let in whoever comes; gives those who came."""
    came: list[Stranger] = []
    arrivals: asyncio.Queue[Stranger] = asyncio.Queue()

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stranger = Stranger(reader, writer)
        came.append(stranger)
        await stranger.let_in(claims)
        await arrivals.put(stranger)

    server = await asyncio.start_server(welcome, *address)
    try:
        yield arrivals
    finally:
        server.close()
        for stranger in came:
            await stranger.leave()


class Stranger:
    """A raw socket that may or may not know how to speak."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._frames = FrameReader(limits.FRAME_BYTES_MAX, frames_max=1)
        self._reader = reader
        self._writer = writer

    @classmethod
    async def visit(cls, node: Node) -> Stranger:
        return cls(*await asyncio.open_connection(*node.address))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            pass  # then reading tells

    async def say(self, payload: bytes) -> None:
        await self.send(pack(payload))

    async def hear(self) -> bytes | None:
        """The next payload; None if the other side closed."""
        data = b""
        async with asyncio.timeout(PATIENCE_S):
            while not (payloads := self._frames.feed(data)):
                try:
                    data = await self._reader.read(65536)
                except ConnectionError:
                    return None
                if not data:
                    return None
        return payloads[0]

    async def hear_the_end(self) -> None:
        """Read on until the other side has closed."""
        while await self.hear() is not None:
            pass

    async def greet(self, claims: Hello, nonce: bytes = b"n" * 32) -> handshake.Answer | handshake.Refusal | None:
        await self.say(handshake.encode(handshake.Greeting(handshake.PROTOCOL, handshake.encode(claims), nonce)))
        payload = await self.hear()
        if payload is None:
            return None
        return msgspec.msgpack.decode(payload, type=handshake.Answer | handshake.Refusal)

    async def get_in(self, claims: Hello, secret: bytes, peer: str) -> None:
        """The whole handshake, as a dialer."""
        side = handshake.dial(handshake.Me(claims, secret, random.randbytes(32)), peer)
        payload = next(side)
        while True:
            await self.say(payload)
            answer = await self.hear()
            assert answer is not None
            try:
                payload = side.send(answer)
            except StopIteration:
                return

    async def let_in(self, claims: Hello) -> None:
        """The whole handshake, as a listener."""

        class Everybody:
            def __contains__(self, name: object) -> bool:
                return True

        side = handshake.listen(
            handshake.Me(claims, SECRET, random.randbytes(32)), Everybody(), prefers_own=lambda _peer: False
        )
        next(side)
        try:
            while (heard := await self.hear()) is not None:
                await self.say(side.send(heard))
        except StopIteration:
            await self.say(handshake.encode(handshake.Welcome()))

    async def leave(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass

    def vanish(self) -> None:
        self._writer.transport.abort()
