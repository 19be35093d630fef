"""What the command line shows while the quorum is lost: what one node has, and that it says so; programs get the error."""

from __future__ import annotations

import math
import socket
import time
from typing import Any

import pytest

from quorl.client import Client, Unavailable, sync_transport
from quorl.client.cli import looking
from quorl.client.cli.common import Settings
from quorl.cluster.protocol import wire
from quorl.cluster.protocol.grammar import Request
from quorl.cluster.protocol.system import MemberNotFound
from quorl.cluster.protocol.wire import Answer, Call
from tests.client.commands import Quorl
from tests.client.desk import Desk, info
from tests.client.scripted import Clock, problem
from tests.client.stand_in import StandIn

NOTE = "there is no {}: as of entry {}, from n{}, which may be behind  → quorl doctor"


class Outage:
    """From when it begins on, every node refuses what needs others with one problem. Only the pauses between tries take time."""

    def __init__(self, cluster: StandIn, still: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.code = ""
        self.over_s = math.inf
        """When it ends."""
        self.refused = 0
        before = cluster._answer

        async def answer(call: Call) -> Answer:
            if not self.code or still.now >= self.over_s or wire.decode(call)[2].consistency != "linearizable":
                return await before(call)
            self.refused += 1
            return problem(self.code)

        monkeypatch.setattr(cluster, "_answer", answer)


@pytest.fixture
def outage(cluster: StandIn, still: Clock, monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(cluster, still, monkeypatch)


@pytest.mark.parametrize("code", ["no_quorum", "no_leader"])
def test_without_a_quorum_a_topic_is_shown_as_one_node_has_it(
    quorl: Quorl, client: Client, cluster: StandIn, outage: Outage, code: str
) -> None:
    client.topics.create("x", partitions=2)
    client.topic("x").append_many(["one", "two"])
    outage.code = code
    tail = quorl("topic", "tail", "x")
    assert (sorted(tail.stdout.split()), tail.exit_code) == (["one", "two"], 0)
    lacks = code.removeprefix("no_")
    assert tail.stderr.splitlines() in [[NOTE.format(lacks, cluster.machine.position.sequence, n)] for n in (1, 2, 3)]
    shown = quorl("topic", "show", "x")
    assert shown.stdout.startswith("x · created ")
    assert shown.stderr.startswith(f"there is no {lacks}: ")


def test_without_a_quorum_a_task_is_shown_as_one_node_has_it(quorl: Quorl, cluster: StandIn, outage: Outage) -> None:
    Desk(cluster, "default")
    cluster.answers["get_task"] = lambda _: info(id="t-1")
    outage.code = "no_quorum"
    shown = quorl("task", "show", "t-1")
    assert ("t-1" in shown.stdout, shown.exit_code) == (True, 0)
    assert shown.stderr.startswith("there is no quorum: as of entry ")


@pytest.mark.parametrize("line", ["queue ls", "task ls", "topic ls", "worker ls", "dead ls"])
def test_a_list_that_a_node_without_a_leader_gives_is_said_to_be_its_own(
    quorl: Quorl, client: Client, cluster: StandIn, line: str
) -> None:
    client.topics.create("x")
    assert "there is no" not in quorl(*line.split()).stderr
    cluster.leader = None

    def lacks(what: str) -> bool:
        note = NOTE.format(what, cluster.machine.position.sequence, "")
        return note.partition("from n")[0] in quorl(*line.split()).stderr

    cluster.health = "degraded"
    assert lacks("leader")
    cluster.health = "no_quorum"
    assert lacks("quorum"), "as what is read at the leader says"
    cluster.answers["get_cluster"] = lambda _: MemberNotFound(detail="a node that cannot say why")
    assert lacks("leader")
    assert "there is no" not in quorl(*line.split(), "--json").stderr


def test_where_the_wait_for_a_task_finds_no_quorum_it_is_not_said_that_nothing_was_submitted(
    quorl: Quorl, cluster: StandIn, outage: Outage
) -> None:
    Desk(cluster, "default")
    submit = cluster.answers["submit"]

    def and_then_it_is_lost(request: Any) -> Any:
        outage.code = "no_quorum"
        return submit(request)

    cluster.answers["submit"] = and_then_it_is_lost
    for words in (
        ("submit", "demo.add", "1", "2", "--id", "t-1", "--wait"),
        ("wait", "t-1"),
        ("result", "t-1", "--wait"),
    ):
        ended = quorl("task", *words, "--timeout", "20")
        assert (ended.exit_code, "Nothing was applied" in ended.stderr) == (5, False)
        assert "The waiting has ended, not the task: quorl doctor, and then quorl task wait t-1" in ended.stderr


@pytest.mark.parametrize("word", ["--json", "-q"])
def test_a_program_is_not_given_what_may_be_old(
    quorl: Quorl, client: Client, outage: Outage, still: Clock, word: str
) -> None:
    client.topics.create("x")
    outage.code = "no_quorum"
    began = still.now
    refused = quorl("topic", "show", "x", word, "--timeout", "20")
    assert looking.PATIENCE_S < still.now - began <= 20
    assert (refused.stdout, refused.exit_code) == ("", 5)
    assert "no_quorum" in refused.stderr


@pytest.mark.parametrize("timeout_s", [looking.PATIENCE_S / 2, looking.PATIENCE_S * 5])
def test_what_is_no_lost_quorum_is_tried_to_the_end_and_told(
    quorl: Quorl, client: Client, outage: Outage, still: Clock, timeout_s: float
) -> None:
    client.topics.create("x")
    outage.code = "not_ready"
    began = still.now
    refused = quorl("topic", "show", "x", "--timeout", f"{timeout_s}")
    assert timeout_s / 2 < still.now - began <= timeout_s
    assert (refused.stdout, refused.exit_code, outage.refused > 0) == ("", 5, True)
    assert "not_ready" in refused.stderr


def test_an_election_is_waited_for(quorl: Quorl, client: Client, outage: Outage, still: Clock) -> None:
    client.topics.create("x")
    outage.code, outage.over_s = "no_leader", still.now + looking.PATIENCE_S / 2
    shown = quorl("topic", "show", "x")
    assert (shown.stderr, shown.exit_code, outage.refused > 0) == ("", 0, True)


def test_what_passes_is_waited_for_longer_than_an_election(
    quorl: Quorl, client: Client, outage: Outage, still: Clock
) -> None:
    client.topics.create("x")
    outage.code, outage.over_s = "not_ready", still.now + looking.PATIENCE_S + 1
    shown = quorl("topic", "show", "x")
    assert (shown.stderr, shown.exit_code) == ("", 0)


@pytest.mark.parametrize("words", ["topic ls", "task submit shop.add 4", "cluster status"])
def test_what_speaks_no_http_is_told_at_once(
    quorl: Quorl, ssh: str, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"it tries again in {seconds} s"))
    told = quorl(*words.split(), "-s", ssh)
    assert (told.stdout, told.exit_code) == ("", 5)
    what, why, hint = told.stderr.splitlines()
    assert what.startswith("error  unreadable_answer: what answers there is not quorl, while calling ")
    assert why.startswith(
        f"why    http://{ssh} what answers there does not speak HTTP ('SSH-2.0-OpenSSH_9.2p1'); is it "
    )
    assert hint.startswith("try    Nothing was applied. Is that the address of a node")


def test_where_nobody_says_anything_a_look_does_not_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_transport, "CONNECT_TIMEOUT_S", 0.05)
    before, calls, said = Client.call, [], list[str]()

    def call(self: Client, request: Request[Any], **how: Any) -> Any:
        calls.append(request)
        return before(self, request, **how)

    monkeypatch.setattr(Client, "call", call)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # the system takes connections for it
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with (
            looking.Looking((address,), said.append, refused_s=0.05) as client,
            pytest.raises(Unavailable, match="it took the connection and said nothing") as caught,
        ):
            client.topics.list()
    assert (caught.value.nobody, len(calls), said) == (True, 1, [])


def test_where_nobody_says_anything_showing_the_calls_takes_no_longer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sync_transport, "CONNECT_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with (
            Client(address, refused_s=0.05, transport=Settings(verbose=True).transport()) as client,
            pytest.raises(Unavailable, match="it took the connection and said nothing") as caught,
        ):
            client.topics.list()
    assert caught.value.nobody
    told = capsys.readouterr().err.splitlines()[0]
    assert told.startswith(f"http   GET {address}/v1/topics?limit=")
    assert "→ it took the connection and said nothing for 0.1 s" in told
