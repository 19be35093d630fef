"""Handlers that can run in other processes."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from types import FrameType
from typing import Any

import quorl.client as package
from quorl.client import NO_CONTEXT, App, Context, NoRetry, Retry

OURS = package.__path__[0]
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


class CardRefused(NoRetry):
    """Of a shop's own."""


@app.task(name="refuse")
def refuse() -> None:
    try:
        raise ConnectionError("the bank says 402")
    except ConnectionError as error:
        raise CardRefused("no money") from error


@app.task(name="refuse_on_loop")
async def refuse_on_loop() -> None:
    refuse()


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


@app.task(name="interrupt")
def interrupt(ctx: Context = NO_CONTEXT) -> int:
    """Be interrupted while it says how far it is, at each place in turn, by what says so too and then raises."""
    for place in itertools.count():
        if not interrupted_at(place, ctx):
            return place
    raise AssertionError


def interrupted_at(place: int, ctx: Context) -> bool:
    """Say how far it is, and be interrupted at that place, where signal handlers run; returns whether it came so far."""
    counter = itertools.count()

    def look(frame: FrameType, event: str, _argument: object) -> None:
        ours = event in ("call", "c_return") and frame.f_code.co_filename.startswith(OURS)
        if ours and next(counter) == place:
            sys.setprofile(None)
            ctx.progress(place, "from the signal handler")
            raise InterruptedError

    try:
        sys.setprofile(look)
        ctx.progress(place, "as ever")
    except InterruptedError:
        return True
    finally:
        sys.setprofile(None)
    return False


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


def without_threads() -> None:
    """Let the system give this process no thread any more."""

    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threading.Thread.start = none  # type: ignore[assignment, method-assign]
