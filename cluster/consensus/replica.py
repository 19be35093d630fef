"""The replicated log as one object on one event loop: engine, network and timers put together.

``Replica`` is all that the floors above see of the engine: whoever wants another one in its place has to offer what stands
here under "what the node asks" and "what the node decides". It ticks the engine when something happened and by a timer
otherwise, reads and writes frames, knows who is there, and decides when a new member may take part.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from quorl.cluster.consensus import library, messages
from quorl.cluster.consensus.engine import Engine, Outside
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.consensus.port import Ahead, Apply, Clock, Glance, Hello, Network, Role, Status, Timing
from quorl.cluster.protocol import limits

TICK_S = 0.05
"""What comes by time alone, as elections and heartbeats do, comes so late at most."""
_ROLES = {library.FOLLOWER: Role.FOLLOWER, library.CANDIDATE: Role.CANDIDATE, library.LEADER: Role.LEADER}


class Identity(NamedTuple):
    """Who a member is to the others."""

    cluster: str
    group: int
    name: str
    incarnation: str
    version: str


class Callbacks(NamedTuple):
    """What the replica tells the node; all on its loop."""

    apply: Apply
    ahead: Ahead
    snapshot_needed: Callable[[str], None]
    changed: Callable[[], None]
    """Something in ``status`` may have changed."""
    died: Callable[[str], None]
    waited: Callable[[], bool]
    """Whether somebody waits here for what is about to be committed."""


class Replica:
    """One member's replicated log. Implements ``NetworkEvents`` for its network."""

    def __init__(
        self,
        identity: Identity,
        others: list[str],
        log: LogStore,
        applied_index: int,
        clock: Clock,
        dice: random.Random,
        timing: Timing,
        network: Network,
        callbacks: Callbacks,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._identity = identity
        self._log = log
        self._network = network
        self._has_room = has_room
        self.log_bytes_kept = limits.LOG_BYTES_KEPT_MAX
        """What connected followers may hold back of the log that the state no longer needs."""
        self._callbacks = callbacks
        self._peers: dict[str, Hello] = {}
        self._said: tuple[messages.Message, bytes] | None = None
        """What was said last, and as which frame: mostly the same is said to several members, and is encoded once."""
        self._others = frozenset(others)
        self._tick_wanted = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        outside = Outside(
            send=self._send,
            apply=callbacks.apply,
            ahead=callbacks.ahead,
            wants_tick=self.poke,
            snapshot_needed=callbacks.snapshot_needed,
            died=callbacks.died,
            waited=callbacks.waited,
        )
        self.engine = Engine(identity.name, others, log, applied_index, clock, dice, timing, outside)
        self.engine.election.may_stand = self._may_stand
        self.engine.election.may_vote = self._may_vote

    # -- life ------------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Bind the address, begin to dial, begin to tick."""
        self._loop = asyncio.get_running_loop()
        await self._network.start(self)
        self._on_timer()

    async def close(self) -> None:
        """Stop ticking and talking. What is durable stays; nothing else is promised."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None
        await self._network.close()

    def poke(self) -> None:
        """Tick soon, once, however often it is asked."""
        if self._loop is not None and not self._tick_wanted:
            self._tick_wanted = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._tick_wanted = False
        if self._loop is not None:
            self.engine.tick()
            self._callbacks.changed()

    def _on_timer(self) -> None:
        if self._loop is not None:
            self._timer = self._loop.call_later(TICK_S, self._on_timer)
            self._tick()

    # -- what the node asks ----------------------------------------------------------------------------------------
    @property
    def leads(self) -> bool:
        """Whether this member believes that it leads its current term."""
        return self.engine.leads

    @property
    def term(self) -> int:
        """The highest term seen."""
        return self.engine.term

    @property
    def leader(self) -> str | None:
        """The leader of the current term, as far as heard of; nobody leads a member that has stopped itself."""
        return self.engine.known_leader if self.engine.fatal is None else None

    @property
    def applied_index(self) -> int:
        """The highest index that was applied here."""
        return self.engine.applied_index

    @property
    def fatal(self) -> str | None:
        """Why this member has stopped itself, if it has: it says, stores and applies nothing any more."""
        return self.engine.fatal

    @property
    def damaged(self) -> bool:
        """Whether it has because of a damaged state: no restart makes it better."""
        return self.engine.damaged

    def status(self) -> Status:
        """What this member knows now; see ``port.Status``."""
        engine = self.engine
        return Status(
            role=_ROLES[engine.role],
            term=engine.term,
            leader=self.leader,
            quorum_fresh=engine.election.can_decide(),
            first_index=self._log.first_index,
            last_index=self._log.last_index,
            commit_index=engine.commit_index,
            applied_index=engine.applied_index,
            matched={str(m.id): i for m, i in engine.match_index.items()} if engine.leads else {},
            connected=frozenset(self._peers),
            blank=engine.blank,
        )

    def glance(self) -> Glance:
        """As much of ``status`` as every tick asks for, at a fraction of its cost."""
        engine = self.engine
        leads = engine.leads and engine.fatal is None
        fresh = leads and engine.election.can_decide()
        return Glance(leads, engine.term, self.leader, fresh, engine.applied_index)

    @property
    def log_bytes(self) -> int:
        """The size of the log on the disk."""
        return self._log.size_bytes

    @property
    def waited(self) -> bool:
        """On the leader: whether somebody waits at a follower, as far as is known here."""
        return not self.engine.replication.waited.isdisjoint(self.engine.reachable)

    # -- what the node decides -------------------------------------------------------------------------------------
    def propose(self, payload: bytes) -> asyncio.Future[Any]:
        """Append to the log as its leader; the future gives what ``apply`` returned here.

        Raises ``NotApplied`` at once where this member does not lead, or its log has no room; the future raises
        ``OutcomeUnknown`` when the lead is lost before the entry was applied.
        """
        return self.engine.propose(payload)

    def leave(self, *, leaving: bool) -> None:
        """Propose nothing new from now on, as the lead is about to be given away; or do so again, as it was not."""
        self.engine.leaving = leaving

    def hand_over(self, to: str | None = None) -> bool:
        """Ask that follower, or any, to stand for election if it has the whole log; whether one was asked."""
        return self.engine.hand_over(to)

    def suspend(self) -> None:
        """Apply nothing until ``resume``: the state is about to be replaced."""
        self.engine.suspended = True

    def resume(self, index: int, term: int) -> None:
        """Go on behind this position, which the state has now."""
        self.engine.installed(index, term)
        self.engine.suspended = False
        self.poke()

    def die(self, reason: str, *, damaged: bool = False) -> None:
        """Stop for good: going on could do harm."""
        self.engine.die(reason, damaged=damaged)

    def announce(self) -> None:
        """Tell the followers how far the log is committed, where no further entry is about to say it."""
        self.engine.announce()

    def ping(self) -> None:
        """Tell the other members at once how this one stands."""
        self._network.ping()

    def trim(self, durable_index: int) -> None:
        """Forget log entries that the state durably contains, as far as the others do not need them from here.

        A follower that is away does not hold the log back, nor one that stores nothing while the log grows beyond
        ``log_bytes_kept``: they get a snapshot instead.
        """
        engine = self.engine
        bound = min(durable_index, engine.applied_index)
        if engine.leads and self._log.size_bytes <= self.log_bytes_kept:
            here = [engine.match_index.get(m, 0) for m in engine.reachable]
            bound = min([bound, *here])
        engine.or_die(lambda: self._log.trim_to(bound))

    def set_cluster_id(self, cluster_id: str) -> None:
        """The cluster has its id: remember it beside the ballot, durably."""
        if self._log.ballot.cluster_id != cluster_id:
            self._log.ballot.set_identity(cluster_id, blank=self._log.ballot.blank)

    def _send(self, peer: str, message: messages.Message) -> bool:
        if self._said is None or self._said[0] != message:
            self._said = message, messages.encode(message)
        return self._network.send(peer, self._said[1])

    # -- NetworkEvents ---------------------------------------------------------------------------------------------
    def hello(self) -> Hello:
        """This member's introduction."""
        who = self._identity
        return Hello(
            cluster=who.cluster,
            cluster_id=self._log.ballot.cluster_id,
            group=who.group,
            node=who.name,
            incarnation=who.incarnation,
            pristine=self._pristine(),
            version=who.version,
        )

    def on_connected(self, peer: str, hello: Hello) -> None:
        """Note who is there; a member with an empty disk that meets a formed cluster must fill it before it counts."""
        self._peers[peer] = hello
        if hello.cluster_id is not None and self._log.ballot.cluster_id is None and self._pristine():
            try:
                self._log.ballot.set_identity(hello.cluster_id, blank=True)
            except OSError as error:
                # Without that note this member would vote from an emptied disk as soon as there is room again.
                self.engine.die(f"the disk cannot note that it was empty: {error}")
                return
        self.engine.connected_to(peer)
        self.poke()

    def on_frame(self, peer: str, frame: bytes) -> None:
        """Read one message and act on it; what cannot be read is dropped."""
        try:
            message = messages.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if self.engine.receive(peer, message):
            self._tick()  # who waits for this entry need not wait for another turn of the loop

    def on_disconnected(self, peer: str) -> None:
        """The connection is gone."""
        self._peers.pop(peer, None)
        self.engine.disconnected_from(peer)
        self.poke()

    def on_refused(self, peer: str) -> None:
        """The peer's process is gone; if it led, the next election need not wait."""
        self.engine.peer_died(peer)
        if self._loop is not None and not self.engine.leads:
            wait_s = max(0.0, self.engine.election_deadline - self.engine.now()) + 0.001
            self._loop.call_later(wait_s, self.poke)

    # -- birth -----------------------------------------------------------------------------------------------------
    def _pristine(self) -> bool:
        return self._log.ballot.cluster_id is None and self.engine.term == 0 and self._log.last_index == 1

    def _may_stand(self) -> bool:
        """Whether this member may stand for election: not from a disk that was emptied, and not onto one that is full."""
        return not self.engine.blank and self._has_room() and self._may_vote()

    def _may_vote(self) -> bool:
        """Whether this member's disk can have forgotten nothing: it is not as at birth, or this is a birth.

        A new cluster forms only once every member was seen in its first state, by those who stand and by those who
        vote: two lost disks and members that never ran, or never heard that the cluster was founded, could otherwise
        found a second one beside it.
        """
        if not self._pristine():
            return True
        return all(peer in self._peers and self._peers[peer].cluster_id is None for peer in self._others)
