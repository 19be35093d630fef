"""Locks for what a signal handler may interrupt by an exception, as Ctrl-C does.

``with`` has the lock at its end or never had it: entering and leaving are each one step for a handler. Of Python's own locks
that is not so in Python 3.14, where a handler may come between the step that takes the lock and the block that gives it
back, and no thread ever gets the lock again.
"""

from __future__ import annotations

import _thread
import contextlib

from typing_extensions import override


class Lock(_thread.RLock):  # type: ignore[misc]
    """A lock that the thread which has it may take again.

    Leaving is the one of its base, as that is a single step; a function of ours could be interrupted before it begins.
    """

    @override
    def __enter__(self) -> bool:  # type: ignore[override]
        """Take the lock. After this returns no handler comes until the block has begun."""
        try:
            return self.acquire()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # it was interrupted while it waited
                self.release()
            raise
