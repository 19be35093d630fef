"""What a worker says when it cannot reach its cluster, and what becomes of calls that a handler does not take."""

from __future__ import annotations

import functools
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from quorl.client import Context
from quorl.client.handlers import handler
from quorl.client.worker_job import misfit_verdict
from quorl.client.worker_lines import Stderr, to_stderr
from tests.client.task_cluster import TaskCluster
from tests.client.test_worker_parts import holding
from tests.client.worker_kit import burst, working


@pytest.fixture
def cluster() -> TaskCluster:
    return TaskCluster()


def test_a_worker_says_who_it_is_before_it_says_that_no_cluster_answers(cluster: TaskCluster) -> None:
    cluster.down = True
    with working(cluster, {"add": lambda x, y: x + y}, queues=["a", "b"]) as lines:
        cluster.until(lambda: any("waiting for the cluster" in line for line in lines))
        before = list(lines)
        cluster.down = False
        cluster.until(lambda: any("registered as" in line for line in lines))
    assert before[0].startswith("quorl worker · 8 at once in threads")
    assert before[1] == "  queues   a, b"
    assert before[2].startswith("  servers  http://")
    assert before[3] == "  task     add(x, y)"
    assert before[4].startswith("! waiting for the cluster, trying on: no node answered in ")
    assert "http://" in before[4]
    assert sum("at once in" in line for line in lines) == 1


class _Terminal:
    """A standard error that keeps each write."""

    def __init__(self) -> None:
        self.writes: list[str] = []

    def write(self, text: str) -> None:
        self.writes.append(text)

    def flush(self) -> None:
        pass

    def of(self, sign: str) -> list[str]:
        """The writes in which a line begins with a sign."""
        return [
            text for text in self.writes if any(re.match(rf"[\d:.]{{12}} {sign}", line) for line in text.splitlines())
        ]


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """Called by the tests themselves, for standard error is another one while fixtures are made."""
    made = _Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    return made


def test_tasks_that_begin_together_are_said_in_one_write_before_any_of_them_runs(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = terminal_of(monkeypatch)
    seen: list[int] = []
    for number in range(4):
        cluster.add("look", number)

    def look(number: int) -> None:
        seen.append(sum(text.count("▶ look") for text in terminal.writes))

    burst(cluster, {"look": look}, concurrency=4, write=to_stderr)
    assert [text.count("▶") for text in terminal.of("▶")] == [4]
    assert seen == [4] * 4
    assert sum(text.count("■") for text in terminal.of("■")) == 4


def test_what_has_ended_and_what_begins_in_its_place_are_said_in_one_write(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = terminal_of(monkeypatch)
    for number in range(2):
        cluster.add("nothing", number)
    burst(cluster, {"nothing": lambda number: number}, concurrency=1, prefetch=1, write=to_stderr)
    assert [(text.count("■"), text.count("▶")) for text in terminal.writes if "▶" in text] == [(0, 1), (1, 1)]


def test_tasks_of_which_nobody_can_be_told_run_all_the_same(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = terminal_of(monkeypatch)
    ran = threading.Semaphore(0)
    for _ in range(2):
        cluster.add("look")

    def broken(text: str) -> None:
        if "▶" in text:
            raise BrokenPipeError

    monkeypatch.setattr(terminal, "write", broken)
    burst(cluster, {"look": ran.release}, concurrency=2, write=to_stderr)
    assert [ran.acquire(timeout=20) for _ in range(2)] == [True, True]


def test_only_the_thread_that_says_lines_together_keeps_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    say = Stderr(clock=False)
    with say.together():
        say("one")
        other = threading.Thread(target=say, args=["heart"])
        other.start()
        other.join()
        say("two")
        say.flush()
        say("three")
    say("four")
    assert terminal.writes == ["heart\n", "one\ntwo\n", "three\n", "four\n"]


def test_two_threads_may_say_lines_together_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    say = Stderr(clock=False)

    def other() -> None:
        with say.together():
            say("two")
            say("of another worker")

    with say.together():
        say("one")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        say("of this worker")
    assert terminal.writes == ["two\nof another worker\n", "one\nof this worker\n"]


def _plain(x: int, y: int) -> int:
    return x + y


async def _waiting(ctx: Context, x: int, y: int) -> int:
    return x + y


@pytest.mark.parametrize("function", [_plain, _waiting])
def test_c8_a_call_that_the_signature_does_not_take_ends_at_once_and_names_it(
    cluster: TaskCluster, function: Callable[..., Any]
) -> None:
    task = cluster.add("f", 4)
    burst(cluster, {"f": function})
    assert (task.status, len(task.errors), task.errors[0].type) == ("FAILED", 1, "ArgumentsRefused")
    assert "f(x: int, y: int) -> int: missing a required argument: 'y'" in task.errors[0].message


@dataclass
class Order:
    number: int


def _order(order: Order) -> int:
    return order.number


async def _ordered(ctx: Context, order: Order) -> int:
    return order.number


@pytest.mark.parametrize("function", [_order, _ordered])
@pytest.mark.parametrize("given", ["x", {"number": "x"}])
def test_c8_an_argument_that_is_not_as_annotated_ends_at_once_and_is_named(
    cluster: TaskCluster, function: Callable[..., Any], given: object
) -> None:
    task = cluster.add("f", given)
    burst(cluster, {"f": function})
    assert (task.status, len(task.errors), task.errors[0].type) == ("FAILED", 1, "ArgumentsRefused")
    assert re.search(r"f\(order: .*Order\) -> int: argument 'order': Expected `", task.errors[0].message)


def test_b9_an_error_within_the_handler_is_tried_three_times(cluster: TaskCluster) -> None:
    def add(x: str, y: str) -> int:
        return int(x) + int(y)

    def wrong(x: str) -> int:
        raise TypeError(x)

    tasks = [cluster.add("add", "1", "ejnf"), cluster.add("wrong", "x")]
    burst(cluster, {"add": add, "wrong": wrong})
    assert [(one.status, len(one.errors)) for one in tasks] == [("FAILED", 3), ("FAILED", 3)]


def test_a_type_error_of_a_function_to_which_a_decorator_passes_more_is_its_own() -> None:
    def given(database: object, x: int) -> None:
        raise TypeError("of the function itself")

    @functools.wraps(given)
    def decorated(*args: Any) -> None:
        given("database", *args)

    task = holding(1).task
    one = handler("f", decorated)
    with pytest.raises(TypeError) as own:
        decorated(1)
    assert misfit_verdict(one, task, own.value) is None
    with pytest.raises(TypeError) as of_the_call:
        decorated(1, 2)
    assert misfit_verdict(one, task, of_the_call.value) is not None
    assert misfit_verdict(one, task, ValueError()) is None
