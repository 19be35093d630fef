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
from quorl.client.producer import BUFFER_BYTES_MAX, Producer
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


def test_a_handler_that_interrupts_the_start_of_the_thread_does_not_wait_for_that_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It exists by then and cannot begin: it needs the lock of what it tells its beginning, which is held below the handler."""
    handlers: list[Callable[[], object]] = []

    class Interrupted(threading.Thread):
        @override
        def start(self) -> None:
            self.held = threading.Lock()
            with self.held:
                super().start()
                if handlers:
                    handlers.pop()()

        @override
        def run(self) -> None:
            with self.held:
                pass
            super().run()

    monkeypatch.setattr(producer, "threading", types.SimpleNamespace(**{**vars(threading), "Thread": Interrupted}))
    store = Store()
    with Client("http://a", transport=store) as client:
        made = client.topic("x").producer()
        handlers.append(lambda: made.send("inner").offset())
        sending = threading.Thread(target=made.send, args=("outer",), daemon=True)
        sending.start()
        sending.join(PATIENCE_S)
        assert not sending.is_alive(), "it waits for itself"
        made.close()
    assert store.stored == ["outer", "inner"]


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
