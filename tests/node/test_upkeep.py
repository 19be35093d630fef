"""A follower that is too far behind: what it pulls, what it leaves alone, and what that costs the leader."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from quorl.cluster.consensus.port import Damaged, Snapshot
from quorl.cluster.machine.machine import Machine
from quorl.cluster.node import upkeep
from quorl.cluster.node.internal import Internal
from quorl.cluster.node.upkeep import Bounds, CatchUp, Trimming
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import Entry, SignOfLife, encode_entry
from quorl.cluster.protocol.wire import Answer, Call
from tests.simulation.states import SimStates


class AtOnce:
    """An offload that does not wait for anything."""

    async def _run(self, work: Callable[[], Any]) -> Any:
        return work()

    def run(self, work: Callable[[], Any]) -> Awaitable[Any]:
        return self._run(work)


class Leader:
    """The leader's side of the calls, and how often they came."""

    def __init__(self) -> None:
        self.now = 0.0
        self.first = 1
        self.copies = 0
        self.calls: list[str] = []
        self.states = SimStates(random.Random(1))
        self.machine = Machine(self.states.open())
        self.write(3)
        self._copy = self.states.copy
        self.states.copy = self.counted  # type: ignore[method-assign]
        self.said: list[tuple[str, dict[str, object]]] = []
        self.internal = Internal(self, self.states, AtOnce(), self, self.hand_over)

    async def sign(self, signs: Sequence[SignOfLife]) -> int:
        raise AssertionError(signs)

    def write(self, index: int) -> None:
        self.machine.apply(index, 1, encode_entry(Entry(1, 1, ())))

    def error(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    def info(self, event: str, **fields: object) -> None:
        raise AssertionError(event)

    warning = exception = info

    def hand_over(self) -> bool:
        self.calls.append("hand over")
        return True

    def counted(self) -> Snapshot:
        self.copies += 1
        return self._copy()

    def leads(self) -> bool:
        return True

    async def barrier(self) -> int:
        return 1

    def first_index(self) -> int:
        return self.first

    def monotonic(self) -> float:
        return self.now

    async def call(self, peer: str, call: Call, timeout_s: float) -> Answer:
        self.calls.append(call.path)
        return await self.internal.handle(call)


class Follower:
    """A node that is told again and again that it needs a snapshot."""

    def __init__(self, leader: Leader) -> None:
        self.leader = leader
        self.free = 10**12
        self.wanted = 0
        self.states = SimStates(random.Random(2))
        self.forgotten = 0
        self.warnings: list[dict[str, object]] = []
        self.catch_up = CatchUp(self.states, AtOnce(), leader, self, self, self.install, self)  # type: ignore[arg-type]
        self.states.forget_incoming = self.forget  # type: ignore[method-assign]

    def free_bytes(self, wanted_bytes: int = 0) -> int:
        self.wanted = wanted_bytes
        return self.free

    def monotonic(self) -> float:
        return self.leader.now

    def wall_ms(self) -> int:
        return 0

    def forget(self) -> None:
        self.forgotten += 1

    async def install(self, snapshot: Snapshot) -> None:
        self.states.install(snapshot)

    def info(self, event: str, **fields: object) -> None:
        assert event == "snapshot_installed"

    def warning(self, event: str, **fields: object) -> None:
        self.warnings.append(fields)

    def exception(self, event: str, **fields: object) -> None:
        raise AssertionError(event)

    error = exception

    async def told(self) -> int:
        """The leader's next sign of life; how many calls it led to."""
        before = len(self.leader.calls)
        self.catch_up.needed("leader")
        task = self.catch_up._task
        if task is not None:
            await task
        return len(self.leader.calls) - before


@pytest.fixture
async def leader() -> Leader:
    return Leader()


@pytest.fixture
async def follower(leader: Leader) -> Follower:
    return Follower(leader)


async def test_a_copy_is_pulled_and_installed(leader: Leader, follower: Follower) -> None:
    assert await follower.told() > 1
    assert (follower.states.installs, follower.warnings, follower.forgotten) == (1, [], 0)


async def test_without_room_nothing_is_pulled_and_the_leader_copies_once(leader: Leader, follower: Follower) -> None:
    follower.free = limits.DISK_SPARE_BYTES + 100
    for _ in range(600):
        await follower.told()
        leader.now += 0.1
    assert leader.calls == ["/internal/snapshot"] * 7  # after 0, 1, 3, 7, 15, 30 and 45 seconds
    assert (leader.copies, follower.forgotten) == (1, 7)
    assert "must be free" in str(follower.warnings[0]["why"])
    assert follower.wanted > follower.free, "so that the disk gives back what it has set aside"
    follower.free = 10**12
    leader.now += 15.0
    await follower.told()
    assert (leader.copies, follower.states.installs) == (1, 1)


async def test_a_state_that_cannot_be_opened_behind_a_snapshot_is_said_as_any_other_failure(
    leader: Leader, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has stopped itself by then."""

    async def install(_: Snapshot) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(follower.catch_up, "_install", install)
    await follower.told()
    assert [warning["why"] for warning in follower.warnings] == ["disk I/O error"]


async def test_a_success_makes_the_next_try_immediate(leader: Leader, follower: Follower) -> None:
    follower.free = 0
    assert await follower.told() == 1
    assert await follower.told() == 0
    follower.free = 10**12
    leader.now += 1.0
    assert await follower.told() > 1
    assert await follower.told() > 1


async def test_a_copy_serves_until_the_log_does_not_go_on_from_it_or_it_is_old(
    leader: Leader, follower: Follower
) -> None:
    await follower.told()
    leader.write(9)
    leader.first = 3
    leader.now += 500.0
    await follower.told()
    assert leader.copies == 1
    leader.first = 4
    await follower.told()
    assert leader.copies == 2
    leader.now += 599.0
    await follower.told()  # reads from it
    leader.now += 9.0
    await follower.told()
    assert leader.copies == 2
    leader.now += 11.0
    await follower.told()
    assert leader.copies == 3


async def test_what_entries_have_written_is_taken_over_more_often_than_the_log_is_trimmed(
    leader: Leader, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    trims: list[int] = []

    def checkpoint() -> int:
        made.append(leader.machine.position.index)
        return made[-1]

    monkeypatch.setattr(upkeep, "WRITTEN_BYTES_MAX", 1_000_000)
    monkeypatch.setattr(leader.states, "checkpoint", checkpoint)
    trimming = Trimming(leader.states, AtOnce(), trims.append, Bounds(30, 1_000_000), follower)
    await applied(leader, trimming, range(4, 34), 100_000)
    assert made == [12, 21, 30, 33]
    assert trims == [33]
    await trimming.close()


async def applied(leader: Leader, trimming: Trimming, indexes: range, size_bytes: int, log_bytes: int = 0) -> None:
    """Apply an entry of each index, and let what that begins end."""
    for index in indexes:
        leader.write(index)
        trimming.applied(size_bytes, log_bytes)
        for _ in range(3):
            await asyncio.sleep(0)


async def test_what_is_new_is_taken_over_often_by_each_member_in_its_turn(
    leader: Leader, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[float, list[int]] = {}
    trims: list[int] = []
    monkeypatch.setattr(upkeep, "FRESH_BYTES_MAX", 600_000)
    for turn in (0, 1 / 3, 2 / 3):
        now = made[turn] = []
        monkeypatch.setattr(leader.states, "checkpoint", lambda now=now: now.append(leader.machine.position.index))
        trimming = Trimming(leader.states, AtOnce(), trims.append, Bounds(1000, 1_000_000, turn), follower)
        first = leader.machine.position.index + 1
        await applied(leader, trimming, range(first, first + 18), 100_000)
        now[:] = [index - first + 1 for index in now]
        await trimming.close()
    assert made == {0: [6, 12, 18], 1 / 3: [4, 10, 16], 2 / 3: [2, 8, 14]}
    assert trims == []


async def test_g29_a_log_that_is_nearly_too_long_is_trimmed_with_a_checkpoint_that_is_due_anyway(
    leader: Leader, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    trims: list[int] = []
    monkeypatch.setattr(upkeep, "FRESH_BYTES_MAX", 500_000)
    monkeypatch.setattr(leader.states, "checkpoint", lambda: leader.machine.position.index)
    trimming = Trimming(leader.states, AtOnce(), trims.append, Bounds(1000, 1_000_000), follower)
    await applied(leader, trimming, range(4, 9), 100_000, 750_000)
    assert trims == []
    await applied(leader, trimming, range(9, 14), 100_000, 750_001)
    assert trims == [13]
    await applied(leader, trimming, range(14, 120), 1, 1_000_001)
    assert trims == [13, 113], "it may not become shorter by this: only every so often that is tried"
    await trimming.close()


@pytest.mark.parametrize(
    "error", [Damaged("The copy of the state is damaged."), sqlite3.DatabaseError("malformed"), OSError("no room")]
)
@pytest.mark.parametrize("leads", [True, False])
async def test_a8_a_leader_whose_state_cannot_be_copied_for_its_damage_hands_over_the_lead(
    monkeypatch: pytest.MonkeyPatch, error: Exception, leads: bool
) -> None:
    """Who asked for the copy cannot be filled from here, and must not wait for ever for a leader that cannot."""
    leader = Leader()
    if isinstance(error, sqlite3.DatabaseError):
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def fail() -> Snapshot:
        raise error

    monkeypatch.setattr(leader.states, "copy", fail)
    monkeypatch.setattr(leader, "leads", lambda: leads)
    answer = await leader.internal.handle(Call("POST", "/internal/snapshot", "", {}, b""))
    assert answer.status == 503
    damaged = not isinstance(error, OSError)
    assert leader.calls == ["hand over"] * (damaged and leads)
    assert [event for event, _ in leader.said] == ["state_damaged"] * damaged
    for _, fields in leader.said:
        assert fields["handed_over"] is leads
        assert "move this node's whole data directory away" in str(fields["advice"])
