"""The command line of the benchmarks: which workloads, for how long, and how the figures leave."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.cluster import Cluster, file_system, place_for_data
from benchmarks.compare import SYSTEMS, TASK_SYSTEMS, Peers, compare
from benchmarks.profiles import print_profiles, profiled
from benchmarks.workloads import WORKLOADS, Scene

COLUMNS = (
    "workload", "msgs_s", "p50_ms", "p99_ms", "decoded_msgs_s", "consume_msgs_s", "consume_p50_ms", "tasks_s", "submit_s",
    "idle_p50_ms", "idle_p99_ms", "news_p50_ms", "news_p99_ms", "median_s", "min_s", "max_s", "acked", "stored", "others_cpu_cores", "stolen_cores", "client_cores", "server_cores",
    "worker_cores",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments name; the exit code."""
    options = _parser().parse_args(arguments)
    if options.workload == "compare":
        peers = Peers(options.peers, options.peers_python)
        text = compare(options.workloads, peers, options.systems, _bounds(options), place_for_data(options.dir))
        if options.out:
            options.out.write_text(text)
        print(text)
        return 0
    names = list(WORKLOADS) if options.workload == "all" else [options.workload]
    return _run(_measure_all(names, options))


def _bounds(options: argparse.Namespace) -> tuple[float, int | None]:
    return options.secs, options.runs


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is installed, as the load generator of the other systems does."""
    factory = None
    with contextlib.suppress(ImportError):
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


async def _measure_all(names: Sequence[str], options: argparse.Namespace) -> int:
    place = place_for_data(options.dir)
    description = machine.description(file_system(place))
    rows = []
    for name in names:
        with Cluster(place, profile=options.profile) as cluster:
            cluster.start()
            with profiled(cluster.directory if options.profile else None):
                rows.append(report.line(name, await measure(cluster, name, options.secs, options.runs), description))
            if options.profile:
                cluster.stop()
                print_profiles(cluster.directory)
        if options.json:
            print(report.as_json(rows[-1]), flush=True)
    if not options.json:
        versions = ", ".join(f"{name} {version}" for name, version in description["versions"].items())
        print(report.table(rows, COLUMNS))
        print(
            f"\ncommit {description['commit']}, {description['cores']} cores, {description['file_system']}; {versions}"
        )
    return 0


async def measure(cluster: Cluster, name: str, seconds: float, runs: int | None) -> report.Row:
    """Run one workload so many times, each on a fresh topic."""
    workload = WORKLOADS[name]
    count = runs or workload.runs
    rows = []
    for number in range(1 if workload.once else count):
        before = machine.cpu_times()
        pids = cluster.pids
        figures = await workload.run(Scene(cluster, f"{name}-{number}", seconds, count))
        shares = machine.cpu_shares(before, machine.cpu_times(), pids | cluster.pids)
        rows.append(figures | shares)
    return report.merged(rows) | {"runs": count, "secs": seconds}


def _parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:20}{workload.summary}" for name, workload in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures three real nodes on this machine, every message acknowledged after fsync on a majority.",
        epilog=f"workloads:\n{listing}\n\ncompare: see benchmarks/README.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workload", choices=[*WORKLOADS, "all", "compare"], metavar="WORKLOAD | all | compare")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="for compare: which; all by default")
    parser.add_argument("--json", action="store_true", help="one JSON line per workload instead of a table")
    parser.add_argument("--secs", type=float, default=5.0, help="seconds of one run (default 5)")
    parser.add_argument("--runs", type=int, help="runs per workload (default 3), or kills of the leader (default 5)")
    parser.add_argument("--dir", help="where the nodes' data goes for the time being; not on a file system in memory")
    parser.add_argument("--profile", action="store_true", help="show where nodes and client spend their time instead")
    parser.add_argument("--peers", type=Path, help="for compare: the directory of the harness for other systems")
    parser.add_argument("--peers-python", type=Path, help="for compare: the Python that has the harness's clients")
    parser.add_argument(
        "--systems",
        nargs="*",
        help=f"for compare (default {' '.join(SYSTEMS)}; for tasks {' '.join(TASK_SYSTEMS)})",
    )
    parser.add_argument("--out", type=Path, help="for compare: write the table to this file, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
