"""What is wrong with a field is said in plain words, and never left unsaid."""

from __future__ import annotations

from typing import Any

import pytest

from quorl.cluster.protocol.routes import nearest_task
from quorl.cluster.protocol.wording import Fault, worded


@pytest.mark.parametrize(
    ("message", "sent", "pointer", "sentence"),
    [
        ("Expected `str` of length <= 2 - at `$.name`", {"name": "abc"}, "/name", "`name` must have at most 2 characters; it has 3"),
        ("Expected `str` of length >= 1 - at `name`", {"name": ""}, "/name", "`name` must have at least 1 character; it has 0"),
        ("Expected `array` of length >= 1 - at `$.m`", {"m": []}, "/m", "`m` must have at least 1 item; it has 0"),
        ("Expected `int` <= 256 - at `$.a[1].b`", {"a": [{}, {"b": 300}]}, "/a/1/b", "`a[1].b` must be at most 256; it is 300"),
        ("Expected `float` >= 0.0 - at `wait`", {"wait": "nan"}, "/wait", "`wait` must be at least 0; it is nan"),
        ("Expected `int`, got `float` - at `$.a`", {"a": 1.5}, "/a", "`a` must be an integer, not a fraction"),
        ("Expected `str | null`, got `bool` - at `$.a`", {"a": True}, "/a", "`a` must be text or null, not true or false"),
        ("Expected `int` - at `$.a`", {"a": "x"}, "/a", "`a` must be an integer"),
        ("Expected `str`, got `null` - at `$.headers[...]`", {"headers": {"a": None}}, "/headers", "a value in `headers` must be text, not null"),
        ("Expected `str` of length <= 2 - at `$.m[...].k`", {"m": {"a": {"k": "abc"}}}, "/m/k", "`m.k` must have at most 2 characters"),
        ("Expected `object`, got `array`", [], "", "the request must be an object, not a list"),
        ("Invalid enum value 'x' - at `$.start`", {"start": "x"}, "/start", "`start` must be one of earliest, latest; it is x"),
        ("Invalid enum value 3 - at `$.step`", {"step": "3"}, "/step", "`step` must be one of 1, 10; it is 3"),
        ("Invalid enum value 'x' - at `$.colour`", {"colour": "x"}, "/colour", "`colour`: Invalid enum value 'x'"),
        ("Something new - at `$.a`", {"a": 1}, "/a", "`a`: Something new"),
        ("Object missing required field `name`", {}, "/name", "`name` is missing"),
        ("Object contains unknown field `nme` - at `$.m[0]`", {"m": [{}]}, "/m/0/nme", "there is no field `nme` - did you mean `name`?"),
    ],
)  # fmt: skip
def test_messages_become_sentences(message: str, sent: Any, pointer: str, sentence: str) -> None:
    assert worded(message, ("name",), sent) == Fault(pointer, sentence)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("add", "shop.add"),
        ("demo.add", "shop.add"),
        ("shop.divid", "shop.divide"),
        ("divid", "shop.divide"),
        ("mul", ""),
        ("shop", "shop.add"),
        ("z" * 201, ""),
        ("z" * 201 + ".ad", "shop.add"),
    ],
)
def test_the_name_of_a_task_is_guessed_by_its_end_too(word: str, meant: str) -> None:
    guess = nearest_task(word, ["other.add.up", "shop.add", "shop.divide", "web.add"])
    assert guess == (f" - did you mean `{meant}`?" if meant else "")
