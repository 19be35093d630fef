"""Bodies of large appends: what was packed anywhere can be read everywhere, and is counted as long as it is."""

from __future__ import annotations

import random
import sys
import zlib
from types import ModuleType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.cluster.protocol import limits, packing
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.appends import AppendAll, TopicAppend
from quorl.cluster.protocol.packing import HEAD_BYTES, pack, unpack, unpacked_bytes
from tests.protocol.anew import loaded_anew

LINES = msgspec.json.encode([{"value": {"level": "info", "line": number}} for number in range(500)])


def without_isal(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module as it is where isal has no wheel."""
    monkeypatch.setitem(sys.modules, "isal", None)
    return loaded_anew(packing)


@given(st.lists(st.dictionaries(st.just("value"), st.text()), min_size=1))
def test_what_is_packed_comes_back_and_says_how_long_it_is(messages: list[dict[str, str]]) -> None:
    body = msgspec.json.encode(messages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "PACKED_BYTES_MIN", 1)
        patch.setattr(limits, "PACKED_SHARE_MAX", 100)
        packed = pack(body)
    assert packed != body
    assert unpack(packed) == body
    assert unpacked_bytes(packed[:HEAD_BYTES], len(packed)) == len(body)


def test_lines_of_logs_become_small() -> None:
    assert len(pack(LINES)) < len(LINES) / 4
    assert zlib.decompress(pack(LINES)[HEAD_BYTES:]) == LINES  # as anybody can read it


def test_what_is_packed_already_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(b'["' + b"x" * 1_000_000 + b'"]')
    monkeypatch.setattr(limits, "PACKED_BYTES_MIN", 1)
    assert len(zlib.compress(packed)) < len(packed) / 2
    assert pack(packed) is packed


@pytest.mark.parametrize("body", [b"[]", LINES[: limits.PACKED_BYTES_MIN - 1], b'[{"value":1}]'])
def test_what_is_small_stays_as_it_is(body: bytes) -> None:
    assert pack(body) is body
    assert unpack(body) is body
    assert unpacked_bytes(body[:HEAD_BYTES], len(body)) == len(body)


def test_what_does_not_shrink_stays_as_it_is() -> None:
    noise = random.Random(1).randbytes(10_000)
    body = b'["' + noise + b'"]'  # no JSON: all that is would shrink to three quarters
    assert pack(body) is body


@pytest.mark.parametrize("isal", [True, False])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[:HEAD_BYTES],
        lambda packed: packed[:3],
        lambda packed: packed[:1] + (len(LINES) + 1).to_bytes(4, "little") + packed[HEAD_BYTES:],
        lambda packed: packed[:1] + bytes(4) + packed[HEAD_BYTES:],
        lambda packed: packed[:1] + b"\xff" * 4 + packed[HEAD_BYTES:],
        lambda packed: packed[:40] + bytes([packed[40] ^ 1]) + packed[41:],
    ],
)
def test_what_is_damaged_is_told_in_the_same_words_everywhere(
    isal: bool, spoil: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(spoil)
    module = packing if isal else without_isal(monkeypatch)
    with pytest.raises(ValueError, match="^a packed body is not what it says that it is$"):
        module.unpack(spoil(pack(LINES)))


def test_without_isal_nothing_is_packed_and_what_others_have_packed_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(LINES)
    bare = without_isal(monkeypatch)
    assert bare.pack(LINES) is LINES
    assert bare.unpack(packed) == LINES


def test_an_append_is_packed_with_its_checksum() -> None:
    plain = t.Append(topic="t", messages=msgspec.json.decode(LINES, type=list[t.Message])).sealed()
    packed = plain.packed()
    assert plain.body == LINES
    assert packed.body == pack(LINES)
    assert packed.checksum == t.checksum_of(packed.count, packed.size_bytes, packed.body)
    assert packed.packed() is packed, "what is packed does not shrink again"
    assert (packed.count, packed.size_bytes, packed.producers) == (plain.count, plain.size_bytes, plain.producers)


def test_of_appends_to_several_topics_each_is_packed_that_is_worth_it() -> None:
    large, small = msgspec.json.decode(LINES, type=list[t.Message]), [t.Message(value=msgspec.Raw(b"1"))]
    few = AppendAll(appends=(TopicAppend(topic="a", messages=small),)).sealed()
    assert few.packed() is few
    assert few.gist() is few
    some = AppendAll(appends=(TopicAppend(topic="a", messages=small), TopicAppend(topic="b", messages=large))).sealed()
    assert [one.body for one in some.packed().appends] == [some.appends[0].body, pack(LINES)]
    assert some.gist().appends[0] is some.appends[0]
    assert len(some.gist().appends[1].body) < 40
