"""How many rows the commands of an entry may write: what they cost every node, whatever their number and size.

And what else a glance at the commands tells: which queues get how many tasks, and which workers speak.

Invariants: the sum is never less than the rows that depend on partitions, also when a topic is created in the same entry
in which it is used, nor less than the tasks that are submitted, claimed or reported on. Only the leader weighs, to decide
where an entry ends; nothing of it is replicated.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import Sealed
from quorl.cluster.protocol.packing import HEAD_BYTES, unpacked_bytes
from quorl.cluster.protocol.together import Seat

BYTES_DEALT_PER_ROW = 1024
"""To read and deal out so much of messages takes no longer than a row."""
_BIN = {0xC4: 2, 0xC5: 3, 0xC6: 5}
"""How long the head of msgpack's bytes is, by its first one."""
_NO_BYTES = msgspec.Raw(b"\xc4\x00")
_NOTHING = msgspec.Raw(b"\x90")


class _Append(msgspec.Struct, frozen=True):
    """As much of one append of several."""

    topic: str
    count: int
    body: msgspec.Raw


class _Glance(msgspec.Struct, frozen=True):
    """As much of a command in its log form as its weight depends on."""

    op: str
    topic: str = ""
    name: str = ""
    partitions: int = 1
    max: int = 1
    count: int = 1
    body: msgspec.Raw = _NO_BYTES
    queue: str = ""
    worker_id: int = 0
    appends: tuple[_Append, ...] = ()
    claims: tuple[Seat, ...] = ()
    tasks: msgspec.Raw = _NOTHING
    complete: msgspec.Raw = _NOTHING
    fail: msgspec.Raw = _NOTHING
    release: msgspec.Raw = _NOTHING
    progress: msgspec.Raw = _NOTHING


_glance = msgspec.msgpack.Decoder(_Glance).decode


class Weighing:
    """The rows of one entry while it gathers; ``partitions`` gives those of a topic as it is before the entry."""

    def __init__(self, partitions: Callable[[str], int | None]) -> None:
        self._partitions = partitions
        self._created: dict[str, int] = {}
        self.rows = 0
        self.submitted: dict[str, int] = {}
        """How many tasks each queue gets."""
        self.workers: dict[int, None] = {}
        """The workers that claim or report."""

    def add(self, sealed: Sealed) -> None:
        """One more command."""
        try:
            command = _glance(sealed.command)
        except (msgspec.DecodeError, ValueError):
            self.rows += 1  # it will spoil itself
            return
        match command.op:
            case "create_topic":
                self._created[command.name] = max(command.partitions, self._created.get(command.name, 0))
                self.rows += 1 + command.partitions
            case "register_consumer":
                self.rows += 1 + self._of(command.topic)
            case "append_batch":
                self.rows += self._of_append(command)
            case "append_batches":
                self.rows += sum([self._of_append(one) for one in command.appends])
            case "consume":
                self.rows += min(command.max, self._of(command.topic))
            case "submit_batch":
                tasks = _length(command.tasks)
                self.submitted[command.queue] = self.submitted.get(command.queue, 0) + tasks
                self.rows += 1 + tasks
            case "claim":
                self.workers[command.worker_id] = None
                self.rows += command.max
            case "claim_batch":
                for seat in command.claims:
                    self.workers[seat.worker_id] = None
                    self.rows += seat.max
            case "report_batch":
                self.rows += sum(_length(one) for one in (command.complete, command.fail, command.release))
            case "settle":
                self.workers[command.worker_id] = None
                reports = (command.complete, command.fail, command.release, command.progress)
                self.rows += sum(_length(one) for one in reports)
            case "purge_queue" | "change_tasks":
                self.rows += limits.PURGED_TASKS_PER_COMMAND
            case _:
                self.rows += 1

    def _of_append(self, append: _Append | _Glance) -> int:
        """Its rows; and where they are dealt out to partitions, what it takes to read the messages, however small they are packed."""
        size_bytes = _unpacked_bytes(append.body)
        if append.count == 1 and size_bytes < BYTES_DEALT_PER_ROW:
            return 1
        partitions = self._of(append.topic)
        return 1 if partitions == 1 else min(append.count, partitions) + size_bytes // BYTES_DEALT_PER_ROW

    def _of(self, topic: str) -> int:
        """The most partitions that the topic may have once the entry gets to the command."""
        return max(self._partitions(topic) or 1, self._created.get(topic, 1))


def _length(array: msgspec.Raw) -> int:
    """How many elements a msgpack array has, by its head alone; 1 for what is no array and will spoil itself."""
    head = bytes(memoryview(array)[:5])
    if head[0] & 0xF0 == 0x90:
        return head[0] & 0x0F
    if head[0] in (0xDC, 0xDD):
        return int.from_bytes(head[1 : 3 if head[0] == 0xDC else 5], "big")
    return 1


def _unpacked_bytes(body: msgspec.Raw) -> int:
    """How long the body of an append is unpacked, by its head alone; 0 for what is none and will spoil itself."""
    view = memoryview(body)
    start = _BIN.get(view[0])
    return 0 if start is None else unpacked_bytes(bytes(view[start : start + HEAD_BYTES]), len(view) - start)
