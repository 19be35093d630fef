"""Receipts: the first outcome of a request that carried an idempotency key, kept for its repeats.

Invariants: at most one receipt per operation and key. Ordinals are dense from ``first_receipt`` to ``next_receipt``, and
the oldest go first, so what is too old or too many is always at the front. A receipt is honoured until it is cleared
away. Only a command that is about to keep one clears away others, no more than ``RECEIPT_EVICTIONS_PER_COMMAND``: a
repeat finds its receipt also if that is the oldest of ``RECEIPTS_MAX``. No receipt is kept for a refusal that may
pass, nor for a ``Consume`` or ``Claim`` that found nothing and will be tried again under its key because its caller waits.
One that is the last try is kept, found or not: a copy of an earlier try may still be under way, and must not take messages
or tasks for a caller who was told that there are none.
"""

from __future__ import annotations

from quorl.cluster.machine import outcomes
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.appends import AppendAll, AppendBatches
from quorl.cluster.protocol.entry import AnyCommand
from quorl.cluster.protocol.grammar import Rejection, Reply
from quorl.cluster.protocol.leases import Claim, Complete, CompleteTask, Granted, Hold, HoldTask
from quorl.cluster.protocol.problems import IdempotencyKeyReused
from quorl.cluster.protocol.queues import PutQueue, SetQueue
from quorl.cluster.protocol.submitting import Submit, SubmitBatch
from quorl.cluster.protocol.together import ClaimBatch, ClaimMany, GrantedMany, Report, ReportBatch
from quorl.cluster.protocol.topics import Append, AppendBatch, Consume, ConsumedSpans
from quorl.cluster.protocol.workers import EnrolWorker, RegisterWorker

_CALLED = {
    str(logged.__struct_config__.tag): str(asked.__struct_config__.tag)
    for logged, asked in (
        (AppendBatch, Append),
        (AppendBatches, AppendAll),
        (SetQueue, PutQueue),
        (SubmitBatch, Submit),
        (EnrolWorker, RegisterWorker),
        (Complete, CompleteTask),
        (Hold, HoldTask),
        (ReportBatch, Report),
        (ClaimBatch, ClaimMany),
    )
}
"""What callers call an operation that has another name in the log."""
_FIND = "SELECT fingerprint, outcome FROM receipts WHERE key = ? AND op = ?"
_KEEP = "INSERT INTO receipts (ordinal, op, key, fingerprint, kept_ms, outcome) VALUES (?, ?, ?, ?, ?, ?)"
_AGE = "SELECT kept_ms FROM receipts WHERE ordinal = ?"
_CLEAR = "DELETE FROM receipts WHERE ordinal = ?"


def find(state: State, op: str, key: str, fingerprint: bytes) -> Reply | Rejection | None:
    """The outcome that a repeat gets, or None when the request is new."""
    row = state.execute(_FIND, (key, op)).fetchone()
    if row is None:
        return None
    if row[0] != fingerprint:
        return IdempotencyKeyReused(detail=f'The key "{key}" came before with another {_CALLED.get(op, op)} request.')
    return outcomes.decode(op, row[1])


def is_kept(command: AnyCommand, value: Reply | Rejection) -> bool:
    """Whether an outcome is remembered."""
    if isinstance(value, Rejection):
        return not value.transient
    if isinstance(command, Consume | Claim) and command.wait > 0:
        found = (
            value.spans
            if isinstance(value, ConsumedSpans)
            else isinstance(value, Granted) and (value.grants or value.drained)
        )
        return bool(found)
    if isinstance(command, ClaimBatch) and command.wait > 0:
        return isinstance(value, GrantedMany) and any(one.settled for one in value.items)
    return True


def keep(state: State, op: str, key: str, fingerprint: bytes, blob: bytes) -> None:
    """Remember an outcome, of which ``blob`` is the encoded form."""
    header = state.header
    state.execute(_KEEP, (header.next_receipt, op, key, fingerprint, header.now_ms, blob))
    header.next_receipt += 1


def clear(state: State) -> None:
    """Clear away a few of the oldest receipts, if they are too old or leave no room for one more."""
    header = state.header
    for _ in range(limits.RECEIPT_EVICTIONS_PER_COMMAND):
        if header.first_receipt == header.next_receipt:
            return
        if header.next_receipt - header.first_receipt < limits.RECEIPTS_MAX:
            if state.oldest_receipt_ms is None:
                (state.oldest_receipt_ms,) = state.execute(_AGE, (header.first_receipt,)).fetchone()
            if header.now_ms - state.oldest_receipt_ms < limits.RECEIPT_AGE_MS_MAX:
                return
        state.execute(_CLEAR, (header.first_receipt,))
        header.first_receipt += 1
        state.oldest_receipt_ms = None
