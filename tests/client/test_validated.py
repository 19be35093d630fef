"""Models that validate themselves travel as JSON: as arguments, as results, in messages, wherever in them they stand."""

from __future__ import annotations

from typing import Any, Self

import msgspec
import pytest

from quorl.client import Invalid, message
from quorl.client.handle import Handle
from tests.client.task_cluster import TaskCluster
from tests.client.test_app import app_on
from tests.client.worker_kit import burst


class Order:
    """A model with what pydantic's have."""

    def __init__(self, number: int) -> None:
        self.number = number

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return {"number": self.number}

    @classmethod
    def model_validate_json(cls, data: bytes) -> Self:
        number = msgspec.json.decode(data)["number"]
        if number < 1:
            raise ValueError("number: must be at least 1")
        return cls(number)


class Plain:
    """Nothing that could be sent."""


@pytest.fixture
def cluster() -> TaskCluster:
    return TaskCluster()


def test_a_model_comes_to_its_handler_and_back_as_itself(cluster: TaskCluster) -> None:
    app = app_on(cluster)

    @app.task(name="next")
    def following(order: Order, others: list[Order]) -> dict[str, Order]:
        assert isinstance(order, Order)
        return {"next": Order(order.number + sum(one.number for one in others))}

    handle: Handle[dict[str, Order]] = following.delay(Order(1), [Order(2), Order(3)])
    burst(cluster, app.tasks)  # type: ignore[arg-type]
    assert bytes(cluster.tasks[handle.id].result) == b'{"next":{"number":6}}'
    assert handle.result(timeout=5)["next"].number == 6


def test_what_a_model_refuses_is_said_in_its_words(cluster: TaskCluster) -> None:
    def take(order: Order) -> None: ...

    def take_plain(plain: Plain) -> None: ...

    refused, plain = cluster.add("take", {"number": 0}), cluster.add("take_plain", {})
    burst(cluster, {"take": take, "take_plain": take_plain})
    assert [one.type for one in (*refused.errors, *plain.errors)] == ["ArgumentsRefused"] * 2
    assert "argument 'order': number: must be at least 1" in refused.errors[0].message
    assert "argument 'plain': Expected `Plain`, got `dict`" in plain.errors[0].message


def test_a_message_may_be_a_model_and_nothing_that_is_none() -> None:
    assert bytes(message(Order(1)).value) == b'{"number":1}'
    for nothing in (Plain(), Order):
        with pytest.raises(Invalid, match="has no JSON form: Encoding objects of type"):
            message(nothing)
