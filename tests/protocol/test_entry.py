"""What stands in the log can be read back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import (
    AnyCommand,
    Entry,
    Sealed,
    SignOfLife,
    decode_entry,
    encode_command,
    encode_entry,
)
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.leases import Sync
from quorl.cluster.protocol.submitting import NewTask, Submit
from tests.protocol.task_calls import GOOD_OF_TASKS

COMMANDS: list[Command[Any]] = [one for *_, one in GOOD_OF_TASKS if isinstance(one, Command)]


def test_an_entry_is_read_back_as_it_was_written() -> None:
    command = t.CreateTopic(name="t")
    blob = encode_command(command)
    entry = Entry(now_ms=1, wall_ms=2, commands=(Sealed("key", b"digest", blob), Sealed(None, b"", b"")))
    assert decode_entry(encode_entry(entry)) == entry
    assert msgspec.msgpack.decode(blob, type=AnyCommand) == command
    with pytest.raises(msgspec.DecodeError):
        decode_entry(b"")


def test_an_entry_carries_the_leaders_dice_its_name_and_signs_of_life() -> None:
    signs = (SignOfLife(1), SignOfLife(2, (5, 6), (3,), 4))
    entry = Entry(now_ms=1, wall_ms=2, commands=(), seed=2**63 - 1, node="n1", signs=signs, refresh=True)
    assert decode_entry(encode_entry(entry)) == entry
    before = msgspec.msgpack.encode([1, 2, []])
    assert decode_entry(before) == Entry(now_ms=1, wall_ms=2, commands=())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_every_command_of_tasks_is_read_back_as_it_was_written(command: Command[Any]) -> None:
    if isinstance(command, Sync):
        parts: list[Command[Any] | None] = [command.reports(), command.wish()]
    else:
        parts = [command.sealed()]
    for part in parts:
        if part is not None:
            assert msgspec.msgpack.decode(encode_command(part), type=AnyCommand) == part


def test_a_submit_is_read_back_as_it_was_written() -> None:
    tasks = [NewTask(id="a", name="n", args=msgspec.Raw(b"[1.50]"), priority=9), NewTask(task="m", delay_ms=3)]
    command = Submit(queue="q", tasks=tasks)
    assert msgspec.msgpack.decode(encode_command(command), type=AnyCommand) == command.sealed()


def test_an_append_stands_in_the_log_as_one_array_of_json() -> None:
    messages = [
        t.Message(value=msgspec.Raw(b'{"a" :1}'), key="é", producer_id=2),
        t.Message(value=msgspec.Raw(b"1"), producer_id=1),
        t.Message(value=msgspec.Raw(b"2")),
    ]
    body = '[{"value":{"a" :1},"key":"é","producer_id":2},{"value":1,"producer_id":1},{"value":2}]'.encode()
    assert t.Append(topic="t", messages=messages).sealed() == t.AppendBatch(
        topic="t", count=3, size_bytes=12, producers=[1, 2], body=body, checksum=t.checksum_of(3, 12, body)
    )
