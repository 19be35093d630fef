"""How the synchronous client's calls get to a node: over channels, and over HTTP where a node has none.

A thread that calls takes a kept channel for the time of its call, or opens one. So nothing runs in the background, and a call
that is given up takes its connection with it: the node sees at once that its caller has gone.

Invariants: a transport carries one call to one node and says what came of it; it never repeats one. A call is said not to
have arrived only if that is certain. A channel is used by one thread at a time, by the process that opened it, and never
again after anything unexpected came over it. No lock is waited for that the same thread may have, below the signal handler
that it is in: channels are taken and kept by single steps, and urllib3's pool, which has locks, is left alone then.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import selectors
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from quorl.client.flow import CONNECT_TIMEOUT_S, Failure, Send, unreached
from quorl.client.forking import Renewed, loading
from quorl.client.locks import Lock
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.channel import (
    CLOSED_UNMET,
    NAME,
    PATH,
    Answered,
    Asked,
    Broken,
    Frames,
    Silent,
    check_head,
    fits,
    foreign_words,
    frames_of_calls,
    read_answering,
)
from quorl.cluster.protocol.wire import Answer
from quorl.vanished import OPTIONS, notice_vanished

if TYPE_CHECKING:
    import urllib3

IDLE_S_MAX = 50.0
"""Nodes end a channel that was idle for longer than this; none is used that may be ending."""
WITHOUT_S = 60.0
"""A server that has no channel is not asked for one again for so long: it may be replaced by a newer one."""
ASK_AGAIN_S = 5.0
"""The same of a server that was in trouble when it was asked."""
KEPT_MAX = 64
"""So many channels to one node are kept for the next call."""
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""One that takes no descriptor of its own, of which a program may have none left."""
_READ_BYTES = 256 * 1024
"""Read from a socket at a time."""
_HEAD_BYTES_MAX = 16 * 1024
"""Of the answer to the upgrade: more is no answer of a node."""
_SWITCHING = 101
"""HTTP's word for an upgrade that is granted."""


class Transport(Protocol):
    """Carries one call to one node, from any thread. It never raises, except when it is interrupted."""

    def send(self, send: Send) -> Answer | Failure:
        """Return the answer, or why there is none."""

    def close(self) -> None:
        """Close what is open."""


class HttpTransport(Renewed, Transport):
    """urllib3, with kept-alive connections."""

    CONNECTIONS_KEPT = 64

    @override
    def _renew(self) -> None:
        self._pool: urllib3.PoolManager | None = None
        self._opening = Lock()
        self._inside: set[int] = set()
        """The threads that may have a lock of the pool."""

    def _open(self) -> urllib3.PoolManager:
        with self._opening:
            if self._pool is None:
                self._pool = _new_pool(self.CONNECTIONS_KEPT)
            return self._pool

    @override
    def send(self, send: Send) -> Answer | Failure:
        me = threading.get_ident()
        if me in self._inside:
            with _new_pool(1) as own:
                return self._carry(own, send)
        try:
            self._inside.add(me)
            return self._carry(self._open(), send)
        finally:
            self._inside.discard(me)

    @staticmethod
    def _carry(pool: urllib3.PoolManager, send: Send) -> Answer | Failure:
        import urllib3
        from urllib3 import exceptions as x

        call = send.call
        target = f"{send.node}{call.path}?{call.query}" if call.query else send.node + call.path
        timeout = urllib3.Timeout(total=send.timeout_s, connect=min(CONNECT_TIMEOUT_S, send.timeout_s))
        try:
            headers = send.headers() | credentials(send.node)
            response = pool.urlopen(
                call.method, target, body=call.body or None, headers=headers, timeout=timeout, redirect=False
            )
            return Answer(
                response.status, {name.lower(): text for name, text in response.headers.items()}, response.data
            )
        except (x.NewConnectionError, x.LocationValueError) as error:
            return Failure("refused", explain(error))
        except x.ConnectTimeoutError:
            return Failure("unreachable", "time-out while connecting")
        except x.ReadTimeoutError as error:
            return Failure("lost", _unanswered(send, error))
        except (x.HTTPError, OSError) as error:
            return Failure("lost", f"connection lost: {explain(error)}", foreign=_is_foreign(error))

    @override
    def close(self) -> None:
        with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None and threading.get_ident() not in self._inside:  # else it goes with the call below
            pool.clear()


def _new_pool(kept: int) -> urllib3.PoolManager:
    with loading:
        import urllib3
        from urllib3.connection import HTTPConnection

    watched = [*HTTPConnection.default_socket_options, *OPTIONS]
    return urllib3.PoolManager(maxsize=kept, retries=False, socket_options=watched)


def explain(error: BaseException) -> str:
    """Return a failure of a connection in the words that people know."""
    chain = _chain(error)
    for one in chain:
        if isinstance(one, ssl.SSLError):  # its number is none of the system's
            return tls_words(one)
        number = getattr(one, "errno", None)
        if isinstance(number, int) and number in errno.errorcode:
            return os.strerror(number).lower()
        if isinstance(one, socket.gaierror):
            return f"its name cannot be resolved ({(one.strerror or str(one)).lower()})"
    if _is_foreign(error):
        return foreign_words()
    plain = next((one for one in chain if _wrapped(one) is None), error)
    return str(plain) or type(plain).__name__


def _unanswered(send: Send, error: BaseException) -> str:
    """Return in words why there is no answer: the time for it was over, or, sooner, the other end has vanished."""
    if any(getattr(one, "errno", None) == errno.ETIMEDOUT for one in _chain(error)):
        return f"connection lost: {explain(error)}"
    return f"no answer in {send.timeout_s:.1f} s"


def tls_words(error: ssl.SSLError) -> str:
    """Return a failure of TLS in words."""
    reason = (error.reason or str(error)).lower().replace("_", " ")
    return f"TLS failed ({reason}); nodes speak plain HTTP: https:// is for what stands before them"


def _wrapped(error: BaseException) -> BaseException | None:
    """What an error was made around, which is how urllib3 tells of others' errors: its own text is no words then."""
    return next((arg for arg in error.args if isinstance(arg, BaseException)), None)


def credentials(node: str) -> dict[str, str]:
    """The name and the password of a URL as the header that carries them: urllib3 leaves that to its callers."""
    userinfo, at, _ = urlsplit(node).netloc.rpartition("@") if "@" in node else ("", "", "")
    return {"Authorization": f"Basic {base64.b64encode(unquote(userinfo).encode()).decode()}"} if at else {}


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what it comes from, the outermost first; each once, whatever refers to what."""
    chain: dict[int, BaseException] = {}
    seen: BaseException | None = error
    while seen is not None and id(seen) not in chain:
        chain[id(seen)] = seen
        seen = _wrapped(seen) or seen.__cause__ or seen.__context__
    return list(chain.values())


def _is_foreign(error: BaseException) -> bool:
    """Whether what came over a connection is no answer of HTTP."""
    from http.client import BadStatusLine, RemoteDisconnected  # here, where something has failed: it takes its time

    bad = next((one for one in _chain(error) if isinstance(one, BadStatusLine)), None)
    return bad is not None and not isinstance(bad, RemoteDisconnected)


class NoChannel(Exception):
    """The server does not speak this: it is older, or something stands before it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status} instead of a channel")
        self.status = status


class Pipe:
    """One channel, for one call after the other."""

    def __init__(self, node: str, timeout_s: float) -> None:
        """Open it; raises ``OSError``, ``TimeoutError``, ``Silent`` or ``NotHttp`` where no node is, and ``NoChannel``."""
        until = time.monotonic() + timeout_s
        parts = urlsplit(node)
        assert parts.hostname is not None
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        self._socket = socket.create_connection((parts.hostname, port), timeout_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            notice_vanished(self._socket)
            if secure:
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=parts.hostname)
            self._frames = Frames(limits.CHANNEL_ANSWER_BYTES_MAX)
            self._answers: list[Answered] = []
            self._number = 0
            lines = (
                f"GET {parts.path.rstrip('/')}{PATH} HTTP/1.1",
                f"Host: {parts.netloc}",
                "Connection: Upgrade",
                f"Upgrade: {NAME}",
            )
            self._socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
            try:
                self._read_head(until)
            except TimeoutError:
                raise Silent(timeout_s) from None
        except BaseException:
            self.close()
            raise
        self._heard_s = time.monotonic()

    def _read_head(self, until: float) -> None:
        head = b""
        while b"\r\n\r\n" not in head and len(head) <= _HEAD_BYTES_MAX:
            data = self._receive(until)
            if not data and not head:
                raise ConnectionResetError(CLOSED_UNMET)
            if not data:
                break
            head += data
            check_head(head)
        head, end, rest = head.partition(b"\r\n\r\n")
        first = head.split(b"\r\n", 1)[0].split(b" ")
        status = int(first[1]) if len(first) > 1 and first[1].isdigit() else 0
        if status != _SWITCHING or not end or f"upgrade: {NAME}".encode() not in head.lower():
            raise NoChannel(status)
        self._take(rest)

    @property
    def usable(self) -> bool:
        """Whether another call may be made on it: it is fresh, and nothing was said on it meanwhile."""
        if self._answers or self._frames:
            return False
        if time.monotonic() - self._heard_s >= IDLE_S_MAX:
            return False
        with _Selector() as look:
            look.register(self._socket, selectors.EVENT_READ)
            return not look.select(0)

    def ask(self, send: Send, until: float) -> Answer:
        """Make a call; raises ``OSError``, ``TimeoutError`` and ``Broken``. After that it takes no more of them."""
        self._number += 1
        call = send.call
        asked = Asked(self._number, call.method, call.path, call.query, send.headers(), call.body)
        for _, frame in frames_of_calls([asked]):
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            self._socket.sendall(frame)
        while not self._answers:
            data = self._receive(until)
            if not data:
                raise ConnectionResetError("closed by the node")
            self._take(data)
        answer = self._answers.pop(0)
        if answer.number != self._number:
            raise Broken(answer.body[:200].decode(errors="replace"))
        self._heard_s = time.monotonic()
        return Answer(answer.status, answer.headers, answer.body)

    def _receive(self, until: float) -> bytes:
        self._socket.settimeout(max(0.001, until - time.monotonic()))
        return self._socket.recv(_READ_BYTES)

    def _take(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            self._answers += read_answering(frame).answers

    def close(self) -> None:
        """End it."""
        self._socket.close()


class ChannelTransport(Renewed, Transport):
    """Kept channels, as many to each node as there are threads that call it, and HTTP for what no channel carries."""

    def __init__(self) -> None:
        self._http = HttpTransport()
        self._plain_until_s: dict[str, float] = {}
        self._closings = object()
        """Another one after each ``close``."""
        self._kept: dict[str, list[Pipe]] = {}
        super().__init__()

    @override
    def _renew(self) -> None:
        self._end(self._kept)  # a child's copies: the connections stay the parent's
        self._kept = {}

    @override
    def send(self, send: Send) -> Answer | Failure:
        now = time.monotonic()
        # A name and a password are HTTP's business.
        if now < self._plain_until_s.get(send.node, 0.0) or "@" in send.node or not fits(send.call):
            return self._http.send(send)
        closings = self._closings
        try:
            pipe = self._free(send.node) or Pipe(send.node, min(CONNECT_TIMEOUT_S, send.timeout_s))
        except NoChannel as error:
            again_s = WITHOUT_S if 400 <= error.status < 500 else ASK_AGAIN_S
            self._plain_until_s[send.node] = time.monotonic() + again_s
            return self._http.send(send)
        except OSError as error:
            return unreached(error, explain(error))
        answer: Answer | Failure | None = None
        try:
            answer = pipe.ask(send, now + send.timeout_s)
        except TimeoutError as error:
            return Failure("lost", _unanswered(send, error))
        except (OSError, Broken) as error:
            return Failure("lost", f"connection lost: {explain(error)}")
        finally:
            if answer is None:
                pipe.close()
            else:
                self._keep(send.node, pipe, closings)
        return answer

    def _free(self, node: str) -> Pipe | None:
        """Return a kept channel that can be used, the one that was used last."""
        while True:
            try:
                pipe = self._kept.get(node, []).pop()
            except IndexError:
                return None
            if pipe.usable:
                return pipe
            pipe.close()

    def _keep(self, node: str, pipe: Pipe, closings: object) -> None:
        kept = self._kept.setdefault(node, [])
        if closings is self._closings and len(kept) < KEPT_MAX:
            kept.append(pipe)
            if closings is self._closings:
                return
            with contextlib.suppress(ValueError):  # whoever closed meanwhile may have found it there
                kept.remove(pipe)
        pipe.close()

    @override
    def close(self) -> None:
        self._closings = object()  # first: whoever keeps one behind this sees it
        kept, self._kept = self._kept, {}
        self._end(kept)
        self._http.close()

    @staticmethod
    def _end(kept: dict[str, list[Pipe]]) -> None:
        for pipes in list(kept.values()):
            with contextlib.suppress(IndexError):
                while True:
                    pipes.pop().close()  # one that somebody else has taken meanwhile is his
