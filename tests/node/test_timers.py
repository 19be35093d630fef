"""What is due at once, on loops whose timers then are none: c8, d15."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from quorl.cluster.api.metered import LoopLag
from quorl.cluster.machine.machine import Applied
from quorl.cluster.node.committer import Committer
from quorl.cluster.node.forwarding import Leading
from quorl.cluster.node.gathering import Gathering, Undelivered
from quorl.cluster.node.meters import Meters
from quorl.cluster.node.timekeeper import Stamp
from quorl.cluster.protocol.entry import Entry, SignOfLife, decode_entry
from tests.node.fakecore import Cluster


class Log:
    """Keeps entries, and applies them when it is told to."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.under_way: asyncio.Future[Applied]

    def propose(self, payload: bytes) -> asyncio.Future[Applied]:
        self.entries.append(decode_entry(payload))
        self.under_way = asyncio.get_running_loop().create_future()
        return self.under_way

    def announce(self) -> None:
        pass


async def test_c8_heartbeats_whose_time_is_over_may_be_followed_by_others() -> None:
    core = Cluster().core("n1")
    gathering = Gathering(core, cast("Leading", None))
    late = [asyncio.ensure_future(gathering.deliver(SignOfLife(worker), 1000, core.monotonic())) for worker in (1, 2)]
    assert {type(end) for end in await asyncio.gather(*late, return_exceptions=True)} == {Undelivered}
    await gathering.close()


@pytest.mark.parametrize("within_s", [0.0, 0.0001])
async def test_c8_signs_of_life_that_leave_at_once_may_be_followed_by_others(within_s: float) -> None:
    log = Log()
    committer = Committer(log, lambda: Stamp(1, 1), lambda _: 1)
    committer.lead()
    for worker_id in (1, 2, 3):
        committer.note(SignOfLife(worker_id), within_s)
    async with asyncio.timeout(5):
        while not log.entries:
            await asyncio.sleep(0)
    assert [sign.worker_id for sign in log.entries[0].signs] == [1, 2, 3]


async def test_d15_how_long_an_entry_took_is_not_told_by_the_loops_clock() -> None:
    log, meters, now_s = Log(), Meters(), iter([10.0, 10.0004])
    committer = Committer(log, lambda: Stamp(1, 1), lambda _: 1, monotonic=lambda: next(now_s), meters=meters)
    committer.lead()
    barrier = committer.barrier()
    await asyncio.sleep(0)
    log.under_way.set_result(Applied(1, [], []))
    await barrier
    assert meters.entry_s.sum_s == pytest.approx(0.0004)


async def test_d15_how_late_the_loop_comes_is_told_by_a_fine_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorl.cluster.api.metered.time", SimpleNamespace(monotonic=iter([1.0, 1.25025, 2.0]).__next__))
    lag = LoopLag()
    lag._timer.cancel()
    lag._look(1.25)
    lag.close()
    assert lag.take() == pytest.approx(0.00025)
