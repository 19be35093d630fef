"""Whether arguments fit a signature that is known as text only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.client.cli.fitting import meant_by_name, misfit
from quorl.client.handlers import handler


def plain(x: int, y: int = 2) -> int:
    return x + y


def strict(a: int, /, b: list[dict[str, int]] | None, *, c: int, d: str = "x") -> None: ...


def open_(*args: int, **kwargs: int) -> None: ...


def bare() -> None: ...


calls = st.tuples(st.lists(st.integers(), max_size=4), st.dictionaries(st.sampled_from("abcdxyz"), st.integers()))


@pytest.mark.parametrize("function", [plain, strict, open_, bare])
@given(call=calls)
def test_a_signature_as_text_takes_what_the_function_takes(
    function: Callable[..., Any], call: tuple[list[int], dict[str, int]]
) -> None:
    args, kwargs = call
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        expected: str | None = str(error)
    else:
        expected = None
    assert misfit(handler("t", function).shown(), args, kwargs) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(x, y=<object object at 0x7f>)",
        "(x: int, y: i…",
        "): pass\ndef f(",
        "(x)\0",
        "(x, x)",
        "(" * 2_000,
        '(x="\\d": int',
    ],
)
def test_nothing_is_said_of_a_text_that_is_no_signature(text: str) -> None:
    assert misfit(text, [1, 2, 3], {}) is None


def test_an_argument_that_is_meant_by_name_is_seen() -> None:
    assert meant_by_name("(x, *, y=1)", [1, "z=3", "y=2", "x=1"]) == ["y=2", "x=1"]
    assert meant_by_name("(x, y)", ["x", "=x", 5, "z=x=1"]) == []
    assert meant_by_name("no signature", ["x=1"]) == []
    assert meant_by_name("()\n", []) == []
