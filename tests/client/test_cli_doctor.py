"""``quorl doctor``: what it concludes from what nodes say, and how it ends."""

from __future__ import annotations

import json
import socket
from typing import Any

import msgspec
import pytest

import quorl as package
from quorl.client.cli.checks import Finding, Level, worst
from quorl.client.cli.common import Exit
from quorl.client.cli.doctor import Visit, compared, examined, members_of, of_node
from quorl.client.cli.hints import NODE
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol.system import ClusterInfo
from quorl.cluster.protocol.wire import Answer
from tests.client import sights
from tests.client.commands import Quorl
from tests.client.scripted import Clock
from tests.client.stand_in import StandIn, closed_port

READY = "[+]raft ok: leader, term 7\n[+]disk ok: 60000 MiB free\nready\n"


def visit(info: ClusterInfo, node: str, *, seen: dict[str, Any] | None = None, **changes: Any) -> Visit:
    """A node of this cluster that answers."""
    info = msgspec.structs.replace(info, node=node, **changes)
    overview = sights.overview(info, **({"version": package.__version__} | (seen or {})))
    made = sights.MADE_AT_MS
    member = next(one for one in info.members if one.name == node)
    return Visit(f"http://{member.http}", member, info=info, seen=overview, asked_ms=(made, made + 3), ready=READY)


def wrong(visits: list[Visit]) -> list[tuple[str, str, str]]:
    """What is found that is not ok: level, check and node."""
    findings = [found for one in visits for found in of_node(one)] + list(compared(visits))
    return [(one.level.name, one.check, one.node) for one in findings if one.level != Level.OK]


def test_d15_nothing_is_wrong_with_a_cluster_that_agrees(cluster: StandIn) -> None:
    assert wrong([visit(cluster.info(), name) for name in ("n1", "n2", "n3")]) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"leader": "n2"}, ("WARN", "leader", "")),
        ({"term": 6}, ("WARN", "leader", "")),
        ({"cluster_id": "other"}, ("CRIT", "cluster", "")),
        ({"machine_version": 2}, ("WARN", "machine", "")),
        ({"digest": "ff"}, ("CRIT", "state", "")),
        ({"seen": {"version": "0.0.9"}}, ("WARN", "version", "")),
        ({"seen": {"made_at_ms": sights.MADE_AT_MS - 5_000}}, ("WARN", "clock", "n3")),
        ({"seen": {"made_at_ms": sights.MADE_AT_MS + 5_000}}, ("WARN", "clock", "n3")),
    ],
)
def test_d15_a_node_that_differs_is_found(cluster: StandIn, changes: dict[str, Any], found: tuple[str, ...]) -> None:
    info = cluster.info()
    assert wrong([visit(info, "n1"), visit(info, "n2"), visit(info, "n3", **({"seen": {}} | changes))]) == [found]


def test_d15_configurations_that_drifted_are_found(cluster: StandIn) -> None:
    info = cluster.info()
    moved = [msgspec.structs.replace(one, raft="10.0.0.9:7201") if one.name == "n2" else one for one in info.members]
    visits = [visit(info, "n1"), visit(info, "n2", members=moved), visit(info, "n3")]
    assert wrong(visits) == [("CRIT", "config", "")]
    (told,) = [one.text for one in compared(visits) if one.check == "config"]
    assert "; n2 says n1" in told
    assert "10.0.0.9:7201" in told


@pytest.mark.parametrize(
    ("changes", "level", "check", "text", "hint"),
    [
        (
            {"secret_fingerprint": "0000"},
            "CRIT",
            "secret",
            "the cluster secrets differ, by their fingerprints: n1, n2 say 3f9a; n3 says 0000; members refuse one that has another",
            "Copy the secret_file of n1 to n3, and restart n3.",
        ),
        (
            {"heartbeat_ms": 250},
            "WARN",
            "settings",
            "they differ in [raft] heartbeat_ms: n1, n2 say 100; n3 says 250; whether a leader is heard in time depends on which node leads",
            "Set the same [raft] heartbeat_ms in every config, and restart the nodes whose config changed, one after another.",
        ),
        (
            {"max_payload_bytes": 2048},
            "WARN",
            "settings",
            "they differ in [http] max_payload_bytes: n1, n2 say 1048576; n3 says 2048; what one node takes another refuses as too large",
            "Set the same [http] max_payload_bytes in every config, and restart the nodes whose config changed, one after another.",
        ),
    ],
)
def test_d15_secrets_and_settings_that_differ_are_found(
    cluster: StandIn, changes: dict[str, Any], level: str, check: str, text: str, hint: str
) -> None:
    info = cluster.info()
    assert info.settings is not None
    other = msgspec.structs.replace(info.settings, **changes)
    visits = [visit(info, "n1"), visit(info, "n2"), visit(info, "n3", settings=other)]
    (found,) = [one for one in compared(visits) if one.level != Level.OK]
    assert (found.level.name, found.check, found.text, found.hint) == (level, check, text, hint)


def cut_off(cluster: StandIn, prints: dict[str, str | None]) -> list[Visit]:
    """Three nodes with these secrets: each takes those that have another for unreachable."""
    info = cluster.info()
    assert info.settings is not None
    visits = []
    for name, own in prints.items():
        away = [other for other, its in prints.items() if its != own]
        members = [
            msgspec.structs.replace(one, state="unreachable") if one.name in away else one for one in info.members
        ]
        led = len(members) - len(away) >= info.quorum
        settings = msgspec.structs.replace(info.settings, secret_fingerprint=own)
        health, leader = ("degraded", "n1") if led else ("no_quorum", None)
        one = visit(info, name, settings=settings, members=members, leader=leader, health=health)
        if not led:
            told = "; ".join(f"{other}: refused [secret]: cannot prove the cluster secret" for other in away)
            one.ready = f"[-]leader failed: none; other members: {told}\nnot ready\n"
        visits.append(one)
    return visits


@pytest.mark.parametrize(
    ("prints", "advice"),
    [
        ({"n1": "aa", "n2": "aa", "n3": "bb"}, "Copy the secret_file of n1 to n3, and restart n3."),
        ({"n1": "aa", "n2": "bb", "n3": "bb"}, "Copy the secret_file of n2 to n1, and restart n1."),
        ({"n1": "aa", "n2": None, "n3": "bb"}, "Give all the same secret_file, and restart those that had another."),
        ({"n1": None, "n2": None, "n3": "bb"}, "Give all the same secret_file, and restart those that had another."),
    ],
)
def test_secrets_that_differ_come_first_and_nothing_else_is_advised_for_what_follows_from_them(
    cluster: StandIn, prints: dict[str, str | None], advice: str
) -> None:
    first, *rest = examined(cut_off(cluster, prints))
    assert (first.level, first.check, first.hint) == (Level.CRIT, "secret", advice)
    assert [(one.check, one.hint) for one in rest if one.level != Level.OK and one.hint] == []
    assert "quorum" in [one.check for one in rest if one.level != Level.OK]


@pytest.mark.parametrize(("told", "twin"), [("told twin", "n3"), ("twin", "n1")])
def test_two_processes_of_one_name_are_found_at_either_side_by_the_code_of_the_refusal(
    cluster: StandIn, told: str, twin: str
) -> None:
    three = visit(cluster.info(), "n3")
    refused = f"n1: refused [{told}]: in whatever words"
    three.ready = f"[-]leader failed: none; other members: n2: refused [garbled]: is no node; {refused}\n"
    (found,) = [one for one in examined([three]) if one.check == "leader" and one.node == "n3"]
    assert found.level == Level.CRIT
    assert found.hint == f"Two processes run as {twin}: stop the one that should not be there."


def test_a_member_that_is_away_for_another_reason_is_still_seen_to(cluster: StandIn) -> None:
    visits = cut_off(cluster, {"n1": "aa", "n2": "aa", "n3": "bb"})[::2]
    info = visits[0].info
    assert info is not None
    members = [msgspec.structs.replace(one, state="unreachable") for one in info.members[1:]]
    visits[0].info = msgspec.structs.replace(info, health="no_quorum", members=[info.members[0], *members])
    (hint,) = [one.hint for one in examined(visits) if one.check == "quorum"]
    assert hint == f"See to n2: {NODE}"


def test_who_is_refused_for_the_secret_by_one_that_cannot_be_asked_is_told_so(cluster: StandIn) -> None:
    (only,) = cut_off(cluster, {"n3": "bb", "n2": "aa", "n1": "aa"})[:1]
    first, *rest = examined([only])
    assert first.text == "n3 and n2, n1 have different cluster secrets: they refuse each other"
    assert first.hint.startswith("Give all the same secret_file")
    assert not [one.hint for one in rest if one.check == "leader" and one.hint]


def test_nothing_is_committed_for_the_secrets_alone(
    quorl: Quorl, cluster: StandIn, still: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits = cut_off(cluster, {"n1": "aa", "n2": "bb", "n3": "cc"})
    monkeypatch.setattr("quorl.client.cli.doctor.visit_all", lambda _: visits)
    for mishaps in cluster.mishaps:
        mishaps.extend([Answer(503, {"content-type": "application/problem+json"}, b'{"code": "no_quorum"}')] * 90)
    told = quorl("doctor")
    assert told.exit_code == Level.CRIT
    assert [line for line in told.stdout.splitlines() if line.startswith("try")] == [
        "try  secret: Give all the same secret_file, and restart those that had another."
    ]
    assert "nothing is committed" in told.stdout


def test_a_node_of_an_earlier_version_says_nothing_of_its_settings(cluster: StandIn) -> None:
    info = cluster.info()
    assert wrong([visit(info, "n1"), visit(info, "n2", settings=None)]) == []
    assert [
        one.check for one in compared([visit(info, "n1", settings=None)]) if one.check in {"secret", "settings"}
    ] == []
    assert info.settings is not None
    bare = msgspec.structs.replace(info.settings, secret_fingerprint=None)
    texts = [one.text for one in compared([visit(info, "n1", settings=bare)])]
    assert "no node has a cluster secret" in texts


def test_states_are_only_compared_at_the_same_sequence(cluster: StandIn) -> None:
    info = cluster.info()
    assert wrong([visit(info, "n1", sequence=5), visit(info, "n2", sequence=6, digest="ff")]) == []


def test_a_node_that_does_not_answer(cluster: StandIn) -> None:
    info = cluster.info()
    away = Visit(f"http://{info.members[2].http}", info.members[2], why="connection refused")
    (found,) = of_node(away)
    behind = Visit(away.url, msgspec.structs.replace(info.members[2], state="catching_up"), why="connection refused")
    assert list(of_node(behind)) == [found]
    assert (found.level, found.check, found.node) == (Level.WARN, "port", "n3")
    assert found.text == f"{info.members[2].http} does not answer: connection refused; other members hear it"
    unheard = Visit("http://nowhere:1", why="no such host")
    assert "hear" not in next(of_node(unheard)).text


def test_health_and_lag_and_alerts(cluster: StandIn) -> None:
    info = cluster.info()
    members = [msgspec.structs.replace(one, lag=5_000) if one.name == "n2" else one for one in info.members]
    alerts = [
        o.Alert(code="no_workers", severity="critical", text="reports: 3 tasks wait", queue="reports"),
        o.Alert(code="worker_dead", severity="warning", text="w1 is DEAD", worker_id=1),
        o.Alert(code="one_failure_left", severity="critical", text="is said already"),
    ]
    one = visit(info, "n1", members=members, seen={"alerts": alerts})
    one.ready = "[-]disk failed: 12 MiB free\n[-]replay failed: 20000 committed entries\nnot ready\n"
    assert wrong([one]) == [
        ("CRIT", "disk", "n1"),
        ("WARN", "replay", "n1"),
        ("WARN", "lag", "n2"),
        ("WARN", "no workers", ""),  # the cluster is well: perhaps somebody has misspelt a queue
        ("WARN", "worker dead", ""),
    ]
    hints = {found.check: found.hint for found in compared([one])}
    assert hints["no workers"] == "Start one: quorl worker run MODULE:APP -q reports"
    workers = [
        sights.worker(1, "w1", queues=["report", "mails"]),
        sights.worker(2, "w2", status="DEAD", queues=["reports."]),
    ]
    one = visit(info, "n1", members=members, seen={"alerts": alerts, "workers": workers})
    near = {found.check: found.hint for found in compared([one])}["no workers"]
    assert near == "Did you mean `report`? Else start one: quorl worker run MODULE:APP -q reports"
    assert hints["worker dead"].startswith("Start it again, or another one for its queues")
    one.ready = "[+]disk ok: 500 MiB free\n"
    assert [found.level for found in of_node(one) if found.check == "disk"] == [Level.WARN]


def test_a_cluster_that_is_not_founded_agrees_on_no_leader(cluster: StandIn) -> None:
    info = cluster.info()
    young = [visit(info, name, leader=None, cluster_id=None) for name in ("n1", "n2", "n3")]
    told = {found.check: (found.level, found.text) for found in compared(young)}
    assert "leader" not in told, "each node says for itself that it knows none"
    assert told["cluster"] == (Level.OK, f"all say the same of the cluster: {info.name} (not founded yet)")


def test_the_worst_is_what_is_known_to_be_wrong() -> None:
    def of(*levels: Level) -> Level:
        return worst([Finding(level, "x", "", "") for level in levels])

    assert of() == Level.UNKNOWN
    assert of(Level.OK, Level.WARN, Level.OK) == Level.WARN
    assert of(Level.UNKNOWN, Level.WARN) == Level.UNKNOWN
    assert of(Level.UNKNOWN, Level.CRIT) == Level.CRIT


def test_d15_the_report(quorl: Quorl, cluster: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorl.client.cli.doctor.SKEW_MS", 10**15)  # the stand-in's clock stands still
    fine = quorl("doctor")
    assert fine.exit_code == 0
    assert fine.stdout.splitlines()[-1] == "OK: nothing to look at"
    assert columns_of(fine.stdout) == ["LEVEL", "CHECK", "NODE", "FOUND"]
    told = json.loads(quorl("doctor", "--json").stdout)
    assert told["level"] == "OK"
    assert {"at", "version", "python", "platform", "servers", "findings"} < set(told)
    cluster.health = "degraded"
    warned = quorl("doctor", "-s", f"{cluster.urls[0]},{closed_port()}")
    assert warned.exit_code == 1
    assert "try  quorum: See to n2, n3" in warned.stdout
    cluster.health = "no_quorum"
    assert quorl("doctor").exit_code == 2
    assert quorl("doctor", "--node", "n1").exit_code == 2
    assert "no node is called 'n7'" in quorl("doctor", "--node", "n7").stderr


def test_d15_no_node_answers(quorl: Quorl) -> None:
    unknown = quorl("doctor", "-s", closed_port(), "--timeout", "1")
    assert unknown.exit_code == 3
    assert "connection refused" in unknown.stdout
    assert unknown.stdout.splitlines()[-1] == "UNKNOWN: 2 findings to look at"


def test_a_node_alone_that_does_not_answer_says_nothing_of_the_others(quorl: Quorl, cluster: StandIn) -> None:
    """Which are not to be started for it: they have just been asked."""
    info = cluster.info()
    shut = closed_port().removeprefix("http://")
    members = [*info.members[:2], msgspec.structs.replace(info.members[2], http=shut, state="unreachable")]
    cluster.answers["get_cluster"] = lambda _: msgspec.structs.replace(info, members=members)
    alone = quorl("doctor", "--node", "n3", "-s", cluster.urls[0])
    assert alone.exit_code == 3
    assert "n3 does not answer, so how it sees the cluster is not known" in alone.stdout
    assert "try  cluster: Ask the others, too: quorl doctor" in alone.stdout
    assert "quorl up" not in alone.stdout


def test_a_commit_is_timed_where_a_node_answers(quorl: Quorl, cluster: StandIn) -> None:
    """One that is away may take seconds to be given up, and they are not those of the commit."""
    cluster.calls.clear()
    silent = socket.socket()
    with silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        findings = json.loads(quorl("doctor", "-s", f"{url},{cluster.urls[0]}", "--json").stdout)["findings"]
    (commit,) = [one for one in findings if one["check"] == "commit"]
    assert commit["level"] == "OK"


def test_a_member_that_runs_and_is_not_heard_is_not_to_be_started(cluster: StandIn) -> None:
    info = cluster.info()
    members = [*info.members[:2], msgspec.structs.replace(info.members[2], state="unreachable")]
    info = msgspec.structs.replace(info, members=members, health="degraded")
    visits = [visit(info, name) for name in ("n1", "n2", "n3")]
    visits[2].raft_why = "timed out"
    hints = {one.check: one.hint for one in examined(visits) if one.level != Level.OK}
    assert hints["quorum"] == "See to the network between n3 and the others, and to its firewall: it runs."
    assert hints["raft port"] == "It runs: does a firewall let the members through?"
    (alone,) = [one.hint for one in examined(visits[:1]) if one.check == "quorum"]
    assert alone == f"See to n3: {NODE}"


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("told cluster", "Give all the same [cluster] name."),
        ("cluster_id", "One of them has the data_dir of another cluster: give it that of this one, or an empty one."),
        ("something_new", "The node's log says more."),
    ],
)
def test_of_a_member_that_is_refused_the_network_is_not_blamed(cluster: StandIn, code: str, advice: str) -> None:
    info = cluster.info()
    members = [*info.members[:2], msgspec.structs.replace(info.members[2], state="unreachable")]
    info = msgspec.structs.replace(info, members=members, health="degraded")
    visits = [visit(info, "n1"), visit(info, "n2"), visit(info, "n3", leader=None)]
    both = "; ".join(f"{peer}: refused [{code}]: in whatever words" for peer in ("n1", "n2"))
    visits[2].ready = f"[-]leader failed: none; other members: {both}\nnot ready\n"
    hints = [(one.check, one.node, one.hint) for one in examined(visits) if one.level != Level.OK and one.hint]
    assert hints == [("leader", "n3", advice)]


@pytest.mark.parametrize(
    ("why", "advice"),
    [
        ("connection refused", f"Does it run there?  {NODE}"),
        ("network is unreachable", "This machine has no way to it: is its own link up?"),
        ("no route to host", "Is its machine up, and does its firewall let this one in?"),
        ("time-out while connecting", "Is its machine up, and does its firewall let this one in?"),
        ("it took the connection and said nothing for 2.0 s", "If a node runs there, it hangs: see to its log"),
    ],
)
def test_what_to_do_about_a_node_that_does_not_answer_follows_from_how_it_does_not(why: str, advice: str) -> None:
    assert next(of_node(Visit("http://nowhere:1", why=why))).hint.startswith(advice)


@pytest.mark.parametrize("order", ["n1 n2 n3", "n3 n2 n1"])
def test_whether_a_member_is_there_is_the_word_of_the_others(cluster: StandIn, order: str) -> None:
    """A node whose raft port alone is behind a firewall answers over HTTP, and is all right by itself."""
    info = cluster.info()

    def seen_by(node: str) -> ClusterInfo:
        away = {"n1", "n2"} if node == "n3" else {"n3"}
        members = [
            msgspec.structs.replace(one, state="unreachable" if one.name in away else "ok") for one in info.members
        ]
        return msgspec.structs.replace(info, node=node, members=members, leader=None if node == "n3" else "n1")

    members = members_of([seen_by(node) for node in order.split()])
    assert {name: one.state for name, one in members.items()} == {"n1": "ok", "n2": "ok", "n3": "unreachable"}


def test_a_member_with_a_full_disk_is_not_counted_on(quorl: Quorl, cluster: StandIn) -> None:
    info = cluster.info()
    members = [*info.members[:2], msgspec.structs.replace(info.members[2], state="disk_full")]
    info = msgspec.structs.replace(info, members=members, health="degraded")
    cluster.answers["get_cluster"] = lambda _: info
    found = quorl("cluster", "check")
    assert found.exit_code == 1
    assert "2 of 3 members are ok, 2 are needed: n3 disk full; one more failure stops writes" in found.stdout
    (hint,) = [one.hint for one in compared([visit(info, "n1"), visit(info, "n3")]) if one.check == "quorum"]
    assert hint == "Make room on the disk of n3."
    status = quorl("cluster", "status")
    assert "n3    follower  DISK FULL" in status.stdout
    assert "DEGRADED: n3 disk full" in status.stdout
    members[1] = msgspec.structs.replace(members[1], state="disk_full")
    info = msgspec.structs.replace(info, health="no_quorum")
    worse = quorl("cluster", "check")
    assert worse.exit_code == 2
    about = "1 of 3 members are ok, 2 are needed: n2 disk full, n3 disk full; writes are not taken"
    assert about in worse.stdout
    stopped = quorl("cluster", "status")
    assert stopped.exit_code == Exit.UNAVAILABLE
    assert "leader n1 (term " in stopped.stdout
    assert "NO QUORUM: n2, n3 disk full" in stopped.stdout
    assert stopped.stderr == "Writes are not taken.  → quorl doctor\n"
    (hint,) = [one.hint for one in compared([visit(info, "n1")]) if one.check == "quorum"]
    assert hint == "Make room on the disk of n2. Make room on the disk of n3."


def test_a_full_disk_is_to_be_given_room(cluster: StandIn) -> None:
    full = visit(cluster.info(), "n1")
    full.ready = "[-]disk failed: 48 MiB free\n"
    (found,) = [one for one in of_node(full) if one.check == "disk"]
    assert (found.level, found.hint) == (
        Level.CRIT,
        "Make room where its data_dir is: below 64 MiB it takes nothing new.",
    )


def columns_of(report: str) -> list[str]:
    return next(line.split() for line in report.splitlines() if line.startswith("LEVEL"))


def test_d15_raft_ports_are_tried_and_matter_where_the_members_miss_one_too(
    quorl: Quorl, cluster: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = cluster.urls[0].removeprefix("http://")
    assert f"{address} takes connections" in quorl("doctor").stdout
    shut = closed_port().removeprefix("http://")
    info = cluster.info()
    members = [msgspec.structs.replace(one, raft=shut) for one in info.members]
    cluster.answers["get_cluster"] = lambda _: msgspec.structs.replace(info, members=members)
    heard = quorl("doctor").stdout
    assert f"{shut} cannot be reached from here (connection refused), as it may be" in heard
    members[2] = msgspec.structs.replace(members[2], state="unreachable")
    findings = json.loads(quorl("doctor", "--json").stdout)["findings"]
    (missed,) = [one for one in findings if one["check"] == "raft port" and one["level"] == "WARN"]
    assert (missed["node"], missed["text"]) == ("n3", f"{shut} cannot be reached: connection refused")
