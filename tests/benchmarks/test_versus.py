"""Rivals are measured in turn with ours, and judged by the table of targets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import targets, versus
from benchmarks.cli import main
from benchmarks.targets import OURS, TARGETS
from benchmarks.workloads import WORKLOADS

SHARES = ("others_cpu_cores", "stolen_cores", "client_cores", "server_cores")


def harness(tmp_path: Path, *programs: str) -> versus.Peers:
    """A harness with an environment in which these programs lie."""
    (tmp_path / "run.py").touch()
    for program in programs:
        place = tmp_path / "bin" / program
        place.parent.mkdir(exist_ok=True)
        place.touch(mode=0o755)
    return versus.Peers(tmp_path, tmp_path / "bin" / "python")


def answers(monkeypatch: pytest.MonkeyPatch, figures: dict[str, dict[str, Any]]) -> list[str]:
    """Let systems answer with these figures; what ran, in order."""
    ran: list[str] = []

    def run(command: list[str], _settings: dict[str, str]) -> dict[str, Any]:
        system = command[-2] if command[1].endswith("run.py") else OURS
        ran.append(f"{system} {command[-1] if system != OURS else command[3]}")
        return dict.fromkeys(SHARES, 0.5) | figures[system]

    monkeypatch.setattr(versus, "_last_line", run)
    return ran


def test_systems_take_turns_and_the_table_says_what_is_met(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    peers = harness(tmp_path)
    few = {"msgs_s": {"median": 300, "min": 300, "max": 300}}
    ran = answers(monkeypatch, {OURS: {"msgs_s": 900}, "nats": few, "rabbit": {"error": "exit code 1"}})
    turns = versus.measure(["append-64"], peers, ["nats", "rabbit"], versus.Bounds(0.1, 2), tmp_path)
    assert ran == ["quorl append-64", "nats append-64", "rabbit append-64"] * 2
    text = versus.document(turns, tmp_path)
    assert "| append-64 | msgs_s | nats | 900 | 300 | 3.00 x | 1.1 x | 1.5 x | goal |" in text
    assert "exit code 1" in text
    lines = [json.loads(line) for line in versus.lines(turns, tmp_path).splitlines()]
    assert [(line.get("system"), line["workload"]) for line in lines[:3]] == [
        ("quorl", "append-64"),
        ("nats", "append-64"),
        ("rabbit", "append-64"),
    ]
    assert [(line["rival"], line["ratio"], line["met"]) for line in lines[3:]] == [("nats", 3.0, "goal")]


def test_ours_that_do_the_work_of_one_of_theirs_stand_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = {"tasks_s": {"median": 500}, "submit_to_start_p50_ms": {"median": 3.0}}
    quick = {"tasks_s": 2000, "idle_p50_ms": 1.5}
    ran = answers(monkeypatch, {OURS: quick, "nats": quick, "celery": slow})
    names = ["task-cycle", "task-cycle-32", "task-cycle-app"]
    turns = versus.measure(names, harness(tmp_path), ["nats", "celery"], versus.Bounds(0.1, 1), tmp_path)
    assert ran == [*(f"quorl {name}" for name in names), "nats task-cycle", "celery task-cycle"]
    verdicts = {(row["workload"], row["rival"], row["figure"]): row["met"] for row in judged(turns)}
    assert verdicts == {
        ("task-cycle", "nats", "tasks_s"): "must",
        ("task-cycle-32", "nats", "tasks_s"): "missed",
        ("task-cycle-app", "celery", "tasks_s"): "missed",
        ("task-cycle", "nats", "idle_p50_ms"): "goal",
    }
    assert "| celery | task-cycle | 500 | 3 |" in versus.document(turns, tmp_path)


def judged(turns: list[versus.Turn]) -> list[dict[str, Any]]:
    rows = versus.merged(turns)
    return [targets.judged(target, rows) for target in TARGETS if (OURS, target.workload) in rows]


@pytest.mark.parametrize(
    ("ours", "theirs", "met"),
    [(0.25, 0.5, "goal"), (0.4, 0.5, "must"), (0.6, 0.5, "missed"), (0.2, None, "not measured")],
)
def test_a_gap_is_better_when_it_is_short(ours: float, theirs: float | None, met: str) -> None:
    (target,) = (target for target in TARGETS if target.workload == "failover")
    measured: targets.Measured = {(OURS, "failover"): {"median_s": ours}, ("rabbit", "failover"): {"median_s": theirs}}
    assert targets.judged(target, measured)["met"] == met


@pytest.mark.parametrize(("node_mb", "met"), [(99.0, "goal"), (150.0, "must"), (151.0, "missed")])
def test_memory_is_bounded_without_a_rival(node_mb: float, met: str) -> None:
    (target,) = (target for target in TARGETS if target.workload == "memory")
    assert targets.judged(target, {(OURS, "memory"): {"node_mb": node_mb}})["met"] == met


def test_every_target_is_measured_when_nothing_is_named() -> None:
    pairs = [pair for _, theirs in versus.plan([], list(versus.PROGRAMS)) for pair in theirs]
    assert set(pairs) == {(target.rival, target.beside) for target in TARGETS if target.rival}
    assert {name for ours, _ in versus.plan([], []) for name in ours} == {target.workload for target in TARGETS}
    assert {target.workload for target in TARGETS} <= set(WORKLOADS)
    assert all(workload in versus.CAN[rival] for rival, workload in pairs)


def test_rivals_that_are_not_installed_are_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = harness(tmp_path, "celery", "etcd")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(versus.PROGRAMS, "nats", ("no-such-server",))
    assert versus.rivals("nats, etcd", peers) == ["etcd"]
    assert "nats is left out: no-such-server must be installed" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no kafka"):
        versus.rivals("kafka", peers)


def test_the_harness_is_named_by_option_or_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QUORL_PEERS", raising=False)
    with pytest.raises(SystemExit, match="QUORL_PEERS"):
        main(["append-sync", "--vs", "nats"])
    (tmp_path / "run.py").touch()
    monkeypatch.setenv("QUORL_PEERS", str(tmp_path))
    assert versus.find_peers(None, Path("python")) == versus.Peers(tmp_path.resolve(), Path("python"))


def test_a_harness_is_run_and_its_last_line_is_read(tmp_path: Path) -> None:
    said = "import json, os, sys; print('noise'); print(json.dumps({'msgs_s': {'median': 7}, 'of': sys.argv[1:], 'n': os.environ['PEERS_SECS']}))"
    (tmp_path / "run.py").write_text(said)
    command = versus.Peers(tmp_path, Path(sys.executable)).command("nats", "append-64")
    assert versus._theirs(command, 0.5, tmp_path) == {"msgs_s": 7, "of": ["nats", "append-64"], "n": "0.5"}
    (tmp_path / "run.py").write_text("raise SystemExit(3)")
    assert versus._theirs(command, 0.5, tmp_path) == {"error": "exit code 3"}
