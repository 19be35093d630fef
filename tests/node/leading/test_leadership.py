"""What a leader does by itself: it begins, refreshes, sees to what is due, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from typing import Any

import pytest

from quorl.cluster.consensus.port import Glance, NotApplied
from quorl.cluster.consensus.replica import TICK_S
from quorl.cluster.machine.machine import Applied, Machine
from quorl.cluster.node.leadership import Footing, Leadership
from quorl.cluster.node.timekeeper import Timekeeper
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import Entry, Sealed, SignOfLife, decode_entry, encode_command
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.leases import Claim
from quorl.cluster.protocol.submitting import NewTask, Submit
from quorl.cluster.protocol.tasks import CancelTask
from quorl.cluster.protocol.workers import RegisterWorker
from tests.node.toystate import passing, turns

WALL_MS = 1_700_000_000_000


class Member:
    """One node over a log that commits at once; ``leads`` and ``term`` are what the test says."""

    def __init__(self) -> None:
        self.machine = Machine(sqlite3.connect(":memory:", isolation_level=None))
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.entries: list[Entry] = []
        self.waited = False
        self.term, self.leads, self.quorum = 1, True, True
        footing = Footing(
            "n1", self, random.Random(1), lambda: "made", self, self.glance, lambda: self.machine, lambda _: self.term
        )
        self.lead = Leadership(footing, Timekeeper(self))

    def monotonic(self) -> float:
        return self.loop.time()

    def wall_ms(self) -> int:
        return WALL_MS + int(1000 * (self.loop.time() - self.began))

    def glance(self) -> Glance:
        fresh = self.leads and self.quorum
        return Glance(self.leads, self.term, "n1", fresh, self.machine.position.index)

    def propose(self, payload: bytes) -> asyncio.Future[Applied]:
        self.entries.append(decode_entry(payload))
        applied = self.machine.apply(self.machine.position.index + 1, self.term, payload)
        self.lead.applied(applied.events)
        future: asyncio.Future[Applied] = self.loop.create_future()
        future.set_result(applied)
        return future

    def announce(self) -> None:
        """Nobody listens."""

    async def live(self, seconds: float, *, stopping: bool = False) -> None:
        """Tick as a replica does, for so long."""
        for _ in range(max(1, round(seconds / TICK_S))):
            self.lead.look(self.glance(), stopping=stopping)
            await turns()
            await passing(TICK_S)

    async def do(self, command: Command[Any]) -> Any:
        return (await self.lead.submit(Sealed(None, b"", encode_command(command))))[0].value


async def test_a_new_cluster_is_founded_and_then_at_rest() -> None:
    member = Member()
    await member.live(5.0)
    assert member.machine.cluster_id == "made"
    assert len(member.entries) == 1
    assert (member.entries[0].node, member.entries[0].refresh) == ("n1", True)
    assert 0 < member.entries[0].seed < 2**63


async def test_a_new_leader_refreshes_every_worker_at_once_and_silence_counts_from_there() -> None:
    member = Member()
    await member.live(0.1)
    await member.do(RegisterWorker(name="w", heartbeat_ms=500, dead_after_ms=1_000))
    await member.live(0.9)
    member.leads = False
    await member.live(60.0)  # time in which nobody leads is no silence
    entries = len(member.entries)
    member.leads, member.term = True, 2
    await member.live(0.1)
    assert [entry.refresh for entry in member.entries[entries:]] == [True]
    await member.live(0.8)
    assert member.lead.parking._sight.worker(1).alive  # type: ignore[union-attr]
    await member.live(0.3)
    assert not member.lead.parking._sight.worker(1).alive  # type: ignore[union-attr]


async def test_what_is_due_gets_an_entry_when_its_moment_has_come() -> None:
    member = Member()
    await member.live(0.1)
    await member.do(Submit(queue="q", tasks=[NewTask(name="x", delay_ms=2_000)]))
    run_at = "2023-11-14T22:13:25.000Z"  # five seconds after the beginning
    await member.do(Submit(queue="q", tasks=[NewTask(name="x", run_at=run_at)]))
    entries = len(member.entries)
    await member.live(1.8)
    assert (len(member.entries) - entries, member.machine.outlook("q").claimable) == (1, 0)  # one says how late it is
    await member.live(0.3)
    assert (len(member.entries) - entries, member.machine.outlook("q").claimable) == (2, 1)
    entries = len(member.entries)
    await member.live(4.0)
    assert (len(member.entries) - entries >= 1, member.machine.outlook("q").claimable) == (True, 2)


async def test_what_waits_loses_little_of_its_wait_when_the_lead_changes() -> None:
    member = Member()
    await member.live(0.1)
    await member.do(Submit(queue="q", tasks=[NewTask(name="x", delay_ms=16_000)]))
    await member.live(9.0)
    member.leads = False
    await member.live(60.0)
    member.leads, member.term = True, 2
    await member.live(6.5)
    assert member.machine.outlook("q").claimable == 0
    await member.live(2.0)
    assert member.machine.outlook("q").claimable == 1


async def test_what_is_due_in_a_week_keeps_nobody_busy() -> None:
    member = Member()
    await member.live(0.1)
    await member.do(Submit(queue="q", tasks=[NewTask(name="x", delay_ms=7 * 24 * 3600 * 1000)]))
    entries = len(member.entries)
    await member.live(60.0)
    assert len(member.entries) == entries


async def test_time_goes_on_in_steps_while_tasks_wait_and_nobody_takes_them() -> None:
    member = Member()
    await member.live(0.1)
    await member.do(Submit(queue="q", tasks=[NewTask(name="x")]))
    entries, since_ms = len(member.entries), member.machine.now_ms
    await member.live(9.5)
    assert len(member.entries) == entries
    await member.live(51.5)
    assert len(member.entries) in range(entries + 5, entries + 7)
    assert 50_000 <= member.machine.now_ms - since_ms <= 61_000
    assert all(not entry.commands for entry in member.entries[entries:])
    entries = len(member.entries)
    member.leads = False
    await member.live(60.0)
    assert len(member.entries) == entries


async def test_a_cluster_in_which_nothing_waits_any_more_makes_no_entries_and_is_looked_at_once() -> None:
    member = Member()
    await member.live(0.1)
    (task,) = (await member.do(Submit(queue="q", tasks=[NewTask(name="x")]))).items
    await member.do(CancelTask(id=task.id))
    entries, looks, waits = len(member.entries), 0, member.machine.waits

    def counted() -> bool:
        nonlocal looks
        looks += 1
        return waits()

    member.machine.waits = counted  # type: ignore[method-assign]
    await member.live(60.0)
    assert (len(member.entries), looks) == (entries, 1)


async def test_nothing_is_due_while_the_majority_does_not_answer() -> None:
    """Cluster time stands still then: a worker whose heartbeats cannot get through is not silent."""
    member = Member()
    await member.live(0.1)
    await member.do(RegisterWorker(name="w", heartbeat_ms=500, dead_after_ms=1_000))
    entries = len(member.entries)
    member.quorum = False
    await member.live(30.0)
    assert len(member.entries) == entries
    member.quorum = True
    await member.live(1.2)
    assert len(member.entries) == entries + 1


async def test_what_deleted_topics_leave_is_cleared_away_and_no_faster_than_a_tick() -> None:
    member = Member()
    await member.live(0.1)
    await member.do(t.CreateTopic(name="t"))
    for _ in range(600):
        await member.do(t.RegisterConsumer(topic="t"))
    await member.do(t.DeleteTopic(topic="t"))
    assert member.machine.due
    await passing(2 * TICK_S)
    entries = len(member.entries)
    for stopping in (True, False, False):
        member.lead.look(member.glance(), stopping=stopping)
        await turns()
    assert len(member.entries) == entries + 1
    await member.live(10.0)
    assert not member.machine.due


async def test_who_loses_the_lead_takes_nothing_along() -> None:
    member = Member()
    await member.live(0.1)
    await member.do(RegisterWorker(name="w", queues=("q",)))
    claim = Claim(worker_id=1, wait=5)
    sealed = Sealed("k", b"", encode_command(claim))
    waiting = asyncio.ensure_future(member.lead.claim(sealed, claim, member.monotonic() + 5, None))
    await turns()
    member.leads = False
    await member.live(0.1)
    with pytest.raises(NotApplied):
        await waiting
    assert member.lead.term == 0


async def test_signs_of_those_who_are_not_alive_are_not_carried() -> None:
    member = Member()
    await member.live(0.1)
    await member.do(RegisterWorker(name="w"))
    member.lead.note(SignOfLife(9))
    await member.lead.sign([SignOfLife(1), SignOfLife(9)])
    assert member.entries[-1].signs == (SignOfLife(1),)
    member.lead.note(SignOfLife(1))
    await member.live(1.1)
    assert member.entries[-1].signs == (SignOfLife(1),)


async def test_a_disk_that_cannot_be_read_is_judged_where_entries_are_applied() -> None:
    member = Member()
    await member.live(0.1)

    def broken(*_: Any) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    for name in ("claimable", "remembers", "worker", "outlook", "serves", "coming", "waits", "query", "partitions"):
        setattr(member.machine, name, broken)
    sight = member.lead.parking._sight
    claim = Claim(worker_id=1)
    assert (sight.claimable(claim), sight.remembers("claim", "k"), sight.worker(1)) == (True, True, None)
    assert (sight.outlook("q").claimable, sight.serves(1, "q"), sight.due(1, 1)) == (0, False, {})
    assert member.lead._sight.waits()
    assert await member.do(t.RegisterConsumer(topic="t"))


class Ticking:
    """A clock whose calendar goes with it, and can be set."""

    now_s = 0.0
    set_by_ms = 0

    def monotonic(self) -> float:
        return self.now_s

    def right_ms(self) -> int:
        return WALL_MS + int(self.now_s * 1000)

    def wall_ms(self) -> int:
        return self.right_ms() + self.set_by_ms


def test_d13_the_calendar_is_the_median_of_those_heard_of_lately_whenever_it_is_asked() -> None:
    clock = Ticking()
    keeper = Timekeeper(clock)
    offsets = {"n2": 5_000, "n3": 60_000}
    for peer, offset_ms in offsets.items():
        keeper.heard(peer, clock.wall_ms() + offset_ms)
    for _ in range(2):
        assert keeper.wall_ms() - clock.wall_ms() == 5_000
    keeper.heard("n2", clock.wall_ms() - 5_000)
    for _ in range(2):
        assert keeper.wall_ms() - clock.wall_ms() == 0
    clock.now_s = 5.0
    keeper.heard("n3", clock.wall_ms() - 9_000)
    assert keeper.wall_ms() - clock.wall_ms() == -5_000
    clock.now_s = 11.0  # nobody has heard of n2 for longer than that counts
    for _ in range(2):
        assert keeper.wall_ms() - clock.wall_ms() == -9_000
    clock.now_s = 30.0
    assert keeper.wall_ms() - clock.wall_ms() == 0


@pytest.mark.parametrize("set_by_ms", [3_600_000, -3_600_000])
@pytest.mark.parametrize("others", [2, 4])
def test_d13_a_calendar_that_is_set_moves_nothing_before_the_others_are_heard_again_either(
    set_by_ms: int, others: int
) -> None:
    clock = Ticking()
    keeper = Timekeeper(clock)
    for number in range(others):
        keeper.heard(f"n{number + 2}", clock.wall_ms() + 10 * number)
    assert keeper.wall_ms() == WALL_MS + (0 if others == 2 else 10)
    clock.set_by_ms = set_by_ms
    clock.now_s = 0.25
    assert abs(keeper.wall_ms() - clock.right_ms()) <= 20


def test_d13_of_two_calendars_the_earlier_one_counts_also_when_one_of_them_is_set() -> None:
    clock = Ticking()
    keeper = Timekeeper(clock)
    keeper.heard("n2", clock.wall_ms() + 10)
    assert keeper.wall_ms() == WALL_MS
    clock.set_by_ms = 3_600_000
    assert keeper.wall_ms() == WALL_MS + 10


async def test_where_no_majority_has_room_nothing_that_was_not_proposed_is_waited_for() -> None:
    member = Member()
    await member.live(0.1)
    await member.do(RegisterWorker(name="w", queues=("q",), heartbeat_ms=500, dead_after_ms=60_000))
    lead, never = member.lead, member.loop.time() + 60.0
    claim = Claim(worker_id=1, queues=("q",), max=1)
    sealed = Sealed(None, b"", encode_command(claim))
    parked = asyncio.ensure_future(lead.claim(sealed, claim, never, None))
    await turns()
    entries = len(member.entries)
    waits = [asyncio.ensure_future(lead.barrier()), asyncio.ensure_future(member.do(t.CreateTopic(name="t")))]
    await asyncio.sleep(0)
    lead.told_of_room("Nothing was stored.")
    signed = asyncio.ensure_future(lead.sign([SignOfLife(1)]))
    waits += [
        parked,
        asyncio.ensure_future(lead.barrier()),
        asyncio.ensure_future(member.do(t.CreateTopic(name="t"))),
        asyncio.ensure_future(lead.claim(sealed, claim, never, None)),
    ]
    for told in await asyncio.gather(*waits, return_exceptions=True):
        assert isinstance(told, NotApplied)
        assert (told.code, str(told)) == ("storage_full", "Nothing was stored.")
    assert await signed  # what no caller decides goes on
    assert [entry.commands for entry in member.entries[entries:]] == [()]
    lead.told_of_room("Nothing was stored, for another reason.")
    lead.told_of_room("")
    lead.told_of_room("")
    await member.do(t.CreateTopic(name="t"))
    assert [entry.refresh for entry in member.entries[entries:]] == [False, True]
