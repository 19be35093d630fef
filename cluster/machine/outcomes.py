"""Outcomes as bytes, for receipts and for the digest.

An encoded outcome is one byte, 0 for a reply and 1 for a refusal, and the msgpack of the value. Which reply it is
follows from the command's tag.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import system as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.appends import AppendBatches, AppendedAll
from quorl.cluster.protocol.batches import ChangeTasks, TasksChanged
from quorl.cluster.protocol.grammar import Rejection, Reply
from quorl.cluster.protocol.problems import CommandFailed, IdempotencyKeyReused


class Outcome(NamedTuple):
    """What one command came to; ``replayed`` says that a receipt answered, and nothing was done."""

    value: Reply | Rejection
    replayed: bool


AnyRejection = (
    t.TopicNotFound
    | t.ProducerNotFound
    | t.ConsumerNotFound
    | t.AlreadyExists
    | t.TopicNotEmpty
    | q.QueueNotFound
    | q.QueueDiffers
    | q.QueueNotEmpty
    | q.QueueSealed
    | q.QueueFull
    | k.TaskNotFound
    | k.TaskExists
    | k.WrongState
    | k.LeaseLost
    | w.WorkerNotFound
    | w.WorkerNotAlive
    | w.TooManyWorkers
    | IdempotencyKeyReused
    | CommandFailed
)
"""Every refusal that a command can come to."""

_REPLIES: dict[type[msgspec.Struct], type[Reply]] = {
    t.CreateTopic: t.TopicCreated,
    t.DeleteTopic: t.TopicDeleted,
    t.RegisterProducer: t.ProducerInfo,
    t.RegisterConsumer: t.ConsumerInfo,
    t.AppendBatch: t.Appended,
    AppendBatches: AppendedAll,
    t.Consume: t.ConsumedSpans,
    s.Found: s.Founded,
    q.SetQueue: q.QueueInfo,
    q.PatchQueue: q.QueueInfo,
    q.DeleteQueue: q.QueueDeleted,
    q.PurgeQueue: q.Purged,
    ChangeTasks: TasksChanged,
    b.SubmitBatch: b.Submitted,
    k.CancelTask: k.Cancelled,
    k.RetryTask: k.TaskStatus,
    k.ForgetTask: k.TaskForgotten,
    c.Complete: k.TaskStatus,
    c.FailTask: k.TaskStatus,
    c.ReleaseTask: k.TaskStatus,
    c.Hold: c.TaskHeld,
    c.Settle: c.Settled,
    c.Claim: c.Granted,
    g.ReportBatch: g.Reported,
    g.ClaimBatch: g.GrantedMany,
    w.EnrolWorker: w.WorkerRegistered,
    w.RemoveWorker: w.WorkerGone,
    w.QuietWorker: w.WorkerTold,
    w.TerminateWorker: w.WorkerTold,
}
_encode = msgspec.msgpack.Encoder().encode
_rejection_decoder = msgspec.msgpack.Decoder(AnyRejection)
_reply_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    str(command.__struct_config__.tag): msgspec.msgpack.Decoder(reply) for command, reply in _REPLIES.items()
}


def encode(value: Reply | Rejection) -> bytes:
    """The bytes of an outcome."""
    return (b"\x01" if isinstance(value, Rejection) else b"\x00") + _encode(value)


def decode(op: str, blob: bytes) -> Reply | Rejection:
    """The outcome of a command with the tag ``op``."""
    decoder = _rejection_decoder if blob[0] else _reply_decoders[op]
    value: Reply | Rejection = decoder.decode(memoryview(blob)[1:])
    return value
