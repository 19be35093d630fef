"""Threads for what would block the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_THREADS = 4
"""As many as there are kinds of such work: checkpoints, copies for others, their pieces, a copy that comes."""


class Threads:
    """Implements ``port.Offload`` with a small pool."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="quorl")

    async def run(self, work: Callable[[], Any]) -> Any:
        """Run ``work`` in a thread of the pool. A thread cannot be cancelled: whoever is goes on when it has ended."""
        running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            await asyncio.wait([running])
            running.exception()  # nobody is there any more to be told of it
            raise
        return running.result()

    def close(self) -> None:
        """Wait for what runs, and take no more."""
        self._pool.shutdown()
