"""The parts of a worker one by one: the ledger, the pace, finding and reloading what it runs."""

from __future__ import annotations

import itertools
import pathlib
import sys
import threading

import msgspec
import pytest
from click import BadParameter

from quorl.client import App, demo
from quorl.client.cli.misuse import Advised
from quorl.client.cli.work import load, supervise
from quorl.client.context import Context, Stopped
from quorl.client.errors import Invalid
from quorl.client.worker_ledger import Holding, Ledger
from quorl.client.worker_pace import STREAK, Pace
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k

NULL = msgspec.Raw(b"null")


@pytest.fixture
def ledger() -> Ledger:
    numbers = itertools.count()
    return Ledger(1, "w", 15, lambda: f"key-{next(numbers)}")


def holding(token: int, task_id: str | None = None) -> Holding:
    task = e.ClaimedTask(
        id=task_id or f"t-{token}",
        name="x",
        args=msgspec.Raw(b"[]"),
        kwargs=msgspec.Raw(b"{}"),
        attempt=1,
        max_attempts=3,
        lease=e.Lease(token=token, expires_in_ms=1),
        queue="q",
        partition=None,
        priority=5,
        timeout_ms=None,
        checkpoint=NULL,
        meta={},
        traceparent=None,
    )
    return Holding(task, Context())


def claimed(ledger: Ledger, *holdings: Holding) -> None:
    ledger.close_claim(ledger.open_claim(), holdings)


def completion(one: Holding, size: int = 1) -> e.Completion:
    return e.Completion(task_id=one.task.id, lease=one.task.lease.token, result=msgspec.Raw(b'"' + b"x" * size + b'"'))


def failure(one: Holding) -> e.Failure:
    return e.Failure(task_id=one.task.id, lease=one.task.lease.token, error=k.TaskError(message="no"))


# -- the ledger ----------------------------------------------------------------------------------------------------
def test_a_beat_names_what_is_held_and_what_is_waited_for(ledger: Ledger) -> None:
    first, second = ledger.open_claim(), ledger.open_claim()
    assert ledger.beat() == e.Beat(tokens=(), claims=(first, second), claimed=second)
    one = holding(7)
    ledger.close_claim(first, [one])
    assert ledger.beat() == e.Beat(tokens=(7,), claims=(second,), claimed=second)
    ledger.report(one, completion(one))
    batch = ledger.take()
    assert batch is not None
    assert ledger.beat().tokens == (7,), "not answered yet"
    ledger.answered(batch, [])
    assert ledger.beat().tokens == ()
    ledger.close_claim(second)
    assert ledger.idle


def test_d7_a_batch_keeps_its_body_and_key_until_it_is_answered(ledger: Ledger) -> None:
    one, other = holding(1), holding(2)
    claimed(ledger, one, other)
    assert ledger.report(one, completion(one))
    first = ledger.take()
    assert first is not None
    ledger.unanswered(first)
    assert ledger.report(other, completion(other))
    assert ledger.take() is first
    second = ledger.take()
    assert second is not None
    assert second.key != first.key
    ledger.unanswered(second)
    assert not ledger.idle
    assert ledger.undelivered == 2
    assert ledger.take() is second


def test_what_was_saved_arrives_before_the_failure_and_not_after_a_result(ledger: Ledger) -> None:
    one, other = holding(1), holding(2)
    claimed(ledger, one, other)
    for each in (one, other):
        assert ledger.progress(each, 10, "x")
        assert not ledger.checkpoint(each, b"1"), "told once"
    ledger.report(one, failure(one))
    ledger.report(other, completion(other))
    first = ledger.take()
    assert first is not None
    assert [report.lease for report in first.progress] == [1]
    assert (first.progress[0].progress, first.progress[0].note, bytes(first.progress[0].checkpoint)) == (10, "x", b"1")  # type: ignore[arg-type]
    assert [report.lease for report in first.ending()] == [2]
    second = ledger.take()
    assert second is not None
    assert [report.lease for report in second.ending()] == [1]
    assert ledger.take() is None


def test_batches_are_bounded(ledger: Ledger) -> None:
    held = [holding(number + 1) for number in range(limits.SETTLE_TASKS_MAX + 1)]
    claimed(ledger, *held)
    for one in held:
        ledger.report(one, completion(one))
    assert list(map(len, filter(None, [ledger.take(), ledger.take()]))) == [limits.SETTLE_TASKS_MAX, 1]
    large = [holding(number + 5000) for number in range(3)]
    claimed(ledger, *large)
    for one in large:
        ledger.report(one, completion(one, 200_000))
    sizes = [ledger.take(), ledger.take()]
    assert [len(batch or ()) for batch in sizes] == [2, 1]
    assert all(len(msgspec.json.encode(b.sync(1))) < limits.REQUEST_BYTES_MAX for b in sizes if b is not None)


def test_a_refusal_of_an_earlier_lease_is_none_of_the_later_one(ledger: Ledger) -> None:
    """A task whose time was over comes back to the same worker, and both reports wait for the same call."""
    earlier, later = holding(3, "t"), holding(10, "t")
    claimed(ledger, earlier)
    ledger.report(earlier, completion(earlier))
    claimed(ledger, later)
    ledger.report(later, completion(later))
    batch = ledger.take()
    assert batch is not None
    assert len(batch) == 2
    assert ledger.answered(batch, [e.Rejected(task_id="t", code="lease_lost")]) == []
    assert ledger.idle
    assert not later.lost


def test_what_is_rejected_is_lost_and_what_is_lost_is_not_reported(ledger: Ledger) -> None:
    one, other = holding(1), holding(2)
    claimed(ledger, one, other)
    ledger.report(one, completion(one))
    batch = ledger.take()
    assert batch is not None
    assert ledger.lose([1, 2, 3]) == [other], "a report on its way gets its own answer"
    assert not ledger.report(other, completion(other))
    assert ledger.answered(batch, [e.Rejected(task_id="t-1", code="lease_lost")]) == [one]
    assert ledger.idle


def test_a_task_that_is_handed_out_again_replaces_its_older_lease(ledger: Ledger) -> None:
    old, new = holding(1, "t"), holding(2, "t")
    claimed(ledger, old)
    assert ledger.close_claim(ledger.open_claim(), [new]) == [old]
    assert old.lost
    assert ledger.cancel(["t"]) == [new]
    assert ledger.cancel(["t"]) == [], "no news"


def test_a_batch_that_no_node_takes_goes_again_one_by_one(ledger: Ledger) -> None:
    held = [holding(1), holding(2)]
    claimed(ledger, *held)
    for one in held:
        ledger.report(one, completion(one))
    batch = ledger.take()
    assert batch is not None
    assert ledger.refused(batch) == []
    single = ledger.take()
    assert single is not None
    assert len(single) == 1
    assert ledger.refused(single) == [held[0]]
    assert ledger.report(held[0], failure(held[0])), "it may say something else"


def test_nothing_of_a_life_that_is_over_is_reported(ledger: Ledger) -> None:
    one = holding(1)
    claimed(ledger, one)
    ledger.progress(one, 1, "")
    ledger.report(one, completion(one))
    assert ledger.end() == [one]
    assert ledger.take() is None
    assert not ledger.has_news


# -- the pace ------------------------------------------------------------------------------------------------------
def test_prefetching_begins_with_short_tasks_and_ends_with_long_ones() -> None:
    pace = Pace(4, None)
    assert pace.room(0) == 4
    pace.claiming(0)
    pace.claimed(0.003, 4, 4)
    assert pace.prefetch == 0, "nothing is known of the tasks yet"
    pace.ran(0.001)
    for _ in range(STREAK - 1):
        pace.claimed(0.003, 4, 4)
    assert pace.prefetch == 0, "a few hundred tasks are shared evenly"
    for _ in range(100):
        pace.claimed(0.003, 4, 4)
    assert pace.prefetch == 16
    assert pace.room(5) == 15
    pace.claimed(0.003, 4, 1)
    assert pace.prefetch == 8
    for _ in range(20):
        pace.ran(0.2)
    assert pace.prefetch == 0
    assert Pace(4, 3).room(0) == 7


def test_the_shorter_tasks_are_the_more_of_them_are_claimed_ahead() -> None:
    pace = Pace(4, None)
    pace.ran(0.0005)
    grown = []
    for _ in range(STREAK + 25):
        pace.claimed(0.003, 4, 4)
        grown.append(pace.prefetch)
    assert grown[: STREAK + 3] == [0] * STREAK + [1, 2, 3]
    assert grown[-1] == 32, "as many as four threads run in 4 ms"
    pace.ran(0)
    for _ in range(40):
        pace.ran(0)
        pace.claimed(0.003, 4, 4)
    assert pace.prefetch == 128


def test_results_of_what_has_come_are_waited_for_a_moment() -> None:
    pace = Pace(4, None)
    pace.claiming(0)
    pace.claimed(1, 4, 2)
    assert pace.hold_until > 1
    pace.caught_up()
    assert pace.hold_until == 0
    pace.claiming(2)
    assert pace.hold_until == 0, "the last claim was not full: this one may be parked"
    pace.claimed(2.003, 2, 2)
    pace.claiming(3)
    assert 3 < pace.hold_until <= 3.01


# -- contexts ------------------------------------------------------------------------------------------------------
def test_a_context_refuses_what_no_node_would_take() -> None:
    context = Context()
    with pytest.raises(ValueError, match="0 to 100"):
        context.progress(101)
    with pytest.raises(Invalid, match="are allowed"):
        context.save("x" * limits.CHECKPOINT_BYTES_MAX)
    context.check()
    context.stop()
    with pytest.raises(Stopped):
        context.check()
    assert context.wait(0)


def test_c5_who_waits_is_told_to_end_whether_he_came_before_or_after() -> None:
    context = Context()
    assert not context.wait(0)
    waited: list[bool] = []
    waiting = [threading.Thread(target=lambda: waited.append(context.wait(60))) for _ in range(3)]
    for one in waiting:
        one.start()
    context.stop()
    for one in waiting:
        one.join()
    assert waited == [True] * 3
    never_waited = Context()
    never_waited.stop()
    assert never_waited.cancelled
    assert never_waited.wait(60)


# -- the demo, and finding apps ------------------------------------------------------------------------------------
def test_the_demo_has_the_founding_tasks_under_both_names() -> None:
    names = ["add", "subtract", "multiply", "divide", "sleep", "flaky"]  # one of them fails by chance
    assert set(demo.app.tasks) == {*names, *(f"demo.{name}" for name in names)}
    assert (demo.add("1", "2"), demo.subtract(1, "2"), demo.multiply("1.5", 2), demo.divide(1, 4)) == (3, -1, 3.0, 0.25)
    with pytest.raises(ValueError, match="invalid literal for int\\(\\) with base 10: 'ejnf'"):
        demo.add("1", "ejnf")
    with pytest.raises(TypeError, match="is no number"):
        demo.add([], 1)
    assert demo.number("1e3") == 1000


def test_an_app_is_found_by_its_name_and_what_is_wrong_is_explained(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_shop.py").write_text(
        "from quorl import App\nempty, shop = App(), App()\nshop.task(print, name='print')\n"
        "handlers = {'print': print}\nnumber = 5\n"
    )
    (tmp_path / "some_broken.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert isinstance(load("some_shop:shop"), App)
    assert load("some_shop:handlers") == {"print": print}
    for target, complaint in {
        "some_shop": "has no 'app'; it has empty, shop",
        "some_shop:empty": "some_shop:empty has no tasks",
        "some_shop:": "should look like shop:app",
        "some_shop:number": "no dict of functions, but of the type int",
        "nowhere:app": "no module 'nowhere'",
        "some_shop.py:shop": "did you mean some_shop:shop?",
        "./deep/some_shop.py": "did you mean deep.some_shop?",
    }.items():
        with pytest.raises(BadParameter, match=complaint):
            load(target)
    (tmp_path / "some_mailer.py").write_text("from quorl import App\nmailer = App()\n")
    for target, meant in {
        "some_mailer": "some_mailer:mailer",
        "some_mailer:ap": "some_mailer:mailer",
        "some_shop:shp": "some_shop:shop",
        "some_shop.py:shop": "some_shop:shop",
        "./deep/some_shop.py": "deep.some_shop",
    }.items():
        with pytest.raises(Advised) as advised:
            load(target)
        assert advised.value.advice == f"quorl worker run {meant}"
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        load("some_broken:app")


def test_reloading_starts_anew_after_each_change(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    program = f"import threading; open({str(log)!r}, 'a').write('started '); threading.Event().wait(60)"
    changes = iter([True, True, False])

    def changed() -> bool:
        while not log.exists() or log.read_text().count("started") < len(seen) + 1:
            pass
        seen.append(1)
        return next(changes)

    seen: list[int] = []
    assert supervise([sys.executable, "-c", program], changed) == 0
    assert log.read_text().count("started") == 3
