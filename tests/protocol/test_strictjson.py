"""What the bytes alone show, of how deep JSON is nested and of its numbers, is never contradicted by the tree."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.problems import ProtocolError
from quorl.cluster.protocol.strictjson import (
    deeper_than,
    read_object,
    read_plainly,
    surely_keepable,
    surely_shallow,
)

MAX = limits.JSON_NESTING_MAX
TEXT = st.text(st.sampled_from('[]{}"\\,: a'), max_size=6)
TREES = st.recursive(
    TEXT | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=40,
)


def nested(tree: Any, levels: int, *, by_name: bool) -> Any:
    for _ in range(levels):
        tree = {"[": tree} if by_name else [tree]
    return tree


@given(TREES, st.integers(0, MAX + 5), st.booleans(), st.integers(0, 60))
def test_what_the_bytes_call_shallow_is_shallow(tree: Any, levels: int, by_name: bool, siblings: int) -> None:
    tree = [nested(tree, levels, by_name=by_name), *([tree] * siblings)]
    assert not (surely_shallow(msgspec.json.encode(tree)) and deeper_than(tree, MAX))


@pytest.mark.parametrize("levels", [1, MAX - 1, MAX, MAX + 1])
def test_the_tree_decides_at_the_limit(levels: int) -> None:
    assert deeper_than(nested([], levels - 1, by_name=False), MAX) is (levels > MAX)


@pytest.mark.parametrize(
    ("body", "shallow"),
    [
        (b"[" + b'{"a":["x",{}]},' * 300 + b"1]", True),
        (b'["[",' + b'{"a":["x",{}]},' * 300 + b"1]", False),
        (rb'["\\",' + b'{"a":["x",{}]},' * 300 + b"1]", False),
        (rb'["\"",' + b'{"a":["x",{}]},' * 300 + b"1]", False),
        (b"[" * (MAX + 1) + b"]" * (MAX + 1), False),
        (b'[["]",["]",["]",["["],"["],"["],"["]' + b',["]","["]' * 300 + b"]", False),
    ],
)
def test_strings_with_brackets_and_escapes_are_left_to_the_tree(body: bytes, shallow: bool) -> None:
    assert surely_shallow(body) is shallow


NUMERALS = st.one_of(
    st.from_regex(r"-?(0|[1-9][0-9]{0,2})(\.[0-9]{1,2})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.builds(
        lambda digits, power: "9" * digits + power, st.integers(1, 320), st.sampled_from(["", "e9", "E+99", "e300"])
    ),
)
JSON_TEXTS = st.recursive(
    NUMERALS | st.text(st.sampled_from("e0E+1,x-. "), max_size=8).map(lambda text: f'"{text}"'),
    lambda inner: st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=20,
)
RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])


@given(JSON_TEXTS)
def test_what_the_bytes_call_keepable_can_be_decoded(text: str) -> None:
    body = f'{{"a":{text}}}'.encode()
    if surely_keepable(body):
        assert msgspec.json.decode(body)


@given(st.binary(max_size=20) | JSON_TEXTS.map(str.encode) | TREES.map(msgspec.json.encode))
def test_what_is_read_plainly_would_have_passed_the_long_way(value: bytes) -> None:
    body = b'{"a":' + value + b"}"
    found = read_plainly(body, RAW)
    if found is not None:
        assert {name: msgspec.json.decode(raw) for name, raw in found.items()} == read_object(body)


@pytest.mark.parametrize(
    "text",
    ["1e400", "1e+400", "[1E999]", "1" * 400, '{"b":1e999 }', '"1e1000, "', '"' + "0e123" * 1_000 + '"'],
)
def test_what_the_bytes_do_not_settle_is_decoded(text: str) -> None:
    body = f'{{"a":{text}}}'.encode()
    assert not surely_keepable(body)
    assert read_plainly(body, RAW) is None


@pytest.mark.parametrize(
    "text",
    [
        "1e40",
        "1E-9",
        "1" * 199 + "e99",
        '"1e400"',
        '"0e123-4e567f"',
        '"line1000, "',
        "[" + ",".join(["1.25"] * 999) + "]",
    ],
)
def test_usual_numbers_and_names_are_settled_by_the_bytes(text: str) -> None:
    body = f'{{"a":{text}}}'.encode()
    assert surely_keepable(body)
    assert read_plainly(body, RAW) == {"a": msgspec.Raw(text.encode())}


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"a":"\xff"}', b'{"a":1,}', b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":"' + b"x" * 2**20 + b'"}'],
)
def test_what_is_wrong_is_left_to_the_long_way(body: bytes) -> None:
    assert read_plainly(body, RAW) is None
    with pytest.raises(ProtocolError):
        read_object(body)
