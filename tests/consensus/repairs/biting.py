"""``@bites("name")``: the test runs as it is, and once more with the repair of that name taken away.

Its argument ``repaired`` says which run this is. Without the repair it must see the defect, or it tests nothing.
"""

from __future__ import annotations

import pytest


def bites(*switches: str) -> pytest.MarkDecorator:
    """Run with everything in place, then once without each of these repairs."""
    return pytest.mark.parametrize(
        "repaired", [None, *switches], indirect=True, ids=["repaired", *(f"without_{name}" for name in switches)]
    )
