"""How many rows the commands of an entry may write: what they cost every node, whatever their number and size.

Invariants: the sum is never less than the rows that depend on partitions, also when a topic is created in the same entry
in which it is used. Only the leader weighs, to decide where an entry ends; nothing of it is replicated.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from quorl.cluster.protocol.entry import Sealed


class _Glance(msgspec.Struct, frozen=True):
    """As much of a command in its log form as its weight depends on."""

    op: str
    topic: str = ""
    name: str = ""
    partitions: int = 1
    max: int = 1
    count: int = 1


_glance = msgspec.msgpack.Decoder(_Glance).decode


class Weighing:
    """The rows of one entry while it gathers; ``partitions`` gives those of a topic as it is before the entry."""

    def __init__(self, partitions: Callable[[str], int | None]) -> None:
        self._partitions = partitions
        self._created: dict[str, int] = {}
        self.rows = 0

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
                self.rows += min(command.count, self._of(command.topic))
            case "consume":
                self.rows += min(command.max, self._of(command.topic))
            case _:
                self.rows += 1

    def _of(self, topic: str) -> int:
        """The most partitions that the topic may have once the entry gets to the command."""
        return max(self._partitions(topic) or 1, self._created.get(topic, 1))
