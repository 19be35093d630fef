"""Group commit: what gathers while an entry travels, and when the followers are told what is committed."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from structlog.contextvars import bound_contextvars, get_contextvars

from quorl.cluster.consensus.port import NotApplied
from quorl.cluster.machine.machine import Applied, Outcome
from quorl.cluster.node import committer as c
from quorl.cluster.node import patience
from quorl.cluster.node.patience import Haste
from quorl.cluster.node.timekeeper import Stamp
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.appends import AppendAll, TopicAppend
from quorl.cluster.protocol.entry import Entry, Sealed, SignOfLife, decode_entry, encode_command
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.system import Founded


class ScriptedLog:
    """Applies an entry when it is told to."""

    def __init__(self) -> None:
        self.entries: list[list[bytes]] = []
        self.last: Entry
        self.refusal: NotApplied | None = None
        self.waited = False
        self.said: list[str] = []
        self.announced = asyncio.Event()
        self.under_way: asyncio.Future[Applied]

    def propose(self, payload: bytes) -> asyncio.Future[Applied]:
        if self.refusal is not None:
            raise self.refusal
        self.last = decode_entry(payload)
        self.entries.append([sealed.command for sealed in self.last.commands])
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


LARGE = t.Message(value=msgspec.Raw(b'"' + b"x" * 500_000 + b'"'))
"""A thousandth of it when it is packed."""
LITTLE, HEADERS = t.Message(value=msgspec.Raw(b"1")), {"a": "x" * 40_000}


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


async def test_d15_an_entry_travels_under_the_request_id_of_none_of_its_calls(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    propose = log.propose
    monkeypatch.setattr(log, "propose", lambda payload: (seen.append(get_contextvars()), propose(payload))[1])
    with bound_contextvars(request_id="mine"):
        first = committer.submit(command(b"1"))
        await asyncio.sleep(0)
        second = committer.submit(command(b"2"))
        log.apply()
        await first
        log.apply()
        await second
        assert get_contextvars() == {"request_id": "mine"}
    assert seen == [{}, {}]


async def test_what_waits_while_an_entry_travels_is_one_entry(log: ScriptedLog, committer: c.Committer) -> None:
    first = committer.submit(command(b"1"))
    await asyncio.sleep(0)
    others = [committer.submit(command(name)) for name in (b"2", b"3")]
    log.apply()
    assert (await first)[1] == 1
    log.apply()
    assert [(await other)[1] for other in others] == [2, 2]
    assert log.entries == [[b"1"], [b"2", b"3"]]


async def test_d13_what_is_alone_leaves_at_once(log: ScriptedLog, committer: c.Committer) -> None:
    """The first of a crowd has left when the others come; from then on they wait for one another again."""
    await committed(log, committer, b"0")
    for names in ([b"1"], [b"2", b"3", b"4"]):
        done = [committer.submit(command(name), Haste.AT_ONCE) for name in names]
        assert log.entries[-1] == names[:1], "before this turn of the loop was over"
        while not all(one.done() for one in done):
            log.apply()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert log.entries[-2:] == [[b"2"], [b"3", b"4"]]
    crowd = [committer.submit(command(name), Haste.AT_ONCE) for name in (b"5", b"6")]
    assert log.entries[-1] == [b"3", b"4"]
    await asyncio.sleep(0)
    log.apply()
    await asyncio.gather(*crowd)
    assert log.entries[-1] == [b"5", b"6"]


async def test_d13_whoever_has_more_to_put_behind_it_waits_for_the_turn(
    log: ScriptedLog, committer: c.Committer
) -> None:
    await committed(log, committer, b"0")
    both = [committer.submit(command(b"1")), committer.submit(command(b"2"), Haste.AT_ONCE)]
    assert log.entries == [[b"0"]]
    await asyncio.sleep(0)
    log.apply()
    await asyncio.gather(*both)
    assert log.entries == [[b"0"], [b"1", b"2"]]


async def test_d13_what_leaves_at_once_travels_under_no_request_id(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed(log, committer, b"0")
    seen = []
    propose = log.propose
    monkeypatch.setattr(log, "propose", lambda payload: (seen.append(get_contextvars()), propose(payload))[1])
    with bound_contextvars(request_id="mine"):
        first = committer.submit(command(b"1"), Haste.AT_ONCE)
        assert seen == [{}]
        log.apply()
        await first


async def test_d13_a_log_that_refuses_what_leaves_at_once_refuses_its_caller(
    log: ScriptedLog, committer: c.Committer
) -> None:
    await committed(log, committer, b"0")
    log.refusal = NotApplied("no_leader", "it is gone")
    with pytest.raises(NotApplied):
        await committer.submit(command(b"1"), Haste.AT_ONCE)
    log.refusal = None
    await asyncio.sleep(0)
    assert log.entries == [[b"0"]]


RETURN = e.Return(task_id="t", lease=1)
FAILURE = e.Failure(task_id="t", lease=1)


def submit(tasks: int) -> Command[Any]:
    return b.Submit(queue="q", tasks=[b.NewTask(name="t")] * tasks)


def append(topic: str, count: int) -> TopicAppend:
    return TopicAppend(topic=topic, messages=[t.Message(value=msgspec.Raw(b"1"))] * count)


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
        ([t.Append(topic="wide", messages=[LARGE] * 2).sealed().packed()], 2),
        ([t.Append(topic="wide", messages=[LARGE]).sealed().packed()], 3),
        ([t.Append(topic="one", messages=[LARGE] * 2).sealed().packed()], 50),
        (
            [t.Append(topic="wide", messages=[msgspec.structs.replace(LITTLE, headers=HEADERS)] * 9).sealed().packed()],
            3,
        ),
        ([t.Append(topic="wide", messages=[LITTLE] * 10_000).sealed().packed()], 3),
        ([msgspec.structs.replace(t.Append(topic="wide", messages=[LITTLE]).sealed(), body="")], 50),
        ([AppendAll(appends=(append("wide", 500), append("one", 50)))], 4),
        ([t.Consume(topic="wide", consumer_id=1, max=1000)], 4),
        ([t.Consume(topic="wide", consumer_id=1)], 50),
        ([t.RegisterProducer(topic="wide")], 50),
        ([submit(1)], 50),
        ([submit(499)], 2),
        ([e.Claim(worker_id=1, max=250)], 4),
        ([e.Claim(worker_id=1)], 50),
        ([e.Settle(worker_id=1, complete=(e.Done("t", 1, b"1"),) * 100, release=(RETURN,) * 10)], 10),
        ([e.Settle(worker_id=1, fail=(FAILURE,) * 100, progress=(e.Held("t", 1, None, "", None),) * 100)], 5),
        ([g.ReportBatch(complete=(e.Done("t", 1, b"1"),) * 100, release=(RETURN,) * 10)], 10),
        ([g.ReportBatch(fail=(FAILURE,) * 200)], 5),
        ([g.ClaimBatch(claims=(g.Seat(1, (), 60, 0), g.Seat(2, (), 40, 0)))], 10),
        ([q.PurgeQueue(queue="q")], 1),
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


async def test_followers_at_which_somebody_waits_are_told_sooner(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c, "ANNOUNCE_LATE_S", 3600.0)
    log.waited = True
    await _crowd(log, committer)
    assert log.said == ["entry"]
    await log.announced.wait()
    assert log.said == ["entry", "announcement"]


async def test_behind_a_crowd_the_next_entry_is_waited_for_longer(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c, "ANNOUNCE_SOON_S", 3600.0)
    await _crowd(log, committer)
    assert log.said == ["entry"]
    await log.announced.wait()
    assert log.said == ["entry", "announcement"]


async def _crowd(log: ScriptedLog, committer: c.Committer) -> None:
    together = asyncio.gather(*[committer.submit(command(bytes([number]))) for number in range(c.CROWD_ROWS)])
    await asyncio.sleep(0)
    log.apply()
    await together


async def test_a_follower_that_waits_is_told_at_once_and_once(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c, "ANNOUNCE_SOON_S", 3600.0)
    committer.announce()
    assert log.said == []
    await committed(log, committer, b"1")
    committer.announce()
    committer.announce()
    assert log.said == ["entry", "announcement"]


async def test_who_does_not_lead_announces_nothing(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c, "ANNOUNCE_SOON_S", 3600.0)
    await committed(log, committer, b"1")
    committer.step_aside(NotApplied("no_leader", "n1 does not lead any more"))
    committer.announce()
    assert log.said == ["entry"]


# -- what travels along --------------------------------------------------------------------------------------------
async def test_an_entry_says_who_leads_and_brings_the_leaders_dice(log: ScriptedLog) -> None:
    throws = iter([7, 8])
    committer = c.Committer(log, lambda: Stamp(1, 2), lambda _: 1, node="n1", seed=lambda: next(throws))
    committer.lead()
    await committed(log, committer, b"1")
    assert (log.last.node, log.last.seed, log.last.now_ms, log.last.wall_ms) == ("n1", 7, 1, 2)
    await committed(log, committer, b"2")
    assert log.last.seed == 8


async def test_only_the_first_entry_of_a_leadership_refreshes(log: ScriptedLog, committer: c.Committer) -> None:
    said = []
    for name in (b"1", b"2"):
        await committed(log, committer, name)
        said.append(log.last.refresh)
    committer.step_aside(NotApplied("no_leader", "n1 does not lead any more"))
    committer.lead()
    log.refusal = NotApplied("storage_full", "full")
    with pytest.raises(NotApplied):
        await committer.submit(command(b"3"))
    log.refusal = None
    for name in (b"4", b"5"):
        await committed(log, committer, name)
        said.append(log.last.refresh)
    assert said == [True, False, True, False]


async def test_signs_of_life_are_told_apart_by_worker_and_awaited(log: ScriptedLog, committer: c.Committer) -> None:
    first = committer.sign([SignOfLife(1, (5,)), SignOfLife(2)])
    second = committer.sign([SignOfLife(1), SignOfLife(2, (6,))])
    await asyncio.sleep(0)
    assert log.last.signs == (SignOfLife(1, (5,)), SignOfLife(2, (6,)))
    third = committer.sign([SignOfLife(1)])
    log.apply()
    assert (await first, await second) == (1, 1)
    log.apply()
    assert await third == 2
    assert committer.idle


async def test_more_signs_than_an_entry_carries_are_all_waited_for(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENTRY_SIGNS_MAX", 2)
    told = committer.sign([SignOfLife(number) for number in range(1, 6)])
    await asyncio.sleep(0)
    log.apply()
    await asyncio.sleep(0)
    log.apply()
    assert not told.done()
    await asyncio.sleep(0)
    log.apply()
    assert await told == 3
    monkeypatch.setattr(limits, "ENTRY_SIGNS_BYTES_TARGET", 1)
    told = committer.sign([SignOfLife(1), SignOfLife(2)])
    await asyncio.sleep(0)
    assert log.last.signs == (SignOfLife(1),)
    log.apply()
    await asyncio.sleep(0)
    log.apply()
    assert await told == 5


async def test_whoever_claims_or_reports_is_alive(log: ScriptedLog, committer: c.Committer) -> None:
    claim, settle = e.Claim(worker_id=3), e.Settle(worker_id=4, release=(RETURN,))
    done = [committer.submit(Sealed(None, b"", encode_command(one))) for one in (claim, settle, claim)]
    committer.note(SignOfLife(4, (1,)), 3600.0)
    await asyncio.sleep(0)
    assert log.last.signs == (SignOfLife(4, (1,)), SignOfLife(3))
    log.apply()
    await asyncio.gather(*done)


async def test_a_command_that_is_no_array_where_one_should_be_spoils_nothing(
    log: ScriptedLog, committer: c.Committer
) -> None:
    blob = msgspec.msgpack.encode({"op": "submit_batch", "queue": "q", "tasks": 5})
    await committed(log, committer, blob)
    assert log.entries == [[blob]]


# -- patience ------------------------------------------------------------------------------------------------------
def patient(committer: c.Committer, *names: bytes) -> list[asyncio.Future[c.Decided]]:
    return [committer.submit(command(name), Haste.PATIENT) for name in names]


async def test_d13_who_is_patient_leaves_with_the_next_who_is_not(log: ScriptedLog, committer: c.Committer) -> None:
    await committed(log, committer, b"0")
    waiting = patient(committer, b"1", b"2")
    await asyncio.sleep(0)
    assert log.entries == [[b"0"]], "another entry was only just there"
    other = committer.submit(command(b"3"))
    await asyncio.sleep(0)
    log.apply()
    await asyncio.gather(*waiting, other)
    assert log.entries == [[b"0"], [b"1", b"2", b"3"]]
    assert committer.idle


async def test_d13_who_is_patient_waits_behind_an_entry_too_and_then_a_moment(
    log: ScriptedLog, committer: c.Committer
) -> None:
    first = committer.submit(command(b"0"))
    await asyncio.sleep(0)
    waiting = patient(committer, b"1")
    log.apply()
    await first
    assert log.entries == [[b"0"]]
    await asyncio.wait(waiting, timeout=2 * patience.WAIT_S)
    assert log.entries == [[b"0"], [b"1"]]
    log.apply()
    await waiting[0]
    second = patient(committer, b"2")
    await asyncio.sleep(0)
    assert log.entries[2:] == [[b"2"]], "nobody came, so the next one does not wait"
    log.apply()
    await second[0]


async def test_d13_who_is_patient_and_the_first_for_long_does_not_wait(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed(log, committer, b"0")
    monkeypatch.setattr(patience, "BUSY_S", -1.0)
    waiting = patient(committer, b"1")
    await asyncio.sleep(0)
    assert log.entries == [[b"0"], [b"1"]]
    log.apply()
    await waiting[0]


@pytest.mark.parametrize("why", ["barrier", "sign"])
async def test_d13_who_is_patient_leaves_with_what_else_an_entry_is_made_for(
    log: ScriptedLog, committer: c.Committer, why: str
) -> None:
    await committed(log, committer, b"0")
    waiting = patient(committer, b"1")
    other = committer.barrier() if why == "barrier" else committer.sign([SignOfLife(1)])
    await asyncio.sleep(0)
    assert log.entries == [[b"0"], [b"1"]]
    log.apply()
    await asyncio.gather(waiting[0], other)


async def test_d13_what_an_entry_had_no_room_for_waits_for_nobody(
    log: ScriptedLog, committer: c.Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed(log, committer, b"0")
    monkeypatch.setattr(limits, "ENTRY_COMMANDS_MAX", 1)
    waiting = [committer.submit(command(b"1")), *patient(committer, b"2")]
    await asyncio.sleep(0)
    log.apply()
    await waiting[0]
    assert log.entries == [[b"0"], [b"1"], [b"2"]]
    log.apply()
    await waiting[1]


async def test_d13_who_is_patient_is_told_when_the_lead_is_lost(log: ScriptedLog, committer: c.Committer) -> None:
    await committed(log, committer, b"0")
    waiting = patient(committer, b"1")
    committer.step_aside(NotApplied("no_leader", "it is gone"))
    with pytest.raises(NotApplied):
        await waiting[0]
    assert committer.idle
    committer.lead()
    await committed(log, committer, b"2")
    assert log.entries == [[b"0"], [b"2"]]


def test_d13_waiting_in_vain_is_tried_more_and_more_seldom() -> None:
    one = patience.Patience()

    def left_out() -> int:
        one.in_vain()
        count = 0
        while not one.pays(0.0):
            count += 1
        return count

    assert [left_out() for _ in range(7)] == [1, 2, 4, 8, 16, 32, 32]
    one.paid()
    assert left_out() == 1
    assert not one.pays(patience.BUSY_S + 0.001)
