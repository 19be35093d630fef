"""Where the time goes: deterministic profiles of the client and of each node, the costliest functions first.

A profiled process is two to three times slower, and cheap functions look dearer than they are: read the order, not the
numbers.
"""

from __future__ import annotations

import contextlib
import cProfile
import pstats
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

TOP = 15


@contextlib.contextmanager
def profiled(directory: Path | None) -> Iterator[None]:
    """Profile this process into ``client.profile`` there; nothing without a directory."""
    if directory is None:
        yield
        return
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        yield
    finally:
        profiler.disable()
        profiler.dump_stats(directory / "client.profile")


def print_profiles(directory: Path) -> None:
    """Print the functions with the most time of their own, for every profile in the directory."""
    for path in sorted(directory.glob("*.profile")):
        stats = cast("Any", pstats.Stats(str(path))).stats  # (calls, primitive calls, own, cumulative, callers)
        idle = sum(row[2] for name, row in stats.items() if "poll" in name[2])
        busy = sum(row[2] for row in stats.values()) - idle
        print(f"\n{path.stem}: {busy:.1f} s busy, {idle:.1f} s waiting")
        ranked = sorted(((row[2], row[1], name) for name, row in stats.items() if "poll" not in name[2]), reverse=True)
        for own, calls, (file, number, function) in ranked[:TOP]:
            where = f"{'/'.join(Path(file).parts[-2:])}:{number}" if number else ""
            print(f"  {own / busy:6.1%} {own:7.2f} s {calls:9,d} calls  {function} {where}")
