"""Messages about the cluster itself."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from quorl.cluster.protocol.grammar import Command, Errand, Inspection, Rejection, Reply


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
    behind the one known now. ``term``, ``commit_index`` and ``applied_index`` are of its log, at the same moment as
    ``sequence``. ``rtt_ms`` is how long a message took from the answering node to it and back, apart from the time that it
    lay there, and ``uptime_ms`` how long its process runs; both are of members that are heard. What is not known is null.
    ``state`` is "disk_full" of a member whose disk has too little room for anything new in its log.
    """

    name: str
    http: str
    raft: str
    role: Literal["leader", "follower", "candidate", "unknown"]
    state: Literal["ok", "catching_up", "disk_full", "unreachable"]
    sequence: int | None
    lag: int | None
    seen_ms_ago: int | None
    version: str | None
    term: int | None = None
    commit_index: int | None = None
    applied_index: int | None = None
    rtt_ms: float | None = None
    uptime_ms: int | None = None


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the answering node's config says that should be the same on every node.

    ``secret_fingerprint`` tells whether two nodes have the same cluster secret, and nothing else of it; null: there is none.
    """

    secret_fingerprint: str | None
    election_timeout_ms: list[int]
    heartbeat_ms: int
    max_payload_bytes: int
    max_wait_s: float
    worker_heartbeat_s: float
    worker_dead_after_s: float
    default_attempts: int


class ClusterInfo(Reply, frozen=True):
    """The cluster as the answering node sees it; also answered without a leader. ``settings`` are the answering node's own.

    ``health`` is "no_quorum" where nothing can be written, because too few members are there or have room on their disks.
    """

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
    settings: NodeSettings | None = None


class GetCluster(Inspection[ClusterInfo], frozen=True, tag="get_cluster"):
    """Describe the cluster: leader, term, and every member's position and lag."""


# -- handing the lead over ----------------------------------------------------------------------------------------
class MemberNotFound(Rejection, frozen=True, tag="member_not_found"):
    """No member of the cluster has that name."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Member not found"
    hint: ClassVar[str] = "GET /v1/cluster lists the members."


class TransferRefused(Rejection, frozen=True, tag="transfer_refused"):
    """The lead stays where it is: nobody could take it, or nobody did in time."""

    title: ClassVar[str] = "Leadership not transferred"
    hint: ClassVar[str] = "GET /v1/cluster says who can be reached and how far behind each member is."


class LeadershipTransferred(Reply, frozen=True):
    """``to`` leads now, in ``term``; ``from`` did before, and may be the same if it led already."""

    from_: str = msgspec.field(name="from")
    to: str
    term: int
    took_ms: int


class TransferLeadership(Errand[LeadershipTransferred], frozen=True, tag="transfer_leadership"):
    """Hand the lead to a member, or to whichever can take it, and wait until it leads."""

    to: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
