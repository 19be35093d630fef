"""Tasks to try a cluster with: ``quorl worker run quorl.demo:app``, then ``quorl task submit demo.add 4 5 --wait``.

Each is there under two names: ``demo.add``, and ``add``, as the founding systems called theirs. Their arguments may be texts, as
those systems sent them; one that is no number fails, as it should.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypeAlias

from quorl.client.app import App
from quorl.client.context import NO_CONTEXT, Context

Number: TypeAlias = int | float

app = App()
_dice = random.SystemRandom()


def _demo(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a task of a function under both of its names."""
    app.task(name=function.__name__)(function)
    made: Callable[..., Any] = app.task(name=f"demo.{function.__name__}")(function)
    return made


def number(value: Any) -> Number:
    """Return a number, or what a text says if it is one."""
    if isinstance(value, str):
        return float(value) if any(char in value for char in ".eEnN") and _is_float(value) else int(value)
    if isinstance(value, (int, float)):
        return value
    raise TypeError(f"{value!r} is no number")


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@_demo
def add(x: Any, y: Any) -> Number:
    """Return x + y."""
    return number(x) + number(y)


@_demo
def subtract(x: Any, y: Any) -> Number:
    """Return x - y."""
    return number(x) - number(y)


@_demo
def multiply(x: Any, y: Any) -> Number:
    """Return x times y."""
    return number(x) * number(y)


@_demo
def divide(x: Any, y: Any) -> Number:
    """Return x divided by y; by 0 it fails."""
    return number(x) / number(y)


@_demo
async def sleep(seconds: Any = 1) -> Number:
    """Do nothing for a while, and return for how long."""
    pause_s = number(seconds)
    await asyncio.sleep(pause_s)
    return pause_s


@_demo
def flaky(chance: Any = 0.5, ctx: Context = NO_CONTEXT) -> str:
    """Fail with this chance, and else say which attempt it was."""
    if _dice.random() < number(chance):
        raise RuntimeError(f"unlucky in attempt {ctx.attempt}")
    return f"lucky in attempt {ctx.attempt}"
