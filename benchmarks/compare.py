"""quorl and other systems in turn, on identical work in the same quarter of an hour, and the ratios between them.

The others are measured by a harness that lives outside this repository: a directory with a ``run.py`` that takes a system
and a workload and prints one JSON line, as ``README.md`` describes. Systems take turns within each round, so that a machine
whose speed drifts is unfair to nobody.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, report
from benchmarks.cluster import file_system
from examples import ROOT

SYSTEMS = ("nats", "rabbit")
TASK_SYSTEMS = ("nats", "celery")
"""For workloads about tasks, unless others are asked for."""
OURS = "quorl"
DEFAULT = ("append-sync", "append-64", "append-batch", "read", "failover")
KNOWN = frozenset({*DEFAULT, "task-cycle"})
"""What the harness can measure."""
_RUN_WAIT_S = 900.0
_NAMES = {"submit_to_start_p50_ms": "idle_p50_ms", "submit_to_start_p99_ms": "idle_p99_ms"}
"""Frameworks say these of a handler in their worker's process, servers of one in the client's."""
_SHARES = ("others_cpu_cores", "stolen_cores", "client_cores", "server_cores")


class Peers(NamedTuple):
    """Where the harness of the other systems is."""

    directory: Path | None
    python: Path | None

    def command(self, system: str, workload: str) -> list[str]:
        """The command that measures one of them."""
        assert self.directory is not None
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        venv = Path(os.environ.get("PEERS_VENV") or Path(home) / "quorl-peers")
        return [str(self.python or venv / "bin" / "python"), str(self.directory / "run.py"), system, workload]


class Turn(NamedTuple):
    """One system's figures of one workload in one round."""

    system: str
    workload: str
    figures: dict[str, Any]


def compare(
    workloads: Sequence[str], peers: Peers, systems: Sequence[str] | None, bounds: tuple[float, int | None], place: Path
) -> str:
    """Measure and return the tables as Markdown. Without ``systems``, beside those that are usual for a workload."""
    if peers.directory is None or not (peers.directory / "run.py").exists():
        raise SystemExit("compare needs --peers DIRECTORY with the harness of the other systems: benchmarks/README.md")
    seconds, runs = bounds
    turns: list[Turn] = []
    for workload in workloads or DEFAULT:
        once = workload == "failover"
        for number in range(1 if once else runs or 3):
            for system in (OURS, *(usual(workload) if systems is None else systems)):
                print(f"{workload}, round {number + 1}: {system}", file=sys.stderr, flush=True)
                count = (runs or 5) if once else 1
                if system == OURS:
                    figures = _ours(workload, seconds, count, place)
                elif workload in KNOWN:
                    figures = _theirs(peers.command(system, workload), seconds, place)
                else:
                    continue
                turns.append(Turn(system, workload, figures))
    return _document(turns, place)


def usual(workload: str) -> Sequence[str]:
    """The systems that a workload is measured beside."""
    return TASK_SYSTEMS if workload.startswith("task") else SYSTEMS


def _ours(workload: str, seconds: float, count: int, place: Path) -> dict[str, Any]:
    own = [sys.executable, "-m", "benchmarks", workload, "--json", "--dir", str(place)]
    return _last_line([*own, "--secs", str(seconds), "--runs", str(count)], {})


def _theirs(command: list[str], seconds: float, place: Path) -> dict[str, Any]:
    settings = {"PEERS_SECS": f"{seconds:g}", "PEERS_RUNS": "1", "PEERS_TMP": str(place)}
    found = _last_line(command, settings)
    # Of one run the harness gives median, min and max, which are the same.
    flat = {name: value["median"] if isinstance(value, dict) else value for name, value in found.items()}
    return {_NAMES.get(name, name): value for name, value in flat.items()}


def _last_line(command: list[str], settings: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_RUN_WAIT_S,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"error": f"exit code {done.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


# -- tables --------------------------------------------------------------------------------------------------------
def _document(turns: Sequence[Turn], place: Path) -> str:
    about = machine.description(file_system(place))
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    parts = [
        f"Commit {about['commit']}; {about['cores']} cores; {about['file_system']}; {about['system']}; {versions}."
    ]
    for workload in dict.fromkeys(turn.workload for turn in turns):
        rows = _rows([turn for turn in turns if turn.workload == workload])
        parts.append(f"### {workload}\n\n{report.table(rows, _columns(rows))}")
    return "\n\n".join(parts) + "\n"


def _rows(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    rows = []
    for system in dict.fromkeys(turn.system for turn in turns):
        every = [turn.figures for turn in turns if turn.system == system]
        sound = [one for one in every if "error" not in one]
        row: dict[str, Any] = {"system": system}
        if len(sound) < len(every):
            row["error"] = next(one["error"] for one in every if "error" in one)
        if sound:
            wanted = [name for name in sound[0] if name.endswith(("_s", "_ms", "_cores"))]
            row |= report.merged([{name: one[name] for name in (*wanted, *_counts(one))} for one in sound])
        rows.append(row)
    _add_ratios(rows)
    return rows


def _counts(figures: dict[str, Any]) -> Iterable[str]:
    return (name for name in ("acked", "stored") if figures.get(name) is not None and "gaps_s" in figures)


def _add_ratios(rows: list[dict[str, Any]]) -> None:
    """How many times as fast ours is: by the best rate of each system, or by the gap for a failover."""
    ours = _score(rows[0])
    for row in rows[1:]:
        theirs = _score(row)
        if ours and theirs:
            row["quorl is"] = f"{ours / theirs:.2f} x"


def _score(row: dict[str, Any]) -> float:
    if row.get("median_s"):
        return float(1 / row["median_s"])
    rates = [
        value for name, value in row.items() if name.endswith(("msgs_s", "tasks_s")) and isinstance(value, int | float)
    ]
    return max(rates, default=0.0)


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    first = [name for name in ("system", "quorl is") if name in names]
    last = [name for name in (*_SHARES, "error") if name in names]
    inner = [name for name in names if name not in {*first, *last, "min", "max"}]
    return [*first, *inner, *last]
