"""What a forked process may not go on with: locks that another thread of its parent held, and what that thread was doing.

Only the thread that forks lives on in the child. So whoever keeps such things here begins with new ones there.
A module that another thread was loading would never be loaded in the child, so forks wait for what is loaded here late.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod

from quorl.client.locks import Lock

_kept: weakref.WeakSet[Renewed] = weakref.WeakSet()

loading = Lock()
"""Held while a module is loaded in the middle of a call: a fork waits for that."""


class Renewed(ABC):
    """Something with locks or connections, of which a child gets its own."""

    def __init__(self) -> None:
        self._renew()
        _kept.add(self)

    @abstractmethod
    def _renew(self) -> None:
        """Begin without locks that are held and connections that are shared. Called at first, and in every child."""


def _renew_all() -> None:
    for one in list(_kept):
        one._renew()  # noqa: SLF001 - its own


os.register_at_fork(before=loading.acquire, after_in_parent=loading.release, after_in_child=loading.release)
os.register_at_fork(after_in_child=_renew_all)
