"""A flush beside the loop: the kernel writes while the process goes on, and tells through a descriptor when it is done.

This is Linux's asynchronous I/O (``io_submit(2)``) with its operation for fdatasync, which does the same as the call does, on
every file system, in a thread of the kernel's. A thread of Python's would need the interpreter's lock in the very moment
when the loop is busiest. Where the kernel has no such thing, or a sandbox forbids it, ``begin`` says so.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable

_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""The numbers of io_setup, io_destroy, io_getevents and io_submit."""
_FDSYNC = 3
_TELL_DESCRIPTOR = 1
"""Linux's ``IOCB_CMD_FDSYNC``, and ``IOCB_FLAG_RESFD``: tell an eventfd of the end."""
_EVENT = struct.Struct("=QQqq")
"""What an operation came to: data, address of the operation, result or negated errno, and a second result."""


class _Operation(ctypes.Structure):
    """The kernel's ``struct iocb``, as it is on a little-endian machine."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("tells", ctypes.c_uint32),
    )


class Flusher:
    """One flush at a time, on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises ``OSError`` where the system has no such flushes."""
        machine = platform.machine()
        if sys.platform != "linux" or machine not in _CALLS or sys.maxsize < 2**32:
            raise OSError(errno.ENOSYS, f"no asynchronous flushes are known of {sys.platform} on {machine}")
        self._setup, self._destroy, self._getevents, self._submit = _CALLS[machine]
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        context = ctypes.c_ulong(0)
        self._call(self._setup, ctypes.c_long(1), ctypes.byref(context))
        self._context = context
        try:
            self._tells = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            self._call(self._destroy, context)
            raise
        self._operation = _Operation(opcode=_FDSYNC, flags=_TELL_DESCRIPTOR, tells=self._tells)
        self._operations = (ctypes.POINTER(_Operation) * 1)(ctypes.pointer(self._operation))
        self._event = ctypes.create_string_buffer(_EVENT.size)
        self._ended: Callable[[OSError | None], None] | None = None
        self._loop = loop
        loop.add_reader(self._tells, self._told)

    def _call(self, number: int, *arguments: object) -> int:
        """Call the kernel; raises ``OSError`` for what it refuses."""
        result: int = self._syscall(ctypes.c_long(number), *arguments)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    @property
    def busy(self) -> bool:
        """Whether a flush is under way."""
        return self._ended is not None

    def begin(self, descriptor: int, ended: Callable[[OSError | None], None]) -> bool:
        """Begin to make durable what was written through a descriptor; ``ended`` is called once, with the error if there was one.

        False, and it is not called: another flush is under way, or the kernel takes none.
        """
        if self._ended is not None:
            return False
        self._operation.descriptor = descriptor
        try:
            self._call(self._submit, self._context, ctypes.c_long(1), self._operations)
        except OSError:
            return False
        self._ended = ended
        return True

    def wait(self) -> None:
        """Block until nothing is under way; who waits for the flush is told meanwhile."""
        while self._ended is not None:
            self._reap(least=1)

    def close(self) -> None:
        """Let go of the kernel's part, once what is under way has ended; nobody is told of that."""
        self._ended = None
        self._loop.remove_reader(self._tells)
        self._call(self._destroy, self._context)
        os.close(self._tells)

    def _told(self) -> None:
        try:
            os.eventfd_read(self._tells)
        except BlockingIOError:  # it was waited for
            return
        if self._ended is not None:
            self._reap(least=0)

    def _reap(self, least: int) -> None:
        try:
            found = self._call(
                self._getevents,
                self._context,
                ctypes.c_long(least),
                ctypes.c_long(1),
                self._event,
                ctypes.c_void_p(None),
            )
        except InterruptedError:
            return
        if found:
            result = _EVENT.unpack(self._event.raw)[2]
            ended, self._ended = self._ended, None
            assert ended is not None
            ended(None if result == 0 else OSError(-result, os.strerror(-result)))
