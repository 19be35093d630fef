"""Overviews to test with: everything at a glance, of whatever a test says."""

from __future__ import annotations

from typing import Any

import msgspec

from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol.system import ClusterInfo

MADE_AT_MS = 1_790_426_400_000


def overview(info: ClusterInfo, **changes: Any) -> o.Overview:
    """What a node of this cluster says, in which nothing happens."""
    totals = o.OverviewTotals(
        counts=q.QueueCounts(),
        queues=0,
        topics=0,
        messages=0,
        workers_alive=0,
        workers_dead=0,
        busy=0,
        slots=0,
        submitted_s=0.0,
        started_s=0.0,
        succeeded_s=0.0,
        failed_attempts_s=0.0,
        failed_s=0.0,
        appended_s=0.0,
    )
    plain: dict[str, Any] = {
        "made_at_ms": MADE_AT_MS,
        "as_of_at_ms": MADE_AT_MS,
        "cluster_ms": 1,
        "cluster": info.name,
        "cluster_id": info.cluster_id,
        "node": info.node,
        "version": "0.1.0",
        "leader": info.leader,
        "term": info.term,
        "sequence": info.sequence,
        "quorum": info.quorum,
        "health": info.health,
        "read_only": None,
        "members": info.members,
        "totals": totals,
        "latency": o.Latency(
            started=0, wait_p50_ms=None, wait_p99_ms=None, succeeded=0, run_p50_ms=None, run_p99_ms=None
        ),
        "queues": [],
        "queues_more": 0,
        "topics": [],
        "topics_more": 0,
        "workers": [],
        "workers_more": 0,
        "alerts": [],
        "alerts_more": 0,
    }
    return o.Overview(**{**plain, **changes})


def queue(name: str, **changes: Any) -> o.OverviewQueue:
    """A queue at a glance."""
    plain: dict[str, Any] = {
        "queue": name,
        "health": "ok",
        "full": False,
        "paused": False,
        "sealed": False,
        "counts": q.QueueCounts(),
        "submitted": 0,
        "workers": 1,
        "busy": 0,
        "slots": 4,
        "oldest_ms": None,
        "submitted_s": 0.0,
        "succeeded_s": 0.0,
        "failed_attempts_s": 0.0,
        "drain_s": None,
        "spark": None,
    }
    return o.OverviewQueue(**{**plain, **changes})


def worker(worker_id: int, name: str, **changes: Any) -> o.OverviewWorker:
    """A worker at a glance, which has beaten every five seconds."""
    plain: dict[str, Any] = {
        "worker_id": worker_id,
        "name": name,
        "host": "web-1",
        "pid": 4121,
        "version": "0.1.0",
        "status": "ALIVE",
        "state": "FREE",
        "quiet": False,
        "standby": False,
        "active": True,
        "queues": ["default"],
        "concurrency": 4,
        "leases": 0,
        "heartbeat_ms": 5_000,
        "dead_after_ms": 15_000,
        "registered_at_ms": MADE_AT_MS - 600_000,
        "heartbeat_at_ms": MADE_AT_MS - 900,
        "ended_at_ms": None,
        "silent_ms": 900,
        "succeeded": 10_412,
        "failed": 17,
        "lost": 0,
        "beats": "2" * 60,
        "running": [],
    }
    return o.OverviewWorker(**{**plain, **changes})


def renewed(seen: o.Overview, **changes: Any) -> o.Overview:
    """The same with changes."""
    return msgspec.structs.replace(seen, **changes)
