"""``quorl doctor``: every node is asked by itself, and what they say is compared; a report to copy.

A secret that differs is said first, and what follows from it, members that refuse each other, is found without an advice of
its own: it would lead away from the one that helps.

Nothing is changed. Nodes are asked at the addresses that were given, and the other members at those that the cluster
knows of them, which may not be reachable from here: that alone is a warning.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import platform
import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from quorl.client.cli import output
from quorl.client.cli.checks import (
    COMMIT_S,
    Finding,
    Level,
    commit_finding,
    prints_of,
    quorum_finding,
    secret_finding,
    settings_findings,
    strangers,
    who_says_what,
    worst,
)
from quorl.client.cli.common import Settings, common_options
from quorl.client.cli.hints import NODE, START

if TYPE_CHECKING:
    from quorl.client.sync_transport import Transport
    from quorl.cluster.protocol.overview import Alert, Overview
    from quorl.cluster.protocol.system import ClusterInfo, MemberInfo

ASK_S = 3.0
"""One node, which may not answer."""
SKEW_MS = 2_000
"""Clocks that differ by less harm nobody: only moments that people name go by them."""
LAG_ENTRIES = 1_000
"""A follower is that far behind for a moment under load, and no longer."""
FREE_MIB = 1_024
"""Less is worth a warning, well before 64 MiB, with which the log takes nothing new."""
_OVERVIEW_AGE_MS = 1_000
"""A node makes an overview once a second at most, so the clock in it may be so old."""
_CHECK = re.compile(r"\[(?P<ok>[+-])\](?P<name>\S+) \S+: (?P<detail>.*)")
_ROOM = "Make room where its data_dir is: below 64 MiB it takes nothing new."
_REFUSED = re.compile(r"(?P<peer>[\w.-]+): refused \[(?P<told>told )?(?P<code>\w+)\]: ")
"""What a node says of a member that it refuses, or that told it so, and why: see ``consensus/refusals.py``."""
_ABOUT_REFUSALS = {
    "cluster": "Give all the same [cluster] name.",
    "cluster_id": "One of them has the data_dir of another cluster: give it that of this one, or an empty one.",
    "garbled": "Let nothing but quorl nodes use the raft ports.",
    "late": "Let nothing but quorl nodes use the raft ports.",
    "member": "Make [[cluster.members]] the same on every node, and [node] name one of them.",
    "protocol": "Let all run releases of quorl that are at most one apart.",
    "self": "Give every node a name of its own, and see that the address of none leads to another.",
}
"""What to do where members refuse each other, by the code of ``handshake.Refused``; of secrets and twins more is known."""
_OF_THE_CLUSTER = ("no_leader", "no_quorum", "one_failure_left", "member_", "disk_full")
"""Alerts that are checked here anyway begin with one of these."""
_OF_THE_WORK = frozenset({"no_workers"})
"""Critical to whoever waits for it, while the cluster is well: a queue's name that was misspelt is enough."""


@dataclass
class Visit:
    """What came of asking one node."""

    url: str
    member: MemberInfo | None = None
    why: str = ""
    took_ms: float = 0.0
    info: ClusterInfo | None = None
    seen: Overview | None = None
    asked_ms: tuple[int, int] = (0, 0)
    """When the overview was asked for and when it came, by the clock here."""
    ready: str = ""
    raft_why: str | None = None
    """Why nothing listens on its raft port, as seen from here; empty: something does; None: its address is not known."""

    @property
    def place(self) -> str:
        """Its URL as it may be told."""
        from quorl.client.route import unsigned

        return unsigned(self.url)

    @property
    def name(self) -> str:
        """The node's name, or where it should be."""
        return self.info.node if self.info is not None else self.member.name if self.member is not None else self.place


@click.command(short_help="Ask every node, and say what is wrong.")
@click.option("--node", "only", metavar="NAME", help="Look at this node only, and at the cluster as it sees it.")
@common_options
def doctor(settings: Settings, only: str | None) -> None:
    """Ask every node by itself and say what is wrong: ports, clocks, disks, quorum, versions, secrets and settings that differ.

    Ends with 0 if all is well, 1 if something should be looked at (tasks that nobody serves count so), 2 if something of the
    cluster is broken, 3 if no node answers.
    """
    visits = visit_all(settings)
    if only is not None:
        visits = [one for one in visits if one.name == only]
        if not visits:
            raise click.UsageError(f"no node is called {only!r}, or none that is known answers: quorl cluster members")
    findings = examined(visits)
    answering = [one for one in visits if one.info is not None]
    if answering:
        # The others would be waited for, and that be taken for the commit; so would one that is cut off.
        leading = [one.url for one in answering if one.info is not None and one.info.leader is not None]
        with settings.client(leading or [one.url for one in answering]) as client:
            found = commit_finding(client, min(settings.timeout_s, COMMIT_S))
        alone = any(one.check == "quorum" and one.level == Level.CRIT and not one.hint for one in findings)
        findings.append(found._replace(hint="") if alone and found.level == Level.CRIT else found)
    elif only is not None:
        text = f"{only} does not answer, so how it sees the cluster is not known"
        findings.append(Finding(Level.UNKNOWN, "cluster", "", text, "Ask the others, too: quorl doctor"))
    else:
        findings.append(Finding(Level.UNKNOWN, "cluster", "", "no node answers", f"Start them: {START}"))
    _report(settings, visits, findings)
    click.get_current_context().exit(worst(findings))


def examined(visits: Sequence[Visit]) -> list[Finding]:
    """Return what is to be said about the nodes and the cluster; secrets that differ come first."""
    findings = [found for one in visits for found in of_node(one)]
    findings += compared([one for one in visits if one.info is not None])
    if not any(one.check == "secret" and one.level != Level.OK for one in findings):
        findings += _refusals(visits)
    if any(one.check == "secret" and one.level != Level.OK for one in findings):
        findings = [one._replace(hint="") if _unproven(one.text) else one for one in findings]
    return sorted(findings, key=lambda one: one.check != "secret" or one.level == Level.OK)


def _refusals(visits: Sequence[Visit]) -> Iterator[Finding]:
    """Say whose secrets differ where not all of them could be asked for it: some were refused by others for that."""
    for one in visits:
        others = _unproven(one.ready)
        if others:
            text = f"{one.name} and {', '.join(others)} have different cluster secrets: they refuse each other"
            hint = "Give all the same secret_file, that of the majority, and restart those that had another."
            yield Finding(Level.CRIT, "secret", one.name, text, hint)


def _unproven(text: str) -> list[str]:
    """Return the members whose secret is another, by what a node says of them."""
    return [found["peer"] for found in _REFUSED.finditer(text) if found["code"] == "secret"]


def _twin(name: str, detail: str) -> str | None:
    """Return which name two processes have, by what the node of that name says: its own, or that of one it refuses."""
    twins = [found for found in _REFUSED.finditer(detail) if found["code"] == "twin"]
    return next((name if found["told"] else found["peer"] for found in twins), None)


# -- asking --------------------------------------------------------------------------------------------------------
def visit_all(settings: Settings) -> list[Visit]:
    """Ask the nodes that are named, and then the members that none of them is."""
    urls = settings.nodes()
    timeout_s = min(ASK_S, settings.timeout_s)
    with contextlib.closing(settings.transport()) as transport, ThreadPoolExecutor(16) as pool:

        def ask(visit: Visit) -> Visit:
            return _ask(transport, visit, timeout_s)

        visits = list(pool.map(ask, [Visit(url) for url in urls]))
        infos = [one.info for one in visits if one.info is not None]
        members = members_of(infos)
        for one in visits:
            found = [member for member in members.values() if one.url.endswith(f"//{member.http}")]
            one.member = members.get(one.name) or (found[0] if found else None)
        known = {one.name for one in visits}
        others = [Visit(f"http://{one.http}", one) for one in members.values() if one.name not in known]
        visits += pool.map(ask, others)
        for one, why in zip(visits, pool.map(lambda one: knock(one.member, timeout_s), visits), strict=True):
            one.raft_why = why
    order = {name: place for place, name in enumerate(members)}
    return sorted(visits, key=lambda one: order.get(one.name, len(order)))


def members_of(infos: Sequence[ClusterInfo]) -> dict[str, MemberInfo]:
    """Return the members by their names, each as the node sees it that knows most: who is cut off is all right by itself."""
    return {member.name: member for info in sorted(infos, key=_rank) for member in info.members}


def _rank(info: ClusterInfo) -> tuple[bool, int, int]:
    """Return what makes one node's sight of the cluster count more than another's."""
    return info.leader is not None, info.term, info.sequence


def _ask(transport: Transport, visit: Visit, timeout_s: float) -> Visit:
    """Ask one node for its view of the cluster, its overview and its health."""
    import msgspec

    from quorl.client.flow import Failure, Send
    from quorl.client.route import unported
    from quorl.cluster.protocol.overview import Overview
    from quorl.cluster.protocol.system import ClusterInfo
    from quorl.cluster.protocol.wire import Answer, Call

    def get(path: str, query: str = "") -> Answer | Failure:
        return transport.send(Send(visit.url, Call("GET", path, query, {}, b""), timeout_s))

    answer = get("/v1/cluster")  # opens the connection, so that the next one is measured without
    if isinstance(answer, Failure):
        visit.why = answer.why + unported(visit.url)
        return visit
    began = time.perf_counter()
    answer = get("/v1/cluster")
    visit.took_ms = 1000 * (time.perf_counter() - began)
    asked_ms = time.time_ns() // 1_000_000
    overview = get("/v1/overview")
    visit.asked_ms = asked_ms, time.time_ns() // 1_000_000
    ready = get("/readyz", "verbose")
    try:
        assert isinstance(answer, Answer)
        visit.info = msgspec.json.decode(answer.body, type=ClusterInfo)
        if isinstance(overview, Answer) and overview.status == 200:
            visit.seen = msgspec.json.decode(overview.body, type=Overview)
    except (AssertionError, msgspec.DecodeError):
        visit.why = (
            visit.why or "its answer is not that of a quorl node, or of a version that this program does not know"
        ) + unported(visit.url)
    visit.ready = ready.body.decode(errors="replace") if isinstance(ready, Answer) else ""
    return visit


def knock(member: MemberInfo | None, timeout_s: float) -> str | None:
    """Return why a member's raft port takes no connection from here; empty: it does; None: nobody knows where it is."""
    if member is None:
        return None
    host, _, port = member.raft.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout_s):
            return ""
    except (OSError, ValueError) as error:
        return (getattr(error, "strerror", None) or str(error)).lower()


def _raft(visit: Visit) -> Iterator[Finding]:
    """Say whether the raft port can be reached, which is bad news only where the other members miss it too."""
    if visit.member is None or visit.raft_why is None:
        return
    place, name = visit.member.raft, visit.member.name
    if not visit.raft_why:
        yield Finding(Level.OK, "raft port", name, f"{place} takes connections")
    elif visit.member.state != "unreachable":
        text = (
            f"{place} cannot be reached from here ({visit.raft_why}), as it may be; other members are connected to it"
        )
        yield Finding(Level.OK, "raft port", name, text)
    else:
        runs = "It runs:" if visit.info is not None else "Does it run there, and"
        hint = f"{runs} does a firewall let the members through?"
        yield Finding(Level.WARN, "raft port", name, f"{place} cannot be reached: {visit.raft_why}", hint)


# -- one node ------------------------------------------------------------------------------------------------------
def of_node(visit: Visit) -> Iterator[Finding]:
    """Yield what is to be said about one node."""
    place, name = visit.place.partition("://")[2], visit.name
    if visit.info is None:
        heard = visit.member is not None and visit.member.state != "unreachable"
        text = f"{place} does not answer: {visit.why}"
        if heard:
            hint = "Is that still its address, and can it be reached from here?"
            yield Finding(Level.WARN, "port", name, f"{text}; other members hear it", hint)
        else:
            yield Finding(Level.WARN, "port", name, text, _about_silence(visit.why))
        yield from _raft(visit)
        return
    yield Finding(Level.OK, "port", name, f"{place} answers in {visit.took_ms:.1f} ms")
    yield from _raft(visit)
    yield from _health(visit)
    if visit.seen is not None:
        yield _clock(visit, visit.seen)


def _about_silence(why: str) -> str:
    """Say what to do about a node that does not answer."""
    if "network is unreachable" in why:
        return "This machine has no way to it: is its own link up?"
    if "no route" in why or "time-out while connecting" in why:
        return "Is its machine up, and does its firewall let this one in?"
    if "said nothing" in why:
        return "If a node runs there, it hangs: see to its log, its disk and its machine, and start it anew."
    return f"Does it run there?  {NODE}"


def _health(visit: Visit) -> Iterator[Finding]:
    for line in visit.ready.splitlines():
        found = _CHECK.match(line)
        if found is None:
            continue
        check, detail = found["name"], found["detail"]
        free = re.match(r"(\d+) MiB free", detail) if check == "disk" else None
        if found["ok"] == "-":
            twin = _twin(visit.name, detail)
            level = Level.CRIT if check in {"disk", "raft"} or twin else Level.WARN
            hint = _ROOM if check == "disk" else _about_refusals(detail) or "The node's log says more."
            if twin:
                hint = f"Two processes run as {twin}: stop the one that should not be there."
            yield Finding(level, check, visit.name, detail, hint)
        elif free is not None and int(free[1]) < FREE_MIB:
            yield Finding(Level.WARN, check, visit.name, f"only {detail}", _ROOM)
        elif free is not None:
            yield Finding(Level.OK, check, visit.name, detail)


def _about_refusals(detail: str) -> str:
    """Say what to do about the members that a node refuses, or that refuse it."""
    codes = dict.fromkeys(found["code"] for found in _REFUSED.finditer(detail))
    return " ".join(dict.fromkeys(_ABOUT_REFUSALS[code] for code in codes if code in _ABOUT_REFUSALS))


def _clock(visit: Visit, seen: Overview) -> Finding:
    """Compare a node's clock with the one here, as exactly as an overview that may be a second old allows."""
    asked_ms, came_ms = visit.asked_ms
    behind_ms = asked_ms - (seen.made_at_ms + _OVERVIEW_AGE_MS)  # at least
    ahead_ms = seen.made_at_ms - came_ms  # at least
    off_ms = max(behind_ms, ahead_ms)
    if off_ms > SKEW_MS:
        word = "behind" if behind_ms > ahead_ms else "ahead of"
        text = f"its clock is {off_ms / 1000:.1f} s or more {word} the one here"
        hint = "Let NTP set both. Leases do not depend on it; moments and --run-at go by the median of the members' clocks."
        return Finding(Level.WARN, "clock", visit.name, text, hint)
    return Finding(Level.OK, "clock", visit.name, f"as here, within {(SKEW_MS + _OVERVIEW_AGE_MS) / 1000:g} s")


# -- all of them ---------------------------------------------------------------------------------------------------
def compared(visits: Sequence[Visit]) -> Iterator[Finding]:
    """Yield what follows from what the nodes say together."""
    import quorl

    infos = [one.info for one in visits if one.info is not None]
    if not infos:
        return
    best = max(infos, key=_rank)
    prints = prints_of(infos)
    apart = strangers(prints, best.node) | {one.name for one in visits if _REFUSED.search(one.ready)} - {best.node}
    yield quorum_finding(best, apart, {info.node for info in infos})
    if any(info.leader for info in infos):  # else each of them has said that it knows none
        leaders = {i.node: f"{i.leader or 'nobody'} in term {i.term}" for i in infos}
        found = _same("leader", list(leaders.items()), "the leader", Level.WARN)
        without = {leader for node, leader in leaders.items() if node not in apart}
        yield found._replace(hint="") if apart and len(without) == 1 else found
    clusters = [(i.node, f"{i.name} {i.cluster_id or '(not founded yet)'}") for i in infos]
    yield _same("cluster", clusters, "the cluster", Level.CRIT)
    members = [(i.node, ", ".join(f"{m.name} {m.http} {m.raft}" for m in i.members)) for i in infos]
    yield _same("config", members, "the members of the configuration", Level.CRIT)
    versions = [(one.name, one.seen.version) for one in visits if one.seen is not None]
    if versions:
        yield _same("version", [*versions, ("this program", quorl.__version__)], "the version", Level.WARN)
    yield _same("machine", [(i.node, str(i.machine_version)) for i in infos], "the version of the machine", Level.WARN)
    if prints:
        yield secret_finding(prints)
    yield from settings_findings([(i.node, i.settings) for i in infos if i.settings is not None])
    yield _states(infos)
    for member in best.members:
        if member.state == "ok" and (member.lag or 0) > LAG_ENTRIES:
            text = f"{output.counted(member.lag or 0, 'entry').replace('entrys', 'entries')} behind"
            yield Finding(Level.WARN, "lag", member.name, text, "A slow disk or network, or it has just started.")
    yield from _alerts(
        max((one.seen for one in visits if one.seen is not None), key=lambda s: s.sequence, default=None)
    )


def _same(check: str, said: Sequence[tuple[str, str]], what: str, level: Level) -> Finding:
    """Say that all agree, or who says what."""
    told = who_says_what(said)
    if told is None:
        return Finding(Level.OK, check, "", f"all say the same of {what}: {said[0][1]}")
    hint = {
        "leader": "For a moment that is an election. If it stays: can all members reach each other?",
        "version": "Upgrade the others too, one node after the other.",
        "machine": "Upgrade the others too, one node after the other.",
    }.get(
        check,
        "Compare the config files: the tables [cluster] and [[cluster.members]] must be the same everywhere. A node reads its own when it starts.",
    )
    return Finding(level, check, "", f"they differ in {what}: {told}", hint)


def _states(infos: Sequence[ClusterInfo]) -> Finding:
    """Compare the digests of the nodes that have applied equally much."""
    by_sequence: dict[int, dict[str, list[str]]] = {}
    for info in infos:
        by_sequence.setdefault(info.sequence, {}).setdefault(info.digest, []).append(info.node)
    for sequence, digests in by_sequence.items():
        if len(digests) > 1:
            told = "; ".join(f"{', '.join(nodes)} {digest}" for digest, nodes in digests.items())
            hint = "Stop writing, keep all data directories, and report it: this must never happen."
            return Finding(Level.CRIT, "state", "", f"states differ after {sequence} entries: {told}", hint)
    most = max(sum(map(len, digests.values())) for digests in by_sequence.values())
    if most == 1:
        return Finding(Level.OK, "state", "", "no two nodes were asked at the same sequence: nothing to compare")
    return Finding(Level.OK, "state", "", f"{most} of {len(infos)} nodes were asked at the same sequence, and agree")


def _alerts(seen: Overview | None) -> Iterator[Finding]:
    if seen is None:
        return
    served = {queue for worker in seen.workers if worker.status == "ALIVE" for queue in worker.queues}
    for alert in seen.alerts:
        if not alert.code.startswith(_OF_THE_CLUSTER):
            broken = alert.severity == "critical" and alert.code not in _OF_THE_WORK
            level = Level.CRIT if broken else Level.WARN
            yield Finding(level, alert.code.replace("_", " "), alert.node or "", alert.text, _advice(alert, served))


def _advice(alert: Alert, served: set[str]) -> str:
    """Say what to do; ``served`` are the queues that workers serve."""
    if alert.code == "no_workers":
        from quorl.cluster.protocol.routes import nearest

        start = f"quorl worker run MODULE:APP -q {output.word(alert.queue)}"  # stands last, for it is copied
        meant = nearest(alert.queue or "", sorted(served)).removeprefix(" - ")
        return f"{meant[0].upper()}{meant[1:]} Else start one: {start}" if meant else f"Start one: {start}"
    if alert.code == "worker_dead":
        return "Start it again, or another one for its queues; what it ran has gone back to them: quorl worker ls"
    return "" if alert.node is not None else "quorl queue ls · quorl worker ls"


# -- the report ----------------------------------------------------------------------------------------------------
def _report(settings: Settings, visits: Sequence[Visit], findings: Sequence[Finding]) -> None:
    import quorl

    about: dict[str, Any] = {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "version": quorl.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "servers": [one.place for one in visits],
    }
    level = worst(list(findings))
    if settings.as_json:
        told = [{**one._asdict(), "level": one.level.name} for one in findings]
        output.emit({"level": level.name, **about, "findings": told})
        return
    click.echo(f"quorl {about['version']} · Python {about['python']} · {about['platform']} · {about['at']}")
    click.echo(f"asked {', '.join(about['servers'])}\n")
    rows = [(one.level.name, one.check, one.node or "–", one.text) for one in findings]
    output.table(("LEVEL", "CHECK", "NODE", "FOUND"), rows, loose=("FOUND",))
    click.echo()
    for one in findings:
        if one.level != Level.OK and one.hint:
            click.echo(f"try  {' '.join(filter(None, (one.check, output.clean(one.node))))}: {one.hint}")
    bad = [one for one in findings if one.level != Level.OK]
    click.echo(f"{level.name}: {output.counted(len(bad), 'finding')} to look at" if bad else "OK: nothing to look at")
