"""Watches: on the real disk, how long each flush of the log takes; on the event loop, how late it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from quorl.cluster.consensus.disk import RealDisk
from quorl.cluster.consensus.port import LogFile
from quorl.cluster.node.meters import Histogram

_LAG_EVERY_S = 0.25
"""How often the loop's lag is measured: a stall of half as long is seen every second time, at four wake-ups a
second."""


class _MeteredFile:
    """A file whose flushes are timed: ``port.LogFile``."""

    def __init__(self, file: LogFile, sync_s: Histogram) -> None:
        self._file = file
        self._sync_s = sync_s
        self.append = file.append
        self.truncate = file.truncate
        self.close = file.close

    @property
    def size(self) -> int:
        """See ``LogFile``."""
        return self._file.size

    def sync(self) -> None:
        """See ``LogFile``."""
        began_s = time.perf_counter()
        self._file.sync()
        self._sync_s.observe(time.perf_counter() - began_s)

    def sync_soon(self, ended: Callable[[OSError | None], None]) -> bool:
        """See ``LogFile``."""
        began_s = time.perf_counter()

        def timed(error: OSError | None) -> None:
            if error is None:
                self._sync_s.observe(time.perf_counter() - began_s)
            ended(error)

        return self._file.sync_soon(timed)


class MeteredDisk:
    """A data directory whose files are timed: ``port.Disk``."""

    def __init__(self, disk: RealDisk, sync_s: Histogram) -> None:
        """Tell ``sync_s`` of every flush that succeeded."""
        self._disk = disk
        self._sync_s = sync_s
        self.lock = disk.lock
        self.names = disk.names
        self.read = disk.read
        self.read_at = disk.read_at
        self.write_atomically = disk.write_atomically
        self.remove = disk.remove
        self.set_aside = disk.set_aside
        self.free_bytes = disk.free_bytes
        self.close = disk.close

    def create(self, name: str, head: bytes) -> LogFile:
        """See ``Disk``."""
        return _MeteredFile(self._disk.create(name, head), self._sync_s)

    def open(self, name: str) -> LogFile:
        """See ``Disk``."""
        return _MeteredFile(self._disk.open(name), self._sync_s)


class LoopLag:
    """How late the event loop comes: the worst since it was asked last."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._worst_s = 0.0
        self._timer = self._wait()

    def _wait(self) -> asyncio.TimerHandle:
        return self._loop.call_later(_LAG_EVERY_S, self._look, self._loop.time() + _LAG_EVERY_S)

    def _look(self, due_s: float) -> None:
        self._worst_s = max(self._worst_s, self._loop.time() - due_s)
        self._timer = self._wait()

    def take(self) -> float:
        """The worst lag in seconds, which is forgotten then."""
        worst_s, self._worst_s = self._worst_s, 0.0
        return worst_s

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()
