"""Rows of queues, tasks and workers, written by hand: states that commands would take long to come to."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.queues import Backoff
from tests.machine.rig import START_MS, Rig

NOW_MS = 1_000_000
"""Cluster time of the states made here; the calendar's is ``START_MS``."""


def insert(connection: sqlite3.Connection, table: str, **values: Any) -> None:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))


class Rows:
    """A state whose rows are put in one by one; ids count from 1 in the order of putting."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.connection = self.rig.connection
        self.rig.now_ms = NOW_MS
        self.rig.apply()
        self.connection.execute("UPDATE machine SET next_token = 1000")
        for term, node in ((1, "n1"), (2, "n2")):
            insert(self.connection, "leaders", term=term, node=node, at_ms=START_MS)
        self._ids = dict.fromkeys(("queue", "task", "worker"), 0)

    def _next(self, kind: str) -> int:
        self._ids[kind] += 1
        return self._ids[kind]

    def queue(self, name: str = "q", **values: Any) -> int:
        """A queue; its partitions have no owners unless ``owner`` is called."""
        queue_id = self._next("queue")
        defaults: dict[str, Any] = dict.fromkeys(
            ("deleted", "paused", "sealed", "partitions", "next_partition", "max_depth", "submitted"), 0
        )
        defaults |= dict.fromkeys((status.lower() for status in k.STATES), 0)
        defaults |= {"default_attempts": 3, "max_lost": 5, "keep_finished_ms": limits.KEEP_FINISHED_MS_DEFAULT}
        defaults |= {"backoff": msgspec.json.encode(Backoff()).decode(), "created_ms": START_MS}
        insert(self.connection, "queues", **{"queue_id": queue_id, "name": name, **defaults, **values})
        for partition in range(values.get("partitions", 0)):
            insert(self.connection, "owners", queue_id=queue_id, partition=partition, worker_id=None, epoch=0)
        return queue_id

    def own(self, queue_id: int, partition: int, worker_id: int) -> None:
        self.connection.execute(
            "UPDATE owners SET worker_id = ? WHERE queue_id = ? AND partition = ?", (worker_id, queue_id, partition)
        )

    def task(self, status: k.Status = "QUEUED", queue_id: int = 1, body: str = "{}", **values: Any) -> int:
        """A task, counted in its queue. One that a worker has or had says of which ``worker_id``."""
        ordinal = self._next("task")
        row: dict[str, Any] = {
            "ordinal": ordinal,
            "given_id": f"t{ordinal}",
            "die": 0,
            "queue_id": queue_id,
            "partition": -1,
            "state": k.STATES.index(status),
            "rank": limits.PRIORITY_MAX - limits.PRIORITY_DEFAULT,
            "since_ms": NOW_MS,
            "name": "add",
            "size_bytes": len(body),
            "attempts": 0,
            "max_attempts": 3,
            "lost": 0,
            "max_lost": 5,
            "cancel": 0,
            "leases": 0,
            "created_index": ordinal,
            "created_term": 1,
            "created_ms": START_MS,
        }
        if "worker_id" in values:
            row |= {"leases": 1, "claim": 1, "token": 10 + ordinal, "worker": f"w{values['worker_id']}"}
            row |= {"claimed_index": 100 + ordinal, "claimed_term": 1, "claimed_ms": START_MS + 1}
        if status in k.FINAL:
            row |= {"finished_index": 200 + ordinal, "finished_term": 2, "finished_ms": START_MS + 2}
        insert(self.connection, "tasks", **{**row, **values})
        insert(self.connection, "payloads", ordinal=ordinal, body=body.encode())
        self.connection.execute(
            f"UPDATE queues SET {status.lower()} = {status.lower()} + 1 WHERE queue_id = ?", (queue_id,)
        )
        if status == "PROCESSING":
            self.connection.execute(
                "UPDATE workers SET leases = leases + 1 WHERE worker_id = ?", (values["worker_id"],)
            )
        return ordinal

    def attempt(self, ordinal: int, number: int, outcome: str, error: k.TaskError | None = None, **values: Any) -> None:
        """A lease of worker 1 that has ended."""
        row: dict[str, Any] = {
            "worker_id": 1,
            "worker": "w1",
            "token": 10 * number,
            "state": k.STATES.index("RETRY"),
            "claimed_index": 100 * number,
            "claimed_term": 1,
            "claimed_ms": START_MS + 10 * number,
            "ended_index": 100 * number + 1,
            "ended_term": 2,
            "ended_ms": START_MS + 10 * number + 1,
            "error": None if error is None else msgspec.json.encode(error).decode(),
        }
        insert(self.connection, "attempts", ordinal=ordinal, number=number, outcome=outcome, **{**row, **values})

    def mark(
        self, ordinal: int, number: int, kind: str, status: k.Status, leases: int, index: int, before: k.Status
    ) -> None:
        state, was = k.STATES.index(status), k.STATES.index(before)
        row = {"ordinal": ordinal, "number": number, "kind": kind, "before": was, "state": state, "leases": leases}
        insert(self.connection, "marks", **row, at_index=index, at_term=2, at_ms=START_MS + index)

    def worker(self, *queues: str, handlers: tuple[str, ...] = (), concurrency: int = 2, **values: Any) -> int:
        """A worker, which is active in its queues if it is ALIVE and no stand-by."""
        worker_id = self._next("worker")
        row: dict[str, Any] = dict.fromkeys(
            ("status", "standby", "filled", "quiet", "terminate", "noted_ms", "beats", "leases", "succeeded"), 0
        )
        row |= {"name": f"w{worker_id}", "failed": 0, "lost": 0, "heartbeat_ms": 5_000, "dead_after_ms": 15_000}
        row |= {
            "alarm_ms": NOW_MS + 15_000,
            "beat_ms": NOW_MS - 100,
            "beat_wall_ms": START_MS,
            "registered_ms": START_MS,
        }
        row |= values
        insert(self.connection, "workers", worker_id=worker_id, **row)
        names = queues or ("q",)
        insert(
            self.connection,
            "profiles",
            worker_id=worker_id,
            host="h",
            pid=7,
            version="1",
            queues=msgspec.json.encode(names).decode(),
            concurrency=concurrency,
            handlers=msgspec.json.encode([{"name": name} for name in handlers]).decode(),
        )
        alive = int(row["status"] == 0)
        for position, name in enumerate(names):
            place = {"queue": name, "worker_id": worker_id, "position": position, "standby": row["standby"]}
            if alive or (row["status"] == 1 and not row["standby"]):
                insert(self.connection, "worker_queues", **place, alive=alive, active=alive * (1 - row["standby"]))
        return worker_id

    def plan_of(self, statement: str, *values: Any) -> list[str]:
        """How SQLite goes about a statement, step by step."""
        return [row[3] for row in self.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
