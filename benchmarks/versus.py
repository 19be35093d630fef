"""quorl and its rivals in turn, on equal work in the same minutes and on the same disk, and the ratios between them.

Rivals are measured by a harness that lives outside this repository: a directory with a ``run.py`` that takes a system
and a workload and prints one JSON line, as ``README.md`` describes. Systems take turns within each round, so that a machine
whose speed drifts is unfair to nobody.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, report, targets
from benchmarks.cluster import file_system
from benchmarks.targets import OURS, TARGETS
from examples import ROOT

RUNS = 5
PROGRAMS = {
    "nats": ("nats-server",),
    "rabbit": ("rabbitmq-server",),
    "etcd": ("etcd",),
    "redis": ("redis-server",),
    "celery": ("celery", "redis-server"),
}
"""The rivals, and the programs without which each cannot run."""
_APPENDS = frozenset({"append-sync", "append-64", "append-batch", "read"})
CAN = {
    "nats": _APPENDS | {"task-cycle", "failover"},
    "rabbit": _APPENDS | {"task-cycle", "failover"},
    "etcd": _APPENDS,
    "redis": _APPENDS | {"task-cycle"},
    "celery": frozenset({"task-cycle"}),
}
"""The workloads of the harness that each can do."""
_BESIDE = {
    "append-64-http": "append-64",
    "append-64-follower": "append-64",
    "task-cycle-acks": "task-cycle",
    "task-cycle-32": "task-cycle",
    "task-cycle-app": "task-cycle",
}
"""Ours that do the same work as one of the harness under another name."""
ONCE = frozenset({"failover", "memory"})
"""Those that run once and repeat inside."""
_RUN_WAIT_S = 900.0
_NAMES = {"submit_to_start_p50_ms": "idle_p50_ms", "submit_to_start_p99_ms": "idle_p99_ms"}
"""Frameworks say these of a handler in their worker's process, servers of one in the client's."""
_SHARES = ("others_cpu_cores", "stolen_cores", "client_cores", "server_cores")


class Peers(NamedTuple):
    """Where the harness of the rivals is."""

    directory: Path
    python: Path

    def command(self, system: str, workload: str) -> list[str]:
        """The command that measures one of them."""
        return [str(self.python), str(self.directory / "run.py"), system, workload]

    def installed(self, system: str) -> bool:
        """Whether its programs are here; servers may lie where only root looks, clients beside the Python."""
        places = os.pathsep.join((str(self.python.parent), os.environ.get("PATH", os.defpath), "/usr/sbin"))
        return all(shutil.which(program, path=places) for program in PROGRAMS[system])


class Turn(NamedTuple):
    """One system's figures of one workload in one round."""

    system: str
    workload: str
    figures: dict[str, Any]


class Bounds(NamedTuple):
    """How much is measured."""

    seconds: float
    runs: int | None
    messages: int | None = None


def find_peers(directory: Path | None, python: Path | None) -> Peers:
    """The harness that was named by option or environment."""
    named = directory or (Path(os.environ["QUORL_PEERS"]) if os.environ.get("QUORL_PEERS") else None)
    if named is None or not (named / "run.py").exists():
        raise SystemExit(
            "--vs needs the harness of the rivals: --peers DIRECTORY or QUORL_PEERS, a directory with a run.py; see benchmarks/README.md"
        )
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    venv = Path(os.environ.get("PEERS_VENV") or home / "quorl-peers")
    return Peers(named.resolve(), python or venv / "bin" / "python")


def rivals(said: str, peers: Peers) -> list[str]:
    """The rivals of a list with commas that are installed; the others are told on stderr."""
    names = [name.strip() for name in said.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PROGRAMS]:
        raise SystemExit(f"--vs knows {', '.join(PROGRAMS)}, and no {', '.join(unknown)}")
    for name in names:
        if not peers.installed(name):
            print(f"{name} is left out: {' and '.join(PROGRAMS[name])} must be installed", file=sys.stderr)
    return [name for name in names if peers.installed(name)]


def plan(workloads: Sequence[str], systems: Sequence[str]) -> Iterator[tuple[list[str], list[tuple[str, str]]]]:
    """Yield what takes turns: our workloads, and the systems with theirs. Without workloads, the pairs of the targets."""
    named = list(workloads) or list(dict.fromkeys(target.workload for target in TARGETS))
    wanted = {(target.rival, target.beside) for target in TARGETS}
    for theirs in dict.fromkeys(_BESIDE.get(name, name) for name in named):
        ours = [name for name in named if _BESIDE.get(name, name) == theirs]
        beside = [name for name in systems if theirs in CAN[name] and (workloads or (name, theirs) in wanted)]
        yield ours, [(name, theirs) for name in beside]


def measure(workloads: Sequence[str], peers: Peers, systems: Sequence[str], bounds: Bounds, place: Path) -> list[Turn]:
    """Measure all of it, in turn, round by round."""
    turns: list[Turn] = []
    for ours, theirs in plan(workloads, systems):
        once = bool(ONCE.intersection(ours))
        count = bounds.runs or RUNS
        for number in range(1 if once else count):
            for system, workload in [*((OURS, name) for name in ours), *theirs]:
                print(f"{workload}, round {number + 1}: {system}", file=sys.stderr, flush=True)
                if system == OURS:
                    figures = _ours(workload, bounds, count if once else 1, place)
                else:
                    figures = _theirs(peers.command(system, workload), bounds.seconds, place)
                turns.append(Turn(system, workload, figures))
    return turns


def _ours(workload: str, bounds: Bounds, count: int, place: Path) -> dict[str, Any]:
    own = [sys.executable, "-m", "benchmarks", workload, "--json", "--dir", str(place), "--secs", str(bounds.seconds)]
    more = [] if bounds.messages is None else ["--messages", str(bounds.messages)]
    return _last_line([*own, "--runs", str(count), *more], {})


def _theirs(command: list[str], seconds: float, place: Path) -> dict[str, Any]:
    settings = {"PEERS_SECS": f"{seconds:g}", "PEERS_RUNS": "1", "PEERS_TMP": str(place)}
    found = _last_line(command, settings)
    # Of one run the harness gives median, min and max, which are the same.
    flat = {name: value["median"] if isinstance(value, dict) else value for name, value in found.items()}
    return {_NAMES.get(name, name): value for name, value in flat.items()}


def _last_line(command: list[str], settings: dict[str, str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_RUN_WAIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {_RUN_WAIT_S:g} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"error": f"exit code {done.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


# -- what is printed -----------------------------------------------------------------------------------------------
def merged(turns: Sequence[Turn]) -> dict[tuple[str, str], report.Row]:
    """The rounds of each system and workload made into one row of medians."""
    rows: dict[tuple[str, str], report.Row] = {}
    for key in dict.fromkeys((turn.system, turn.workload) for turn in turns):
        every = [turn.figures for turn in turns if (turn.system, turn.workload) == key]
        sound = [one for one in every if "error" not in one]
        rows[key] = {"system": key[0], "workload": key[1]}
        if len(sound) < len(every):
            rows[key]["error"] = next(one["error"] for one in every if "error" in one)
        if sound:
            wanted = [name for name in sound[0] if name.endswith(("_s", "_ms", "_mb", "_cores")) or name in _COUNTS]
            rows[key] |= report.merged([{name: one.get(name) for name in wanted} for one in sound])
    return rows


_COUNTS = frozenset({"acked", "stored"})


def lines(turns: Sequence[Turn], place: Path) -> str:
    """One JSON line for each system and workload, then one for each target of what was measured."""
    rows = merged(turns)
    about = machine.description(file_system(place))
    judged = [{"target": True, **targets.judged(target, rows)} for target in _touched(rows)]
    return "\n".join(report.as_json(row) for row in [*(about | row for row in rows.values()), *judged])


def document(turns: Sequence[Turn], place: Path) -> str:
    """The table of the targets and a table for each workload, as Markdown."""
    about = machine.description(file_system(place))
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    parts = [
        f"Commit {about['commit']}; {about['cores']} cores; {about['file_system']}; {about['system']}; {versions}."
    ]
    rows = merged(turns)
    if touched := _touched(rows):
        parts.append(targets.table(touched, rows))
    for theirs in dict.fromkeys(_BESIDE.get(workload, workload) for _, workload in rows):
        block = [row for (_, workload), row in rows.items() if _BESIDE.get(workload, workload) == theirs]
        parts.append(f"### {theirs}\n\n{report.table(block, _columns(block))}")
    return "\n\n".join(parts) + "\n"


def _touched(rows: dict[tuple[str, str], report.Row]) -> list[targets.Target]:
    ours = {workload for system, workload in rows if system == OURS}
    return [target for target in TARGETS if target.workload in ours]


def _columns(rows: Sequence[report.Row]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    last = [name for name in (*_SHARES, "error") if name in names]
    return [*(name for name in names if name not in {*last, "min", "max"}), *last]
