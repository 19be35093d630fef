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
    """What a command is put behind to have a network of its own, in which it may lay cables and set up switches.

    Where the system forbids that, as containers may, also continuous integration has to go without: nothing can be installed.
    """
    tool("ip", "iproute2")
    command = [tool("unshare", "util-linux"), "--user", "--map-root-user", "--net"]
    links = "ip link add one type veth peer name other && ip link add switch type bridge"
    tried = subprocess.run([*command, "sh", "-c", links], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this system lets nobody have a network of his own: {tried.stderr.strip()}")
    return command


def _missing(said: str) -> NoReturn:
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(said)
    pytest.skip(said)
