"""Who may get which tasks: stand-bys, owners of partitions, queues that are paused, and the counts of queues.

* IDLER-GRANTED, STANDBY: a stand-by gets nothing unless it is needed, and as many are active as are needed.
* FOREIGN-PARTITION, OWNERS, SHARES, EPOCH: a task of a partition goes to its one owner, partitions are spread evenly, and
  each change of owner has a greater number.
* PAUSED, COUNTS: a queue that is paused hands nothing out, and every queue counts what it has.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quorl.cluster.protocol import tasks as k
from tests.simulation.task_shadow import QueueFacts, Shadow

if TYPE_CHECKING:
    from tests.simulation.world import World

ALIVE, DEAD, LEFT = 0, 1, 2
_COUNTS = ", ".join(state.lower() for state in k.STATES)


@dataclass
class Alive:
    """A worker as the log tells of it. Its last sign of life lies between two moments of cluster time."""

    worker_id: int
    name: str
    queues: tuple[str, ...]
    standby: bool
    dead_after_ms: int
    beat_low: int
    beat_high: int
    quiet: bool = False
    status: int = ALIVE


class Shares:
    """Looks at the rows that decide about shares, before and after each entry."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._owners: list[dict[tuple[int, int], int | None]] = [{}, {}]
        self._active: list[frozenset[tuple[str, int]]] = [frozenset(), frozenset()]
        self._paused: list[frozenset[int]] = [frozenset(), frozenset()]
        """Each as it was before the entry, and as it is after it."""
        self._epochs: dict[tuple[int, int], int] = {}

    def look(self, connection: Any) -> None:
        """Read them anew."""
        owners: dict[tuple[int, int], int | None] = {}
        for queue_id, at, worker_id, epoch in connection.execute("SELECT * FROM owners"):
            place = (queue_id, at)
            owners[place] = worker_id
            moved = worker_id != self._owners[1].get(place)
            known = self._epochs.get(place, 0)
            if (epoch <= known) if moved else (epoch != known):
                self._world.problem(f"EPOCH of {place}: {epoch} after {known}, owned by {worker_id}")
            self._epochs[place] = epoch
        active = frozenset(connection.execute("SELECT queue, worker_id FROM worker_queues WHERE active = 1"))
        paused = frozenset(number for (number,) in connection.execute("SELECT queue_id FROM queues WHERE paused = 1"))
        self._owners = [self._owners[1], owners]
        self._active = [self._active[1], active]
        self._paused = [self._paused[1], paused]

    def check_grant(self, shadow: Shadow, queue_id: int, worker_id: int) -> None:
        """A task was handed out, in an entry in which no worker came or went."""
        what = f"{shadow.id} of {shadow.queue}"
        if (shadow.queue, worker_id) not in self._active[0] | self._active[1]:
            self._world.problem(f"IDLER-GRANTED: {what} to worker {worker_id}, a stand-by that is not needed")
        if queue_id in self._paused[0] & self._paused[1]:
            self._world.problem(f"PAUSED: {what} was handed out")
        owners = {owned.get((queue_id, shadow.partition)) for owned in self._owners}
        if shadow.partition >= 0 and worker_id not in owners:
            self._world.problem(f"FOREIGN-PARTITION: {what}/{shadow.partition} to worker {worker_id}, not {owners}")

    def check_standbys(self, connection: Any, workers: dict[int, Alive]) -> None:
        """Who is active: all that are no stand-bys, and so many stand-bys as their queue misses."""
        filled = dict(connection.execute("SELECT worker_id, filled FROM workers ORDER BY worker_id"))
        queues = {queue for worker in workers.values() for queue in worker.queues}
        expected = set()
        for queue in sorted(queues):
            serving = [worker for worker in workers.values() if queue in worker.queues]
            steady = [one.worker_id for one in serving if not one.standby and one.status == ALIVE and not one.quiet]
            missing = sum(not one.standby and one.status == DEAD and not filled[one.worker_id] for one in serving)
            spare = sorted(one.worker_id for one in serving if one.standby and one.status == ALIVE and not one.quiet)
            expected |= {(queue, number) for number in [*steady, *spare[: max(missing, not steady)]]}
        if expected != self._active[1]:
            self._world.problem(f"STANDBY: active are {sorted(self._active[1])}, should be {sorted(expected)}")

    def check_owners(self, queues: dict[int, tuple[str, QueueFacts]]) -> None:
        """Every partition belongs to one active worker, and none has two more than another."""
        for queue_id, (name, facts) in queues.items():
            if not facts.partitions:
                continue
            active = sorted(number for queue, number in self._active[1] if queue == name)
            owners = [self._owners[1].get((queue_id, at)) for at in range(facts.partitions)]
            shares = Counter(owners)
            if set(owners) - set(active) - ({None} if not active else set()):
                self._world.problem(f"OWNERS of {name}: {owners}, active are {active}")
            elif active and max(shares.values()) - min(shares[number] for number in active) > 1:
                self._world.problem(f"SHARES of {name}: {owners}, active are {active}")

    def check_counts(self, connection: Any) -> None:
        """What a queue counts is what it has."""
        counted: dict[int, Counter[int]] = {}
        for queue_id, state, number in connection.execute("SELECT queue_id, state, count(*) FROM tasks GROUP BY 1, 2"):
            counted.setdefault(queue_id, Counter())[state] = number
        for queue_id, name, *counts in connection.execute(f"SELECT queue_id, name, {_COUNTS} FROM queues"):
            found = [counted.get(queue_id, Counter())[number] for number in range(len(k.STATES))]
            if counts != found:
                self._world.problem(f"COUNTS of {name}: {counts}, and there are {found}")
