"""Every axis runs and counts what it says; how costs grow, is no matter for a test."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.axes import AXES
from benchmarks.cluster import place_for_data

TINY = {
    "topics": ([1, 3], "topics"),
    "messages": ([500, 1_200], "kept"),
    "finished": ([100, 500], "kept"),
    "nodes": ([1, 3], "members"),
    "payloads": ([100, 4_000], None),
    "connections": ([1, 20], None),
    "restart": ([1, 2], None),
}
"""Points, and the figure that counts the same."""
ABOUT = {"axis": "topics", "point": 1, "msgs_s": 5.0, "p50_ms": 2.0, "others_cpu_cores": 0.3}


@pytest.mark.parametrize("name", AXES)
def test_every_axis_counts_what_it_says(name: str) -> None:
    points, counted = TINY[name]
    rows = asyncio.run(scaling.walk(name, points, 0.2, place_for_data(None)))
    assert [row["point"] for row in rows] == points
    for row in rows:
        json.dumps(row)
        assert all(row[figure] > 0 for figure in AXES[name].figures)
        if name == "payloads":
            assert row["message_bytes"] >= row["point"]
        elif name == "restart":
            assert row["disk_mb"] >= row["point"]
        elif name == "connections":
            assert row["appended"] >= row["point"]
        elif name == "finished":
            assert row["point"] <= row["kept"]
        else:
            assert row[str(counted)] == row["point"]
    assert scaling.table(AXES[name], rows).count("\n") == 1 + len(points)


def test_a_table_replaces_the_one_that_was_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(scaling, "draw", lambda _axis, _rows, path: drawn.append(path))
    page = tmp_path / "SCALING.md"
    about = {"versions": {"quorl": "1"}, "commit": "abc", "cores": 2, "file_system": "ext4", "system": "Linux"}
    for rate in (5.0, 6.0):
        scaling.write("topics", [ABOUT | {"msgs_s": rate}], about, "python -m benchmarks scaling", page)
        scaling.write("nodes", [ABOUT | {"axis": "nodes"}], about, "python -m benchmarks scaling", page)
    text = page.read_text()
    assert text.count("## topics") == text.count("## nodes") == 1
    assert "| 1 | 6 | 2 | 0.3 |" in text
    assert drawn[0] == tmp_path / "plots" / "topics.png"


def test_the_command_names_the_axes_that_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scaling.main(["topic"])
    assert "no axis topic; there are topics" in capsys.readouterr().err
