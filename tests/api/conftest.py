"""What stands between sockets and the node is tested on every loop that nodes run on."""

from __future__ import annotations

import pytest

from tests import loops


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, loops.Factory]:
    """Run every asynchronous test of this folder on each of them."""
    return loops.factories()
