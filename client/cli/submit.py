"""``quorl task submit``: one task from the words of a line.

The task has an id before it is sent, so that whoever does not learn what became of it can look, or repeat it safely.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import click
from typing_extensions import override

from quorl.client.cli import output
from quorl.client.cli.common import Exit, Settings, fail, options_beside_queue, three_lines
from quorl.client.cli.guessing import elsewhere
from quorl.client.cli.names import names
from quorl.client.cli.options import BackoffSpec, Pair, broken_json, read_json
from quorl.client.cli.telling import new_call
from quorl.client.cli.times import Duration, Moment
from quorl.client.cli.waiting import conclude, tell_stuck, wait_for

if TYPE_CHECKING:
    from quorl.client.sync import Client
    from quorl.cluster.protocol import submitting as b
    from quorl.cluster.protocol.queues import Backoff

_NUMBER = re.compile(r"-\d")
NAMES_MAX = 20
"""Of the names that workers know, shown where one is unknown."""


def new_id() -> str:
    """Return an id that nobody else has; later ones are greater (UUID version 7)."""
    ms = time.time_ns() // 1_000_000
    bits = ms << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=bits))


class _TakesNumbers(click.Command):
    """A command whose arguments may be negative numbers, which look like options."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        plain = args[args.index("--") :] if "--" in args else []
        rest = super().parse_args(ctx, args)
        for word in ctx.params.get("arguments", ()):
            if word.startswith("-") and word != "-" and not _NUMBER.match(word) and word not in plain:
                raise click.NoSuchOption(word, ctx=ctx)
        return rest


@click.command(cls=_TakesNumbers, context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("arguments", metavar="[ARGS]...", nargs=-1)
@click.option("--kwarg", "named", type=Pair(), multiple=True, metavar="NAME=VALUE", help="A named argument, likewise.")
@click.option(
    "-q",
    "--queue",
    default="default",
    show_default=True,
    metavar="QUEUE",
    help="Where it waits for a worker.",
    shell_complete=names("queues"),
)
@click.option("--id", "task_id", metavar="ID", help="An id of your own; the very same task again changes nothing.")
@click.option(
    "--priority", type=click.IntRange(0, 9), metavar="N", default=5, show_default=True, help="Higher ones go first."
)
@click.option("--delay", type=Duration(), default=0, metavar="DURATION", help="Not before: 30s, 5m, 2h, 1d.")
@click.option("--run-at", type=Moment(), metavar="MOMENT", help="Not before this moment: 2030-01-31T18:00.")
@click.option("--expires", type=Duration(), metavar="DURATION", help="Never, if it has not been started by then.")
@click.option(
    "--attempts", type=click.IntRange(1, 100), metavar="N", help="Runs in all; the queue's default otherwise."
)
@click.option("--max-lost", type=click.IntRange(1, 100), metavar="N", help="FAILED after so many workers that died.")
@click.option("--run-timeout", type=Duration(), metavar="DURATION", help="Bounds one attempt.")
@click.option("--backoff", type=BackoffSpec(), metavar=BackoffSpec.metavar, help="The wait after a failed attempt.")
@click.option("--key", help="In a queue with partitions, tasks of one key share one.")
@click.option("--tag", "tags", multiple=True, metavar="TEXT", help="A word that is shown with it; can be repeated.")
@click.option(
    "--meta", "meta", type=Pair(), multiple=True, metavar="NAME=TEXT", help="Likewise, with a name; can be repeated."
)
@click.option(
    "--strict", is_flag=True, help="Submit it only if a worker alive on the queue has it and takes its arguments."
)
@click.option("--wait", is_flag=True, help="Wait until it is finished, or --timeout is over, and print its result.")
@click.option("--max-wait", type=Duration(), metavar="DURATION", help="Wait, but at most so long.")
@options_beside_queue
def submit(settings: Settings, queue: str, *, strict: bool, wait: bool, max_wait: int | None, **words: Any) -> None:
    """Submit a task and print its id. ARGS are JSON where they can be read as JSON, text otherwise.

    With --wait its result is printed, and the exit code is 1 unless it is a SUCCESS.

    The options of `@app.task` in the code do not reach it, for they hold where Python submits: say --queue, --attempts,
    --run-timeout and so on here, or let the queue have them (`quorl queue set`).
    """
    task = _task(**words)
    for text in (*words["arguments"], *(text for _, text in words["named"])):
        if (why := broken_json(text)) is not None:
            shown = output.clean(text)
            settings.say(f"! {shown} looks like JSON and is none ({why}), so the task gets it as text")
    with settings.client() as client:
        if strict:
            _insist(client, queue, task)
        submitted = _submit(settings, client, queue, task)
        warns = not (settings.quiet or settings.as_json)
        (one,) = submitted.items
        about = f"{output.clean(new_call(task))} → {output.clean(queue)}{', was there already' if one.existing else ''}"
        if not wait and max_wait is None:
            if settings.as_json:
                output.emit(submitted)
                return
            click.echo(output.clean(one.id))
            settings.say(f"{about}, {one.status}")
            if warns and not _warn(client, queue, task):
                _warn_stuck(client, (one.id, str(task.name), queue))
            return
        settings.say(f"{output.clean(one.id)} {about}")
        if warns:
            _warn(client, queue, task)
        most = settings.wait_ms(max_wait)
        info = wait_for(settings, client, one.id, most)
    conclude(settings, info, most)


def _task(
    *,
    name: str,
    arguments: tuple[str, ...],
    named: tuple[tuple[str, str], ...],
    task_id: str | None,
    priority: int,
    delay: int,
    run_at: dt.datetime | None,
    expires: int | None,
    attempts: int | None,
    max_lost: int | None,
    run_timeout: int | None,
    backoff: Backoff | None,
    key: str | None,
    tags: tuple[str, ...],
    meta: tuple[tuple[str, str], ...],
) -> b.NewTask:
    import msgspec

    from quorl.cluster.protocol import submitting as b

    if delay and run_at is not None:
        raise click.UsageError("say either --delay or --run-at")
    return b.NewTask(
        id=task_id or new_id(),
        name=name,
        args=msgspec.Raw(b"[" + b",".join(bytes(read_json(word)) for word in arguments) + b"]"),
        kwargs=msgspec.Raw(msgspec.json.encode({key: read_json(text) for key, text in named})),
        priority=priority,
        key=key,
        delay_ms=delay,
        run_at=None if run_at is None else run_at.isoformat(),
        expires_ms=expires,
        timeout_ms=run_timeout,
        max_attempts=attempts,
        max_lost=max_lost,
        backoff=backoff,
        tags=list(tags) or None,
        meta=dict(meta) or None,
    )


def _submit(settings: Settings, client: Client, queue: str, task: b.NewTask) -> b.Submitted:
    """Submit; what is not known to have been done is done again under its key, and its id is told if that is not known."""
    from quorl.client.errors import OutcomeUnknown
    from quorl.cluster.protocol import submitting as b

    try:
        try:
            return client.call(b.Submit(queue=queue, tasks=[task]))
        except OutcomeUnknown as error:
            settings.say(f"{error.detail}; asking again, which is safe")
            again = client.repeat(error)
            assert isinstance(again, b.Submitted)
            return again
    except OutcomeUnknown:
        word = output.word(task.id)
        settings.say(f"quorl task show {word} says whether it is there; again with --id {word} is safe")
        raise


# -- who could run it ----------------------------------------------------------------------------------------------
class _Known(NamedTuple):
    """The workers that are alive and serve a queue, and the tasks that they have."""

    workers: int
    tasks: dict[str, set[str]]
    """By name, with the signatures that they have there."""
    anything: bool
    """Whether one of them said no names, and may run whatever comes."""

    @classmethod
    def of(cls, client: Client, queue: str) -> Self:
        workers = client.workers.list(status="ALIVE", queue=queue)
        tasks: dict[str, set[str]] = {}
        for one in workers:
            for handler in one.handlers:
                tasks.setdefault(handler.name, set()).add(handler.signature)
        return cls(len(workers), tasks, any(not one.handlers for one in workers))

    def have(self, task: b.NewTask) -> bool:
        """Whether one of them can run it."""
        return self.anything or task.name in self.tasks

    def meant_by_name(self, task: b.NewTask) -> list[str]:
        """Return the arguments that are handed over as texts like ``x=4`` to a task that has an ``x``."""
        from msgspec.json import decode

        from quorl.client.cli.fitting import meant_by_name

        args = decode(task.args)  # type: ignore[arg-type] # they are set
        found = (meant_by_name(signature, args) for signature in sorted(self.tasks.get(str(task.name), ())))
        return next(filter(None, found), [])

    def misfit(self, task: b.NewTask) -> tuple[str, str] | None:
        """Return a signature that does not take the arguments, and why, if none of those there are takes them."""
        from msgspec.json import decode

        from quorl.client.cli.fitting import misfit

        found = None
        args, kwargs = decode(task.args), decode(task.kwargs)  # type: ignore[arg-type] # both are set
        for signature in sorted(self.tasks.get(str(task.name), ())):
            why = misfit(signature, args, kwargs)
            if why is None:
                return None
            found = found or (signature, why)
        return None if self.anything else found


def _insist(client: Client, queue: str, task: b.NewTask) -> None:
    """End, before anything is submitted, unless somebody alive has the task."""
    known = _Known.of(client, queue)
    if not known.have(task):
        fail(Exit.FAILED, *_no_worker_for_task(client, queue, task, known, "Submit it without --strict"))
    if (misfit := known.misfit(task)) is not None:
        fail(Exit.FAILED, *_do_not_fit(task, *misfit), "Submit it with other arguments")


def _no_worker_for_task(
    client: Client, queue: str, task: b.NewTask, known: _Known, otherwise: str
) -> tuple[str, str, str]:
    """Return what, why and what to do."""
    from quorl.cluster.protocol.routes import nearest_task

    guess, served = elsewhere(client, queue, str(task.name))
    start = f"start a worker that has it: quorl worker run MODULE:APP -q {output.word(queue)}"
    queue, name, names = output.clean(queue), output.clean(task.name), sorted(known.tasks)
    what = f"no_worker_for_task: nobody alive has registered `{name}`{nearest_task(str(task.name), names)}"
    count = known.workers
    workers = "no worker is" if not count else "1 worker is" if count == 1 else f"{output.grouped(count)} workers are"
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    has = f"; known there: {output.clean(', '.join(names[:NAMES_MAX]))}{more}" if names else ""
    has += (f"; {served}" if served else "") + ("" if count else guess)
    return what, f"{workers} alive on queue {queue}{has}", f"{otherwise}, or {start}"


def _do_not_fit(task: b.NewTask, signature: str, why: str) -> tuple[str, str]:
    """Return what and why."""
    what = f"arguments_refused: the arguments do not fit `{output.clean(task.name)}`"
    return what, f"{why}; it is {output.clean(task.name)}{output.clean(signature)}"


def _warn(client: Client, queue: str, task: b.NewTask) -> bool:
    """Say at once what no waiting mends: nobody there has a task, or its arguments are not what is meant; returns whether."""
    from quorl.client.errors import QuorlError

    try:
        known = _Known.of(client, queue)
    except QuorlError:
        return False  # the task is submitted, and that was all that was asked for
    if known.workers and not known.have(task):
        otherwise = f"Look what became of it: quorl task show {output.word(task.id)}"
        three_lines("warn", *_no_worker_for_task(client, queue, task, known, otherwise))
    elif meant := known.meant_by_name(task):
        what = f'"{output.clean(meant[0])}" is handed over as this text, by its position'
        hint = f"quorl task submit {output.word(task.name)} {' '.join(f'--kwarg {output.word(one)}' for one in meant)}"
        three_lines("warn", what, "arguments that are named take --kwarg", hint)
    elif (misfit := known.misfit(task)) is not None:
        three_lines("warn", *_do_not_fit(task, *misfit), "It ends FAILED; submit it again with other arguments")
    else:
        return False
    return True


def _warn_stuck(client: Client, task: tuple[str, str, str]) -> None:
    """Say what stands in the way of a task (its id, name, queue) that nobody waits for and does not go by itself."""
    from quorl.client.errors import QuorlError

    try:
        reasons = client.tasks.why(task[0])
    except QuorlError:
        return
    if reasons:
        tell_stuck(client, reasons[0], task)
