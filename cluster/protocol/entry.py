"""The log entry: a moment, and the commands that happen at it.

An entry is the payload of one Raft log entry, encoded as msgpack. Nodes that replay it must get the same outcome years
later, so these structs are encoded as arrays whose fields may only be added at the end, with defaults.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.system import Found
from quorl.cluster.protocol.topics import (
    AppendBatch,
    Consume,
    CreateTopic,
    DeleteTopic,
    RegisterConsumer,
    RegisterProducer,
)

AnyCommand = CreateTopic | DeleteTopic | RegisterProducer | RegisterConsumer | AppendBatch | Consume | Found
"""Every command in the form in which it stands in the log."""


class Sealed(msgspec.Struct, frozen=True, array_like=True):
    """One command with the idempotency key of its request.

    ``digest`` is the fingerprint of the request's body, so that the same key with another body is told apart.
    """

    key: str | None
    digest: bytes
    command: bytes
    """The encoded ``AnyCommand``. Kept encoded, so that one that cannot be read spoils only itself."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One log entry. ``now_ms`` is cluster time; ``wall_ms`` is the calendar's, for people and schedules."""

    now_ms: int
    wall_ms: int
    commands: tuple[Sealed, ...]


_entry_decoder = msgspec.msgpack.Decoder(Entry)
_encoder = msgspec.msgpack.Encoder()


def encode_command(command: Command[Any]) -> bytes:
    """The bytes of a command's log form."""
    return _encoder.encode(command.sealed())


def encode_entry(entry: Entry) -> bytes:
    """The bytes that are replicated."""
    return _encoder.encode(entry)


def decode_entry(blob: bytes) -> Entry:
    """Read an entry back; raises ``msgspec.DecodeError`` or ``UnicodeDecodeError`` on anything else."""
    return _entry_decoder.decode(blob)
