"""The network between the nodes over TCP: both sides dial, and one authenticated connection per peer remains.

The protocol on the wire is in ``framing``, ``handshake`` and ``connection``; this module decides which connections
there should be.

Invariants:

* the user of a network sees for each peer: connected, frames, disconnected, and again from the start; never two
  connections at once, never a frame of a connection that was replaced, nothing at all once ``close`` was called;
* of two connections between the same two processes both sides keep the same one: the one that the smaller name
  dialled, else the younger. A new incarnation of a peer replaces its former self, which is refused from then on for as
  long as the new one is connected: two that run under one name do not throw each other out in turns;
* whoever is not connected with a peer is dialling it or about to, until ``close``;
* strangers hold at most ``PENDING_HANDSHAKES_MAX`` connections, each for at most ``Timing.handshake_s``.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from typing_extensions import override

from quorl.cluster.consensus import handshake
from quorl.cluster.consensus.connection import Connection, pack_data
from quorl.cluster.consensus.dialling import Resolver, Unreachable, connect
from quorl.cluster.consensus.handshake import Handshake, Me, Refused
from quorl.cluster.consensus.listening import listen
from quorl.cluster.consensus.port import Clock, Network, NetworkEvents
from quorl.cluster.consensus.refusals import Reason, Refusals
from quorl.cluster.protocol import limits

_FLUSH_S = 0.5
"""When this node stops, its last frames have so long to leave."""


class Delays(NamedTuple):
    """Every delay of the network. Tests make them shorter."""

    connect_s: float = 1.0
    handshake_s: float = 3.0
    retry_first_s: float = 0.05
    retry_max_s: float = 0.3
    ping_s: float = 0.5
    silence_s: float = 2.0
    prefer_own_s: float = 0.25
    """For how long an own dial that reached the peer may keep the peer's dial waiting."""


class Logger(Protocol):
    """What is needed of a logger; structlog's fit. Events have stable names."""

    def info(self, event: str, **fields: object) -> object:
        """Log what is as it should be."""

    def warning(self, event: str, **fields: object) -> object:
        """Log what somebody should look at."""


class _Peer:
    """Another member, and what is being done to be connected with it."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.connection: Connection | None = None
        self.supplanted: set[str] = set()
        """The incarnations that others took the place of since there was no connection last."""
        self.up_since = 0.0
        self.dial: asyncio.Task[None] | None = None
        """A connection is being made …"""
        self.attempt: Connection | None = None
        """… was made, and its handshake is under way since ``attempt_since`` …"""
        self.attempt_since = 0.0
        self.retry: asyncio.TimerHandle | None = None
        """… or will be tried again."""
        self.failures = 0
        self.lost = False
        """Whether it was connected, is not any more, and nobody has found out yet whether it is dead."""
        self.trouble = "not reached yet"


class TcpNetwork(Network):
    """See the module. ``gossip()`` gives the bytes that every ping carries, ``on_gossip`` takes those of the peers."""

    def __init__(
        self,
        name: str,
        listen: tuple[str, int],
        peers: Mapping[str, tuple[str, int]],
        secret: bytes,
        clock: Clock,
        dice: random.Random,
        log: Logger,
        *,
        gossip: Callable[[], bytes] = bytes,
        on_gossip: Callable[[str, bytes], None] = lambda _peer, _gossip: None,
        delays: Delays = Delays(),  # noqa: B008, immutable
    ) -> None:
        assert name not in peers
        self._name = name
        self._listen = listen
        self._peers = {peer: _Peer(peer, *address) for peer, address in peers.items()}
        self._secret = secret
        self._clock = clock
        self._dice = dice
        self._log = log
        self._gossip = gossip
        self.on_ping = on_gossip
        self._delays = delays
        self._refusals = Refusals(clock)
        self._resolver = Resolver()
        self._packed: tuple[bytes, bytes] | None = None
        """The frame that was sent last, and what it was packed into: the next member mostly gets the same."""
        self._connections: set[Connection] = set()
        self._pending: set[Connection] = set()
        self._events: NetworkEvents
        self.on_data: Callable[[str, bytes], None]
        self._loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._closing = False
        self._all_gone = asyncio.Event()

    # -- for the user ----------------------------------------------------------------------------------------------
    @override
    async def start(self, events: NetworkEvents) -> None:
        self._loop = asyncio.get_running_loop()
        self._events = events
        self.on_data = events.on_frame  # the hot path: no method of ours in between
        self._server = await listen(self._accept, *self._listen)
        self._ticker = self._loop.call_later(self._delays.ping_s, self._tick)
        for peer in self._peers.values():
            self._dial_in(peer, 0.0)

    @override
    def send(self, peer: str, frame: bytes) -> bool:
        assert len(frame) < limits.FRAME_BYTES_MAX, "frames are made smaller than the cap that the peer enforces"
        connection = self._peers[peer].connection
        if connection is None:
            return False
        if self._packed is None or self._packed[0] is not frame:
            self._packed = frame, pack_data(frame)
        return connection.send(self._packed[1])

    @override
    def ping(self) -> None:
        gossip = self._gossip()
        for peer in self._peers.values():
            if peer.connection is not None:
                peer.connection.ping(gossip)

    def buffered(self, peer: str) -> int:
        """Bytes queued for a peer that the system has not taken yet."""
        connection = self._peers[peer].connection
        return 0 if connection is None else connection.buffered_bytes

    @property
    def port(self) -> int:
        """The port that is listened on, also if 0 was asked for."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connected(self) -> frozenset[str]:
        """The peers with which a connection is up."""
        return frozenset(name for name, peer in self._peers.items() if peer.connection is not None)

    @property
    def refusals(self) -> dict[str, str]:
        """Who was refused lately, or refused us, and why: by the name of a member, else by address."""
        return {who: reason.text for who, reason in self._refusals.recent().items()}

    @property
    def troubles(self) -> dict[str, str]:
        """Why each peer that is not connected is not; of one that was refused with the code, which programs go by."""
        reasons = self._refusals.recent()
        return {
            name: "refused [{}]: {}".format(*reasons[name]) if name in reasons else peer.trouble
            for name, peer in self._peers.items()
            if peer.connection is None
        }

    @override
    async def close(self) -> None:
        self._closing = True
        if self._ticker is not None:
            self._ticker.cancel()
        await self._stop_listening()
        for peer in self._peers.values():
            self._stop_dialling(peer)
        await asyncio.gather(*(peer.dial for peer in self._peers.values() if peer.dial), return_exceptions=True)
        await self._resolver.close()
        for connection in list(self._connections):
            connection.end("this node stops")
        await self._part()
        if self._server is not None:
            await self._server.wait_closed()

    async def _stop_listening(self) -> None:
        """Close the listener, but not under a connection that it is just accepting: asyncio would lose its socket."""
        if self._server is not None:
            for sock in self._server.sockets:
                self._loop.remove_reader(sock.fileno())
            await asyncio.sleep(0)  # what was accepted comes to ``_accept`` now
            self._server.close()

    async def _part(self) -> None:
        """Give the last frames a moment to leave, then wait until every socket is closed."""
        while self._connections:
            self._all_gone.clear()
            try:
                async with asyncio.timeout(_FLUSH_S):
                    await self._all_gone.wait()
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort("this node stops")

    # -- for connections -------------------------------------------------------------------------------------------
    def begin(self, connection: Connection) -> Handshake | None:
        """Begin a handshake; None for a stranger too many: the newest, so that those who came before can finish."""
        self._connections.add(connection)
        if self._closing:
            return None
        if connection.dialled is None and len(self._pending) >= limits.PENDING_HANDSHAKES_MAX:
            crowd = Reason("crowd", "came while too many unproven connections were open")
            self._note(connection.host, crowd, "see who connects")
            return None
        # Not from the injected dice: a nonce must be one that nobody can foretell.
        me = Me(self._events.hello(), self._secret, secrets.token_bytes(handshake.NONCE_BYTES))
        if connection.dialled is not None:
            peer = self._peers[connection.dialled]
            peer.attempt = connection
            peer.attempt_since = self._clock.monotonic()
            return handshake.dial(me, peer.name)
        self._pending.add(connection)
        return handshake.listen(me, self._peers, self._prefers_own)

    def settle(self, connection: Connection) -> Refused | None:
        """Choose between a connection just proven and the one in use, if there is one; returns why it is not the new one."""
        assert connection.hello is not None
        self._pending.discard(connection)
        peer = self._peers[connection.peer]
        old = peer.connection
        if old is not None:
            if old.open and connection.hello.incarnation in peer.supplanted:
                return handshake.twin(peer.name)
            if not self._is_better(connection, old):
                return handshake.duplicate()
            self._replace(peer, old, connection)
        if peer.attempt is connection:
            peer.attempt = None
        else:
            self._give_up_needless_dial(peer)
        peer.connection = connection
        peer.up_since = self._clock.monotonic()
        peer.failures = 0
        peer.lost = False
        return None

    def up(self, connection: Connection) -> None:
        """Tell the user."""
        assert connection.hello is not None
        self._refusals.forget(connection.peer)
        self._log.info("peer_connected", peer=connection.peer, dialled_by=self._dialler(connection))
        connection.ping(self._gossip())
        self._events.on_connected(connection.peer, connection.hello)

    def refused(self, connection: Connection, refused: Refused) -> None:
        """Remember why, and say so if it is news."""
        if refused.code == handshake.DUPLICATE:
            return
        reason = Reason(f"told {refused.code}" if refused.told else refused.code, refused.reason)
        self._note(connection.dialled or refused.member or connection.host, reason, refused.advice)

    def gone(self, connection: Connection) -> None:
        """Go on without a connection, or without an attempt at one."""
        self._connections.discard(connection)
        self._pending.discard(connection)
        if not self._connections:
            self._all_gone.set()
        for peer in self._peers.values():
            if peer.attempt is connection:
                peer.attempt = None
                peer.trouble = connection.trouble
                self._retry(peer)
            if peer.connection is connection:
                peer.connection = None
                peer.supplanted.clear()
                peer.trouble = connection.trouble
                if not self._closing:
                    self._lost(peer)

    # -- which connection ------------------------------------------------------------------------------------------
    def _accept(self) -> Connection:
        connection = Connection(self, self._delays.handshake_s, None)
        self._connections.add(connection)  # its socket exists, though it is not made yet: ``close`` must wait for it
        return connection

    def _dialler(self, connection: Connection) -> str:
        return connection.peer if connection.dialled is None else self._name

    def _is_better(self, new: Connection, old: Connection) -> bool:
        assert new.hello is not None
        assert old.hello is not None
        if not old.open or new.hello.incarnation != old.hello.incarnation:
            return True
        # Who dials again has lost what it dialled before.
        return self._dialler(new) == self._dialler(old) or self._dialler(new) < self._dialler(old)

    def _replace(self, peer: _Peer, old: Connection, new: Connection) -> None:
        """Drop the connection in use for another one, which is no loss of the peer, though frames may be lost."""
        assert new.hello is not None
        if old.open and old.hello is not None and old.hello.incarnation != new.hello.incarnation:
            why = "a new process has this name, but the former one is still connected"
            self._log.warning("peer_doubled", peer=peer.name, why=why, advice="see that only one is running")
            peer.supplanted.add(old.hello.incarnation)
        peer.connection = None
        old.abort("replaced by another connection")
        self._events.on_disconnected(peer.name)

    def _prefers_own(self, peer_name: str) -> bool:
        """When both dial at once, the greater name's dial is turned away before it comes up only to be replaced."""
        peer = self._peers[peer_name]
        age_s = self._clock.monotonic() - peer.attempt_since
        return peer.attempt is not None and self._name < peer_name and age_s < self._delays.prefer_own_s

    def _give_up_needless_dial(self, peer: _Peer) -> None:
        """Stop what else was under way, unless the peer may already have chosen it: then it wins on both sides."""
        chosen = peer.attempt is not None and peer.attempt.answered and self._name < peer.name
        if not chosen:
            self._stop_dialling(peer)

    def _lost(self, peer: _Peer) -> None:
        peer.lost = True
        self._log.info("peer_lost", peer=peer.name, why=peer.trouble)
        # At once, for a refusal now tells that the process is dead; but not in a circle if it keeps breaking.
        short = self._clock.monotonic() - peer.up_since < self._delays.retry_first_s
        self._dial_in(peer, self._delays.retry_first_s if short else 0.0)
        self._events.on_disconnected(peer.name)

    # -- dialling --------------------------------------------------------------------------------------------------
    def _retry(self, peer: _Peer) -> None:
        delay_s = min(self._delays.retry_first_s * 2**peer.failures, self._delays.retry_max_s)
        if self._dial_in(peer, delay_s * self._dice.uniform(0.5, 1.0)):
            peer.failures = min(peer.failures + 1, 16)

    def _dial_in(self, peer: _Peer, delay_s: float) -> bool:
        """Dial after a while, unless there is a connection or it is being seen to already."""
        busy = peer.connection or peer.dial or peer.attempt or peer.retry
        if self._closing or busy:
            return False
        peer.retry = self._loop.call_later(delay_s, self._dial, peer)
        return True

    def _dial(self, peer: _Peer) -> None:
        peer.retry = None
        peer.dial = self._loop.create_task(self._connect(peer))
        peer.dial.add_done_callback(lambda task: self._dialled(peer, task))

    async def _connect(self, peer: _Peer) -> None:
        try:
            await connect(
                self._resolver,
                peer.host,
                peer.port,
                self._delays.connect_s,
                lambda: Connection(self, self._delays.handshake_s, peer.name),
            )
        except Unreachable as unreachable:
            peer.trouble = str(unreachable)
            if unreachable.refused and peer.lost:
                peer.lost = False
                self._events.on_refused(peer.name)

    def _dialled(self, peer: _Peer, task: asyncio.Task[None]) -> None:
        peer.dial = None
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug, here or in the user's events: treated as those in any other callback of the loop are.
            self._loop.call_exception_handler({"message": f"dialling {peer.name} failed", "exception": error})
        self._retry(peer)  # which does nothing if the connection was made

    def _stop_dialling(self, peer: _Peer) -> None:
        if peer.retry is not None:
            peer.retry.cancel()
            peer.retry = None
        if peer.dial is not None:
            peer.dial.cancel()
        if peer.attempt is not None:
            attempt, peer.attempt = peer.attempt, None
            attempt.abort("not needed any more")

    # -- life ------------------------------------------------------------------------------------------------------
    def _tick(self) -> None:
        """Ping everybody, and drop who was silent.

        Silence is counted in ticks, not measured by the clock: a node that was paused itself has no right to
        complain about the silence meanwhile.
        """
        self._ticker = self._loop.call_later(self._delays.ping_s, self._tick)
        gossip = self._gossip()
        for peer in self._peers.values():
            connection = peer.connection
            if connection is None:
                continue
            connection.quiet_ticks += 1
            if connection.quiet_ticks * self._delays.ping_s > self._delays.silence_s:
                connection.abort(f"it said nothing for {self._delays.silence_s:g} s")
            else:
                connection.ping(gossip)

    def _note(self, who: str, reason: Reason, advice: str) -> None:
        if self._refusals.note(who, reason):
            self._log.warning("peer_refused", peer=who, why=reason.text, advice=advice)
