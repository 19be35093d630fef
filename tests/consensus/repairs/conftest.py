"""The argument that ``bites`` fills."""

from __future__ import annotations

import pytest

from tests.consensus.repairs.switches import SWITCHES


@pytest.fixture
def repaired(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether every repair is in place; if not, the one that the run is named after was taken away."""
    if request.param is None:
        return True
    SWITCHES[request.param](monkeypatch.setattr)
    return False
