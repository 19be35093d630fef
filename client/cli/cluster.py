"""``quorl cluster``: the members, who leads, who is behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from quorl.client.cli import output
from quorl.client.cli.common import Exit, Settings, common_options, list_options
from quorl.client.cli.times import span

if TYPE_CHECKING:
    from quorl.cluster.protocol.system import ClusterInfo, MemberInfo


@click.group()
def cluster() -> None:
    """Look at the cluster, and hand its lead over."""


@cluster.command()
@list_options
def status(settings: Settings) -> None:
    """Print the members with their roles and lags. Ends with 5 when there is no quorum."""
    with settings.client() as client:
        info = client.cluster()
    if settings.as_json:
        output.emit(info)
    else:
        if settings.for_people:
            click.echo(_headline(info))
        columns = ("NODE", "ROLE", "STATE", "HTTP", "SEQUENCE", "LAG", "SEEN")
        output.table(columns, [_row(info, member) for member in info.members], numbers=("SEQUENCE", "LAG", "SEEN"))
        spare = sum(member.state == "ok" for member in info.members) - info.quorum
        if info.health == "degraded" and spare <= 0:
            settings.say("One more failure stops writes.")
    if info.health == "no_quorum":
        click.get_current_context().exit(Exit.UNAVAILABLE)


@cluster.command()
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


def _headline(info: ClusterInfo) -> str:
    voters = len(info.members)
    return " · ".join(
        [
            output.clean(info.name),
            f"cluster {info.cluster_id or 'not founded yet'}",
            f"{output.counted(voters, 'voter')}, quorum {info.quorum}",
            f"leader {info.leader} (term {info.term})" if info.leader else f"no leader (term {info.term})",
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
    return f"{words}: {why}" if why else words


def _row(info: ClusterInfo, member: MemberInfo) -> tuple[object, ...]:
    return (
        member.name,
        "LEADER" if member.name == info.leader else member.role,
        member.state.upper() if member.state == "unreachable" else member.state.replace("_", " "),
        member.http,
        output.NOTHING if member.sequence is None else member.sequence,
        output.NOTHING if member.lag is None else member.lag,
        span(member.seen_ms_ago),
    )
