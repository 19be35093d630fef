"""A stream of messages to one topic, in order and in batches, for threads.

Invariants: one batch is in flight at a time, so the topic's order (per partition) is the order of ``send``; what waits is
bounded, and ``send`` waits for room; after the first failure nothing more is sent, so that no message is stored behind
a gap. A thread of the producer's own does the sending, from the first message until the producer is closed; what waits when
the program ends without closing it is sent then, and what failed and nobody was told is said. A forked process
sends by a thread of its own what it is handed itself, and leaves what its parent was handed to that.

A signal handler may use the producer, and close it, while the thread below it is anywhere in here. So nobody waits with a
lock, and the sending thread takes none that others have: what is handed over goes by single steps. Whoever waits registers
his gate first and looks then, so that nothing happens unseen in between, and sees to it that there is a thread that sends,
for the one who was about to start it may be below him.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import sys
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from typing_extensions import override

from quorl.client.errors import Unavailable
from quorl.client.forking import Renewed
from quorl.client.lanes import AppendPart
from quorl.client.locks import Lock
from quorl.client.model import MessageLike, Placed, check_size, message, messages, placed, size_bytes
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t

if TYPE_CHECKING:
    from quorl.client.sync import Client

BUFFER_BYTES_MAX = 4 * 1024 * 1024
"""Handed over and not yet stored; who hands over more waits. Several flights, and no more memory than that."""

assert BUFFER_BYTES_MAX > limits.REQUEST_BYTES_MAX


class Pending:
    """Messages on their way."""

    __slots__ = ("_part", "_wait")

    def __init__(self, part: AppendPart, wait: Callable[[AppendPart], None]) -> None:
        self._part = part
        self._wait = wait

    @property
    def done(self) -> bool:
        """Whether it is known what came of them."""
        return self._part.done

    def ranges(self) -> list[t.Range]:
        """Wait until the messages are stored and return where; raises what went wrong."""
        self._wait(self._part)
        return self._part.places()

    def place(self) -> Placed:
        """Wait until the one message is stored and return where."""
        return placed(self.ranges())

    def offset(self) -> int:
        """Wait until the one message is stored and return its offset."""
        return self.place().offset


class NoThread(RuntimeError):
    """The system gives no thread to send what waits; it is tried again by whoever waits for it, or hands over more."""


class Producer(Renewed):
    """Sends a stream of messages. Leaving ``with`` sends what waits, and raises what went wrong."""

    def __init__(self, client: Client, topic: str, *, producer_id: int | None, register_as: str | None) -> None:
        self._client = client
        self._topic = topic
        self.producer_id = producer_id
        self._register_as = register_as
        self._lane = client.lane(topic)
        self._closed = False
        self._told = False
        """Whether somebody was told of a failure."""
        self.error: Exception | None = None
        """The first failure; nothing is sent after it."""
        super().__init__()

    @override
    def _renew(self) -> None:
        error, parents = self.error, self._lane
        self._handing = Lock()
        self._gates: set[threading.Lock] = set()
        """Of those who wait."""
        self._sending = threading.Lock()
        """Whoever has it is the thread that sends."""
        self._thread: threading.Thread | None = None
        """The one that sends; None: none has begun yet, or it has ended."""
        self._flying = False
        """Whether the thread is at what waits: not before it is through with all of it is this over."""
        self._handed_bytes = self._landed_bytes = 0
        parents.break_off(parents.aboard)
        parents.abandon(Unavailable("it waits in the process that this one was forked from"))
        self.error = error
        self._lane = self._client.lane(self._topic)
        self._handed_bytes = self._landed_bytes = 0

    def send(self, value: object, *, key: str | None = None, headers: dict[str, str] | None = None) -> Pending:
        """Hand over a message; waits only for room. The result can be asked where the message is."""
        return self._send([message(value, key=key, headers=headers, producer=self.producer_id)])

    def send_many(self, values: Iterable[MessageLike]) -> Pending:
        """Hand over messages that are to be stored together, all or none."""
        return self._send(messages(values, self.producer_id))

    def _send(self, batch: list[t.Message]) -> Pending:
        for one in batch:
            check_size(one)
        part = AppendPart(batch, size_bytes(batch), None, self._landed)
        while not self._hand_over(part):
            self._wait_for(lambda: self.error is not None or self._closed or self._has_room(part.size_bytes))
        self._wake()
        with contextlib.suppress(NoThread):  # it is handed over, so it is no failure: whoever waits for it tries again
            self._see_to_it()
        if self._closed:  # by a signal handler, after it was found open: what closing promises is done for this one too
            self.close()
        return Pending(part, self._wait)

    def _hand_over(self, part: AppendPart) -> bool:
        """Let a part wait for its flight, if there is room."""
        with self._handing:  # or several threads would take the same room
            self._raise_if_failed()
            if self._closed:
                raise RuntimeError("the producer is closed")
            if not self._has_room(part.size_bytes):
                return False
            self._lane.queue.append(part)
            self._handed_bytes += part.size_bytes
            return True

    def _has_room(self, size: int) -> bool:
        waiting = self._handed_bytes - self._landed_bytes
        return waiting <= 0 or waiting + size <= BUFFER_BYTES_MAX

    def _landed(self, part: AppendPart) -> None:
        self._landed_bytes += part.size_bytes
        if isinstance(part.outcome, Exception) and self.error is None:
            self.error = part.outcome
        self._wake()

    def _raise_if_failed(self) -> None:
        if self.error is not None:
            self._told = True
            raise self.error

    # -- waiting ------------------------------------------------------------------------------------------------------
    def _wait_for(self, condition: Callable[[], object]) -> None:
        gate = threading.Lock()
        gate.acquire()
        try:
            self._gates.add(gate)
            while not condition():
                self._see_to_it()
                gate.acquire()
        finally:
            self._gates.discard(gate)

    def _wait(self, part: AppendPart) -> None:
        """Wait until it is known what came of a part."""
        if not part.done:
            self._wait_for(lambda: part.done)
        self._told |= isinstance(part.outcome, Exception)

    def _wake(self) -> None:
        """Let all that wait look again."""
        for gate in list(self._gates):
            with contextlib.suppress(RuntimeError):  # it is open
                gate.release()

    # -- sending ------------------------------------------------------------------------------------------------------
    def _see_to_it(self) -> None:
        """See that there is a thread for what waits. It may come to two, of which one goes again.

        One that was made and has not begun does not count: a signal handler may stand in the middle of the call that
        starts it.
        """
        if self._lane.queue and self._thread is None:
            _open.add(self._finish)
            _start(threading.Thread(target=self._run, name="quorl-producer", daemon=True))

    def _run(self) -> None:
        while self._sending.acquire(blocking=False):
            self._thread = threading.current_thread()
            _open.add(self._finish)
            self._send_what_comes()
            _open.discard(self._finish)
            self._thread = None
            self._sending.release()
            self._wake()
            if not self._lane.queue:  # else it came after the last look, and found this thread still there
                return

    def _send_what_comes(self) -> None:
        """Send until the producer is closed and nothing waits."""
        while True:
            self._wait_for(lambda: self._lane.queue or self._closed)
            if not self._lane.queue:
                return
            self._flying = True
            while self._lane.queue:
                self._fly()
            self._flying = False
            self._wake()

    def _fly(self) -> None:
        try:
            if self.error is None:
                self._client.drive(self._lane.fly())
        except Exception as error:  # nobody else sees what this thread runs into
            self.error = self.error or error
            if isinstance(error, Unavailable):  # the client is closed: no earlier message is the reason
                self._lane.abandon(error)
        if self.error is not None:
            self._lane.abandon(Unavailable("not sent, because an earlier message failed"))

    # -- ending -------------------------------------------------------------------------------------------------------
    def flush(self) -> None:
        """Wait until everything handed over is stored; raises the first failure."""
        self._landing()
        self._raise_if_failed()

    def _landing(self) -> None:
        """Wait until it is known what came of all that was handed over."""
        self._wait_for(lambda: not self._lane.queue and not self._flying)  # in this order: what leaves the queue flies

    def _finish(self) -> None:
        """At the end of the program: send what waits, and say what nobody was told."""
        error: Exception | None = None
        try:
            self._landing()
        except NoThread as none:
            error = none
        error = self.error or error
        if error is not None and not self._told:
            why = getattr(error, "detail", str(error))
            sys.stderr.write(f"quorl: not all that was handed to the producer of {self._topic!r} is stored: {why}\n")

    def close(self) -> None:
        """Send what waits and stop the thread; raises the first failure."""
        self._closed = True
        self._wake()
        self._wait_for(lambda: not self._lane.queue and not self._sending.locked())
        self.flush()

    def __enter__(self) -> Self:
        if self.producer_id is None and self._register_as is not None:
            request = t.RegisterProducer(topic=self._topic, name=self._register_as)
            self.producer_id = self._client.call(request).producer_id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _start(thread: threading.Thread) -> None:
    """Start a thread as its ``start`` does, but by a thread that no signal handler interrupts.

    ``start`` takes locks without which the new thread cannot begin, and from Python 3.14 on handlers run also while it has
    the one that all threads need: a handler that waited for any new thread there would wait for what is below it.
    """
    failed: list[BaseException] = []
    begun = threading.Lock()
    begun.acquire()

    def start() -> None:
        try:
            thread.start()
        except BaseException as error:  # no thread can be made any more
            failed.append(error)
        finally:
            begun.release()

    try:
        _thread.start_new_thread(start, ())
    except RuntimeError as error:
        raise NoThread(f"what waits cannot be sent now: {error}") from error
    begun.acquire()
    if failed:
        raise NoThread(f"what waits cannot be sent now: {failed[0]}") from failed[0]


_open: set[Callable[[], None]] = set()
"""What finishes the producers whose thread runs."""


def _finish_all() -> None:
    for finish in list(_open):
        finish()


atexit.register(_finish_all)
