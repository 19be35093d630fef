"""``quorl worker ls|show|quiet|stop``: the workers that the cluster knows; ``run`` is in ``worker``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from quorl.client.cli import output
from quorl.client.cli.asking import each, pages
from quorl.client.cli.common import Exit, Settings, common_options, fail, list_options_beside_queue, look_options
from quorl.client.cli.glance import beats_text, glance
from quorl.client.cli.guessing import unknown_queue
from quorl.client.cli.names import names
from quorl.client.cli.times import ms_between, span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quorl.client.sync import Client
    from quorl.cluster.protocol import tasks as k
    from quorl.cluster.protocol import workers as w

RUNNING_MAX = 10_000
"""Tasks that run of which it is looked whose they are."""
SPARE = ("PID", "HOST", "LOST", "BEATS (2 min)", "FAILED TRIES", "QUEUES")
_workers = click.argument("workers", metavar="WORKER...", nargs=-1, required=True, shell_complete=names("workers"))


@click.command()
@click.option("-q", "--queue", metavar="QUEUE", help="Only those that serve it.", shell_complete=names("queues"))
@click.option("--status", type=click.Choice(["ALIVE", "DEAD", "LEFT"], case_sensitive=False), help="Only these.")
@list_options_beside_queue
def ls(settings: Settings, queue: str | None, status: str | None) -> None:
    """List the workers that are alive, and those that died or left lately.

    DONE and FAILED TRIES count runs, LOST those that the worker held when it died; a task may take several.
    """
    with settings.looking() as client:
        found = client.workers.list(status=status, queue=queue)  # type: ignore[arg-type]
        running = running_tasks(client, found) if not settings.as_json else {}
        seen = None if settings.as_json or not found else glance(client)
        unknown = "" if settings.as_json or found or queue is None else unknown_queue(client, queue)
    if settings.as_json:
        output.emit(found)
        return
    columns = (
        "WORKER",
        "NAME",
        "STATUS",
        "HOST",
        "PID",
        "QUEUES",
        "BUSY",
        "DONE",
        "FAILED TRIES",
        "LOST",
        "LAST BEAT",
        "BEATS (2 min)",
        "NOW",
    )
    beats = {} if seen is None else {one.worker_id: beats_text(one) for one in seen.workers}
    rows = [_row(one, running.get(one.worker_id, ()), beats.get(one.worker_id)) for one in found]
    numbers = ("WORKER", "PID", "BUSY", "DONE", "FAILED TRIES", "LOST", "LAST BEAT")
    output.table(columns, rows, numbers=numbers, spare=SPARE, loose=("QUEUES", "NOW"))
    if not found:
        serves, option = (f" serves {output.clean(queue)}", f" -q {output.word(queue)}") if queue else ("", "")
        settings.say(f"no worker{serves}: quorl worker run MODULE:APP{option} starts one{unknown and f'. {unknown}'}")


def _row(one: w.WorkerInfo, running: Iterable[k.TaskSummary], beats: str | None) -> tuple[object, ...]:
    return (
        one.worker_id,
        one.name,
        status_text(one),
        one.host or "–",
        one.pid or "–",
        ",".join(one.queues),
        f"{one.leases}/{one.concurrency}" if one.status == "ALIVE" else "–",
        output.grouped(one.succeeded),
        output.grouped(one.failed),
        output.grouped(one.lost),
        span(one.silent_ms),
        output.NOTHING if beats is None else beats,
        now_text(one, running),
    )


def running_tasks(client: Client, workers: Iterable[w.WorkerInfo]) -> dict[int, list[k.TaskSummary]]:
    """Return what each worker runs now, asked for at once."""
    from quorl.cluster.protocol import tasks as k

    found: dict[int, list[k.TaskSummary]] = {}
    if any(one.leases for one in workers):
        for task in pages(client, k.ListTasks(status="PROCESSING"), RUNNING_MAX):
            found.setdefault(task.worker_id, []).append(task)
    return found


def status_text(one: w.WorkerInfo) -> str:
    """Return the status of a worker, and what is special about it."""
    if one.status != "ALIVE":
        return one.status
    marks = ["quiet"] if one.quiet else []
    marks += [] if not one.standby else ["stands in"] if one.active else ["stand-by"]
    return " ".join([one.status, *(f"({mark})" for mark in marks)])


def now_text(one: w.WorkerInfo, running: Iterable[k.TaskSummary]) -> str:
    """Return what a worker runs now: the names of its tasks, each with how often."""
    names: dict[str, int] = {}
    for task in running:
        names[task.name] = names.get(task.name, 0) + 1
    told = ", ".join(name if count == 1 else f"{name} ×{count}" for name, count in names.items())
    if one.status != "ALIVE":
        return "–"
    return told or (output.counted(one.leases, "task") if one.leases else "–")


@click.command(short_help="Describe a worker: what it runs, and what it can run.")
@click.argument("worker", shell_complete=names("workers"))
@look_options
def show(settings: Settings, worker: str) -> None:
    """Describe a worker, by its id or name: what it runs, what it can run, when it gave signs of life. Without a quorum: as one node has it."""
    with settings.looking() as client:
        info = client.workers.get(find(client, worker))
    if settings.as_json:
        output.emit(info)
        return
    busy = f" · {info.state}" if info.status == "ALIVE" else ""
    click.echo(f"{output.clean(info.name)}  worker {info.worker_id}  {status_text(info)}{busy}")
    for line in _about(info):
        click.echo(f" {output.clean(line)}")
    if info.running:
        click.echo()
        rows = [(one.id, one.name, one.queue, one.token, one.started_at) for one in info.running]
        output.table(("RUNNING", "TASK", "QUEUE", "TOKEN", "STARTED"), rows, numbers=("TOKEN",))
    if info.handlers:
        click.echo()
        handlers = [(one.name, one.signature, (one.doc or " ").splitlines()[0].strip()) for one in info.handlers]
        output.table(("TASK", "SIGNATURE", "DOC"), handlers)


def _about(info: w.WorkerInfo) -> list[str]:
    gaps = [ms_between(earlier, later) or 0 for earlier, later in zip(info.beats, info.beats[1:], strict=False)]
    heard = f"{output.counted(len(info.beats), 'heartbeat')} on record"
    return [
        f"host {info.host or '–'} · pid {info.pid or '–'} · version {info.version or '–'}",
        f"queues {', '.join(info.queues)} · {info.leases} of {output.counted(info.concurrency, 'slot')} busy",
        (
            f"registered {info.registered_at} · done {output.grouped(info.succeeded)} · "
            f"failed tries {output.grouped(info.failed)} · lost {output.grouped(info.lost)}"
        ),
        (
            f"last heartbeat {info.last_heartbeat}, {span(info.silent_ms)} ago · one every {span(info.heartbeat_ms)}, "
            f"DEAD after {span(info.dead_after_ms)}"
        ),
        heard + (f", the longest gap {span(max(gaps))}" if gaps else ""),
    ]


def find(client: Client, worker: str) -> int:
    """Return the id of a worker that is named by its id, or by its name: then the latest of that name."""
    if worker.isascii() and worker.isdigit() and int(worker) > 0:
        return int(worker)
    known = client.workers.list()
    ids = [one.worker_id for one in known if one.name == worker]
    if not ids:
        from quorl.cluster.protocol.routes import nearest

        fail(
            Exit.NOT_FOUND,
            f"no worker is called {output.clean(worker)}{nearest(worker, (one.name for one in known))}",
            "no worker has this name, neither alive nor gone lately, and ids are numbers",
            "quorl worker ls",
        )
    return max(ids)


@click.command(short_help="Tell workers to claim nothing more, and to finish.")
@_workers
@common_options
def quiet(settings: Settings, workers: tuple[str, ...]) -> None:
    """Tell workers, by id or name, to claim nothing more and to finish what they have."""
    with settings.client() as client:

        def one(worker: str) -> None:
            told = client.workers.quiet(find(client, worker))
            if settings.as_json:
                output.emit(told)
            settings.say(f"{output.clean(worker)} learns it with its next heartbeat: it finishes what it has")

        each(settings, workers, one)


@click.command()
@_workers
@common_options
def stop(settings: Settings, workers: tuple[str, ...]) -> None:
    """Tell workers, by id or name, to finish what they have and to end."""
    with settings.client() as client:

        def one(worker: str) -> None:
            told = client.workers.terminate(find(client, worker))
            if settings.as_json:
                output.emit(told)
            settings.say(f"{output.clean(worker)} learns it with its next heartbeat: it finishes what it has and ends")

        each(settings, workers, one)
