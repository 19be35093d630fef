"""``quorl cluster``: the members, who leads, who is behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from quorl.client.cli import output
from quorl.client.cli.checks import (
    COMMIT_S,
    Finding,
    Level,
    commit_finding,
    commit_ms,
    quorum_finding,
    worst,
)
from quorl.client.cli.common import Exit, Settings, common_options, fail, list_options
from quorl.client.cli.hints import START
from quorl.client.cli.times import Duration, span

if TYPE_CHECKING:
    from quorl.client.sync import Client
    from quorl.cluster.protocol.system import ClusterInfo, MemberInfo

ASK_S = 2.0
"""One node, which may not answer."""
POLL_S = 0.2
"""Between looks of ``wait``."""
WAIT_MS = 60_000
"""Of ``wait``, unless it is told otherwise: a cluster that is started takes a few seconds."""
# fmt: off
COLUMNS = ("NODE", "ROLE", "STATE", "HTTP", "TERM", "COMMIT", "APPLIED", "LAG", "RTT", "SEEN", "UPTIME", "VERSION")
# fmt: on


@click.group()
def cluster() -> None:
    """Look at the cluster, and hand its lead over."""


# -- looking -------------------------------------------------------------------------------------------------------
@cluster.command(short_help="Print the members, and whether the cluster commits.")
@list_options
def status(settings: Settings) -> None:
    """Print the members with their roles and lags, and whether the cluster commits. Ends with 5 when there is no quorum."""
    with _asked(settings) as (client, info):
        if settings.for_people:
            click.echo(_headline(info, _led_ms(client, info)))
        if settings.as_json:
            output.emit(info)
        else:
            rows = [_row(info, member) for member in info.members]
            output.table(COLUMNS, rows, numbers=COLUMNS[4:-1], spare=("SEEN", "VERSION", "TERM", "UPTIME", "COMMIT"))
        if settings.for_people and not settings.quiet:
            settings.say(_commits(client, info))
    if info.health == "no_quorum":
        click.get_current_context().exit(Exit.UNAVAILABLE)


@contextlib.contextmanager
def _asked(settings: Settings) -> Iterator[tuple[Client, ClusterInfo]]:
    """Ask how the cluster is: of those that are named a node that knows a leader, if there is one.

    One that is cut off answers, too, and sees no quorum where there is one.
    """
    with settings.client() as client:
        info = client.cluster()
        url = _who_knows_a_leader(settings) if info.leader is None else None
        if url is None:
            yield client, info
            return
    with settings.client([url]) as client:
        yield client, client.cluster()


def _who_knows_a_leader(settings: Settings) -> str | None:
    import msgspec

    from quorl.client.flow import Failure, Send
    from quorl.cluster.protocol.system import ClusterInfo
    from quorl.cluster.protocol.wire import Call

    ask = Call("GET", "/v1/cluster", "", {}, b"")
    with contextlib.closing(settings.transport()) as transport:
        for url in settings.nodes():
            answer = transport.send(Send(url, ask, min(ASK_S, settings.timeout_s)))
            with contextlib.suppress(msgspec.DecodeError):
                if not isinstance(answer, Failure):
                    seen = msgspec.json.decode(answer.body, type=ClusterInfo)
                    if seen.leader is not None:
                        return url
    return None


def _commits(client: Client, info: ClusterInfo) -> str:
    """Return whether an entry is committed now, and how much more may fail."""
    spare = sum(member.state == "ok" for member in info.members) - info.quorum
    if info.health == "no_quorum" or info.leader is None:
        return "Writes are not taken.  → quorl doctor"
    found = commit_finding(client)
    said = f"Commit check: {found.text}." if found.level != Level.CRIT else f"Commit check FAILED: {found.text}."
    if info.health == "degraded":
        said += "  One more failure stops writes." if spare <= 0 else ""
        away = [member.name for member in info.members if member.state != "ok"]
        said += f"  → quorl doctor{f' --node {output.clean(away[0])}' if away else ''}"
    return said


def _led_ms(client: Client, info: ClusterInfo) -> int | None:
    """Return for how long the leader has led, if the history still says so."""
    from quorl.client.errors import QuorlError
    from quorl.cluster.protocol.overview import GetHistory

    try:
        leaders = client.call(GetHistory()).leaders
    except QuorlError:
        return None  # an older node, or one that is not ready: then it is not said
    marks = [mark for mark in leaders if (mark.term, mark.node) == (info.term, info.leader)]
    return max(0, round(1000 * time.time()) - marks[-1].at_ms) if marks else None


@cluster.command()
@list_options
def members(settings: Settings) -> None:
    """List the members: their names, and where each is reached."""
    with settings.client() as client:
        info = client.cluster()
    if settings.as_json:
        output.emit(info.members)
        return
    rows = [
        (one.name, "LEADER" if one.name == info.leader else one.role, one.http, one.raft, one.version or output.NOTHING)
        for one in info.members
    ]
    output.table(("NODE", "ROLE", "HTTP", "RAFT", "VERSION"), rows)


@cluster.command()
@click.option("--all", "everybody", is_flag=True, help="Until every member is ok, too.")
@click.option("--max-wait", type=Duration(), metavar="DURATION", help="At most so long; --timeout or 60s by default.")
@common_options
def wait(settings: Settings, everybody: bool, max_wait: int | None) -> None:
    """Wait until the cluster commits what is written. Ends with 6 when the time is over before."""
    from quorl.client.errors import QuorlError, in_one_line

    most = settings.wait_ms(max_wait)
    most = WAIT_MS if most is None else most
    deadline = time.monotonic() + most / 1000
    why = ""
    with settings.client() as client:
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                commit_ms(client, left_s)
                info = client.cluster()
            except QuorlError as error:
                if not why or left_s > POLL_S:  # else the time was too short to learn more than the time before
                    why = in_one_line(getattr(error, "tries", ())) or error.detail
            else:
                missing = [one.name for one in info.members if one.state != "ok"]
                if info.leader is not None and not (everybody and missing):
                    if settings.as_json:
                        output.emit(info)
                    settings.say(f"ready: {_headline(info)}")
                    return
                why = "no leader yet" if info.leader is None else f"not ok yet: {', '.join(missing)}"
            time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))
    fail(
        Exit.UNKNOWN,
        f"the cluster is not ready after {span(most)} of waiting",
        why or "the time was too short to ask",
        "quorl doctor",
    )


@cluster.command(short_help="Check the cluster, for monitoring: one line and a code.")
@common_options
def check(settings: Settings) -> None:
    """Check the cluster, for monitoring: one line, and 0 ok, 1 warning, 2 critical, or 3 not known.

    Critical: no quorum (too few members are there, or have room on their disks), no leader, or nothing is committed. Warning:
    a member is missing or has no room, or commits are slow.
    """
    from quorl.client.errors import QuorlError, in_one_line

    try:
        with _asked(settings) as (client, info):
            findings = [quorum_finding(info)]
            if findings[0].level != Level.CRIT:
                findings.append(commit_finding(client, min(settings.timeout_s, COMMIT_S)))
    except QuorlError as error:
        why = in_one_line(getattr(error, "tries", ())) or error.detail
        findings = [Finding(Level.UNKNOWN, "answer", "", f"no node answers: {why}", f"Start them: {START}")]
    level = worst(findings)
    told = "; ".join(one.text for one in sorted(findings, key=lambda one: one.level != level))
    if settings.as_json:
        checks = [
            {"level": one.level.name, "check": one.check, "detail": one.text, "hint": one.hint} for one in findings
        ]
        output.emit({"level": level.name, "detail": told, "checks": checks})
    else:
        click.echo(f"{level.name}: {output.clean(told)}")
    click.get_current_context().exit(level)


# -- the lead ------------------------------------------------------------------------------------------------------
@cluster.command(short_help="Hand the lead to NODE, or to any member that can take it.")
@click.argument("node", required=False)
@common_options
def transfer(settings: Settings, node: str | None) -> None:
    """Hand the lead to NODE, or to any member that can take it; ends once another one leads."""
    from quorl.cluster.protocol.system import TransferLeadership

    with settings.client() as client:
        done = client.call(TransferLeadership(to=node))
    if settings.as_json:
        output.emit(done)
    elif done.from_ == done.to:
        settings.say(f"{output.clean(done.to)} leads already")
    else:
        took = f"{output.clean(done.from_)} → {output.clean(done.to)} in {done.took_ms} ms (term {done.term})"
        settings.say(took)


def _headline(info: ClusterInfo, led_ms: int | None = None) -> str:
    voters = len(info.members)
    since = "" if led_ms is None else f", since {span(led_ms)}"
    return " · ".join(
        [
            output.clean(info.name),
            f"cluster {info.cluster_id or 'not founded yet'}",
            f"{output.counted(voters, 'voter')}, quorum {info.quorum}",
            f"leader {info.leader} (term {info.term}{since})" if info.leader else f"no leader (term {info.term})",
            _health(info),
        ]
    )


def _health(info: ClusterInfo) -> str:
    words = {"ok": "OK", "degraded": "DEGRADED", "no_quorum": "NO QUORUM"}[info.health]
    by_state: dict[str, list[str]] = {}
    for member in info.members:
        if member.state != "ok":
            by_state.setdefault(member.state.replace("_", " "), []).append(member.name)
    why = "; ".join(f"{', '.join(names)} {state}" for state, names in by_state.items())
    if why and info.health == "no_quorum" and not info.cluster_id:
        why += f" (the very first start needs all {len(info.members)} once)"
    return f"{words}: {why}" if why else words


def _row(info: ClusterInfo, member: MemberInfo) -> tuple[object, ...]:
    return (
        member.name,
        "LEADER" if member.name == info.leader else member.role,
        output.state(member.state),
        member.http,
        _number(member.term),
        _number(member.commit_index),
        _number(member.applied_index),
        _number(member.lag),
        round_trip(member),
        span(member.seen_ms_ago),
        span(member.uptime_ms),
        member.version or output.NOTHING,
    )


def _number(number: int | None) -> output.Cell:
    return output.NOTHING if number is None else output.grouped(number)


def round_trip(member: MemberInfo) -> output.Cell:
    """Return how long a message to a member and back takes; in CSV it is seconds."""
    ms = member.rtt_ms
    return output.NOTHING if ms is None else output.Cell(f"{ms:.1f} ms", round(ms / 1000, 6))
