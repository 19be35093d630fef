"""Kill the leader with SIGKILL and measure what that cost: time, acknowledged writes, leases. Nothing is said that was not counted.

Two writers keep a record of what was acknowledged to them, one appending messages, one submitting tasks, from before the kill
until after the next leader has acknowledged writes. Then every node that runs is asked for all of it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from typing_extensions import override

from quorl.client.errors import QuorlError
from quorl.client.local.laptop import DEMO_QUEUE
from quorl.client.local.processes import LocalCluster, NodeFailed, until
from quorl.client.sync import Client

TOPIC = "quorl up: failover"
RUNNING = 3
"""So many tasks run while the leader is killed, if there are workers."""
RUN_S = 2.0
"""Each, so that they outlast an election."""
_BEFORE_S = 0.3
_AFTER_S = 0.3
"""Writers run for so long before the kill and after the first write behind it, so that there is something to count on
both sides."""
_TASK_EVERY_S = 0.01
"""A task is submitted so often."""
_GIVE_UP_S = 30.0
"""Longer than any failover: it is an error then."""


class Outcome(NamedTuple):
    """What a kill has cost. Lost: acknowledged, and not there afterwards at each node that runs."""

    killed: str
    leader: str
    term: int
    elected_s: float
    """From the kill until a node knew the next leader."""
    gap_s: float
    """The longest time between two acknowledgements around the kill."""
    messages: int
    messages_lost: int
    tasks: int
    tasks_lost: int
    leases: int
    leases_kept: int

    @override
    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.leader} leads after {_short(self.elected_s)}, term {self.term} · writes paused for {_short(self.gap_s)}"
            f" · {self.messages_lost} of {self.messages} acknowledged messages lost"
            f" · {self.tasks_lost} of {self.tasks} tasks lost · {self.leases_kept} of {self.leases} leases kept"
        )


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


class _Writer(threading.Thread):
    """Writes one thing after the other, and notes what was acknowledged, and when."""

    def __init__(self, write: Callable[[int], int | str], pause_s: float) -> None:
        super().__init__(daemon=True)
        self._write = write
        self._pause_s = pause_s
        self._enough = threading.Event()
        self.acknowledged: list[int | str] = []
        self.times: list[float] = []
        self.error: QuorlError | None = None

    @override
    def run(self) -> None:
        number = 0
        while not self._enough.is_set():
            try:
                place = self._write(number)
            except QuorlError as error:
                self.error = error
                return
            self.acknowledged.append(place)
            self.times.append(time.monotonic())
            number += 1
            self._enough.wait(self._pause_s)

    def end(self) -> None:
        """Let it finish what it writes."""
        self._enough.set()
        self.join()
        if self.error is not None:
            raise self.error


def kill_leader(cluster: LocalCluster, tell: Callable[[str], None]) -> Outcome:
    """Kill the leader of a cluster of which a majority stays; raises ``QuorlError`` or ``NodeFailed`` if it does not go on.

    ``tell`` is called with its name right before: who leads when this begins may not lead any more by then.
    """
    run = secrets.token_hex(4)
    with Client(cluster.urls, timeout_s=_GIVE_UP_S) as client:
        client.topics.create(TOPIC)
        topic = client.topic(TOPIC)
        leases = _start_tasks(client, run)
        messages = _Writer(lambda number: topic.append(f"{run} {number}").offset, 0)
        tasks = _Writer(
            lambda number: client.tasks.submit("demo.add", [number, 1], queue=DEMO_QUEUE, id=f"up-{run}-{number}").id,
            _TASK_EVERY_S,
        )
        messages.start()
        tasks.start()
        time.sleep(_BEFORE_S)
        killed = cluster.leader()
        tell(killed)
        began_s = time.monotonic()
        cluster[killed].kill()
        leader, term = _next_leader(cluster)
        elected_s = time.monotonic() - began_s
        until(
            lambda: (bool(messages.times) and messages.times[-1] > began_s + elected_s) or not messages.is_alive(),
            "a write",
        )
        time.sleep(_AFTER_S)
        messages.end()
        tasks.end()
        kept = sum(_kept(client, task_id, token) for task_id, token in leases.items())
    return Outcome(
        killed,
        leader,
        term,
        elected_s,
        _gap(messages.times, began_s),
        len(messages.acknowledged),
        _lost(cluster, run, messages.acknowledged),
        len(tasks.acknowledged),
        _lost_tasks(cluster, tasks.acknowledged),
        len(leases),
        kept,
    )


def _next_leader(cluster: LocalCluster) -> tuple[str, int]:
    """Whoever leads now, as soon as one node knows it."""
    found: list[tuple[str, int]] = []

    def known() -> bool:
        for node in cluster.nodes.values():
            seen = node.cluster() if node.alive else None
            if seen and seen["leader"] and cluster[seen["leader"]].alive:
                found.append((seen["leader"], seen["term"]))
                return True
        return False

    until(known, "another leader")
    return found[0]


def _gap(times: list[float], began_s: float) -> float:
    """The longest pause between two acknowledgements of which the later one came after the kill."""
    return max(later - sooner for sooner, later in pairwise(times) if later > began_s)


def _start_tasks(client: Client, run: str) -> dict[str, int]:
    """Tasks that run for a while, each with the token of its lease; none without workers."""
    if not client.workers.list(status="ALIVE", queue=DEMO_QUEUE):
        return {}
    ids = [
        client.tasks.submit("demo.sleep", [RUN_S], queue=DEMO_QUEUE, id=f"up-{run}-run-{number}").id
        for number in range(RUNNING)
    ]
    found: dict[str, int] = {}

    def all_run() -> bool:
        for task_id in ids:
            task = client.tasks.get(task_id)
            if task.status == "PROCESSING":
                found[task_id] = task.history[-1].token
            elif task.status == "FAILED":
                raise NodeFailed(
                    f"a worker on the queue {DEMO_QUEUE} cannot run {task.name}: stop it and press k again"
                )
        return len(found) == len(ids)

    until(all_run, f"{RUNNING} tasks to run")
    return found


def _kept(client: Client, task_id: str, token: int) -> bool:
    """Whether a task came to its end under the lease that it had when the leader died."""
    client.tasks.wait(task_id, timeout_s=_GIVE_UP_S)
    task = client.tasks.get(task_id)
    return task.status == "SUCCESS" and [lease.token for lease in task.history] == [token]


def _lost(cluster: LocalCluster, run: str, offsets: list[int | str]) -> int:
    """How many acknowledged messages are not in their place at some node that runs."""
    lost: set[int] = set()
    for node in cluster.nodes.values():
        if node.alive:
            with Client(node.url, timeout_s=_GIVE_UP_S) as client:
                stored: dict[int, object] = {}
                at = int(offsets[0])
                while page := client.topic(TOPIC).browse(at, limit=1000, consistency="linearizable"):
                    stored |= {found.offset: found.value for found in page}
                    at = page[-1].offset + 1
            lost |= {number for number, offset in enumerate(offsets) if stored.get(int(offset)) != f"{run} {number}"}
    return len(lost)


def _lost_tasks(cluster: LocalCluster, ids: list[int | str]) -> int:
    """How many acknowledged tasks some node that runs knows nothing of."""
    known: list[set[str]] = []
    for node in cluster.nodes.values():
        if node.alive:
            with Client(node.url, timeout_s=_GIVE_UP_S) as client:
                listed = client.tasks.list(name="demo.add", max=len(ids) + 1000, consistency="linearizable")
                known.append({task.id for task in listed})
    return sum(any(task_id not in one for one in known) for task_id in ids)
