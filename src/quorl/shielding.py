"""Waiting for what goes on when the one who waits goes away.

``asyncio.shield`` does that too, but from Python 3.14 on it tells the loop's exception handler of every failure that comes after
that, as an error. Here whoever made the future sees to that, as he does where nobody has waited.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


def shield(future: asyncio.Future[T]) -> asyncio.Future[T]:
    """Return a future that ends as the other one does, and whose cancellation is none of the other one."""
    if future.done():
        return future
    outer: asyncio.Future[T] = future.get_loop().create_future()

    def pass_on(ended: asyncio.Future[T]) -> None:
        if outer.cancelled():  # in this same turn of the loop
            return
        if ended.cancelled():
            outer.cancel()
        elif (error := ended.exception()) is not None:
            outer.set_exception(error)
        else:
            outer.set_result(ended.result())

    future.add_done_callback(pass_on)
    outer.add_done_callback(lambda _: future.remove_done_callback(pass_on))
    return outer
