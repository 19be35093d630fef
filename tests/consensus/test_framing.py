"""Frames: whatever the pieces in which bytes arrive, the same payloads come out; damage ends the stream."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.cluster.consensus.framing import HEADER_BYTES, FrameError, FrameReader, pack


def test_a_frame_is_length_checksum_payload_in_little_endian() -> None:
    assert pack(b"\x01", b"hello") == struct.pack("<II", 6, crc32(b"\x01hello")) + b"\x01hello"


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=12),
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_the_pieces_do_not_matter(payloads: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(map(pack, payloads))
    reader = FrameReader(300)
    arrived: list[bytes] = []
    begin = turn = 0
    while begin < len(stream):
        end = begin + sizes[turn % len(sizes)]
        arrived += reader.feed(stream[begin:end])
        begin, turn = end, turn + 1
    assert arrived == payloads
    assert reader.kept_bytes == 0


@given(st.binary(min_size=1, max_size=80), st.data())
def test_a_flipped_bit_never_yields_a_payload(payload: bytes, data: st.DataObject) -> None:
    frame = bytearray(pack(payload))
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8
    try:
        assert FrameReader(1000).feed(bytes(frame)) == []  # a greater length: the frame seems not to be whole yet
    except FrameError:
        pass


@pytest.mark.parametrize("length", [0, 101, 2**31, 2**32 - 1])
def test_a_length_that_is_not_allowed_is_refused_from_its_header_alone(length: int) -> None:
    with pytest.raises(FrameError):
        FrameReader(100).feed(struct.pack("<II", length, 0))


def test_the_largest_frame_allowed_is_read() -> None:
    assert FrameReader(100).feed(pack(b"x" * 100)) == [b"x" * 100]


def test_damage_after_good_frames_ends_the_stream_wherever_the_pieces_end() -> None:
    reader = FrameReader(100)
    assert reader.feed(pack(b"good") + b"\xff") == [b"good"]
    with pytest.raises(FrameError):
        reader.feed(b"\xff\xff\xff\xff\xff\xff\xff")


def test_the_bounds_can_change_between_two_frames_of_one_piece() -> None:
    reader = FrameReader(10, frames_max=1)
    assert reader.feed(pack(b"small") + pack(b"x" * 1000) + pack(b"y")) == [b"small"]
    reader.allow(1000)
    assert reader.feed(b"") == [b"x" * 1000, b"y"]
    assert reader.feed(b"") == []


def test_what_is_kept_is_less_than_one_frame() -> None:
    reader = FrameReader(100)
    for byte in pack(b"z" * 100)[:-1]:
        assert reader.feed(bytes([byte])) == []
        assert reader.kept_bytes < 100 + HEADER_BYTES
