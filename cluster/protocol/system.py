"""Messages about the cluster itself."""

from __future__ import annotations

from typing import Literal

import msgspec

from quorl.cluster.protocol.grammar import Command, Inspection, Reply


class Founded(Reply, frozen=True):
    """The cluster has its id."""

    cluster_id: str


class Found(Command[Founded], frozen=True, tag="found"):
    """Give a new cluster its id: the first command of its first leader. Repeating it changes nothing."""

    cluster_id: str


class MemberInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One member as the answering node knows it.

    ``sequence`` counts the entries that the member said it had applied, ``seen_ms_ago`` milliseconds ago. ``lag`` is how
    many that was behind the furthest position known here at that moment, or, of a member that is not heard any more,
    behind the one known now. What is not known is null.
    """

    name: str
    http: str
    raft: str
    role: Literal["leader", "follower", "candidate", "unknown"]
    state: Literal["ok", "catching_up", "unreachable"]
    sequence: int | None
    lag: int | None
    seen_ms_ago: int | None
    version: str | None


class ClusterInfo(Reply, frozen=True):
    """The cluster as the answering node sees it; also answered without a leader."""

    name: str
    cluster_id: str | None
    node: str
    leader: str | None
    term: int
    quorum: int
    health: Literal["ok", "degraded", "no_quorum"]
    sequence: int
    machine_version: int
    digest: str
    members: list[MemberInfo]


class GetCluster(Inspection[ClusterInfo], frozen=True, tag="get_cluster"):
    """Describe the cluster: leader, term, and every member's position and lag."""
