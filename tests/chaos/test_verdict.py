"""The checks can fail: each kind of damage to a history is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorl.client import Message
from tests.chaos.load import Acknowledged, Load
from tests.chaos.verdict import check_history


def stored(offset: int, value: str, created_at: str = "2030-01-01T00:00:00.000Z") -> Message:
    return Message("chaos", 0, offset, value, created_at, None, {}, None, b"")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    load = Load(["http://127.0.0.1:1"], tmp_path / "history.jsonl")
    load.acknowledged += [Acknowledged("w0 #0", 0, 0, 0.0), Acknowledged("w1 #0", 0, 1, 0.1)]
    load.consumed += [(0, 0), (0, 1)]
    return load


GOOD = [stored(0, "w0 #0"), stored(1, "w1 #0")]


def test_a_good_history_passes(load: Load) -> None:
    check_history([GOOD], load)


@pytest.mark.parametrize(
    ("copy", "why"),
    [
        (GOOD[:1], "lost"),
        ([*GOOD, stored(2, "w1 #0")], "twice"),
        ([*GOOD, stored(2, "w1 #1")], "no client was told"),
        ([GOOD[0], stored(2, "w1 #0")], "holes"),
        ([stored(0, "w1 #0"), stored(1, "w0 #0")], "lost"),
        ([GOOD[0], stored(1, "w1 #0", "2029-01-01T00:00:00.000Z")], "backwards"),
    ],
)
def test_damage_is_seen(load: Load, copy: list[Message], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check_history([copy], load)


def test_a_message_that_overtakes_is_seen(load: Load) -> None:
    load.acknowledged += [Acknowledged("w0 #2", 0, 2, 0.2), Acknowledged("w0 #1", 0, 3, 0.3)]
    with pytest.raises(AssertionError, match="out of order"):
        check_history([[*GOOD, stored(2, "w0 #2"), stored(3, "w0 #1")]], load)


@pytest.mark.parametrize("consumed", [[(0, 0)], [(0, 0), (0, 0), (0, 1)], [(0, 1), (0, 0)]])
def test_a_consumer_that_skips_or_repeats_is_seen(load: Load, consumed: list[tuple[int, int]]) -> None:
    load.consumed[:] = consumed
    with pytest.raises(AssertionError, match="skipped or repeated"):
        check_history([GOOD], load)


def test_what_was_refused_must_not_be_there(load: Load) -> None:
    load.refused.append("w1 #0")
    with pytest.raises(AssertionError, match="refused"):
        check_history([GOOD], load)
