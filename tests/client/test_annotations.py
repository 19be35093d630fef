"""Tasks whose annotations have names that are only there for type checkers, as ``if TYPE_CHECKING`` imports them.

With ``from __future__ import annotations`` every Python takes them; from Python 3.14 on they stand without it as well, and
are looked up when somebody asks.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from quorl.client import App
from quorl.client.handlers import handler, signature_of
from quorl.client.tasking import annotations_of

SOURCE = """
import datetime as dt

def ship(order: Order, when: dt.datetime, many: list[Order], *, seen: Context) -> list[Order]:
    return [order, when, many, seen]
"""


def defined(first_line: str) -> Any:
    """Return the function, or None where Python itself refuses it."""
    names: dict[str, Any] = {"__name__": "shop"}
    try:
        exec(first_line + SOURCE, names)
    except NameError:
        return None
    return names["ship"]


@pytest.fixture(params=["from __future__ import annotations", ""], ids=["as text", "as they are"])
def function(request: pytest.FixtureRequest) -> Any:
    return defined(request.param) or defined("from __future__ import annotations")


def test_such_a_function_is_a_task_and_takes_its_arguments(function: Any) -> None:
    task = App("http://a").task(name="shop.ship")(function)
    assert task(1, None, [], seen=None) == [1, None, [], None]
    with pytest.raises(TypeError, match="order"):
        task.delay(when="2026-11-28T12:00:00Z", many=[])


def test_its_signature_is_shown_as_it_is_written(function: Any) -> None:
    shown = handler("shop.ship", function).shown()
    assert shown == "(order: Order, when: dt.datetime, many: list[Order]) -> list[Order]"


def test_its_context_is_found_by_the_name_of_the_annotation(function: Any) -> None:
    signature = signature_of(function)
    assert (signature.context, signature.names) == ("seen", ("order", "when", "many"))


def test_what_is_known_only_by_name_stays_as_json_has_it(function: Any) -> None:
    shapes = signature_of(function).shapes
    assert shapes in ({}, {"when": dt.datetime})  # the rest is as it would be, where it can be looked up by itself
    assert annotations_of(function)["order"] == "Order"
