"""Threads for what would block the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_THREADS = 4


class Threads:
    """Implements ``port.Offload`` with a small pool."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="quorl")

    async def run(self, work: Callable[[], Any]) -> Any:
        """Run ``work`` in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Wait for what runs, and take no more."""
        self._pool.shutdown()
