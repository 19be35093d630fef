"""Ports on this machine: which are free, and which process holds one that is not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path

_LISTENS = "0A"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def taken(ports: Iterable[int]) -> int | None:
    """The first of the ports on which nobody can listen; None if all are free."""
    for port in ports:
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return port
    return None


def holder(port: int) -> str:
    """Who listens on a port, in words, as far as this system tells."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    for folder in Path("/proc").glob("[0-9]*") if sockets else ():
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            for descriptor in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in sockets:
                        name = (folder / "comm").read_text(encoding="utf-8").strip()
                        return f"process {folder.name} ({name})"
    return "another process"


def _inodes(port: int) -> Iterable[str]:
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                    yield words[9]
