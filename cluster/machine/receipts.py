"""Receipts: the first outcome of a request that carried an idempotency key, kept for its repeats.

What the commands of an entry leave is written at its end, and all keys are remembered: so neither looking for a receipt,
which nearly always finds none, nor keeping one is a statement of its own. The newest receipts are *loose*: they stand in
the header, which every entry writes anyway, until they are worth a row.

Invariants: at most one receipt per operation and key. Receipts are numbered densely from ``first_receipt`` to
``next_receipt``, each row by the first of its own and the loose ones last, and the oldest go first, so what is too old or
too many is always at the front. A receipt is honoured until it is cleared away. Only an entry that keeps some clears away
others, row by row, and no row more once ``RECEIPT_EVICTIONS_PER_COMMAND`` for each that it keeps are gone. A row is as old
as the last of its own, and goes only when ``RECEIPTS_MAX`` others are there, so there are that many at least, and more by
less than a row has or one entry keeps: a repeat finds its receipt also if that is the oldest of ``RECEIPTS_MAX``. No receipt is kept for a refusal that may
pass, nor for a ``Consume`` or ``Claim`` that found nothing and will be tried again under its key because its caller waits.
One that is the last try is kept, found or not: a copy of an earlier try may still be under way, and must not take messages
or tasks for a caller who was told that there are none.
"""

from __future__ import annotations

import msgspec

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
_WAITING = (Claim, ClaimBatch, Consume)
"""Commands whose callers may wait for them to come to something."""
_LOOK = "SELECT keys, outcomes FROM receipts WHERE ordinal = ?"
_KEEP = "INSERT INTO receipts (ordinal, count, kept_ms, keys, outcomes) VALUES (?, ?, ?, ?, ?)"
_OLDEST = "SELECT count, kept_ms FROM receipts WHERE ordinal = ?"
_KEYS = "SELECT keys FROM receipts WHERE ordinal = ?"
_CLEAR = "DELETE FROM receipts WHERE ordinal = ?"
_ALL = "SELECT ordinal, keys FROM receipts ORDER BY ordinal"
_encode = msgspec.msgpack.Encoder().encode
_decode_keys = msgspec.msgpack.Decoder(list[tuple[str, str]]).decode
_decode_outcomes = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode


def known(state: State, op: str, key: str) -> bool:
    """Whether there is a receipt of an operation, by its tag in the log, under that key."""
    return (op, key) in state.fresh_receipts or key in _rows(state, op)


def look(state: State, op: str, key: str) -> tuple[bytes, bytes] | None:
    """Fingerprint and encoded outcome of the receipt, if there is one."""
    ordinal = _rows(state, op).get(key)
    if ordinal is None:
        return state.fresh_receipts.get((op, key)) if state.fresh_receipts else None
    if ordinal == _first_loose(state):
        keys, found = _row(state)
    else:
        keys, found = state.execute(_LOOK, (ordinal,)).fetchone()
    return _decode_outcomes(found)[_decode_keys(keys).index((op, key))]


def remembered(state: State, op: str, key: str) -> tuple[bytes, bytes] | None:
    """The same for whoever only asks, perhaps while an entry is prepared: of rows that are not known by heart there is none."""
    return None if state.receipt_rows is None else look(state, op, key)


def find(state: State, op: str, key: str, fingerprint: bytes) -> Reply | Rejection | None:
    """The outcome that a repeat gets, or None when the request is new."""
    kept = look(state, op, key)
    if kept is None:
        return None
    if kept[0] != fingerprint:
        return IdempotencyKeyReused(detail=f'The key "{key}" came before with another {_CALLED.get(op, op)} request.')
    return outcomes.decode(op, kept[1])


def is_kept(command: AnyCommand, value: Reply | Rejection) -> bool:
    """Whether an outcome is remembered."""
    if isinstance(value, Rejection):
        return not value.transient
    if not isinstance(command, _WAITING) or command.wait <= 0:
        return True
    if isinstance(value, ConsumedSpans):
        return bool(value.spans)
    if isinstance(value, GrantedMany):
        return any(one.settled for one in value.items)
    return isinstance(value, Granted) and bool(value.grants or value.drained)


def keep(state: State, op: str, key: str, fingerprint: bytes, blob: bytes) -> None:
    """Remember an outcome, of which ``blob`` is the encoded form. Cannot fail, so what has a receipt was done."""
    state.fresh_receipts[op, key] = fingerprint, blob


def write(state: State) -> None:
    """Write what the commands of the entry leave."""
    header, fresh = state.header, state.fresh_receipts
    if not fresh:
        return
    _clear(state, len(fresh))
    ordinal = _first_loose(state)
    state.note_kept(fresh)
    for op, key in fresh:
        _rows(state, op)[key] = ordinal
    header.next_receipt += len(fresh)
    header.loose_count += len(fresh)
    header.loose_keys += b"".join(map(_encode, fresh))
    header.loose_outcomes += b"".join(map(_encode, fresh.values()))
    state.fresh_receipts = {}
    if len(header.loose_keys) + len(header.loose_outcomes) > limits.RECEIPTS_LOOSE_BYTES:
        state.execute(_KEEP, (ordinal, header.loose_count, header.now_ms, *_row(state)))
        header.loose_count, header.loose_keys, header.loose_outcomes = 0, b"", b""


def _first_loose(state: State) -> int:
    """The number of the first receipt that has no row yet, which will be that of its row."""
    return state.header.next_receipt - state.header.loose_count


def _row(state: State) -> tuple[bytes, bytes]:
    """Keys and outcomes of the loose receipts, as a row has them."""
    header = state.header
    head = b"\xdd" + header.loose_count.to_bytes(4, "big")  # of an array in msgpack
    return head + header.loose_keys, head + header.loose_outcomes


def _rows(state: State, op: str) -> dict[str, int]:
    """By the key, which row has the receipt of such an operation."""
    if state.receipt_rows is None:
        found: dict[str, dict[str, int]] = {}
        loose = _first_loose(state), _row(state)[0]
        for ordinal, keys in [*state.execute(_ALL).fetchall(), loose]:
            for other, key in _decode_keys(keys):
                found.setdefault(other, {})[key] = ordinal
        state.receipt_rows = found
    rows = state.receipt_rows.get(op)
    if rows is None:
        rows = state.receipt_rows[op] = {}
    return rows


def _clear(state: State, coming: int) -> None:
    """Clear away a few of the oldest receipts that are too old, or too many with those that come."""
    header, room = state.header, limits.RECEIPT_EVICTIONS_PER_COMMAND * coming
    while room > 0 and header.first_receipt < _first_loose(state):
        if state.oldest_receipts is None:
            state.oldest_receipts = state.execute(_OLDEST, (header.first_receipt,)).fetchone()
        count, kept_ms = state.oldest_receipts
        others = header.next_receipt - header.first_receipt - count + coming
        if others < limits.RECEIPTS_MAX and header.now_ms - kept_ms < limits.RECEIPT_AGE_MS_MAX:
            return
        (blob,) = state.execute(_KEYS, (header.first_receipt,)).fetchone()
        keys = _decode_keys(blob)
        state.note_cleared(header.first_receipt, keys)
        state.execute(_CLEAR, (header.first_receipt,))
        for op, key in keys:
            del _rows(state, op)[key]
        header.first_receipt += count
        state.oldest_receipts = None
        room -= count
