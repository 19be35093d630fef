"""Whether a refused submit says what is there already, only in other JSON; and if it does not, what differs.

The log compares bytes: a task whose id came with it by a fingerprint of all that was said of it (``submitting``), a request
that comes again under its key by one of its body (``receipts``). JSON can be written in many ways, and whoever submits a
task twice need not know how it was written the first time. So here, beside the log, the refused one is written as the
first was wherever both mean the same, and held against the same fingerprint again: what passes was said before, to the
last option. Only the node that answers asks this, of itself.

Invariants: nothing is changed; the answer is what the machine answers to a repeat in the same bytes.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from quorl.cluster.machine import ids, outcomes, reading, receipts, submitting
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol.entry import digest_of, encode_form
from quorl.cluster.protocol.grammar import Query, Reply
from quorl.cluster.protocol.queues import Backoff
from quorl.cluster.protocol.tasks import STATES

_STORED = ids.ById(
    "SELECT t.state, p.fingerprint, p.body, p.backoff, q.name, t.name, t.rank, t.max_attempts, t.max_lost, t.timeout_ms,"
    " EXISTS (SELECT 1 FROM marks m WHERE m.ordinal = t.ordinal"
    f" AND (m.kind = 'retried' OR m.number > {limits.HISTORY_KEPT}))"
    " FROM tasks t CROSS JOIN payloads p ON p.ordinal = t.ordinal CROSS JOIN queues q ON q.queue_id = t.queue_id"
)
_OP = str(s.SubmitBatch.__struct_config__.tag)
_NAME = str(s.Submit.__struct_config__.tag)
_SHOWN_CHARS_MAX = 60
"""A value that is longer is not quoted: the name of its field has to do."""
_UNSEEN = "an option that is not kept as it was said (delay, run_at, expires, timeout, attempts, max_lost)"
_encode = msgspec.json.Encoder().encode
_read_backoff = msgspec.json.Decoder(Backoff).decode
_read_body = msgspec.json.Decoder(s.TaskBody).decode


def _number(text: str) -> float | msgspec.Raw:
    """What is written with a point or an exponent: by its value, or as it is written where a float does not hold every digit."""
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else msgspec.Raw(text.encode())


_decode = msgspec.json.Decoder().decode
_decode_exactly = msgspec.json.Decoder(float_hook=_number).decode
_is_exacting = re.compile(rb"[0-9.]{17}|[0-9][eE]").search
"""Finds a number of more than the 15 digits that every float holds, or a power of ten; seldom anything else."""
_canonical = msgspec.json.Encoder(order="sorted").encode


class Likeness(Reply, frozen=True):
    """``same``: what the refused submit is answered with after all. Else ``differs`` says in what, as far as that is known."""

    same: s.Submitted | None = None
    differs: str = ""


class Compare(Query[Likeness], frozen=True, tag="compare"):
    """Hold a refused submit, outside any trace, against the tasks with its ids, or with a ``key`` against those that it made first."""

    submit: s.SubmitBatch
    key: str | None = None


class _Stored(NamedTuple):
    """A task as it was submitted, as far as that is kept."""

    state: int
    fingerprint: bytes | str
    body: bytes
    backoff: str
    queue: str
    name: str
    rank: int
    max_attempts: int
    max_lost: int
    timeout_ms: int | None
    raised: int
    """Whether it was retried by hand, which raises ``max_attempts`` and ``max_lost``, or so much has come since that nobody knows."""


def compare(connection: sqlite3.Connection, state: State, request: Compare) -> Likeness:
    """Answer the question, from one moment of the state."""
    with reading.one_moment(connection):
        return _compare(connection, state, request)


def _compare(connection: sqlite3.Connection, state: State, request: Compare) -> Likeness:
    batch = request.submit
    if request.key is None:
        return _by_ids(batch, [_find(connection, task.id) for task in batch.tasks])
    kept = receipts.remembered(state, _OP, request.key)
    first = None if kept is None else outcomes.decode(_OP, kept[1])
    if kept is None or not isinstance(first, s.Submitted):
        return Likeness()
    if len(first.items) != len(batch.tasks):
        return Likeness(differs=f"the number of tasks ({len(first.items)} first, {len(batch.tasks)} now)")
    return _under_a_key(batch, [_find(connection, item.id) for item in first.items], first, kept[0])


def _find(connection: sqlite3.Connection, task_id: str | None) -> _Stored | None:
    row = None if task_id is None else _STORED.find(connection.execute, task_id)
    return None if row is None else _Stored(*row)


def _by_ids(batch: s.SubmitBatch, found: list[_Stored | None]) -> Likeness:
    """Whether every task of a submit exists just so."""
    items = []
    for task, stored in zip(batch.tasks, found, strict=True):
        if stored is None:
            continue
        respelt = _respelt(task, stored)
        if submitting.fingerprint(batch.queue, respelt, _read_body(respelt.body)) != stored.fingerprint:
            return Likeness(differs=_differing(batch.queue, task, stored) or _UNSEEN)
        items.append(s.SubmittedTask(id=str(task.id), status=STATES[stored.state], existing=True))
    if len(items) < len(batch.tasks):
        return Likeness(differs="how its JSON is written, which is no matter once it is submitted by itself")
    return Likeness(same=s.submitted(items))


def _under_a_key(batch: s.SubmitBatch, found: list[_Stored | None], first: s.Submitted, digest: bytes) -> Likeness:
    """Whether a submit is the one that came first under its key."""
    pairs = [(task, stored) for task, stored in zip(batch.tasks, found, strict=True) if stored is not None]
    if len(pairs) == len(found):
        again = msgspec.structs.replace(batch, tasks=[_respelt(*pair) for pair in pairs])
        if digest_of(_NAME, encode_form(again)) == digest:
            return Likeness(same=first)
    return Likeness(differs=next((told for pair in pairs if (told := _differing(batch.queue, *pair))), ""))


def _respelt(task: s.QueuedTask, stored: _Stored) -> s.QueuedTask:
    """The task with its JSON as that of the stored one is written, wherever both mean the same."""
    body, there = _read_body(task.body), _read_body(stored.body)
    like = msgspec.structs.replace(
        body,
        args=there.args if _alike(body.args, there.args) else body.args,
        kwargs=there.kwargs if _alike(body.kwargs, there.kwargs) else body.kwargs,
        meta=there.meta if body.meta == there.meta else body.meta,
    )
    return msgspec.structs.replace(task, body=_encode(like))


def _alike(one: msgspec.Raw, other: msgspec.Raw) -> bool:
    """Whether two pieces of JSON mean the same: white space, escapes and the order of names aside; 1 is not 1.0.

    Every digit counts, since a worker may read numbers as decimals.
    """
    if bytes(one) == bytes(other):
        return True
    decode = _decode_exactly if _is_exacting(one) or _is_exacting(other) else _decode
    return _canonical(decode(one)) == _canonical(decode(other))


def _differing(queue: str, task: s.QueuedTask, stored: _Stored) -> str:
    """What is said otherwise of a task than of the stored one, in words; nothing if that is not to be seen."""
    return " and ".join(
        name + (f" ({there} there, {here} here)" if len(there) + len(here) <= _SHOWN_CHARS_MAX else "")
        for name, there, here in _differences(queue, task, stored)
    )


def _differences(queue: str, task: s.QueuedTask, stored: _Stored) -> Iterator[tuple[str, str, str]]:
    """Each field in which they differ, and its JSON there and here. What the queue would say is no difference to nothing.

    Nor are limits that were raised since: what was said of them first is in the fingerprint alone.
    """
    body, there = _read_body(task.body), _read_body(stored.body)
    seen: tuple[tuple[str, Any, Any], ...] = (
        ("queue", stored.queue, queue),
        ("name", stored.name, task.name),
        ("key", there.key, body.key),
        ("tags", there.tags, body.tags),
        ("meta", there.meta, body.meta),
        ("task_tries", there.tries, body.tries),
        ("priority", limits.PRIORITY_MAX - stored.rank, task.priority),
        ("backoff", _read_backoff(stored.backoff) if stored.backoff else None, task.backoff),
        ("max_attempts", stored.max_attempts, (not stored.raised and task.max_attempts) or stored.max_attempts),
        ("max_lost", stored.max_lost, (not stored.raised and task.max_lost) or stored.max_lost),
        ("timeout_ms", stored.timeout_ms, task.timeout_ms or stored.timeout_ms),
    )
    for name, one, other in (("args", there.args, body.args), ("kwargs", there.kwargs, body.kwargs)):
        if not _alike(one, other):
            yield name, bytes(one).decode(), bytes(other).decode()
    for name, one, other in seen:
        if one != other:
            yield name, _encode(one).decode(), _encode(other).decode()
