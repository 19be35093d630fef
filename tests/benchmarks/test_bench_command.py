"""``quorl bench`` at real nodes: every command counts what it did and leaves nothing behind; no timing is asserted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.cluster import Cluster, place_for_data
from quorl.client import Client
from quorl.client.cli import cli
from quorl.client.measures import PREFIX


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(place_for_data(None)) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def bench(cluster: Cluster) -> Iterator[Any]:
    def run(*words: str) -> Result:
        result: Result = CliRunner().invoke(
            cli, ["bench", *words, "--server", ",".join(cluster.urls), "--timeout", "30"]
        )
        return result

    yield run
    with Client(cluster.urls, timeout_s=30) as client:
        assert client.topics.list(prefix=PREFIX, consistency="linearizable") == []
        assert client.queues.list(prefix=PREFIX, consistency="linearizable") == []
        assert client.tasks.list(name="bench", max=1, consistency="linearizable") == []
        assert client.workers.list(status="ALIVE", consistency="linearizable") == []


def figures(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("batch", [1, 10])
def test_produce(bench: Any, batch: int) -> None:
    found = figures(bench("produce", "--for", "200ms", "--loops", "4", "--batch", str(batch), "--json"))
    assert found["stored"] == found["appended"] > 0
    assert found["stored"] % batch == 0
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]


def test_consume(bench: Any) -> None:
    found = figures(bench("consume", "-n", "1234", "--batch", "100", "--json"))
    assert found["received"] == found["stored"] == 1234


@pytest.mark.parametrize("batch", [1, 8])
def test_tasks(bench: Any, batch: int) -> None:
    words = ("--for", "200ms", "--loops", "2", "--workers", "3", "--batch", str(batch))
    found = figures(bench("tasks", *words, "--json"))
    assert found["completed"] == found["succeeded"] > 0
    assert found["tasks_s"] <= found["submit_s"]


def test_latency(bench: Any) -> None:
    found = figures(bench("latency", "--for", "200ms", "--json"))
    assert list(found) == ["append", "read, local", "read, linearizable", "submit to start"]
    assert all(row["count"] > 0 and row["p50_ms"] <= row["max_ms"] for row in found.values())


def test_failover_of_a_lead_that_is_handed_over(bench: Any) -> None:
    found = figures(bench("failover", "--transfer", "--json", "--quiet"))
    assert found["from"] != found["to"]
    assert (found["missing"], found["doubled"], found["unacked"]) == (0, 0, 0)
    assert found["stored"] == found["acked"] > 0


def test_failover_that_nobody_brings_about(bench: Any) -> None:
    result = bench("failover", "--max-wait", "300ms")
    assert result.exit_code == 6
    assert "leads: kill its process now (kill -9)" in result.stderr
    assert "the lead did not change in " in result.stderr


def test_a_table_for_people(bench: Any) -> None:
    head, row = bench("produce", "--for", "100ms", "--loops", "1").stdout.splitlines()
    assert head.split()[:3] == ["MEASURED", "MSGS", "S"]
    assert row.startswith("produce")
    assert bench("produce", "--batch", "1000", "--size", "10000").exit_code == 2
