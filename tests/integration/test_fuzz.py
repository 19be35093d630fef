"""The API of a real node under schemathesis, bounded and seeded; ``make fuzz`` goes on for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorl.cluster.protocol import openapi
from quorl.cluster.protocol.pages import STREAMS
from tests.api.fuzz import fuzz

ROUTES = {
    f"{method.upper()} {path}"
    for path, item in openapi.document("1.2.3")["paths"].items()
    for method in item
    if path not in {page.path for page in STREAMS}
}
"""Every route of the document but those that do not end."""

OF_A_LEASE_OR_A_MOMENT = {
    "POST /v1/claims",
    "POST /v1/tasks/{id}/complete",
    "POST /v1/tasks/{id}/fail",
    "POST /v1/tasks/{id}/heartbeat",
    "POST /v1/tasks/{id}/release",
    "DELETE /v1/tasks/{id}",
    "DELETE /v1/queues/{queue}",
    "POST /v1/workers/{worker_id}/quiet",
    "POST /v1/workers/{worker_id}/terminate",
    "POST /v1/cluster/leader-transfers",
}
"""What is refused unless a worker is alive, its lease is meant, a task still waits, a queue is empty, or another member is there: generated calls
have these by luck at most."""


@pytest.mark.slow
@pytest.mark.timeout(900)  # thousands of calls: a guard against hanging, and no limit of theirs
def test_no_5xx_and_no_answer_that_the_openapi_document_does_not_know(tmp_path: Path) -> None:
    fuzzed = fuzz(tmp_path, seed=1, examples=3, seconds=None)
    assert fuzzed.returncode == 0, fuzzed.output[-20_000:]

    # Every route was called, eight times at least (seven are by methods that it has not), and took a call unless that needs luck.
    assert set(fuzzed.answers) == ROUTES
    assert all(sum(statuses.values()) >= 8 for statuses in fuzzed.answers.values()), fuzzed.answers
    assert sum(sum(statuses.values()) for statuses in fuzzed.answers.values()) >= 4000
    taken = {route for route, statuses in fuzzed.answers.items() if any(int(status) < 300 for status in statuses)}
    assert taken >= ROUTES - OF_A_LEASE_OR_A_MOMENT
