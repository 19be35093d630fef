"""What this node knows of the members: their addresses by configuration, their positions by gossip.

Every connection carries a small status about twice a second in each direction, so each node can describe the whole
cluster without asking anybody.

A status is up to half a second old, so a member's lag is not counted against what this node has applied since: it is how far
the status was behind what this node knew when it came. Of a member that is not heard any more it is counted against what is
known now.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from quorl.cluster.consensus.port import Clock, Role, Status
from quorl.cluster.protocol.system import MemberInfo, MemberNotFound, TransferRefused

_CURRENT_S = 3.0
_CATCHING_UP_ENTRIES = 1000


_WHY_NOT = {"unreachable": "cannot be reached", "catching_up": "is {lag} entries behind"}


class Member(NamedTuple):
    """One configured member; addresses are ``host:port`` as others reach them."""

    name: str
    http: str
    raft: str


class Gossip(msgspec.Struct, frozen=True, array_like=True):
    """What a node tells the others about itself."""

    sequence: int
    role: str
    term: int
    blank: bool
    wall_ms: int
    version: str


class _Word(NamedTuple):
    """A status, when it came, and the highest sequence known here until then."""

    at_s: float
    gossip: Gossip
    ahead: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Gossip)


class Members:
    """The configured members and the last word of each."""

    def __init__(self, members: list[Member], own_name: str, clock: Clock) -> None:
        self._members = {m.name: m for m in members}
        self._own_name = own_name
        self._clock = clock
        self._heard: dict[str, _Word] = {}
        self._told = 0
        """The sequence that this node told last."""

    def __len__(self) -> int:
        return len(self._members)

    @property
    def quorum(self) -> int:
        """How many members decide."""
        return len(self._members) // 2 + 1

    def pack(self, own: Gossip) -> bytes:
        """The bytes of this node's own status, which is about to be told."""
        self._told = own.sequence
        return _encoder.encode(own)

    def heard(self, name: str, payload: bytes) -> Gossip | None:
        """Note a member's status; None if it cannot be read."""
        try:
            gossip = _decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        self._heard[name] = _Word(self._clock.monotonic(), gossip, self._ahead(self._told))
        return gossip

    def _ahead(self, own: int) -> int:
        """The highest sequence that is known here."""
        return max(own, *(word.gossip.sequence for word in self._heard.values()), 0)

    def unreachable(self, status: Status) -> list[Member]:
        """The other members without a connection."""
        return [m for m in self._members.values() if m.name != self._own_name and m.name not in status.connected]

    def addresses(self, status: Status) -> list[str]:
        """Where the other members are reached over HTTP, those that are connected first."""
        others = [member for member in self._members.values() if member.name != self._own_name]
        return [member.http for member in sorted(others, key=lambda one: one.name not in status.connected)]

    def cannot_lead(self, name: str | None, status: Status, own: Gossip) -> MemberNotFound | TransferRefused | None:
        """Why that member, or any other at all, cannot take the lead from this one; None if it may be tried."""
        others = [one for one in self.describe(status, own) if one.name != self._own_name]
        if name is not None:
            others = [one for one in others if one.name == name]
            if not others:
                return MemberNotFound(detail=f'No member is called "{name}"; there are {", ".join(self._members)}.')
        if not others:
            return TransferRefused(detail="The cluster has one member, so nobody else can lead it.")
        if any(one.state == "ok" for one in others):
            return None
        why = "; ".join(f"{one.name} {_WHY_NOT[one.state].format(lag=one.lag)}" for one in others)
        return TransferRefused(detail=f"{why}.")

    def filling(self, status: Status) -> list[str]:
        """The members that started from an empty disk and do not count yet, as far as they said so."""
        others = [name for name, word in self._heard.items() if word.gossip.blank and name in status.connected]
        return sorted([self._own_name, *others] if status.blank else others)

    def describe(self, status: Status, own: Gossip) -> list[MemberInfo]:
        """Every member as known here, in the order of the configuration."""
        ahead = self._ahead(own.sequence)
        known = {**self._heard, self._own_name: _Word(self._clock.monotonic(), own, ahead)}
        return [self._describe_one(m, known.get(m.name), status, ahead) for m in self._members.values()]

    def _describe_one(self, member: Member, word: _Word | None, status: Status, ahead: int) -> MemberInfo:
        here = member.name == self._own_name or member.name in status.connected
        age_s = None if word is None else self._clock.monotonic() - word.at_s
        gossip = None if word is None else word.gossip
        current = here and age_s is not None and age_s < _CURRENT_S
        lag = None if word is None else max(0, (word.ahead if current else ahead) - word.gossip.sequence)
        return MemberInfo(
            name=member.name,
            http=member.http,
            raft=member.raft,
            role=_role(member.name, gossip if current else None, status),
            state=_state(here, gossip, lag),
            sequence=None if gossip is None else gossip.sequence,
            lag=lag,
            seen_ms_ago=None if age_s is None else int(age_s * 1000),
            version=None if gossip is None else gossip.version,
        )


def _role(name: str, gossip: Gossip | None, status: Status) -> Literal["leader", "follower", "candidate", "unknown"]:
    if name == status.leader:
        return "leader"
    if gossip is None:
        return "unknown"
    # A status may be half a second old; there is one leader, and this node knows which.
    return "candidate" if gossip.role == Role.CANDIDATE else "follower"


def _state(here: bool, gossip: Gossip | None, lag: int | None) -> Literal["ok", "catching_up", "unreachable"]:
    if not here:
        return "unreachable"
    if gossip is not None and (gossip.blank or (lag or 0) > _CATCHING_UP_ENTRIES):
        return "catching_up"
    return "ok"
