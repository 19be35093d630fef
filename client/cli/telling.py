"""Tasks in words: the call that they are, how they went, what they came to, what can be done next."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from quorl.client.cli import output
from quorl.client.cli.times import ms_between, span

if TYPE_CHECKING:
    import msgspec

    from quorl.cluster.protocol import submitting as b
    from quorl.cluster.protocol import tasks as k

CALL_CHARS_MAX = 60
"""Of a call in a table on a terminal; elsewhere all of it is told."""


def raw_text(raw: msgspec.Raw | bytes) -> str:
    """Return a raw JSON value as text."""
    return bytes(raw).decode(errors="replace")


def value_line(raw: msgspec.Raw) -> bytes:
    """Return a result as a line for stdout: text as it is, any other value as JSON."""
    import msgspec

    data = bytes(raw)
    value = msgspec.json.decode(data)
    return value.encode() if isinstance(value, str) else data


def call_text(name: str, args: msgspec.Raw | bytes, kwargs: msgspec.Raw | bytes = b"{}") -> str:
    """Return a task as the call that it is: demo.add(4, 5)."""
    import msgspec

    positional = msgspec.json.decode(bytes(args), type=list[msgspec.Raw] | None)
    named = msgspec.json.decode(bytes(kwargs), type=dict[str, msgspec.Raw])
    if positional is None:  # a list leaves out what is long
        return f"{name}(…)"
    parts = [raw_text(one) for one in positional] + [f"{key}={raw_text(one)}" for key, one in named.items()]
    return f"{name}({', '.join(parts)})"


def new_call(task: b.NewTask) -> str:
    """Return a task that is to be submitted, in whatever spelling, as the call that it is."""
    from msgspec import UNSET

    args = task.args if task.task_args is UNSET else task.task_args
    kwargs = task.kwargs
    name = task.name or task.task or task.task_type or ""
    return call_text(name, b"[]" if args is UNSET else args, b"{}" if kwargs is UNSET else kwargs)


def short_call(name: str, args: msgspec.Raw) -> str:
    """Return a call as it fits into a table."""
    text = output.clean(call_text(name, args))
    if output.is_terminal() and len(text) > CALL_CHARS_MAX:
        return output.Cell(text[: CALL_CHARS_MAX - 1] + "…", text)
    return text


def tries(attempts: int, max_attempts: int, lost: int = 0) -> str:
    """Return how often a task has run: 3/3, or 1/3 +1 lost."""
    return f"{attempts}/{max_attempts}" + (f" +{lost} lost" if lost else "")


def how_it_went(info: k.TaskInfo) -> str:
    """Return the status with its times, its worker and which attempt it was."""
    total = ms_between(info.created_at, info.finished_at)
    if total is None or not info.history:
        after = "" if total is None else f" after {span(total)}, never started"
        return f"{info.status}{after}{_because(info)}"
    first, last = info.history[0], info.history[-1]
    waited = ms_between(max(info.created_at, info.due_at or ""), first.started_at)
    ran = ms_between(last.started_at, last.ended_at)
    pauses = [ms_between(one.ended_at, two.started_at) or 0 for one, two in itertools.pairwise(info.history)]
    between = f"between attempts {span(sum(pauses))}, " if pauses else ""
    times = f"{span(total)} (queue {span(waited)}, {between}run {span(ran)})"
    lost = f", {output.counted(info.lost, 'worker')} lost" if info.lost else ""
    if info.status == "SUCCESS":
        return f"SUCCESS in {times} on {output.clean(last.worker)}, attempt {info.attempts}{lost}"
    return (
        f"{info.status} after {info.attempts} of {output.counted(info.max_attempts, 'attempt')} in {times}, "
        f"last on {output.clean(last.worker)}{lost}{_because(info)}"
    )


def _because(info: k.TaskInfo) -> str:
    """Return the reason, where it says more than the status."""
    return f", {info.reason}" if info.reason not in {None, "ERROR", info.status} else ""


def last_error(info: k.TaskInfo) -> str:
    """Return the last error in one line, or nothing."""
    if not info.errors:
        return ""
    error = info.errors[-1]
    return output.clean(f"{error.type}: {error.message}" if error.message else error.type)


def next_steps(info: k.TaskInfo) -> list[str]:
    """Return the commands that make sense now."""
    word = output.word(info.id)
    match info.status:
        case "SUCCESS":
            return [f"quorl task result {word}"]
        case "FAILED" | "CANCELLED" | "EXPIRED":
            return [f"quorl task retry {word}"]
        case "PROCESSING":
            return [f"quorl task wait {word}", f"quorl task cancel {word}"]
        case _:
            return [f"quorl task why {word}", f"quorl task cancel {word}"]
