"""Coalescing, without a socket: who flies with whom, under which key, and what each is told."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.client import batching
from quorl.client import errors as e
from quorl.client.batching import Part
from quorl.client.flow import Failure, Send, Sleep
from quorl.client.lanes import AppendLane, AppendPart, ReportLane, ReportPart, SubmitLane, SubmitPart
from quorl.client.model import message, messages, size_bytes
from quorl.client.sharing import Mismatch, share
from quorl.client.tasking import new_task, report_bytes, tasks_bytes
from quorl.cluster.protocol import leases, limits
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.placement import partition_of
from quorl.cluster.protocol.wire import Answer
from tests.client.scripted import LOST, REFUSED, SILENT, World, appended, problem, reply


def test_a_value_without_a_json_form_is_refused_in_words_as_that_of_a_task_is() -> None:
    nested: list[object] = []
    nested.append(nested)
    for value in (object(), nested, {"when": object()}):
        with pytest.raises(e.Invalid, match="the value has no JSON form") as refused:
            message(value)
        assert "dataclasses" in str(refused.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: message(1, key=5), "the key of a message is text, and 5 is none"),  # type: ignore[arg-type]
        (lambda: message(1, headers={"n": 1}), r"text by text, and \('n', 1\) is not"),  # type: ignore[dict-item]
        (lambda: messages("abc"), "come as one list, and 'abc' is none: append takes one"),
        (lambda: messages({"a": 1}), "come as one list"),
    ],
)
def test_what_is_no_message_is_told_where_it_is_made(make: Callable[[], object], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        make()


class Sheet(World):
    """A world with one lane."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = AppendLane(self.route, "x", timeout_s=10, flight_bytes_max=10_000)
        self.woken: list[AppendPart] = []

    def add(self, *values: object, left_s: float | None = 10.0, **options: object) -> AppendPart:
        batch = [message(value, **options) for value in values]  # type: ignore[arg-type]
        deadline = None if left_s is None else self.clock.now + left_s
        part = Part(batch, size_bytes(batch), deadline, self.woken.append)
        self.lane.queue.append(part)
        return part

    def fly(self, *events: object) -> None:
        self.play(self.lane.fly(), *events)  # type: ignore[arg-type]

    @property
    def bodies(self) -> list[list[object]]:
        """The values of each append that was sent."""
        sent = [msgspec.json.decode(send.call.body) for send in self.sends if send.call.method == "POST"]
        return [[one["value"] for one in body["messages"]] for body in sent]


@pytest.fixture
def sheet() -> Sheet:
    return Sheet()


def ranges(part: AppendPart) -> list[tuple[int, int, int]]:
    assert not isinstance(part.outcome, Exception), part.outcome
    return [(one.partition, one.first_offset, one.last_offset) for one in part.outcome]


def test_what_waits_goes_together_and_each_is_told_its_own(sheet: Sheet) -> None:
    parts = [sheet.add("a"), sheet.add("b", "c"), sheet.add({"d": [1]})]
    sheet.fly(appended(4, first=7, partition=2))
    assert sheet.bodies == [["a", "b", "c", {"d": [1]}]]
    assert [ranges(part) for part in parts] == [[(2, 7, 7)], [(2, 8, 9)], [(2, 10, 10)]]
    assert sheet.woken == parts


def test_nothing_waits_and_nothing_flies(sheet: Sheet) -> None:
    sheet.fly()
    assert not sheet.steps


def test_who_has_left_the_queue_does_not_fly(sheet: Sheet) -> None:
    gone, here = sheet.add("gone"), sheet.add("here")
    gone.done = True
    sheet.fly(appended(1))
    assert sheet.bodies == [["here"]]
    assert ranges(here) == [(0, 0, 0)]


def test_a_flight_is_bounded_in_bytes_and_in_messages(sheet: Sheet) -> None:
    for _ in range(3):
        sheet.add("v" * 4000)
    sheet.add(*range(limits.APPEND_MESSAGES_MAX))
    sheet.fly(appended(2))
    sheet.fly(appended(1))
    sheet.fly(appended(limits.APPEND_MESSAGES_MAX))
    assert list(map(len, sheet.bodies)) == [2, 1, limits.APPEND_MESSAGES_MAX]


def test_d7_repeats_of_a_flight_are_identical(sheet: Sheet) -> None:
    parts = [sheet.add("a"), sheet.add("b")]
    sheet.fly(LOST, problem("no_leader"), appended(2))
    assert len({(send.call.body, send.call.headers["idempotency-key"]) for send in sheet.sends}) == 1
    assert [ranges(part) for part in parts] == [[(0, 0, 0)], [(0, 1, 1)]]


def test_a_refused_flight_goes_again_part_by_part_under_new_keys(sheet: Sheet) -> None:
    good, bad, fine = sheet.add("good"), sheet.add("bad", producer=9), sheet.add("fine")
    refusal = problem("producer_not_found", "producer 9 is not registered")
    sheet.fly(refusal, appended(1), refusal, appended(1, first=1))
    assert sheet.bodies == [["good", "bad", "fine"], ["good"], ["bad"], ["fine"]]
    assert len({send.call.headers["idempotency-key"] for send in sheet.sends}) == 4
    assert isinstance(bad.outcome, e.ProducerNotFound)
    assert ranges(good) == [(0, 0, 0)]
    assert ranges(fine) == [(0, 1, 1)]


def test_who_was_refused_flies_alone_until_accepted(sheet: Sheet) -> None:
    sheet.add("a"), sheet.add("bad", producer=9)
    refusal = problem("producer_not_found")
    sheet.fly(refusal, appended(1), refusal)
    later = [sheet.add("c"), sheet.add("bad again", producer=9), sheet.add("d"), sheet.add("e")]
    sheet.fly(appended(1))
    sheet.fly(appended(1))
    sheet.fly(appended(2))
    assert sheet.bodies[3:] == [["c"], ["bad again"], ["d", "e"]]
    assert not any(isinstance(part.outcome, Exception) for part in later)
    sheet.add("f"), sheet.add("g", producer=9)
    sheet.fly(appended(2))
    assert sheet.bodies[-1] == ["f", "g"]


def test_a_missing_topic_is_everybodys_trouble(sheet: Sheet) -> None:
    parts = [sheet.add("a"), sheet.add("b")]
    sheet.fly(problem("topic_not_found"))
    errors = [part.outcome for part in parts]
    assert all(isinstance(error, e.TopicNotFound) for error in errors)
    assert errors[0] is not errors[1], "each raises his own"


def test_nobody_waits_longer_than_he_wanted(sheet: Sheet) -> None:
    old, young = sheet.add("old", left_s=2), sheet.add("young", left_s=8)
    start = sheet.clock.now
    sheet.drive(sheet.lane.fly(), lambda _: REFUSED, takes_s=0.1)
    assert isinstance(old.outcome, e.Unavailable)
    assert sheet.clock.now <= start + 2.2
    assert not young.done
    assert list(sheet.lane.queue) == [young]
    sheet.fly(appended(1))
    assert sheet.bodies[-1] == ["young"], "what was given up is not sent"
    assert ranges(young) == [(0, 0, 0)]
    assert sheet.keys == 2, "another flight, another key"


def test_d7_a_flight_in_doubt_is_repeated_as_it_was_for_those_who_still_wait(sheet: Sheet) -> None:
    old, young = sheet.add("old", left_s=2), sheet.add("young", left_s=8)
    events: list[Answer | Failure] = [SILENT, SILENT, SILENT, REFUSED, appended(2, first=5)]
    sheet.drive(sheet.lane.fly(), lambda _: events.pop(0) if len(events) > 1 else events[0])
    assert isinstance(old.outcome, e.OutcomeUnknown)
    assert old.outcome.key == "key-1"
    assert ranges(young) == [(0, 6, 6)]
    assert sheet.keys == 1
    assert len({send.call.body for send in sheet.sends}) == 1


def test_parts_without_a_deadline_have_their_time_from_departure_on(sheet: Sheet) -> None:
    part = sheet.add("a", left_s=None)
    sheet.clock.now += 1000
    sheet.fly(appended(1))
    assert ranges(part) == [(0, 0, 0)]


def test_a_flight_that_is_broken_off_leaves_nobody_waiting(sheet: Sheet) -> None:
    parts = [sheet.add("a"), sheet.add("b")]
    plan = sheet.lane.fly()
    next(plan)
    plan.close()
    assert all(isinstance(part.outcome, e.OutcomeUnknown) for part in parts)


def test_breaking_off_one_by_one_leaves_nobody_waiting(sheet: Sheet) -> None:
    parts = [sheet.add("a"), sheet.add("b", producer=9), sheet.add("c")]
    plan = sheet.lane.fly()
    next(plan)
    plan.send(problem("producer_not_found"))
    plan.close()
    assert [type(part.outcome) for part in parts] == [e.OutcomeUnknown, e.Unavailable, e.Unavailable]


def test_abandoning_a_lane_tells_those_who_have_not_left(sheet: Sheet) -> None:
    part = sheet.add("a")
    sheet.lane.abandon(e.Unavailable("closed"))
    assert isinstance(part.outcome, e.Unavailable)
    part.resolve([])
    assert isinstance(part.outcome, e.Unavailable), "an outcome is handed over once"


def test_keys_of_several_partitions_travel_together(sheet: Sheet) -> None:
    keys = ["k0", "k1", "k2", "k3", "k4"]
    for partitions in (4, 3):  # the topic was deleted and made anew meanwhile
        parts = [sheet.add(key, key=key) for key in keys]
        places = store([part.items for part in parts], partitions, keyless=0)
        sheet.fly(reply("append", t.Appended(ranges=places, partitions=partitions)))
        for part in parts:
            assert [p for p, _, _ in ranges(part)] == [partition_of(str(part.items[0].key), partitions)]
    assert not [step for step in sheet.sends if step.call.method == "GET"], "the answer says it all"


def test_places_that_cannot_be_told_are_an_unknown_outcome(sheet: Sheet) -> None:
    parts = [sheet.add("a", key="k0"), sheet.add("b", key="k1")]
    spread = [t.Range(partition=p, first_offset=0, last_offset=0) for p in (0, 1)]
    sheet.fly(reply("append", t.Appended(ranges=spread, partitions=5)))
    assert all(isinstance(part.outcome, e.OutcomeUnknown) for part in parts)
    assert "was applied" in str(parts[0].outcome)


def test_a_wait_named_by_the_cluster_is_kept_between_flights(sheet: Sheet) -> None:
    old, young = sheet.add("old", left_s=1), sheet.add("young", left_s=9)
    sheet.fly(problem("too_many_requests", retry_after_ms=3000))
    assert isinstance(old.outcome, e.Unavailable)
    assert old.outcome.retry_after_s == 3.0
    assert sheet.steps[-1] == Sleep(3.0)
    assert list(sheet.lane.queue) == [young]


# -- sharing --------------------------------------------------------------------------------------------------------
def store(parts: list[list[t.Message]], partitions: int, keyless: int, base: int = 100) -> list[t.Range]:
    """Do what the cluster does: deal the messages out and say where they went."""
    counts: dict[int, int] = {}
    for one in [one for part in parts for one in part]:
        partition = keyless if one.key is None else partition_of(one.key, partitions)
        counts[partition] = counts.get(partition, 0) + 1
    return [t.Range(partition=p, first_offset=base, last_offset=base + n - 1) for p, n in sorted(counts.items())]


KEYS = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "d", "e", "ü", "", "🙂"]))
PARTS = st.lists(st.lists(KEYS, min_size=1, max_size=5), min_size=1, max_size=8)


@given(PARTS, st.integers(1, 9), st.integers(0, 8))
def test_every_message_is_told_its_place_exactly_once(keys: list[list[str | None]], partitions: int, turn: int) -> None:
    parts = [[message(0, key=key) for key in part] for part in keys]
    keyless = turn % partitions
    whole = store(parts, partitions, keyless)
    shares = share(parts, whole, partitions)
    told: list[tuple[int, int]] = []
    for part, mine in zip(parts, shares, strict=True):
        places = [(r.partition, offset) for r in mine for offset in range(r.first_offset, r.last_offset + 1)]
        wanted = sorted(keyless if m.key is None else partition_of(m.key, partitions) for m in part)
        assert sorted(p for p, _ in places) == wanted
        told += places
    assert sorted(told) == [(r.partition, o) for r in whole for o in range(r.first_offset, r.last_offset + 1)]


def test_several_ranges_take_the_number_of_partitions() -> None:
    parts = [[message(0, key="k0")], [message(0, key="k1")]]
    spread = [t.Range(partition=p, first_offset=0, last_offset=0) for p in (0, 1)]
    with pytest.raises(Mismatch):
        share(parts, spread, msgspec.UNSET)


def test_ranges_of_other_messages_are_noticed() -> None:
    parts = [[message(0)], [message(1)]]
    with pytest.raises(Mismatch):
        share(parts, [t.Range(partition=0, first_offset=0, last_offset=5)], 1)
    with pytest.raises(Mismatch):
        share(parts, [t.Range(partition=p, first_offset=0, last_offset=0) for p in (0, 1)], 2)


def test_a_flight_fits_into_a_request() -> None:
    worst = message("v", key="🙂" * 10, headers={"\x00" * 9: "ü" * 9}, producer=limits.INTEGER_MAX)
    assert len(msgspec.json.encode(worst)) <= size_bytes([worst])
    one_more = limits.MESSAGE_VALUE_BYTES_MAX + 2 * 6 * limits.MESSAGE_KEY_CHARS_MAX
    assert batching.FLIGHT_BYTES_MAX + one_more < limits.REQUEST_BYTES_MAX


def test_send_is_what_hands_get(sheet: Sheet) -> None:
    sheet.add("a")
    assert isinstance(next(sheet.lane.fly()), Send)


# -- submits -------------------------------------------------------------------------------------------------------
class Desk(World):
    """A world with one lane of submits."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = SubmitLane(self.route, "q", timeout_s=10)

    def add(self, *names: str, **options: object) -> SubmitPart:
        batch = [new_task(name, options=options) for name in names]
        part: SubmitPart = Part(batch, tasks_bytes(batch), self.clock.now + 10, lambda _: None)
        self.lane.queue.append(part)
        return part

    def fly(self, *events: Answer | Failure) -> None:
        self.play(self.lane.fly(), *events)


def submitted(*ids: str) -> Answer:
    return reply("submit", b.Submitted(items=[b.SubmittedTask(id=one, status="QUEUED") for one in ids]))


def test_submits_travel_together_and_each_is_told_its_own_ids() -> None:
    desk = Desk()
    parts = [desk.add("a"), desk.add("b", "c")]
    desk.fly(LOST, submitted("1", "2", "3"))
    assert [[one.id for one in part.places()] for part in parts] == [["1"], ["2", "3"]]
    assert len({send.call.headers["idempotency-key"] for send in desk.sends}) == 1
    assert desk.sends[0].call.path == "/v1/queues/q/tasks"


def test_a_taken_id_fails_its_own_submit_only() -> None:
    desk = Desk()
    taken, fine = desk.add("a", id="7"), desk.add("b")
    desk.fly(problem("task_exists"), problem("task_exists"), submitted("8"))
    assert isinstance(taken.outcome, e.TaskExists)
    assert fine.places()[0].id == "8"


def test_a_sealed_queue_refuses_all_at_once_and_an_answer_that_does_not_fit_is_unknown() -> None:
    desk = Desk()
    parts = [desk.add("a"), desk.add("b")]
    desk.fly(problem("queue_sealed"))
    assert all(isinstance(part.outcome, e.QueueSealed) for part in parts)
    part = desk.add("a")
    desk.fly(submitted("1", "2"))
    assert isinstance(part.outcome, e.OutcomeUnknown)


class Counter(World):
    """A world with the lane of reports."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = ReportLane(self.route, "", timeout_s=10)

    def add(self, report: g.OneReport, left_s: float = 10) -> ReportPart:
        part: ReportPart = Part([report], report_bytes(report), self.clock.now + left_s, lambda _: None)
        self.lane.queue.append(part)
        return part

    def fly(self, *events: Answer | Failure) -> None:
        self.play(self.lane.fly(), *events)


def done(task_id: str) -> leases.Completion:
    return leases.Completion(task_id=task_id, lease=7, result=msgspec.Raw(b"1"))


def failed(task_id: str) -> leases.Failure:
    return leases.Failure(task_id=task_id, lease=7)


def given_back(task_id: str) -> leases.Return:
    return leases.Return(task_id=task_id, lease=7, delay_ms=9)


def told(*items: g.ReportedTask) -> Answer:
    return reply("report", g.Reported(items=list(items)))


def taken(task_id: str, status: k.Status = "SUCCESS") -> g.ReportedTask:
    return g.ReportedTask(id=task_id, status=status, attempts=1)


def test_c8_reports_travel_together_and_each_is_told_its_own() -> None:
    counter = Counter()
    parts = [counter.add(one) for one in (given_back("a"), done("b"), failed("c"), done("d"))]
    refused = g.ReportedTask(id="d", code="lease_lost", detail="it is over")
    counter.fly(LOST, told(taken("b"), refused, taken("c", "RETRY"), taken("a", "QUEUED")))
    assert [send.call.path for send in counter.sends] == ["/v1/reports"] * 2
    assert len({(send.call.body, send.call.headers["idempotency-key"]) for send in counter.sends}) == 1
    assert [parts[place].places()[0].status for place in (0, 1, 2)] == ["QUEUED", "SUCCESS", "RETRY"]
    assert isinstance(parts[3].outcome, e.LeaseLost)
    assert parts[3].outcome.detail == "it is over"


@pytest.mark.parametrize(
    ("report", "path"),
    [(done("a"), "/v1/tasks/a/complete"), (failed("a"), "/v1/tasks/a/fail"), (given_back("a"), "/v1/tasks/a/release")],
)
def test_a_report_that_is_alone_is_the_plain_call(report: g.OneReport, path: str) -> None:
    counter = Counter()
    part = counter.add(report)
    counter.fly(reply("complete_task", k.TaskStatus(id="a", status="SUCCESS", attempts=1)))
    assert [send.call.path for send in counter.sends] == [path]
    assert part.places()[0].status == "SUCCESS"


def test_a_refusal_of_all_reports_is_found_out_one_by_one() -> None:
    counter = Counter()
    good, bad = counter.add(done("a")), counter.add(done("b"))
    fine = reply("complete_task", k.TaskStatus(id="a", status="SUCCESS", attempts=1))
    counter.fly(problem("validation_failed"), fine, problem("payload_too_large"))
    assert good.places()[0].id == "a"
    assert isinstance(bad.outcome, e.Invalid)


def test_what_came_of_reports_is_unknown_when_nobody_answers_or_the_answer_does_not_fit() -> None:
    counter = Counter()
    parts = [counter.add(done("a"), 2), counter.add(done("b"), 2)]
    counter.drive(counter.lane.fly(), lambda _: SILENT)
    for part in parts:
        assert isinstance(part.outcome, e.OutcomeUnknown)
        assert isinstance(part.outcome.request, g.Report)
    parts = [counter.add(done("a")), counter.add(done("b"))]
    counter.fly(told(taken("a")))
    assert all(isinstance(part.outcome, e.OutcomeUnknown) for part in parts)


def test_a_refusal_that_only_newer_nodes_know_is_told_with_its_code() -> None:
    counter = Counter()
    parts = [counter.add(done("a")), counter.add(done("b"))]
    counter.fly(told(taken("a"), g.ReportedTask(id="b", code="too_new", detail="why")))
    assert isinstance(parts[1].outcome, e.Rejected)
    assert (parts[1].outcome.code, parts[1].outcome.detail) == ("too_new", "why")
