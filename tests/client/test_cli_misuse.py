"""A command that is called wrongly: what, why and what to do, with exit code 2, and as JSON where that was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quorl.client.cli.misuse import wants_json
from quorl.client.route import PORT_DEFAULT, read_servers
from tests.client.commands import Quorl
from tests.client.scripted import problem
from tests.client.stand_in import StandIn, closed_port

WRONG = {
    "--bogus": ("quorl has no option --bogus", "did you mean --verbose?", "quorl --help"),
    "frobnicate": ("quorl has no command frobnicate", "there are: api, bench, cheat", "quorl --help"),
    "submit shop.add": ("quorl has no command submit", "did you mean quorl task submit?", "quorl --help"),
    "topic produce t hello-there": (
        "quorl topic produce does not take this SOURCE",
        "cannot read hello-there: No such file or directory",
        "A text instead of a file: quorl topic produce t --value TEXT",
    ),
    "topic delete t": ("quorl topic has no command delete", "did you mean rm?", "quorl topic --help"),
    "queue create q": ("quorl queue has no command create", "did you mean set?", "quorl queue --help"),
    "worker list": ("quorl worker has no command list", "did you mean ls?", "quorl worker --help"),
    "topic lss": ("quorl topic has no command lss", "did you mean ls?", "quorl topic --help"),
    "topic ls --jsn": ("quorl topic ls has no option --jsn", "did you mean --json?", "quorl topic ls --help"),
    "topic ls --zzz": ("quorl topic ls has no option --zzz", "it is none of its options", "quorl topic ls --help"),
    "topic create": (
        "quorl topic create needs NAME",
        "usage: quorl topic create [OPTIONS] NAME",
        "quorl topic create --help",
    ),
    "completion": ("quorl completion needs SHELL", "Choose from: bash, zsh, fish", "quorl completion --help"),
    "node check": ("quorl node check needs --config", "usage: quorl node check [OPTIONS]", "quorl node check --help"),
    "node logs -n ten": (
        "quorl node logs does not take this --lines",
        "'ten' is no whole number",
        "quorl node logs --help",
    ),
    "topic ls --watch=x": ("quorl topic ls does not take this --watch", "'x' is no number", "quorl topic ls --help"),
    "topic ls -o jso": (
        "quorl topic ls does not take this --output",
        "'jso' is not one of table, wide, json, ndjson, csv, name; did you mean json?",
        "quorl topic ls --help",
    ),
    "queue purge q --status queud": (
        "quorl queue purge does not take this --status",
        "'queud' is not one of SCHEDULED, QUEUED, RETRY, SUCCESS, FAILED, CANCELLED, EXPIRED; did you mean QUEUED?",
        "quorl queue purge --help",
    ),
    "completion powershell": (
        "quorl completion does not take this SHELL",
        "'powershell' is not one of bash, zsh, fish",
        "quorl completion --help",
    ),
    "queue set q --backoff exponental": (
        "quorl queue set does not take this --backoff",
        "'exponental': write fixed, linear or exponential, then :FIRST:MAX, or delays as 1s,5s,1m; did you mean exponential?",
        "quorl queue set --help",
    ),
    "api GTE /v1/queues": (
        "quorl api does not take this METHOD",
        "'GTE' is none of GET, POST, PUT, PATCH, DELETE, HEAD; did you mean GET?",
        "quorl api --help",
    ),
    "node logs -n": (
        "option '-n' requires an argument",
        "usage: quorl node logs [OPTIONS] [NAME]...",
        "quorl node logs --help",
    ),
    "topic ls a b": (
        "quorl topic ls does not take b",
        "usage: quorl topic ls [OPTIONS] [PREFIX]",
        "quorl topic ls --help",
    ),
    "topic create t --partitions 0": (
        "quorl topic create does not take this --partitions",
        "0 is too much or too little: from 1 to 256",
        "quorl topic create --help",
    ),
    "topic ls --timeout 0": (
        "quorl topic ls does not take this --timeout",
        "0.0 is too little: more than 0",
        "quorl topic ls --help",
    ),
    "topic size t --consumer 0": (
        "quorl topic size does not take this --consumer",
        "0 is too little: at least 1",
        "quorl topic size --help",
    ),
    "topic produce t --value x --partitions 2": (
        "--partitions is for --create: a topic that is there keeps its number",
        "usage: quorl topic produce [OPTIONS] TOPIC [SOURCE]",
        "quorl topic produce --help",
    ),
    "context add ! 127.0.0.1": ("quorl context add does not take this NAME", "it is empty", "quorl context add --help"),
    "node init --cluster a --members a:1 --out /nowhere": (
        "quorl node init does not take this --members",
        "'a:1' is no host: write 10.0.0.11, a name, or [::1], without a port",
        "quorl node init --help",
    ),
    "topic consume t --register -n 1 --all": (
        "say either --max or --all",
        "usage: quorl topic consume [OPTIONS] TOPIC",
        "quorl topic consume --help",
    ),
    "dead purge -y": (
        "say which: IDs, --error TEXT, or --all",
        "usage: quorl dead purge [OPTIONS] [ID]...",
        "quorl dead purge --help",
    ),
    "dead purge --name shop.add -y": (
        "add --all to purge every FAILED shop.add",
        "usage: quorl dead purge [OPTIONS] [ID]...",
        "quorl dead purge --help",
    ),
    "dead retry -q emails -y": (
        "add --all to retry every FAILED task of queue emails",
        "usage: quorl dead retry [OPTIONS] [ID]...",
        "quorl dead retry --help",
    ),
    "topic ls -s ftp://x": (
        "quorl topic ls does not take this --server",
        "'ftp://x' is no server address: it should look like 127.0.0.1:7101 or https://queue.example",
        "quorl topic ls --help",
    ),
}


@pytest.mark.parametrize("line", WRONG)
def test_d15_what_is_wrong_with_a_line_is_told_like_every_error(quorl: Quorl, cluster: StandIn, line: str) -> None:
    what, why, hint = WRONG[line]
    said = [word.replace("!", "") for word in line.split()]
    done = quorl(*said)
    assert (done.exit_code, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0] == f"error  {what}"
    assert lines[1].startswith(f"why    {why}")
    assert lines[2:] == [f"try    {hint}"]
    words = ["--json", *said]
    asked = quorl(*words)
    assert (asked.exit_code, asked.stdout) == (2, "")
    error = json.loads(asked.stderr)["error"]
    assert error["detail"].startswith(why)
    assert error | {"detail": ""} == {"code": "usage", "title": what, "detail": "", "hint": hint}
    assert cluster.calls == []


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("topic ls --json", True),
        ("-o json topic", True),
        ("-ojson topic", True),
        ("topic --output ndjson", True),
        ("topic --output=json", True),
        ("topic -o csv", False),
        ("task submit x -- --json", False),
        ("topic", False),
        ("topic -o", False),
    ],
)
def test_whether_a_line_that_cannot_be_read_asks_for_json(line: str, wanted: bool) -> None:
    assert wants_json(line.split()) is wanted


def test_a_group_alone_explains_itself(quorl: Quorl) -> None:
    done = quorl("topic")
    assert done.exit_code == 2
    assert done.stderr.startswith("Usage: quorl topic [OPTIONS] COMMAND")


def test_where_a_wrong_address_came_from(quorl: Quorl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUORL_SERVER", "a:b")
    assert "does not take this QUORL_SERVER" in quorl("topic", "ls").stderr


# -- addresses, and nobody there ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("foo", f"http://foo:{PORT_DEFAULT}"),
        ("foo:80", "http://foo:80"),
        ("[::1]", f"http://[::1]:{PORT_DEFAULT}"),
        ("10.0.0.1/base/", f"http://10.0.0.1:{PORT_DEFAULT}/base"),
        ("http://foo", "http://foo"),
        ("https://foo/", "https://foo"),
    ],
)
def test_a_host_alone_is_the_node_there(given: str, asked: str) -> None:
    assert read_servers(given) == (asked,)


@pytest.mark.parametrize("given", ["a b", "::1", "http://[::1", "foo:bar", "foo:99999", "http//foo"])
def test_what_is_no_address_is_told_so(given: str) -> None:
    with pytest.raises(ValueError, match="is no server address: it should look like"):
        read_servers(given)


@pytest.mark.parametrize("given", [7101, ["foo", None]])
def test_what_is_no_text_is_no_address_either(given: Any) -> None:
    with pytest.raises(TypeError, match="(7101|None) is no server address: it should be text like"):
        read_servers(given)


@pytest.mark.parametrize(
    "words", [["topic", "ls", "--timeout", "0.2"], ["node", "status"], ["doctor"], ["api", "GET", "/v1/cluster"]]
)
def test_of_a_url_without_a_port_every_command_says_which_was_tried(quorl: Quorl, words: list[str]) -> None:
    done = quorl(*words, "-s", "http://127.1.2.3", "--timeout", "0.5")  # where nobody listens on port 80
    assert "port 80 was tried, as for any URL without one, and nodes listen on 7101" in done.stdout + done.stderr


def test_where_nobody_answers_quorl_up_is_named_first(quorl: Quorl, cluster: StandIn) -> None:
    for words in (["topic", "ls", "--timeout", "0.2"], ["node", "status"], ["doctor"]):
        done = quorl(*words, "-s", closed_port())
        said = done.stdout + done.stderr
        assert (
            "quorl up (a cluster on this machine) · a node of a cluster as it was set up: systemctl start quorl,"
            in said
        )


def test_where_nodes_answer_that_cannot_it_is_about_the_cluster(quorl: Quorl, cluster: StandIn) -> None:
    for mishaps in cluster.mishaps:
        mishaps.extend([problem("no_quorum")] * 9)
    done = quorl("topic", "ls", "--timeout", "1")
    assert done.exit_code == 5
    assert done.stderr.splitlines()[-1].endswith("quorl doctor · quorl errors no_quorum")
