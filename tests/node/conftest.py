"""What of a node depends on the loop's timers is tested on every loop that nodes run on."""

from __future__ import annotations

import asyncio

import pytest

from tests import loops


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, loops.Factory]:
    """Run the asynchronous tests of timers on each of them."""
    timers = item.path.name in {"test_timers.py", "test_deadlines.py"}
    return loops.factories() if timers else {"asyncio": asyncio.new_event_loop}
