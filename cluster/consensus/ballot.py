"""The ballot: one small file with all that a member must never forget beside its log.

Two lines of text, replaced as a whole: ``quorl-ballot <version> <crc32 of the second line>``, then a JSON object.

* ``term``, ``vote``: a vote that was sent is on disk; terms never decrease and a vote in a term never changes.
* ``floor``: the highest index known to be committed and durable here. It never decreases; a log that ends before it
  has lost something.
* ``first``: the index of the log's oldest segment. Older segments are remains of a trim and may go; if the segment
  itself is missing, somebody took it.
* ``reset``: the log *is* the one sentinel entry (index, term), whatever the segments say: the work of replacing them
  was begun and is to be finished at the next start. A birth is a reset to (1, 0).
* ``cluster_id``, ``blank``: who we are, and whether we met a formed cluster with an empty disk and do not count yet.

A missing or damaged ballot is never read as an empty one: that would be a second vote in the same term.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quorl.cluster.consensus.damage import damaged, other_format
from quorl.cluster.consensus.port import Damaged, Disk
from quorl.cluster.protocol.crc import crc32

NAME = "ballot"
VERSION = 1
"""Of the file's format; a node refuses another one, and changes nothing."""
SENTINEL_INDEX = 1
"""The index of the entry with which every log is born; its term is 0, in which nobody can vote or lead."""

_TITLE = b"quorl-ballot"


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    term: int
    vote: str | None
    floor: int
    first: int
    reset: tuple[int, int] | None
    cluster_id: str | None
    blank: bool
    node: str | None = None


def _encode(content: _Content) -> bytes:
    line = msgspec.json.encode(content) + b"\n"
    return b"%s %d %08x\n%s" % (_TITLE, VERSION, crc32(line), line)


def _decode(raw: bytes) -> _Content:
    title, _, line = raw.partition(b"\n")
    words = title.split(b" ")
    if len(words) != 3 or words[0] != _TITLE or words[2] != b"%08x" % crc32(line):
        raise damaged(NAME, 0, "the ballot is damaged, and with it the memory of this node's vote")
    if words[1] != b"%d" % VERSION:
        version = words[1].decode("ascii", "replace")
        raise other_format(NAME, version, VERSION)
    try:
        return msgspec.json.decode(line, type=_Content)
    except msgspec.DecodeError as error:
        raise damaged(NAME, len(title) + 1, f"the ballot cannot be read: {error}") from error


def owner_of(raw: bytes) -> str | None:
    """Whose promises a ballot keeps, None if nobody has claimed it; ``Damaged`` or ``OtherFormat`` if it cannot be read."""
    return _decode(raw).node


class Ballot:
    """The ballot of one member. Every setter is durable on return; if it raises, nothing changed in memory."""

    def __init__(self, disk: Disk, content: _Content) -> None:
        """Not for use from outside: ``load`` or ``birth`` give one."""
        self._disk = disk
        self._content = content

    @classmethod
    def load(cls, disk: Disk) -> Ballot | None:
        """Read the ballot; None if there is no such file, ``Damaged`` if it is not as it was written."""
        try:
            raw = disk.read(NAME)
        except FileNotFoundError:
            return None
        return cls(disk, _decode(raw))

    @classmethod
    def birth(cls, disk: Disk) -> Ballot:
        """Write the ballot of a member that is new in the world, whose log is still to be made."""
        sentinel = (SENTINEL_INDEX, 0)
        ballot = cls(disk, _Content(0, None, SENTINEL_INDEX, SENTINEL_INDEX, sentinel, None, False))
        ballot._write()
        return ballot

    @property
    def term(self) -> int:
        """The highest term seen."""
        return self._content.term

    @property
    def vote(self) -> str | None:
        """Whom we voted for in that term."""
        return self._content.vote

    @property
    def floor(self) -> int:
        """The highest index that the file says is committed and durable here."""
        return self._content.floor

    @property
    def first(self) -> int:
        """The index that the oldest segment begins with."""
        return self._content.first

    @property
    def reset(self) -> tuple[int, int] | None:
        """The sentinel (index, term) by which the log is being replaced, None at rest."""
        return self._content.reset

    @property
    def cluster_id(self) -> str | None:
        """The cluster that we belong to, once known."""
        return self._content.cluster_id

    @property
    def blank(self) -> bool:
        """Whether we neither vote nor count until we have caught up."""
        return self._content.blank

    @property
    def pristine(self) -> bool:
        """Whether no term was ever seen here; then the log has nothing but its sentinel either."""
        return self._content.term == 0

    def set_term(self, term: int, vote: str | None, floor: int = 0) -> None:
        """Enter a term, or vote in it. ``floor`` travels along, since the file is written anyway."""
        assert term >= self.term, f"term {term} after {self.term}"
        assert term > self.term or self.vote in {None, vote}, f"two votes in term {term}: {self.vote}, then {vote}"
        if (term, vote) != (self.term, self.vote):
            self._write(term=term, vote=vote, floor=max(self.floor, floor))

    def claim(self, node: str) -> None:
        """Note whose promises these are; ``Damaged`` if they are another member's, because both would keep the wrong ones."""
        owner = self._content.node
        if owner is None:
            self._write(node=node)
        elif owner != node:
            swapped = (
                f"{NAME}: this is the data directory of {owner}, and this node is {node}. Put each directory back to its "
                "own node: nothing is damaged, and nothing was changed."
            )
            raise Damaged(swapped)

    def set_identity(self, cluster_id: str | None, blank: bool) -> None:
        """Say which cluster this disk belongs to; that never changes once it is known."""
        assert self.cluster_id in {None, cluster_id}, f"cluster {cluster_id} after {self.cluster_id}"
        self._write(cluster_id=cluster_id, blank=blank)

    def raise_floor(self, floor: int) -> None:
        """Remember that everything up to ``floor`` is committed and durable here."""
        if floor > self.floor:
            self._write(floor=floor)

    def set_first(self, first: int, floor: int) -> None:
        """Let the log begin at ``first``; the segments before it may go from now on."""
        assert self.first < first <= floor
        self._write(first=first, floor=max(self.floor, floor))

    def begin_reset(self, index: int, term: int) -> None:
        """From here on the log is the sentinel (index, term) alone."""
        assert index >= self.floor, f"reset to {index} would forget the committed {self.floor}"
        self._write(first=index, floor=index, reset=(index, term))

    def end_reset(self) -> None:
        """The segments say so too."""
        self._write(reset=None)

    def _write(self, **changes: Any) -> None:
        content = msgspec.structs.replace(self._content, **changes)
        self._disk.write_atomically(NAME, _encode(content))
        self._content = content
