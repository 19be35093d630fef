"""What a node says: JSON lines for machines, a layout for people, and no secrets for anybody."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog
from typing_extensions import override

from quorl import logs

N1 = {"node": "n1"}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    @override
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, for_people = root.handlers[:], root.level, logs._for_people
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    logs._for_people = for_people


def said(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_d15_lines_are_json_where_nobody_watches() -> None:
    stream = io.StringIO()
    logs.configure("auto", "info", N1, stream)
    structlog.get_logger("quorl.test").info("leader_elected", term=3, members=("n1", "n2"))
    (line,) = said(stream)
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "event": "leader_elected",
        "level": "info",
        "logger": "quorl.test",
        "members": ["n1", "n2"],
        "node": "n1",
        "term": 3,
    }


def test_lines_of_libraries_come_out_in_the_same_form() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", N1, stream)
    logging.getLogger("aiohttp.server").warning("odd %s", "request", extra={"peer": "n2"})
    logging.getLogger("aiohttp.server").info("every small step")
    (line,) = said(stream)
    assert (line["event"], line["peer"], line["node"], line["level"]) == ("odd request", "n2", "n1", "warning")


def test_d15_what_is_bound_stands_in_every_line() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", N1, stream)
    with structlog.contextvars.bound_contextvars(request_id="mine"):
        structlog.get_logger("quorl.test").info("ours")
        logging.getLogger("asyncio").error("a library's")
    structlog.get_logger("quorl.test").info("later")
    assert [line.get("request_id") for line in said(stream)] == ["mine", "mine", None]


def test_c8_lines_for_a_worker_have_the_same_fields_whatever_else_is_configured() -> None:
    told: list[str] = []
    who = {"worker": ""}
    log = logs.lines("quorl.worker", who, told.append)
    logging.basicConfig(format="%(message)s", force=True)
    log.info("worker_started", api_token="hunter2")
    who["worker"] = "w-1"
    try:
        raise RuntimeError("told")
    except RuntimeError:
        log.exception("failed")
    first, second = (json.loads(line) for line in told)
    assert str(first.pop("time")).endswith("Z")
    assert first == {
        "event": "worker_started",
        "level": "info",
        "logger": "quorl.worker",
        "worker": "",
        "api_token": logs.HIDDEN,
    }
    assert (second["worker"], second["level"]) == ("w-1", "error")
    assert "RuntimeError: told" in second["exception"]


def test_the_level_is_a_floor() -> None:
    stream = io.StringIO()
    logs.configure("json", "warning", N1, stream)
    log = structlog.get_logger("quorl.test")
    log.info("unheard")
    log.warning("heard")
    assert [line["event"] for line in said(stream)] == ["heard"]


def test_a_terminal_gets_a_layout_for_people() -> None:
    stream = Terminal()
    logs.configure("auto", "info", N1, stream)
    structlog.get_logger("quorl.test").info("leader_elected", term=3)
    assert "leader_elected" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


@pytest.mark.parametrize("layout", ["json", "console"])
def test_d14_secrets_never_come_out(layout: str) -> None:
    stream = io.StringIO()
    logs.configure(layout, "info", N1, stream)  # type: ignore[arg-type]  # one of the two literals above
    hidden = "hunter2"
    log = structlog.get_logger("quorl.test")
    log.info("asked", cluster_secret=hidden, Authorization=hidden, api_token=hidden, secret_file="kept")
    try:
        raise RuntimeError("told")
    except RuntimeError:
        log.exception("failed")
    assert hidden not in stream.getvalue()
    assert "kept" in stream.getvalue()
    assert "RuntimeError: told" in stream.getvalue()


def test_what_json_does_not_know_comes_out_all_the_same() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", N1, stream)
    structlog.get_logger("quorl.test").info("odd", value={1: {2}}, huge=object)
    (line,) = said(stream)
    assert line["value"] == {"1": "{2}"}


def loaded_by(code: str) -> set[str]:
    """The packages that a process has loaded after this."""
    code = f"import sys, threading\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split())


def test_a_node_loads_nothing_that_only_the_command_line_needs() -> None:
    loaded = loaded_by("import quorl.cluster.main, quorl.cluster.api.server")
    assert {"quorl", "structlog", "aiohttp", "pysyncobj"} <= loaded
    assert not {"rich", "pygments", "click", "urllib3"} & loaded


def test_who_wants_rich_has_it() -> None:
    assert "rich" in loaded_by("from quorl import logs\nimport rich.console")


def test_another_thread_is_not_told_that_there_is_no_rich() -> None:
    code = """
end = threading.Event()
thread = threading.Thread(target=end.wait)
thread.start()
from quorl import logs
end.set()
thread.join()
"""
    assert {"structlog", "rich"} <= loaded_by(code)


@pytest.mark.parametrize("layout", ["json", "console"])
def test_why_a_process_ends_is_said_once(
    layout: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(layout, "info", N1)
    logs.end(structlog.get_logger("quorl.test"), "machine_refused", "port 7101 is in use\nStop what has it", errno=98)
    told = capsys.readouterr().err
    assert told.count("port 7101 is in use") == told.count("Stop what has it") == told.count("machine_refused") == 1
    if layout == "json":
        (line,) = map(json.loads, told.splitlines())
        assert (line["level"], line["errno"]) == ("critical", 98)
        assert (line["detail"], line["advice"]) == ("port 7101 is in use", "Stop what has it")
    else:
        assert told.endswith("port 7101 is in use\nStop what has it\n")
