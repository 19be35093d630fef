"""What a handler learns and says while it runs: ``Context``, and the ways to end other than by a result.

A handler gets its context in a parameter that is annotated ``Context`` or named ``ctx``. With ``= NO_CONTEXT`` as its
default the function can still be called as a plain function, and callers of ``delay`` need not pass it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from typing_extensions import override

from quorl.client.errors import invalid
from quorl.client.tasking import raw
from quorl.cluster.protocol import limits


class Retry(Exception):
    """Raise it to fail this attempt and say when the next is to be: after ``in_`` seconds, or after the usual back-off.

    It counts as an attempt; the last one is the last.
    """

    def __init__(self, in_: float | None = None, reason: str = "the handler asked for another attempt") -> None:
        super().__init__(in_, reason)
        self.in_ = in_
        """Seconds; None: as the back-off says."""
        self.reason = reason
        """What the history of the task says."""

    @override
    def __str__(self) -> str:
        return self.reason


class NoRetry(Exception):
    """Raise it, or an exception of your own that is one, to fail the task now: another attempt would not help.

    ``raise NoRetry("the card was refused") from error`` has what led to it in the task's history too.
    """


class Stopped(Exception):
    """Raised by ``Context.check``: the task was cancelled, or its lease is gone, and the handler is to end."""


class Reporter(Protocol):
    """Takes what a handler says on the way."""

    def progress(self, percent: float | None, note: str) -> None:
        """Note how far the task has come."""

    def checkpoint(self, value: bytes) -> None:
        """Keep a JSON value for the next attempt."""


class Context:
    """The running task, as its handler sees it. All of it may be used from any thread."""

    _told: threading.Event | None = None
    """Set when the handler is to end; there is none before somebody waits."""

    def __init__(
        self,
        *,
        task_id: str = "",
        name: str = "",
        queue: str = "",
        attempt: int = 1,
        max_attempts: int = 1,
        token: int = 0,
        checkpoint: Any = None,
        meta: Mapping[str, str] | None = None,
        reporter: Reporter | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> None:
        self.task_id = task_id
        """Of the task; the same in each attempt, so a key for what must happen once."""
        self.name = name
        """What the task is called."""
        self.queue = queue
        """Where it was submitted."""
        self.attempt = attempt
        """1 for the first run."""
        self.max_attempts = max_attempts
        """How many there may be."""
        self.token = token
        """The fencing token: greater than that of every lease before it, in the whole cluster."""
        self.checkpoint = checkpoint
        """What an attempt before this one saved last; None if none did."""
        self.meta: dict[str, str] = dict(meta or {})
        """What its submit has to say to the handler."""
        self.traceparent = traceparent
        """The span that submitted the task (W3C Trace Context); None if there was none."""
        self.tracestate = tracestate
        """What came with it; None if nothing did."""
        self._reporter = reporter
        self._stopped = False

    @property
    def cancelled(self) -> bool:
        """Whether the handler is to end: somebody cancelled the task, its time is over, or its lease is gone."""
        return self._stopped

    def check(self) -> None:
        """Raise ``Stopped`` if the handler is to end."""
        if self._stopped:
            raise Stopped(f"task {self.task_id} is to stop")

    def wait(self, seconds: float) -> bool:
        """Do nothing for so many seconds, or until the handler is to end; says which. For plain functions."""
        # Made for who waits, for hardly anybody does: an event costs as much as the rest of a context. Whoever stops the
        # handler says so first and looks for the event then, so that one of both is seen here.
        told: threading.Event = vars(self).setdefault("_told", threading.Event())
        return self._stopped or told.wait(seconds)

    def progress(self, percent: float | None = None, note: str = "") -> None:
        """Say how far the task has come, 0 to 100, and perhaps what it is doing. Costs nothing: the last word travels."""
        if percent is not None and not 0 <= percent <= 100:
            raise ValueError(f"progress is 0 to 100, not {percent}")
        if self._reporter is not None:
            self._reporter.progress(percent, note[: limits.NOTE_CHARS_MAX])

    def save(self, value: Any) -> None:
        """Keep a JSON value: the next attempt finds it in ``checkpoint``, should this one be lost or fail.

        It travels with the next call, about half a second later at most; raises ``Invalid`` if it has no JSON form,
        or more than 64 KiB.
        """
        kept = bytes(raw(value, "/checkpoint"))
        if len(kept) > limits.CHECKPOINT_BYTES_MAX:
            said = f"the checkpoint has {len(kept)} bytes as JSON; {limits.CHECKPOINT_BYTES_MAX} are allowed"
            raise invalid(said, "Store large data elsewhere and save where.", "/checkpoint")
        if self._reporter is not None:
            self._reporter.checkpoint(kept)

    def stop(self) -> None:
        """Tell the handler to end; the worker does that."""
        self._stopped = True
        if self._told is not None:
            self._told.set()


NO_CONTEXT = Context()
"""A context of no task: it hears everything and says nothing."""
