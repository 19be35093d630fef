"""Appending to several topics in one call. Clients make it of appends that wait at the same time."""

from __future__ import annotations

from operator import is_
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from typing_extensions import override

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Command, Reply
from quorl.cluster.protocol.topics import Append, AppendBatch, Message, Range, TopicName


class TopicAppend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``Append`` of several."""

    topic: TopicName
    messages: Annotated[list[Message], Meta(min_length=1, max_length=limits.APPEND_MESSAGES_MAX)]


class TopicAppended(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one append came to: where its messages were stored; or the ``code`` of its refusal, and its ``detail``.

    With several ranges ``partitions`` says how many partitions the topic has.
    """

    topic: str
    ranges: list[Range] = []
    code: str | None = None
    detail: str = ""
    partitions: int | UnsetType = UNSET


class AppendedAll(Reply, frozen=True):
    """What became of each append, in the order of the request."""

    items: list[TopicAppended]


class AppendBatches(Command[AppendedAll], frozen=True, tag="append_batches"):
    """The form of an ``AppendAll`` in the log."""

    appends: tuple[AppendBatch, ...]

    def packed(self) -> AppendBatches:
        """The same with the messages of each compressed for itself; itself, unless that pays for any."""
        packed = tuple([one.packed() for one in self.appends])
        return self if all(map(is_, packed, self.appends)) else AppendBatches(appends=packed)

    @override
    def gist(self) -> AppendBatches:
        """That of each."""
        gists = tuple([one.gist() for one in self.appends])
        return self if all(map(is_, gists, self.appends)) else AppendBatches(appends=gists)


class AppendAll(Command[AppendedAll], frozen=True, tag="append_all"):
    """Append messages to several topics in one log entry, 10 000 messages at most; each append is stored or refused for itself.

    A refused one has the ``code`` ``topic_not_found`` or ``producer_not_found``, and nothing of it is stored.
    """

    appends: Annotated[tuple[TopicAppend, ...], Meta(min_length=1, max_length=limits.APPEND_MESSAGES_MAX)]

    @override
    def sealed(self) -> AppendBatches:
        """Encode the messages once, for all nodes and for ever."""
        return AppendBatches(
            appends=tuple([Append(topic=one.topic, messages=one.messages).sealed() for one in self.appends])
        )
