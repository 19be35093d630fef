"""What holds for all tests: where a test lies decides when it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

MARKS = {"simulation": pytest.mark.sim, "chaos": pytest.mark.chaos}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of a folder, so that none can be forgotten."""
    here = Path(__file__).parent
    for item in items:
        for part in item.path.relative_to(here).parts:
            if part in MARKS:
                item.add_marker(MARKS[part])
