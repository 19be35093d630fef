"""These tests run on jumping time: deadlines are exact and cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.node.gateway.jumploop import JumpLoop


@pytest.hookimpl(tryfirst=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config,
    item: pytest.Item,
) -> Mapping[str, Callable[[], JumpLoop]]:
    """Make the loops of these tests."""
    return {"jumping": JumpLoop}
