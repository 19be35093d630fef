"""What a figure stands on: the commit, the versions, the machine, and who else was using it meanwhile.

A measured rate says nothing without the share of the processor that others had. On systems without ``/proc`` those
shares are null.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import quorl
from examples import ROOT

_PROC = Path("/proc")
_PACKAGES = ("aiohttp", "msgspec", "orjson", "pysyncobj", "uvloop")


class CpuTimes(NamedTuple):
    """Seconds of processor used so far: by every process, and taken by the hypervisor."""

    at: float
    by_pid: dict[int, float]
    stolen_s: float


def cpu_times() -> CpuTimes | None:
    """Look at every process of the machine; None where that cannot be done."""
    if not (_PROC / "stat").exists():
        return None
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    by_pid = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it has just ended
            fields = stat.rpartition(") ")[2].split(" ")
            by_pid[int(entry.name)] = (int(fields[11]) + int(fields[12])) * tick_s
    total = (_PROC / "stat").read_text().partition("\n")[0].split()
    stolen = int(total[8]) * tick_s if len(total) > 8 else 0.0
    return CpuTimes(time.monotonic(), by_pid, stolen)


def cpu_shares(before: CpuTimes | None, after: CpuTimes | None, servers: Iterable[int]) -> dict[str, float | None]:
    """Average cores used between two looks. ``others`` or ``stolen`` well above 0: a disturbed run."""
    if before is None or after is None:
        return dict.fromkeys(("others_cpu_cores", "stolen_cores", "client_cores", "server_cores"))
    seconds = after.at - before.at
    used = {pid: max(0.0, s - before.by_pid.get(pid, 0.0)) for pid, s in after.by_pid.items()}
    nodes, own = set(servers), os.getpid()
    others = sum(s for pid, s in used.items() if pid != own and pid not in nodes)
    return {
        "others_cpu_cores": round(others / seconds, 2),
        "stolen_cores": round((after.stolen_s - before.stolen_s) / seconds, 2),
        "client_cores": round(used.get(own, 0.0) / seconds, 2),
        "server_cores": round(sum(s for pid, s in used.items() if pid in nodes) / seconds, 2),
    }


def rss_mb(pid: int) -> float:
    """The resident memory of a process, MiB; 0 where the system does not say."""
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except OSError:
        return 0.0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def description(file_system: str) -> dict[str, Any]:
    """What does not change from run to run."""
    return {
        "commit": commit(),
        "cores": os.cpu_count(),
        "file_system": file_system,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": versions(),
    }


def commit() -> str:
    """The commit that is measured; ``+`` when the working tree differs from it in code."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "cluster", "client")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """The versions of what decides the speed."""
    found = {"quorl": quorl.__version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
