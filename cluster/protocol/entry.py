"""The log entry: a moment, and the commands that happen at it.

An entry is the payload of one Raft log entry, encoded as msgpack. Nodes that replay it must get the same outcome years
later, so these structs are encoded as arrays whose fields may only be added at the end, with defaults.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from quorl.cluster.protocol.appends import AppendBatches
from quorl.cluster.protocol.batches import ChangeTasks
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.leases import Claim, Complete, FailTask, Hold, ReleaseTask, Settle
from quorl.cluster.protocol.queues import DeleteQueue, PatchQueue, PurgeQueue, SetQueue
from quorl.cluster.protocol.submitting import SubmitBatch
from quorl.cluster.protocol.system import Found
from quorl.cluster.protocol.tasks import CancelTask, ForgetTask, RetryTask
from quorl.cluster.protocol.together import ClaimBatch, ReportBatch
from quorl.cluster.protocol.topics import (
    AppendBatch,
    Consume,
    CreateTopic,
    DeleteTopic,
    RegisterConsumer,
    RegisterProducer,
)
from quorl.cluster.protocol.workers import EnrolWorker, QuietWorker, RemoveWorker, TerminateWorker

AnyCommand = (
    CreateTopic
    | DeleteTopic
    | RegisterProducer
    | RegisterConsumer
    | AppendBatch
    | Consume
    | Found
    | SetQueue
    | PatchQueue
    | DeleteQueue
    | PurgeQueue
    | ChangeTasks
    | SubmitBatch
    | CancelTask
    | RetryTask
    | ForgetTask
    | Complete
    | FailTask
    | ReleaseTask
    | Hold
    | EnrolWorker
    | RemoveWorker
    | QuietWorker
    | TerminateWorker
    | Settle
    | Claim
    | ReportBatch
    | AppendBatches
    | ClaimBatch
)
"""Every command in the form in which it stands in the log."""


class Sealed(msgspec.Struct, frozen=True, array_like=True):
    """One command with the idempotency key of its request.

    ``digest`` is the fingerprint of the request's body, so that the same key with another body is told apart.
    """

    key: str | None
    digest: bytes
    command: bytes
    """The encoded ``AnyCommand``. Kept encoded, so that one that cannot be read spoils only itself."""


class SignOfLife(msgspec.Struct, frozen=True, array_like=True):
    """A worker is alive. With ``tokens`` it says which leases it holds: see ``workers.Beat``."""

    worker_id: int
    tokens: tuple[int, ...] | None = None
    claims: tuple[int, ...] = ()
    claimed: int = 0


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One log entry. ``now_ms`` is cluster time; ``wall_ms`` is the calendar's, for people and schedules.

    It takes effect in this order: the signs of life (all workers' with ``refresh``, which a new leader's first entry
    has), then whatever is due at ``now_ms``, then the commands. ``seed`` is the leader's dice, for ids and jitter;
    ``node`` is its name.
    """

    now_ms: int
    wall_ms: int
    commands: tuple[Sealed, ...]
    seed: int = 0
    node: str = ""
    signs: tuple[SignOfLife, ...] = ()
    refresh: bool = False


_entry_decoder = msgspec.msgpack.Decoder(Entry)
_encoder = msgspec.msgpack.Encoder()
encode_form: Callable[[Command[Any]], bytes] = _encoder.encode
"""The bytes of a command that is in its log form already."""


def digest_of(operation: str, form: bytes) -> bytes:
    """The fingerprint of a request, by the name of its operation and the bytes of its log form."""
    fingerprint = hashlib.blake2b(operation.encode() + b"\0", digest_size=16)
    fingerprint.update(form)
    return fingerprint.digest()


def encode_command(command: Command[Any]) -> bytes:
    """The bytes of a command's log form."""
    return _encoder.encode(command.sealed())


def encode_entry(entry: Entry) -> bytes:
    """The bytes that are replicated."""
    return _encoder.encode(entry)


def decode_entry(blob: bytes) -> Entry:
    """Read an entry back; raises ``msgspec.DecodeError`` or ``UnicodeDecodeError`` on anything else."""
    return _entry_decoder.decode(blob)
