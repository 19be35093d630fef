"""A signal handler may use the client whose call it interrupted, in the same thread: it waits for nothing that only the interrupted could do.

As in ``test_interruptions`` a profile function is called where handlers run, at each of these places in turn.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec
import pytest
from typing_extensions import override

import quorl.client as package
from quorl.client import App, Client
from quorl.client.flow import Failure, Send
from quorl.client.sync_transport import ChannelTransport, HttpTransport, Transport
from quorl.cluster.protocol.wire import Answer
from tests.client.scripted import appended
from tests.client.stand_in import StandIn
from tests.client.test_interruptions import until, waits

PATIENCE_S = 10.0
WATCHED = package.__path__[0], "/urllib3/", "/queue.py", "/threading.py"
"""Whose steps are tried: ours, and those that have locks for us."""


class Store(Transport):
    """Takes all messages."""

    def __init__(self) -> None:
        self.stored: list[Any] = []
        self.before: Callable[[], object] = lambda: None
        """Done once, when the next call comes."""

    @override
    def send(self, send: Send) -> Answer | Failure:
        before, self.before = self.before, lambda: None
        before()
        values = [one["value"] for one in msgspec.json.decode(send.call.body)["messages"]]
        self.stored += values
        return appended(len(values), first=len(self.stored) - len(values))

    @override
    def close(self) -> None:
        """Nothing is open."""


def entered_at(place: int, work: Callable[[], object], handler: Callable[[], object]) -> bool:
    """Do the work in a thread, and there what the handler does in between at that place; returns whether it came so far."""
    counter = itertools.count()
    came = False
    failed: list[BaseException] = []

    def look(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal came
        ours = event in ("call", "c_return") and any(part in frame.f_code.co_filename for part in WATCHED)
        if ours and next(counter) == place:
            came = True
            sys.setprofile(None)
            handler()

    def run() -> None:
        sys.setprofile(look)
        try:
            work()
        except BaseException as error:
            failed.append(error)
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), f"it waits for itself, at place {place}"
    assert not failed, failed
    return came


def flying(others: set[threading.Thread]) -> list[threading.Thread]:
    """The threads of producers that were made since."""
    return [one for one in set(threading.enumerate()) - others if one.name == "quorl-producer"]


def at_every_place(once: Callable[[int], bool], least: int) -> None:
    """Play it with the handler at each place in turn; ``once`` says whether there was one."""
    place = 0
    while once(place):
        place += 1
    assert place > least


def test_an_append_may_interrupt_an_append_of_its_own_thread() -> None:
    def once(place: int) -> bool:
        store = Store()
        with Client("http://a", transport=store) as client:
            topic = client.topic("x")
            came = entered_at(place, lambda: topic.append("outer"), lambda: topic.append("inner"))
            assert sorted(store.stored) == (["inner", "outer"] if came else ["outer"])
            assert not client._lanes
            assert not client._leaders
        return came

    at_every_place(once, 50)


def test_an_append_may_interrupt_one_that_waits_for_the_flight_of_another_thread() -> None:
    def once(place: int) -> bool:
        store, left, lands = Store(), threading.Event(), threading.Event()

        def fly() -> None:
            left.set()
            assert lands.wait(PATIENCE_S)

        def land() -> None:
            until(lambda: waits(client, 1))
            lands.set()

        store.before = fly
        with Client("http://a", transport=store) as client:
            topic = client.topic("x")
            others = [threading.Thread(target=topic.append, args=("other",)), threading.Thread(target=land)]
            others[0].start()
            assert left.wait(PATIENCE_S)
            others[1].start()
            came = entered_at(place, lambda: topic.append("outer"), lambda: topic.append("inner"))
            for other in others:
                other.join(PATIENCE_S)
            assert sorted(store.stored) == (["inner", "other", "outer"] if came else ["other", "outer"])
            assert not client._leaders
        return came

    at_every_place(once, 50)


@pytest.mark.parametrize("kind", [ChannelTransport, HttpTransport])
@pytest.mark.parametrize("inner", ["call", "close"])
def test_a_call_or_a_close_may_interrupt_a_call_of_its_own_thread(
    cluster: StandIn, kind: Callable[[], Transport], inner: str
) -> None:
    with Client(cluster.servers) as client:
        client.topics.create("x")

    def once(place: int) -> bool:
        with Client(cluster.servers, transport=kind()) as client:
            client.topics.list()  # a connection is kept
            came = entered_at(
                place, client.topics.list, client._transport.close if inner == "close" else client.topics.list
            )
            assert [topic.name for topic in client.topics.list()] == ["x"]
        return came

    at_every_place(once, 50)


def test_a_producer_may_be_handed_a_message_while_its_thread_hands_over_another() -> None:
    def once(place: int) -> bool:
        store = Store()
        with Client("http://a", transport=store) as client:
            producer, others = client.topic("x").producer(), set(threading.enumerate())
            store.before = lambda: until(lambda: bool(producer._gates))  # so that it is always waited for
            came = entered_at(place, lambda: producer.send("outer").offset(), lambda: producer.send("inner"))
            until(lambda: len(flying(others)) == 1)  # two would store messages in any order; a second one goes again
            producer.close()
            assert sorted(store.stored) == (["inner", "outer"] if came else ["outer"])
        return came

    at_every_place(once, 50)


def test_an_app_may_be_used_while_its_client_is_being_made(cluster: StandIn) -> None:
    def once(place: int) -> bool:
        app = App(cluster.servers)

        def use() -> None:
            assert app.client.topics.list() == []

        came = entered_at(place, lambda: app.client, use)
        use()
        app.close()
        return came

    at_every_place(once, 10)


def test_a_real_signal_handler_appends_while_its_thread_does() -> None:
    store = Store()
    with Client("http://a", transport=store) as client:
        topic = client.topic("x")
        former = signal.signal(signal.SIGUSR1, lambda *_: topic.append("inner"))
        store.before = lambda: signal.raise_signal(signal.SIGUSR1)
        try:
            topic.append("outer")
        finally:
            signal.signal(signal.SIGUSR1, former)
    assert store.stored == ["inner", "outer"]
