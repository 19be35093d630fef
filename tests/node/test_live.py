"""Streams of events: the same bytes to everybody, nothing for nobody, and no client that holds others up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from quorl.cluster.machine.events import Appended, TasksChanged, TopicDeleted
from quorl.cluster.node import live as module
from quorl.cluster.node.live import CHANNELS, STILL_HERE, Live, Stream
from quorl.cluster.node.overview import Overviews
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import overview as o

ALL: frozenset[o.Channel] = frozenset(CHANNELS)


class Line:
    """A connection that takes nothing of what is handed to it."""

    def __init__(self) -> None:
        self.lying = 0
        self.was_cut = False

    def unsent(self) -> int:
        return self.lying

    def cut(self) -> None:
        self.was_cut = True


class Overview:
    """What an overview is made of here: how many were made."""

    period_s = 0.05

    def __init__(self) -> None:
        self.made = 0

    def encoded(self) -> bytes:
        self.made += 1
        return b'{"made":%d}' % self.made


class Desk:
    """A node's streams, with what they ask in the test's hands."""

    def __init__(self) -> None:
        self.overview = Overview()
        self.asked: list[list[str]] = []
        self.is_readable = True
        self.looks = 0
        self.live = Live(cast("Overviews", self.overview), self.brief, lambda: 42, self.readable)

    def readable(self) -> bool:
        self.looks += 1
        return self.is_readable

    def brief(self, ids: Sequence[str]) -> o.TasksFrame:
        self.asked.append(list(ids))
        return o.TasksFrame(items=[], gone=list(ids), more=0)

    def open(self, *channels: o.Channel, resumed: bool = False) -> Stream:
        stream = self.live.open(frozenset(channels), Line(), resumed=resumed)
        assert stream is not None
        return stream


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.01)


async def told(stream: Stream) -> tuple[str, Any]:
    """The next frame: its event and data."""
    frame = await asyncio.wait_for(stream.next(), 5)
    assert frame is not None
    assert frame.endswith(b"\n\n")
    lines = frame[:-2].decode().split("\n")
    assert [line.partition(": ")[0] for line in lines] == ["id", "event", "data"], lines
    assert lines[0] == "id: 42"
    return lines[1].partition(": ")[2], msgspec.json.decode(lines[2].partition(": ")[2])


async def skip_greeting(stream: Stream) -> None:
    assert await stream.next() == b"retry: 2000\n\n"


async def test_the_overview_comes_at_once_and_then_in_its_rhythm() -> None:
    desk = Desk()
    stream = desk.open("overview")
    await skip_greeting(stream)
    assert [await told(stream) for _ in range(3)] == [("overview", {"made": number}) for number in (1, 2, 3)]


async def test_two_clients_get_the_same_bytes_and_nothing_is_made_without_one() -> None:
    desk = Desk()
    one, other = desk.open("overview"), desk.open("overview")
    for stream in (one, other):
        await skip_greeting(stream)
        await told(stream)
    made = desk.overview.made
    assert [await told(stream) for stream in (one, other)] == [("overview", {"made": made + 1})] * 2
    for stream in (one, other):
        desk.live.leave(stream)
    turning, made = desk.live._turning, desk.overview.made
    assert turning is not None
    await turning  # it ends by itself
    assert (desk.overview.made, len(desk.live)) == (made, 0)
    again = desk.open("overview")
    await skip_greeting(again)
    assert await told(again) == ("overview", {"made": made + 1})


async def test_changes_are_told_together_each_task_once_and_only_to_those_who_listen() -> None:
    desk = Desk()
    desk.live.applied([TasksChanged(("before",))])
    tasks, topics = desk.open("tasks"), desk.open("topics")
    for stream in (tasks, topics):
        await skip_greeting(stream)
    desk.live.applied([TasksChanged(("a", "b")), TasksChanged(("a",)), Appended("t", 1, 7, 2)])
    desk.live.applied([Appended("t", 1, 9, 2), Appended("t", 0, 1, 1), Appended("gone", 0, 1, 1), TopicDeleted("gone")])
    assert await told(tasks) == ("tasks", {"items": [], "gone": ["b", "a"], "more": 0})
    assert await told(topics) == ("topics", {"ends": {"t": {"1": 9, "0": 1}}, "more": 0})
    assert desk.asked == [["b", "a"]]


async def test_of_very_many_changes_the_last_are_told_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_TOPICS_MAX", 2)
    desk = Desk()
    stream = desk.open("tasks", "topics")
    await skip_greeting(stream)
    many = 10 * limits.STREAM_TASKS_MAX + 50
    desk.live.applied([TasksChanged(tuple(str(number) for number in range(many)))])
    desk.live.applied([Appended(name, 0, 1, 1) for name in "abc"])
    event, data = await told(stream)
    assert (event, data["gone"][-1], len(data["gone"])) == ("tasks", str(many - 1), limits.STREAM_TASKS_MAX)
    assert data["more"] == many - limits.STREAM_TASKS_MAX
    assert await told(stream) == ("topics", {"ends": {"a": {"0": 1}, "b": {"0": 1}}, "more": 1})
    assert await told(stream) == ("topics", {"ends": {"c": {"0": 1}}, "more": 0})


async def test_a_client_that_comes_back_is_told_that_it_missed_something() -> None:
    desk = Desk()
    stream = desk.open(*CHANNELS, resumed=True)
    await skip_greeting(stream)
    assert await told(stream) == ("reset", {"channels": ["tasks", "topics"], "why": "reconnected"})
    assert (await told(stream))[0] == "overview"
    whole = desk.open("overview", resumed=True)
    await skip_greeting(whole)
    assert (await told(whole))[0] == "overview"


async def test_a_state_that_was_replaced_is_told_and_what_had_changed_before_is_not() -> None:
    desk = Desk()
    stream = desk.open("tasks")
    await skip_greeting(stream)
    desk.live.applied([TasksChanged(("a",))])
    desk.live.replaced()
    assert await told(stream) == ("reset", {"channels": ["tasks"], "why": "the state was replaced by a snapshot"})
    desk.live.applied([TasksChanged(("b",))])
    assert (await told(stream))[1]["gone"] == ["b"]


async def test_nothing_is_read_while_a_snapshot_is_put_in_place() -> None:
    desk = Desk()
    stream = desk.open("overview", "tasks")
    await skip_greeting(stream)
    await told(stream)
    desk.is_readable = False
    desk.live.applied([TasksChanged(("a",))])
    made, looks = desk.overview.made, desk.looks
    while desk.looks < looks + 20:
        await asyncio.sleep(0)
    assert (desk.overview.made, desk.asked) == (made, [])
    desk.is_readable = True
    assert {(await told(stream))[0], (await told(stream))[0]} == {"overview", "tasks"}


async def test_a_client_that_takes_nothing_is_cut_off_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_BYTES_MAX", 300)
    desk = Desk()
    slow, stuck, good = Line(), Line(), Line()
    streams = [desk.live.open(frozenset({"tasks"}), line, resumed=False) for line in (slow, stuck, good)]
    stuck.lying = 290
    assert streams[2] is not None
    await skip_greeting(streams[2])
    for number in range(30):
        desk.live.applied([TasksChanged((f"task {number}",))])
        assert (await told(streams[2]))[1]["gone"] == [f"task {number}"]
    assert (slow.was_cut, stuck.was_cut, good.was_cut) == (True, True, False)
    for stream in streams[:2]:
        assert stream is not None
        assert (await stream.next(), stream.ended) == (None, "slow")
    streams[0].put(b"more")  # type: ignore[union-attr]  # which is lost
    assert await streams[0].next() is None  # type: ignore[union-attr]


async def test_one_frame_that_is_larger_than_the_bound_cuts_nobody_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_BYTES_MAX", 10)
    stream = Stream(ALL, Line())
    stream.put(b"a frame of more than ten bytes")
    assert await stream.next() == b"a frame of more than ten bytes"
    assert not stream.ended


async def test_as_many_may_listen_as_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAMS_MAX", 2)
    desk = Desk()
    first, _ = desk.open("tasks"), desk.open("tasks")
    assert desk.live.open(ALL, Line(), resumed=False) is None
    desk.live.leave(first)
    assert desk.live.open(ALL, Line(), resumed=False) is not None


async def test_a_node_that_stops_says_where_to_go_and_then_nothing() -> None:
    desk = Desk()
    stream = desk.open("topics")
    desk.live.bye("n1", ["127.0.0.1:7102"])
    await skip_greeting(stream)
    assert await told(stream) == ("bye", {"node": "n1", "nodes": ["127.0.0.1:7102"]})
    assert (await stream.next(), stream.ended, desk.live.closed) == (None, "bye", True)
    Desk().live.bye("n1", [])  # nobody listens


async def test_silence_is_broken_by_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STILL_HERE_S", 0.01)
    stream = Stream(ALL, Line())
    assert await asyncio.wait_for(stream.next(), 5) == STILL_HERE
