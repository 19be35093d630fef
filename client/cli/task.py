"""``quorl task``: list, describe, wait for, cancel and retry tasks; submitting is in ``submit`` and ``importing``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from quorl.client.cli import output
from quorl.client.cli.asking import each, pages
from quorl.client.cli.common import Exit, Settings, common_options, list_options_beside_queue, look_options
from quorl.client.cli.hints import REASONS
from quorl.client.cli.importing import import_
from quorl.client.cli.names import names
from quorl.client.cli.submit import submit
from quorl.client.cli.telling import call_text, how_it_went, next_steps, raw_text, short_call, tries
from quorl.client.cli.times import Duration, moment, ms_between, span
from quorl.client.cli.waiting import conclude, wait_for

if TYPE_CHECKING:
    from quorl.cluster.protocol import tasks as k

SPARE = ("WORKER", "TOOK", "QUEUE", "CREATED", "TRIES", "ERROR")
_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)


@click.group(short_help="Work with tasks: calls that workers run.")
def task() -> None:
    """Work with tasks: calls that workers run, and whose every attempt is on record."""


task.add_command(submit)
task.add_command(import_)


@task.command()
@click.option("-q", "--queue", metavar="QUEUE", help="Only of this queue.", shell_complete=names("queues"))
@click.option("--status", "states", multiple=True, metavar="STATUS", help="Only in this state; can be repeated.")
@click.option("--name", metavar="NAME", help="Only of this name.")
@click.option("--worker", "worker_id", type=click.IntRange(1), metavar="ID", help="Only of this worker.")
@click.option("--oldest", is_flag=True, help="The oldest first, not the newest.")
@click.option(
    "-n", "--max", "count", type=click.IntRange(1), metavar="N", default=100, show_default=True, help="At most so many."
)
@click.option("--all", "everything", is_flag=True, help="However many there are.")
@list_options_beside_queue
def ls(
    settings: Settings,
    queue: str | None,
    states: tuple[str, ...],
    name: str | None,
    worker_id: int | None,
    oldest: bool,
    count: int,
    everything: bool,
) -> None:
    """List tasks, the newest first."""
    from quorl.cluster.protocol import tasks as k

    status = ",".join(states).upper() or None
    request = k.ListTasks(
        queue=queue, status=status, name=name, worker_id=worker_id, order="oldest" if oldest else "newest"
    )
    with settings.looking() as client:
        found = list(pages(client, request, None if everything else count))
    if settings.as_json:
        output.emit(found)
        return
    columns = ("ID", "TASK", "QUEUE", "STATUS", "TRIES", "WORKER", "CREATED", "TOOK", "ERROR")
    output.table(columns, [_row(one) for one in found], numbers=("TRIES", "TOOK"), spare=SPARE, loose=("TASK", "ERROR"))
    if not found:
        settings.say("no task fits: quorl task submit NAME [ARGS]… submits one")
    elif len(found) == count and not everything:
        settings.say(f"the {'oldest' if oldest else 'newest'} {output.grouped(count)}; --all lists all")


def _row(one: k.TaskSummary) -> tuple[object, ...]:
    return (
        one.id,
        short_call(one.name, one.args),
        one.queue,
        one.status,
        tries(one.attempts, one.max_attempts, one.lost),
        one.worker or "–",
        moment(one.created_at),
        span(ms_between(one.started_at, one.finished_at)),
        one.error or "",
    )


# -- one task ------------------------------------------------------------------------------------------------------
@task.command(short_help="Describe a task: every attempt, and what to do next.")
@click.argument("task_id", metavar="ID")
@look_options
def show(settings: Settings, task_id: str) -> None:
    """Describe a task: every attempt, the last traceback, and what can be done next. Without a quorum: as one node has it."""
    with settings.looking() as client:
        info = client.tasks.get(task_id)
    if settings.as_json:
        output.emit(info)
        return
    click.echo(f"{output.clean(call_text(info.name, info.args, info.kwargs))}  {how_it_went(info)}")
    for line in _about(info):
        click.echo(f" {output.clean(line)}")
    if info.history:
        click.echo()
        columns = ("#", "WORKER", "STARTED", "TOOK", "OUTCOME", "ERROR")
        output.table(columns, _attempts(info), numbers=("#", "TOOK"))
    if info.errors and info.errors[-1].traceback:
        click.echo(f"\nTraceback of attempt {info.errors[-1].attempt}")
        for line in info.errors[-1].traceback.splitlines():
            click.echo(f"  {output.clean(line)}")
    if info.status == "SUCCESS":
        click.echo(f"\nresult {output.clean(raw_text(info.result))}")
    settings.say("→ " + " · ".join(next_steps(info)))


def _about(info: k.TaskInfo) -> list[str]:
    place = f"queue {info.queue}" + ("" if info.partition is None else f", partition {info.partition}")
    parts = [f"id {info.id}", place, f"priority {info.priority}"]
    parts += [f"key {info.key}"] if info.key is not None else []
    parts += [f"tags {', '.join(info.tags)}"] if info.tags else []
    parts += [f"{name}={text}" for name, text in info.meta.items()]
    parts += [f"trace {info.traceparent}"] if info.traceparent else []
    parts += [f"at most {span(info.timeout_ms)} for a run"] if info.timeout_ms is not None else []
    moments = [
        ("submitted", info.created_at),
        ("due", info.due_at),
        ("started", info.started_at),
        ("finished", info.finished_at),
    ]
    lines = [" · ".join(parts), " · ".join(f"{word} {at}" for word, at in moments if at is not None)]
    if info.status not in {"SUCCESS", "FAILED"}:
        lines.append(f"tries {tries(info.attempts, info.max_attempts, info.lost)}")
    if info.progress is not None or info.note:
        lines.append(f"progress {'–' if info.progress is None else f'{info.progress:g} %'} {info.note}".rstrip())
    if info.cancel_requested and info.finished_at is None:
        lines.append("its worker is asked to stop")
    return lines


def _attempts(info: k.TaskInfo) -> list[tuple[object, ...]]:
    """Return the rows of the attempts; an error that is that of the row above is not said again."""
    rows: list[tuple[object, ...]] = []
    before = ""
    for one in info.history:
        error = "" if one.error is None else f"{one.error.type}: {one.error.message}".removesuffix(": ")
        if one.outcome == "lost" and not error:
            error = "no sign of life of its worker: did its process end, or its machine?"
        again = error and error == before
        took = span(ms_between(one.started_at, one.ended_at))
        rows.append((one.number, one.worker, one.started_at, took, one.outcome, "″" if again else error))
        before = error or before
    return rows


@task.command()
@click.argument("task_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until it is finished, or --timeout is over.")
@click.option("--max-wait", type=Duration(), metavar="DURATION", help="Wait, but at most so long.")
@common_options
def result(settings: Settings, task_id: str, wait: bool, max_wait: int | None) -> None:
    """Print the result of a task: text as it is, any other value as JSON.

    Ends with 1 if it is FAILED, CANCELLED or EXPIRED, and with 6 if it is not finished.
    """
    with settings.client() as client:
        most = settings.wait_ms(max_wait) if wait or max_wait is not None else 0
        info = wait_for(settings, client, task_id, most)
    conclude(settings, info, most)


@task.command()
@_ids
@click.option("--max-wait", type=Duration(), metavar="DURATION", help="At most so long.")
@common_options
def wait(settings: Settings, ids: tuple[str, ...], max_wait: int | None) -> None:
    """Wait until tasks are finished, and print how each went.

    Ends with 1 unless all are a SUCCESS, and with 6 when the time was over before.
    """
    from quorl.cluster.protocol.tasks import FINAL

    most = settings.wait_ms(max_wait)
    deadline = None if most is None else time.monotonic() + most / 1000
    code = Exit.OK
    with settings.client() as client:
        for one in ids:
            left = None if deadline is None else max(0, round(1000 * (deadline - time.monotonic())))
            info = wait_for(settings, client, one, left)
            if settings.as_json:
                output.emit(info)
            else:
                click.echo(f"{output.clean(one)}  {how_it_went(info)}")
            if info.status not in FINAL:
                code, again = Exit.UNKNOWN, output.word(one)
                look = (
                    "who runs it: quorl task show"
                    if info.status == "PROCESSING"
                    else "what it waits for: quorl task why"
                )
                settings.say(
                    f"! {output.clean(one)} is {info.status} after {span(most or 0)} of waiting, and goes on; "
                    f"again: quorl task wait {again} · {look} {again}"
                )
            elif info.status != "SUCCESS":
                code = code or Exit.FAILED
    if code:
        click.get_current_context().exit(code)


@task.command(short_help="Cancel tasks that wait or run.")
@_ids
@common_options
def cancel(settings: Settings, ids: tuple[str, ...]) -> None:
    """Cancel tasks: at once while they wait, through their worker while they run."""
    with settings.client() as client:

        def one(task_id: str) -> None:
            gone = client.tasks.cancel(task_id)
            if settings.as_json:
                output.emit(gone)
            told = ", its worker is told to stop" if gone.cancel_requested and gone.status == "PROCESSING" else ""
            settings.say(f"{output.clean(gone.id)} {gone.status}{told}")

        each(settings, ids, one)


@task.command(short_help="Queue FAILED, CANCELLED or EXPIRED tasks again.")
@_ids
@common_options
def retry(settings: Settings, ids: tuple[str, ...]) -> None:
    """Queue tasks again that are FAILED, CANCELLED or EXPIRED; their history stays."""
    with settings.client() as client:

        def one(task_id: str) -> None:
            again = client.tasks.retry(task_id)
            if settings.as_json:
                output.emit(again)
            settings.say(f"{output.clean(again.id)} {again.status}, after {output.counted(again.attempts, 'attempt')}")

        each(settings, ids, one)


@task.command()
@click.argument("task_id", metavar="ID")
@common_options
def why(settings: Settings, task_id: str) -> None:
    """Say why a task is not running, the weightiest reason first. Without a quorum: as one node has it."""
    from quorl.cluster.protocol import tasks as k

    with settings.looking() as client:
        found = client.call(k.GetTaskWhy(id=task_id))
        info = client.tasks.get(task_id) if not settings.as_json else None
    if info is None:
        output.emit(found)
        return
    click.echo(f"{output.clean(found.id)} {found.status}")
    for reason in found.reasons:
        click.echo(f"{reason.code.replace('_', ' ')}: {output.clean(reason.detail)}")
        hint = REASONS.get(reason.code, "").format(id=output.word(info.id), queue=output.word(info.queue))
        if reason.code == "finished":
            hint = " · ".join(next_steps(info))
        click.echo(f"  try  {output.clean(hint or reason.hint)}")
