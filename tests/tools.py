"""Programs of Debian's that tests ask for their opinion of our files, or for a network of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NoReturn

import pytest

REQUIRED = "QUORL_TOOLS"


def tool(name: str, package: str) -> str:
    """Where a program is. A machine without it says so and skips the test; continuous integration fails instead."""
    found = shutil.which(name)
    if found is None:
        _missing(f"{name} is not installed: apt-get install {package}")
    return found


def namespace() -> list[str]:
    """What a command is put behind to have a network of its own, in which it may do what root may."""
    tool("ip", "iproute2")
    command = [tool("unshare", "util-linux"), "--user", "--map-root-user", "--net"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        _missing(f"this system lets nobody have a network namespace: {tried.stderr.strip()}")
    return command


def _missing(said: str) -> NoReturn:
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(said)
    pytest.skip(said)
