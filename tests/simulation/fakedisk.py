"""A disk in memory that is as treacherous as a real one, and no more.

It keeps apart what the running process sees (``cache``) and what a power cut leaves: the durable content plus any
subset of the operations since the last sync, the last of them torn, holes filled with zeros, or with what lay there.
Names work alike. All chance comes from the given ``Random``, so a failing seed replays.

* ``kill()``: the process dies; everything written stays visible. Handles and views of it are fenced: they raise.
* ``power_cut()``: the machine dies; unsynced operations survive as chance wills.
* ``dies_in = n``: the machine stops inside the n-th operation from now, anywhere within it, and ``Died`` is raised.
  The caller then chooses ``kill()`` or ``power_cut()``.
* ``full``, ``free``, ``fail_sync``: ENOSPC and EIO. On a full disk nothing can be written, not even over what is there, as
  on a file system that copies on write; without ``free`` bytes no file can grow. A sync that failed has lost its data
  for good, whatever later syncs say, although the running process goes on seeing it.
* ``short``: EMFILE. No file can be opened; those that are open can be used.
* ``flush_s``: how long the next flush beside the loop takes; without it there are none. It covers what was written
  before it began. The death of the process is the end of it.
* ``reorders``: of several unsynced operations of a file a power cut leaves the newest alone, and that one whole.
* ``lying``: sync returns without making anything durable; a test that does not notice tests nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from quorl.cluster.consensus.disk import SET_ASIDE_MAX

SECTOR_BYTES = 512
UNLIMITED_BYTES = 1 << 50


class Died(KeyboardInterrupt):
    """The machine stopped inside a disk operation. A KeyboardInterrupt, which asyncio lets through like nothing else."""


class Fenced(RuntimeError):
    """Something of a dead process touched the disk: a bug of the simulation or of what runs in it."""


class _Write(NamedTuple):
    offset: int
    data: bytes
    before: bytes
    """What lay there: less than the data where it made the file longer."""


class _Cut(NamedTuple):
    size: int
    lost: bytes


class _Content:
    """One file: what the process sees, and the operations by which that differs from what is durable."""

    def __init__(self, data: bytes = b"") -> None:
        self.cache = bytearray(data)
        self.pending: list[_Write | _Cut] = []
        self.covered = 0
        """How many operations were made durable."""
        self.doomed = False
        """Whether a failed sync has given up what is pending: no later sync will cover it."""

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        self.pending.append(_Write(offset, data, bytes(self.cache[offset:end])))
        self.cache[offset:end] = data

    def cut(self, size: int) -> None:
        self.pending.append(_Cut(size, bytes(self.cache[size:])))
        del self.cache[size:]

    @property
    def operations(self) -> int:
        """How many operations there were; how many of them are durable is ``covered``."""
        return self.covered + len(self.pending)

    def sync(self, operations: int | None = None) -> None:
        """Make durable what was written, or as much of it as there was after so many operations."""
        if not self.doomed:
            done = max(0, (self.operations if operations is None else operations) - self.covered)
            del self.pending[:done]
            self.covered += done

    def fall(self, random: Random, *, reorders: bool = False) -> None:
        """Become what a power cut leaves."""
        for operation in reversed(self.pending):
            if isinstance(operation, _Write):
                self.cache[operation.offset : operation.offset + len(operation.data)] = operation.before
            else:
                self.cache += operation.lost
        survivors = self.pending[1:][-1:] if reorders else self._survivors(random)
        for number, operation in enumerate(survivors):
            if isinstance(operation, _Cut):
                del self.cache[operation.size :]
            else:
                torn = number == len(survivors) - 1 and not reorders
                data = _torn(random, operation.data, operation.before) if torn else operation.data
                self.cache += bytes(max(0, operation.offset - len(self.cache)))
                self.cache[operation.offset : operation.offset + len(data)] = data
        self.covered += len(self.pending)
        self.pending.clear()
        self.doomed = False

    def _survivors(self, random: Random) -> list[_Write | _Cut]:
        way = random.randrange(4)
        if way == 0:
            return []
        if way == 1:
            return list(self.pending)
        if way == 2:
            return self.pending[: random.randint(0, len(self.pending))]
        share = random.random()
        return [operation for operation in self.pending if random.random() < share]


def _torn(random: Random, data: bytes, before: bytes) -> bytes:
    """What may be left of a write that was on its way: a part of it; what did not make it are zeros, or what lay there."""
    nothing = bytes(len(data))
    if before.strip(b"\0") and random.random() < 0.5:
        nothing = before.ljust(len(data), b"\0")
    way = random.randrange(4)
    if way == 0:
        return data
    size = random.randint(0, len(data))
    if way == 1:
        return data[:size]
    if way == 2:
        return data[:size] + nothing[size:]
    whole = bytearray(data)
    for start in range(0, len(whole), SECTOR_BYTES):
        if random.random() < 0.5:
            whole[start : start + SECTOR_BYTES] = nothing[start : start + SECTOR_BYTES]
    return bytes(whole)


class FakeDisk:
    """The medium. It outlives the processes that use it, each through the view that ``boot`` gave it."""

    def __init__(self, random: Random, *, lying: bool = False) -> None:
        self.full = False
        self.fail_sync = False
        self.short = False
        self.lying = lying
        self.reorders = False
        self.flush_s: Callable[[], float] | None = None
        self.dies_in: int | None = None
        self.operations = 0
        """How many operations there were that change something."""
        self.syncs = 0
        self._random = random
        self._names: dict[str, _Content] = {}
        self._durable_names: dict[str, _Content] = {}
        self._epoch = 0
        self._capacity: int | None = None

    # -- life and death -------------------------------------------------------------------------------------------
    def boot(self) -> FakeView:
        """A view for a new process; those of earlier ones are fenced."""
        self.kill()
        return FakeView(self, self._epoch)

    def kill(self) -> None:
        """The process dies, its writes stay; but data that an fsync has failed for is not on the medium."""
        self._epoch += 1
        self.dies_in = None
        for content in self._names.values():
            if content.doomed:
                content.fall(self._random)

    def power_cut(self) -> None:
        """The machine dies: of what was not synced, chance decides."""
        self.kill()
        for name in sorted(self._names.keys() | self._durable_names.keys()):
            if self._random.random() < 0.5 and self._names.get(name) is not self._durable_names.get(name):
                self._settle(name)
        self._names = dict(sorted(self._durable_names.items()))
        for content in self._names.values():
            content.fall(self._random, reorders=self.reorders)

    # -- space ----------------------------------------------------------------------------------------------------
    @property
    def free(self) -> int:
        """Bytes that can still be written; may be set."""
        if self.full:
            return 0
        return UNLIMITED_BYTES if self._capacity is None else max(0, self._capacity - self._used())

    @free.setter
    def free(self, size: int) -> None:
        self._capacity = self._used() + size

    def _used(self) -> int:
        return sum(len(content.cache) for content in self._names.values())

    # -- for tests ------------------------------------------------------------------------------------------------
    def files(self) -> dict[str, bytes]:
        """What a process would see now."""
        return {name: bytes(content.cache) for name, content in sorted(self._names.items())}

    def put(self, name: str, data: bytes | None) -> None:
        """Change a file behind everybody's back, durably; None takes it away."""
        if data is None:
            self._names.pop(name, None)
        else:
            self._names[name] = _Content(data)
        self._settle(name)

    # -- what views and files call --------------------------------------------------------------------------------
    def check(self, epoch: int) -> None:
        """Fence the dead."""
        if epoch != self._epoch:
            raise Fenced("a dead process touched the disk")

    def step(self, epoch: int) -> bool:
        """Count an operation; True if the machine is to die within it."""
        self.check(epoch)
        self.operations += 1
        if self.dies_in is None:
            return False
        self.dies_in -= 1
        return self.dies_in <= 0

    def die(self) -> Died:
        """Fence everybody; the caller raises the result."""
        self._epoch += 1
        self.dies_in = None
        return Died()

    def chance(self) -> bool:
        """Heads or tails."""
        return self._random.random() < 0.5

    def content(self, name: str) -> _Content:
        """The file of that name as the process sees it."""
        try:
            return self._names[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None

    def names(self) -> list[str]:
        """The names as the process sees them."""
        return sorted(self._names)

    def write(self, content: _Content, offset: int, data: bytes, *, dying: bool) -> None:
        """Write into a file; without space for that, a part of it is written, and all from ``offset`` on is cut."""
        if dying:
            content.write(offset, data[: self._random.randint(0, len(data))])
            raise self.die()
        fits = 0 if self.full else len(content.cache) - offset + self.free
        if len(data) > fits:
            if fits:
                content.write(offset, data[:fits])
            if len(content.cache) > offset:
                content.cut(offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        content.write(offset, data)

    def open(self) -> None:
        """Take a file descriptor."""
        if self.short:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def living(self, epoch: int) -> bool:
        """Whether the process still runs."""
        return epoch == self._epoch

    def sync(self, content: _Content, operations: int | None = None) -> None:
        """Make a file's content durable, or as much of it as there was after so many operations."""
        self.syncs += 1
        if self.fail_sync:
            content.doomed = bool(content.pending)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if not self.lying:
            content.sync(operations)

    def link(self, name: str, content: _Content | None, *, dying: bool, durably: bool = True) -> None:
        """Let a name stand for a file, or for none: visible at once, durable after the sync of the directory."""
        stage = self._random.randrange(3) if dying else 2 if durably else 1
        if stage > 0:
            if content is None:
                self._names.pop(name, None)
            else:
                self._names[name] = content
        if stage > 1:
            self.sync_names()
        if dying:
            raise self.die()

    def sync_names(self) -> None:
        """Make every name durable."""
        self.syncs += 1
        if self.fail_sync:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if not self.lying:
            self._durable_names = dict(self._names)

    def _settle(self, name: str) -> None:
        if name in self._names:
            self._durable_names[name] = self._names[name]
        else:
            self._durable_names.pop(name, None)


class FakeView:
    """The disk as one process sees it: ``port.Disk``."""

    def __init__(self, disk: FakeDisk, epoch: int) -> None:
        self._disk = disk
        self._epoch = epoch
        self._failed = False
        self._set_aside: list[_Content] = []

    def lock(self) -> None:
        """Alone here by construction; what names the last process left are made durable, as on the real disk."""
        self._disk.check(self._epoch)
        self._disk.sync_names()

    def names(self) -> list[str]:
        """The files that exist, sorted."""
        self._disk.check(self._epoch)
        return self._disk.names()

    def read(self, name: str) -> bytes:
        """The whole content of a file."""
        self._disk.check(self._epoch)
        self._disk.open()
        return bytes(self._disk.content(name).cache)

    def read_at(self, name: str, offset: int, size_bytes: int) -> bytes:
        """See ``Disk``."""
        return self.read(name)[offset : offset + size_bytes]

    def write_atomically(self, name: str, data: bytes) -> None:
        """Replace a file."""
        self._write_and_name(name, data, _Content())

    def _write_and_name(self, name: str, data: bytes, content: _Content) -> None:
        dying = self._step()
        self._disk.open()
        self._disk.write(content, 0, data, dying=False)
        self._guarded_sync(content)
        self._link(name, content, dying=dying)

    def create(self, name: str, head: bytes) -> FakeFile:
        """Create a file that starts with ``head``, of a new one or of what was set aside."""
        assert name not in self._disk.names(), f"{name} exists"
        self._write_and_name(name, head, self._set_aside.pop() if self._set_aside else _Content())
        return FakeFile(self._disk, self._epoch, self._disk.content(name), len(head))

    def open(self, name: str) -> FakeFile:
        """Open a file for appending."""
        self._disk.check(self._epoch)
        self._disk.open()
        return FakeFile(self._disk, self._epoch, self._disk.content(name))

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        self._link(name, None, dying=self._step())

    def set_aside(self, name: str) -> None:
        """Remove a file, of which a later ``create`` may make another."""
        dying = self._step()
        content = self._disk.content(name)
        if len(self._set_aside) < SET_ASIDE_MAX:
            self._set_aside.append(content)
        self._disk.link(name, None, dying=dying, durably=False)

    def free_bytes(self, wanted_bytes: int = 0) -> int:
        """Space left."""
        self._disk.check(self._epoch)
        return self._disk.free

    def _step(self) -> bool:
        dying = self._disk.step(self._epoch)
        if self._failed:
            raise OSError(errno.EIO, "an earlier fsync failed for good")
        return dying

    def _guarded_sync(self, content: _Content) -> None:
        try:
            self._disk.sync(content)
        except OSError:
            self._failed = True
            raise

    def _link(self, name: str, content: _Content | None, *, dying: bool) -> None:
        try:
            self._disk.link(name, content, dying=dying)
        except OSError:
            self._failed = True
            raise


class FakeFile:
    """An open file of one process: ``port.LogFile``."""

    def __init__(self, disk: FakeDisk, epoch: int, content: _Content, size: int | None = None) -> None:
        self._disk = disk
        self._epoch = epoch
        self._content = content
        self._size = len(content.cache) if size is None else size
        self._failed = False
        self._closed = False
        self._flush: Callable[[], None] | None = None
        """What ends the flush that is under way."""

    @property
    def size(self) -> int:
        """Bytes written, synced or not."""
        self._disk.check(self._epoch)
        return self._size

    def append(self, data: bytes, room_bytes: int = 0) -> None:
        """Write at the end."""
        dying = self._step()
        if room_bytes and self._size + len(data) > len(self._content.cache):
            zeros = bytes(len(data) + room_bytes)
            self._disk.write(self._content, self._size, zeros, dying=dying and self._disk.chance())
        self._disk.write(self._content, self._size, data, dying=dying)
        self._size += len(data)

    def sync(self) -> None:
        """Make everything durable."""
        if self._flush is not None:
            self._flush()
        dying = self._step()
        if dying and self._disk.chance():
            raise self._disk.die()
        self._sync()
        if dying:
            raise self._disk.die()

    def _sync(self, operations: int | None = None) -> None:
        try:
            self._disk.sync(self._content, operations)
        except OSError:
            self._failed = True
            raise

    def sync_soon(self, ended: Callable[[OSError | None], None]) -> bool:
        """Begin to make everything durable."""
        if self._disk.flush_s is None or self._flush is not None:
            return False
        if self._step():
            raise self._disk.die()
        operations = self._content.operations

        def end() -> None:
            timer.cancel()
            self._flush = None
            if not self._disk.living(self._epoch):
                return
            try:
                self._sync(operations)
            except OSError as error:
                ended(error)
            else:
                ended(None)

        self._flush = end
        timer = asyncio.get_running_loop().call_later(self._disk.flush_s(), end)
        return True

    def truncate(self, size: int) -> None:
        """Cut the file."""
        dying = self._step()
        assert size <= self._size
        if not (dying and self._disk.chance()):
            self._content.cut(size)
            self._size = size
        if dying:
            raise self._disk.die()

    def close(self) -> None:
        """Let go of it."""
        self._closed = True

    def _step(self) -> bool:
        assert not self._closed, "a closed file was used"
        dying = self._disk.step(self._epoch)
        if self._failed:
            raise OSError(errno.EIO, "an earlier fsync failed for good")
        return dying
