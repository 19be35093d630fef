"""What the gateway stands on: this node (``Core``) and the others (``Peers``).

Both are protocols, so that the gateway runs unchanged in a process, in a simulation and over scripted fakes. Deadlines
are moments on the core's monotonic clock; nothing here waits longer than the deadline it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from quorl.cluster.machine.outcomes import Outcome
from quorl.cluster.node.patience import Haste
from quorl.cluster.node.subjects import Subject
from quorl.cluster.protocol.entry import Sealed, SignOfLife
from quorl.cluster.protocol.grammar import Inspection, Query, Rejection, Reply
from quorl.cluster.protocol.leases import Claim, GetDirectives
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.together import ClaimBatch
from quorl.cluster.protocol.wire import Answer, Call

CLUSTER_HEADER = "quorl-cluster"
"""Names the cluster of the node that sends a call."""


PREFIX = "/internal/"
"""Below it lies what nodes ask each other, and nobody else."""
BARRIER, BEATS, SNAPSHOT = f"{PREFIX}barrier", f"{PREFIX}beats", f"{PREFIX}snapshot"
"""And what that is: see ``internal``. The pieces of a snapshot lie below its own path, by its name."""


class PeerUnreachable(Exception):
    """The call certainly did not reach the peer."""


class PeerLost(Exception):
    """The call may have reached the peer, and no answer came."""


class Core(Protocol):
    """This node, as the gateway needs it."""

    @property
    def name(self) -> str:
        """This node's name."""

    def leader(self) -> str | None:
        """Return the name of the leader as known here."""

    def leads(self) -> bool:
        """Return whether this node leads."""

    def sequence(self) -> int:
        """Return the number of entries applied here."""

    def term(self) -> int:
        """Return the current term."""

    def monotonic(self) -> float:
        """Return seconds on the clock of all deadlines."""

    def may_pack(self) -> bool:
        """Return whether all members can apply packed appends."""

    async def submit(self, sealed: Sealed, haste: Haste = Haste.SOON) -> tuple[Outcome, int]:
        """Commit a command at the leader; gives the outcome and the sequence that contains it.

        Raises ``NotApplied`` (with code no_leader, too_many_requests, storage_full or shutting_down) or
        ``OutcomeUnknown``.
        """

    async def claim(
        self, sealed: Sealed, claim: Claim | ClaimBatch, until: float, news: GetDirectives | None = None
    ) -> tuple[Outcome, int] | None:
        """Commit a claim, or one of several, at the leader once there is something for it, a refusal included. Raises as ``submit``.

        None when the time is over, when its worker has been silent for half of what it may be, or when what ``news``
        asks for is answered differently than when the claim came.
        """

    async def sign(self, signs: Sequence[SignOfLife]) -> int:
        """At the leader: put signs of life into the next entry; gives its sequence. Raises as ``submit``."""

    def note(self, sign: SignOfLife) -> None:
        """At the leader: put a sign of life into an entry soon; nobody waits for it."""

    async def dead_after_ms(self, worker_id: int) -> int | None:
        """Return how long a worker may stay silent; None if none with that id is alive, as far as is known here."""

    async def barrier(self) -> int:
        """At the leader: a sequence that contains every write acknowledged before this call. Raises as ``submit``."""

    async def wait_applied(self, sequence: int, deadline: float) -> bool:
        """Wait until this node has applied ``sequence`` entries; False at the deadline."""

    async def wait_leader(self, other_than: str | None, deadline: float) -> str | None:
        """Wait until a leader is known that is not ``other_than``; at the deadline whatever is known."""

    async def read(self, request: Query[Any]) -> Reply | Rejection:
        """Answer from this node's own copy."""

    async def render(self, value: Reply | Rejection) -> Reply | Rejection:
        """Turn what the machine decided into what is answered (messages are read from storage)."""

    async def wait_news(self, subject: Subject, sequence: int, deadline: float) -> bool:
        """Wait until something happened to the subject after ``sequence``; False at the deadline."""

    def inspect(self, request: Inspection[Any]) -> Reply:
        """Answer a question about this node."""

    async def transfer(self, to: str | None, until: float) -> Reply | Rejection:
        """At the leader: hand the lead to a member, or to any that can take it, and wait until it leads."""

    def outage(self) -> Problem:
        """Return no_leader or no_quorum, naming the members that cannot be reached and why."""


class Peers(Protocol):
    """The other nodes, over HTTP."""

    async def call(self, peer: str, call: Call, timeout_s: float) -> Answer:
        """Send a call to a peer; raises ``PeerUnreachable`` or ``PeerLost``."""


class Logger(Protocol):
    """What this room says about itself; structlog's loggers fit. Events have stable names."""

    def info(self, event: str, **fields: object) -> object:
        """Say what was done."""

    def warning(self, event: str, **fields: object) -> object:
        """Say what failed and will be tried again."""

    def error(self, event: str, **fields: object) -> object:
        """Say what somebody has to do something about."""

    def exception(self, event: str, **fields: object) -> object:
        """Say what should never happen, with its traceback."""


class SameCluster:
    """Calls to the other nodes that say which cluster they come from: an address may have come to mean another one."""

    def __init__(self, peers: Peers, cluster_id: Callable[[], str]) -> None:
        self._peers = peers
        self._cluster_id = cluster_id

    async def call(self, peer: str, call: Call, timeout_s: float) -> Answer:
        """See ``Peers``."""
        headers = {**call.headers, CLUSTER_HEADER: self._cluster_id()}
        return await self._peers.call(peer, call._replace(headers=headers), timeout_s)
