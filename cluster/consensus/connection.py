"""One TCP connection between two members: first the handshake, then frames of data and pings.

It knows bytes and its own life; which connections are wanted, and what their frames mean, is its owner's business.

Invariants:

* before the handshake is over, one frame at a time of at most ``HANDSHAKE_BYTES_MAX`` is read, and the whole
  handshake has one deadline, however lively the other side drips;
* after ``end`` or ``abort`` nothing is read or delivered any more, also not the rest of a piece already received;
* ``Owner.gone`` is called once for every connection that was made, never from within a call of this class.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

from typing_extensions import override

from quorl.cluster.consensus.framing import FrameError, FrameReader, pack
from quorl.cluster.consensus.handshake import Handshake, Refusal, Refused, Welcome, encode, garbled
from quorl.cluster.consensus.port import Hello
from quorl.cluster.protocol import limits

DATA = 1
PING = 2
"""The first byte of a frame."""
_DATA_MARK = bytes([DATA])
_PING_MARK = bytes([PING])
WRITE_BUFFER_BYTES_MAX = 2 * limits.REPLICATION_WINDOW_BYTES + limits.FRAME_BYTES_MAX
"""More than this is queued only for a peer that does not read."""
GOSSIP_BYTES_MAX = 16 * 1024
"""What this node may put into a ping; a status that knows of every other member has far less."""
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
"""A second net below the pings; not every system has these options."""


def pack_data(frame: bytes) -> bytes:
    """The bytes by which a frame of data travels, the same on every connection."""
    return pack(_DATA_MARK, frame)


class Owner(Protocol):
    """Whoever keeps the connections."""

    def begin(self, connection: Connection) -> Handshake | None:
        """A connection was made; None if it is one too many."""

    def settle(self, connection: Connection) -> Refused | None:
        """The peer is who it says; None if this connection becomes the one to use, else why it does not."""

    def up(self, connection: Connection) -> None:
        """The connection carries data from now on."""

    def on_data(self, peer: str, frame: bytes, /) -> None:
        """A frame arrived."""

    def on_ping(self, peer: str, gossip: bytes, /) -> None:
        """A ping arrived."""

    def refused(self, connection: Connection, refused: Refused) -> None:
        """The handshake ended in a refusal, here or over there."""

    def gone(self, connection: Connection) -> None:
        """The connection is closed."""


class Connection(asyncio.Protocol):
    """``dialled`` is the name of the member that this side dialled, None if the other side did."""

    def __init__(self, owner: Owner, handshake_s: float, dialled: str | None) -> None:
        self.dialled = dialled
        self.peer = ""
        self.hello: Hello | None = None
        self.answered = False
        """Whether the peer said anything that was acceptable: as a dialer, this side has then sent its proof."""
        self.quiet_ticks = 0
        """Set back whenever something arrives; counted up by the owner."""
        self.trouble = "the other side closed the connection"
        self.host = ""
        self._owner = owner
        self._handshake_s = handshake_s
        self._handshake: Handshake | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._reader = FrameReader(limits.HANDSHAKE_BYTES_MAX, frames_max=1)
        self._transport: asyncio.Transport | None = None

    @property
    def open(self) -> bool:
        """Whether there is any use in writing."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def buffered_bytes(self) -> int:
        """What the system has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, packed: bytes) -> bool:
        """Queue a frame of data, as ``pack_data`` has made it."""
        return self._write(packed)

    def ping(self, gossip: bytes) -> bool:
        """Queue a ping."""
        assert len(gossip) <= GOSSIP_BYTES_MAX
        return self._write(pack(_PING_MARK, gossip))

    def end(self, trouble: str) -> None:
        """Close after what is queued has left."""
        if self.open and self._transport is not None:
            self.trouble = trouble
            self._transport.close()

    def abort(self, trouble: str) -> None:
        """Close at once, also if ``end`` is still waiting for the other side to read."""
        if self._transport is not None:
            if self.open:
                self.trouble = trouble
            self._transport.abort()

    # -- called by the loop ----------------------------------------------------------------------------------------
    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.host = (transport.get_extra_info("peername") or ("an unknown address",))[0]
        _tune(transport.get_extra_info("socket"))
        self._handshake = self._owner.begin(self)
        if self._handshake is None:
            self.abort("one connection too many")
            return
        self._deadline = asyncio.get_running_loop().call_later(self._handshake_s, self._late)
        self._write_handshake(next(self._handshake))

    @override
    def data_received(self, data: bytes) -> None:
        self.quiet_ticks = 0
        try:
            payloads = self._reader.feed(data)
            while payloads and self._handshake is not None and self.open:
                self._advance(self._handshake, payloads[0])
                payloads = self._reader.feed(b"")
        except FrameError as error:
            if self.hello is None:
                self._refuse(garbled(str(error)))
            self.abort(str(error))
            return
        for payload in payloads:
            if not self.open:
                return
            self._deliver(payload)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.trouble = str(exc)
        self._finish_handshake()
        self._owner.gone(self)

    # -- inside ----------------------------------------------------------------------------------------------------
    def _deliver(self, payload: bytes) -> None:
        kind = payload[0]
        if kind == DATA:
            self._owner.on_data(self.peer, payload[1:])
        elif kind == PING:
            self._owner.on_ping(self.peer, payload[1:])
        else:
            self.abort(f"a frame of unknown kind {kind}")

    def _advance(self, handshake: Handshake, payload: bytes) -> None:
        try:
            reply = handshake.send(payload)
        except StopIteration as end:
            self._proven(end.value)
        except Refused as refused:
            self._refuse(refused)
        else:
            self.answered = True
            self._write_handshake(reply)

    def _proven(self, hello: Hello) -> None:
        self._finish_handshake()
        self.hello = hello
        self.peer = hello.node
        if (refused := self._owner.settle(self)) is not None:
            self._refuse(refused)
            return
        if self.dialled is None:
            self._write_handshake(encode(Welcome()))
        self._reader.allow(limits.FRAME_BYTES_MAX)
        self._owner.up(self)

    def _refuse(self, refused: Refused) -> None:
        """A listener says so; a dialer just leaves, for the listener has come to the same result or will never know."""
        self._finish_handshake()
        if self.dialled is None:
            self._write_handshake(encode(Refusal(refused.code)))
        self._owner.refused(self, refused)
        self.end(refused.reason)

    def _late(self) -> None:
        if self.dialled is None:
            reason = f"did not prove within {self._handshake_s:g} s to be a member"
            self._owner.refused(self, Refused("late", reason, "let nothing but quorl nodes use this port"))
        self.abort(f"no handshake within {self._handshake_s:g} s")

    def _finish_handshake(self) -> None:
        self._handshake = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _write_handshake(self, payload: bytes) -> None:
        if payload:
            self._write(pack(payload))

    def _write(self, packed: bytes) -> bool:
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        transport.write(packed)
        if transport.get_write_buffer_size() > WRITE_BUFFER_BYTES_MAX:
            self.abort(f"it does not read: more than {WRITE_BUFFER_BYTES_MAX >> 20} MiB wait for it")
            return False
        return True


def _tune(sock: socket.socket | None) -> None:
    """Send small frames at once, and notice a silent machine even if the loop cannot."""
    if sock is None:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
