"""A submit that is refused for its bytes, held against what is there by what it says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quorl.cluster.machine.sameness import Compare, Likeness
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.entry import digest_of, encode_command
from quorl.cluster.protocol.problems import IdempotencyKeyReused
from tests.machine.desk import Desk, new

TRACE = f"00-{1:032x}-{2:016x}-01"


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def task(**options: Any) -> s.NewTask:
    plain: dict[str, Any] = {"id": "x", "args": raw('[1,{"a":1,"b":[2.5,"é"]}]'), "kwargs": raw('{"c":1,"d":2}')}
    return new(**{**plain, "meta": {"one": "1", "two": "2"}, "traceparent": TRACE, **options})


SAME = (
    task(),
    task(args=raw('[ 1, {"b": [2.5, "\\u00e9"],\n"a": 1} ]')),
    task(kwargs=raw('{"d": 2, "c": 1}'), traceparent=None),
    task(meta={"two": "2", "one": "1"}),
)
OTHER = (
    (task(args=raw("[1]")), 'args ([1,{"a":1,"b":[2.5,"é"]}] there, [1] here)'),
    (task(args=raw('[1.0,{"a":1,"b":[2.5,"é"]}]')), 'args ([1,{"a":1,"b":[2.5,"é"]}] there, [1.0,{"a":1,"b":[2.5,"é"]}] here)'),
    (task(args=raw(f"[{list(range(40))}]")), "args"),
    (task(kwargs=raw('{"c":1}')), 'kwargs ({"c":1,"d":2} there, {"c":1} here)'),
    (new("mul", **{f: getattr(task(), f) for f in ("id", "args", "kwargs", "meta")}), 'name ("add" there, "mul" here)'),
    (task(priority=7, meta=None), 'meta ({"one":"1","two":"2"} there, null here) and priority (5 there, 7 here)'),
    (task(key="k", tags=["t"]), 'key (null there, "k" here) and tags (null there, ["t"] here)'),
    (task(max_attempts=9), "max_attempts (3 there, 9 here)"),
    (task(max_lost=9, timeout_ms=5), "max_lost (5 there, 9 here) and timeout_ms (null there, 5 here)"),
    (task(backoff=q.Backoff(kind="fixed")), "backoff"),
)  # fmt: skip


def like(desk: Desk, *tasks: s.NewTask, queue: str = "q", key: str | None = None) -> Likeness:
    batch = s.Submit(queue=queue, tasks=list(tasks)).untraced().sealed()
    return desk.ask(Compare(submit=batch, key=key), Likeness)


def under(desk: Desk, key: str, *tasks: s.NewTask, queue: str = "q") -> Any:
    """What a submit under a key comes to, sealed as a node does that."""
    request = s.Submit(queue=queue, tasks=list(tasks))
    return desk.outcome(request, key, digest_of("submit", encode_command(request.untraced()))).value


@pytest.mark.parametrize("again", SAME)
def test_c5_a_task_that_comes_again_in_other_json_is_the_same(again: s.NewTask) -> None:
    desk = Desk()
    desk.do(s.Submit(queue="q", tasks=[task()]), s.Submitted)
    there = s.SubmittedTask(id="x", status="QUEUED", existing=True)
    answer = s.Submitted(items=[there], id="x", status="QUEUED", existing=True)
    assert like(desk, again) == Likeness(same=answer)
    assert like(desk, again, again) == Likeness(same=s.Submitted(items=[there, there]))
    desk.enrol("a")
    (lease,) = desk.claim(1)
    desk.complete(lease)
    assert like(desk, again).same == s.submitted([msgspec.structs.replace(there, status="SUCCESS")])


@pytest.mark.parametrize(("other", "differs"), OTHER, ids=[differs for _, differs in OTHER])
def test_c5_what_differs_in_a_task_that_is_another_is_said(other: s.NewTask, differs: str) -> None:
    desk = Desk()
    desk.do(s.Submit(queue="q", tasks=[task()]), s.Submitted)
    assert desk.refused(s.Submit(queue="q", tasks=[other])) == "task_exists"
    assert like(desk, other) == Likeness(differs=differs)
    assert under(desk, "k", msgspec.structs.replace(task(), id="y")).items[0].id == "y"
    assert isinstance(under(desk, "k", other), IdempotencyKeyReused)
    assert like(desk, other, key="k").differs == differs


def test_c5_no_arguments_are_the_same_as_empty_ones() -> None:
    desk = Desk()
    desk.do(s.Submit(queue="q", tasks=[new(id="x")]), s.Submitted)
    empty = new(id="x", args=raw("[]"), kwargs=raw("{ }"))
    assert desk.refused(s.Submit(queue="q", tasks=[empty])) == "task_exists"
    assert like(desk, empty).same


@pytest.mark.parametrize(
    ("first", "again", "same"),
    [
        ("[1e3,0.1,-0.0]", "[1000.0, 0.10, -0.00]", True),
        ("[0.1]", "[0.10000000000000000001]", False),
        ("[12345678901234567.89]", "[12345678901234567.88]", False),
        ("[12345678901234567.89]", "[ 12345678901234567.89 ]", True),
        ("[9007199254740993.0]", "[9007199254740992.0]", False),
        ("[12345678901234567.89]", '["12345678901234567.89"]', False),
        ("[123456789012345678901]", "[123456789012345678902]", False),
        ("[123456789012345678901]", "[123456789012345678901.0]", False),
        ("[123456789012345678901]", "[123456789012345678901e0]", False),
        ("[0.0]", "[-0.0]", False),
    ],
)
def test_c5_numbers_are_the_same_by_every_digit(first: str, again: str, same: bool) -> None:
    desk = Desk()
    desk.do(s.Submit(queue="q", tasks=[new(id="x", args=raw(first))]), s.Submitted)
    assert (like(desk, new(id="x", args=raw(again))).same is not None) == same


def test_c5_another_queue_and_what_is_not_kept_are_told_too() -> None:
    desk = Desk()
    desk.do(s.Submit(queue="q", tasks=[task(backoff=q.Backoff(kind="linear"))]), s.Submitted)
    assert like(desk, task(backoff=q.Backoff(kind="linear")), queue="r").differs == 'queue ("q" there, "r" here)'
    later = task(backoff=q.Backoff(kind="linear"), delay_ms=5)
    assert "delay" in like(desk, later).differs
    assert like(desk, task()).differs == "backoff"


def test_c5_a_retry_by_hand_makes_the_same_submit_no_other_one_and_is_not_what_differs() -> None:
    """It raises the task's limits above what was said of them."""
    desk = Desk()
    said = task(max_attempts=1, max_lost=2)
    keyed = msgspec.structs.replace(said, id=None)
    desk.do(s.Submit(queue="q", tasks=[said]), s.Submitted)
    first = under(desk, "k", keyed)
    worker = desk.enrol("a")
    for lease in desk.claim(worker, 2):
        desk.fail(lease)
        desk.do(k.RetryTask(id=lease.id), k.TaskStatus)
    assert (desk.task("x").max_attempts, desk.task("x").max_lost) == (4, 5)
    there = s.submitted([s.SubmittedTask(id="x", status="QUEUED", existing=True)])
    spelt = msgspec.structs.replace(said, kwargs=raw('{"d": 2, "c": 1}'))
    assert desk.do(s.Submit(queue="q", tasks=[said]), s.Submitted) == there
    assert like(desk, said) == like(desk, spelt) == Likeness(same=there)
    assert under(desk, "k", keyed) == first
    assert like(desk, msgspec.structs.replace(spelt, id=None), key="k") == Likeness(same=first)
    other = msgspec.structs.replace(said, args=raw("[1]"))
    assert like(desk, other).differs == 'args ([1,{"a":1,"b":[2.5,"é"]}] there, [1] here)'
    assert like(desk, msgspec.structs.replace(other, id=None), key="k").differs == like(desk, other).differs
    for hidden in (msgspec.structs.replace(said, delay_ms=5), msgspec.structs.replace(said, max_attempts=4)):
        assert like(desk, hidden).differs.startswith("an option that is not kept as it was said")
        assert like(desk, msgspec.structs.replace(hidden, id=None), key="k") == Likeness()


def test_c5_of_several_only_all_are_the_same() -> None:
    desk = Desk()
    made = desk.submit(name="made")
    desk.do(s.Submit(queue="q", tasks=[task()]), s.Submitted)
    for fresh in (new(id="fresh"), new(), new(id="fresh", args=raw("[1]"))):
        assert "by itself" in like(desk, SAME[1], fresh).differs
    assert "name" in like(desk, new("mul", id="x"), new(id="fresh")).differs
    assert like(desk, new("made", id=made)).differs, "what got its id here was never submitted under it"


def test_c5_a_submit_that_comes_again_under_its_key_in_other_json_gets_the_first_answer() -> None:
    desk = Desk()
    nameless = [msgspec.structs.replace(one, id=None) for one in SAME]
    first = under(desk, "k", nameless[0], new("mul"))
    for again in nameless[1:]:
        assert isinstance(under(desk, "k", again, new("mul", args=raw("[]"))), (IdempotencyKeyReused, s.Submitted))
        assert like(desk, again, new("mul", args=raw("[]")), key="k") == Likeness(same=first)
    assert desk.counts() == {"queued": 2}
    assert like(desk, nameless[1], key="k").differs == "the number of tasks (2 first, 1 now)"
    assert like(desk, nameless[1], new("sub"), key="k").differs == 'name ("mul" there, "sub" here)'
    assert like(desk, nameless[1], new("mul", delay_ms=5), key="k") == Likeness()


def test_c5_nothing_is_known_of_a_key_without_tasks_that_are_there() -> None:
    desk = Desk()
    assert like(desk, task(), key="k") == Likeness()
    desk.submit(id="x")
    assert isinstance(under(desk, "k", task()), k.TaskExists)
    assert like(desk, task(), key="k") == Likeness()
    assert under(desk, "j", new(id="gone"), new(id="stays")).items
    desk.cancel("gone")
    desk.do(k.ForgetTask(id="gone"), k.TaskForgotten)
    assert like(desk, new(id="gone"), new(id="stays"), key="j") == Likeness()


def test_c5_receipts_that_are_not_known_by_heart_are_not_looked_for() -> None:
    desk = Desk()
    under(desk, "k", task())
    desk.machine._state.receipt_rows = None
    assert like(desk, SAME[1], key="k") == Likeness()
