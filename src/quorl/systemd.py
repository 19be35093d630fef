"""What a service of ``Type=notify`` tells systemd about itself (sd_notify, in so few lines that no package is worth it).

Where no ``NOTIFY_SOCKET`` is set nothing is told: under another supervisor, in a container, in a terminal.
"""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*lines: str) -> bool:
    """Tell systemd ``READY=1``, ``STOPPING=1``, ``STATUS=…`` or ``WATCHDOG=1``; whether there was anybody to tell.

    That systemd cannot be told is no reason to stop, so nothing is raised.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.settimeout(1.0)
        to.sendto("\n".join(lines).encode(), "\0" + path[1:] if path.startswith("@") else path)
        return True
    return False


def watchdog_s() -> float | None:
    """Seconds between two ``WATCHDOG=1``: half of what the unit's ``WatchdogSec`` allows; None without one."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000
