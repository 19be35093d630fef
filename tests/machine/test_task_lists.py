"""Lists of tasks: every filter gives the same tasks, whichever way they are found, in bounded steps."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from quorl.cluster.machine import pages, task_lists
from quorl.cluster.machine.queries import BadCursor
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from tests.machine.rig import START_MS
from tests.machine.rows import Rows


def page(rows: Rows, **asked: Any) -> k.TaskList:
    return rows.rig.ask(k.ListTasks(**asked), k.TaskList)


def listed(rows: Rows, **asked: Any) -> list[str]:
    """The ids of all tasks of a list, page by page."""
    ids: list[str] = []
    cursor = ""
    for _ in range(1_000):
        found = page(rows, **asked, cursor=cursor)
        ids += [item.id for item in found.items]
        if found.next is None:
            return ids
        cursor = found.next
    raise AssertionError("the pages never end")


@pytest.fixture(scope="module")
def many() -> tuple[Rows, list[dict[str, Any]]]:
    """A state with tasks of every kind, and what each is."""
    rows, dice, made = Rows(), Random(7), []
    for name, partitions in (("a", 0), ("b", 3), ("empty", 0), ("gone", 0)):
        rows.queue(name, partitions=partitions, deleted=int(name == "gone"))
    for _ in range(3):
        rows.worker("a", "b")
    for _ in range(150):
        status = dice.choice(k.STATES)
        queue = dice.choice(("a", "b", "gone")) if status in k.FINAL else dice.choice(("a", "b"))
        values: dict[str, Any] = {"name": dice.choice(("add", "divide")), "rank": dice.choice((0, 4, 9))}
        values["partition"] = dice.randrange(3) if queue == "b" else -1
        if status == "PROCESSING" or (status != "SCHEDULED" and dice.random() < 0.5):
            values["worker_id"] = dice.randrange(1, 4)
        ordinal = rows.task(status, {"a": 1, "b": 2, "gone": 4}[queue], **values)
        made.append({"id": f"t{ordinal}", "status": status, "queue": queue, "worker_id": None, **values})
    return rows, made


ASKED = [
    {},
    *({"status": status} for status in k.STATES),
    {"status": "QUEUED,PROCESSING,FAILED"},
    {"name": "add"},
    {"worker_id": 2},
    {"worker_id": 2, "status": "PROCESSING"},
    {"worker_id": 9, "status": "PROCESSING"},
    {"worker_id": 2, "status": "QUEUED"},
    {"status": "FAILED", "name": "divide", "worker_id": 1},
    *({"queue": queue, **more} for queue in ("a", "b", "empty") for more in ({}, {"status": "PROCESSING,RETRY"}, {"name": "add"})),
]  # fmt: skip


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("merged", [True, False])
def test_a_list_has_exactly_what_was_asked_for(
    many: tuple[Rows, list[dict[str, Any]]],
    asked: dict[str, Any],
    order: str,
    merged: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, made = many
    if not merged:
        monkeypatch.setattr(task_lists, "STREAMS_MAX", 0)
        monkeypatch.setattr(task_lists, "QUEUES_MERGED_MAX", 0)
    wanted = [
        task["id"]
        for task in made
        if task["status"] in asked.get("status", task["status"]).split(",")
        and task["queue"] == asked.get("queue", task["queue"])
        and task["name"] == asked.get("name", task["name"])
        and (
            "worker_id" not in asked
            or (task["worker_id"] == asked["worker_id"] and task["status"] in {*k.FINAL, "PROCESSING"})
        )
    ]
    if order == "newest":
        wanted.reverse()
    for limit in (7, 1000):
        assert listed(rows, **asked, order=order, limit=limit) == wanted


def test_a_page_looks_at_few_rows_and_goes_on_behind_them(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LISTED_ROWS_MAX", 4)
    for number in range(10):
        rows.task(name="rare" if number in {1, 9} else "add")
    first = page(rows, name="rare")
    assert ([item.id for item in first.items], first.next) == (["t10"], pages.encode_cursor("task-newest", "7"))
    second = page(rows, name="rare", cursor=first.next)
    assert (second.items, second.next) == ([], pages.encode_cursor("task-newest", "3"))
    third = page(rows, name="rare", cursor=second.next)
    assert ([item.id for item in third.items], third.next) == (["t2"], None)
    assert listed(rows, name="none", order="oldest") == []


def test_a_page_is_bounded_in_bytes_but_never_empty(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 1_500)
    for _ in range(4):
        rows.task(body='{"args":["' + "x" * 500 + '"]}')
    assert [item.id for item in page(rows).items] == ["t4", "t3"]
    assert listed(rows) == ["t4", "t3", "t2", "t1"]
    monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 1)
    assert listed(rows) == ["t4", "t3", "t2", "t1"]


@pytest.fixture
def rows() -> Rows:
    rows = Rows()
    rows.queue()
    rows.worker()
    return rows


def test_a_task_is_shown_in_a_few_words(rows: Rows) -> None:
    rows.task("FAILED", worker_id=1, attempts=3, lost=1, reason="ERROR", body='{"args":[ 1 ]}', partition=2)
    for number in (1, 2):
        rows.attempt(1, number, "failed", k.TaskError(type="ValueError", message=f"bad\n  number {number}"))
    (item,) = page(rows).items
    assert (item.id, item.name, item.queue, item.partition, item.status) == ("t1", "add", "q", 2, "FAILED")
    assert (item.attempts, item.max_attempts, item.lost, item.priority) == (3, 3, 1, 5)
    assert (item.worker_id, item.worker, item.reason, bytes(item.args)) == (1, "w1", "ERROR", b"[ 1 ]")
    assert item.error == "ValueError: bad number 2"
    assert item.created_at.startswith("2023-11-14T22:13:20.000")
    assert (item.started_at, item.finished_at) == ("2023-11-14T22:13:20.001Z", "2023-11-14T22:13:20.002Z")
    assert START_MS == 1_700_000_000_000


def test_what_is_long_is_left_out_or_cut(rows: Rows) -> None:
    long = '{"args":["' + "x" * task_lists.ARGUMENT_BYTES_SHOWN_MAX + '"]}'
    rows.task("RETRY", worker_id=1, attempts=1, body=long)
    rows.attempt(1, 1, "failed", k.TaskError(type="E", message="m" * 1000))
    rows.task("QUEUED", worker_id=1)
    rows.attempt(2, 1, "released")
    rows.task("FAILED", worker_id=1)
    rows.attempt(3, 1, "failed", k.TaskError(type="KeyError", message=" "))
    rows.task("SUCCESS", worker_id=1, attempts=2, leases=2)
    rows.attempt(4, 1, "failed", k.TaskError())
    success, failed, queued, retry = page(rows).items
    assert (success.error, failed.error, queued.error) == (None, "KeyError", None)
    assert (bytes(retry.args), len(retry.error or ""), retry.worker) == (b"null", 300, None)
    assert (bytes(queued.args), queued.partition) == (b"[]", None)


def test_a_queue_that_is_not_there_has_no_list(rows: Rows) -> None:
    rows.queue("emails")
    rows.queue("gone", deleted=1)
    missing = rows.rig.ask(k.ListTasks(queue="email"), q.QueueNotFound)
    assert missing.detail == 'There is no queue "email". Did you mean "emails"?'
    assert rows.rig.ask(k.ListTasks(queue="gone"), q.QueueNotFound).detail == 'There is no queue "gone".'


@pytest.mark.parametrize(
    "cursor", ["x", pages.encode_cursor("task-oldest", "3"), pages.encode_cursor("task-newest", "x")]
)
def test_a_cursor_of_another_list_is_refused(rows: Rows, cursor: str) -> None:
    with pytest.raises(BadCursor):
        rows.rig.machine.query(k.ListTasks(cursor=cursor))


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize(
    ("condition", "values", "index"),
    [
        (task_lists._READY, (1, -1, 4), "tasks_ready"),
        (task_lists._LEASED, (1,), "tasks_leased"),
        (task_lists._RESTING, (1, 5), "tasks_resting"),
        ("", (), "INTEGER PRIMARY KEY"),
    ],
)
def test_every_range_is_read_from_its_index_in_order(
    rows: Rows, condition: str, values: tuple[int, ...], index: str, order: str
) -> None:
    plan = rows.plan_of(f"{task_lists._COLUMNS} {condition} {task_lists._BEHIND[order]}", *values, 5)
    assert len(plan) == 1
    assert plan[0].startswith("SEARCH tasks USING")
    assert index in plan[0]
    assert "ordinal" in plan[0] or "rowid" in plan[0]


def test_a_page_of_the_largest_is_as_small_as_others(rows: Rows) -> None:
    body = '{"args":["' + "x" * 900 + '"]}'
    for _ in range(1_000):
        rows.task(body=body)
    found = page(rows, limit=1000)
    assert len(found.items) == 1000
    assert len(msgspec.json.encode(found)) <= limits.PAGE_BYTES_MAX
