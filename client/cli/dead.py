"""``quorl dead``: the tasks that are FAILED, one by one and by what they died of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import click

from quorl.client.cli import output
from quorl.client.cli.asking import confirm, each, pages
from quorl.client.cli.common import Settings, list_options_beside_queue, options_beside_queue
from quorl.client.cli.names import names
from quorl.client.cli.queue import purged
from quorl.client.cli.telling import short_call, tries
from quorl.client.cli.times import moment

if TYPE_CHECKING:
    from quorl.client.sync import Client
    from quorl.cluster.protocol import tasks as k

R = TypeVar("R")

THREADS = 16
CHUNK = 256
"""Tasks are done something to in so many threads, so many at a time: Ctrl-C is heeded in between."""
CAUSE = re.compile("[0-9a-f]{16}")
_WORDS = {"retry": ("Retry", "retried"), "forget": ("Forget", "forgotten")}


@click.group()
def dead() -> None:
    """Work with the tasks that are FAILED."""


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--error", metavar="TEXT", help="Only of this group of `dead errors`, or with this in the error."),
        click.option("--name", metavar="NAME", help="Only tasks of this name."),
        click.option("-q", "--queue", metavar="QUEUE", help="Only of this queue.", shell_complete=names("queues")),
    ):
        command = option(command)
    return command


class _Filter(NamedTuple):
    """Which of the dead are meant."""

    queue: str | None
    name: str | None
    error: str | None

    def find(self, client: Client, count: int | None = None) -> Iterator[k.TaskSummary]:
        """Yield them, the newest first."""
        from quorl.cluster.protocol import tasks as k

        request = k.ListTasks(queue=self.queue, status="FAILED", name=self.name)
        for one in pages(client, request, count if self.error is None else None):
            if self.error is None or self.error == one.cause or self.error in error_of(one):
                yield one
                count = None if count is None else count - 1
                if count == 0:
                    return


def error_of(one: k.TaskSummary) -> str:
    """Return what a task died of, in one line."""
    return one.error or one.reason or "not known"


# -- looking -------------------------------------------------------------------------------------------------------
@dead.command()
@_filters
@click.option(
    "-n", "--max", "count", type=click.IntRange(1), metavar="N", default=100, show_default=True, help="At most so many."
)
@click.option("--all", "everything", is_flag=True, help="However many there are.")
@list_options_beside_queue
def ls(
    settings: Settings, queue: str | None, name: str | None, error: str | None, count: int, everything: bool
) -> None:
    """List the tasks that are FAILED, those submitted last first."""
    with settings.looking() as client:
        found = list(_Filter(queue, name, error).find(client, None if everything else count))
    if settings.as_json:
        output.emit(found)
        return
    columns = ("ID", "TASK", "QUEUE", "TRIES", "FINISHED", "REASON", "ERROR")
    rows = [
        (
            one.id,
            short_call(one.name, one.args),
            one.queue,
            tries(one.attempts, one.max_attempts, one.lost),
            moment(one.finished_at),
            one.reason or "–",
            one.error or "",
        )
        for one in found
    ]
    spare = ("REASON", "QUEUE", "FINISHED", "TRIES", "ERROR")
    output.table(columns, rows, numbers=("TRIES",), spare=spare, loose=("TASK", "ERROR"))
    if len(found) == count and not everything:
        settings.say(f"the newest {output.grouped(count)}; --all lists all, quorl dead errors counts them")
    elif not found:
        settings.say("no FAILED task fits")


@dead.command(short_help="Count FAILED tasks by name and error.")
@_filters
@list_options_beside_queue
def errors(settings: Settings, queue: str | None, name: str | None, error: str | None) -> None:
    """Count the tasks that are FAILED by task name and error, numbers and names in its text aside."""
    with settings.client() as client:
        found = [
            one
            for one in _groups(client, queue, name)
            if error is None or error == one["group"] or error in one["error"]
        ]
    found.sort(key=lambda group: (-group["count"], group["name"], group["error"], group["queue"]))
    if settings.as_json:
        output.emit(found)
        return
    columns = ("GROUP", "COUNT", "TASK", "QUEUE", "FIRST", "LAST", "EXAMPLE", "ERROR")
    rows = [
        (
            one["group"],
            one["count"],
            one["name"],
            one["queue"],
            moment(one["first"]),
            moment(one["last"]),
            one["example"],
            one["error"],
        )
        for one in found
    ]
    output.table(columns, rows, numbers=("COUNT",), spare=("FIRST", "LAST", "EXAMPLE"), loose=("ERROR",))
    if found:
        settings.say("quorl dead retry --error GROUP queues the tasks of a group again")
    else:
        settings.say("no FAILED task fits")


def _groups(client: Client, queue: str | None, name: str | None) -> list[dict[str, Any]]:
    """Return all groups, joined over the pages in which the cluster counts them."""
    import msgspec

    from quorl.cluster.protocol import batches as a

    groups: dict[tuple[str, str], dict[str, Any]] = {}
    request = a.ListDeadGroups(queue=queue, name=name)
    while True:
        page = client.call(request)
        for one in page.items:
            fresh = {"group": one.cause, "count": 0, "name": one.name, "queue": one.queue, "error": one.error}
            times = {"first": one.first_at, "last": one.last_at, "example": one.sample_id}
            group = groups.setdefault((one.queue, one.cause), fresh | times)
            group["count"] += one.count
            group["first"] = min(group["first"], one.first_at)
            if one.last_at > group["last"]:
                group.update(last=one.last_at, example=one.sample_id)
        if page.next is None:
            return list(groups.values())
        request = msgspec.structs.replace(request, cursor=page.next)


@dead.command(short_help="Print FAILED tasks with their history, as JSON lines.")
@_filters
@options_beside_queue
def export(settings: Settings, queue: str | None, name: str | None, error: str | None) -> None:
    """Print the tasks that are FAILED with their whole history, one JSON object per line."""
    import msgspec

    from quorl.client.errors import TaskNotFound

    def read(task_id: str) -> bytes | None:
        try:
            return msgspec.json.encode(client.tasks.get(task_id))
        except TaskNotFound:
            return None  # forgotten meanwhile

    printed = 0
    with settings.client() as client:
        found = [one.id for one in _Filter(queue, name, error).find(client)]
        for line in in_parallel(read, found):
            if line is not None:
                output.write_lines([line])
                printed += 1
    settings.say(f"{output.counted(printed, 'task')}")


# -- doing ---------------------------------------------------------------------------------------------------------
def _chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("--all", "everything", is_flag=True, help="All of them, or all that the other options leave."),
        _filters,
        click.argument("ids", metavar="[ID]...", nargs=-1),
    ):
        command = option(command)
    return command


def _check(ids: Sequence[str], which: _Filter, everything: bool, action: str) -> None:
    if ids and (everything or any(which)):
        raise click.UsageError("say either IDs, or which tasks are meant")
    if not ids and not everything and which.error is None:
        if which.name is None and which.queue is None:
            raise click.UsageError("say which: IDs, --error TEXT, or --all")
        name = "" if which.name is None else f" {which.name}"
        where = "" if which.queue is None else f" of queue {which.queue}"
        raise click.UsageError(f"add --all to {action} every FAILED{name or ' task'}{where}")


@dead.command(short_help="Queue FAILED tasks again: some, those with an error, or all.")
@_chosen
@options_beside_queue
def retry(
    settings: Settings,
    ids: tuple[str, ...],
    queue: str | None,
    name: str | None,
    error: str | None,
    everything: bool,
    yes: bool,
) -> None:
    """Queue FAILED tasks again: those with these IDs, those with an error, or all."""
    which = _Filter(queue, name, error)
    _check(ids, which, everything, "retry")
    with settings.client() as client:
        _do(settings, client, (ids, which, yes), "retry", client.tasks.retry)


@dead.command(short_help="Forget FAILED tasks: some, those with an error, or all.")
@_chosen
@options_beside_queue
def purge(
    settings: Settings,
    ids: tuple[str, ...],
    queue: str | None,
    name: str | None,
    error: str | None,
    everything: bool,
    yes: bool,
) -> None:
    """Forget FAILED tasks with their history: those with these IDs, those with an error, or all."""
    which = _Filter(queue, name, error)
    _check(ids, which, everything, "purge")
    with settings.client() as client:
        if ids or name is not None or error is not None:
            _do(settings, client, (ids, which, yes), "forget", client.tasks.forget)
            return
        infos = [client.queues.get(queue)] if queue is not None else client.queues.list()
        counts = {info.name: info.counts.failed for info in infos if info.counts.failed}
        if counts:
            confirm(f"Forget {output.counted(sum(counts.values()), 'task')}?", yes=yes)
        removed = sum(purged(client, one, ("FAILED",)) for one in counts)
    _conclude(settings, removed, 0, "forgotten")


def _do(
    settings: Settings,
    client: Client,
    chosen: tuple[Sequence[str], _Filter, bool],
    action: Literal["retry", "forget"],
    do: Callable[[str], object],
) -> None:
    """Do something to the tasks that are meant; those that are FAILED no more are counted and left alone."""
    ids, which, yes = chosen
    asked, word = _WORDS[action]
    if ids:

        def one(task_id: str) -> None:
            answer = do(task_id)
            if settings.as_json:
                output.emit(answer)
            settings.say(f"{output.clean(task_id)} {word}")

        each(settings, ids, one)
        return
    parts = _parts(client, which)
    found = _change(client, action, parts, dry_run=True)
    if found:
        confirm(f"{asked} {output.counted(found, 'task')}?", yes=yes)
    done = _change(client, action, parts, dry_run=False) if found else 0
    _conclude(settings, done, max(0, found - done), word)


def _parts(client: Client, which: _Filter) -> list[dict[str, Any]]:
    """Return what to say to the cluster, so that it finds the tasks: the fields of one command each."""
    from quorl.cluster.protocol import limits

    if which.error is not None and not CAUSE.fullmatch(which.error):  # only who reads the errors knows
        found = [task.id for task in which.find(client)]
        most = limits.BATCH_TASKS_MAX
        return [{"ids": tuple(found[start : start + most])} for start in range(0, len(found), most)]
    queues = [which.queue] if which.queue else [one.name for one in client.queues.list() if one.counts.failed]
    return [{"queue": queue, "name": which.name, "cause": which.error} for queue in queues]


def _change(client: Client, action: Literal["retry", "forget"], parts: list[dict[str, Any]], *, dry_run: bool) -> int:
    """Do it to all of them, or only look; returns to how many it was done, or would be."""
    from quorl.cluster.protocol import batches as a

    done = 0
    for part in parts:
        after: int | None = 0
        while after is not None:
            answer = client.call(a.ChangeTasks(action=action, after=after, dry_run=dry_run, **part))
            done, after = done + answer.done, answer.next
    return done


def _conclude(settings: Settings, done: int, others: int, word: str) -> None:
    if settings.as_json:
        output.emit({word: done, "changed_meanwhile": others})
    left = f", {output.grouped(others)} no longer FAILED" if others else ""
    settings.say(f"{output.counted(done, 'task')} {word}{left}")


def in_parallel(do: Callable[[str], R], things: Sequence[str]) -> Iterator[R]:
    """Yield what comes of doing something to each, in order, several at a time: they share entries of the log."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for start in range(0, len(things), CHUNK):
                yield from pool.map(do, things[start : start + CHUNK])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
