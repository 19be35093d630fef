"""``quorl worker run``: what its options become, and how it ends."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from quorl import logs
from quorl.client import App, worker
from quorl.client.cli import cli, work
from quorl.client.cli.common import Settings
from quorl.client.demo import app
from quorl.client.worker_lines import Lines, to_stderr
from quorl.client.worker_log import LoggedLines
from quorl.client.worker_shift import Superseded


class Recorded:
    """Stands in for ``Worker``."""

    made: ClassVar[list[tuple[Any, Any, dict[str, Any]]]] = []
    error: ClassVar[Exception | None] = None

    def __init__(self, source: Any, queues: Any, **options: Any) -> None:
        Recorded.made.append((source, queues, options))

    def run(self) -> None:
        if Recorded.error is not None:
            raise Recorded.error


@pytest.fixture(autouse=True)
def _recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "Worker", Recorded)
    monkeypatch.setattr(Recorded, "made", [])
    monkeypatch.setattr(Recorded, "error", None)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["worker", "run", *words])


def test_by_default_it_serves_the_queues_of_the_app_and_talks() -> None:
    assert run("quorl.demo:app").exit_code == 0
    (source, queues, options), *_ = Recorded.made
    assert source is app
    assert queues is None
    assert options == {
        "servers": None,
        "crash_between": None,
        "write": to_stderr,
        "lines": None,
        "concurrency": 8,
        "prefetch": None,
        "name": "",
        "pool": "thread",
        "burst": False,
        "standby": False,
        "grace_s": 30.0,
        "heartbeat_s": None,
        "dead_after_s": None,
    }


def test_what_is_said_is_done() -> None:
    words = "-q a --queue b --concurrency 2 --prefetch 0 --name w --pool process --burst --standby --crash-between 3 5"
    done = run(
        "quorl.demo",
        *words.split(),
        *["--grace", "1", "--heartbeat", "1", "--dead-after", "30", "-s", "http://a", "--quiet"],
    )
    assert done.exit_code == 0, done.output
    (_, queues, options), *_ = Recorded.made
    assert queues == ("a", "b")
    assert (options["servers"], options["crash_between"], options["write"]) == ("http://a", (3, 5), None)
    assert (options["concurrency"], options["prefetch"], options["name"]) == (2, 0, "w")
    assert (options["pool"], options["burst"], options["standby"]) == ("process", True, True)
    assert (options["grace_s"], options["heartbeat_s"], options["dead_after_s"]) == (1, 1, 30)


def test_d15_for_programs_everything_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[Any] = []
    monkeypatch.setattr(logs, "configure", lambda *how: configured.append(how))
    assert run("quorl.demo:app", "--log", "json", "--name", "w-1").exit_code == 0
    (_, _, options), *_ = Recorded.made
    assert isinstance(options["lines"], LoggedLines)
    assert configured == [("json", "info", {"worker": "w-1"})]
    assert run("quorl.demo:app", "--log", "json", "--quiet").exit_code == 0
    assert type(Recorded.made[-1][2]["lines"]) is Lines
    assert json.loads(run("quorl.demo:nope", "--log", "json").stderr)["error"]["code"] == "usage"
    for words in (
        ("--log", "json", "--nonsense"),
        ("--concurrency", "many", "--log=json"),
        ("--log", "json", "--grace"),
    ):
        assert json.loads(run("quorl.demo:app", *words).stderr)["error"]["code"] == "usage"
    monkeypatch.setattr(Recorded, "error", Superseded("worker 2 runs under its name"))
    replaced = run("quorl.demo:app", "--log", "json")
    assert (replaced.exit_code, json.loads(replaced.stderr)["error"]["title"]) == (4, "the worker was replaced")


def test_queues_that_are_written_with_a_comma_are_one_queue_and_that_is_said() -> None:
    warned = run("quorl.demo:app", "-q", "a,b", "-q", "c")
    assert Recorded.made[-1][1] == ("a,b", "c"), "a comma may be in a name"
    assert warned.stderr.splitlines() == [
        'warn   "a,b" is served as one queue of this name',
        "why    several queues take an option each",
        "try    quorl worker run quorl.demo:app -q a -q b -q c",
    ]
    assert run("quorl.demo:app", "-q", "a,b", "--quiet").stderr == ""
    assert run("quorl.demo:app", "-q", "a").stderr == ""


def test_mistakes_are_explained() -> None:
    assert "Write app = quorl.App() in it" in run("json").stderr
    assert "no App and no dict of functions, but of the type function" in run("json:dumps").stderr
    assert run("nowhere:app").exit_code == 2
    Recorded.error = ValueError("a worker serves at least one queue")
    refused = run("quorl.demo:app")
    assert (refused.exit_code, "at least one queue" in refused.output) == (2, True)
    Recorded.error = Superseded("worker 2 runs under its name, 'w'")
    replaced = run("quorl.demo:app")
    assert (replaced.exit_code, "runs under its name" in replaced.output) == (4, True)


def test_a_module_that_cannot_be_imported_is_told_of_by_its_own_lines(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (tmp_path / "lacks_one.py").write_text("import nowhere_to_be_found\n")
    lacking = run("lacks_one:app")
    assert lacking.exit_code == 1
    traceback, _, told = lacking.stderr.partition("error  ")
    assert [line for line in traceback.splitlines() if "File" in line] == [
        f'  File "{tmp_path}/lacks_one.py", line 1, in <module>'
    ]
    assert told.splitlines() == [
        "lacks_one cannot be imported",
        "why    ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        f"try    Is it installed for this Python?  {sys.executable} -m pip list",
    ]
    (tmp_path / "half_written.py").write_text("app = App(\n")
    half = run("half_written:app")
    assert (half.exit_code, half.stderr.count("File"), f'"{tmp_path}/half_written.py", line 1' in half.stderr) == (
        1,
        1,
        True,
    )
    as_json = run("half_written:app", "--json")
    assert json.loads(as_json.stderr)["error"]["title"] == "half_written cannot be imported"


def test_where_a_module_is_looked_for_is_said(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    advice = "Run it in the folder of nowhere_at_all.py, or name that folder: PYTHONPATH=FOLDER quorl worker run"
    assert run("nowhere_at_all:app").stderr.splitlines() == [
        "error  quorl worker run does not take this MODULE:APP",
        f"why    no module 'nowhere_at_all' in {tmp_path} nor among the installed packages",
        f"try    {advice} nowhere_at_all:app",
    ]


def test_reloading_watches_and_its_process_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[Any] = []

    def watch(command: Any, _changed: Any) -> int:
        watched.append(command)
        return 7

    monkeypatch.setattr("quorl.client.cli.work.supervise", watch)
    assert run("quorl.demo:app", "--reload").exit_code == 7
    assert not Recorded.made
    assert watched[0][1:3] == ["-m", "quorl.client.cli"]
    monkeypatch.setenv("QUORL_RELOADED", "1")
    assert run("quorl.demo:app", "--reload").exit_code == 0
    assert Recorded.made


def test_what_reloading_needs_is_said_by_a_name_that_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    told = run("quorl.demo:app", "--reload")
    assert (told.exit_code, told.stderr.splitlines()[2]) == (2, "try    pip install watchfiles")


def test_whose_addresses_a_worker_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUORL_SERVER", "http://env:1")
    anywhere, somewhere = App(), App("http://own:1")
    assert work._servers(Settings(), {}) == work._servers(Settings(), anywhere) == "http://env:1"
    assert work._servers(Settings(), somewhere) is None, "the worker takes the app's"
    assert work._servers(Settings(server="http://said:1"), somewhere) == "http://said:1"
    monkeypatch.setenv("QUORL_SERVER", "foo:bar")
    assert "quorl worker run does not take this QUORL_SERVER" in run("quorl.demo:app").stderr
    assert "quorl worker run does not take this --server" in run("quorl.demo:app", "-s", "a:b").stderr
