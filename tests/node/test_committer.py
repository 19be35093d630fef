"""Group commit: what gathers while an entry travels, and when the followers are told what is committed."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from quorl.cluster.consensus.port import NotApplied
from quorl.cluster.machine.machine import Applied, Outcome
from quorl.cluster.node import committer as c
from quorl.cluster.node.timekeeper import Stamp
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import Sealed, decode_entry, encode_command
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.system import Founded


class ScriptedLog:
    """Applies an entry when it is told to."""

    def __init__(self) -> None:
        self.entries: list[list[bytes]] = []
        self.said: list[str] = []
        self.announced = asyncio.Event()
        self.under_way: asyncio.Future[Applied]

    def propose(self, payload: bytes) -> asyncio.Future[Applied]:
        self.entries.append([sealed.command for sealed in decode_entry(payload).commands])
        self.said.append("entry")
        self.under_way = asyncio.get_running_loop().create_future()
        return self.under_way

    def announce(self) -> None:
        self.said.append("announcement")
        self.announced.set()

    def apply(self) -> None:
        outcome = Outcome(Founded(cluster_id="c"), replayed=False)
        self.under_way.set_result(Applied(len(self.entries), [outcome] * len(self.entries[-1]), []))


def command(name: bytes) -> Sealed:
    return Sealed(None, b"", name)


@pytest.fixture
async def log() -> ScriptedLog:
    return ScriptedLog()


@pytest.fixture
async def committer(log: ScriptedLog) -> c.Committer:
    committer = c.Committer(log, lambda: Stamp(1, 1), {"one": 1, "wide": 256}.get)
    committer.lead()
    return committer


async def committed(log: ScriptedLog, committer: c.Committer, name: bytes) -> None:
    done = committer.submit(command(name))
    await asyncio.sleep(0)
    log.apply()
    await done


async def test_what_waits_while_an_entry_travels_is_one_entry(log: ScriptedLog, committer: c.Committer) -> None:
    first = committer.submit(command(b"1"))
    await asyncio.sleep(0)
    others = [committer.submit(command(name)) for name in (b"2", b"3")]
    log.apply()
    assert (await first)[1] == 1
    log.apply()
    assert [(await other)[1] for other in others] == [2, 2]
    assert log.entries == [[b"1"], [b"2", b"3"]]


def register(topic: str) -> Command[Any]:
    return t.RegisterConsumer(topic=topic)


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ([register("one")], 50),
        ([register("wide")], 4),
        ([t.CreateTopic(name="new", partitions=256)], 4),
        ([t.CreateTopic(name="new", partitions=256), register("new")], 4),
        ([t.Append(topic="wide", messages=[t.Message(value=msgspec.Raw(b"1"))] * 500)], 4),
        ([t.Append(topic="wide", messages=[t.Message(value=msgspec.Raw(b"1"))])], 50),
        ([t.Consume(topic="wide", consumer_id=1, max=1000)], 4),
        ([t.Consume(topic="wide", consumer_id=1)], 50),
        ([t.RegisterProducer(topic="wide")], 50),
    ],
)
async def test_an_entry_ends_where_its_rows_grow_too_many(
    log: ScriptedLog,
    committer: c.Committer,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[Command[Any]],
    most: int,
) -> None:
    monkeypatch.setattr(limits, "ENTRY_ROWS_TARGET", 1000)
    everything = [asked[min(i, len(asked) - 1)] for i in range(50)]
    done = [committer.submit(Sealed(None, b"", encode_command(one))) for one in everything]
    await asyncio.sleep(0)
    while not done[-1].done():
        log.apply()
        await asyncio.sleep(0)
    sizes = [len(entry) for entry in log.entries]
    assert (sizes[0], sum(sizes)) == (most, 50)


async def test_answers_come_before_the_announcement(log: ScriptedLog, committer: c.Committer) -> None:
    await committed(log, committer, b"1")
    assert log.said == ["entry"]
    await log.announced.wait()
    assert log.said == ["entry", "announcement"]


async def test_the_next_entry_makes_the_announcement_needless(log: ScriptedLog, committer: c.Committer) -> None:
    await committed(log, committer, b"1")
    await committed(log, committer, b"2")
    await log.announced.wait()
    assert log.said == ["entry", "entry", "announcement"]


async def test_a_follower_that_waits_is_told_at_once_and_once(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c, "ANNOUNCE_AFTER_S", 3600.0)
    committer.announce()
    assert log.said == []
    await committed(log, committer, b"1")
    committer.announce()
    committer.announce()
    assert log.said == ["entry", "announcement"]


async def test_who_does_not_lead_announces_nothing(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c, "ANNOUNCE_AFTER_S", 3600.0)
    await committed(log, committer, b"1")
    committer.step_aside(NotApplied("no_leader", "n1 does not lead any more"))
    committer.announce()
    assert log.said == ["entry"]
