"""``quorl cluster``: what people read of the cluster, and what monitoring does."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from quorl.client.cli.checks import Level, quorum_finding
from quorl.client.cli.cluster import _headline
from quorl.client.cli.hints import NODE
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol.wire import Answer
from tests.client.commands import Quorl
from tests.client.scripted import Clock, problem
from tests.client.stand_in import StandIn, closed_port


def history(cluster: StandIn, *leaders: o.LeaderMark) -> None:
    nothing = o.HistoryCounts(
        submitted=[],
        started=[],
        succeeded=[],
        failed_attempts=[],
        lost=[],
        failed=[],
        appended=[],
        waiting=[],
        running=[],
    )
    found = o.History(
        step=10, queue=None, topic=None, since_ms=0, at_ms=[], counts=nothing, leaders=list(leaders)
    )  # fmt: skip
    cluster.answers["get_history"] = lambda _: found


def test_d15_status_says_since_when_and_whether_it_commits(quorl: Quorl, cluster: StandIn) -> None:
    now_ms = round(1000 * time.time())
    history(
        cluster,
        o.LeaderMark(at_ms=now_ms - 9_000_000, term=6, node="n1"),
        o.LeaderMark(at_ms=now_ms - 11_525_000, term=7, node="n1"),
    )
    result = quorl("cluster", "status")
    assert "leader n1 (term 7, since 3h 12m) · OK" in result.stdout.splitlines()[0]
    assert result.stderr.startswith("Commit check: an entry was committed in ")
    reads = [call.query for _, call in cluster.calls if call.path == "/v1/topics"]
    assert ["consistency=linearizable" in query for query in reads] == [True], "it is no look at what is there already"
    assert quorl("cluster", "status", "-o", "name").stdout == "n1\nn2\nn3\n"
    assert quorl("cluster", "status", "-q").stderr == ""


def test_members(quorl: Quorl, cluster: StandIn) -> None:
    head, first, *_ = quorl("cluster", "members").stdout.splitlines()
    assert head.split() == ["NODE", "ROLE", "HTTP", "RAFT", "VERSION"]
    address = cluster.urls[0].removeprefix("http://")
    assert first.split() == ["n1", "LEADER", address, cluster.info().members[0].raft, "0.1.0"]
    assert [one["name"] for one in json.loads(quorl("cluster", "members", "--json").stdout)] == ["n1", "n2", "n3"]


def test_of_a_cluster_that_is_not_founded_yet_it_is_said_that_a_majority_is_not_enough(cluster: StandIn) -> None:
    info = cluster.info()
    there = [*info.members[:2], msgspec.structs.replace(info.members[2], state="unreachable")]
    info = msgspec.structs.replace(info, cluster_id=None, leader=None, health="no_quorum", members=there)
    found = quorum_finding(info)
    assert found.level == Level.CRIT
    assert found.text == (
        "not founded yet: the very first start needs all 3 members once, 2 are ok: n3 unreachable; writes are not taken"
    )
    assert found.hint == f"See to n3: {NODE}"
    assert _headline(info).endswith("NO QUORUM: n3 unreachable (the very first start needs all 3 once)")


def test_d15_check_is_one_line_and_four_exit_codes(quorl: Quorl, cluster: StandIn) -> None:
    fine = quorl("cluster", "check")
    assert fine.exit_code == 0
    assert fine.stdout.startswith(
        "OK: 3 of 3 members are ok, 2 are needed, n1 leads in term 7; an entry was committed in"
    )
    cluster.health = "degraded"
    degraded = quorl("cluster", "check")
    assert degraded.exit_code == 1
    assert degraded.stdout.startswith(
        "WARN: 1 of 3 members are ok, 2 are needed: n2 unreachable, n3 unreachable; one more"
    )
    cluster.health = "no_quorum"
    assert quorl("cluster", "check").exit_code == 2
    told = json.loads(quorl("cluster", "check", "--json").stdout)
    assert (told["level"], told["checks"][0]["check"]) == ("CRIT", "quorum")
    cluster.health, cluster.leader = "ok", None
    assert "none leads" in quorl("cluster", "check").stdout
    unknown = quorl("cluster", "check", "-s", closed_port(), "--timeout", "0.3")
    assert unknown.exit_code == 3
    assert unknown.stdout.startswith("UNKNOWN: no node answers: ")
    assert unknown.stdout.count("\n") == 1


def test_a_node_that_is_cut_off_does_not_speak_for_those_that_are_not(
    quorl: Quorl, cluster: StandIn, still: Clock
) -> None:
    """Whoever named all of them wants to know of the cluster, and not of the first that answers."""
    info = cluster.info()
    alone = [info.members[0], *(msgspec.structs.replace(one, state="unreachable") for one in info.members[1:])]
    alone_info = msgspec.structs.replace(info, leader=None, health="no_quorum", members=alone)
    says = Answer(200, {"content-type": "application/json"}, msgspec.json.encode(alone_info))

    def cut_off() -> None:
        cluster.mishaps[0].clear()
        cluster.mishaps[0].extend([says] * 20)

    for command, sees in (("check", 2), ("status", 5)):
        cut_off()
        assert quorl("cluster", command).exit_code == 0
        cut_off()
        assert quorl("cluster", command, "-s", cluster.urls[0]).exit_code == sees
    cut_off()
    findings = json.loads(quorl("doctor", "--json").stdout)["findings"]
    assert [one["level"] for one in findings if one["check"] == "commit"] == ["OK"]


def test_check_does_not_believe_in_a_leader_that_commits_nothing(
    quorl: Quorl, cluster: StandIn, still: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mishaps in cluster.mishaps[1:]:
        mishaps.extend([problem("no_quorum")] * 60)
    monkeypatch.setenv("QUORL_SERVER", cluster.urls[0])
    assert quorl("cluster", "check").exit_code == 0
    answer = cluster.info()
    cluster.answers["get_cluster"] = lambda _: answer
    cluster.answers["list_topics"] = lambda _: (_ for _ in ()).throw(RuntimeError)
    critical = quorl("cluster", "check", "-s", cluster.urls[0])
    assert critical.exit_code == 2
    assert critical.stdout.startswith("CRIT: ")


def test_wait_ends_when_it_commits(quorl: Quorl, cluster: StandIn) -> None:
    cluster.mishaps[0].extend([problem("no_leader")] * 3)
    ready = quorl("cluster", "wait", "-s", cluster.urls[0])
    assert ready.exit_code == 0
    assert ready.stderr.startswith("ready: dev · ")
    assert json.loads(quorl("cluster", "wait", "--json").stdout)["leader"] == "n1"


def test_wait_has_an_end(quorl: Quorl, cluster: StandIn, still: Clock) -> None:
    cluster.health = "degraded"
    assert quorl("cluster", "wait", "--max-wait", "1m").exit_code == 0
    late = quorl("cluster", "wait", "--all", "--max-wait", "30s")
    assert late.exit_code == 6
    assert late.stderr.splitlines()[1] == "why    not ok yet: n2, n3"
    assert quorl("cluster", "wait", "--all", "--timeout", "30").stderr.startswith(
        "error  the cluster is not ready after 30.0 s of waiting"
    )
    cluster.leader = None
    assert "no leader yet" in quorl("cluster", "wait", "--max-wait", "30s", "-s", cluster.servers).stderr
    assert quorl("cluster", "wait", "--max-wait", "300ms", "-s", closed_port()).exit_code == 6


def test_status(quorl: Quorl, cluster: StandIn) -> None:
    result = quorl("cluster", "status")
    headline, columns, first, *_ = result.stdout.splitlines()
    assert headline == "dev · cluster 5f2c9a17 · 3 voters, quorum 2 · leader n1 (term 7) · OK"
    assert columns.split() == [
        *["NODE", "ROLE", "STATE", "HTTP", "TERM", "COMMIT", "APPLIED", "LAG", "RTT", "SEEN", "UPTIME", "VERSION"]
    ]
    assert first.split()[:4] == ["n1", "LEADER", "ok", cluster.urls[0].removeprefix("http://")]
    assert first.split()[4:] == ["7", "18", "204", "18", "204", "0", "–", "0", "ms", "3h", "12m", "0.1.0"]
    assert result.exit_code == 0
    assert (
        quorl("cluster", "status", "-o", "csv")
        .stdout.splitlines()[2]
        .endswith("7,18204,18204,0,0.0006,0.04,11520.0,0.1.0")
    )
    cluster.health = "degraded"
    assert quorl("cluster", "status").stdout.splitlines()[-1].split()[4:] == ["–"] * 7 + ["0.1.0"]
    assert quorl("cluster", "status").stderr.endswith("→ quorl doctor --node n2\n")
    cluster.health = "ok"
    assert json.loads(quorl("cluster", "status", "--json").stdout)["leader"] == "n1"


def test_what_all_nodes_say_is_said_once(quorl: Quorl, cluster: StandIn, still: Clock) -> None:
    for mishaps in cluster.mishaps[:2]:
        mishaps.extend([problem("no_quorum")] * 60)
    cluster.mishaps[2].extend([problem("storage_full")] * 60)
    told = quorl("topic", "create", "x").stderr
    assert f"why    {', '.join(cluster.urls[:2])}: 503 no_quorum; {cluster.urls[2]} 507 storage_full\n" in told
