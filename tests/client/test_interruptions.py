"""An exception that a signal handler raises, at any step of a call, leaves nobody waiting and nothing untold.

Handlers run where the interpreter looks for signals: when a function is entered, and after a call of a built-in one. A
profile function is called just there, so it can raise at each of these places in turn.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import msgspec
from typing_extensions import override

import quorl.client as package
from quorl.client import Client, OutcomeUnknown, Unavailable
from quorl.client.flow import Failure, Send
from quorl.client.sync_transport import Transport
from quorl.cluster.protocol.wire import Answer
from tests.client.scripted import appended

PATIENCE_S = 10.0
OURS = package.__path__[0]


class Interrupted(Exception):
    """What the handler raises."""


class Store(Transport):
    """Takes all messages, and lets the first flight wait at its node until it is told to land."""

    def __init__(self) -> None:
        self.stored: list[Any] = []
        self.left = threading.Event()
        self.lands = threading.Event()

    @override
    def send(self, send: Send) -> Answer | Failure:
        values = [one["value"] for one in msgspec.json.decode(send.call.body)["messages"]]
        first = len(self.stored)
        self.stored += values
        if not self.left.is_set():
            self.left.set()
            assert self.lands.wait(PATIENCE_S)
        return appended(len(values), first=first)

    @override
    def close(self) -> None:
        """Nothing is open."""


def raising_at(place: int) -> tuple[Callable[[FrameType, str, object], None], Iterator[int]]:
    """Return a profile function that raises at that place, and what counts the places."""
    counter = itertools.count()

    def look(frame: FrameType, event: str, _argument: object) -> None:
        ours = event in ("call", "c_return") and frame.f_code.co_filename.startswith(OURS)
        if ours and next(counter) == place:
            raise Interrupted

    return look, counter


def attempt(client: Client, value: str, outcomes: dict[str, object]) -> threading.Thread:
    def work() -> None:
        try:
            outcomes[value] = client.topic("x").append(value).offset
        except (Unavailable, OutcomeUnknown) as error:
            outcomes[value] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def waits(client: Client, count: int) -> bool:
    return any(len(lane.queue) >= count for lane in list(client._lanes.values()))


def until(condition: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(int(PATIENCE_S / 0.001)):
        if condition():
            return
        tick.wait(0.001)
    raise AssertionError("waited in vain")


def interrupted(client: Client, place: int, ended: threading.Event) -> bool:
    """Append in this thread, interrupted at a place; returns whether it came so far."""
    look, counter = raising_at(place)
    try:
        sys.setprofile(look)
        try:
            client.topic("x").append("main")
        finally:
            sys.setprofile(None)
    except Interrupted:
        pass
    finally:
        ended.set()
    return next(counter) > place


def all_is_well(client: Client, store: Store, outcomes: dict[str, object], threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "somebody waits for ever"
    last = attempt(client, "later", outcomes)
    last.join(PATIENCE_S)
    assert not last.is_alive(), "a later call waits for ever"
    assert not client._lanes
    assert not client._leaders
    for value, outcome in outcomes.items():
        assert store.stored.count(value) <= 1
        if isinstance(outcome, int):
            assert store.stored[outcome] == value
        elif isinstance(outcome, Unavailable):
            assert value not in store.stored


class Scene:
    """A client with a store of its own, and the threads that use it beside this one."""

    def __init__(self, client: Client, store: Store) -> None:
        self.client = client
        self.store = store
        self.outcomes: dict[str, object] = {}
        self.threads: list[threading.Thread] = []
        self.ended = threading.Event()

    def append(self, value: str) -> None:
        self.threads.append(attempt(self.client, value, self.outcomes))

    def until(self, condition: Callable[[], bool]) -> None:
        until(lambda: condition() or self.ended.is_set())

    def joined(self) -> None:
        """While this thread is under way another one comes in behind it; then the flight lands."""
        self.until(self.store.left.is_set)
        self.append("behind")
        self.until(lambda: waits(self.client, 1))
        self.store.lands.set()

    def joined_in_the_queue(self) -> None:
        """While this thread waits another one comes in behind it; then the flight lands."""
        self.until(lambda: waits(self.client, 1))
        self.append("behind")
        self.until(lambda: waits(self.client, 2))
        self.store.lands.set()

    def came_to(self, place: int, meanwhile: Callable[[], None]) -> bool:
        """Interrupt this thread at the place; returns whether it came so far."""
        helper = threading.Thread(target=meanwhile, daemon=True)
        helper.start()
        came = interrupted(self.client, place, self.ended)
        helper.join(PATIENCE_S)
        all_is_well(self.client, self.store, self.outcomes, self.threads)
        return came


def test_who_is_interrupted_while_he_leads_leaves_nobody_waiting() -> None:
    for place in itertools.count():
        store = Store()
        with Client("http://a", transport=store) as client:
            scene = Scene(client, store)
            if not scene.came_to(place, scene.joined):
                break
    assert place > 50


def test_who_is_interrupted_while_he_waits_or_is_chosen_leaves_nobody_waiting() -> None:
    for place in itertools.count():
        store = Store()
        with Client("http://a", transport=store) as client:
            scene = Scene(client, store)
            scene.append("first")
            assert store.left.wait(PATIENCE_S)
            if not scene.came_to(place, scene.joined_in_the_queue):
                break
    assert place > 50
