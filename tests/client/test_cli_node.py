"""``quorl node status``: the health of one node, for people, programs and health checks."""

from __future__ import annotations

import json
import socket

import pytest

from quorl.client import flow
from quorl.cluster.protocol.wire import Answer
from tests.client.commands import Quorl
from tests.client.stand_in import StandIn, closed_port

GOOD = b"[+]raft ok: leader, term 3\n[+]leader ok: n1 leads\nready\n"
BAD = b"[+]raft ok: follower, term 3\n[-]leader failed: none; other members: n2: refused\nnot ready\n"


@pytest.mark.parametrize(("status", "text", "code"), [(200, GOOD, 0), (503, BAD, 5)])
def test_d15_a_health_check_is_told_by_the_exit_code_alone(
    quorl: Quorl, cluster: StandIn, status: int, text: bytes, code: int
) -> None:
    for words, shown, ends in (
        (["--ready", "-q"], "", code),
        (["--ready"], text.decode(), code),
        ([], text.decode(), 0),
    ):
        cluster.mishaps[0].append(Answer(status, {"content-type": "text/plain"}, text))
        done = quorl("node", "status", *words)
        talk = "" if "-q" in words else f"of {cluster.urls[0]}, the first of 3:\n"
        assert (done.exit_code, done.stdout, done.stderr) == (ends, shown, talk)
    assert [(name, call.path, call.query) for name, call in cluster.calls] == [("n1", "/readyz", "verbose")] * 3


def test_programs_are_told_check_by_check(quorl: Quorl, cluster: StandIn) -> None:
    cluster.mishaps[0].append(Answer(503, {"content-type": "text/plain"}, BAD))
    told = json.loads(quorl("node", "status", "--json").stdout)
    assert told == {
        "server": cluster.urls[0],
        "ready": False,
        "checks": [
            {"name": "raft", "ok": True, "detail": "follower, term 3"},
            {"name": "leader", "ok": False, "detail": "none; other members: n2: refused"},
        ],
    }


def test_a_node_that_does_not_answer_is_not_ready(quorl: Quorl) -> None:
    for words in ([], ["--ready", "-q"]):
        done = quorl("node", "status", "-s", closed_port().removeprefix("http://"), *words)
        assert (done.exit_code, done.stdout) == (5, "")
        assert "no answer from http://127.0.0.1:" in done.stderr
        assert done.stderr.splitlines()[1] == "why    connection refused"
        assert "quorl up" in done.stderr


@pytest.mark.parametrize("status", [200, 404])
def test_the_page_of_another_server_is_no_health(quorl: Quorl, cluster: StandIn, status: int) -> None:
    page = Answer(status, {"content-type": "text/html; charset=utf-8"}, b"<html>\n<h1>Index of /\xff</h1>\n</html>\n")
    cluster.mishaps[0].append(page)
    done = quorl("node", "status")
    assert (done.exit_code, done.stdout) == (5, "")
    assert done.stderr.splitlines()[:2] == [
        f"error  no node answers at {cluster.urls[0]}",
        f"why    what answers there is not quorl (text/html, HTTP {status})",
    ]
    for mishaps in cluster.mishaps:
        mishaps += [page, page]  # a command that looks asks again
    told = quorl("topic", "ls", "-s", cluster.urls[0]).stderr.splitlines()
    assert len(told) == 3
    assert "what answers there is not quorl (text/html): <html> <h1>Index of" in told[1]


def test_what_speaks_no_http_is_no_node(quorl: Quorl, ssh: str) -> None:
    done = quorl("node", "status", "-s", ssh)
    assert (done.stdout, done.exit_code) == ("", 5)
    assert done.stderr.splitlines()[1].startswith("why    what answers there does not speak HTTP; is it a node's raft")


def test_whoever_says_nothing_is_not_waited_for_as_long_as_a_call(
    quorl: Quorl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "SILENT_PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        done = quorl("node", "status", "-s", f"127.0.0.1:{mute.getsockname()[1]}")
    assert (done.stdout, done.exit_code) == ("", 5)
    assert done.stderr.splitlines()[1] == "why    nothing was said in 0.1 s"


def test_an_address_that_is_none_is_refused(quorl: Quorl) -> None:
    done = quorl("node", "status", "-s", "http://[")
    assert done.exit_code == 2
    assert "no server address" in done.stderr
