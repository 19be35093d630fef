"""The network between nodes is tested on every loop that nodes run on; the rest of the room knows no sockets."""

from __future__ import annotations

import asyncio

import pytest

from tests import loops


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, loops.Factory]:
    """Run the asynchronous tests of the network on each of them."""
    return loops.factories() if item.path.name.startswith("test_tcp") else {"asyncio": asyncio.new_event_loop}
