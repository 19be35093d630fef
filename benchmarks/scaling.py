"""``python -m benchmarks scaling [AXIS…]``: measure along the axes, and keep tables and plots beside this file."""

from __future__ import annotations

import argparse
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, report
from benchmarks.axes import AXES, Axis
from benchmarks.cluster import file_system, place_for_data

HERE = Path(__file__).resolve().parent
PAGE = HERE / "SCALING.md"
PLOTS = HERE / "plots"
SECONDS = 2.0


async def walk(name: str, points: Sequence[int], seconds: float, place: Path) -> list[report.Row]:
    """Measure one axis; a row for each point. The shares of the processor include what was stored before a measurement."""
    axis = AXES[name]
    rows: list[report.Row] = []
    before, known = machine.cpu_times(), set[int]()
    began = time.perf_counter()
    async for point, cluster, figures in axis.walk(place, points, seconds):
        known |= cluster.pids
        after = machine.cpu_times()
        shares = machine.cpu_shares(before, after, known)
        before, began, took_s = machine.cpu_times(), time.perf_counter(), time.perf_counter() - began
        rows.append({"axis": name, "point": point, **figures, "took_s": round(took_s, 1), **shares})
    return rows


def main(arguments: Sequence[str]) -> int:
    """Measure what the arguments name; the exit code."""
    from benchmarks.cli import run

    parser = _parser()
    options = parser.parse_args(arguments)
    names = options.axes or list(AXES)
    if unknown := [name for name in names if name not in AXES]:
        parser.error(f"no axis {', '.join(unknown)}; there are {', '.join(AXES)}")
    place = place_for_data(options.dir)
    about = machine.description(file_system(place))

    async def measure() -> int:
        for name in names:
            points = options.points or AXES[name].points
            rows = await walk(name, points, options.secs, place)
            if options.json:
                for row in rows:
                    print(report.as_json(row | about), flush=True)
            else:
                print(f"{name}: {AXES[name].summary}\n\n{table(AXES[name], rows)}\n", flush=True)
            if options.write:
                write(name, rows, about, command=shlex.join(["python", "-m", "benchmarks", "scaling", *arguments]))
        return 0

    return run(measure())


def table(axis: Axis, rows: Sequence[report.Row]) -> str:
    """The points of an axis as a Markdown table."""
    first = [name for name in rows[0] if name not in {"axis", "point"}]
    titled = [{axis.unit: f"{row['point']:,}", **row} for row in rows]
    return report.table(titled, [axis.unit, *first])


def write(name: str, rows: Sequence[report.Row], about: report.Row, command: str, page: Path = PAGE) -> None:
    """Put the table and the plot of an axis in their places, in the stead of those that were there."""
    axis = AXES[name]
    plots = page.parent / PLOTS.name
    plots.mkdir(exist_ok=True)
    draw(axis, rows, plots / f"{name}.png")
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    others = [row["others_cpu_cores"] for row in rows if row["others_cpu_cores"] is not None]
    used = f" Others used {min(others):.2g} to {max(others):.2g} cores of {about['cores']} meanwhile." if others else ""
    section = (
        f"<!-- {name} -->\n## {name}\n\n{axis.summary[0].upper()}{axis.summary[1:]}.{used}\n\n{table(axis, rows)}\n\n"
        f"![{name}]({PLOTS.name}/{name}.png)\n\n"
        f"`{command}` at {about['commit']}; {about['cores']} cores, {about['file_system']}, {about['system']}; {versions}.\n"
        f"<!-- end of {name} -->\n"
    )
    text = page.read_text(encoding="utf-8") if page.exists() else "# Scaling\n"
    place = re.compile(rf"<!-- {name} -->\n.*?<!-- end of {name} -->\n", re.DOTALL)
    found = place.search(text)
    text = f"{text.rstrip()}\n\n{section}" if found is None else text[: found.start()] + section + text[found.end() :]
    page.write_text(text, encoding="utf-8")


def draw(axis: Axis, rows: Sequence[report.Row], path: Path) -> None:
    """Draw a plot, for which matplotlib is loaded only now."""
    from benchmarks import plots

    plots.draw(axis, rows, path)


def _points(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:12}{axis.summary}" for name, axis in AXES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks scaling",
        description="How costs grow along one axis at a time, from three nodes, one topic and payloads of 200 bytes.",
        epilog=f"axes:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("axes", nargs="*", metavar="AXIS", help="all by default")
    parser.add_argument("--json", action="store_true", help="one JSON line per point instead of tables")
    parser.add_argument("--secs", type=float, default=SECONDS, help=f"seconds of one measurement (default {SECONDS:g})")
    parser.add_argument("--points", type=_points, metavar="N,…", help="other points than those of the axis, rising")
    parser.add_argument("--dir", help="where the nodes' data goes for the time being; not on a file system in memory")
    parser.add_argument("--write", action="store_true", help="renew SCALING.md and the plots; needs the extra `bench`")
    return parser
