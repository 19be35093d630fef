"""How deep JSON is nested: what the bytes alone show is never contradicted by the tree."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.strictjson import deeper_than, surely_shallow

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
