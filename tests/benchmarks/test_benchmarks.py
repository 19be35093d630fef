"""The benchmarks run and say what they promise; how fast anything is, is no matter for a test."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import applying, carriers, machine, report
from benchmarks.cli import main, measure
from benchmarks.cluster import MEMORY_FILE_SYSTEMS, Cluster, file_system, place_for_data
from benchmarks.versus import Bounds
from benchmarks.workloads import WORKLOADS
from examples import ROOT
from quorl.client import load
from quorl.cluster.protocol.packing import pack

RATES = {"msgs_s", "p50_ms", "p99_ms"}
SHARES = {"others_cpu_cores", "stolen_cores", "client_cores", "server_cores"}
ABOUT = {"workload", "at", "load1", "commit", "cores", "file_system", "system", "versions", "runs", "secs"}
CYCLE = {"tasks_s", "submit_s", "submit_p50_ms", "submit_p99_ms", "idle_p50_ms", "idle_p99_ms", "idle_n"}
MORE = {
    "task-cycle": CYCLE | {"news_p50_ms", "news_p99_ms", "news_max_ms"},
    "task-cycle-calls": {"tasks_s", "submit_s", "submit_p50_ms", "submit_p99_ms"},
    "task-cycle-acks": {"tasks_s", "submit_s", "submit_p50_ms", "submit_p99_ms"},
    "task-cycle-32": CYCLE,
    "task-cycle-app": CYCLE | {"result_p50_ms", "result_p99_ms", "worker_cores"},
    "read": {"decoded_msgs_s", "consume_msgs_s", "consume_p50_ms", "consume_p99_ms", "stored"},
    "failover": {"median_s", "min_s", "max_s", "gaps_s", "steady_gap_s", "rejoin_gaps_s", "acked", "stored"},
    "memory": {"node_mb", "rss_mb_before", "rss_mb_at_end", "rss_mb_after", "fill_msgs_s", "stored"},
}
FEW = 2_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(place_for_data(None)) as cluster:
        cluster.start()
        yield cluster
    assert not cluster.directory.exists()
    assert not any(node.alive for node in cluster.nodes.values())


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_gives_one_line_with_its_figures(name: str, cluster: Cluster) -> None:
    figures = asyncio.run(measure(cluster, name, Bounds(0.3, 1, FEW)))
    line = report.as_json(report.line(name, figures, machine.description("ext4")))
    assert "\n" not in line
    row: dict[str, Any] = json.loads(line)
    message_rates = name not in {"failover", "memory"} and not name.startswith("task")
    wanted = ABOUT | SHARES | MORE.get(name, set()) | (RATES if message_rates else set())
    assert wanted <= set(row)
    assert row["workload"] == name
    if name == "failover":
        assert (row["missing"], row["doubled"], row["unacked"]) == (0, 0, 0)
        assert row["stored"] == row["acked"] > 0
        assert len(row["gaps_s"]) == 1
    elif name == "memory":
        assert row["stored"] == FEW
        assert 0 < min(row["rss_mb_before"]) <= row["node_mb"]
        assert len(row["rss_mb_before"]) == len(row["rss_mb_at_end"]) == len(row["rss_mb_after"]) == 3
    elif name.startswith("task"):
        assert 0 < row["tasks_s"] <= row["submit_s"]
        assert name in {"task-cycle-calls", "task-cycle-acks"} or 0 < row["idle_p50_ms"] <= row["idle_p99_ms"]
    else:
        assert row["msgs_s"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row.get("stored", FEW) == FEW


def test_the_command_prints_one_json_line_with_medians_and_ranges() -> None:
    command = [sys.executable, "-m", "benchmarks", "append-sync", "--json", "--secs", "0.2", "--runs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    (line,) = done.stdout.splitlines()
    row = json.loads(line)
    assert row["min"]["msgs_s"] <= row["msgs_s"] <= row["max"]["msgs_s"]
    assert row["file_system"] not in MEMORY_FILE_SYSTEMS


def test_the_payload_is_what_the_other_systems_get() -> None:
    assert len(load.payload()) == len(load.payload(10**12 - 1)) == load.PAYLOAD_BYTES == 200
    assert json.loads(load.payload())["type"] == "order.created"
    assert load.number_of(load.payload(4711)) == 4711


def test_payloads_compress_as_lines_of_a_log_do_and_not_to_nothing() -> None:
    for size in (100, 200, 5_000):
        messages = load.Payloads(size).messages()
        assert {len(bytes(one.value)) for one in messages} == {size}
        body = msgspec.json.encode(messages)
        assert 0.15 < len(pack(body)) / len(body) < 0.5
        assert load.Payloads(size).messages() == messages


def test_data_is_never_kept_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.cluster.file_system", lambda _: "tmpfs")
    with pytest.raises(SystemExit, match="real disk"):
        place_for_data(str(tmp_path))
    assert file_system(tmp_path)


def test_the_command_names_the_workloads_that_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["append-snyc"])
    assert "no workload append-snyc; there are append-sync" in capsys.readouterr().err


async def test_the_cost_of_carrying_a_call_is_measured_for_every_carrier() -> None:
    costs = await carriers.measure(calls=64, rounds=1)
    assert set(costs) == {1, 16, 64}
    assert all(set(one) == {"http", "websocket", "channel"} and min(one.values()) > 0 for one in costs.values())


@pytest.mark.parametrize("name", applying.WORKLOADS)
def test_applying_counts_what_it_costs(name: str) -> None:
    ((_, found),) = applying.figures([name], 1, full=False)
    assert found.keys() == {"us", "statements", "calls", "wal_bytes", "telling_us"}
    assert all(number > 0 for number in found.values())
