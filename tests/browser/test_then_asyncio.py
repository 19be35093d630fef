"""Behind the browser's modules in the same process: its event loop has gone with it."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = [pytest.mark.browser]


async def test_asyncio_runs_once_the_browser_is_closed() -> None:
    assert await asyncio.to_thread(lambda: 1) == 1
