"""What a worker says when it cannot reach its cluster, and what becomes of calls that a handler does not take."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from quorl.client import Context
from quorl.client.handlers import handler
from quorl.client.worker_job import misfit_verdict
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
