"""What must hold of tasks after any fault: done once, ended as they had to, and the same at every node.

The cluster's history of each task and the notes of the workers' processes are two witnesses that know nothing of each
other; neither may contradict the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from quorl.client import AsyncClient
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from tests.chaos.task_load import ATTEMPTS, QUEUE, Fleet, Planned, Submitters
from tests.harness import READY_S, LocalCluster, converge, data_dir, until

Notes = Mapping[str, Sequence[Mapping[str, Any]]]
_AT_ONCE = 64


def judge_tasks(cluster: LocalCluster, load: Submitters, fleet: Fleet) -> list[k.TaskInfo]:
    """Compare what the nodes hold with what was acknowledged and what the workers noted. All tasks are finished."""
    sequence = converge(cluster)
    copies = [asyncio.run(read_tasks(node.url, QUEUE)) for node in cluster.nodes.values()]
    first, *others = copies
    assert all(copy == first for copy in others), "the nodes hold different tasks"
    check_ends(first, load.acknowledged, load.refused)
    check_leases(first)
    check_witnesses(first, fleet.notes())
    counts = asyncio.run(_counts(cluster.urls[0]))
    ended = Counter(task.status for task in first)
    assert counts == q.QueueCounts(success=ended["SUCCESS"], failed=ended["FAILED"]), (counts, ended)
    outcomes = Counter(attempt.outcome for task in first for attempt in task.history)
    print(
        f"{len(load.acknowledged)} acknowledged, {len(load.refused)} refused, {load.repeats} repeats, "
        f"{dict(ended)}, runs: {dict(outcomes)}, {sequence} entries"
    )
    return first


async def read_tasks(url: str, queue: str) -> list[k.TaskInfo]:
    """Every task of a queue with its whole history, from one node's own copy."""
    async with AsyncClient(url, timeout_s=READY_S) as client:
        ids: list[str] = []
        cursor = ""
        while True:
            request = k.ListTasks(queue=queue, order="oldest", limit=1_000, cursor=cursor)
            page = await client.call(request, consistency="local")
            ids += [item.id for item in page.items]
            if page.next is None:
                break
            cursor = page.next
        room = asyncio.Semaphore(_AT_ONCE)

        async def read(task_id: str) -> k.TaskInfo:
            async with room:
                return await client.call(k.GetTask(id=task_id), consistency="local")

        return await asyncio.gather(*map(read, ids))


async def _counts(url: str) -> q.QueueCounts:
    async with AsyncClient(url, timeout_s=READY_S) as client:
        return (await client.call(q.GetQueue(queue=QUEUE))).counts


def check_rows(cluster: LocalCluster) -> None:
    """Compare the very rows of the nodes' states. Nobody writes any more, so they come to be equal, or never."""
    digests: list[str] = []

    def same() -> bool:
        digests[:] = [_digest(data_dir(node) / "state.db") for node in cluster.nodes.values()]
        return len(set(digests)) == 1

    until(same, "the rows of all nodes to be the same", why=lambda: str(digests))


def _digest(state: Path) -> str:
    with contextlib.closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as connection:
        connection.execute("BEGIN")
        return content_digest(connection)


def check_ends(tasks: Iterable[k.TaskInfo], acknowledged: Mapping[str, Planned], refused: Iterable[str]) -> None:
    """Every acknowledged task ended as planned, and nothing else is there."""
    found = {task.id: task for task in tasks}
    lost = acknowledged.keys() - found.keys()
    assert not lost, f"acknowledged and lost: {sorted(lost)[:10]}"
    extra = found.keys() - acknowledged.keys()
    assert not extra, f"there, though no client was told so: {sorted(extra)[:10]}"
    assert not found.keys() & set(refused), "there, though a client was told that it was refused"
    for plan in acknowledged.values():
        task = found[plan.id]
        failed = sum(attempt.outcome in {"failed", "timeout"} for attempt in task.history)
        assert failed == len(task.errors), f"{plan.id}: {failed} failures, {len(task.errors)} errors"
        if plan.good:
            assert task.status == "SUCCESS", f"{plan.id} is {task.status}, and had to succeed"
            assert msgspec.json.decode(task.result) == plan.result, f"{plan.id} has a wrong result"
            assert (task.attempts, failed) == (plan.failures + 1, plan.failures), f"{plan.id}: attempts"
        else:
            assert (task.status, task.reason) == ("FAILED", "ERROR"), f"{plan.id} is {task.status}, {task.reason}"
            assert task.attempts == failed == ATTEMPTS, f"{plan.id} is FAILED after {task.attempts} attempts"
            assert bytes(task.result) == b"null", f"{plan.id} is FAILED and has a result"


def check_leases(tasks: Iterable[k.TaskInfo]) -> None:
    """One lease at a time, tokens that grow, at most one completion."""
    tokens: set[int] = set()
    for task in tasks:
        done = [attempt for attempt in task.history if attempt.outcome == "success"]
        assert len(done) == (task.status == "SUCCESS"), f"{task.id} was completed {len(done)} times"
        assert not done or done[0] is task.history[-1], f"{task.id} ran again after its completion"
        assert [attempt.number for attempt in task.history] == list(range(1, len(task.history) + 1)), task.id
        before: k.AttemptInfo | None = None
        for attempt in task.history:
            assert attempt.token not in tokens, f"{task.id}: token {attempt.token} was given twice"
            tokens.add(attempt.token)
            assert attempt.ended_at is not None, f"{task.id} has an attempt without an end"
            if before is not None:
                assert before.token < attempt.token, f"{task.id}: a later lease with a smaller token"
                assert before.ended_at is not None
                assert before.ended_at <= attempt.started_at, f"{task.id}: two leases at the same time"
            before = attempt


ENDS = {"CompleteTask": {"success"}, "FailTask": {"failed"}}


def check_witnesses(tasks: Iterable[k.TaskInfo], notes: Notes) -> None:
    """What the workers saw happened, and only that: no run without a lease, no report accepted that does not count."""
    leases = {(task.id, attempt.token): attempt for task in tasks for attempt in task.history}
    started: set[tuple[str, int]] = set()
    said: dict[tuple[str, int], str] = {}
    accepted: Counter[str] = Counter()
    for name, steps in notes.items():
        for step in steps:
            if "token" not in step:
                continue
            run = (step["task"], step["token"])
            assert run in leases, f"{name} {step['step']} {run}, a lease that never was"
            if step["step"] == "started":
                assert run not in started, f"{run} was started twice"
                started.add(run)
                assert leases[run].worker == name, f"{name} started {run}, a lease of {leases[run].worker}"
            elif step["step"] == "ended":
                said[run] = step["what"]
            elif step["step"] == "accepted":
                outcome = leases[run].outcome
                assert outcome in ENDS[said[run]], f"{run} was accepted as {said[run]}, and its lease is {outcome}"
                accepted[step["task"]] += said[run] == "CompleteTask"
            elif step["step"] == "refused":
                assert leases[run].outcome not in ENDS[said[run]], f"{run} was refused, and counted"
    twice = [task for task, times in accepted.items() if times > 1]
    assert not twice, f"completed twice: {twice[:10]}"
    ran = {run for run, attempt in leases.items() if attempt.outcome in {"success", "failed"}}
    assert ran <= said.keys(), f"ended though nobody ran it: {sorted(ran - said.keys())[:10]}"
