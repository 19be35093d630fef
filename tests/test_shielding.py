"""Whoever waits may go away; what he waited for goes on, and its failure is nobody's error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorl.shielding import shield


async def test_it_ends_as_the_other_one_does() -> None:
    loop = asyncio.get_running_loop()
    fine, bad, gone = loop.create_future(), loop.create_future(), loop.create_future()
    waits = [asyncio.ensure_future(shield(one)) for one in (fine, bad, gone)]
    fine.set_result(1)
    bad.set_exception(ValueError("bad"))
    gone.cancel()
    assert await waits[0] == 1
    with pytest.raises(ValueError, match="bad"):
        await waits[1]
    with pytest.raises(asyncio.CancelledError):
        await waits[2]
    assert await shield(fine) == 1


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("outcome", ["result", "failure", "end"])
async def test_who_goes_away_ends_nothing_and_is_told_of_nothing(at_once: bool, outcome: str) -> None:
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    future: asyncio.Future[int] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # its maker sees to it
    wait = shield(future)
    wait.cancel()
    if not at_once:
        await asyncio.sleep(0)
    assert not future.done()
    match outcome:
        case "result":
            future.set_result(1)
        case "failure":
            future.set_exception(ValueError("bad"))
        case _:
            future.cancel()
    await asyncio.wait([future])
    await asyncio.sleep(0)
    assert wait.cancelled()
    assert told == []
