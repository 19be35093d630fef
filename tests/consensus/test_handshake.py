"""The handshake without a socket: who is let in, who is not, and what each side learns."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.cluster.consensus import handshake
from quorl.cluster.consensus.handshake import Answer, Greeting, Handshake, Me, Proof, Refusal, Refused, Welcome, encode
from quorl.cluster.consensus.port import Hello

MEMBERS = frozenset({"n1", "n2", "n3"})


def hello(node: str, **other: Any) -> Hello:
    claims = {"cluster": "prod", "cluster_id": None, "group": 0, "incarnation": "1", "pristine": True, "version": "1"}
    return Hello(node=node, **{**claims, **other})


def me(node: str, secret: bytes = b"s3cret", nonce: bytes | None = None, **other: Any) -> Me:
    return Me(hello(node, **other), secret, nonce or (node.encode() * 32)[:32])


def never(peer: str) -> bool:
    return False


def finish(side: Handshake, payload: bytes) -> Hello:
    with pytest.raises(StopIteration) as end:
        side.send(payload)
    learnt = end.value.value
    assert isinstance(learnt, Hello)
    return learnt


def converse(dialer: Me, listener: Me, peer: str = "n2") -> tuple[Hello | Refused, Hello | Refused]:
    """What the dialer and what the listener learn; ``Welcome`` or the refusal's code is said as the owner would."""
    dialling, listening = handshake.dial(dialer, peer), handshake.listen(listener, MEMBERS, never)
    next(listening)
    said = next(dialling)
    heard: Hello | Refused
    try:
        answer = listening.send(said)
    except Refused as refused:
        return _end(dialling, encode(Refusal(refused.code))), refused
    try:
        proof = dialling.send(answer)
    except Refused as refused:
        listening.close()
        return refused, refused
    try:
        listening.send(proof)
    except StopIteration as end:
        heard, last = end.value, encode(Welcome())
    except Refused as refused:
        heard, last = refused, encode(Refusal(refused.code))
    else:
        pytest.fail("the listener wants more")
    return _end(dialling, last), heard


def _end(dialling: Handshake, last: bytes) -> Hello | Refused:
    try:
        return finish(dialling, last)
    except Refused as refused:
        return refused


@pytest.mark.parametrize("secret", [b"", b"s3cret"])
def test_d14_equal_secrets_let_both_in(secret: bytes) -> None:
    told = converse(me("n1", secret), me("n2", secret))
    assert told == (hello("n2"), hello("n1"))


@pytest.mark.parametrize(
    ("mine", "theirs"), [(b"right", b"wrong"), (b"", b"x"), (b"x", b""), (b"x", b"x\0"), (b"", b"\0")]
)
def test_d14_another_secret_is_noticed_by_the_dialer_before_it_proves_anything(mine: bytes, theirs: bytes) -> None:
    dialer, _ = converse(me("n1", mine), me("n2", theirs))
    assert isinstance(dialer, Refused)
    assert dialer.code == "secret"


@pytest.mark.parametrize(
    ("claims", "code", "words"),
    [
        ({"cluster": "test"}, "cluster", "belongs to the cluster 'test', this node to 'prod'"),
        ({"group": 7}, "cluster", "belongs to group 7, this node to group 0"),
        ({"node": "n9"}, "member", "calls itself 'n9', which is no member here"),
        ({"node": "n2"}, "self", "this node's own name"),
    ],
)
def test_wrong_claims_are_refused_with_a_code_and_worded_at_home(claims: dict[str, Any], code: str, words: str) -> None:
    dialer, listener = converse(me(**{"node": "n1", **claims}), me("n2"))
    assert isinstance(listener, Refused)
    assert listener.code == code
    assert words in listener.reason
    assert isinstance(dialer, Refused)
    assert dialer.code == code
    assert "refuses this node" in dialer.reason
    assert "prod" not in dialer.reason


def test_d1_both_sides_name_both_cluster_ids_after_both_proofs() -> None:
    dialer, listener = converse(me("n1", cluster_id="5f2c"), me("n2", cluster_id="77aa"))
    assert isinstance(dialer, Refused)
    assert isinstance(listener, Refused)
    assert (dialer.code, listener.code) == ("cluster_id", "cluster_id")
    assert dialer.reason == "belongs to cluster '77aa', this is '5f2c'"
    assert listener.reason == "belongs to cluster '5f2c', this is '77aa'"


@pytest.mark.parametrize(("mine", "theirs"), [(None, None), (None, "5f2c"), ("5f2c", None), ("5f2c", "5f2c")])
def test_d1_a_member_without_a_cluster_id_fits_to_any(mine: str | None, theirs: str | None) -> None:
    told = converse(me("n1", cluster_id=mine), me("n2", cluster_id=theirs))
    assert told == (hello("n2", cluster_id=theirs), hello("n1", cluster_id=mine))


def test_another_protocol_version_is_refused_even_if_its_greeting_is_longer() -> None:
    listening = handshake.listen(me("n2"), MEMBERS, never)
    next(listening)
    with pytest.raises(Refused, match="speaks version 2 of the node protocol") as refused:
        listening.send(msgspec.msgpack.encode(["greeting", 2, b"", b"", {"new": [1]}]))
    assert refused.value.code == "protocol"


def test_a_dialer_notices_that_another_member_answers() -> None:
    dialer, _ = converse(me("n1"), me("n2"), peer="n3")
    assert isinstance(dialer, Refused)
    assert dialer.reason == "answers as 'n2'"


def test_a_dialer_that_reaches_itself_says_so() -> None:
    dialer, listener = converse(me("n1"), me("n1"))
    assert isinstance(listener, Refused)
    assert listener.code == "self"
    assert isinstance(dialer, Refused)
    assert dialer.code == "self"


def test_a_listener_whose_own_dial_is_about_to_succeed_prefers_it() -> None:
    listening = handshake.listen(me("n1"), MEMBERS, lambda peer: peer == "n2")
    next(listening)
    with pytest.raises(Refused) as refused:
        listening.send(next(handshake.dial(me("n2"), "n1")))
    assert refused.value.code == handshake.DUPLICATE


def test_d14_a_proof_cannot_be_reflected() -> None:
    listening = handshake.listen(me("n2"), MEMBERS, never)
    next(listening)
    answer = msgspec.msgpack.decode(
        listening.send(encode(Greeting(handshake.PROTOCOL, encode(hello("n1")), b"1" * 32))), type=Answer
    )
    with pytest.raises(Refused, match="cannot prove the cluster secret"):
        listening.send(encode(Proof(answer.proof)))


def test_d14_a_node_cannot_be_made_to_answer_its_own_dial() -> None:
    """A stranger whom n1 dials opens a connection to n1 as n2, and hands each side what the other one said."""
    dialling = handshake.dial(me("n1", nonce=b"x" * 32), "n2")
    listening = handshake.listen(me("n1", nonce=b"y" * 32), MEMBERS, never)
    next(dialling)
    next(listening)
    claim = encode(hello("n2"))
    answer = msgspec.msgpack.decode(listening.send(encode(Greeting(handshake.PROTOCOL, claim, b"x" * 32))), type=Answer)
    with pytest.raises(Refused, match="cannot prove the cluster secret"):
        dialling.send(encode(Answer(claim, b"y" * 32, answer.proof)))


def test_d14_a_recorded_conversation_is_of_no_use_against_a_fresh_nonce() -> None:
    dialling = handshake.dial(me("n1"), "n2")
    first = handshake.listen(me("n2", nonce=b"a" * 32), MEMBERS, never)
    next(first)
    greeting = next(dialling)
    proof = dialling.send(first.send(greeting))
    assert finish(first, proof) == hello("n1")

    second = handshake.listen(me("n2", nonce=b"b" * 32), MEMBERS, never)
    next(second)
    second.send(greeting)
    with pytest.raises(Refused) as refused:
        second.send(proof)
    assert refused.value.code == "secret"


@pytest.mark.parametrize("position", range(3))
def test_d14_every_claim_is_covered_by_the_proofs(position: int) -> None:
    """A man in the middle changes one byte of hello, nonce or proof of the answer."""
    listening = handshake.listen(me("n2"), MEMBERS, never)
    dialling = handshake.dial(me("n1"), "n2")
    next(listening)
    answer = msgspec.msgpack.decode(listening.send(next(dialling)), type=Answer)
    fields = [answer.hello, answer.nonce, answer.proof]
    fields[position] = fields[position][:-1] + bytes([fields[position][-1] ^ 1])
    with pytest.raises(Refused):
        dialling.send(encode(Answer(*fields)))


HOSTILE = [
    b"",
    b"\x00",
    b"\xc1",
    b"\x91" * 4000,
    b"\x82" * 4000,
    msgspec.msgpack.encode(["greeting", 1]),
    msgspec.msgpack.encode(["greeting", 1, b"", b"1" * 32]),
    msgspec.msgpack.encode(["greeting", 1, b"\x91" * 3000, b"1" * 32]),
    msgspec.msgpack.encode(["greeting", 1, encode(hello("n1")), b"short"]),
    msgspec.msgpack.encode(["greeting", 1, encode(hello("n1")).replace(b"prod", b"\xff\xff\xff\xff"), b"1" * 32]),
    msgspec.msgpack.encode(["greeting", "1", {}, []]),
    msgspec.msgpack.encode(["proof", b""]),
    msgspec.msgpack.encode({"type": "greeting"}),
    b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
]


@pytest.mark.parametrize("payload", HOSTILE)
def test_d14_hostile_first_words_are_refused_in_either_role(payload: bytes) -> None:
    listening = handshake.listen(me("n2"), MEMBERS, never)
    next(listening)
    with pytest.raises(Refused) as at_listener:
        listening.send(payload)
    dialling = handshake.dial(me("n1"), "n2")
    next(dialling)
    with pytest.raises(Refused) as at_dialer:
        dialling.send(payload)
    assert {at_listener.value.code, at_dialer.value.code} == {"garbled"}


@given(st.binary(max_size=200))
def test_d14_no_bytes_raise_anything_but_a_refusal(payload: bytes) -> None:
    for side in (handshake.listen(me("n2"), MEMBERS, never), handshake.dial(me("n1"), "n2")):
        next(side)
        with pytest.raises(Refused):
            side.send(payload)


def test_text_from_the_wire_is_quoted_and_cut() -> None:
    _, listener = converse(me("n1", cluster="x\n\x1b[31m" + "y" * 1000), me("n2"))
    assert isinstance(listener, Refused)
    assert "\n" not in listener.reason
    assert "\x1b" not in listener.reason
    assert len(listener.reason) < 200
    dialling = handshake.dial(me("n1"), "n2")
    next(dialling)
    with pytest.raises(Refused, match=r"gives the code 'new\\nthing'"):
        dialling.send(encode(Refusal("new\nthing")))
