"""Submits: all or none, what makes two tasks the same, where a task goes, what is refused."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from quorl.cluster.machine import ids
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from tests.machine.desk import Desk, new

ARGS = msgspec.Raw(b'["1","ejnf"]')


def submitted(desk: Desk, *tasks: s.NewTask, queue: str = "q") -> s.Submitted:
    return desk.do(s.Submit(queue=queue, tasks=list(tasks)), s.Submitted)


def test_b5_a_submit_creates_its_queue_and_its_tasks_in_one_entry() -> None:
    desk = Desk()
    one = submitted(desk, new(id="x", args=ARGS))
    assert (one.id, one.status, one.existing, one.http_status(201)) == ("x", "QUEUED", False, 201)
    many = submitted(desk, new(), new(delay_ms=5))
    assert (many.id, [item.status for item in many.items]) == (None, ["QUEUED", "SCHEDULED"])
    queue = desk.queue()
    assert (queue.default_attempts, queue.submitted, queue.partitions) == (3, 3, 0)
    assert desk.counts() == {"queued": 2, "scheduled": 1}
    task = desk.task("x")
    assert (bytes(task.args), task.attempts, task.max_attempts, task.max_lost) == (
        bytes(ARGS),
        0,
        3,
        limits.LOST_DEFAULT,
    )
    desk.sound()


def test_the_leaders_defaults_come_from_the_command() -> None:
    desk = Desk()
    command = s.Submit(queue="q", tasks=[new(id="x")]).sealed()
    desk.do(msgspec.structs.replace(command, defaults=q.Defaults(attempts=7)), s.Submitted)
    assert (desk.task("x").max_attempts, desk.queue().default_attempts) == (7, 7)
    desk.put(default_attempts=2)
    assert desk.queue().default_attempts == 2
    desk.put("r")
    assert desk.queue("r").default_attempts == 3


def test_c5_an_id_that_comes_again_is_the_same_task_or_refused() -> None:
    desk = Desk()
    first = new(id="x", args=ARGS, priority=3)
    submitted(desk, first)
    again = submitted(desk, first)
    assert (again.id, again.existing, again.http_status(201)) == ("x", True, 200)
    for other in (new(id="x"), new("mul", id="x", args=ARGS, priority=3), new(id="x", args=ARGS, priority=4)):
        assert desk.refused(s.Submit(queue="q", tasks=[other])) == "task_exists"
    assert desk.refused(s.Submit(queue="another", tasks=[first])) == "task_exists"
    assert [item.name for item in desk.ask(q.ListQueues(), q.QueueList).items] == ["q"]
    mixed = submitted(desk, new(id="y"), first, new(id="y"))
    assert [(item.id, item.existing) for item in mixed.items] == [("y", False), ("x", True), ("y", True)]
    refused = s.Submit(queue="q", tasks=[new(id="z"), new("mul", id="z")])
    assert desk.refused(refused) == "task_exists"
    assert desk.counts() == {"queued": 2}
    desk.enrol("a")
    for lease in desk.claim(1, 9):
        desk.complete(lease)
    assert submitted(desk, first).items[0].status == "SUCCESS"
    desk.sound()


def test_d15_the_same_task_submitted_in_another_trace_is_the_same() -> None:
    desk = Desk()
    traces = [None, *(f"00-{number:032x}-{number:016x}-01" for number in (1, 2))]
    for first in traces:
        task_id = f"id-{first}"
        submitted(desk, new(id=task_id, args=ARGS, traceparent=first, tracestate="a=1"))
        for other in traces:
            again = submitted(desk, new(id=task_id, args=ARGS, traceparent=other))
            assert again.existing
        assert desk.refused(s.Submit(queue="q", tasks=[new(id=task_id, traceparent=first)])) == "task_exists"
        assert desk.task(task_id).traceparent == first
        assert desk.task(task_id).tracestate == (first and "a=1")
    desk.sound()


def test_ids_are_made_from_the_leaders_dice_and_begin_with_the_moment() -> None:
    desk, other = Desk(), Desk()
    made = [submitted(one, *[new()] * 50).items for one in (desk, other)]
    assert made[0] == made[1]
    texts = [item.id for item in made[0]]
    pattern = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(pattern.fullmatch(text) for text in texts)
    assert len(set(texts)) == 50
    assert {int(text.replace("-", "")[:12], 16) for text in texts} == {desk.wall_ms}
    assert texts == sorted(texts)
    one, same, other_seed = (ids.head(1, ids.die(seed)) for seed in (-1, 2**64 - 1, 2))
    assert one == same != other_seed


def test_b4_a_task_is_found_by_its_id_whoever_made_that_and_whatever_it_looks_like() -> None:
    desk = Desk()
    made = [desk.submit(name="made") for _ in range(3)]
    like = [f"{ids.head(desk.wall_ms, 7)}{ordinal:012x}" for ordinal in (1, 4, 5, 2**48 - 1)]
    given = [desk.submit(name="given", id=task_id) for task_id in (*like[:3], "a", made[0].upper())]
    assert given[:3] == like[:3]
    for name, task_ids in (("made", made), ("given", given)):
        for task_id in task_ids:
            assert (desk.task(task_id).id, desk.task(task_id).name) == (task_id, name)
    assert desk.refused(k.CancelTask(id=like[3])) == "task_not_found"
    assert desk.refused(s.Submit(queue="q", tasks=[new(id=made[1])])) == "task_exists"
    assert [desk.cancel(task_id).status for task_id in (made[2], like[1])] == ["CANCELLED", "CANCELLED"]
    assert desk.sql("SELECT count(*) FROM tasks WHERE given_id IS NULL") == [(3,)]
    desk.sound()


def test_b4_tasks_without_a_key_are_dealt_out_in_turn_and_a_key_decides() -> None:
    desk = Desk()
    desk.put(partitions=3)
    for count in (1, 4, 2):
        submitted(desk, *[new()] * count)
    submitted(desk, *[new(key="k")] * 4)
    rows = desk.sql("SELECT partition, count(*) FROM tasks GROUP BY partition ORDER BY 1")
    keyed = desk.sql("SELECT DISTINCT partition FROM tasks WHERE ordinal > 7")
    assert len(keyed) == 1
    assert [count - 4 * (partition == keyed[0][0]) for partition, count in rows] == [3, 2, 2]
    assert desk.task(desk.id_of(1)).partition == 0
    desk.sound()


def test_a_sealed_queue_and_a_full_one_take_nothing() -> None:
    desk = Desk()
    desk.put(max_depth=3)
    submitted(desk, new(id="a"), new(id="b"))
    refused = s.Submit(queue="q", tasks=[new(), new()])
    value = desk.outcome(refused, "key").value
    assert isinstance(value, q.QueueFull)
    desk.enrol("w")
    desk.claim(1)
    assert not desk.outcome(refused, "key").replayed  # it may pass later, so nothing was kept
    desk.patch(sealed_=True)
    assert desk.refused(s.Submit(queue="q", tasks=[new()])) == "queue_sealed"
    assert submitted(desk, new(id="a")).existing
    desk.patch(sealed_=False, max_depth=0)
    submitted(desk, *[new()] * 9)
    desk.sound()


GOOD = s.QueuedTask("x", "add", b"{}", 5, None, 0, None, None, None, None, None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": ".."},
        {"id": "x" * 201},
        {"name": ""},
        {"name": "x" * 201},
        {"priority": 10},
        {"priority": -1},
        {"delay_ms": -1},
        {"delay_ms": limits.DELAY_MS_MAX + 1},
        {"run_at_ms": -1},
        {"run_at_ms": 2**60},
        {"expires_ms": 0},
        {"expires_ms": 2**64 - 1},
        {"timeout_ms": 0},
        {"max_attempts": 0},
        {"max_attempts": 101},
        {"max_lost": 0},
        {"backoff": q.Backoff(kind="list")},
        {"body": b"["},
        {"body": b'{"key":1}'},
    ],
)
def test_what_the_checks_before_the_log_never_let_pass_spoils_the_submit(change: dict[str, Any]) -> None:
    desk = Desk()
    bad = msgspec.structs.replace(GOOD, **change)
    assert desk.refused(s.SubmitBatch(queue="q", tasks=[GOOD, bad])) == "command_failed"
    assert desk.sql("SELECT count(*) FROM tasks") == desk.sql("SELECT count(*) FROM queues") == [(0,)]
    desk.do(s.SubmitBatch(queue="q", tasks=[GOOD]), s.Submitted)
    desk.sound()


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 201])
def test_a_queue_has_a_name_that_a_url_can_carry(name: str) -> None:
    assert Desk().refused(s.SubmitBatch(queue=name, tasks=[GOOD])) == "command_failed"


def test_a_submit_of_nothing_is_none() -> None:
    assert Desk().refused(s.SubmitBatch(queue="q", tasks=[])) == "command_failed"


def test_a_repeat_under_its_key_submits_nothing_twice() -> None:
    desk = Desk()
    command = s.Submit(queue="q", tasks=[new(), new()])
    first, second = desk.outcome(command, "k"), desk.outcome(command, "k")
    assert (first.value, second.replayed) == (second.value, True)
    assert desk.counts() == {"queued": 2}
