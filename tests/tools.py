"""Programs of Debian's that tests ask for their opinion of our files."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "QUORL_TOOLS"


def tool(name: str, package: str) -> str:
    """Where a program is. A machine without it says so and skips the test; continuous integration fails instead."""
    found = shutil.which(name)
    if found is not None:
        return found
    said = f"{name} is not installed: apt-get install {package}"
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(said)
    pytest.skip(said)
