"""The plots of the scaling tables; the only module that needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from benchmarks import report
from benchmarks.axes import Axis

mpl.use("Agg")
from matplotlib import pyplot as plt


def draw(axis: Axis, rows: Sequence[report.Row], path: Path) -> None:
    """Draw the figures of an axis side by side: the points on a logarithmic scale, the figures from 0."""
    names = [name for name in axis.figures if all(row.get(name) is not None for row in rows)]
    figure, places = plt.subplots(1, len(names), figsize=(3.4 * len(names), 2.8), squeeze=False, layout="constrained")
    for name, place in zip(names, places[0], strict=True):
        place.plot([row["point"] for row in rows], [row[name] for row in rows], marker="o", color="#2f5d8a")
        place.set_xscale("log")
        place.set_ylim(bottom=0)
        place.set_xlabel(axis.unit)
        place.set_title(name, fontsize=10)
        place.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
