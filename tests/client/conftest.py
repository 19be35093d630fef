"""A cluster for every test that wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.stand_in import StandIn, stand_in


@pytest.fixture
def cluster() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running
