"""The handshake: two members prove to each other that they hold the cluster secret, before anything else is read.

Pure. Each side is a generator that yields the payload to send (or ``b""``) and is sent the next payload that arrived;
it returns the peer's ``Hello``, or raises ``Refused``::

    dialer                                     listener
      | -- Greeting: hello, nonce ----------------> |   the claims are checked
      | <---------- Answer: hello, nonce, proof --- |   the proof, then the claims are checked
      | -- Proof -----------------------------------> |   the proof, then the cluster id are checked
      | <------------------------------- Welcome --- |   sent by the owner of the connection, which may prefer another

A proof is HMAC-SHA256, under a key made from the cluster secret, over the prover's role, both hellos and both nonces. So it is good for
one connection only (both sides put in 32 fresh random bytes), cannot be returned to its maker (the roles differ), and
covers every claim that was made.

Invariants:

* a listener reads one Greeting and one Proof before it trusts, a dialer one Answer and one Welcome, no frame more;
* a side that refuses tells the other a code from a fixed list, never a value of its own; each side words the reason
  from what it knows itself, so that no text from the wire reaches a log unquoted;
* anything that is not a well-formed message is refused, never an exception of another kind.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Container, Generator
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec

from quorl.cluster.consensus.port import Hello

PROTOCOL = 1
"""Raised by every change after which old and new nodes would misread each other."""
NONCE_BYTES = 32
"""Of each side: as many as HMAC-SHA-256 gives, so that guessing one is no easier than the other."""
SHOWN_CHARS_MAX = 64
"""Of what the other side says of itself."""


class Greeting(msgspec.Struct, frozen=True, array_like=True, tag="greeting"):
    """The dialer's first word. The fields after ``protocol`` may differ in other versions of it."""

    protocol: int
    hello: bytes = b""
    nonce: bytes = b""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """The listener's first word, with its proof."""

    hello: bytes
    nonce: bytes
    proof: bytes


class Proof(msgspec.Struct, frozen=True, array_like=True, tag="proof"):
    """The dialer's proof."""

    proof: bytes


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """From now on frames of data flow in both directions."""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    """The listener's last word."""

    code: str


class Refused(Exception):
    """This connection must not come up.

    ``reason`` is said of the other side and follows its name, ``advice`` is for whoever runs the cluster, ``member``
    is the other side's name if it has proved that. ``code`` is ``reason`` for programs.
    """

    def __init__(self, code: str, reason: str, advice: str, member: str | None = None, *, told: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.told = told
        """Whether the other side refuses this one, and said so."""
        self.reason = reason
        self.advice = advice
        self.member = member


class Me(NamedTuple):
    """What one side brings along."""

    hello: Hello
    secret: bytes
    nonce: bytes
    """``NONCE_BYTES`` fresh bytes that nobody can foretell."""


Handshake = Generator[bytes, bytes, Hello]

DUPLICATE = "duplicate"
"""The code of the one refusal that is no fault: another connection between the same two is preferred."""

_SAME_CONFIG = "compare its config with this node's"
_SAME_SECRET = "give every node of the cluster the same secret"  # noqa: S105
_TOLD = {
    "protocol": "speaks another version of the node protocol",
    "cluster": "belongs to a cluster or group of another name",
    "member": "does not have this node among its members",
    "self": "has the same name as this node",
    "secret": "holds another cluster secret",
    "cluster_id": "belongs to another cluster",
    "twin": "is connected with another process of this node's name, which came later",
    "garbled": "could not read this node's messages",
}
"""What a code means when it is told to us."""

_Message = TypeVar("_Message")
_hello_decoder = msgspec.msgpack.Decoder(Hello)
_greeting_decoder = msgspec.msgpack.Decoder(Greeting)
_answer_decoder: msgspec.msgpack.Decoder[Answer | Refusal] = msgspec.msgpack.Decoder(Answer | Refusal)
_proof_decoder = msgspec.msgpack.Decoder(Proof)
_verdict_decoder: msgspec.msgpack.Decoder[Welcome | Refusal] = msgspec.msgpack.Decoder(Welcome | Refusal)


def encode(message: Greeting | Answer | Proof | Welcome | Refusal | Hello) -> bytes:
    """The payload of a message."""
    return msgspec.msgpack.encode(message)


def dial(me: Me, peer: str) -> Handshake:
    """The dialer's side, towards the member that should be called ``peer``."""
    mine = encode(me.hello)
    payload = yield encode(Greeting(PROTOCOL, mine, me.nonce))
    answer = _decode(payload, _answer_decoder)
    if isinstance(answer, Refusal):
        raise _told(answer.code, me.hello)
    hello = _read_hello(answer.hello, answer.nonce)
    transcript = _transcript(mine, me.nonce, answer.hello, answer.nonce)
    _check_proof(me.secret, b"listener", transcript, answer.proof)
    if hello.node != peer:
        reason = f"answers as {shown(hello.node)}"
        raise Refused("member", reason, f"correct the address of {peer} in this node's config, or the name in its own")
    _check_claims(me.hello, hello, (peer,))
    payload = yield encode(Proof(_prove(me.secret, b"dialer", transcript)))
    _check_cluster_id(me.hello, hello)  # only now, so that the listener, too, can tell who it is that does not belong
    verdict = _decode(payload, _verdict_decoder)
    if isinstance(verdict, Refusal):
        raise _told(verdict.code, me.hello)
    return hello


def listen(me: Me, members: Container[str], prefers_own: Callable[[str], bool]) -> Handshake:
    """The listener's side. ``prefers_own(peer)``: whether this side's own dial to the peer is about to succeed."""
    greeting = _decode((yield b""), _greeting_decoder)
    if greeting.protocol != PROTOCOL:
        reason = f"speaks version {greeting.protocol} of the node protocol, this node version {PROTOCOL}"
        raise Refused("protocol", reason, "run releases of quorl that are at most one apart")
    hello = _read_hello(greeting.hello, greeting.nonce)
    _check_claims(me.hello, hello, members)
    if prefers_own(hello.node):
        raise duplicate()
    mine = encode(me.hello)
    transcript = _transcript(greeting.hello, greeting.nonce, mine, me.nonce)
    payload = yield encode(Answer(mine, me.nonce, _prove(me.secret, b"listener", transcript)))
    _check_proof(me.secret, b"dialer", transcript, _decode(payload, _proof_decoder).proof)
    _check_cluster_id(me.hello, hello)
    return hello


def duplicate() -> Refused:
    """The refusal of a connection that is not needed."""
    return Refused(DUPLICATE, "has a better connection with this node", "nothing is wrong")


def twin(node: str) -> Refused:
    """The refusal of a process whose name a later one has taken over: were it let in, each would throw the other out."""
    reason = "runs still, and a later process of its name is connected"
    return Refused("twin", reason, f"see that only one process runs as {node}", member=node)


def garbled(detail: str) -> Refused:
    """The refusal of what does not follow the protocol."""
    reason = f"does not speak the node protocol ({detail})"
    return Refused("garbled", reason, "let nothing but quorl nodes use this port")


def shown(text: str) -> str:
    """Text from the wire, fit for a log: quoted, escaped and short."""
    return ascii(text[:SHOWN_CHARS_MAX])


def _told(code: str, mine: Hello) -> Refused:
    if code == DUPLICATE:
        return duplicate()
    meaning = _TOLD.get(code, f"gives the code {shown(code)}")
    known = code if code in _TOLD else "other"
    return Refused(known, f"refuses this node: it {meaning}", f"its log says more about {mine.node}", told=True)


def _decode(payload: bytes, decoder: msgspec.msgpack.Decoder[_Message]) -> _Message:
    try:
        return decoder.decode(payload)
    except (ValueError, RecursionError) as error:  # not only DecodeError: bad UTF-8 and deep nesting raise their own
        raise garbled("an unreadable handshake") from error


def _read_hello(blob: bytes, nonce: bytes) -> Hello:
    if len(nonce) != NONCE_BYTES:
        raise garbled("a nonce of the wrong size")
    return _decode(blob, _hello_decoder)


def _check_claims(mine: Hello, theirs: Hello, members: Container[str]) -> None:
    """What may be refused at once, because only a code is told."""
    if theirs.cluster != mine.cluster:
        reason = f"belongs to the cluster {shown(theirs.cluster)}, this node to {shown(mine.cluster)}"
        raise Refused("cluster", reason, _SAME_CONFIG)
    if theirs.group != mine.group:
        raise Refused("cluster", f"belongs to group {theirs.group}, this node to group {mine.group}", _SAME_CONFIG)
    if theirs.node == mine.node:
        reason = f"calls itself {shown(theirs.node)}, which is this node's own name"
        raise Refused("self", reason, "give every node a name of its own, and see that no address leads back here")
    if theirs.node not in members:
        reason = f"calls itself {shown(theirs.node)}, which is no member here"
        raise Refused("member", reason, "make the lists of members equal on all nodes")


def _check_cluster_id(mine: Hello, theirs: Hello) -> None:
    """Whether both belong to one cluster, as far as both belong to any."""
    if None not in {mine.cluster_id, theirs.cluster_id} and mine.cluster_id != theirs.cluster_id:
        reason = f"belongs to cluster {shown(str(theirs.cluster_id))}, this is {shown(str(mine.cluster_id))}"
        advice = "start it with the data directory of this cluster, or with an empty one"
        raise Refused("cluster_id", reason, advice, member=theirs.node)


def _transcript(*parts: bytes) -> bytes:
    """Everything said so far, such that no two conversations give the same bytes."""
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def _prove(secret: bytes, role: bytes, transcript: bytes) -> bytes:
    key = sha256(b"quorl cluster secret\0" + secret).digest()  # HMAC itself pads keys, so that "a" and "a\0" are one
    return hmac.digest(key, b"quorl node handshake 1 " + role + b"\0" + transcript, "sha256")


def _check_proof(secret: bytes, role: bytes, transcript: bytes, proof: bytes) -> None:
    if not hmac.compare_digest(_prove(secret, role, transcript), proof):
        raise Refused("secret", "cannot prove the cluster secret", _SAME_SECRET)
