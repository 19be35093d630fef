"""The real disk: one directory, one process, and no call that lies about what is durable.

An fdatasync behind a write that makes a file longer waits for the file system's journal, and with several nodes on one
machine they wait for each other's. Into room that is there already it waits for the data alone: half the time. So a
file that is no longer needed is set aside and written over, instead of given back to the file system and asked for anew.

A process that is short of file descriptors, mostly because very many connect, must go on voting and storing: one descriptor
is kept in reserve, and given up for the moment in which a file of the log or the ballot can be opened in no other way.

An error of fsync is final for its file: the kernel forgets the dirty pages when it reports one, so a second try
would succeed without having written anything. The node stops instead, and reads back what really arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from quorl.cluster.consensus.flushing import Flusher
from quorl.cluster.consensus.port import NO_DESCRIPTORS, InUse
from quorl.cluster.protocol import limits

LOCK_NAME = "lock"
UNFINISHED = ".unfinished"
"""The ending of files that are not yet what they are to become; remains of a crash, removed by ``lock``."""
SET_ASIDE_MAX = 4
"""So many files are kept to be written over: as many segments as a trim of the log mostly leaves."""


def _flush(descriptor: int) -> None:
    """Make the content of a file durable."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync does not reach the medium there
    else:
        os.fdatasync(descriptor)


class RealFile:
    """One file that only grows at its end or is cut: ``port.LogFile``."""

    def __init__(
        self,
        path: Path,
        descriptor: int,
        flusher: Callable[[], Flusher | None],
        free_bytes: Callable[[int], int],
        *,
        size: int | None = None,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over an existing file that was opened, of which all but ``size`` bytes may be room.

        ``flusher`` gives what flushes it beside the loop, if anything does; ``free_bytes`` is that of the disk; ``closed``
        is told when its descriptor is free.
        """
        self._path = path
        self._flusher = flusher
        self._free_bytes = free_bytes
        self._flushes: Flusher | None = None
        """What may have a flush of this file under way."""
        self._descriptor = descriptor
        self._closed = closed
        self._end_of_room = os.fstat(self._descriptor).st_size
        self._size = self._end_of_room if size is None else size
        self._end_of_look = self._size
        """Up to here the file may be written without another look at what the disk has left; never behind the room's end."""
        self._failed = False

    @property
    def size(self) -> int:
        """See ``LogFile``."""
        return self._size

    def append(self, data: bytes, room_bytes: int = 0) -> None:
        """See ``LogFile``. The last of the disk is left to the state, so that all that is committed can be applied.

        Also of a file that was set aside no more than ``room_bytes`` is written over without a look: the state grows, too.
        """
        self._check()
        end = self._size + len(data)
        longer = end > self._end_of_room
        if longer or end > self._end_of_look:
            wanted = limits.DISK_SPARE_BYTES + (room_bytes if longer else 0)
            if self._free_bytes(wanted) < wanted:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        if longer and room_bytes:
            # By itself and first: were it written with the data, the data could be whole when the room fails.
            self._write(bytes(len(data) + room_bytes))
            self._end_of_room = end + room_bytes
        self._write(data)
        self._size = end
        self._end_of_room = max(self._end_of_room, end)
        if end > self._end_of_look:
            self._end_of_look = min(end + room_bytes, self._end_of_room)

    def _write(self, data: bytes) -> None:
        """Write all of it at the end, or nothing."""
        try:
            written = os.pwrite(self._descriptor, data, self._size)
            while written < len(data):
                more = os.pwrite(self._descriptor, memoryview(data)[written:], self._size + written)
                if more == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                written += more
        except OSError:
            self._cut(self._size)
            raise

    def sync(self) -> None:
        """Return once everything is durable; after an error nothing else is possible any more."""
        if self._flushes is not None:
            self._flushes.wait()  # the kernel tells an error only once: to whoever asked first
        self._check()
        try:
            _flush(self._descriptor)
        except OSError:
            self._failed = True
            raise

    def sync_soon(self, ended: Callable[[OSError | None], None]) -> bool:
        """See ``LogFile``."""
        self._check()
        self._flushes = self._flusher()
        return self._flushes is not None and self._flushes.begin(self._descriptor, partial(self._flushed, ended))

    def _flushed(self, ended: Callable[[OSError | None], None], error: OSError | None) -> None:
        self._failed = self._failed or error is not None
        ended(error)

    def truncate(self, size: int) -> None:
        """See ``LogFile``."""
        self._check()
        assert size <= self._size, f"cannot cut {self._path} from {self._size} to {size} bytes"
        self._cut(size)
        self._size = size

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._closed()

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
        except OSError:
            self._failed = True
            raise
        self._end_of_room = size
        self._end_of_look = min(self._end_of_look, size)

    def _check(self) -> None:
        if self._failed:
            raise OSError(errno.EIO, "an earlier write to this file failed for good", str(self._path))


class RealDisk:
    """One node's data directory: ``port.Disk``. ``close`` gives it back, as the end of the process does."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Use the directory, which is made if it is missing. Nothing is touched before ``lock``."""
        self._path = Path(path)
        self._path.mkdir(parents=True, exist_ok=True)
        self._lock = -1
        self._directory = -1
        """Open from the first use on: a name must not go and then want a descriptor for its sync, which may be the last."""
        self._reserve = -1
        """A descriptor that nobody needs: see above."""
        self._failed: set[str] = set()
        self._set_aside: list[Path] = []
        self._flusher: Flusher | None = None
        self._flushes_beside = True
        """Whether the system is not known to have no flushes beside the loop."""

    def lock(self) -> None:
        """Take the directory for this process and make durable what a killed one left in the kernel's hands.

        The names too: one that a restarted process has seen, and relied upon, must not vanish in a power cut.
        """
        if self._lock >= 0:
            return
        descriptor = os.open(self._path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise  # a file system without locks, for one: nobody is known to run here
            raise InUse(
                f"{self._path} is in use by process {holder}. One process per data directory: stop that one first, "
                "or give this node a directory of its own."
            ) from error
        self._lock = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        for path in sorted(self._path.glob(f"*{UNFINISHED}")):
            path.unlink()
        self._sync_names()
        self._keep_reserve()

    def close(self) -> None:
        """Give the directory back."""
        if self._flusher is not None:
            self._flusher.close()
            self._flusher = None
        for descriptor in (self._lock, self._directory, self._reserve):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._directory = self._reserve = -1

    def names(self) -> list[str]:
        """The files that exist, sorted, without those that are still being made."""
        return sorted(x.name for x in self._path.iterdir() if x.is_file() and not x.name.endswith(UNFINISHED))

    def read(self, name: str) -> bytes:
        """The whole content of a file, from the medium itself where the system can be asked for that.

        After an fsync that failed, the page cache still shows what never arrived, even to the next process.
        """
        with self._opened(self._path / name, os.O_RDONLY) as descriptor:
            _flush(descriptor)
            if sys.platform == "linux":
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()

    def read_at(self, name: str, offset: int, size_bytes: int) -> bytes:
        """A part of a file as this process has written it; shorter where the file ends."""
        with self._opened(self._path / name, os.O_RDONLY) as descriptor:
            return os.pread(descriptor, size_bytes, offset)

    def write_atomically(self, name: str, data: bytes) -> None:
        """Replace a file; durable on return."""
        self._write_and_name(self._path / (name + UNFINISHED), os.O_TRUNC, name, data)

    def _write_and_name(self, path: Path, flag: int, name: str, data: bytes) -> None:
        """Write the beginning of a file that has no name yet, and give it one."""
        self._check(name)
        try:
            with self._opened(path, os.O_WRONLY | os.O_CREAT | flag) as descriptor:
                self._write_all(descriptor, data)
                self._sync(descriptor, name)
            path.rename(self._path / name)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self._sync_names()

    def create(self, name: str, head: bytes) -> RealFile:
        """Create a file that starts with ``head``: it appears with all of it or not at all."""
        assert not (self._path / name).exists(), f"{name} exists"
        try:
            if self._set_aside:
                self._write_and_name(self._set_aside.pop(), 0, name, head)
            else:
                self.write_atomically(name, head)
            return self._file(name, len(head))
        except OSError:
            # Too many open files, for one, is no reason to stop: whoever tries again must not find half of this try.
            (self._path / name).unlink(missing_ok=True)
            raise

    def open(self, name: str) -> RealFile:
        """Open an existing file for appending at its end."""
        self._check(name)
        return self._file(name)

    def _file(self, name: str, size: int | None = None) -> RealFile:
        path = self._path / name
        descriptor = self._open(path, os.O_RDWR)
        return RealFile(path, descriptor, self._beside, self.free_bytes, size=size, closed=self._keep_reserve)

    def remove(self, name: str) -> None:
        """Remove a file if it exists; durable on return."""
        self._check(name)
        self._open_directory()
        (self._path / name).unlink(missing_ok=True)
        self._sync_names()

    def set_aside(self, name: str) -> None:
        """See ``Disk``. Of more than ``SET_ASIDE_MAX`` files, and where room is scarce, nothing is kept."""
        self._check(name)
        path = self._path / name
        if len(self._set_aside) >= SET_ASIDE_MAX or self.free_bytes() < 2 * limits.DISK_SPARE_BYTES:
            path.unlink(missing_ok=True)
        elif path.exists():
            aside = self._path / (name + UNFINISHED)  # which the next process removes
            path.rename(aside)
            self._set_aside.append(aside)

    def free_bytes(self, wanted_bytes: int = 0) -> int:
        """See ``Disk``: space left for a process without privileges."""
        while (free := self._free()) < wanted_bytes and self._set_aside:
            self._set_aside.pop().unlink(missing_ok=True)
        return free

    def _free(self) -> int:
        room = os.statvfs(self._path)
        return room.f_bavail * room.f_frsize

    def _beside(self) -> Flusher | None:
        """What flushes beside the loop; it is made when it is wanted first, on the loop that runs."""
        if self._flusher is None and self._flushes_beside:
            try:
                self._flusher = Flusher(asyncio.get_running_loop())
            except OSError as error:
                self._flushes_beside = error.errno in NO_DESCRIPTORS  # descriptors come back; such flushes do not
        return self._flusher

    @staticmethod
    def _write_all(descriptor: int, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.write(descriptor, memoryview(data)[written:])

    def _sync(self, descriptor: int, name: str) -> None:
        try:
            _flush(descriptor) if name != "." else os.fsync(descriptor)
        except OSError:
            self._failed.add(name)
            raise

    @contextlib.contextmanager
    def _opened(self, path: Path, flags: int) -> Iterator[int]:
        descriptor = self._open(path, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            self._keep_reserve()

    def _open(self, path: Path, flags: int) -> int:
        """Open a file, if need be with the descriptor that is kept in reserve."""
        try:
            return os.open(path, flags, 0o644)
        except OSError as error:
            if error.errno not in NO_DESCRIPTORS or self._reserve < 0:
                raise
        os.close(self._reserve)
        self._reserve = -1
        return os.open(path, flags, 0o644)

    def _keep_reserve(self) -> None:
        """Have a descriptor in reserve again, if there is one to be had."""
        if self._reserve < 0 <= self._lock:
            with contextlib.suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY)

    def _open_directory(self) -> int:
        if self._directory < 0:
            self._directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        return self._directory

    def _sync_names(self) -> None:
        self._check(".")
        self._sync(self._open_directory(), ".")

    def _check(self, name: str) -> None:
        for failed in (name, "."):
            if failed in self._failed:
                raise OSError(errno.EIO, "an earlier fsync failed for good", str(self._path / failed))
