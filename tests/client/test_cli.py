"""The command line: every command, its output as a contract, its exit codes, and real pipes."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from quorl.client import Client
from quorl.client.cli import cli, main, output
from quorl.client.cli.hints import HINTS
from quorl.client.cli.lines import LINE_BYTES_MAX
from quorl.client.errors import IN_PYTHON
from quorl.cluster.protocol.problems import CATALOGUE
from tests.client.commands import Quorl, run, start
from tests.client.scripted import Clock, problem
from tests.client.stand_in import StandIn, closed_port


# -- every command --------------------------------------------------------------------------------------------------
def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, command


LEAVES = dict(leaves(cli))


def test_these_are_the_commands() -> None:
    assert sorted(" ".join(path) for path in LEAVES) == [
        "api",
        "bench consume",
        "bench failover",
        "bench latency",
        "bench produce",
        "bench tasks",
        "cheat",
        "cluster check",
        "cluster members",
        "cluster status",
        "cluster transfer",
        "cluster wait",
        "completion",
        "context add",
        "context ls",
        "context rm",
        "context use",
        "dead errors",
        "dead export",
        "dead ls",
        "dead purge",
        "dead retry",
        "doctor",
        "errors",
        "monitor",
        "node check",
        "node init",
        "node logs",
        "node run",
        "node status",
        "queue ls",
        "queue pause",
        "queue purge",
        "queue resume",
        "queue rm",
        "queue seal",
        "queue set",
        "queue show",
        "queue unseal",
        "task cancel",
        "task import",
        "task ls",
        "task result",
        "task retry",
        "task show",
        "task submit",
        "task wait",
        "task why",
        "top",
        "topic consume",
        "topic create",
        "topic ls",
        "topic produce",
        "topic rm",
        "topic show",
        "topic size",
        "topic tail",
        "up",
        "version",
        "worker ls",
        "worker quiet",
        "worker run",
        "worker show",
        "worker stop",
    ]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_takes_the_common_options_and_explains_itself(path: tuple[str, ...]) -> None:
    options = [option for parameter in LEAVES[path].params for option in parameter.opts]
    common = {
        "-s",
        "--server",
        "--context",
        "-o",
        "--output",
        "--json",
        "--no-headers",
        "--no-color",
        "--timeout",
        "-q",
    }
    assert common | {"--quiet", "-v", "--verbose"} <= set(options)
    assert len(options) == len(set(options)), "an option has two meanings"
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0
    assert LEAVES[path].help


# -- cluster --------------------------------------------------------------------------------------------------------
def test_transfer_says_who_leads_now(quorl: Quorl, cluster: StandIn) -> None:
    done = quorl("cluster", "transfer", "n2")
    assert done.stderr.strip() == "n1 → n2 in 5 ms (term 8)"
    assert quorl("cluster", "transfer", "n2").stderr.strip() == "n2 leads already"
    assert json.loads(quorl("cluster", "transfer", "n1", "--json").stdout) == {
        "from": "n2",
        "to": "n1",
        "term": 8,
        "took_ms": 5,
    }


def test_status_names_what_is_wrong(quorl: Quorl, cluster: StandIn) -> None:
    cluster.health, cluster.leader = "no_quorum", None
    result = quorl("cluster", "status")
    assert result.exit_code == 5
    assert "no leader (term 7) · NO QUORUM: n2, n3 unreachable" in result.stdout
    assert "UNREACHABLE" in result.stdout
    assert " –" in result.stdout
    cluster.health, cluster.leader = "degraded", "n1"
    result = quorl("cluster", "status")
    assert result.exit_code == 0
    assert "DEGRADED: n2, n3 unreachable" in result.stdout
    assert "One more failure stops writes." in result.stderr
    assert not quorl("cluster", "status", "-q").stderr


# -- errors ---------------------------------------------------------------------------------------------------------
def test_errors_have_three_lines_and_their_codes(quorl: Quorl) -> None:
    result = quorl("topic", "show", "nope")
    assert result.exit_code == 3
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["error", "why", "try"]
    assert result.stdout == ""
    assert result.stderr.splitlines()[2] == f"try    {HINTS['topic_not_found']}"
    told = json.loads(quorl("topic", "show", "nope", "--json").stderr)["error"]
    assert (told["code"], told["hint"]) == ("topic_not_found", HINTS["topic_not_found"])


def test_hints_speak_the_language_of_the_command_line(quorl: Quorl) -> None:
    assert set(HINTS) <= set(CATALOGUE)
    of_http = {code for code, kind in CATALOGUE.items() if re.search(r"GET|POST|if_empty|`errors`", kind.hint)}
    assert (of_http | set(IN_PYTHON)) <= set(HINTS)
    commands = {"quorl " + " ".join(path) for path, _ in LEAVES.items()} | {"quorl"}
    for hint in HINTS.values():
        assert not re.search(r"GET|POST|Idempotency|\{", hint)
        for named in re.findall(r"quorl(?: [a-z]+)*(?= [A-Z-]|$)", hint):
            assert named in commands
    assert quorl("errors", "topic_not_found").stdout.splitlines()[-1] == f"quorl  {HINTS['topic_not_found']}"


@pytest.mark.parametrize(("number", "told"), [(0, "0 lines"), (1, "1 line"), (2, "2 lines"), (49_999, "49 999 lines")])
def test_counts_are_grammatical(number: int, told: str) -> None:
    assert output.counted(number, "line") == told


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("already_exists", 4), ("validation_failed", 2), ("command_failed", 1), ("storage_full", 5), ("internal", 6)],
)
def test_exit_codes(quorl: Quorl, cluster: StandIn, code: str, exit_code: int) -> None:
    for mishaps in cluster.mishaps:
        mishaps.append(problem(code))
    result = quorl("topic", "create", "x", "--timeout", "1")
    assert result.exit_code == exit_code
    assert result.stderr.startswith(f"error  {code if exit_code not in {5, 6} else ''}".rstrip())


def test_nobody_there(quorl: Quorl) -> None:
    result = quorl("-s", closed_port(), "--timeout", "0.3", "topic", "ls")
    assert result.exit_code == 5
    assert "connection refused" in result.stderr


def test_a_command_gives_up_soon_where_nobody_listens_unless_it_is_told_how_long_to_try(
    quorl: Quorl, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Client.__init__
    limits: list[tuple[float, float | None]] = []

    def note(self: Client, servers: Any, **options: Any) -> None:
        limits.append((options["timeout_s"], options["refused_s"]))
        made(self, servers, **options)

    monkeypatch.setattr(Client, "__init__", note)
    assert quorl("-s", closed_port(), "topic", "ls").exit_code == 5
    assert quorl("-s", closed_port(), "topic", "ls", "--timeout", "0.3").exit_code == 5
    assert limits == [(10.0, 2.0), (0.3, None)]


def test_main_returns_the_exit_code(cluster: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert main(["-s", cluster.servers, "topic", "show", "nope"]) == 3
    assert main(["topic", "frobnicate"]) == 2


def test_errors_are_explained_offline(quorl: Quorl) -> None:
    assert "Idempotency-Key" in quorl("errors", "commit_unknown").stdout
    assert quorl("errors", "no_quorum").stdout.splitlines()[:2] == ["no_quorum  HTTP 503", "what   No quorum"]
    assert "no_quorum" in quorl("errors").stdout
    assert json.loads(quorl("errors", "no_leader", "--json").stdout)["retryable"] is True
    assert {kind["code"] for kind in json.loads(quorl("errors", "--json").stdout)} >= {"no_leader", "topic_not_found"}
    guess = quorl("errors", "no_leadr")
    assert guess.exit_code == 3
    assert "did you mean `no_leader`" in guess.stderr


def test_version(quorl: Quorl) -> None:
    assert re.fullmatch(r"quorl \d+\.\d+\.\d+\n", quorl("version").stdout)
    assert set(json.loads(quorl("version", "--json").stdout)) == {"version"}
    assert quorl("--version").stdout == quorl("version").stdout


def test_node_commands_are_the_servers(quorl: Quorl, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    module = type(sys)("quorl.cluster.main")

    def server(argv: list[str]) -> int:
        seen.append(argv)
        return 2

    module.main = server  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "quorl.cluster.main", module)
    import quorl.cluster as package

    monkeypatch.setattr(package, "main", module, raising=False)
    assert quorl("node", "check", "-c", "n1.toml").exit_code == 2
    quorl("node", "run", "--config", "n1.toml")
    assert seen == [["--config", "n1.toml", "--check"], ["--config", "n1.toml"]]


# -- topics ---------------------------------------------------------------------------------------------------------
def test_create_ls_show_size_rm(quorl: Quorl, client: Client) -> None:
    assert (
        quorl("topic", "create", "a b/ü\x1b[31m", "--partitions", "2").stderr
        == "created: a b/ü\\x1b[31m, 2 partitions\n"
    )
    assert quorl("topic", "create", "logs").exit_code == 0
    assert quorl("topic", "create", "logs").stderr == "exists: logs, 1 partition\n"
    assert quorl("topic", "create", "logs", "--error-if-exists").exit_code == 4
    client.topic("logs").append_many(range(12))
    client.topic("logs").register_consumer("me", start="latest")
    listed = quorl("topic", "ls").stdout.splitlines()
    assert listed[0].split() == ["TOPIC", "PARTITIONS", "MESSAGES", "BYTES", "PRODUCERS", "CONSUMERS", "CREATED"]
    assert [line[:9] for line in listed[1:]] == ["a b/ü\\x1b", "logs     "]
    assert [one["name"] for one in json.loads(quorl("topic", "ls", "lo", "--json").stdout)] == ["logs"]
    assert "no topic begins with" in quorl("topic", "ls", "zzz").stderr
    shown = quorl("topic", "show", "logs").stdout
    assert "12 messages, 14 bytes · 0 producers, 1 consumer\n" in shown
    assert "CONSUMER" in shown
    assert json.loads(quorl("topic", "show", "logs", "--json").stdout)["details"][0]["next_offset"] == 12
    assert quorl("topic", "size", "logs").stdout == "12\n"
    assert quorl("topic", "size", "logs", "--consumer", "1").stdout == "0\n"
    assert json.loads(quorl("topic", "size", "logs", "--json").stdout) == {"size": 12, "total": 12}
    assert quorl("topic", "rm", "logs").exit_code == 2
    assert quorl("topic", "rm", "logs", "--if-empty").exit_code == 4
    assert json.loads(quorl("topic", "rm", "logs", "--yes", "--json").stdout)["messages"] == 12
    assert quorl("topic", "size", "logs").exit_code == 3


def test_plain_tables_are_never_cut(quorl: Quorl) -> None:
    name = "x" * 200
    quorl("topic", "create", name)
    assert name in quorl("topic", "ls").stdout


def test_tables_on_a_terminal_show_everything_too(capsys: pytest.CaptureFixture[str]) -> None:
    output._draw(("NAME", "N"), [["[bold]" + "y" * 120, "1"]], ("N",))
    shown = capsys.readouterr().out
    assert shown.count("y") == 120
    assert "[bold]" in shown


def test_ids_stay_in_one_piece_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    task_id = "01939f2d-0000-7000-8000-000000000001"
    output._draw(("ID", "TASK", "ERROR"), [[task_id, "demo.add(1, 2)" * 5, "ValueError: no number" * 5]], ())
    assert task_id in capsys.readouterr().out


# -- consume and tail -----------------------------------------------------------------------------------------------
def test_consume(quorl: Quorl, client: Client) -> None:
    client.topics.create("x")
    client.topic("x").append_many(["text", {"a": 1}, None, "two\nlines", 5])
    first = quorl("topic", "consume", "x", "--register", "--name", "me")
    assert first.stdout == "text\n"
    assert first.stderr == "registered consumer 1, which goes on with: quorl topic consume x --consumer 1\n"
    assert quorl("topic", "consume", "x", "--consumer", "1", "--max", "2").stdout == '{"a":1}\nnull\n'
    rest = quorl("topic", "consume", "x", "--consumer", "1", "--all", "--json").stdout.splitlines()
    assert [json.loads(line)["value"] for line in rest] == ["two\nlines", 5]
    assert json.loads(rest[0]).keys() >= {"topic", "partition", "offset", "created_at"}
    nothing = quorl("topic", "consume", "x", "--consumer", "1")
    assert (nothing.stdout, nothing.stderr, nothing.exit_code) == ("", "no new message\n", 0)
    other = quorl("topic", "consume", "x", "--register", "--name", "me")  # the name is no identity
    assert (other.stdout, other.stderr[:21]) == ("text\n", "registered consumer 2")
    assert quorl("topic", "consume", "x", "--register", "--start", "latest", "--all").stdout == ""
    assert quorl("topic", "consume", "x").exit_code == 2
    assert quorl("topic", "consume", "x", "--consumer", "1", "--register").exit_code == 2
    assert quorl("topic", "consume", "x", "--consumer", "1", "--all", "--max", "2").exit_code == 2
    assert quorl("topic", "consume", "x", "--consumer", "99").exit_code == 3


def test_consume_many(quorl: Quorl, client: Client) -> None:
    client.topics.create("x", partitions=3)
    with client.topic("x").producer() as producer:
        for n in range(2500):
            producer.send(n, key=f"k{n % 10}")
    got = quorl("topic", "consume", "x", "--register", "--all").stdout.split()
    assert sorted(map(int, got)) == list(range(2500))


def test_d7_consume_skips_nothing_when_an_answer_is_lost(
    quorl: Quorl, client: Client, cluster: StandIn, still: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    between_fetches = "quorl.client.cli.read.time.sleep"
    monkeypatch.setattr(between_fetches, lambda _: cluster.mishaps[0].clear())
    client.topics.create("x")
    client.topic("x").append_many(["a", "b"])
    client.topic("x").register_consumer()
    cluster.mishaps[0].extend(["reset after"] * 1000)
    got = quorl("topic", "consume", "x", "--consumer", "1", "-s", cluster.urls[0])
    assert got.stdout == "a\n"
    assert "; going on\n" in got.stderr


def test_tail(quorl: Quorl, client: Client) -> None:
    client.topics.create("x", partitions=2)
    keys = {key: client.topic("x").append("0", key=key).partition for key in ("a", "b", "c", "d")}
    assert set(keys.values()) == {0, 1}
    for n in range(1, 20):
        client.topic("x").append(str(n), key="abcd"[n % 4])
    assert quorl("topic", "tail", "x", "-n", "5").stdout.split() == ["15", "16", "17", "18", "19"]
    assert len(quorl("topic", "tail", "x").stdout.split()) == 10
    assert quorl("topic", "tail", "x", "-n", "0").stdout == ""
    assert len(quorl("topic", "tail", "x", "--from", "earliest").stdout.split()) == 23
    assert quorl("topic", "tail", "x", "--from", "latest").stdout == ""
    one = quorl("topic", "tail", "x", "--partition", "1", "--from", "0", "--json").stdout.splitlines()
    assert {json.loads(line)["partition"] for line in one} == {1}
    assert quorl("topic", "tail", "x", "--partition", "7").exit_code == 3
    assert quorl("topic", "tail", "x", "--from", "0", "-n", "1").exit_code == 2
    assert quorl("topic", "tail", "x", "--from", "tomorrow").exit_code == 2
    assert client.topic("x").size() == 23


# -- produce: a process and a pipe ----------------------------------------------------------------------------------
def values(client: Client, topic: str) -> list[object]:
    found: list[object] = []
    while page := client.topic(topic).browse(len(found), limit=1000):
        found += [one.value for one in page]
    return found


def test_a_fast_pipe_goes_in_order_and_in_batches(cluster: StandIn, client: Client) -> None:
    lines = [f"{n} héllo\r" for n in range(20_000)]
    code, out, err = run(
        cluster, "\n".join(lines).encode(), "topic", "produce", "x", "-", "--create", "--register", "p"
    )
    assert code == 0
    assert out == ""
    assert re.fullmatch(r"20 000 messages, offsets 0–19 999, \d+\.\d s, [\d ]+/s\n", err)
    assert values(client, "x") == lines
    assert client.topic("x").message(0, 0).message.producer_id == 1
    assert cluster.operations().count("append") < 40


def test_a_slow_pipe_publishes_each_line_at_once(cluster: StandIn, client: Client) -> None:
    client.topics.create("x")
    with start(cluster, "topic", "produce", "x") as process:
        assert process.stdin is not None
        for n in range(3):
            process.stdin.write(b"line %d\nhalf" % n)
            process.stdin.flush()
            (message,) = client.topic("x").browse(n, wait_s=20)
            assert message.value == ("half" if n else "") + f"line {n}"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read().startswith(b"3 messages, offsets 0\xe2\x80\x932, ")
        process.stdin.close()
    assert client.topic("x").size() == 3, "half a line is no message"


def test_lines_that_are_no_message_are_reported(cluster: StandIn, client: Client) -> None:
    data = b"good\n" + b"x" * (4 * LINE_BYTES_MAX) + b"\n\xff\xfe\n" + b'"' * (LINE_BYTES_MAX - 10) + b"\n\nlast"
    code, _, err = run(cluster, data, "topic", "produce", "x", "--create")
    assert code == 1
    assert "line 2: longer than 256 KiB, skipped" in err
    assert "line 4: the value has" in err
    assert "1 line not in UTF-8, 2 lines skipped" in err
    assert values(client, "x") == ["good", "\ufffd\ufffd", "", "last"]


def test_json_lines(cluster: StandIn, client: Client) -> None:
    data = b'{"a": [1, 2]}\n\nnot json\n"text"\n 1.50 \n'
    code, out, err = run(cluster, data, "topic", "produce", "x", "--create", "--json-lines", "--json")
    assert code == 1
    assert err.startswith("line 3: not JSON (")
    summary = json.loads(out)
    assert summary["ranges"] == [{"partition": 0, "first_offset": 0, "last_offset": 2}]
    assert (summary["messages"], summary["skipped"]) == (3, 1)
    assert [one.raw for one in client.topic("x").browse()] == [b'{"a": [1, 2]}', b'"text"', b"1.50"]


def test_a_file_and_plain_values(quorl: Quorl, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\nb\n")
    assert quorl("topic", "produce", "x", str(path), "--create", "--partitions", "2").exit_code == 0
    result = quorl("topic", "produce", "x", "--value", "c", "--value", "d", "--key", "k", "--create")
    assert result.exit_code == 0
    assert "2 messages, offsets" in result.stderr
    assert client.topic("x").size() == 4
    assert quorl("topic", "produce", "x", str(tmp_path / "absent")).exit_code == 2
    assert quorl("topic", "produce", "x", "--producer", "1", "--register", "p").exit_code == 2
    assert quorl("topic", "produce", "x", "--value", "v", "--producer", "9").exit_code == 3


def test_a_failure_half_way_says_how_far_it_came(cluster: StandIn, client: Client) -> None:
    client.topics.create("x")
    with start(cluster, "topic", "produce", "x", "--timeout", "1") as process:
        assert process.stdin is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert client.topic("x").browse(0, wait_s=20)
        client.topics.delete("x")
        process.stdin.write(b"two\n")
        process.stdin.flush()
        assert process.stderr is not None
        process.stdin.close()
        err = process.stderr.read().decode()
        assert process.wait(20) == 3
    assert "1 message, offsets 0–0" in err
    assert "certainly stored: the input up to line 1" in err
    assert "error  topic_not_found" in err


def test_whoever_has_had_enough_is_no_failure(cluster: StandIn, client: Client) -> None:
    client.topics.create("x")
    client.topic("x").append_many(["y" * 1000] * 900)
    with start(cluster, "topic", "tail", "x", "--from", "0", "-f") as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"yyy"
        process.stdout.close()
        client.topic("x").append_many(["z" * 1000] * 900)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_following_sees_what_comes(cluster: StandIn, client: Client) -> None:
    client.topics.create("x")
    client.topic("x").append("old")
    for words in (("tail", "x", "-f"), ("consume", "x", "--register", "-f", "-q")):
        with start(cluster, "topic", *words) as process:
            assert process.stdout is not None
            seen = process.stdout.readline()
            assert seen == b"old\n"
            while seen != b"new\n":
                client.topic("x").append("new")
                seen = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        client.topics.delete("x")
        client.topics.create("x")
        client.topic("x").append("old")
