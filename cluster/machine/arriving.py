"""Handing out tasks in the entry in which they come, so that their rows are written once, as they are then.

Where workers wait, all of a queue that is QUEUED mostly came in the same entry. Then nothing is to be read to know which
goes first, and a row that was never seen as QUEUED need not be written so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from quorl.cluster.machine.books import Coming, Queue, Worker
from quorl.cluster.machine.moves import QUEUED
from quorl.cluster.machine.state import State

_KINDS_MAX = 8
"""Each claim looks through all kinds of tasks that came in its entry, which takes it some 0.3 µs for each: with as many kinds as
there may be submits, and as many claims behind them, an entry would take half a second. With fewer, tasks that came for
several queues, or with several priorities, would more often be written twice: once as QUEUED, and as they are then."""

Ready: TypeAlias = tuple[int, int, str | None, int, int, int | None, int | None, int, int, int]
"""Of a task that can be handed out: rank, ordinal, given_id, attempts, size_bytes (of what is handed out), timeout_ms, expiry_ms,
since_ms, created_ms, die."""
Came: TypeAlias = list[tuple[Coming, list[int]]]
"""What some share, then ordinal and size of each, as in ``State.coming``, in the order in which they go."""


def all_queued(state: State, queue: Queue) -> Came:
    """The tasks of a queue that came in this entry and wait for their rows, if no others of it are QUEUED and their order is plain.

    Otherwise, and where telling it would take long: none.
    """
    if not state.coming or len(state.coming) > _KINDS_MAX:
        return []
    came = [one for one in state.coming if one[1] and one[0].queue_id == queue.queue_id and one[0].state == QUEUED]
    if not came or sum([len(tasks) for _, tasks in came]) != 2 * queue.counts[QUEUED]:
        return []
    first = came[0][0]
    plain = all(said.rank == first.rank and said.partition == -1 for said, _ in came)
    return came if plain else []


def ready(came: Came) -> Iterator[Ready]:
    """What may be handed out of them, in order. One that may expire does not do so in the entry in which it comes."""
    for said, tasks in came:
        given_id, timeout_ms = said.given_id or None, said.timeout_ms or None
        for place in range(0, len(tasks), 2):
            whose = said.rank, tasks[place], given_id, 0, tasks[place + 1]
            yield (*whose, timeout_ms, None, said.since_ms, said.created_ms, said.die)


def hand_out(state: State, came: Came, count: int, number: int, worker: Worker) -> None:
    """Lease the first so many to a worker, by the claim of that number; tokens are counted from the header's next one."""
    token, lease = state.header.next_token, (number, worker.worker_id, worker.name)
    for said, tasks in came:
        if not count:
            break
        end = 2 * min(count, len(tasks) // 2)
        if not state.handed or state.handed[-1][0] is not said:
            state.handed.append((said, []))
        handed = state.handed[-1][1]
        for place in range(0, end, 2):
            handed += (tasks[place], tasks[place + 1], token, *lease)
            token += 1
            count -= 1
        del tasks[:end]
