"""The one import of pysyncobj: pinned, checked, and made to take its clock, dice and log store from us.

The library is mended from outside, by overriding names that it does not promise to keep. So exactly one release is
accepted, and ``changed_sources`` compares the files that the repairs rely on with what they were written against.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from typing import Any, Protocol, Self

import pysyncobj.config
import pysyncobj.node
import pysyncobj.transport
from pysyncobj import syncobj

VERSION = "0.3.17"
SOURCES_SHA256 = {
    "config": "fbbc7ff9f18e4d15a7fd563376e42f5bd192956879d4b810b056d5248b955698",
    "node": "e4a3f027cd8291f558334bb9c977e952f6b6989e7e1fa1588d3005ef0b990e2c",
    "syncobj": "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4",
    "transport": "0c9d89f9c4781ec9772df8011d7975a1a4a1a5f541357e12eae85a813e92b50b",
}

REGULAR = b"\x00"
"""First byte of a log command that carries a payload of ours."""
NO_OP = b"\x01"
"""A log command that carries nothing: the first entry of every leader, and the sentinel with which every log begins, so that it
is never empty."""

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
"""The library's numbers for what a member is."""

SyncObj = syncobj.SyncObj
SyncObjConf = pysyncobj.config.SyncObjConf
Transport = pysyncobj.transport.Transport


class _Time(Protocol):
    def monotonic(self) -> float: ...


class _Dice(Protocol):
    def random(self) -> float: ...


class Member(int, pysyncobj.node.Node):  # type: ignore[misc]
    """A member as the library knows it: its name, read as one number.

    Members are hashed and compared some fifty times for every entry; as numbers they are so without a call, and sets of
    them iterate alike in every process.
    """

    def __new__(cls, name: str) -> Self:
        """The member of that name, which is not empty."""
        return super().__new__(cls, int.from_bytes(name.encode(), "big"))

    def __init__(self, name: str) -> None:
        pysyncobj.node.Node.__init__(self, name)

    __hash__ = int.__hash__
    __eq__ = int.__eq__
    __ne__ = int.__ne__


class NoPoller:
    """Stands where the library polls sockets of its own; ours belong to the event loop."""

    def poll(self, _timeout: float) -> None:
        """Find nothing."""


def changed_sources() -> list[str]:
    """The modules of the installed library that differ from those the repairs were written against."""
    return [
        name
        for name, expected in SOURCES_SHA256.items()
        if hashlib.sha256(inspect.getsource(getattr(pysyncobj, name)).encode()).hexdigest() != expected
    ]


def use(clock: _Time, dice: _Dice) -> None:
    """Give the library its time and its dice; both are globals of its module, so they hold for the whole process."""
    found = importlib.metadata.version("pysyncobj")
    if found != VERSION:
        message = f"pysyncobj {found} is installed, but only {VERSION} is known to be mended: pip install pysyncobj=={VERSION}"
        raise RuntimeError(message)
    syncobj.monotonicTime = clock.monotonic
    syncobj.random = dice
    syncobj.createJournal = _given_store


def _given_store(store: Any) -> Any:
    # The configuration's journalFile is handed to this factory as it is: we put our log store there.
    assert store is not None, "the engine is always given a log store"
    return store
