"""What members say to each other, as typed structs: nothing else is read from a peer.

The library speaks dicts: ``link`` translates what it says, ``filter`` what it is to hear. Encoded as msgpack arrays, so a
heartbeat is about twenty bytes.
"""

from __future__ import annotations

import msgspec

LogEntry = tuple[bytes, int, int]
"""Command, index, term: the library's own order."""


class AppendEntries(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """From the leader: entries after ``prev_index``, or none, as a sign of life.

    ``prev_index`` is None when what the follower needs was trimmed: it must pull a snapshot, unless its log has come
    beyond the leader's ``first_index`` meanwhile. ``proof`` is the highest index of this term that a majority *without* the
    addressee holds durably; only members that do not count get it.
    """

    term: int
    commit_index: int
    prev_index: int | None
    prev_term: int
    entries: list[LogEntry]
    proof: int = 0
    first_index: int = 0


class Acknowledge(msgspec.Struct, frozen=True, array_like=True, tag="k"):
    """To the leader: everything below ``next_index`` is durable here (``success``), or go back to it (``reset``).

    ``term`` ties it to one leadership. A ``blank`` member is filling an empty disk, and does not count. At one that is
    ``waited`` on somebody waits for what is about to be committed: it would know soon.
    """

    term: int
    next_index: int
    reset: bool
    success: bool
    blank: bool
    waited: bool = False


class RequestVote(msgspec.Struct, frozen=True, array_like=True, tag="v"):
    """From a candidate. ``transfer`` says that the leader itself asked for this election."""

    term: int
    last_index: int
    last_term: int
    transfer: bool


class Vote(msgspec.Struct, frozen=True, array_like=True, tag="w"):
    """A vote, durable before it leaves."""

    term: int


class PreVote(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """Would you vote for me in ``term``? Asked before any term is raised, so that asking disturbs nobody."""

    round: int
    term: int
    last_index: int
    last_term: int


class PreVoteGranted(msgspec.Struct, frozen=True, array_like=True, tag="q"):
    """Yes, in that round of asking."""

    round: int


class TermHint(msgspec.Struct, frozen=True, array_like=True, tag="h"):
    """You are in an old term; mine is this."""

    term: int


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """From a leader that is leaving: stand for election at once."""

    term: int


Message = AppendEntries | Acknowledge | RequestVote | Vote | PreVote | PreVoteGranted | TermHint | TimeoutNow

_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


def decode(frame: bytes) -> Message:
    """Read a message; raises ``msgspec.DecodeError`` (or its ``ValidationError``) on anything else."""
    return _decoder.decode(frame)
