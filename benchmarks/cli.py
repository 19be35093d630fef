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

from benchmarks import machine, report, versus
from benchmarks.cluster import Cluster, file_system, place_for_data
from benchmarks.profiles import print_profiles, profiled
from benchmarks.workloads import REMEMBERED, WORKLOADS, Scene

COLUMNS = (
    "workload", "msgs_s", "p50_ms", "p99_ms", "decoded_msgs_s", "consume_msgs_s", "consume_p50_ms", "tasks_s", "submit_s",
    "idle_p50_ms", "idle_p99_ms", "news_p50_ms", "news_p99_ms", "median_s", "min_s", "max_s", "acked", "stored", "node_mb", "fill_msgs_s", "others_cpu_cores", "stolen_cores", "client_cores", "server_cores",
    "worker_cores",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments name; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["scaling"]:
        from benchmarks import scaling

        return scaling.main(given[1:])
    parser = _parser()
    options = parser.parse_args(given)
    if unknown := [name for name in options.workloads if name not in WORKLOADS]:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    if options.vs is not None:
        return _beside_rivals(options)
    return run(_measure_all(options.workloads or list(WORKLOADS), options))


def _beside_rivals(options: argparse.Namespace) -> int:
    peers = versus.find_peers(options.peers, options.peers_python)
    systems = versus.rivals(options.vs, peers)
    bounds = versus.Bounds(options.secs, options.runs, options.messages)
    place = place_for_data(options.dir)
    turns = versus.measure(options.workloads, peers, systems, bounds, place)
    text = versus.lines(turns, place) if options.json else versus.document(turns, place)
    if options.out:
        options.out.write_text(text)
    print(text)
    return int(any("error" in turn.figures for turn in turns))


def run(work: Coroutine[Any, Any, int]) -> int:
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
                rows.append(report.line(name, await measure(cluster, name, _bounds(options)), description))
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


def _bounds(options: argparse.Namespace) -> versus.Bounds:
    return versus.Bounds(options.secs, options.runs, options.messages)


async def measure(cluster: Cluster, name: str, bounds: versus.Bounds) -> report.Row:
    """Run one workload so many times, each on a fresh topic."""
    workload = WORKLOADS[name]
    count = bounds.runs or workload.runs
    messages = REMEMBERED if bounds.messages is None else bounds.messages
    rows = []
    for number in range(1 if workload.once else count):
        before = machine.cpu_times()
        pids = cluster.pids
        figures = await workload.run(Scene(cluster, f"{name}-{number}", bounds.seconds, count, messages))
        shares = machine.cpu_shares(before, machine.cpu_times(), pids | cluster.pids)
        rows.append(figures | shares)
    return report.merged(rows) | {"runs": count, "secs": bounds.seconds}


def _parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:20}{workload.summary}" for name, workload in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures three real nodes on this machine, every message acknowledged after fsync on a majority.",
        epilog=f"workloads:\n{listing}\n\n`python -m benchmarks scaling --help`: how costs grow along one axis at a time",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="all by default")
    parser.add_argument("--json", action="store_true", help="one JSON line per workload instead of a table")
    parser.add_argument("--secs", type=float, default=5.0, help="seconds of one run (default 5)")
    parser.add_argument(
        "--runs", type=int, help="runs per workload (default 3, with --vs 5), or kills of the leader (5)"
    )
    parser.add_argument("--messages", type=int, help="what `memory` stores (default 1 000 000), and `read` at most")
    parser.add_argument("--dir", help="where the nodes' data goes for the time being; not on a file system in memory")
    parser.add_argument("--profile", action="store_true", help="show where nodes and client spend their time instead")
    parser.add_argument("--vs", metavar="RIVAL,…", help=f"in turn with rivals: {','.join(versus.PROGRAMS)}")
    parser.add_argument("--peers", type=Path, help="the directory of the rivals' harness; QUORL_PEERS by default")
    parser.add_argument("--peers-python", type=Path, help="the Python that has the harness's clients")
    parser.add_argument("--out", type=Path, help="with --vs: write what is printed to this file, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
