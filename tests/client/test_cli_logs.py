"""Logs on the command line: laid out for people, merged by time, followed; and where they are if not here."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quorl.client.cli import cli, loglines, nodelogs


def entry(at: str, event: str, level: str = "info", **fields: object) -> str:
    return json.dumps({"event": event, "level": level, "logger": "quorl.node", "time": f"2026-11-26T{at}Z", **fields})


# -- lines ----------------------------------------------------------------------------------------------------------
def test_a_line_is_laid_out_with_what_matters_first(monkeypatch: pytest.MonkeyPatch) -> None:
    line = loglines.read(entry("10:00:01.250000", "leader_changed", node="n1", leader="n2", term=3, why="it is so"))
    shown = loglines.laid_out(line)
    assert shown.endswith('  n1  leader_changed  leader=n2  term=3  why="it is so"')
    assert shown.startswith(line.at.astimezone().strftime("%H:%M:%S") + ".250  ")  # type: ignore[union-attr]
    assert loglines.laid_out(line, dated=True).startswith(line.at.astimezone().strftime("%Y-%m-%d "))  # type: ignore[union-attr]
    bad = loglines.read(entry("10:00:01", "call_failed", "error", node="n1", exception="Traceback\n  boom\x1b"))
    assert loglines.laid_out(bad).splitlines()[0].endswith("  n1  ERROR  call_failed")
    assert loglines.laid_out(bad).splitlines()[1:] == ["    Traceback", "      boom\\x1b"]


@pytest.mark.parametrize(
    "text", ["Traceback (most recent call last):", "", "[1]", '{"event": "x"}', '{"time": 3}', "null"]
)
def test_what_is_no_line_of_ours_is_shown_as_it_is(text: str) -> None:
    assert loglines.laid_out(loglines.read(f"{text}\n")) == text
    assert loglines.laid_out(loglines.read(f"{text}\x07"), who="n1").endswith("\\x07")


def test_the_last_lines_are_found_from_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loglines, "_BLOCK_BYTES", 7)
    path = tmp_path / "n1.log"
    for text in ("", "one", "one\n", "one\n\ntwo\n", "one\ntwo", "a line that is longer than a block\nx\n", "\n\n"):
        path.write_text(text)
        lines = [line for line in text.splitlines() if line]
        for most in range(4):
            found, end = loglines.last(path, most)
            assert [line.text for line in found] == lines[len(lines) - most if most < len(lines) else 0 :], (text, most)
            assert not most or end == text.rfind("\n") + 1, (text, most)
    path.write_text("keep 1\nx\nkeep 2\nx\n")
    assert [line.text for line in loglines.last(path, 2, lambda line: line.text != "x")[0]] == ["keep 1", "keep 2"]


# -- the command ----------------------------------------------------------------------------------------------------
@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("QUORL_SERVER", "127.0.0.1:1")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(nodelogs, "_UNITS", ())
    home = tmp_path / "quorl" / "dev"
    home.mkdir(parents=True)
    return home


def logs(*words: str) -> Result:
    return CliRunner().invoke(cli, ["node", "logs", *words], catch_exceptions=False)


def written(home: Path) -> None:
    (home / "n1.log").write_text(
        entry("10:00:01", "a", node="n1") + "\n" + entry("10:00:04", "d", "warning", node="n1") + "\n"
    )
    (home / "n2.log").write_text(
        "not JSON\n" + entry("10:00:02", "b", node="n2") + "\nits last words\n" + entry("10:00:03", "c") + "\n"
    )
    (home / "w-demo.log").write_text(entry("10:00:05", "task_started", worker="w-demo") + "\n")


def told(result: Result) -> list[str]:
    return [line.split("  ", 1)[-1] for line in result.stdout.splitlines()]


def test_all_nodes_are_told_in_the_order_of_time(home: Path) -> None:
    written(home)
    assert told(logs()) == ["not JSON", "n1  a", "n2  b", "its last words", "n2  c", "n1  WARNING  d"]
    assert told(logs("-n", "2")) == ["n2  c", "n1  WARNING  d"]
    assert told(logs("n1", "w-demo")) == ["n1  a", "n1  WARNING  d", "w-demo  task_started"]
    assert told(logs("n1", "--level", "warning", "-n", "1")) == ["n1  WARNING  d"]
    assert logs("-n", "0").stdout == ""


def test_programs_get_the_lines_as_they_are(home: Path) -> None:
    written(home)
    lines = [json.loads(line) for line in logs("n2", "--json").stdout.splitlines()]
    assert lines[0] == {"node": "n2", "text": "not JSON"}
    assert [line.get("event") for line in lines] == [None, "b", None, "c"]


def test_the_cluster_that_runs_goes_before_the_one_that_ran_last(home: Path) -> None:
    written(home)
    passing = home.parents[1] / "quorl-up-x"
    passing.mkdir()
    (passing / "n1.log").write_text("of the temporary one\n")
    assert "of the temporary one" not in logs("n1").stdout
    with (passing / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert told(logs("n1")) == ["of the temporary one"]


def test_where_logs_are_that_are_not_here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = logs()
    assert nowhere.exit_code == 3
    assert "`quorl up` has not run here" in nowhere.stderr
    assert "journalctl -u quorl -f" in nowhere.stderr
    assert "docker compose logs -f n1" in nowhere.stderr
    monkeypatch.setattr(nodelogs, "_UNITS", (str(home),))
    assert logs().stderr.splitlines()[-1] == "try    journalctl -u quorl -f"
    written(home)
    unknown = logs("n9")
    assert unknown.exit_code == 3
    assert "there are: n1, n2, w-demo" in unknown.stderr
    assert logs("-s", "10.0.0.1").exit_code == 2


def test_what_is_written_later_is_told_when_its_line_is_whole(home: Path) -> None:
    written(home)
    path = home / "n1.log"
    _, end = loglines.last(path, 1)
    coming = nodelogs._coming({"n1": path}, {"n1": end})
    with path.open("a") as file:
        file.write("half\nanother ")
    assert next(coming)[1].text == "half"
    with path.open("a") as file:
        file.write("half\n")
    assert next(coming)[1].text == "another half"
    path.write_text("anew\n")
    assert next(coming)[1].text == "anew"
