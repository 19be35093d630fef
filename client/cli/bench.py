"""``quorl bench``: measure a cluster that runs. Every command makes its own topic or queue, and removes it in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from quorl.client.cli import output
from quorl.client.cli.common import Exit, F, Settings, common_options, fail
from quorl.client.cli.times import Duration, span

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient

BATCH_MAX = 1_000
"""As many as a claim may have."""
_SECONDS = click.option(
    "--for", "for_ms", type=Duration(), default="5s", show_default=True, metavar="DURATION", help="So long."
)
_SIZE = click.option(
    "--size", type=click.IntRange(64, 200_000), default=200, show_default=True, metavar="BYTES", help="Of one message."
)


def _batch(default: int) -> Callable[[F], F]:
    about = "So many in one call."
    return click.option(
        "--batch", type=click.IntRange(1, BATCH_MAX), metavar="N", default=default, show_default=True, help=about
    )


@click.group()
def bench() -> None:
    """Measure a cluster: messages, tasks, latency, failover.

    The load comes from this process. Topics and queues of its own, quorl-bench-…, are deleted in the end.
    """


@bench.command()
@_SECONDS
@click.option(
    "--loops", type=click.IntRange(1, 1_000), metavar="N", default=64, show_default=True, help="Calls in flight."
)
@_batch(1)
@_SIZE
@common_options
def produce(settings: Settings, for_ms: int, loops: int, batch: int, size: int) -> None:
    """Append messages from loops that each wait for the acknowledgement. `stored` must be `appended`."""
    if batch * size > 800_000:
        raise click.UsageError("--batch times --size is more than a request holds: at most 800 000 bytes")
    from quorl.client import measures

    figures = _run(settings, lambda client: measures.produce(client, for_ms / 1000, loops, batch, size))
    _show(settings, {"produce": figures}, equal=("appended", "stored"))


@bench.command(short_help="Consume messages, which moves a consumer's place.")
@click.option(
    "-n",
    "--messages",
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    default=100_000,
    show_default=True,
    help="So many.",
)
@_batch(500)
@_SIZE
@common_options
def consume(settings: Settings, messages: int, batch: int, size: int) -> None:
    """Store messages, then consume them, which moves a consumer's place with every call. `received` must be `stored`."""
    from quorl.client import measures

    figures = _run(settings, lambda client: measures.consume(client, messages, batch, size))
    _show(settings, {"consume": figures}, equal=("stored", "received"))


@bench.command()
@_SECONDS
@click.option(
    "--loops", type=click.IntRange(1, 1_000), metavar="N", default=16, show_default=True, help="Submits in flight."
)
@click.option(
    "--workers", type=click.IntRange(1, 1_000), metavar="N", default=16, show_default=True, help="In this process."
)
@_batch(1)
@common_options
def tasks(settings: Settings, for_ms: int, loops: int, workers: int, batch: int) -> None:
    """Submit tasks that do nothing, claim and complete them. `succeeded` must be `completed`.

    With --batch above 1 workers settle and claim up to 32 in one call.
    """
    from quorl.client import measures

    figures = _run(settings, lambda client: measures.tasks(client, for_ms / 1000, loops, workers, batch))
    _show(settings, {"tasks": figures}, equal=("completed", "succeeded"))


@bench.command(short_help="Append, read, and submit one thing at a time.")
@click.option(
    "--for", "for_ms", type=Duration(), default="3s", show_default=True, metavar="DURATION", help="So long for each."
)
@common_options
def latency(settings: Settings, for_ms: int) -> None:
    """Do one thing at a time: append, read locally and linearizably, submit a task until it starts."""
    from quorl.client import measures

    _show(settings, _run(settings, lambda client: measures.latency(client, for_ms / 1000)))


@bench.command(short_help="Write while the lead changes: how long is the gap?")
@click.option("--transfer", is_flag=True, help="Have the lead handed over instead of waiting for a kill.")
@click.option(
    "--max-wait", type=Duration(), default="60s", show_default=True, metavar="DURATION", help="For another leader."
)
@common_options
def failover(settings: Settings, transfer: bool, max_wait: int) -> None:
    """Write every 10 ms while the lead changes: the longest gap, and whether what was acknowledged is stored once.

    A command that only has addresses cannot kill a process: do it yourself, or let --transfer hand the lead over, which is
    gentler. Ends with 1 if an acknowledged write is missing or doubled, with 6 if nobody else came to lead.
    """
    from quorl.client import measures

    def told(leader: str) -> None:
        said = "handed the lead over" if transfer else "leads: kill its process now (kill -9)"
        settings.say(f"{output.clean(leader)} {said}")

    async def measure(client: AsyncClient) -> Mapping[str, Any]:
        members = [f"http://{member.http}" for member in (await client.cluster()).members]
        nodes = list(client.servers) if len(client.servers) > 1 else members
        async with _client(settings, nodes) as everywhere:
            return await measures.failover(everywhere, nodes, max_wait / 1000, transfer=transfer, told=told)

    try:
        figures = _run(settings, measure)
    except TimeoutError:
        what = f"the lead did not change in {span(max_wait)} of waiting"
        fail(Exit.UNKNOWN, what, "nobody killed the leader meanwhile", "--max-wait 5m, or --transfer")
    _show(settings, {"failover": figures})
    if figures["missing"] or figures["doubled"]:
        why = f"{figures['missing']} acknowledged writes are missing, {figures['doubled']} are there twice"
        fail(Exit.FAILED, "what was acknowledged is not what is stored", why, "please report this as a bug")


# -- running and showing -------------------------------------------------------------------------------------------
def _client(settings: Settings, nodes: list[str] | None = None) -> AsyncClient:
    from quorl.client.aio import AsyncClient

    servers = nodes or list(settings.nodes())
    return AsyncClient(servers, timeout_s=settings.timeout_s, refused_s=settings.refused_s)


def _run(settings: Settings, measure: Callable[[AsyncClient], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any]:
    async def whole() -> Mapping[str, Any]:
        async with _client(settings) as client:
            return await measure(client)

    return asyncio.run(whole())


def _show(settings: Settings, rows: Mapping[str, Mapping[str, Any]], equal: tuple[str, str] | None = None) -> None:
    """Print a row for each thing that was measured; two counts that must agree and do not end the command with 1."""
    if settings.as_json:
        output.emit(next(iter(rows.values())) if len(rows) == 1 else rows)
    else:
        names = list(next(iter(rows.values())))
        columns = ("MEASURED", *(name.replace("_", " ").upper() for name in names))
        cells = [(what, *(_cell(figures[name]) for name in names)) for what, figures in rows.items()]
        output.table(columns, cells, numbers=columns[1:])
    if equal is not None:
        figures = next(iter(rows.values()))
        if figures[equal[0]] != figures[equal[1]]:
            why = f"{figures[equal[0]]} {equal[0]}, {figures[equal[1]]} {equal[1]}"
            fail(Exit.FAILED, "the counts differ", why, "please report this as a bug")


def _cell(figure: Any) -> object:
    return output.grouped(figure) if isinstance(figure, int) else figure
