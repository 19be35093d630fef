"""quorl: topics and tasks on one replicated log.

``from quorl import App, Client, AsyncClient, MyQueue`` works; the names load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorl.client import (
        NO_CONTEXT,
        App,
        AsyncClient,
        Client,
        Context,
        MyQueue,
        NoRetry,
        NotFinished,
        OutcomeUnknown,
        QuorlError,
        Rejected,
        Retry,
        TaskClient,
        TaskFailed,
        TaskWorker,
        Unavailable,
        Worker,
        myQueue,
    )

__version__ = "0.1.0"
__all__ = [
    "NO_CONTEXT",
    "App",
    "AsyncClient",
    "Client",
    "Context",
    "MyQueue",
    "NoRetry",
    "NotFinished",
    "OutcomeUnknown",
    "QuorlError",
    "Rejected",
    "Retry",
    "TaskClient",
    "TaskFailed",
    "TaskWorker",
    "Unavailable",
    "Worker",
    "__version__",
    "myQueue",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from quorl import client

    return getattr(client, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
