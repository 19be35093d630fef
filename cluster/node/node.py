"""One node, without its sockets: builds the parts, starts and stops them in order, and is the ``Core`` of the gateway.

Start: take the data directory, open the log and the state, make them agree, then talk. Stop: hand the lead over, let
running requests end, close. ``died`` is set when going on could do harm; the process must then exit.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Sequence
from typing import Any

from quorl.cluster.consensus.align import align
from quorl.cluster.consensus.ballot import NAME as BALLOT_NAME
from quorl.cluster.consensus.damage import damaged, is_damage
from quorl.cluster.consensus.logstore import HELD_BYTES, LogStore
from quorl.cluster.consensus.port import (
    Damaged,
    Hello,
    NotApplied,
    Snapshot,
    Status,
)
from quorl.cluster.consensus.replica import Callbacks, Identity, Replica
from quorl.cluster.machine.events import CommandSpoiled, EntrySkipped
from quorl.cluster.machine.machine import Applied, Machine, Outcome
from quorl.cluster.node.applying import Applying
from quorl.cluster.node.core import CLUSTER_HEADER, PREFIX, SameCluster
from quorl.cluster.node.diskroom import DiskRoom
from quorl.cluster.node.gateway import Gateway
from quorl.cluster.node.internal import Internal
from quorl.cluster.node.leadership import Footing, Leadership
from quorl.cluster.node.looking import Looking
from quorl.cluster.node.members import Gossip, Members
from quorl.cluster.node.meters import Meters
from quorl.cluster.node.opening import open_machine, refusing_damage
from quorl.cluster.node.outage import Standing, explain
from quorl.cluster.node.patience import Haste
from quorl.cluster.node.setting import Ports, Settings
from quorl.cluster.node.subjects import Subject
from quorl.cluster.node.timekeeper import Timekeeper
from quorl.cluster.node.transferring import transferred
from quorl.cluster.node.upkeep import Bounds, CatchUp, Trimming
from quorl.cluster.node.visit import Declined
from quorl.cluster.node.watch import Watch
from quorl.cluster.protocol.entry import Sealed, SignOfLife
from quorl.cluster.protocol.grammar import Inspection, Query, Rejection, Reply
from quorl.cluster.protocol.leases import Claim, GetDirectives
from quorl.cluster.protocol.overview import GetHistory, GetOverview
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.system import ClusterInfo
from quorl.cluster.protocol.together import ClaimBatch
from quorl.cluster.protocol.wire import Answer, Call

_HAND_OVER_S = 2.0
"""At a stop: how long it is tried to hand the lead over."""
_FINISH_S = 2.0
"""And after that, how long calls that run may take to end."""


class Node:
    """One member of the cluster. Implements ``core.Core``."""

    def __init__(self, settings: Settings, ports: Ports, meters: Meters | None = None) -> None:
        self._settings = settings
        self.meters = meters or Meters()
        self._ports = ports
        self.name = settings.name
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watch = Watch(ports.clock.monotonic)
        self._time = Timekeeper(ports.clock)
        self._members = Members(settings.members, settings.name, ports.clock)
        self._told: tuple[str | None, int] = (None, 0)
        """The leader and the term that the log heard of last."""
        self._stopping = False
        self._left = False
        self._closed = False
        self._readable = asyncio.Event()
        self.machine: Machine
        self.replica: Replica
        self._keys = itertools.count()
        self._incarnation = ports.new_token()
        self._peers = SameCluster(ports.peers, self._cluster_id)
        self._room = DiskRoom(ports.disk.free_bytes, lambda: self._store.lacked_room, ports.log)
        self.looking = Looking(self, settings.version, ports.clock, ports.disk.free_bytes)
        self.gateway = Gateway(
            self,
            self._peers,
            self._new_key,
            lambda: f"{self._incarnation}{next(self._keys):08x}",
            log=ports.log,
            wait_s_max=settings.wait_s_max,
            defaults=settings.defaults,
            meters=self.meters,
        )

    # -- life ------------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Open what the disk holds, or refuse with ``Damaged``; then join the others."""
        ports, settings = self._ports, self._settings
        ports.disk.lock()
        if ports.states.exists() and BALLOT_NAME not in ports.disk.names():
            raise damaged(BALLOT_NAME, None, "missing although there is a state; a vote may be forgotten")
        quarter = settings.log_bytes_max // 4
        store = LogStore(ports.disk, segment_bytes=max(1024, quarter), held_bytes=min(HELD_BYTES, quarter))
        self._store = store
        store.ballot.claim(self.name)
        self.machine = open_machine(ports.states, store.first_index)
        align(store, self.machine)
        self._watch.replaced(self.machine.position.sequence)
        with refusing_damage():
            self.looking.replaced()
        others = [m.name for m in settings.members if m.name != self.name]
        self._applying = Applying(lambda: self.machine, lambda: self._trimming.running, self._not_kept)
        self.replica = Replica(
            Identity(settings.cluster, settings.group, self.name, self._incarnation, settings.version),
            others,
            store,
            self.machine.position.index,
            ports.clock,
            ports.dice,
            settings.timing,
            ports.network(self._gossip, self._on_gossip),
            Callbacks(
                self._apply,
                self._applying,
                self._snapshot_needed,
                self._on_changed,
                self._on_died,
                lambda: self._watch.waited,
            ),
            has_room=lambda: not self._room.full(),
        )
        footing = Footing(
            self.name,
            ports.clock,
            ports.dice,
            ports.new_token,
            self.replica,
            self.replica.glance,
            lambda: self.machine,
            store.term_at,
        )
        self._lead = Leadership(footing, self._time, self.meters)
        turn = sorted([self.name, *others]).index(self.name) / len(settings.members)
        bounds = Bounds(settings.snapshot_every, settings.log_bytes_max, turn)
        self._trimming = Trimming(ports.states, ports.offload, self.replica.trim, bounds, ports.log, self.meters)
        self._catch_up = CatchUp(
            ports.states, ports.offload, self._peers, ports.disk, ports.clock, self._install, ports.log, self.meters
        )
        self._internal = Internal(self, ports.states, ports.offload, ports.log, self.replica.hand_over)
        self._readable.set()
        await self.replica.start()

    async def stop(self) -> None:
        """Leave gracefully: hand over, finish what runs, let go of the disk."""
        self._stopping = True
        self.looking.live.bye(self.name, self._members.addresses(self.replica.status()))
        self.gateway.drain()
        self._lead.parking.drain()
        await self._let_go(self.monotonic() + _HAND_OVER_S)
        self._left = True
        self._lead.step_aside(NotApplied("shutting_down", f"{self.name} is shutting down"))
        await self._finish_calls()
        await self.gateway.close()
        await self._catch_up.close()
        await self._trimming.close()
        await self.replica.close()
        try:
            self._store.close()
        except OSError as error:
            # What was promised is durable already; the last note of how far that reaches is for the next start only.
            self._ports.log.warning("stopped_without_last_sync", why=str(error))
        self._closed = True
        self._applying.end()
        self.machine.close()

    async def _finish_calls(self) -> None:
        """Let calls that run come to their end, while there are a log, a state and other nodes to end with."""
        deadline = self.monotonic() + _FINISH_S
        while self.gateway.running and self.monotonic() < deadline and self.replica.fatal is None:
            await self._watch.wait_changed(min(deadline, self.monotonic() + self._settings.timing.heartbeat_s / 2))

    async def _let_go(self, until: float, to: str | None = None) -> None:
        """Hand the lead to a member that has the whole log; meanwhile, and afterwards, nothing new is proposed here."""
        replica = self.replica
        while replica.leads and len(self._members) > 1 and self.monotonic() < until and replica.fatal is None:
            idle = self._lead.committer.idle
            if idle or to is not None:
                replica.leave(leaving=True)
            if idle:
                replica.hand_over(to)
            await self._watch.wait_changed(min(until, self.monotonic() + self._settings.timing.heartbeat_s))

    async def transfer(self, to: str | None, until: float) -> Reply | Rejection:
        """See ``Core``."""
        refused = self._members.cannot_lead(to, self.replica.status(), self._own_gossip())
        if to != self.name and refused is not None:
            return refused
        began, term_s = self.monotonic(), self._settings.timing.election_max_s
        if to != self.name:
            try:
                await self._let_go(until, to)
            finally:
                self.replica.leave(leaving=self._stopping)
        leads = to == self.name or self.replica.leads
        leader = self.name if leads else await self.wait_leader(self.name, until + term_s)
        return transferred(self.name, to, leader, self.term(), round(1000 * (self.monotonic() - began)))

    @property
    def stopping(self) -> bool:
        """Whether this node is leaving."""
        return self._stopping

    # -- what consensus tells --------------------------------------------------------------------------------------
    def _apply(self, index: int, term: int, payload: bytes) -> Applied:
        applied = self._applying.apply(index, term, payload)
        self._watch.applied(applied.sequence, applied.events)
        self.looking.applied(applied.events)
        self._lead.applied(applied.events)
        self.meters.applied(applied.events)
        for event in applied.events:
            if isinstance(event, CommandSpoiled | EntrySkipped):
                self._ports.log.warning("entry_spoiled", index=index, reason=event.reason)
        if self.machine.cluster_id is not None:
            self.replica.set_cluster_id(self.machine.cluster_id)
        self._trimming.applied(len(payload), self._store.size_bytes)
        if self._trimming.running:
            self._applying.end()
        return applied

    def _not_kept(self, error: Exception) -> None:
        if self._closed:  # it has stopped: nobody is told anything any more, and the next start finds it all in the log
            self._ports.log.warning("stopped_without_last_commit", why=f"{type(error).__name__}: {error}")
            return
        reason = f"the state could not keep what was applied: {type(error).__name__}: {error}"
        self.replica.die(reason, damaged=is_damage(error))

    def _on_changed(self) -> None:
        now = self.replica.glance()
        if self._told != (now.leader, now.term):
            self.meters.leader_changes += now.leader not in {None, self._told[0]}
            self._told = (now.leader, now.term)
            self._ports.log.info("leader_changed", leader=now.leader, term=now.term)
            self.replica.ping()  # what others tell of this node is else half a second behind an election
        self._lead.look(now, stopping=self._stopping)
        self.looking.noticed(self.leader())
        self._watch.changed()

    def _on_died(self, reason: str) -> None:
        if not self.died.done():
            self.died.set_result(reason)

    def _new_key(self) -> str:
        return f"{self._incarnation}-{next(self._keys):012d}"

    # -- snapshots -------------------------------------------------------------------------------------------------
    def _snapshot_needed(self, leader: str) -> None:
        if not self._stopping:
            self._catch_up.needed(leader)

    async def _install(self, snapshot: Snapshot) -> None:
        """Put the received copy in the place of the state, while nothing is applied or read."""
        if snapshot.index <= self.replica.applied_index:
            return
        self.replica.suspend()
        self._readable.clear()
        await self._trimming.close()
        self._applying.end()
        self.machine.close()
        try:
            await self._ports.offload.run(lambda: self._ports.states.install(snapshot))
        finally:
            # Also after an error: which state is in place, the old or the new, only the file itself can tell.
            try:
                self.machine = open_machine(self._ports.states, self._store.first_index)
            except (Damaged, sqlite3.Error, OSError) as error:
                self.replica.die(f"the state cannot be opened after a snapshot: {error}")
                raise
            self.replica.resume(self.machine.position.index, self.machine.position.term)
            self._readable.set()
            self._trimming.paused = False
            self._watch.replaced(self.machine.position.sequence)
            self.looking.replaced()

    # -- gossip ----------------------------------------------------------------------------------------------------
    def _own_gossip(self) -> Gossip:
        full = self._room.full()
        return self._members.own(self.replica.status(), self.sequence(), self._settings.version, disk_full=full)

    def _gossip(self) -> bytes:
        return self._members.pack(self._own_gossip())

    def _on_gossip(self, peer: str, payload: bytes) -> None:
        heard = self._members.heard(peer, payload)
        if heard is not None:
            self._time.heard(peer, heard.wall_ms)
            lacking = self._members.lacks_room(self.replica.status(), own_full=self._room.full())
            self._lead.told_of_room(lacking)

    # -- Core ------------------------------------------------------------------------------------------------------
    def may_pack(self) -> bool:
        """See ``Core``."""
        return self._members.all_unpack()

    async def handle(self, call: Call) -> Answer:
        """Answer one call, from a client or from another node."""
        sender = call.headers.get(CLUSTER_HEADER)
        if sender and (own := self._cluster_id()) and sender != own:
            detail = f"{self.name} belongs to another cluster than the node that sent this call."
            return self.gateway.refuse(call, Problem("no_leader", detail))
        door = self._internal if call.path.startswith(PREFIX) else self.gateway
        answer = await door.handle(call)
        if sender is not None:
            self._lead.committer.announce()  # that node waits until it has applied what this answer tells of
        return answer

    def _cluster_id(self) -> str:
        # The ballot knows it before the state does: a node with an emptied disk asks for a snapshot in this name.
        return self._store.ballot.cluster_id or ""

    def refuse(self, call: Call, problem: Problem) -> Answer:
        """Answer a call that was not even read."""
        return self.gateway.refuse(call, problem)

    def leader(self) -> str | None:
        """See ``Core``: nobody is called the leader before it serves."""
        leader = self.replica.leader
        return leader if leader != self.name or self.leads() else None

    def leads(self) -> bool:
        """See ``Core``. Asked several times per request, so it does without the whole ``status``."""
        replica = self.replica
        return replica.leads and self._lead.term == replica.term and not self._left

    def sequence(self) -> int:
        """See ``Core``."""
        return self.machine.position.sequence

    def term(self) -> int:
        """See ``Core``."""
        return self.replica.term

    @property
    def commands_pending(self) -> int:
        """Commands that wait here for an entry."""
        return self._lead.committer.waiting

    def first_index(self) -> int:
        """The oldest entry that this node's log still holds."""
        return self._store.first_index

    def monotonic(self) -> float:
        """See ``Core``."""
        return self._ports.clock.monotonic()

    async def submit(self, sealed: Sealed, haste: Haste = Haste.SOON) -> tuple[Outcome, int]:
        """See ``Core``."""
        self._check_serving()
        return await self._lead.submit(sealed, haste)

    async def barrier(self) -> int:
        """See ``Core``."""
        self._check_serving()
        return await self._lead.barrier()

    async def claim(
        self, sealed: Sealed, claim: Claim | ClaimBatch, until: float, news: GetDirectives | None = None
    ) -> tuple[Outcome, int] | None:
        """See ``Core``."""
        self._check_serving()
        return await self._lead.claim(sealed, claim, until, news)

    async def sign(self, signs: Sequence[SignOfLife]) -> int:
        """See ``Core``."""
        self._check_serving()
        return await self._lead.sign(signs)

    def note(self, sign: SignOfLife) -> None:
        """See ``Core``."""
        if self.leads():
            self._lead.note(sign)

    async def dead_after_ms(self, worker_id: int) -> int | None:
        """See ``Core``."""
        await self._until_readable()
        found = self.machine.worker(worker_id)
        return found.dead_after_ms if found is not None and found.alive else None

    def _check_serving(self) -> None:
        if self._stopping:
            raise NotApplied("shutting_down", f"{self.name} is shutting down")
        if not self.leads():
            raise NotApplied("no_leader", f"{self.name} does not lead")

    async def wait_applied(self, sequence: int, deadline: float) -> bool:
        """See ``Core``."""
        return await self._watch.wait_applied(sequence, deadline)

    async def wait_leader(self, other_than: str | None, deadline: float) -> str | None:
        """See ``Core``."""
        while True:
            leader = self.leader()
            if (leader is not None and leader != other_than) or self.monotonic() >= deadline:
                return leader
            await self._watch.wait_changed(deadline)

    async def wait_news(self, subject: Subject, sequence: int, deadline: float) -> bool:
        """See ``Core``."""
        return await self._watch.wait_news(subject, sequence, deadline)

    async def read(self, request: Query[Any]) -> Reply | Rejection:
        """See ``Core``."""
        await self._until_readable()
        try:
            return self.looking.history(request) if isinstance(request, GetHistory) else self.machine.query(request)
        except sqlite3.DatabaseError as error:
            self.stop_if_damaged(error)
            await self._until_readable()  # another node can answer what this one cannot any more
            raise

    async def render(self, value: Reply | Rejection) -> Reply | Rejection:
        """See ``Core``."""
        await self._readable.wait()
        try:
            if self.readable:
                return self.machine.render(value)
        except sqlite3.DatabaseError as error:
            self.stop_if_damaged(error)
            if self.readable:
                raise
        # What was decided stays decided.
        raise Declined(Problem("commit_unknown", f"{self.name} has stopped and cannot tell what the call came to."))

    def stop_if_damaged(self, error: sqlite3.DatabaseError) -> sqlite3.DatabaseError:
        """Nobody is answered from a damaged copy of the state, nor for ever refused what the other nodes can read."""
        if is_damage(error):
            self.replica.die(f"the state could not be read: {error}", damaged=True)
        return error

    @property
    def readable(self) -> bool:
        """See ``looking.LookedAt``."""
        return self._readable.is_set() and not self._closed and self.replica.fatal is None

    async def _until_readable(self) -> None:
        """Wait while a snapshot is put in place. A node that has stopped has no state to read any more.

        One that has stopped itself may have undone what it told already.
        """
        await self._readable.wait()
        if not self.readable:
            raise Declined(Problem("shutting_down", f"{self.name} is shutting down."))

    def inspect(self, request: Inspection[Any]) -> Reply:
        """See ``Core``."""
        return self.looking.overviews.latest() if isinstance(request, GetOverview) else self.cluster()

    def cluster(self) -> ClusterInfo:
        """The cluster as this node sees it."""
        status = self.replica.status()
        leader, standing = self.leader(), self._standing(status)
        if leader not in {None, self.name}:
            # It steps down where it hears no majority: who hears it need not reach the others himself.
            standing = standing._replace(missing=[])
        members = self._members.describe(status, self._own_gossip())
        well = leader is not None and all(member.state == "ok" for member in members)
        return ClusterInfo(
            name=self._settings.cluster,
            cluster_id=self.machine.cluster_id,
            node=self.name,
            leader=leader,
            term=status.term,
            quorum=self._members.quorum,
            health="no_quorum" if not standing.decides else "ok" if well else "degraded",
            sequence=self.sequence(),
            machine_version=Machine.VERSION,
            digest=self.machine.digest,
            members=members,
            settings=self._settings.told,
        )

    def outage(self) -> Problem:
        """See ``Core``."""
        return explain(self.name, self._standing(self.replica.status()))

    def _standing(self, status: Status) -> Standing:
        members = self._members
        missing, filling = members.unreachable(status), members.filling(status)
        full = members.full(status) + ([self.name] if self._room.full() else [])
        return Standing(len(members), members.quorum, missing, filling, bool(self._cluster_id()), sorted(full))

    def hello(self) -> Hello:
        """This node's introduction to another member."""
        return self.replica.hello()
