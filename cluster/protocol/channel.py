"""The channel: calls and answers in frames over one kept connection, instead of an HTTP request around each of them.

A connection becomes a channel by an HTTP upgrade at ``PATH``. From then on both sides send frames: four bytes of length,
then that many bytes of msgpack. The caller's frames carry calls and the ids of calls whose callers have gone, the server's
frames carry answers, in whatever order they come to be known. What is in a call or an answer is the same as over HTTP.

Invariants: an id stands for one call of one channel, and is never used again on it. A frame that is too long, cannot be
read, or uses an id twice ends the channel: what comes behind it cannot be trusted. A call that is readable and yet no
HTTP request could have carried it is answered by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, TypeVar

import msgspec

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Call

PATH = "/v1/channel"
NAME = "quorl-channel/1"
"""What the ``Upgrade`` header says."""
_HTTP = b"HTTP/"
_TLS = b"\x15\x03"
"""How TLS says that it has understood nothing."""
_ELSE = "or something else than a node's http port (7101)?"
CLOSED_UNMET = f"it took the connection and closed it without a word: a node that stops, {_ELSE}"
"""What is said of whoever does so when he is asked for the upgrade."""
_LENGTH_BYTES = 4
_METHOD_CHARS_MAX = 20
"""The length before a frame, and the longest method that one may name."""
_HEADERS_BYTES_MAX = limits.CHANNEL_HEAD_BYTES_MAX - limits.TARGET_BYTES_MAX - 4 * 1024
"""What the values of headers may have, so that there is room for all else that stands at the head of a call."""
_ABOUT_BYTES = 1024
"""What a call or an answer has beside its body and its path, at most, as long as clients and nodes of ours make it."""

Number = Annotated[int, msgspec.Meta(ge=1, le=limits.INTEGER_MAX)]


class Asked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One call. Header names are in lower case."""

    number: Number
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class Asking(msgspec.Struct, frozen=True, array_like=True):
    """A frame of the caller: calls, and the numbers of earlier ones whose answers nobody waits for any more."""

    calls: list[Asked]
    gone: list[Number] = []


class Answered(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One answer. The number is 0 in the last word about a channel that ends for what was sent on it."""

    number: int
    status: int
    headers: dict[str, str]
    body: bytes


class Answering(msgspec.Struct, frozen=True, array_like=True):
    """A frame of the server."""

    answers: list[Answered]


class Broken(Exception):
    """What came is no frame of a channel."""


class NotHttp(ConnectionError):
    """What answers the upgrade does not speak HTTP: no node is there, and nothing else was said to it yet."""


class Silent(TimeoutError):
    """Whoever is there took the connection, and has not answered the upgrade in time."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(f"it took the connection and said nothing for {waited_s:.1f} s: a node that hangs, {_ELSE}")


def check_head(head: bytes) -> None:
    """Raise ``NotHttp`` if an answer to the upgrade begins as none of HTTP does, however little of it there is yet."""
    if head.startswith(_HTTP[: len(head)]):
        return
    raise NotHttp(foreign_words(head))


def foreign_words(head: bytes = b"") -> str:
    """What to say of an answer that is none of HTTP, with its first line where people can read that."""
    if head.startswith(_TLS):
        return "what answers there speaks TLS, and no plain HTTP: is its address to begin with https://?"
    line = head[:80].partition(b"\n")[0].rstrip(b"\r").decode("ascii", "replace")
    said = f" ({line!r})" if line.isascii() and line.isprintable() and line else ""
    return (
        f"what answers there does not speak HTTP{said}; is it a node's raft port (7201), and not its http port (7101)?"
    )


class Frames:
    """Cuts what arrives into frames of at most so many bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = bytearray()

    def __len__(self) -> int:
        """How many bytes of a frame wait for the rest of it."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are complete now; raises ``Broken`` at one that says it is too long."""
        rest = self._rest
        if not rest and len(data) >= _LENGTH_BYTES:
            size = int.from_bytes(data[:_LENGTH_BYTES], "big")
            if len(data) == _LENGTH_BYTES + size <= _LENGTH_BYTES + self._most:
                return [data[_LENGTH_BYTES:]]  # nearly always
        rest += data
        found: list[bytes] = []
        start = 0
        while len(rest) - start >= _LENGTH_BYTES:
            size = int.from_bytes(rest[start : start + _LENGTH_BYTES], "big")
            if size > self._most:
                raise Broken(f"a frame of {size} bytes; {self._most} are allowed")
            end = start + _LENGTH_BYTES + size
            if len(rest) < end:
                break
            found.append(bytes(rest[start + _LENGTH_BYTES : end]))
            start = end
        del rest[:start]
        return found


def frames_of_calls(calls: Sequence[Asked], gone: Sequence[int] = ()) -> Iterator[tuple[list[Asked], bytes]]:
    """Give the frames that carry these, as few as may be, each with its calls; the first says who has gone."""
    for first, part in _parts(calls, always=bool(gone)):
        yield part, _framed(Asking(part, list(gone) if first else []))


def frame_of_call(call: Asked) -> bytes:
    """Return the frame that carries one call."""
    return _framed(Asking([call]))


def frames_of_answers(answers: list[Answered]) -> bytes:
    """Return the frames that carry these, as few as may be."""
    if len(answers) == 1:
        return _framed(Answering(answers))
    return b"".join(_framed(Answering(part)) for _, part in _parts(answers))


def read_asking(frame: bytes) -> Asking:
    """Return what a caller's frame carries; raises ``Broken``."""
    return _read(frame, _asking)


def read_answering(frame: bytes) -> Answering:
    """Return what a server's frame carries; raises ``Broken``."""
    return _read(frame, _answering)


def fits(call: Call) -> bool:
    """Whether a call fits into a frame; what does not is for an HTTP request of its own to carry, or to refuse."""
    if len(call.body) > limits.REQUEST_BYTES_MAX or len(call.path) + len(call.query) > limits.TARGET_BYTES_MAX:
        return False
    texts = "".join(call.headers.values())
    if not (texts.isascii() and texts.isprintable() and len(texts) <= _HEADERS_BYTES_MAX):
        return False
    return call.path.isascii() and call.query.isascii()


def fault_of(asked: Asked) -> Problem | None:
    """Say why no HTTP request could have carried this call: it stands in for one, and may become one."""
    texts = "".join((asked.method, asked.path, *asked.headers, *asked.headers.values(), asked.query))
    if not (texts.isascii() and texts.isprintable()):
        return Problem("malformed_request", "Method, path, query and headers are visible ASCII.")
    if not (asked.method.isalpha() and len(asked.method) <= _METHOD_CHARS_MAX):
        return Problem("malformed_request", f"{asked.method[:_METHOD_CHARS_MAX]!r} is no method.")
    if not asked.path.startswith("/") or " " in asked.path or "?" in asked.path or " " in asked.query:
        return Problem("malformed_request", "The path begins with a /; spaces are written as %20.")
    if len(texts) > limits.CHANNEL_HEAD_BYTES_MAX:
        detail = f"Path, query and headers have {len(texts)} bytes; {limits.CHANNEL_HEAD_BYTES_MAX} are allowed."
        return Problem("malformed_request", detail)
    return None


_encode = msgspec.msgpack.Encoder().encode
_asking = msgspec.msgpack.Decoder(Asking)
_answering = msgspec.msgpack.Decoder(Answering)
_ItemT = TypeVar("_ItemT", Asked, Answered)
_FrameT = TypeVar("_FrameT", Asking, Answering)


def _read(frame: bytes, decoder: msgspec.msgpack.Decoder[_FrameT]) -> _FrameT:
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Broken(f"a frame that cannot be read: {error}") from None


def _framed(frame: Asking | Answering) -> bytes:
    data = _encode(frame)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _parts(items: Sequence[_ItemT], *, always: bool = False) -> Iterator[tuple[bool, list[_ItemT]]]:
    """Cut into parts that fill a frame each, and say which is the first; one item may exceed it."""
    first, part, size = True, list[_ItemT](), 0
    for item in items:
        if size >= limits.CHANNEL_FRAME_BYTES_TARGET:
            yield first, part
            first, part, size = False, [], 0
        part.append(item)
        size += len(item.body) + _ABOUT_BYTES
        if isinstance(item, Asked):
            size += len(item.path) + len(item.query)
    if part or always:
        yield first, part
