"""The event loops that nodes run on: what depends on the loop is tested on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorl.cluster import loops

Factory = Callable[[], asyncio.AbstractEventLoop]


def factories() -> dict[str, Factory]:
    """Asyncio's own, and what a node takes here if that is another."""
    own: dict[str, Factory] = {"asyncio": asyncio.new_event_loop}
    taken = loops.factory()
    return own if taken is asyncio.new_event_loop else {**own, "uvloop": taken}
