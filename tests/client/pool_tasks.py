"""Handlers that can run in other processes."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from quorl.client import NO_CONTEXT, App, Context, Retry

app = App()


@app.task(name="where")
def where(ctx: Context = NO_CONTEXT) -> dict[str, Any]:
    ctx.progress(50, "half")
    ctx.save([ctx.attempt])
    return {"pid": os.getpid(), "token": ctx.token, "task": ctx.task_id}


@app.task(name="bad")
def bad(text: str) -> int:
    return int(text)


@app.task(name="again")
def again(ctx: Context = NO_CONTEXT) -> None:
    raise Retry(in_=2.0)


@app.task(name="die")
def die() -> None:
    os._exit(7)


@app.task(name="deaf")
def deaf() -> None:
    while True:
        time.monotonic()


@app.task(name="listen")
def listen(ctx: Context = NO_CONTEXT) -> None:
    ctx.progress(1, "listening")
    while not ctx.wait(10):
        pass
    ctx.check()


@app.task(name="on_loop")
async def on_loop() -> int:
    return os.getpid()


@app.task(name="fork")
def fork(code: int | None) -> Any:
    """Come back twice, or end the copy as programs do; what the copy ended with comes from the other one."""
    child = os.fork()
    if not child:
        if code is None:
            return "copy"
        sys.exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@app.task(name="fork_and_fail")
def fork_and_fail() -> Any:
    child = os.fork()
    if not child:
        raise ValueError("of the copy")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@app.task(name="fork_on_loop")
async def fork_on_loop() -> Any:
    return fork.function(None)
