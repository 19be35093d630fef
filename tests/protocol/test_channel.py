"""Frames of channels: whatever is cut however, the same calls and answers come out; what is no frame is told apart."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.cluster.protocol import channel, limits
from quorl.cluster.protocol.channel import Answered, Asked, Broken, Frames
from quorl.cluster.protocol.wire import Call

TEXT = st.text(max_size=20)
HEADERS = st.dictionaries(TEXT, TEXT, max_size=3)
NUMBER = st.integers(1, limits.INTEGER_MAX)
ASKED = st.builds(
    Asked, number=NUMBER, method=TEXT, path=TEXT, query=TEXT, headers=HEADERS, body=st.binary(max_size=50)
)
ANSWERED = st.builds(
    Answered,
    number=st.integers(0, limits.INTEGER_MAX),
    status=st.integers(100, 599),
    headers=HEADERS,
    body=st.binary(max_size=50),
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[one:other] for one, other in itertools.pairwise(edges)]


def sent(calls: list[Asked], gone: list[int] | None = None) -> bytes:
    return b"".join(frame for _, frame in channel.frames_of_calls(calls, gone or []))


@pytest.mark.parametrize("head", [b"H", b"HTTP/", b"HTTP/1.1 101 Switching"])
def test_what_may_become_an_answer_of_http_is_let_come(head: bytes) -> None:
    channel.check_head(head)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"-", "what answers there does not speak HTTP ('-'); is it"),
        (b"SSH-2.0-x\r\nmore", "what answers there does not speak HTTP ('SSH-2.0-x'); is it"),
        (b"\n", "what answers there does not speak HTTP; is it"),
        (b"\x11\0refusal", "what answers there does not speak HTTP; is it"),
        (b"\xff", "what answers there does not speak HTTP; is it"),
        (b"\x15\x03\x01\0\x02", "what answers there speaks TLS, and no plain HTTP: is its"),
    ],
)
def test_what_cannot_is_told_with_what_it_said(head: bytes, why: str) -> None:
    with pytest.raises(channel.NotHttp) as caught:
        channel.check_head(head)
    assert str(caught.value).startswith(why)


def asked(body: bytes = b"", number: int = 1, path: str = "/v1/topics") -> Asked:
    return Asked(number, "GET", path, "", {"accept": "application/json"}, body)


@given(st.lists(ASKED, max_size=5), st.lists(NUMBER, max_size=3), st.lists(st.integers(0, 10_000), max_size=6))
def test_calls_come_out_as_they_went_in_however_the_bytes_are_cut(
    calls: list[Asked], gone: list[int], places: list[int]
) -> None:
    frames = Frames(limits.CHANNEL_FRAME_BYTES_MAX)
    read = [channel.read_asking(one) for part in cut(sent(calls, gone), places) for one in frames.feed(part)]
    assert [one for frame in read for one in frame.calls] == calls
    assert [one for frame in read for one in frame.gone] == gone
    assert not frames


@given(st.lists(st.lists(ANSWERED, max_size=5), max_size=3), st.lists(st.integers(0, 10_000), max_size=6))
def test_answers_come_out_as_they_went_in(groups: list[list[Answered]], places: list[int]) -> None:
    frames = Frames(limits.CHANNEL_ANSWER_BYTES_MAX)
    data = b"".join(channel.frames_of_answers(group) for group in groups)
    read = [channel.read_answering(one) for part in cut(data, places) for one in frames.feed(part)]
    assert [one for frame in read for one in frame.answers] == [one for group in groups for one in group]


def test_many_calls_fill_several_frames_and_the_first_says_who_has_gone() -> None:
    calls = [asked(b"x" * 100_000, number) for number in range(1, 8)]
    frames = Frames(limits.CHANNEL_FRAME_BYTES_MAX).feed(sent(calls, [9]))
    read = [channel.read_asking(one) for one in frames]
    assert [len(one.calls) for one in read] == [3, 3, 1]
    assert [one.gone for one in read] == [[9], [], []]
    many = [asked(b"", number, "/" + "x" * 8_000) for number in range(1, 100)]
    assert len(Frames(limits.CHANNEL_FRAME_BYTES_MAX).feed(sent(many))) == 4


def test_whatever_fits_makes_a_frame_that_is_taken() -> None:
    largest = asked(b"x" * limits.REQUEST_BYTES_MAX, path="/" + "x" * (limits.TARGET_BYTES_MAX - 1))
    before = [asked(b"x" * (limits.CHANNEL_FRAME_BYTES_TARGET - 2_000))]
    assert channel.fits(Call("POST", largest.path, "", {}, largest.body))
    assert len(Frames(limits.CHANNEL_FRAME_BYTES_MAX).feed(sent([*before, largest]))) == 1
    assert not channel.fits(Call("POST", "/", "", {}, largest.body + b"x"))
    assert not channel.fits(Call("POST", largest.path, "x", {}, b""))
    assert not channel.fits(Call("POST", "/", "", {"idempotency-key": "\ud800"}, b""))
    assert not channel.fits(Call("POST", "/\udcff", "", {}, b""))


@pytest.mark.parametrize("text", ["a=1,\tb=2", "\xe9", "\x7f", "x" * 8_000, "x" * 16_000, "x" * 32_000])
def test_whatever_fits_is_taken_from_the_frame(text: str) -> None:
    """What is no text for a channel may well be one for HTTP, as a tab in a ``tracestate``: then it goes that way."""
    call = Call("POST", "/" + "x" * (limits.TARGET_BYTES_MAX - 1), "", {"traceparent": "", "tracestate": text}, b"")
    assert channel.fits(call) == (
        channel.fault_of(Asked(1, call.method, call.path, "", dict(call.headers), b"")) is None
    )


@pytest.mark.parametrize("size", [101, 2**32 - 1])
def test_a_frame_that_says_it_is_too_long_is_refused_before_it_came(size: int) -> None:
    with pytest.raises(Broken, match="100 are allowed"):
        Frames(100).feed(size.to_bytes(4, "big") + b"x")
    with pytest.raises(Broken, match="100 are allowed"):
        Frames(100).feed((101).to_bytes(4, "big") + b"x" * 101)


@given(st.binary(max_size=40))
def test_whatever_bytes_come_they_are_read_or_broken(data: bytes) -> None:
    for read in (channel.read_asking, channel.read_answering):
        try:
            found = read(data)
        except Broken:
            continue
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=type(found)) == found


@pytest.mark.parametrize("number", [0, -1, 2**63])
def test_numbers_begin_with_one_and_are_small_enough_for_everybody(number: int) -> None:
    with pytest.raises(Broken):
        channel.read_asking(msgspec.msgpack.encode([[[number, "GET", "/", "", {}, b""]]]))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (Asked(1, "GET", "/v1/topics", "limit=1", {"accept": "application/json"}, b""), None),
        (Asked(1, "GET", "/v1/töpics", "", {}, b""), "ASCII"),
        (Asked(1, "GET", "/v1/topics", "a=\n", {}, b""), "ASCII"),
        (Asked(1, "GET", "/", "", {"request-id": "a\r\nquorl-member: x"}, b""), "ASCII"),
        (Asked(1, "GET", "/", "", {"a\0": "b"}, b""), "ASCII"),
        (Asked(1, "", "/", "", {}, b""), "method"),
        (Asked(1, "GET /", "/", "", {}, b""), "method"),
        (Asked(1, "G" * 21, "/", "", {}, b""), "method"),
        (Asked(1, "GET", "", "", {}, b""), "begins"),
        (Asked(1, "GET", "http://n2/", "", {}, b""), "begins"),
        (Asked(1, "GET", "/a b", "", {}, b""), "%20"),
        (Asked(1, "GET", "/a?b", "", {}, b""), "begins"),
        (Asked(1, "GET", "/", "a b", {}, b""), "%20"),
        (Asked(1, "GET", "/", "", {"x": "y" * limits.CHANNEL_HEAD_BYTES_MAX}, b""), "bytes"),
    ],
)
def test_what_no_request_could_have_carried_is_no_call(call: Asked, word: str | None) -> None:
    problem = channel.fault_of(call)
    if word is None:
        assert problem is None
    else:
        assert problem is not None
        assert problem.code == "malformed_request"
        assert word in problem.detail
