"""What this node knows of the members: their addresses by configuration, their positions by gossip.

Every connection carries a small status about twice a second in each direction, so each node can describe the whole
cluster without asking anybody.

A status is up to half a second old, so a member's lag is not counted against what this node has applied since: it is how far
the status was behind what this node knew when it came. Of a member that is not heard any more it is counted against what is
known now.

A status also says when it was sent, and of every other member when its own last one was sent and how long ago it came. So
whoever gets it knows how long a message to that member and back takes, without a message more. Each node reads its own
clock only.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from quorl.cluster.consensus.port import Clock, Role, Status
from quorl.cluster.protocol.system import MemberInfo, MemberNotFound, TransferRefused

_CURRENT_S = 3.0
"""Of a member whose last status is older, role, uptime and round trip are not known any more."""
_CATCHING_UP_ENTRIES = 1000
"""A member that is further behind is not counted on when another fails."""


_WHY_NOT = {
    "unreachable": "cannot be reached",
    "disk_full": "has no room on its disk",
    "catching_up": "is {lag} entries behind",
}


class Member(NamedTuple):
    """One configured member; addresses are ``host:port`` as others reach them."""

    name: str
    http: str
    raft: str


class Gossip(msgspec.Struct, frozen=True, array_like=True):
    """What a node tells the others about itself. What a node of an earlier release leaves out is None."""

    sequence: int
    role: str
    term: int
    blank: bool
    wall_ms: int
    version: str
    commit_index: int | None = None
    applied_index: int | None = None
    uptime_ms: int | None = None
    sent_us: int | None = None
    """When it left, by the sender's own clock."""
    echoes: dict[str, tuple[int, int]] = {}
    """By member: the ``sent_us`` of its last status that came, and for how many microseconds that has lain here."""
    disk_full: bool = False
    unpacks: bool = False
    """Whether it can apply appends that are packed."""


class _Word(NamedTuple):
    """A status, when it came, the highest sequence known here until then, and the round trip in milliseconds, if known."""

    at_s: float
    gossip: Gossip
    ahead: int
    rtt_ms: float | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Gossip)


class Members:
    """The configured members and the last word of each."""

    def __init__(self, members: list[Member], own_name: str, clock: Clock) -> None:
        self._members = {m.name: m for m in members}
        self._own_name = own_name
        self._clock = clock
        self._began_s = clock.monotonic()
        self._heard: dict[str, _Word] = {}
        self._told = 0
        """The sequence that this node told last."""

    def __len__(self) -> int:
        return len(self._members)

    @property
    def quorum(self) -> int:
        """How many members decide."""
        return len(self._members) // 2 + 1

    def own(self, status: Status, sequence: int, version: str, *, disk_full: bool = False) -> Gossip:
        """What this node is to tell of itself."""
        return Gossip(
            sequence,
            status.role,
            status.term,
            status.blank,
            self._clock.wall_ms(),
            version,
            status.commit_index,
            status.applied_index,
            round(1000 * (self._clock.monotonic() - self._began_s)),
            disk_full=disk_full,
            unpacks=True,
        )

    def pack(self, own: Gossip) -> bytes:
        """The bytes of this node's own status, which is about to be told."""
        self._told = own.sequence
        now_s = self._clock.monotonic()
        echoes = {
            name: (word.gossip.sent_us, _us(now_s - word.at_s))
            for name, word in self._heard.items()
            if word.gossip.sent_us is not None
        }
        return _encoder.encode(msgspec.structs.replace(own, sent_us=_us(now_s), echoes=echoes))

    def heard(self, name: str, payload: bytes) -> Gossip | None:
        """Note a member's status; None if it cannot be read."""
        try:
            gossip = _decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        now_s = self._clock.monotonic()
        echo = gossip.echoes.get(self._own_name)
        known = self._heard.get(name)
        # An answer to a status of this process's former self would compare two clocks: it cannot have taken so long.
        took_us = None if echo is None else _us(now_s) - echo[0] - echo[1]
        fits = took_us is not None and 0 <= took_us <= _us(_CURRENT_S)
        rtt_ms = took_us / 1000 if took_us is not None and fits else known.rtt_ms if known is not None else None
        self._heard[name] = _Word(now_s, gossip, self._ahead(self._told), rtt_ms)
        return gossip

    def _ahead(self, own: int) -> int:
        """The highest sequence that is known here."""
        return max(own, *(word.gossip.sequence for word in self._heard.values()), 0)

    def unreachable(self, status: Status) -> list[Member]:
        """The other members without a connection."""
        return [m for m in self._members.values() if m.name != self._own_name and m.name not in status.connected]

    def full(self, status: Status) -> list[str]:
        """The other members that are connected and have no room on their disks, by their last word."""
        return sorted(n for n, word in self._heard.items() if word.gossip.disk_full and n in status.connected)

    def all_unpack(self) -> bool:
        """Whether every other member has said that it can apply packed appends; one of an earlier release would come to another state."""
        heard = self._heard
        return all(name in heard and heard[name].gossip.unpacks for name in self._members if name != self._own_name)

    def lacks_room(self, status: Status, *, own_full: bool) -> str:
        """Why no majority can store an entry that is proposed now, where full disks are a reason for that; else nothing.

        A member that is away counts for lacking if it was full when it went, else after a while: it may be about to connect again.
        """
        full = self.full(status)
        if not full:
            return ""  # the disk of this node alone is looked at when something is to be written to it
        now_s = self._clock.monotonic()
        full += [self._own_name] if own_full else []
        gone = [one.name for one in self.unreachable(status) if self._is_no_help(one.name, now_s)]
        able = len(self) - len(full) - len(gone)
        if able >= self.quorum:
            return ""
        away = f", and {_listed(gone)} cannot be reached" if gone else ""
        return (
            f"Too little room is left on the {'disk' if len(full) == 1 else 'disks'} of {_listed(full)}{away}: {able} of {len(self)} "
            f"members can store a write, which needs {self.quorum}. This call was not proposed, so nothing of it is stored; what an "
            "earlier try under its key has come to, or may come to, stays."
        )

    def _is_no_help(self, name: str, now_s: float) -> bool:
        """Whether a member without a connection went with a full disk, or is away for too long to be waited for."""
        word = self._heard.get(name)
        since_s = self._began_s if word is None else word.at_s
        return (word is not None and word.gossip.disk_full) or now_s - since_s >= _CURRENT_S

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
            term=None if gossip is None else gossip.term,
            commit_index=None if gossip is None else gossip.commit_index,
            applied_index=None if gossip is None else gossip.applied_index,
            rtt_ms=word.rtt_ms if word is not None and current else None,
            uptime_ms=_uptime_ms(gossip, age_s) if current else None,
        )


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _us(seconds: float) -> int:
    return round(1_000_000 * seconds)


def _uptime_ms(gossip: Gossip | None, age_s: float | None) -> int | None:
    """How long a member's process runs by now, given what it said and how long ago."""
    if gossip is None or gossip.uptime_ms is None or age_s is None:
        return None
    return gossip.uptime_ms + round(1000 * age_s)


def _role(name: str, gossip: Gossip | None, status: Status) -> Literal["leader", "follower", "candidate", "unknown"]:
    if name == status.leader:
        return "leader"
    if gossip is None:
        return "unknown"
    # A status may be half a second old; there is one leader, and this node knows which.
    return "candidate" if gossip.role == Role.CANDIDATE else "follower"


def _state(
    here: bool, gossip: Gossip | None, lag: int | None
) -> Literal["ok", "catching_up", "disk_full", "unreachable"]:
    if not here:
        return "unreachable"
    if gossip is not None and gossip.disk_full:
        return "disk_full"
    if gossip is not None and (gossip.blank or (lag or 0) > _CATCHING_UP_ENTRIES):
        return "catching_up"
    return "ok"
