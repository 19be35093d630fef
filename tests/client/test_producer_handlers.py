"""A signal handler may close, flush or use the producer whose ``send`` it interrupted, in the same thread: nothing hangs, nothing is lost.

As in ``test_reentry`` a profile function is called where handlers run, at each of these places in turn.
"""

from __future__ import annotations

import contextlib
import threading
import types
from collections.abc import Callable

import pytest
from typing_extensions import override

from quorl.client import Client, Unavailable, producer
from quorl.client.producer import BUFFER_BYTES_MAX, Pending, Producer
from quorl.cluster.protocol import limits
from tests.client.test_reentry import PATIENCE_S, Store, at_every_place, entered_at


def flies_on() -> bool:
    """Whether a thread sends that does not end. One that has nothing more to do with its producer may have a step to go."""
    threads = [one for one in threading.enumerate() if one.name == "quorl-producer"]
    for one in threads:
        one.join(PATIENCE_S)
    return any(one.is_alive() for one in threads)


@pytest.mark.parametrize("before", [0, 1])
def test_a_producer_may_be_closed_while_its_thread_hands_over_a_message(before: int) -> None:
    """What ``send`` has accepted is stored once the handler and it have returned; what it has not, it says."""

    def once(place: int) -> bool:
        store = Store()
        accepted: list[object] = []
        with Client("http://a", transport=store) as client:
            producer = client.topic("x").producer()
            for number in range(before):
                accepted.append(number)
                producer.send(number).offset()

            def hand_over() -> None:
                with contextlib.suppress(RuntimeError):  # it is closed
                    producer.send("outer")
                    accepted.append("outer")

            came = entered_at(place, hand_over, producer.close)
            if came:
                assert store.stored == accepted
                assert not flies_on()
            producer.close()
            assert store.stored == accepted
        return came

    at_every_place(once, 10)


@pytest.mark.parametrize("what", ["flush", "offset"])
def test_a_handler_may_wait_for_what_it_and_the_thread_below_it_hand_over(what: str) -> None:
    def once(place: int) -> bool:
        store = Store()
        with Client("http://a", transport=store) as client:
            producer = client.topic("x").producer()

            def wait() -> None:
                pending = producer.send("inner")
                producer.flush() if what == "flush" else pending.offset()
                assert "inner" in store.stored

            came = entered_at(place, lambda: producer.send("outer"), wait)
            producer.close()
            assert sorted(store.stored) == (["inner", "outer"] if came else ["outer"])
        return came

    at_every_place(once, 10)


def test_the_thread_is_started_where_no_handler_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """``start`` has locks, that of all threads among them, which keep a new thread from beginning; a handler would wait for it."""
    starters: list[int] = []

    class Watched(threading.Thread):
        @override
        def start(self) -> None:
            starters.append(threading.get_ident())
            super().start()

    monkeypatch.setattr(producer, "threading", types.SimpleNamespace(**{**vars(threading), "Thread": Watched}))
    store = Store()
    with Client("http://a", transport=store) as client, client.topic("x").producer() as made:
        made.send("one").offset()
    assert len(starters) == 1
    assert threading.get_ident() not in starters
    assert store.stored == ["one"]


@pytest.mark.parametrize("wait", [lambda made, _: made.flush(), lambda _, pending: pending.offset()])
def test_a_thread_that_cannot_be_started_is_told_to_whoever_waits(
    wait: Callable[[Producer, Pending], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to whoever hands over: what he hands over once more, for an error, would be stored twice."""

    class Refused(threading.Thread):
        @override
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(producer, "threading", types.SimpleNamespace(**{**vars(threading), "Thread": Refused}))
    store = Store()
    with Client("http://a", transport=store) as client:
        made = client.topic("x").producer()
        pending = made.send("one")
        with pytest.raises(RuntimeError, match="can't start new thread"):
            wait(made, pending)
        monkeypatch.undo()
        made.close()  # what it was handed waits all the same
    assert store.stored == ["one"]


@pytest.mark.parametrize("outer", [Producer.flush, Producer.close])
def test_a_producer_may_be_closed_while_its_thread_waits_for_it(outer: Callable[[Producer], None]) -> None:
    def once(place: int) -> bool:
        store, lands = Store(), threading.Event()
        store.before = lambda: lands.wait(PATIENCE_S)
        with Client("http://a", transport=store) as client:
            producer = client.topic("x").producer()
            producer.send("outer")

            def close() -> None:
                lands.set()
                producer.close()

            helper = threading.Timer(0.02, lands.set)  # so that it ends where nothing interrupts it
            helper.start()
            came = entered_at(place, lambda: outer(producer), close)
            helper.join()
            producer.close()
            assert store.stored == ["outer"]
        return came

    at_every_place(once, 5)


def test_a_producer_may_be_closed_while_its_thread_waits_for_room() -> None:
    """Who waits for room is told that it is closed, and what was accepted before is stored."""
    store, lands = Store(), threading.Event()
    store.before = lambda: lands.wait(PATIENCE_S)
    with Client("http://a", transport=store) as client:
        producer = client.topic("x").producer()
        big = "x" * (limits.MESSAGE_VALUE_BYTES_MAX - 100)
        count = BUFFER_BYTES_MAX // limits.MESSAGE_VALUE_BYTES_MAX
        for _ in range(count):
            producer.send(big)
        told: list[BaseException] = []

        def hand_over() -> None:
            try:
                producer.send_many([big, big])
            except RuntimeError as error:
                told.append(error)

        waiting = threading.Thread(target=hand_over)
        waiting.start()
        closing = threading.Thread(target=producer.close)
        closing.start()
        waiting.join(PATIENCE_S)
        lands.set()
        closing.join(PATIENCE_S)
    assert [str(error) for error in told] == ["the producer is closed"]
    assert len(store.stored) == count


def test_who_hands_over_to_a_producer_whose_client_is_closed_is_told() -> None:
    store = Store()
    with Client("http://a", transport=store) as client:
        producer = client.topic("x").producer()
        client.close()
        with pytest.raises(Unavailable, match="the client is closed"):
            producer.send("late").offset()
        with pytest.raises(Unavailable, match="the client is closed"):
            producer.close()
    assert not store.stored
    assert not flies_on()
