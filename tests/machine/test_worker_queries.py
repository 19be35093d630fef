"""What is told of workers, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest

from quorl.cluster.machine import worker_queries
from quorl.cluster.machine.queries import BadCursor, BeatLog, Heartbeats, LastBeat
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import workers as w
from tests.machine.rig import START_MS
from tests.machine.rows import NOW_MS, Rows, insert


@pytest.fixture
def rows() -> Rows:
    rows = Rows()
    rows.queue()
    return rows


def told(rows: Rows, worker_id: int = 1) -> w.WorkerInfo:
    return rows.rig.ask(w.GetWorker(worker_id=worker_id), w.WorkerInfo)


def test_b18_a_worker_is_told_with_what_it_runs(rows: Rows) -> None:
    rows.worker("q", "other", handlers=("add",), concurrency=4, succeeded=1, failed=2, lost=3, beat_ms=NOW_MS - 250)
    assert (told(rows).state, told(rows).running) == ("FREE", [])
    rows.task("PROCESSING", worker_id=1)
    rows.task("SUCCESS", worker_id=1)
    info = told(rows)
    assert (info.worker_id, info.name, info.host, info.pid, info.version) == (1, "w1", "h", 7, "1")
    assert (info.status, info.state, info.quiet, info.standby, info.active) == ("ALIVE", "BUSY", False, False, True)
    assert (info.queues, info.concurrency, info.handlers) == (["q", "other"], 4, [w.Handler(name="add")])
    assert (info.heartbeat_ms, info.dead_after_ms, info.silent_ms) == (5_000, 15_000, 250)
    assert (info.registered_at, info.last_heartbeat) == (moment.to_text(START_MS),) * 2
    assert (info.leases, info.succeeded, info.failed, info.lost) == (1, 1, 2, 3)
    assert info.running == [
        w.RunningTask(id="t1", name="add", queue="q", token=11, started_at=moment.to_text(START_MS + 1))
    ]
    missing = rows.rig.ask(w.GetWorker(worker_id=9), w.WorkerNotFound)
    assert "no worker 9" in missing.detail


def test_of_very_many_leases_some_are_shown(rows: Rows) -> None:
    rows.worker()
    for _ in range(worker_queries.RUNNING_SHOWN_MAX + 1):
        rows.task("PROCESSING", worker_id=1)
    assert (len(told(rows).running), told(rows).leases) == (100, 101)


def test_b17_the_last_heartbeats_come_in_their_order(rows: Rows) -> None:
    rows.worker(beats=5)
    for number in range(2, 5):
        insert(rows.connection, "beats", worker_id=1, slot=number % 3, at_ms=START_MS + number)
    assert told(rows).beats == [moment.to_text(START_MS + number) for number in (2, 3, 4)]


def test_b14_a_stand_by_is_active_when_it_stands_in(rows: Rows) -> None:
    rows.worker("q", "other", standby=1)
    assert (told(rows).standby, told(rows).active) == (True, False)
    rows.connection.execute("UPDATE worker_queues SET active = 1 WHERE queue = 'other'")
    assert told(rows).active
    rows.worker(status=1)
    rows.worker(status=2, quiet=1)
    assert (told(rows, 2).status, told(rows, 2).active) == ("DEAD", False)
    assert (told(rows, 3).status, told(rows, 3).active, told(rows, 3).quiet) == ("LEFT", False, True)


def listed(rows: Rows, **asked: Any) -> list[int]:
    ids: list[int] = []
    cursor = ""
    for _ in range(100):
        page = rows.rig.ask(w.ListWorkers(**asked, cursor=cursor), w.WorkerList)
        ids += [info.worker_id for info in page.items]
        if page.next is None:
            return ids
        cursor = page.next
    raise AssertionError("the pages never end")


@pytest.mark.parametrize("looked_at", [1, 3, limits.LISTED_ROWS_MAX])
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_workers_are_listed_in_pages(rows: Rows, limit: int, looked_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LISTED_ROWS_MAX", looked_at)
    for status, queue in ((0, "q"), (1, "q"), (0, "r"), (2, "q"), (0, "q"), (1, "r")):
        rows.worker(queue, status=status)
    assert listed(rows, limit=limit) == [1, 2, 3, 4, 5, 6]
    assert listed(rows, limit=limit, status="ALIVE") == [1, 3, 5]
    assert listed(rows, limit=limit, status="DEAD") == [2, 6]
    assert listed(rows, limit=limit, queue="r") == [3, 6]
    assert listed(rows, limit=limit, queue="q", status="ALIVE") == [1, 5]
    assert listed(rows, limit=limit, queue="none") == []


def test_a_list_leaves_out_what_is_told_of_one(rows: Rows) -> None:
    rows.worker()
    rows.task("PROCESSING", worker_id=1)
    insert(rows.connection, "beats", worker_id=1, slot=0, at_ms=START_MS)
    (item,) = rows.rig.ask(w.ListWorkers(), w.WorkerList).items
    assert (item.leases, item.running, item.beats) == (1, [], [])
    with pytest.raises(BadCursor):
        rows.rig.machine.query(w.ListWorkers(cursor="x"))


def test_a_page_of_workers_is_bounded_in_bytes(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        rows.worker(handlers=("h" * 200,) * 10)
    monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 4_000)
    page = rows.rig.ask(w.ListWorkers(), w.WorkerList)
    assert [info.worker_id for info in page.items] == [1]
    assert listed(rows) == [1, 2, 3]


# -- heartbeats ----------------------------------------------------------------------------------------------------
def test_b17_the_newest_life_of_a_name_counts(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, status, at_ms in (
        ("b", 2, 1),
        ("b", 0, 2),
        ("a", 1, 3),
        ("c", 0, 4),
        ("d", 1, 5),
        ("d", 2, 6),
        ("e", 2, 7),
        ("e", 1, 8),
    ):
        rows.worker(name=name, status=status, beat_wall_ms=START_MS + at_ms)  # fmt: skip

    def beat(at_ms: int, status: Any) -> LastBeat:
        return LastBeat(last_heartbeat=moment.to_text(START_MS + at_ms), status=status)

    found = rows.rig.ask(Heartbeats(), BeatLog).beats
    assert found == {"a": beat(3, "DEAD"), "b": beat(2, "ALIVE"), "c": beat(4, "ALIVE"), "e": beat(8, "DEAD")}
    assert list(found) == sorted(found)
    monkeypatch.setattr(limits, "LISTED_ROWS_MAX", 1)
    assert list(rows.rig.ask(Heartbeats(), BeatLog).beats) == ["b", "c", "e"]
    monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 200)
    assert list(rows.rig.ask(Heartbeats(), BeatLog).beats) == ["b", "c"]


def test_without_workers_there_are_no_heartbeats(rows: Rows) -> None:
    assert rows.rig.ask(Heartbeats(), BeatLog).beats == {}


# -- directives ----------------------------------------------------------------------------------------------------
def directives(rows: Rows, tokens: tuple[int, ...] | None = None) -> e.Directives:
    return rows.rig.ask(e.GetDirectives(worker_id=1, tokens=tokens), e.Directives)


def test_a_worker_is_told_what_to_stop(rows: Rows) -> None:
    rows.worker()
    rows.worker()
    assert directives(rows) == e.Directives()
    rows.task("PROCESSING", worker_id=1)
    rows.task("PROCESSING", worker_id=1, cancel=1)
    rows.task("PROCESSING", worker_id=2, cancel=1)
    rows.task("SUCCESS", worker_id=1)
    assert directives(rows) == e.Directives(cancel=["t2"])
    assert directives(rows, (11, 12, 13, 14, 999)) == e.Directives(cancel=["t2"], lost=[13, 14, 999])


def test_a_token_that_this_node_has_not_seen_yet_is_not_called_lost(rows: Rows) -> None:
    rows.worker()
    assert directives(rows, (999, 1000, 1001)).lost == [999]


def test_a_worker_is_told_to_be_quiet_or_to_end(rows: Rows) -> None:
    rows.worker(quiet=1, terminate=1)
    assert directives(rows) == e.Directives(quiet=True, terminate=True)


def test_b6_a_worker_is_told_when_nothing_will_come(rows: Rows) -> None:
    rows.worker("q", "r")
    rows.connection.execute("UPDATE queues SET sealed = 1, success = 5")
    assert not directives(rows).drained  # the other queue may still come
    rows.queue("r", sealed=1)
    assert directives(rows).drained
    for word in ("scheduled", "queued", "processing", "retry"):
        rows.connection.execute(f"UPDATE queues SET {word} = 1 WHERE name = 'r'")
        assert not directives(rows).drained
        rows.connection.execute(f"UPDATE queues SET {word} = 0")


def test_a_worker_that_is_not_alive_is_told_so(rows: Rows) -> None:
    rows.worker(status=1)
    rows.worker(status=2)
    assert rows.rig.ask(e.GetDirectives(worker_id=1), w.WorkerNotAlive).detail == "Worker 1 is DEAD."
    assert rows.rig.ask(e.GetDirectives(worker_id=2), w.WorkerNotAlive).detail == "Worker 2 is LEFT."
    assert "no worker 3" in rows.rig.ask(e.GetDirectives(worker_id=3), w.WorkerNotFound).detail


@pytest.mark.parametrize(
    "statement",
    ["_WORKER", "_TOLD", "_QUEUES", "_STANDS_IN", "_RUNNING", "_BEATS", "_STOPPED", "_HELD", "_AFTER", "_ALIVE_AFTER"],
)
def test_workers_are_found_without_looking_at_others(rows: Rows, statement: str) -> None:
    sql = getattr(worker_queries, statement)
    plan = [step for step in rows.plan_of(sql, *[1] * sql.count("?")) if "TEMP B-TREE" not in step]
    assert plan
    assert all(step.startswith("SEARCH") for step in plan), plan
