"""Messages of the topics: what is asked, what is answered, what is refused.

A topic has one or more partitions. A partition is a dense sequence of messages, numbered by *offset* from 0, that is
never changed and outlives being read. Producers and consumers register per topic and get ids from 1. Every consumer
has one cursor per partition: the offset of the first message that it has not seen.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from typing_extensions import override

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.crc import adler32, crc32
from quorl.cluster.protocol.grammar import Command, Cursor, Query, Rejection, Reply
from quorl.cluster.protocol.packing import pack

TopicName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=limits.TOPIC_NAME_CHARS_MAX,
        description="1 to 200 characters of any kind, not `.` or `..`.",
    ),
]
Label = Annotated[str, Meta(max_length=limits.LABEL_CHARS_MAX)]
Partition = Annotated[int, Meta(ge=0, lt=limits.PARTITIONS_MAX)]
Offset = Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)]
ProducerId = Annotated[int, Meta(ge=1, le=limits.INTEGER_MAX)]
ConsumerId = Annotated[int, Meta(ge=1, le=limits.INTEGER_MAX)]
PageSize = Annotated[int, Meta(ge=1, le=limits.PAGE_ITEMS_MAX)]
Wait = Annotated[float, Meta(ge=0, le=limits.WAIT_S_MAX, description="Seconds to wait for something to answer with.")]


# -- refusals -----------------------------------------------------------------------------------------------------
class TopicNotFound(Rejection, frozen=True, tag="topic_not_found"):
    """No topic has that name."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Topic not found"
    hint: ClassVar[str] = "Create it with POST /v1/topics, or see GET /v1/topics for the names that exist."


class ProducerNotFound(Rejection, frozen=True, tag="producer_not_found"):
    """No producer with that id is registered for this topic."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Producer not registered"
    hint: ClassVar[str] = (
        "Producer ids are per topic: register with POST /v1/topics/{topic}/producers and use the id it gives."
    )


class ConsumerNotFound(Rejection, frozen=True, tag="consumer_not_found"):
    """No consumer with that id is registered for this topic."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Consumer not registered"
    hint: ClassVar[str] = (
        "Consumer ids are per topic: register with POST /v1/topics/{topic}/consumers and use the id it gives."
    )


class PartitionNotFound(Rejection, frozen=True, tag="partition_not_found"):
    """The topic has no partition with that number."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Partition not found"
    hint: ClassVar[str] = "Partitions are numbered from 0; GET /v1/topics/{topic} says how many there are."


class MessageNotFound(Rejection, frozen=True, tag="message_not_found"):
    """No message has been stored at that offset yet."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Message not found"
    hint: ClassVar[str] = "Offsets are dense from 0; GET /v1/topics/{topic} says where each partition ends."


class AlreadyExists(Rejection, frozen=True, tag="already_exists"):
    """Something with that name exists already, or exists with another configuration."""

    title: ClassVar[str] = "Already exists"
    hint: ClassVar[str] = "Use the one that exists, or choose another name."


class TopicNotEmpty(Rejection, frozen=True, tag="topic_not_empty"):
    """The topic holds messages, and the request asked to delete it only if it is empty."""

    title: ClassVar[str] = "Topic is not empty"
    hint: ClassVar[str] = "Leave out if_empty to delete the topic with its messages."


# -- creating, listing, describing, deleting ----------------------------------------------------------------------
class PartitionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One partition: the offsets that it holds, its number of messages, and the bytes of their values and keys."""

    partition: int
    first_offset: int
    next_offset: int
    messages: int
    bytes: int


class TopicInfo(Reply, frozen=True):
    """A topic as it is now. ``created_at`` is RFC 3339 in UTC with milliseconds."""

    name: str
    partitions: int
    messages: int
    bytes: int
    producers: int
    consumers: int
    created_at: str
    details: list[PartitionInfo]


class TopicCreated(Reply, frozen=True):
    """The topic exists now; ``existing`` says that it did before, with the same configuration."""

    also: ClassVar[dict[int, str]] = {200: "It exists already, just like that."}

    name: str
    partitions: int
    created_at: str
    existing: bool = False

    @override
    def http_status(self, accepted: int) -> int:
        """200 when it was there before."""
        return 200 if self.existing else accepted


class CreateTopic(Command[TopicCreated], frozen=True, tag="create_topic"):
    """Create a topic.

    Creating one that exists with the same configuration answers as the first time did, unless ``error_if_exists`` is set.
    """

    name: TopicName
    partitions: Annotated[int, Meta(ge=1, le=limits.PARTITIONS_MAX)] = 1
    error_if_exists: bool = False


class TopicList(Reply, frozen=True):
    """One page of topics in order of their names; ``next`` is the cursor of the next page, or null at the end."""

    items: list[TopicInfo]
    next: str | None


class ListTopics(Query[TopicList], frozen=True, tag="list_topics"):
    """List topics in order of their names."""

    prefix: Annotated[str, Meta(max_length=limits.TOPIC_NAME_CHARS_MAX)] = ""
    limit: PageSize = limits.PAGE_ITEMS_DEFAULT
    cursor: Cursor = ""


class GetTopic(Query[TopicInfo], frozen=True, tag="get_topic"):
    """Describe one topic."""

    topic: TopicName


class TopicDeleted(Reply, frozen=True):
    """The topic is gone, with this many messages."""

    name: str
    messages: int


class DeleteTopic(Command[TopicDeleted], frozen=True, tag="delete_topic"):
    """Delete a topic with its messages, producers and consumers."""

    topic: TopicName
    if_empty: bool = False


# -- producers and consumers --------------------------------------------------------------------------------------
class ProducerInfo(Reply, frozen=True):
    """A registered producer."""

    topic: str
    producer_id: int
    name: str
    created_at: str


class RegisterProducer(Command[ProducerInfo], frozen=True, tag="register_producer"):
    """Register a producer for a topic; ids count from 1 per topic."""

    topic: TopicName
    name: Label = ""


class ProducerList(Reply, frozen=True):
    """One page of producers in order of their ids; ``next`` is the cursor of the next page, or null at the end."""

    items: list[ProducerInfo]
    next: str | None


class ListProducers(Query[ProducerList], frozen=True, tag="list_producers"):
    """List the producers of a topic."""

    topic: TopicName
    limit: PageSize = limits.PAGE_ITEMS_DEFAULT
    cursor: Cursor = ""


class CursorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where a consumer stands in one partition: the next offset it will get, and how many messages lie ahead."""

    partition: int
    next_offset: int
    lag: int


class ConsumerInfo(Reply, frozen=True):
    """A registered consumer with its cursors; ``lag`` is the number of messages that it has not read yet."""

    topic: str
    consumer_id: int
    name: str
    created_at: str
    lag: int
    cursors: list[CursorInfo]


class RegisterConsumer(Command[ConsumerInfo], frozen=True, tag="register_consumer"):
    """Register a new consumer for a topic, whose name is for people; ids count from 1 per topic, and its cursor is its own."""

    topic: TopicName
    name: Label = ""
    start: Literal["earliest", "latest"] = "earliest"


class ConsumerList(Reply, frozen=True):
    """One page of consumers in order of their ids; ``next`` is the cursor of the next page, or null at the end."""

    items: list[ConsumerInfo]
    next: str | None


class ListConsumers(Query[ConsumerList], frozen=True, tag="list_consumers"):
    """List the consumers of a topic with their lag."""

    topic: TopicName
    limit: PageSize = limits.PAGE_ITEMS_DEFAULT
    cursor: Cursor = ""


class GetConsumer(Query[ConsumerInfo], frozen=True, tag="get_consumer"):
    """Describe one consumer with its cursors and lag."""

    topic: TopicName
    consumer_id: ConsumerId


# -- messages -----------------------------------------------------------------------------------------------------
class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A message as a producer sends it. ``value`` is any JSON value and is kept byte for byte."""

    value: msgspec.Raw
    key: Annotated[str, Meta(max_length=limits.MESSAGE_KEY_CHARS_MAX)] | None = None
    headers: dict[str, str] | None = None
    producer_id: ProducerId | None = None


def size_bytes(messages: list[Message]) -> int:
    """The bytes of their values and keys."""
    keys = "".join([message.key for message in messages if message.key])
    return len(b"".join([message.value for message in messages])) + len(keys.encode())


def checksum_of(count: int, size_bytes: int, body: bytes) -> int:
    """What ties the body of an append to what is said of it: CRC-32, against accidents."""
    return crc32(body, crc32(b"%d %d" % (count, size_bytes)))


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that were stored together, both ends included."""

    partition: int
    first_offset: int
    last_offset: int


class Appended(Reply, frozen=True, omit_defaults=True):
    """Where the messages were stored; with one range its three fields stand at the top level too.

    With several ranges ``partitions`` says how many partitions the topic has: so much is needed to tell from the keys
    which message is where.
    """

    ranges: list[Range]
    partition: int | UnsetType = UNSET
    first_offset: int | UnsetType = UNSET
    last_offset: int | UnsetType = UNSET
    partitions: int | UnsetType = UNSET


class AppendBatch(Command[Appended], frozen=True, tag="append_batch"):
    """The form of an append in the log: a validated JSON array of messages that followers need not parse, or that array packed.

    ``producers`` are the distinct producer ids in it, ascending; ``size_bytes`` counts its values and keys. ``checksum`` says
    that whoever sealed it has read this very body and counted just so: see ``checksum_of``.
    """

    topic: str
    count: int
    size_bytes: int
    producers: list[int]
    body: bytes
    checksum: int | None = None

    def packed(self) -> AppendBatch:
        """The same with the messages compressed, which may come to other bytes elsewhere; itself, unless that pays."""
        body = pack(self.body)
        if body is self.body:
            return self
        return msgspec.structs.replace(self, body=body, checksum=checksum_of(self.count, self.size_bytes, body))

    @override
    def gist(self) -> AppendBatch:
        """For a large body its length and another checksum beside the one that is there: a fingerprint of all of it costs tenfold."""
        if len(self.body) < limits.PACKED_BYTES_MIN:
            return self
        return msgspec.structs.replace(self, body=b"%d %d" % (len(self.body), adler32(self.body)))


class Append(Command[Appended], frozen=True, tag="append"):
    """Append messages to a topic: all of them or none, in one log entry.

    Messages with a key go to the partition that the key decides; those without go together to the next one in turn.
    """

    topic: TopicName
    messages: Annotated[list[Message], Meta(min_length=1, max_length=limits.APPEND_MESSAGES_MAX)]

    @override
    def sealed(self) -> AppendBatch:
        """Encode the messages once, for all nodes and for ever."""
        messages = self.messages
        size, body = size_bytes(messages), msgspec.json.encode(messages)
        return AppendBatch(
            topic=self.topic,
            count=len(messages),
            size_bytes=size,
            producers=sorted({m.producer_id for m in messages if m.producer_id is not None}),
            body=body,
            checksum=checksum_of(len(messages), size, body),
        )


class StoredMessage(Reply, frozen=True, omit_defaults=True):
    """A message as it is read back. ``created_at`` never decreases along a partition."""

    partition: int
    offset: int
    value: msgspec.Raw
    created_at: str
    key: str | None = None
    headers: dict[str, str] | None = None
    producer_id: int | None = None


class MessagePage(Reply, frozen=True):
    """Messages of one partition from an offset on; ``next`` is the offset to go on from, also at the end."""

    items: list[StoredMessage]
    next: int


_DAY = "[0-9]{4}-((0[1-9]|1[0-2])-(0[1-9]|[12][0-9])|(0[13-9]|1[0-2])-30|(0[13578]|1[02])-31)"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_FROM = f"^(earliest|latest|[0-9]{{1,15}}|ts:{_DAY}T{_CLOCK})$"


class Browse(Query[MessagePage], frozen=True, tag="browse"):
    """Read messages of one partition without moving any cursor.

    ``from`` is ``earliest``, ``latest``, an offset, or ``ts:`` and an RFC 3339 time. With ``wait`` the answer is held
    back until there is a message or the seconds are over.
    """

    topic: TopicName
    partition: Partition = 0
    start: Annotated[str, Meta(max_length=64, extra_json_schema={"pattern": _FROM})] = msgspec.field(
        name="from", default="earliest"
    )
    limit: PageSize = limits.PAGE_ITEMS_DEFAULT
    wait: Wait = 0


class MessageInfo(Reply, frozen=True, omit_defaults=True):
    """One message, and the ids of the consumers whose cursor has passed it."""

    partition: int
    offset: int
    value: msgspec.Raw
    created_at: str
    read_by: list[int]
    key: str | None = None
    headers: dict[str, str] | None = None
    producer_id: int | None = None


class GetMessage(Query[MessageInfo], frozen=True, tag="get_message"):
    """Read one message, with the consumers that have read it."""

    topic: TopicName
    partition: Partition
    offset: Offset


class Consumed(Reply, frozen=True):
    """The next messages for a consumer, which are now read; ``remaining`` lie ahead. None left: ``items`` is empty."""

    items: list[StoredMessage]
    remaining: int


class Span(msgspec.Struct, frozen=True, array_like=True):
    """A run of offsets in one partition: ``count`` of them from ``first_offset`` on."""

    partition: int
    first_offset: int
    count: int


class ConsumedSpans(Reply, frozen=True):
    """What the machine decides for a ``Consume``: only where the messages are. Its node reads them, once, to answer."""

    topic_id: int
    spans: list[Span]
    remaining: int


class Consume(Command[Consumed], frozen=True, tag="consume"):
    """Give a consumer the next messages that it has not seen, and move its cursor past them.

    With ``wait`` the answer is held back until there is a message or the seconds are over.
    """

    topic: TopicName
    consumer_id: ConsumerId
    max: Annotated[int, Meta(ge=1, le=limits.CONSUME_MESSAGES_MAX)] = 1
    wait: Wait = 0


class TopicSize(Reply, frozen=True, omit_defaults=True):
    """``size``: messages that the consumer has not read yet, or all of them without one. ``total``: all of them."""

    size: int
    total: int
    consumer_id: int | None = None


class GetSize(Query[TopicSize], frozen=True, tag="get_size"):
    """Count the messages of a topic, or those that one consumer has not read."""

    topic: TopicName
    consumer_id: ConsumerId | None = None
