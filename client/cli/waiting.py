"""Waiting for tasks, without polling, and ending as they ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from quorl.client.cli import output
from quorl.client.cli.common import Exit, Settings, exit_code, fail, tell, three_lines
from quorl.client.cli.guessing import elsewhere
from quorl.client.cli.hints import REASONS
from quorl.client.cli.telling import how_it_went, last_error, value_line
from quorl.client.cli.times import span

if TYPE_CHECKING:
    from quorl.client.sync import Client
    from quorl.cluster.protocol import tasks as k

FIRST_ROUND_S = 1.0
"""So long is a task not explained: its worker may be about to register, as right after a cluster has come up."""
ROUND_S = 20.0
"""Of one long poll, after which it is said why the task does not run."""
STUCK = frozenset({"paused", "no_workers", "no_owner", "unknown_name"})
"""Reasons to wait that only somebody can end."""
NOT_THERE = frozenset({"no_workers", "unknown_name"})
"""Those of them that a misspelt queue has."""


def wait_for(settings: Settings, client: Client, task_id: str, max_ms: int | None) -> k.TaskInfo:
    """Return the task once it is finished, or as it is when the time is over; say why it does not run meanwhile."""
    from quorl.cluster.protocol import tasks as k

    deadline = None if max_ms is None else time.monotonic() + max_ms / 1000
    round_s, said = FIRST_ROUND_S, ""
    while True:
        left_s = round_s if deadline is None else max(0.0, min(round_s, deadline - time.monotonic()))
        info = _asked(settings, client, task_id, left_s)
        if info.status in k.FINAL or (deadline is not None and time.monotonic() >= deadline):
            return info
        round_s = ROUND_S
        if info.status != "PROCESSING" and not settings.quiet:
            why = client.call(k.GetTaskWhy(id=task_id))
            told = why.reasons[0].detail if why.reasons and why.status not in k.FINAL else ""
            if told and told != said:
                _tell(settings, client, info, why.reasons[0])
            said = told


def _asked(settings: Settings, client: Client, task_id: str, wait_s: float) -> k.TaskInfo:
    """Ask once; if no node can answer, say that it is the waiting that ends, for the task is stored and stays so."""
    from quorl.client.errors import Unavailable

    try:
        return client.tasks.get(task_id, wait_s=wait_s)
    except Unavailable as error:
        word = output.word(task_id)
        tell(
            error, settings, hint=f"The waiting has ended, not the task: quorl doctor, and then quorl task wait {word}"
        )
        click.get_current_context().exit(exit_code(error))


def _tell(settings: Settings, client: Client, info: k.TaskInfo, reason: k.Reason) -> None:
    if not tell_stuck(client, reason, (info.id, info.name, info.queue), "Ctrl-C ends the waiting, not the task"):
        settings.say(f"{info.status}: {output.clean(reason.detail)}")


def tell_stuck(client: Client, reason: k.Reason, task: tuple[str, str, str], more: str = "") -> bool:
    """Warn of what stands in the way of a task (its id, name, queue) and does not go by itself; returns whether it is such."""
    if reason.code not in STUCK:
        return False
    task_id, name, queue = task
    hint = REASONS[reason.code].format(id=output.word(task_id), queue=output.word(queue))
    guess, served = elsewhere(client, queue, name) if reason.code in NOT_THERE else ("", "")
    detail = f"{reason.detail.removesuffix('.')}{guess}" if guess and reason.code == "no_workers" else reason.detail
    why = "; ".join(filter(None, ("the task waits in its queue until that changes", served, more)))
    three_lines("warn", output.clean(f"{reason.code}: {detail}"), why, output.clean(hint))
    return True


def conclude(settings: Settings, info: k.TaskInfo, waited_ms: int | None) -> None:
    """Print the result of a task that was waited for so long at most, or end with the exit code of what became of it."""
    from quorl.cluster.protocol.tasks import FINAL

    if settings.as_json:
        output.emit(info)
    elif info.status in FINAL:
        settings.say(how_it_went(info))
        if info.status == "SUCCESS":
            output.write_lines([value_line(info.result)])
    if info.status == "SUCCESS":
        return
    after, runs, task = "", info.status == "PROCESSING", output.word(info.id)
    if info.status not in FINAL:
        code = Exit.UNKNOWN
        after = f" after {span(waited_ms)} of waiting" if waited_ms else ""
        why = (
            "it was not finished in that time, and goes on"
            if waited_ms
            else "it is not finished, and has no result yet"
        )
        hint = " · ".join(f"quorl task {word} {task}" for word in ("wait", "show" if runs else "why"))
    else:
        code = Exit.FAILED
        why = last_error(info) or f"the reason is {info.reason or 'not known'}"
        hint = f"quorl task show {task} · quorl task retry {task}"
    if settings.as_json:
        click.get_current_context().exit(code)
    fail(code, f"{output.clean(info.name)} is {info.status}{after}", why, hint)
