"""The wires of a simulated world: connections between members, calls between processes, and what can go wrong.

A connection is TCP's: ordered, nothing lost while it lives. A cut direction holds its bytes back, as a black hole does
until retransmission gets through; silence closes a connection after two seconds; a dead process refuses at once.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from quorl.cluster.consensus.port import Hello, NetworkEvents
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.protocol.wire import Answer, Call

if TYPE_CHECKING:
    from tests.simulation.world import World

SILENCE_S = 2.0
PING_S = 0.5
STALL_S = 0.05
FRAMES_PER_S_MAX = 20_000


class Storm(Exception):
    """Members talk so much that nothing else would get through."""


class Wires:
    """Which directions work, and how fast."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.cut: set[tuple[str, str]] = set()
        self.slow: dict[tuple[str, str], float] = {}
        """Seconds that one direction takes on top of the others."""
        self.twice = False
        """Whether everything arrives a second time: no connection does that, but a peer may say a thing again."""
        self.latency_s = 0.002
        self.jitter = 0.5
        self.spikes = 0.0

    def open(self, source: str, target: str) -> bool:
        return (source, target) not in self.cut

    def delay(self, source: str, target: str) -> float:
        delay = self.latency_s * (1 + self.jitter * self._dice.random()) + self.slow.get((source, target), 0.0)
        if self.spikes and self._dice.random() < self.spikes:
            delay += self._dice.random() * 0.3
        return delay

    def isolate(self, name: str, others: list[str], *, inward: bool = True, outward: bool = True) -> None:
        for other in others:
            if other != name and outward:
                self.cut.add((name, other))
            if other != name and inward:
                self.cut.add((other, name))

    def heal(self) -> None:
        self.cut.clear()
        self.slow.clear()
        self.twice = False

    @property
    def delay_s_max(self) -> float:
        """No message of this moment takes longer, unless it is held back."""
        spike = 0.3 if self.spikes else 0.0
        return self.latency_s * (1 + self.jitter) + spike + max(self.slow.values(), default=0.0)


class _End:
    """One member's end of a connection."""

    def __init__(self, here: SimNetwork, peer: str, serial: int) -> None:
        self.here = here
        self.peer = peer
        self.serial = serial
        self.outbox: deque[tuple[float, str, bytes]] = deque()
        self.heard_at = here.world.clock.now


class SimNetwork:
    """Implements ``port.Network`` for one incarnation of one member."""

    def __init__(
        self, world: World, name: str, gossip: Callable[[], bytes], on_gossip: Callable[[str, bytes], None]
    ) -> None:
        self.world = world
        self.name = name
        self._gossip = gossip
        self._on_gossip = on_gossip
        self._ends: dict[str, _End] = {}
        self._events: NetworkEvents
        self._loop: asyncio.AbstractEventLoop
        self.closed = False

    async def start(self, events: NetworkEvents) -> None:
        self._events = events
        self._loop = asyncio.get_running_loop()
        self.world.networks[self.name] = self
        self._every(PING_S, self._ping)
        self._every(0.1, self._dial_all)

    def _every(self, pause_s: float, work: Callable[[], object]) -> None:
        def again() -> None:
            if not self.closed:
                work()
                self._loop.call_later(pause_s * (0.8 + 0.4 * self.world.dice.random()), again)

        again()

    async def close(self) -> None:
        self.closed = True
        if self.world.networks.get(self.name) is self:
            del self.world.networks[self.name]
        for peer in list(self._ends):
            self._drop(peer, tell_peer=True)

    # -- sending ---------------------------------------------------------------------------------------------------
    def send(self, peer: str, frame: bytes) -> bool:
        return self._queue(peer, "data", frame)

    def _queue(self, peer: str, kind: str, data: bytes) -> bool:
        end = self._ends.get(peer)
        if end is None:
            return False
        due = self.world.clock.now + self.world.wires.delay(self.name, peer)
        if end.outbox:
            due = max(due, end.outbox[-1][0])
        end.outbox.append((due, kind, data))
        if len(end.outbox) == 1:
            self.world.later(due - self.world.clock.now, lambda: self._move(end))
        return True

    def _move(self, end: _End) -> None:
        """Deliver what has travelled long enough, in order, unless its direction is cut."""
        if self._ends.get(end.peer) is not end:
            return
        if not self.world.wires.open(self.name, end.peer):
            self.world.later(STALL_S, lambda: self._move(end))
            return
        target = self.world.networks.get(end.peer)
        there = None if target is None or target.closed else target._ends.get(self.name)
        while end.outbox and end.outbox[0][0] <= self.world.clock.now:
            _, kind, data = end.outbox.popleft()
            self.world.count_frame()
            if target is not None and there is not None and there.serial == end.serial:
                for _ in range(2 if self.world.wires.twice else 1):
                    target._loop.call_soon(target._take, there, kind, data)
        if end.outbox:
            self.world.later(end.outbox[0][0] - self.world.clock.now, lambda: self._move(end))

    def _take(self, end: _End, kind: str, data: bytes) -> None:
        if self.closed or self._ends.get(end.peer) is not end:
            return
        end.heard_at = self.world.clock.now
        if kind == "ping":
            self._on_gossip(end.peer, data)
        else:
            self._events.on_frame(end.peer, data)

    def _ping(self) -> None:
        for peer, end in list(self._ends.items()):
            if self.world.clock.now - end.heard_at > SILENCE_S:
                self._drop(peer, tell_peer=True)
            else:
                self._queue(peer, "ping", self._gossip())

    def ping(self) -> None:
        """Told past all that is on its way: it decides nothing, and no seed is another one because of it."""
        gossip = self._gossip()
        for peer, end in self._ends.items():
            target = self.world.networks.get(peer)
            there = None if target is None or target.closed else target._ends.get(self.name)
            up = there is not None and there.serial == end.serial and self.world.wires.open(self.name, peer)
            if target is not None and up:
                target._loop.call_soon(target._on_gossip, self.name, gossip)

    # -- connecting ------------------------------------------------------------------------------------------------
    def _dial_all(self) -> None:
        for peer in self.world.names:
            if peer != self.name and peer not in self._ends:
                self._dial(peer)

    def _dial(self, peer: str, *, after_loss: bool = False) -> None:
        wires = self.world.wires
        if not (wires.open(self.name, peer) and wires.open(peer, self.name)):
            return
        target = self.world.networks.get(peer)
        if target is None:
            if after_loss:
                self.world.later(wires.delay(peer, self.name), lambda: self._loop.call_soon(self._refused, peer))
            return
        mine = self._events.hello()
        self.world.later(wires.delay(self.name, peer), lambda: target._loop.call_soon(target._accept, self, mine))

    def _refused(self, peer: str) -> None:
        if not self.closed and peer not in self._ends:
            self._events.on_refused(peer)

    def _accept(self, dialer: SimNetwork, hello: Hello) -> None:
        """The listening side of a handshake; the dialling side hears of it a moment later."""
        if self.closed or dialer.closed or self.world.networks.get(hello.node) is not dialer:
            return
        mine = self._events.hello()
        if None not in (hello.cluster_id, mine.cluster_id) and hello.cluster_id != mine.cluster_id:
            return
        if hello.node in self._ends:
            if dialer._ends.get(self.name) is not None:
                return
            self._drop(hello.node, tell_peer=False)
        serial = next(self.world.serials)
        self._up(hello.node, hello, serial)
        self.world.later(
            self.world.wires.delay(self.name, hello.node),
            lambda: dialer._loop.call_soon(dialer._accepted, self.name, mine, serial),
        )

    def _accepted(self, peer: str, hello: Hello, serial: int) -> None:
        there = self.world.networks.get(peer)
        alive = there is not None and peer and there._ends.get(self.name)
        if self.closed or not alive or alive.serial != serial:
            return
        if peer in self._ends:
            self._drop(peer, tell_peer=False)
        self._up(peer, hello, serial)

    def _up(self, peer: str, hello: Hello, serial: int) -> None:
        self._ends[peer] = _End(self, peer, serial)
        self._queue(peer, "ping", self._gossip())
        self._events.on_connected(peer, hello)

    def _drop(self, peer: str, *, tell_peer: bool) -> None:
        end = self._ends.pop(peer, None)
        if end is None:
            return
        there = self.world.networks.get(peer)
        if tell_peer and there is not None and self.world.wires.open(self.name, peer):
            serial = end.serial
            self.world.later(
                self.world.wires.delay(self.name, peer), lambda: there._loop.call_soon(there._reset, self.name, serial)
            )
        if not self.closed:
            self._events.on_disconnected(peer)

    def _reset(self, peer: str, serial: int) -> None:
        """The other end is gone, and its kernel said so."""
        end = self._ends.get(peer)
        if not self.closed and end is not None and end.serial == serial:
            self._drop(peer, tell_peer=False)
            self._dial(peer, after_loss=True)

    def killed(self) -> None:
        """The process is dead: its kernel closes what it held."""
        self.closed = True
        if self.world.networks.get(self.name) is self:
            del self.world.networks[self.name]
        for peer, end in self._ends.items():
            there = self.world.networks.get(peer)
            if there is not None and self.world.wires.open(self.name, peer):
                self.world.later(
                    self.world.wires.delay(self.name, peer),
                    lambda t=there, s=end.serial: t._loop.call_soon(t._reset, self.name, s),  # type: ignore[misc]
                )


class SimPeers:
    """Calls to nodes over the simulated wires, from a node or from a client."""

    def __init__(self, world: World, caller: str) -> None:
        self._world = world
        self._caller = caller

    async def call(self, peer: str, call: Call, timeout_s: float) -> Answer:
        """Implements ``core.Peers``."""
        world, loop = self._world, asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        served: list[Callable[[], None]] = []
        self._go(peer, call, answered, loop, served)
        try:
            async with asyncio.timeout(timeout_s):
                return await answered
        except TimeoutError as error:
            why = f"{peer} did not answer within {timeout_s:.1f} s"
            raise PeerLost(why) from error
        finally:
            world.calls += 1
            if world.hang_ups and served and (not answered.done() or answered.cancelled()):
                world.later(world.wires.delay(self._caller, peer), lambda: self._hang_up(peer, served[0]))

    def _hang_up(self, peer: str, end: Callable[[], None]) -> None:
        """The caller has closed its connection; that arrives once the wire is open."""
        if self._world.wires.open(self._caller, peer):
            end()
        else:
            self._world.later(STALL_S, lambda: self._hang_up(peer, end))

    def _go(
        self,
        peer: str,
        call: Call,
        answered: asyncio.Future[Answer],
        loop: asyncio.AbstractEventLoop,
        served: list[Callable[[], None]],
    ) -> None:
        world = self._world

        def settle(value: Answer | Exception) -> None:
            if answered.done():
                return
            if isinstance(value, Exception):
                answered.set_exception(value)
            else:
                answered.set_result(value)

        def travel(source: str, target: str, then: Callable[[], object]) -> None:
            def arrive() -> None:
                if world.wires.open(source, target):
                    then()
                else:
                    world.later(STALL_S, arrive)

            world.later(world.wires.delay(source, target), arrive)

        def arrive() -> None:
            process = world.processes.get(peer)
            if process is None or process.node is None:
                loop.call_soon_threadsafe(settle, PeerUnreachable(f"{peer} refused the connection"))
                return
            if answered.done() and world.dice.random() < 0.5:
                return  # the caller hung up before its request left
            served.append(process.serve(call, reply, lambda: travel(peer, self._caller, lost)))

        def lost() -> None:
            loop.call_soon_threadsafe(settle, PeerLost(f"{peer} closed the connection"))

        def reply(answer: Answer) -> None:
            travel(peer, self._caller, lambda: loop.call_soon_threadsafe(settle, answer))

        travel(self._caller, peer, arrive)
