"""Lists in pages, and the opaque cursors that lead from one page to the next.

Invariants: a cursor names the last item of its page and the list that it belongs to, so that it stays usable while items
come and go. A page is bounded by its limit and by an estimate of its bytes, but never empty while there are items.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TypeVar

from quorl.cluster.protocol import limits

T = TypeVar("T")


class BadCursor(ValueError):
    """The cursor was not given out for this list."""


def encode_cursor(kind: str, last: str) -> str:
    """The cursor after an item."""
    return base64.urlsafe_b64encode(f"{kind}:{last}".encode()).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str) -> str:
    """The item that a cursor stands after."""
    try:
        padded = (cursor + "=" * (-len(cursor) % 4)).encode("ascii")
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        text = ""
    found, colon, last = text.partition(":")
    if found != kind or not colon:
        raise BadCursor("The cursor is not one that this list gave out. Leave it out to begin at the first page.")
    return last


def decode_id_cursor(kind: str, cursor: str) -> int:
    """The id that a cursor stands after; 0, which no id is, without a cursor."""
    if not cursor:
        return 0
    last = decode_cursor(kind, cursor)
    if not (last.isascii() and last.isdigit()) or len(last) > 16:
        raise BadCursor("The cursor is not one that this list gave out. Leave it out to begin at the first page.")
    return int(last)


def page(candidates: Iterable[tuple[T, int]], limit: int) -> tuple[list[T], bool]:
    """The items of one page, and whether more follow. Candidates come with an estimate of their bytes."""
    items: list[T] = []
    room_bytes = limits.PAGE_BYTES_MAX
    for item, size_bytes in candidates:
        if len(items) == limit or (items and size_bytes > room_bytes):
            return items, True
        items.append(item)
        room_bytes -= size_bytes
    return items, False
