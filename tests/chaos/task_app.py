"""Tasks for ``quorl worker run``, which note their runs as ``tests.chaos.task_worker`` does, before anything else happens."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from quorl import App, Context
from tests.chaos.task_worker import Notes

notes = Notes(Path(os.environ["NOTES"]))
notes.write("loaded", pid=os.getpid())
app = App()


@app.task(name="square")
async def square(number: int, seconds: float, failures: int, ctx: Context) -> int:
    """Fail that often before giving the number's square."""
    notes.write("started", task=ctx.task_id, token=ctx.token)
    await asyncio.sleep(seconds)
    if ctx.attempt <= failures:
        notes.write("ended", task=ctx.task_id, token=ctx.token, what="FailTask")
        raise RuntimeError(f"attempt {ctx.attempt} of {ctx.task_id}")
    notes.write("ended", task=ctx.task_id, token=ctx.token, what="CompleteTask")
    return number**2


@app.task(name="burn")
def burn(seconds: float) -> int:
    """Keep the interpreter busy for so long without a pause, and return the rounds."""
    rounds, end_s = 0, time.monotonic() + seconds
    while time.monotonic() < end_s:
        rounds += sum(range(1_000)) > 0
    return rounds
