"""``apply`` is total: whatever the log holds, it comes back with outcomes, and nothing is ever half done."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorl.cluster.machine import deciding, topics
from quorl.cluster.machine import events as e
from quorl.cluster.machine import machine as door
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.machine.machine import Position
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import Entry, Sealed, SignOfLife, encode_entry
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.problems import CommandFailed
from tests.machine.rig import Rig, expect, message, seal

texts = st.one_of(st.just("t"), st.text(max_size=3), st.text(min_size=201, max_size=202))
numbers = st.one_of(st.integers(-2, 3), st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]))
bodies = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [b'[{"value":1}]', b'[{"value":1},{"value":2,"key":"k"}]', b"[]", b"[" * 5000, b'[{"value":\xff}]']
    ),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.floats(), texts, st.binary(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
    max_leaves=5,
)


def shape(op: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A command of the right shape, with any field wrong, missing or too many."""
    odd = {name: st.one_of(strategy, strategy, strategy, anything) for name, strategy in fields.items()}
    return st.fixed_dictionaries({"op": st.just(op)}, optional=odd)


batches = st.fixed_dictionaries(
    {"op": st.just("append_batch"), "topic": texts, "count": numbers, "size_bytes": numbers, "body": bodies},
    optional={"producers": st.lists(numbers, max_size=1), "checksum": numbers},
)
backoffs = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["fixed", "list", "x"]),
        "first_ms": numbers,
        "delays_ms": st.lists(numbers, max_size=2),
    },
)
queued = st.tuples(
    st.one_of(st.none(), texts),
    texts,
    st.sampled_from([b"{}", b'{"args":[1]}', b"[", b'{"args":1,"key":2}', b""]),
    st.one_of(st.just(5), numbers),
    st.one_of(st.none(), texts),
    *[st.one_of(st.sampled_from([None, 0, 5]), numbers)] * 6,
    st.one_of(st.none(), backoffs),
).map(list)
defaults = st.one_of(st.just([3, 5, 9]), st.lists(numbers, max_size=4))
names = st.lists(texts, max_size=3)
leases = st.integers(-1, 9)
jsons = st.sampled_from([b"1", b"null", b"", b"[", b"\xff"])
report = {"task_id": texts, "lease": leases}
error: st.SearchStrategy[dict[str, str]] = st.one_of(st.just({}), st.fixed_dictionaries({"type": texts}))
task_shapes = [
    shape("set_queue", queue=texts, defaults=defaults, partitions=numbers, max_lost=numbers, backoff=backoffs, max_depth=numbers),
    shape("patch_queue", queue=texts, paused=st.booleans(), sealed=st.booleans(), timeout_ms=numbers, keep_finished_ms=numbers),
    shape("delete_queue", queue=texts),
    shape("purge_queue", queue=texts, states=st.lists(st.sampled_from(["QUEUED", "SUCCESS", "x"])), dry_run=st.booleans()),
    *[shape("submit_batch", queue=texts, tasks=st.lists(queued, max_size=3), defaults=defaults)] * 2,
    shape("cancel_task", id=texts),
    shape("retry_task", id=texts),
    shape("forget_task", id=texts),
    shape("complete", id=texts, lease=leases, result=jsons),
    shape("fail_task", id=texts, lease=leases, error=error, retry=st.booleans(), delay_ms=numbers),
    shape("release_task", id=texts, lease=leases, delay_ms=numbers),
    shape("hold", id=texts, lease=leases, progress=st.floats(), note=texts, checkpoint=jsons),
    *[
        shape(
            "enrol_worker", name=texts, host=texts, pid=numbers, version=texts, queues=names, concurrency=numbers,
            handlers=st.lists(st.fixed_dictionaries({"name": texts}), max_size=1), standby=st.booleans(),
            heartbeat_ms=st.one_of(st.none(), numbers), dead_after_ms=st.one_of(st.none(), numbers), defaults=defaults,
        )
    ] * 2,
    shape("remove_worker", worker_id=numbers),
    shape("quiet_worker", worker_id=numbers),
    shape("terminate_worker", worker_id=numbers),
    shape(
        "settle",
        worker_id=numbers,
        complete=st.lists(st.tuples(texts, leases, jsons).map(list), max_size=2),
        fail=st.lists(st.fixed_dictionaries(report), max_size=2),
        release=st.lists(st.fixed_dictionaries({**report, "delay_ms": numbers}), max_size=2),
        progress=st.lists(st.tuples(texts, leases, st.floats(), texts, st.one_of(st.none(), jsons)).map(list), max_size=2),
    ),
    shape(
        "claim_batch",
        claims=st.lists(st.tuples(numbers, names, numbers, numbers, numbers).map(list), max_size=2),
        wait=numbers,
    ),
    shape(
        "report_batch",
        complete=st.lists(st.tuples(texts, leases, jsons).map(list), max_size=2),
        fail=st.lists(st.fixed_dictionaries(report), max_size=2),
        release=st.lists(st.fixed_dictionaries({**report, "delay_ms": numbers}), max_size=2),
    ),
    *[shape("claim", worker_id=numbers, queues=names, max=numbers, wait=st.floats(), number=numbers)] * 2,
]  # fmt: skip
ids = st.lists(numbers, max_size=2)
shapes = st.one_of(
    shape("create_topic", name=texts, partitions=numbers, error_if_exists=st.booleans()),
    shape("delete_topic", topic=texts, if_empty=st.booleans()),
    shape("register_producer", topic=texts, name=texts),
    shape("register_consumer", topic=texts, name=texts, start=st.sampled_from(["latest", "earliest", "x"])),
    shape("append_batch", topic=texts, count=numbers, size_bytes=numbers, producers=ids, body=bodies),
    shape("append_batches", appends=st.lists(batches | anything, max_size=3)),
    shape("consume", topic=texts, consumer_id=numbers, max=numbers, wait=st.floats()),
    shape("found", cluster_id=texts),
    *task_shapes,
    shape("no_such_command"),
)
commands = st.one_of(shapes.map(msgspec.msgpack.encode), anything.map(msgspec.msgpack.encode), st.binary(max_size=30))
sealed = st.builds(Sealed, st.one_of(st.none(), texts), st.binary(max_size=3), commands)
signs = st.builds(SignOfLife, numbers, st.one_of(st.none(), ids.map(tuple)), ids.map(tuple), numbers)
entries = st.builds(
    Entry,
    numbers,
    numbers,
    st.lists(sealed, max_size=5).map(tuple),
    seed=numbers,
    node=st.one_of(st.just("n1"), texts),
    signs=st.lists(signs, max_size=3).map(tuple),
    refresh=st.booleans(),
)


ALIVE_AND_BUSY: list[Command[Any]] = [
    t.CreateTopic(name="t"),
    w.RegisterWorker(name="t", queues=("t",)),
    s.Submit(queue="t", tasks=[s.NewTask(id=task_id, name="add", timeout_ms=2) for task_id in ("t", "u", "v")]),
    c.Claim(worker_id=1, max=2),
]
"""What an arbitrary command may meet."""


@settings(max_examples=200)
@given(st.lists(st.one_of(entries.map(encode_entry), st.binary(max_size=50), anything.map(msgspec.msgpack.encode))))
def test_apply_never_raises(payloads: list[bytes]) -> None:
    one, other = Rig(), Rig(first_way=1)
    for rig in (one, other):
        rig.apply(*map(seal, ALIVE_AND_BUSY))
    for number, payload in enumerate(payloads, 2):
        applied = one.apply_raw(payload)
        assert applied == other.apply_raw(payload)
        assert applied.sequence == number
        for outcome in applied.outcomes:
            one.machine.render(outcome.value)
    one.sound()
    assert one.machine.digest == other.machine.digest
    assert content_digest(one.connection) == content_digest(other.connection)
    one.do(t.CreateTopic(name="fresh"), t.TopicCreated)
    one.append("fresh", message("still working"))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([1, 2]),
        b"\x91" * 100_000,
        encode_entry(Entry(-1, 0, ())),
        encode_entry(Entry(limits.INTEGER_MAX + 1, 0, ())),
        encode_entry(Entry(0, moment.LAST_MS + 1, (seal(t.CreateTopic(name="x")),))),
    ],
)
def test_an_entry_that_nobody_can_read_is_counted_and_skipped(payload: bytes) -> None:
    rig = Rig()
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    before = rig.machine.digest
    applied = rig.machine.apply(7, 3, payload)
    assert (applied.sequence, applied.outcomes) == (2, [])
    assert isinstance(applied.events[0], e.EntrySkipped)
    assert rig.machine.position == Position(2, 7, 3)
    assert rig.machine.digest != before
    rig.machine.reload()
    assert rig.machine.position == Position(2, 7, 3)


def test_a_command_that_hits_a_bug_is_undone_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.do(t.CreateTopic(name="p", partitions=2), t.TopicCreated)
    real = topics._INSERT_PARTITION

    def poison() -> None:
        monkeypatch.setattr(topics, "_INSERT_PARTITION", "INSERT INTO partitions VALUES (?, nullif(?, 0))")

    poison()
    done = rig.apply(
        seal(t.Append(topic="p", messages=[message(1)])),
        seal(t.CreateTopic(name="spoiled"), "k"),
        seal(t.Append(topic="p", messages=[message(2)])),
    )
    monkeypatch.setattr(topics, "_INSERT_PARTITION", real)
    first, failed, third = (outcome.value for outcome in done.outcomes)
    assert expect(first, t.Appended).partition == 0
    assert expect(failed, CommandFailed).detail == "The command could not be applied (IntegrityError)."
    assert expect(third, t.Appended).partition == 1
    assert [type(event) for event in done.events] == [e.Appended, e.CommandSpoiled, e.Appended]
    rig.sound()
    assert rig.outcome(t.CreateTopic(name="spoiled"), "k").replayed is False
    rig.sound()


BROKEN = [
    (sqlite3.SQLITE_IOERR | (3 << 8), sqlite3.OperationalError),
    (sqlite3.SQLITE_FULL, sqlite3.OperationalError),
    (sqlite3.SQLITE_CORRUPT, sqlite3.DatabaseError),
    (sqlite3.SQLITE_NOTADB, sqlite3.DatabaseError),
    (sqlite3.SQLITE_READONLY, sqlite3.OperationalError),
    (None, MemoryError),
    (None, OSError),
    (None, KeyboardInterrupt),
]


@pytest.mark.parametrize(("code", "kind"), BROKEN)
def test_what_may_differ_between_nodes_undoes_the_entry_and_escapes(
    code: int | None, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(first_way=2)
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    before = (rig.machine.position, rig.machine.digest, rig.machine.now_ms, content_digest(rig.connection))
    real = topics.register_producer
    error = kind("broken")
    if code is not None:
        error.sqlite_errorcode = code  # type: ignore[attr-defined]

    def broken(*_: object) -> t.ProducerInfo:
        raise error

    monkeypatch.setattr(topics, "register_producer", broken)
    rig.now_ms = 1234
    payload = rig.payload(
        seal(t.CreateTopic(name="u"), "k"),
        seal(t.Append(topic="t", messages=[message(1)])),
        seal(t.RegisterProducer(topic="t")),
    )
    with pytest.raises(kind):
        rig.apply_raw(payload)
    assert before == (rig.machine.position, rig.machine.digest, rig.machine.now_ms, content_digest(rig.connection))
    assert not rig.connection.in_transaction
    monkeypatch.setattr(topics, "register_producer", real)
    again = rig.apply_raw(payload)
    assert [outcome.replayed for outcome in again.outcomes] == [False] * 3
    assert expect(again.outcomes[1].value, t.Appended).first_offset == 0
    rig.sound()


def test_what_may_differ_between_nodes_escapes_also_when_an_entry_is_applied_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(first_way=2)
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    before = content_digest(rig.connection)
    errors: list[Exception] = [ValueError("the same on every node"), OSError("this disk")]

    def broken(*_: object) -> t.ProducerInfo:
        raise errors.pop(0)

    monkeypatch.setattr(topics, "register_producer", broken)
    with pytest.raises(OSError, match="this disk"):
        rig.apply(seal(t.Append(topic="t", messages=[message(1)])), seal(t.RegisterProducer(topic="t")))
    assert (content_digest(rig.connection), rig.connection.in_transaction) == (before, False)
    rig.append("t", message(1))
    rig.sound()


def test_a_connection_interrupted_between_commands_leaves_nothing_half_applied(tmp_path: Path) -> None:
    rig = Rig(str(tmp_path / "state.db"))
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    before = content_digest(rig.connection)
    steps = 0

    def stop() -> int:
        nonlocal steps
        steps += 1
        return 1 if steps > 40 else 0

    rig.connection.set_progress_handler(stop, 20)
    payload = rig.payload(*(seal(t.Append(topic="t", messages=[message(i)]), f"k{i}") for i in range(50)))
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        rig.apply_raw(payload)
    rig.connection.set_progress_handler(None, 0)
    assert content_digest(rig.connection) == before
    assert rig.machine.position.sequence == 1
    assert len(rig.apply_raw(payload).outcomes) == 50
    rig.sound()


def test_a_full_disk_undoes_the_entry_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    rig = Rig(str(tmp_path / "state.db"))
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    pages = rig.connection.execute("PRAGMA page_count").fetchone()[0]
    rig.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    payload = rig.payload(seal(t.Append(topic="t", messages=[message("x" * 50_000)])))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        rig.apply_raw(payload)
    assert rig.machine.position.sequence == 1
    rig.connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    assert expect(rig.apply_raw(payload).outcomes[0].value, t.Appended).first_offset == 0
    rig.sound()


def test_a_connection_that_is_gone_stops_the_machine_where_it_was() -> None:
    rig = Rig()
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    payload = rig.payload(seal(t.CreateTopic(name="u")))
    real = topics.create_topic
    try:
        topics.create_topic = lambda *_: rig.connection.close()  # type: ignore[assignment]
        with pytest.raises(sqlite3.ProgrammingError):
            rig.apply_raw(payload)
    finally:
        topics.create_topic = real
    assert rig.machine.position.sequence == 1


def test_an_index_is_applied_once() -> None:
    rig = Rig()
    rig.machine.apply(5, 1, rig.payload())
    with pytest.raises(AssertionError):
        rig.machine.apply(5, 1, rig.payload())


def test_the_match_covers_every_command() -> None:
    with pytest.raises(AssertionError):
        deciding.decide(Rig().machine._state, "something else")  # type: ignore[arg-type]


SCRIPT = """
from tests.machine.desk import Desk, new
from tests.machine.rig import Rig, message, seal
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.submitting import Submit
rig = Rig()
rig.apply(*(seal(t.CreateTopic(name=name, partitions=3), name) for name in "dcba"))
for i in range(20):
    rig.now_ms += 1
    messages = [message(j, key="k%d" % (i * j % 7), z="1", a="2") for j in range(9)]
    rig.apply(*(seal(t.Append(topic=name, messages=messages), "%s%d" % (name, i)) for name in "abcd"))
desk = Desk()
desk.put(partitions=5)
for name in "dcba":
    desk.enrol(name, "q", "r", dead_after_ms=60_000)
desk.enrol("s", standby=True)
for i in range(20):
    desk.entry(*(Submit(queue=name, tasks=[new(key="k%d" % (i * j % 7)) for j in range(9)]) for name in "qqr"))
    leases = desk.claim(1 + i % 4, 9)
    for lease in leases[:3]:
        desk.fail(lease)
    for lease in leases[3:6]:
        desk.complete(lease)
    desk.after(500 * i)
print(rig.machine.digest, content_digest(rig.connection), desk.machine.digest, content_digest(desk.connection))
"""


def test_hash_seeds_change_nothing() -> None:
    root = Path(door.__file__).resolve().parents[2]
    said = set()
    for seed in ("0", "1", "4242"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
        said.add(done.stdout)
    assert len(said) == 1
