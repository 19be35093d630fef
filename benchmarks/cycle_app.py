"""The task of ``task-cycle-app``, for ``quorl worker run benchmarks.cycle_app:app``; it does nothing and says when."""

from __future__ import annotations

import time

from quorl import App

app = App()


@app.task(name="nothing")
def nothing(payload: object) -> float:  # noqa: ARG001 - only its way matters
    """The moment in which it began."""
    return time.time()
