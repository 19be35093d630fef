"""Bodies of large appends, packed: compressed as zlib does it (RFC 1950), behind a head that says how long they are.

A body is a JSON array and begins with ``[``; a packed one begins with another byte, so each says by itself what it is.

Invariants: what packing comes to depends on the library and its version, so it happens once, before the log, and never in the
machine; what unpacking comes to does not.
"""

from __future__ import annotations

import struct
import zlib
from typing import cast

from quorl.cluster.protocol import limits

_compress, _decompress, _Damaged = None, zlib.decompress, zlib.error
try:
    from isal import isal_zlib
except ImportError:  # no wheel for this platform: what others have packed is read, and nothing is packed here
    pass
else:
    _compress, _decompress = isal_zlib.compress, isal_zlib.decompress
    _Damaged = cast("type[zlib.error]", isal_zlib.error)  # which has no hint of its own

_HEAD = struct.Struct("<cI")
HEAD_BYTES = _HEAD.size
"""So many bytes of a body say how long it is unpacked."""
_PACKED = b"\x01"
_LEVEL = 1
"""The fastest that looks for what repeats: 800 MB/s, and lines of logs come to a quarter."""


def pack(body: bytes) -> bytes:
    """Return a JSON array packed, or as it is where that spares too little; once is enough."""
    if _compress is None or len(body) < limits.PACKED_BYTES_MIN or body[:1] == _PACKED:
        return body
    squeezed = _compress(body, _LEVEL)
    return _HEAD.pack(_PACKED, len(body)) + squeezed if len(squeezed) < limits.PACKED_SHARE_MAX * len(body) else body


def unpack(body: bytes) -> bytes:
    """Return the JSON array that a body is; raises ``ValueError`` if it is damaged."""
    if body[:1] != _PACKED:
        return body
    length = unpacked_bytes(body, len(body))
    try:
        plain = _decompress(body[HEAD_BYTES:], bufsize=min(length, limits.REQUEST_BYTES_MAX) or 1)
    except _Damaged:
        plain = b""
    if len(plain) != length or not length:
        raise ValueError("a packed body is not what it says that it is")
    return plain


def unpacked_bytes(head: bytes, size_bytes: int) -> int:
    """How long a body of so many bytes is unpacked, by its first ``HEAD_BYTES``."""
    if head[:1] != _PACKED or len(head) < HEAD_BYTES:
        return size_bytes
    length: int = _HEAD.unpack_from(head)[1]
    return length
