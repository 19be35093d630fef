"""The command line for programs: every form of a table, contexts, raw calls, what is imported, what can be copied."""

from __future__ import annotations

import csv
import io
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from quorl.client.cli import cli, output
from quorl.client.cli.cheat import CHEATS
from quorl.client.cli.times import span
from quorl.cluster.protocol.problems import CATALOGUE
from tests.client.commands import Quorl, environment, start
from tests.client.scripted import problem
from tests.client.stand_in import StandIn, closed_port
from tests.client.terminal import terminal


def topics(quorl: Quorl, *names: str) -> None:
    for name in names:
        assert quorl("topic", "create", name).exit_code == 0


# -- forms ----------------------------------------------------------------------------------------------------------
def test_d15_a_list_in_every_form(quorl: Quorl) -> None:
    topics(quorl, "a, b", "logs")
    quorl("topic", "produce", "logs", "--value", "x")
    table = quorl("topic", "ls").stdout.splitlines()
    assert quorl("topic", "ls", "-o", "wide").stdout.splitlines() == table
    assert quorl("topic", "ls", "--no-headers").stdout.splitlines() == table[1:]
    assert quorl("topic", "ls", "-o", "name").stdout == "a, b\nlogs\n"
    as_json = quorl("topic", "ls", "-o", "json").stdout
    assert as_json == quorl("topic", "ls", "--json").stdout == quorl("--json", "topic", "ls").stdout
    lines = quorl("topic", "ls", "-o", "ndjson").stdout.splitlines()
    assert [json.loads(line) for line in lines] == json.loads(as_json)
    head, first, second = csv.reader(io.StringIO(quorl("-o", "csv", "topic", "ls").stdout))
    assert head == table[0].split()
    assert (first[0], second[:3]) == ("a, b", ["logs", "1", "1"])
    assert quorl("topic", "ls", "-o", "csv", "--no-headers").stdout.count("\n") == 2
    assert quorl("topic", "ls", "-o", "yaml").exit_code == 2


def test_one_thing_is_no_list(quorl: Quorl) -> None:
    topics(quorl, "logs")
    for form in ("csv", "name"):
        refused = quorl("topic", "show", "logs", "-o", form)
        assert refused.exit_code == 2
        assert f"-o {form} is for lists" in refused.stderr
    one = quorl("topic", "show", "logs", "-o", "ndjson").stdout
    assert json.loads(one)["name"] == "logs"


def test_programs_get_plain_numbers_and_seconds() -> None:
    cells = [output.grouped(1204), output.rate(210.44), output.rate(None), span(1300), span(None)]
    assert cells == ["1 204", "210.4", "–", "1.3 s", "–"]
    assert [cell.raw for cell in cells] == [1204, 210.44, "", 1.3, ""]


def test_a_terminal_without_room_does_without_what_matters_least(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    columns, rows = ("NAME", "HOST", "PID", "STATUS"), [("w" * 20, "h" * 20, 77, "DEAD")]
    seen = {}
    for width in (80, 50, 20):
        monkeypatch.setenv("COLUMNS", str(width))
        output.table(columns, rows, spare=("HOST", "PID"))
        seen[width] = capsys.readouterr().out.splitlines()[0].split()
    assert seen == {80: list(columns), 50: ["NAME", "PID", "STATUS"][:], 20: ["NAME", "STATUS"]} | {
        50: ["NAME", "PID", "STATUS"]
    }


def test_watching_goes_on_until_ctrl_c(cluster: StandIn) -> None:
    with start(cluster, "cluster", "status", "--watch=0.1", "-q", "--json") as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline())["name"] for _ in range(3)]
        for mishaps in cluster.mishaps:
            mishaps.extend([problem("storage_full")] * 3)
        seen.append(json.loads(process.stdout.readline())["name"])
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert seen == ["dev"] * 4


def test_calls_are_shown(quorl: Quorl, cluster: StandIn) -> None:
    cluster.mishaps[0].append("reset before")
    told = quorl("topic", "ls", "-v", "-s", cluster.servers).stderr
    assert [line.split()[:2] for line in told.splitlines() if line.startswith("http")] == [["http", "GET"]] * 2
    assert "connection lost" in told
    assert "→ 200, " in told
    assert "/v1/topics?limit=" in told


# -- contexts -------------------------------------------------------------------------------------------------------
def test_d15_contexts(quorl: Quorl, cluster: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUORL_SERVER")
    assert quorl("context", "ls").stderr == "none yet: quorl context add NAME URL[,URL]\n"
    assert quorl("context", "add", "nowhere", closed_port()).stderr.endswith(", in use\n")
    assert quorl("topic", "ls", "--timeout", "0.3").exit_code == 5
    assert quorl("context", "add", "dev", cluster.servers).stderr.startswith("added: dev")
    assert quorl("topic", "ls", "--context", "dev").exit_code == 0
    monkeypatch.setenv("QUORL_CONTEXT", "dev")
    assert quorl("topic", "ls").exit_code == 0
    assert quorl("topic", "ls", "--context", "nowhere", "--timeout", "0.3").exit_code == 5
    assert quorl("topic", "ls", "-s", cluster.servers).exit_code == 0
    monkeypatch.delenv("QUORL_CONTEXT")
    assert quorl("context", "use", "dev").exit_code == 0
    assert quorl("topic", "ls").exit_code == 0
    assert [one["current"] for one in json.loads(quorl("context", "ls", "--json").stdout)] == [False, True]
    monkeypatch.setenv("QUORL_SERVER", closed_port())
    assert quorl("topic", "ls", "--timeout", "0.3").exit_code == 5, "the environment goes before the context in use"
    assert quorl("topic", "ls", "--context", "dev").exit_code == 0, "and what is said before both"
    assert "! QUORL_SERVER goes before" in quorl("context", "ls").stderr
    assert quorl("context", "rm", "dev").exit_code == 0
    assert quorl("context", "ls", "-o", "name").stdout == "nowhere\n"


def test_what_is_wrong_with_contexts(quorl: Quorl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUORL_SERVER")
    assert quorl("context", "add", "dev", "ftp://x").exit_code == 2
    quorl("context", "add", "dev", "127.0.0.1:1")
    unknown = quorl("topic", "ls", "--context", "dve")
    assert unknown.exit_code == 3
    assert "did you mean `dev`?" in unknown.stderr
    file = tmp_path / "config" / "quorl" / "contexts.json"
    file.write_text("[]")
    assert quorl("topic", "ls").exit_code == 2
    assert quorl("topic", "ls").stderr.splitlines()[1].endswith("is not what `quorl context add` writes")


# -- raw calls ------------------------------------------------------------------------------------------------------
def test_d15_api_makes_a_raw_call(quorl: Quorl, cluster: StandIn, tmp_path: Path) -> None:
    made = quorl("api", "post", "/v1/topics", "-d", '{"name": "x"}', "-H", "Idempotency-Key: k1")
    assert made.exit_code == 0
    assert json.loads(made.stdout)["partitions"] == 1
    assert cluster.calls[-1][1].headers["idempotency-key"] == "k1"
    body = tmp_path / "body.json"
    body.write_text('{"name": "y"}')
    assert quorl("api", "POST", "v1/topics", "-d", f"@{body}").exit_code == 0
    assert quorl("api", "POST", "v1/topics", "-d", "-", input='{"name": "z"}').exit_code == 0
    listed = quorl("api", "GET", "/v1/topics?limit=1", "-i").stdout
    assert listed.startswith("HTTP 200\n")
    assert [one["name"] for one in json.loads(listed.splitlines()[-1])["items"]] == ["x"]


def test_api_ends_as_the_answer_says(quorl: Quorl, cluster: StandIn) -> None:
    missing = quorl("api", "GET", "/v1/topics/nope")
    assert missing.exit_code == 3
    assert json.loads(missing.stdout)["code"] == "topic_not_found"
    assert [line.split()[0] for line in missing.stderr.splitlines()] == ["error", "why", "try"]
    assert quorl("api", "GET", "/v1/topics/nope", "--json").stderr == ""
    for code, exit_code in (("already_exists", 4), ("no_quorum", 5), ("commit_unknown", 6), ("validation_failed", 2)):
        cluster.mishaps[0].append(problem(code))
        assert quorl("api", "GET", "/v1/topics").exit_code == exit_code
    assert quorl("api", "POST", "/v1/topics", "-d", "{name: x}").exit_code == 2
    assert quorl("api", "POST", "/v1/topics", "-d", "@/no/such/file").exit_code == 2
    assert quorl("api", "GET", "/v1/topics", "-H", "nothing").exit_code == 2


def test_api_repeats_nothing_that_may_have_arrived(quorl: Quorl, cluster: StandIn) -> None:
    servers = f"{closed_port()},{cluster.servers}"
    assert quorl("api", "GET", "/v1/topics", "-s", servers).exit_code == 0
    cluster.mishaps[0].append("reset after")
    lost = quorl("api", "POST", "/v1/topics", "-d", '{"name": "once"}')
    assert lost.exit_code == 6
    assert "no answer came" in lost.stderr
    assert cluster.operations().count("create_topic") == 1
    assert quorl("api", "GET", "/v1/topics", "-s", closed_port()).exit_code == 5


# -- offline --------------------------------------------------------------------------------------------------------
def test_d15_every_error_is_explained_offline(quorl: Quorl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUORL_SERVER", closed_port())
    listed = quorl("errors", "-o", "name").stdout.split()
    assert listed == list(CATALOGUE)
    for code in listed:
        told = quorl("errors", code)
        assert told.exit_code == 0
        assert CATALOGUE[code].title in told.stdout
        assert CATALOGUE[code].hint in told.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_d15_completion(quorl: Quorl, shell: str) -> None:
    script = quorl("completion", shell).stdout
    assert "_QUORL_COMPLETE" in script
    assert "quorl" in script


def test_completion_knows_commands_and_options() -> None:
    complete = ShellComplete(cli, {}, "quorl", "_QUORL_COMPLETE")
    assert {one.value for one in complete.get_completions([], "t")} == {"task", "top", "topic"}
    assert "ls" in {one.value for one in complete.get_completions(["queue"], "")}
    assert "--watch" in {one.value for one in complete.get_completions(["queue", "ls"], "--")}
    assert "ndjson" in {one.value for one in complete.get_completions(["queue", "ls", "-o"], "")}


def test_every_command_is_listed_with_a_whole_sentence() -> None:
    """Also where a terminal has 80 columns: click would cut it off with dots."""

    def look(command: click.Command, path: tuple[str, ...]) -> None:
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=" ".join(path), terminal_width=80, max_content_width=80)
            listed = command.get_help(context).partition("Commands:")[2]
            assert "..." not in listed, listed
            for name in command.commands:
                look(command.commands[name], (*path, name))

    look(cli, ("quorl",))


def test_d15_every_line_of_a_cheat_sheet_is_a_command(quorl: Quorl) -> None:
    for told in CHEATS.values():
        for line, _ in told:
            name, *words = shlex.split(line)
            assert name == "quorl"
            command: click.Command = cli
            while isinstance(command, click.Group):
                command = command.commands[words.pop(0)]
            command.make_context(line, words, resilient_parsing=False)
    assert all(line in quorl("cheat").stdout for told in CHEATS.values() for line, _ in told)
    assert "queue" not in quorl("cheat", "start").stdout
    assert list(json.loads(quorl("cheat", "tasks", "--json").stdout)) == ["tasks"]
    assert quorl("cheat", "nothing").exit_code == 3


# -- what is imported -----------------------------------------------------------------------------------------------
HEAVY = ("rich", "aiohttp", "asyncio", "pysyncobj", "structlog", "orjson", "quorl.client.app", "quorl.client.aio")


def imported(*words: str, servers: str = "") -> set[str]:
    """The modules that are there once a command has run, in a process of its own."""
    code = (
        "import sys; from quorl.client.cli import main; code = main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", f"{code}; sys.exit(code)", *words]
    environment = {"PYTHONPATH": ":".join(sys.path), "QUORL_SERVER": servers}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_d15_a_command_loads_what_it_needs(cluster: StandIn) -> None:
    assert quorl_modules(imported("version")) == {"common", "hints", "info", "output"}
    assert "msgspec" not in imported("version"), "it answers before anything else is there"
    loaded = imported("queue", "ls", "-q", servers=cluster.servers)
    assert not [name for name in HEAVY if name in loaded]
    light = {"asking", "common", "glance", "hints", "names", "options", "output", "queue", "times"}
    assert quorl_modules(loaded) <= light


def quorl_modules(loaded: set[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in loaded if name.startswith("quorl.client.cli.")}


def test_what_was_left_out_comes_back_where_something_wider_is_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    row = ("i" * 20, "SUCCESS", "1/3", "e" * 90)
    output.table(("ID", "STATUS", "TRIES", "ERROR"), [row], spare=("TRIES", "ERROR"), loose=("ERROR",))
    assert capsys.readouterr().out.splitlines()[0].split() == ["ID", "STATUS", "TRIES"]
    monkeypatch.setenv("COLUMNS", "60")
    output.table(("ID", "STATUS", "TRIES", "ERROR"), [row], spare=("TRIES", "ERROR"), loose=("ERROR",))
    shown = capsys.readouterr().out
    assert shown.count("e") == 90, "it is folded, not cut"
    assert "SUCCESS" in shown


def test_watching_stays_in_its_place_on_a_terminal(cluster: StandIn) -> None:
    with terminal("cluster", "members", "--watch=0.1", environment=environment(cluster)) as screen:
        end = [screen.until(r"\x1b\[J").end() for _ in range(3)][-1]
        screen.press("\x03")
        assert screen.ended() == 0
    pages = screen.seen[:end].split("\x1b[H")
    assert all("n3" in page and page.endswith("\x1b[J") for page in pages[2:4])
    assert "\x1b[K\r\n" in pages[2], "what a longer line has left behind is wiped out"
