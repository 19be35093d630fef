"""``quorl queue``: look at queues, configure them, stop and empty them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from quorl.client.cli import output
from quorl.client.cli.asking import confirm, each
from quorl.client.cli.common import Settings, common_options, list_options, look_options
from quorl.client.cli.glance import glance
from quorl.client.cli.names import names
from quorl.client.cli.options import BackoffSpec, backoff_text
from quorl.client.cli.times import Duration, span

if TYPE_CHECKING:
    from quorl.client.sync import Client
    from quorl.cluster.protocol import queues as q
    from quorl.cluster.protocol import workers as w
    from quorl.cluster.protocol.overview import OverviewQueue

HEALTH = {"ok": "ok", "no_workers": "NO WORKERS", "paused": "paused", "sealed": "sealed"}
WAITING = ("SCHEDULED", "QUEUED", "RETRY")
ALARMS = 3
"""So many queues that nobody serves are told with what starts a worker; of more the table says so."""
PURGEABLE = (*WAITING, "SUCCESS", "FAILED", "CANCELLED", "EXPIRED")

_names = click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=names("queues"))


@click.group()
def queue() -> None:
    """Work with queues: where tasks wait for workers. They exist from their first task."""


# -- looking -------------------------------------------------------------------------------------------------------
@queue.command(short_help="List queues with what is in them.")
@click.argument("prefix", default="", shell_complete=names("queues"))
@list_options
def ls(settings: Settings, prefix: str) -> None:
    """List queues with what is in them, or those whose name begins with PREFIX.

    Each count is of tasks in that state, and rates are of the last ten seconds: tasks that came in, and that became a SUCCESS.
    """
    with settings.looking() as client:
        found = client.queues.list(prefix=prefix)
        seen = None if settings.as_json or not found else glance(client)
    if settings.as_json:
        output.emit(found)
        return
    rates = {} if seen is None else {one.queue: one for one in seen.queues}
    columns = (
        "QUEUE",
        "HEALTH",
        "QUEUED",
        "SCHED",
        "RUNNING",
        "RETRY",
        "FAILED",
        "IN/s",
        "DONE/s",
        "OLDEST",
        "WORKERS",
    )
    rows = [_row(info, rates.get(info.name)) for info in found]
    output.table(columns, rows, numbers=columns[2:], spare=("SCHED", "RETRY"), loose=("QUEUE",))
    alone = [info for info in found if info.health == "no_workers"]
    for info in alone[:ALARMS]:
        _alarm(settings, info)
    if len(alone) > ALARMS:
        settings.say(f"! and {output.counted(len(alone) - ALARMS, 'more queue')} with NO WORKERS")
    if not found:
        settings.say(f"no queue begins with {prefix!r}" if prefix else "no queues yet: the first task makes one")


def _row(info: q.QueueInfo, rates: OverviewQueue | None) -> tuple[object, ...]:
    counts = info.counts
    numbers = (counts.queued, counts.scheduled, counts.processing, counts.retry, counts.failed)
    flows = (None, None) if rates is None else (rates.submitted_s, rates.succeeded_s)
    health = "FULL" if rates is not None and rates.full and info.health == "ok" else HEALTH[info.health]
    per_s = map(output.rate, flows)
    return info.name, health, *map(output.grouped, numbers), *per_s, span(info.oldest_ms), info.workers


def _alarm(settings: Settings, info: q.QueueInfo) -> None:
    """Say that tasks wait for nobody, which looks like any other growing queue."""
    if info.health != "no_workers":
        return
    tasks = output.counted(_waiting(info), "task")
    wait = "waits" if _waiting(info) == 1 else "wait"
    start = f"quorl worker run MODULE:APP -q {output.word(info.name)}"
    settings.say(f"! {output.clean(info.name)}: {tasks} {wait} and no worker serves it. Start one: {start}")


def _waiting(info: q.QueueInfo) -> int:
    return info.counts.scheduled + info.counts.queued + info.counts.retry


@queue.command(short_help="Describe a queue: its tasks, configuration and workers.")
@click.argument("name", shell_complete=names("queues"))
@look_options
def show(settings: Settings, name: str) -> None:
    """Describe a queue: what is in it, its configuration, and who serves it. Without a quorum: as one node has it."""
    with settings.looking() as client:
        info = client.queues.get(name)
        workers = client.workers.list(queue=name) if not settings.as_json else []
    if settings.as_json:
        output.emit(info)
        return
    oldest = "" if info.oldest_ms is None else f" · oldest {span(info.oldest_ms)}"
    click.echo(
        f"{output.clean(info.name)}  {HEALTH[info.health]} · created {info.created_at} · "
        f"{output.counted(info.submitted, 'task')} submitted · {output.counted(info.workers, 'worker')}{oldest}"
    )
    counts = [(word, getattr(info.counts, word)) for word in info.counts.__struct_fields__]
    output.table(
        [word.upper() for word, _ in counts],
        [[output.grouped(number) for _, number in counts]],
        numbers=[word.upper() for word, _ in counts],
    )
    click.echo()
    for word, text in _configuration(info):
        click.echo(f"{word:<14}  {text}")
    rows = [
        (one.worker_id, one.name, one.status, f"{one.leases}/{one.concurrency}", _role(one))
        for one in workers
        if one.status != "LEFT"
    ]
    if rows:
        click.echo()
        output.table(("WORKER", "NAME", "STATUS", "BUSY", "ROLE"), rows, numbers=("WORKER", "BUSY"))
    _alarm(settings, info)


def _role(worker: w.WorkerInfo) -> str:
    if worker.status != "ALIVE":
        return "–"
    return "active" if not worker.standby else "stands in" if worker.active else "stand-by"


def _configuration(info: q.QueueInfo) -> list[tuple[str, str]]:
    return [
        ("partitions", str(info.partitions) if info.partitions else "none: any worker takes any task"),
        ("attempts", str(info.default_attempts)),
        ("max lost", output.counted(info.max_lost, "worker")),
        ("back-off", backoff_text(info.backoff)),
        ("run time-out", "none" if info.timeout_ms is None else span(info.timeout_ms)),
        ("keep finished", span(info.keep_finished_ms) if info.keep_finished_ms else "for ever"),
        ("max depth", output.grouped(info.max_depth) if info.max_depth else "none"),
        ("paused", "yes: nothing is handed out" if info.paused else "no"),
        ("sealed", "yes: nothing is taken in" if info.sealed else "no"),
    ]


# -- configuring ---------------------------------------------------------------------------------------------------
@queue.command("set", short_help="Make a queue, or change what is given of one that exists.")
@click.argument("name", shell_complete=names("queues"))
@click.option("--partitions", type=click.IntRange(0, 256), metavar="N", help="When it is made; cannot change. 0: none.")
@click.option("--attempts", type=click.IntRange(1, 100), metavar="N", help="Runs of a task in all.")
@click.option("--max-lost", type=click.IntRange(1, 100), metavar="N", help="FAILED after so many workers that died.")
@click.option("--backoff", type=BackoffSpec(), metavar=BackoffSpec.metavar, help="The wait after a failed attempt.")
@click.option(
    "--jitter",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Up to this share of a wait is taken away, by chance.",
)
@click.option("--run-timeout", type=Duration(), metavar="DURATION", help="Bounds one attempt; 0: no bound.")
@click.option("--keep", type=Duration(), metavar="DURATION", help="Finished tasks are forgotten after it; 0: never.")
@click.option("--max-depth", type=click.IntRange(0), metavar="N", help="Bounds the tasks that wait; 0: no bound.")
@common_options
def set_(settings: Settings, name: str, partitions: int | None, jitter: float | None, **given: Any) -> None:
    """Make a queue, or change what is given of one that exists; everything else stays."""
    import msgspec

    from quorl.client.errors import QueueNotFound
    from quorl.cluster.protocol import queues as q

    changes = {_FIELDS[word]: value for word, value in given.items() if value is not None}
    if changes.get("timeout_ms") == 0:
        changes["timeout_ms"] = None
    with settings.client() as client:
        try:
            before = client.queues.get(name)
        except QueueNotFound:
            before = None
        if jitter is not None:
            backoff = changes.get("backoff") or (q.Backoff() if before is None else before.backoff)
            changes["backoff"] = msgspec.structs.replace(backoff, jitter=jitter)
        if before is None or (partitions is not None and partitions != before.partitions):
            info = client.call(q.PutQueue(queue=name, partitions=partitions or 0, **changes))  # or it says why not
        elif changes:
            info = client.call(q.PatchQueue(queue=name, **changes))
        else:
            info = before
    if settings.as_json:
        output.emit(info)
    settings.say(f"{'made' if before is None else 'set'}: {output.clean(name)}")
    if not settings.as_json:
        for word, text in _configuration(info):
            settings.say(f"{word:<14}  {text}")


_FIELDS = {
    "attempts": "default_attempts",
    "max_lost": "max_lost",
    "backoff": "backoff",
    "run_timeout": "timeout_ms",
    "keep": "keep_finished_ms",
    "max_depth": "max_depth",
}


def _switch(word: str, done: str, what: str) -> None:
    """Make a command that switches something of queues."""

    def command(settings: Settings, names: tuple[str, ...]) -> None:
        with settings.client() as client:

            def one(name: str) -> None:
                info: q.QueueInfo = getattr(client.queues, word)(name)
                if settings.as_json:
                    output.emit(info)
                waits = f"{output.counted(_waiting(info), 'task')} waiting"
                settings.say(
                    f"{done}: {output.clean(name)}, {waits}, {output.grouped(info.counts.processing)} running{_ends(word, info)}"
                )

            each(settings, names, one)

    command.__doc__ = what
    queue.command(word)(_names(common_options(command)))


def _ends(word: str, info: q.QueueInfo) -> str:
    """Return what sealing a queue means for the workers that serve it."""
    if word != "seal" or not info.workers:
        return ""
    whose = "its" if info.workers == 1 else "their"
    return f"; {output.counted(info.workers, 'worker')} to end, once {whose} queues are all sealed and empty"


_switch("pause", "paused", "Hand nothing out of queues until they are resumed. What runs goes on.")
_switch("resume", "resumed", "Hand tasks of these queues out again.")
_switch("seal", "sealed", "Take nothing more into queues. Their workers end once they are empty.")
_switch("unseal", "unsealed", "Take tasks into these queues again.")


# -- emptying ------------------------------------------------------------------------------------------------------
@queue.command(short_help="Take tasks out of a queue.")
@click.argument("name", shell_complete=names("queues"))
@click.option(
    "--status",
    "states",
    type=click.Choice(PURGEABLE, case_sensitive=False),
    multiple=True,
    help="Tasks in this state; can be repeated. Those that wait, by default.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common_options
def purge(settings: Settings, name: str, states: tuple[str, ...], yes: bool) -> None:
    """Take tasks out of a queue: those that wait become CANCELLED, finished ones are forgotten with their results."""
    with settings.client() as client:
        wanted = tuple(dict.fromkeys(states)) or WAITING
        count = counted_for_purge(client, name, wanted)
        tasks = output.counted(count, "task")
        if count:
            waiting = [state for state in wanted if state in WAITING]
            what = "Cancel" if len(waiting) == len(wanted) else "Take out" if waiting else "Forget"
            confirm(f"{what} {tasks} ({', '.join(wanted)}) of {output.clean(name)}?", yes=yes)
        removed = purged(client, name, wanted) if count else 0
    if settings.as_json:
        output.emit({"queue": name, "removed": removed})
    settings.say(f"purged: {output.clean(name)}, {output.counted(removed, 'task')}")


def counted_for_purge(client: Client, name: str, states: tuple[str, ...]) -> int:
    """Return how many tasks a purge would take out."""
    found = client.queues.purge(name, states, dry_run=True)  # type: ignore[arg-type]
    return found.removed + found.remaining


def purged(client: Client, name: str, states: tuple[str, ...]) -> int:
    """Take tasks out until none are left, and return how many they were."""
    return client.queues.purge(name, states).removed  # type: ignore[arg-type]


@queue.command()
@click.argument("name", shell_complete=names("queues"))
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common_options
def rm(settings: Settings, name: str, yes: bool) -> None:
    """Delete a queue in which nothing waits or runs. Its finished tasks stay readable until they are forgotten."""
    with settings.client() as client:
        if not yes:
            info = client.queues.get(name)
            confirm(f"Delete {output.clean(name)}, {output.counted(info.submitted, 'task')} submitted?", yes=yes)
        gone = client.queues.delete(name)
    if settings.as_json:
        output.emit(gone)
    settings.say(f"deleted: {output.clean(gone.name)}")
