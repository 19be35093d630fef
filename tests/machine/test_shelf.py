"""Batches that were decoded lately: the same answers, sooner, within bounds."""

from __future__ import annotations

import pytest

from quorl.cluster.machine import queries, reading
from quorl.cluster.machine.reading import Place, StoredPayload
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from tests.machine.rig import Rig, message, values


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """What was decoded, in order."""
    places: list[Place] = []
    real = reading.decode_anew

    def decode(place: Place, body: bytes) -> list[StoredPayload]:
        places.append(place)
        return real(place, body)

    monkeypatch.setattr(reading, "decode_anew", decode)
    return places


def rig_with(batches: int, size: int = 20) -> Rig:
    rig = Rig()
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    rig.do(t.RegisterConsumer(topic="t"), t.ConsumerInfo)
    for batch in range(batches):
        rig.append("t", *(message(batch * size + i, h=str(i)) for i in range(size)))
    return rig


def test_a_batch_that_is_read_message_by_message_is_decoded_once(decoded: list[Place]) -> None:
    rig = rig_with(2)
    for number in range(40):
        consumed = rig.consume("t", 1)
        assert values(consumed.items) == [number]
        assert values(rig.ask(t.Browse(topic="t", start=str(number), limit=1), t.MessagePage).items) == [number]
        found = rig.ask(t.GetMessage(topic="t", partition=0, offset=number), t.MessageInfo)
        assert found.headers == {"h": str(number % 20)}
    assert decoded == [(1, 0, 0), (1, 0, 20)]
    everything = queries.query(rig.connection, t.Browse(topic="t"))
    assert everything == rig.machine.query(t.Browse(topic="t"))


def test_small_batches_take_no_place(decoded: list[Place]) -> None:
    rig = rig_with(2, size=2)
    for _ in range(3):
        assert values(rig.ask(t.Browse(topic="t"), t.MessagePage).items) == [0, 1, 2, 3]
    assert len(decoded) == 6


def test_the_batch_that_was_not_asked_for_the_longest_goes_first(
    decoded: list[Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DECODED_BATCHES_MAX", 2)
    rig = rig_with(3)
    for offset in (0, 20, 0, 40, 0, 20):
        rig.ask(t.GetMessage(topic="t", partition=0, offset=offset), t.MessageInfo)
    assert [base for _, _, base in decoded] == [0, 20, 40, 20]
    rig.machine.reload()
    rig.ask(t.GetMessage(topic="t", partition=0, offset=0), t.MessageInfo)
    assert decoded[-1] == (1, 0, 0)


def test_the_shelf_is_bounded_in_bytes(decoded: list[Place], monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rig_with(2)
    (size,) = rig.connection.execute("SELECT max(length(body)) FROM batches").fetchone()
    monkeypatch.setattr(limits, "DECODED_BYTES_MAX", size)
    for offset in (0, 0, 20, 20, 0):
        rig.ask(t.GetMessage(topic="t", partition=0, offset=offset), t.MessageInfo)
    assert [base for _, _, base in decoded] == [0, 20, 0]
    monkeypatch.setattr(limits, "DECODED_BYTES_MAX", 1)
    rig.ask(t.GetMessage(topic="t", partition=0, offset=20), t.MessageInfo)
    rig.ask(t.GetMessage(topic="t", partition=0, offset=20), t.MessageInfo)
    assert [base for _, _, base in decoded] == [0, 20, 0, 20, 20]
    assert rig.machine._shelf._size_bytes == 0


def test_what_is_packed_counts_as_long_as_it_is(decoded: list[Place], monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    messages = [message("x" * 1000) for _ in range(20)]
    for _ in range(2):
        rig.do(t.Append(topic="t", messages=messages).sealed().packed(), t.Appended)
    monkeypatch.setattr(limits, "DECODED_BYTES_MAX", 30_000)
    for offset in (0, 0, 20, 0):
        rig.ask(t.GetMessage(topic="t", partition=0, offset=offset), t.MessageInfo)
    assert [base for _, _, base in decoded] == [0, 20, 0]
