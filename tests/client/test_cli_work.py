"""``quorl worker run``: what its options become, and how it ends."""

from __future__ import annotations

import json
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
    monkeypatch.setattr(Recorded, "error", Superseded("worker 2 runs under its name"))
    replaced = run("quorl.demo:app", "--log", "json")
    assert (replaced.exit_code, json.loads(replaced.stderr)["error"]["title"]) == (4, "the worker was replaced")


def test_mistakes_are_explained() -> None:
    assert run("nowhere:app").exit_code == 2
    Recorded.error = ValueError("a worker serves at least one queue")
    refused = run("quorl.demo:app")
    assert (refused.exit_code, "at least one queue" in refused.output) == (2, True)
    Recorded.error = Superseded("worker 2 runs under its name, 'w'")
    replaced = run("quorl.demo:app")
    assert (replaced.exit_code, "runs under its name" in replaced.output) == (4, True)


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


def test_whose_addresses_a_worker_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUORL_SERVER", "http://env:1")
    anywhere, somewhere = App(), App("http://own:1")
    assert work._servers(Settings(), {}) == work._servers(Settings(), anywhere) == "http://env:1"
    assert work._servers(Settings(), somewhere) is None, "the worker takes the app's"
    assert work._servers(Settings(server="http://said:1"), somewhere) == "http://said:1"
