"""A stream of messages to one topic, in order and in batches, for threads.

Invariants: one batch is in flight at a time, so the topic's order (per partition) is the order of ``send``; what waits is
bounded, and ``send`` waits for room; after the first failure nothing more is sent, so that no message is stored behind
a gap. A thread of the producer's own does the sending, from the first message until the producer is closed. A forked process
sends by a thread of its own what it is handed itself, and leaves what its parent was handed to that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from typing_extensions import override

from quorl.client.errors import Unavailable
from quorl.client.forking import Renewed
from quorl.client.lanes import AppendPart
from quorl.client.model import MessageLike, Placed, check_size, message, messages, placed, size_bytes
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t

if TYPE_CHECKING:
    from quorl.client.sync import Client

BUFFER_BYTES_MAX = 4 * 1024 * 1024

assert BUFFER_BYTES_MAX > limits.REQUEST_BYTES_MAX


class Pending:
    """Messages on their way."""

    __slots__ = ("_changed", "_part")

    def __init__(self, part: AppendPart, changed: threading.Condition) -> None:
        self._part = part
        self._changed = changed

    @property
    def done(self) -> bool:
        """Whether it is known what came of them."""
        return self._part.done

    def ranges(self) -> list[t.Range]:
        """Wait until the messages are stored and return where; raises what went wrong."""
        if not self._part.done:
            with self._changed:
                self._changed.wait_for(lambda: self._part.done)
        return self._part.places()

    def place(self) -> Placed:
        """Wait until the one message is stored and return where."""
        return placed(self.ranges())

    def offset(self) -> int:
        """Wait until the one message is stored and return its offset."""
        return self.place().offset


class Producer(Renewed):
    """Sends a stream of messages. Leaving ``with`` sends what waits, and raises what went wrong."""

    def __init__(self, client: Client, topic: str, *, producer_id: int | None, register_as: str | None) -> None:
        self._client = client
        self._topic = topic
        self.producer_id = producer_id
        self._register_as = register_as
        self._lane = client.lane(topic)
        self._closed = False
        self.error: Exception | None = None
        """The first failure; nothing is sent after it."""
        super().__init__()

    @override
    def _renew(self) -> None:
        error, parents = self.error, self._lane
        self._changed = threading.Condition()
        self._waiting = self._waiting_bytes = 0
        parents.break_off(parents.aboard)
        parents.abandon(Unavailable("it waits in the process that this one was forked from"))
        self.error = error
        self._lane = self._client.lane(self._topic)
        self._thread: threading.Thread | None = None
        self._waiting = self._waiting_bytes = 0

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
        with self._changed:
            self._changed.wait_for(lambda: self.error is not None or self._has_room(part.size_bytes))
            if self.error is not None:
                raise self.error
            if self._closed:
                raise RuntimeError("the producer is closed")
            self._waiting += 1
            self._waiting_bytes += part.size_bytes
            self._lane.queue.append(part)
            self._changed.notify_all()
            if self._thread is None:
                made = threading.Thread(target=self._run, name="quorl-producer", daemon=True)
                if self._thread is None:  # a signal handler may have handed something over meanwhile
                    self._thread = made
                    made.start()
        return Pending(part, self._changed)

    def _has_room(self, size: int) -> bool:
        return not self._waiting_bytes or self._waiting_bytes + size <= BUFFER_BYTES_MAX

    def _landed(self, part: AppendPart) -> None:
        with self._changed:
            self._waiting -= 1
            self._waiting_bytes -= part.size_bytes
            if isinstance(part.outcome, Exception) and self.error is None:
                self.error = part.outcome
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lane.queue or self._closed)
                if not self._lane.queue:
                    return
            try:
                if self.error is None:
                    self._client.drive(self._lane.fly())
            except Exception as error:  # nobody else sees what this thread runs into
                self.error = self.error or error
            if self.error is not None:
                self._lane.abandon(Unavailable("not sent, because an earlier message failed"))

    def flush(self) -> None:
        """Wait until everything handed over is stored; raises the first failure."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Send what waits and stop the thread; raises the first failure."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
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
