"""What must hold at every moment, whatever the clients see: leaders are left alone, and know when they are alone.

* DEPOSED: while a leader has had a majority around it for a second, nobody enters a higher term.
* STILL-LEADS: a leader that cannot reach a majority says so within a second and a half.
* REGRESSED: what a member knows to be committed never becomes less in one life.
* TOO-FAST: cluster time never runs ahead of the world's.
* RAN-ALONE: cluster time stands still while no majority of members that count holds what is committed.
* GREEDY: one tick applies no more than its budget and one entry.
* LOGS-DIFFER, ROT-ACCEPTED: what logs may never be.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from quorl.cluster.consensus import ballot
from quorl.cluster.protocol import limits

if TYPE_CHECKING:
    from tests.simulation.world import Process, WatchedNode, World

LOOK_S = 0.05
HEALTHY_S = 1.0
ALONE_S = 1.5
STILL_S = 0.8
"""So much cluster time may go by until a leader knows that it can decide nothing."""
START_S = 1000.0


class Checks:
    """Looks at a world twenty times a second, and at every tick and entry."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._leader: tuple[str, int, int] | None = None
        """Its name, its term, and which of its lives it is."""
        self._around: dict[str, float] = {}
        self._alone: dict[str, float] = {}
        self._unable: dict[str, tuple[WatchedNode, int, int, float]] = {}
        """Leaders that can decide nothing: in which term, and what their clocks showed when that began."""
        self._committed: dict[WatchedNode, int] = {}
        self._applied_bytes: dict[WatchedNode, int] = {}
        self.highest_term = 0

    def start(self) -> None:
        """Look now, and again and again."""
        self._look_for_deposed()
        self._look_for_alone()
        self._look_for_time()
        self._world.later(LOOK_S, self.start)

    # -- leaders -----------------------------------------------------------------------------------------------------
    def _well(self, process: Process) -> bool:
        disk = process.disk
        return process.node is not None and not process.paused and not (disk.full or disk.fail_sync or disk.dies_in)

    def _wired(self, a: str, b: str) -> bool:
        return self._world.wires.open(a, b) and self._world.wires.open(b, a)

    def _connected(self, a: str, b: str) -> bool:
        ends = [
            self._world.networks[n]._ends.get(m) if n in self._world.networks else None for n, m in ((a, b), (b, a))
        ]
        return ends[0] is not None and ends[1] is not None and ends[0].serial == ends[1].serial

    def _look_for_deposed(self) -> None:
        world, now = self._world, self._world.clock.now
        known = self._leader
        if known is None:
            self._leader = self._find_leader()
            self._around.clear()
            return
        name, term, life = known
        leader = world.processes[name]
        alive = leader.lives == life and leader.node is not None and not leader.node.stopping and self._well(leader)
        if not alive or leader.node is None or world.wires.delay_s_max > 0.1:
            self._leader = None
            return
        for other in world.names:
            process = world.processes[other]
            fit = other != name and self._well(process) and self._wired(name, other) and self._connected(name, other)
            if fit and process.node is not None and not process.node.replica.engine.blank:
                self._around.setdefault(other, now)
            else:
                self._around.pop(other, None)
        faithful = sum(1 for since in self._around.values() if now - since > HEALTHY_S)
        if faithful + 1 < world.majority:
            if not leader.node.replica.engine.leads or self.highest_term > term:
                self._leader = None
            return
        terms = {n.name: n.replica.engine.term for n in world.nodes()}
        if max(terms.values()) > term or not leader.node.replica.engine.leads:
            world.problem(f"DEPOSED: {name} led term {term} with {sorted(self._around)} around it; now {terms}")
            self._leader = None

    def _find_leader(self) -> tuple[str, int, int] | None:
        """A leader of the highest term that anybody knows, on disk or in memory."""
        for node in self._world.nodes():
            engine = node.replica.engine
            if engine.leads and engine.term >= max(self.highest_term, self._terms_on_disks()):
                return node.name, engine.term, self._world.processes[node.name].lives
        return None

    def _terms_on_disks(self) -> int:
        terms = []
        for process in self._world.processes.values():
            raw = process.disk.files().get(ballot.NAME) if process.loop is None and not process.rotten else None
            if raw is not None:
                terms.append(ballot._decode(raw).term)
        return max(terms, default=0)

    def _look_for_alone(self) -> None:
        world, now = self._world, self._world.clock.now
        for process in world.processes.values():
            node = process.node
            if node is None or process.paused or not node.replica.engine.leads:
                self._alone.pop(process.name, None)
                continue
            reached = sum(
                1
                for p in world.processes.values()
                if p.name != process.name and p.node is not None and not p.paused and self._wired(p.name, process.name)
            )
            if reached + 1 >= world.majority:
                self._alone.pop(process.name, None)
                continue
            # What was on its way before, even from a process that is dead by now, may still arrive.
            heard = sorted(node.replica.engine.last_response.values(), reverse=True)[world.majority - 2]
            since = max(self._alone.setdefault(process.name, now), heard)
            if now - since > ALONE_S + world.wires.delay_s_max and node.leads():
                world.problem(f"STILL-LEADS: {process.name} reaches {reached} others for {now - since:.1f} s")

    def _look_for_time(self) -> None:
        world = self._world
        for process in world.processes.values():
            node = process.node
            if node is None or process.paused or not node._lead.term or self._able(node) >= world.majority:
                self._unable.pop(process.name, None)
                continue
            # What it has committed since proves that there was a majority meanwhile, for however short a moment.
            seen = node, node._lead.term, node.replica.engine.commit_index, node._time._elapsed_s
            began = self._unable.setdefault(process.name, seen)
            if began[:3] != seen[:3]:
                self._unable[process.name] = seen
            elif (ran_s := seen[3] - began[3]) > STILL_S + world.wires.delay_s_max:
                world.problem(
                    f"RAN-ALONE: {ran_s:.1f} s of cluster time went by, and {process.name} could decide nothing"
                )

    def _able(self, leader: WatchedNode) -> int:
        """How many members count and hold what this leader knows to be committed, reached by it or not."""
        engine = leader.replica.engine
        index, term = engine.commit_index, engine.log.term_at(engine.commit_index)
        others = [node.replica.engine for node in self._world.nodes()]
        return sum(
            not other.blank and (other.log.first_index > index or other.log.term_at(index) == term) for other in others
        )

    # -- ticks and entries ---------------------------------------------------------------------------------------------
    def ticked(self, node: WatchedNode) -> None:
        """A member's tick is over."""
        engine = node.replica.engine
        self.highest_term = max(self.highest_term, engine.term)
        self._applied_bytes[node] = 0
        before = self._committed.get(node, 0)
        if engine.commit_index < before:
            self._world.problem(f"REGRESSED: {node.name} knew {before} committed, and now {engine.commit_index}")
        self._committed[node] = engine.commit_index

    def applied(self, node: WatchedNode, payload: bytes) -> None:
        """A member has applied an entry."""
        applied = self._applied_bytes.get(node, 0)
        if applied > limits.APPLY_BYTES_PER_TICK:
            self._world.problem(f"GREEDY: {node.name} applied {applied} bytes in one tick, and went on")
        self._applied_bytes[node] = applied + len(payload)
        world_ms = (self._world.clock.now - START_S) * 1000
        if node.machine.now_ms > world_ms + 1:
            self._world.problem(f"TOO-FAST: cluster time is {node.machine.now_ms} ms after {world_ms:.0f} ms")

    # -- logs ----------------------------------------------------------------------------------------------------------
    def compare_logs(self) -> None:
        """Entries of one index and one term are one entry, and what is committed is the same everywhere."""
        nodes = self._world.nodes()
        for here, there in pairwise(nodes):
            a, b = here.replica.engine, there.replica.engine
            first = max(a.log.first_index, b.log.first_index) + 1
            committed = min(a.commit_index, b.commit_index)
            for index in range(first, min(a.log.last_index, b.log.last_index) + 1):
                mine, other = a.log.entry(index), b.log.entry(index)
                if (mine[2] == other[2] or index <= committed) and mine != other:
                    self._world.problem(f"LOGS-DIFFER at {index}: {here.name} has {mine}, {there.name} {other}")
                    return
