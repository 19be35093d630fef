"""Frames: how a stream of bytes is cut into messages. Pure.

A frame is ``length`` (u32, little endian), ``crc32`` of the payload (u32, little endian), payload. The checksum finds
accidents, not attackers: whoever may send frames at all has proved the cluster secret before.

Invariants:

* a length above the cap, an empty frame or a wrong checksum ends the stream; nothing after it is read;
* what is kept between two calls is less than one frame within the cap, so before authentication, when the cap is
  small, a stranger can make this side remember almost nothing;
* every byte is copied a fixed number of times, however small the pieces in which it arrives.
"""

from __future__ import annotations

import struct

from quorl.cluster.protocol.crc import crc32

_HEADER = struct.Struct("<II")
HEADER_BYTES = _HEADER.size


class FrameError(Exception):
    """The stream is not, or no longer, a stream of frames. The connection is of no more use."""


def pack(*parts: bytes) -> bytes:
    """The frame whose payload is ``parts``, one after the other."""
    crc = size = 0
    for part in parts:
        crc = crc32(part, crc)
        size += len(part)
    assert size, "an empty frame says nothing"
    return b"".join((_HEADER.pack(size, crc), *parts))


class FrameReader:
    """Bytes in, payloads out. ``frames_max`` bounds how many payloads one ``feed`` returns; the rest waits."""

    def __init__(self, frame_bytes_max: int, frames_max: int | None = None) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._frames_max = frames_max
        self._kept = bytearray()
        self._wanted = 0  # bytes in hand below which another look at them is of no use

    @property
    def kept_bytes(self) -> int:
        """Bytes held back, because their frame is not whole or not wanted yet."""
        return len(self._kept)

    def allow(self, frame_bytes_max: int, frames_max: int | None = None) -> None:
        """Set other bounds, for all that was not returned yet. ``feed(b"")`` then reads on."""
        self._frame_bytes_max = frame_bytes_max
        self._frames_max = frames_max

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream and return the payloads that are whole now; raises ``FrameError``."""
        kept = self._kept
        if not kept:  # the usual case: whole frames arrive, and need not pass through the buffer
            payloads, end = self._parse(data)
            if end < len(data):
                kept += memoryview(data)[end:]
            return payloads
        kept += data
        if len(kept) < self._wanted:
            return []
        payloads, end = self._parse(kept)
        del kept[:end]
        return payloads

    def _parse(self, source: bytes | bytearray) -> tuple[list[bytes], int]:
        """Return the whole frames at the start of ``source``, and where the next one begins."""
        payloads: list[bytes] = []
        begin, size = 0, len(source)
        self._wanted = 0
        with memoryview(source) as view:
            while len(payloads) != self._frames_max:
                if size - begin < HEADER_BYTES:
                    self._wanted = HEADER_BYTES
                    break
                length, crc = _HEADER.unpack_from(view, begin)
                if not 0 < length <= self._frame_bytes_max:
                    raise FrameError(f"a frame of {length} bytes; 1 to {self._frame_bytes_max} are allowed here")
                end = begin + HEADER_BYTES + length
                if size < end:
                    self._wanted = end - begin
                    break
                payload = bytes(view[begin + HEADER_BYTES : end])
                if crc32(payload) != crc:
                    raise FrameError(f"a frame of {length} bytes does not match its checksum")
                payloads.append(payload)
                begin = end
        return payloads, begin
