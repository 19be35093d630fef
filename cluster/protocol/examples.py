"""One example of every call: what the OpenAPI document, the page made from it and its ``curl`` lines show.

A test decodes every one of them, so that none can be wrong.
"""

from __future__ import annotations

from typing import Any

IN_PATH: dict[str, Any] = {
    "topic": "invoices",
    "queue": "default",
    "id": "order-7",
    "consumer_id": 1,
    "worker_id": 1,
    "partition": 0,
    "offset": 0,
    "code": "no_leader",
}
"""By the name of the placeholder."""

IN_QUERY: dict[str, dict[str, Any]] = {
    "founding_consume": {"topic": "invoices", "consumer_id": 1},
    "founding_size": {"topic": "invoices"},
}
"""Parameters that a call cannot do without, by the name of the operation."""

BODIES: dict[str, dict[str, Any]] = {
    "change_tasks": {"action": "retry", "queue": "default", "dry_run": True},
    "create_topic": {"name": "invoices"},
    "register_producer": {"name": "shop"},
    "register_consumer": {"name": "billing", "start": "earliest"},
    "append_all": {
        "appends": [
            {"topic": "invoices", "messages": [{"value": {"id": 1}}]},
            {"topic": "app-log", "messages": [{"value": "second line"}]},
        ]
    },
    "append": {"messages": [{"value": {"id": 1}, "key": "customer 7"}, {"value": {"id": 2}}]},
    "consume": {"max": 10, "wait": 5},
    "put_queue": {"default_attempts": 5, "backoff": {"kind": "exponential", "first_ms": 1000}},
    "patch_queue": {"paused": True},
    "purge_queue": {"states": ["QUEUED"], "dry_run": True},
    "submit": {"id": "order-7", "name": "shop.add", "args": [4, 5]},
    "complete_task": {"lease": 17, "result": 9},
    "fail_task": {"lease": 17, "error": {"type": "ValueError", "message": "no such customer"}},
    "release_task": {"lease": 17},
    "hold_task": {"lease": 17, "progress": 50, "note": "half of it"},
    "register_worker": {"name": "worker-1", "queues": ["default"], "concurrency": 4},
    "sync": {"beat": {"tokens": [17]}, "complete": [{"task_id": "order-7", "lease": 17, "result": 9}]},
    "claim": {"worker_id": 1, "queues": ["default"], "max": 1, "wait": 5},
    "claim_many": {"claims": [{"worker_id": 1}, {"worker_id": 2, "max": 2}], "wait": 5},
    "report": {"complete": [{"task_id": "order-7", "lease": 17, "result": 9}]},
    "founding_create": {"name": "invoices"},
    "founding_producer": {"topic": "invoices"},
    "founding_consumer": {"topic": "invoices"},
    "founding_produce": {"topic": "invoices", "producer_id": 1, "message": "the text"},
}
"""By the name of the operation; one that is not here can do without a body."""
