"""What stands in the log can be read back."""

from __future__ import annotations

import msgspec
import pytest

from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import AnyCommand, Entry, Sealed, decode_entry, encode_command, encode_entry


def test_an_entry_is_read_back_as_it_was_written() -> None:
    command = t.CreateTopic(name="t")
    blob = encode_command(command)
    entry = Entry(now_ms=1, wall_ms=2, commands=(Sealed("key", b"digest", blob), Sealed(None, b"", b"")))
    assert decode_entry(encode_entry(entry)) == entry
    assert msgspec.msgpack.decode(blob, type=AnyCommand) == command
    with pytest.raises(msgspec.DecodeError):
        decode_entry(b"")


def test_an_append_stands_in_the_log_as_one_array_of_json() -> None:
    messages = [
        t.Message(value=msgspec.Raw(b'{"a" :1}'), key="é", producer_id=2),
        t.Message(value=msgspec.Raw(b"1"), producer_id=1),
        t.Message(value=msgspec.Raw(b"2")),
    ]
    assert t.Append(topic="t", messages=messages).sealed() == t.AppendBatch(
        topic="t",
        count=3,
        size_bytes=12,
        producers=[1, 2],
        body='[{"value":{"a" :1},"key":"é","producer_id":2},{"value":1,"producer_id":1},{"value":2}]'.encode(),
    )
