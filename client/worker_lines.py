"""What a worker says: one line for each thing that happens, for people. And errors, cut to what a report takes.

Names and messages come from anybody, so control characters are shown and never sent to a terminal. What cannot be said changes
nothing of what is done: no line raises.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import pathlib
import shlex
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec
from typing_extensions import override

from quorl.client.errors import QuorlError
from quorl.client.handlers import Handler
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w

if TYPE_CHECKING:
    from quorl.client.worker_floor import Plan

LOGGER = "quorl.worker"
RESULT_CHARS_MAX = 60
MESSAGE_CHARS_MAX = 120
"""What a line shows of a result, and of an error's message."""
CUT = "\n  … cut …\n"
_HOME = pathlib.Path(__file__).resolve().parent


class Stderr:
    """Writes lines to standard error; those that a thread says ``together`` in one go.

    Each write lets other threads run and waits for them afterwards, which costs more than all the rest of a line.
    """

    def __init__(self, *, clock: bool) -> None:
        """``clock``: whether the time of day stands before each line."""
        self._clock = clock
        self._gathered: dict[int, list[str]] = {}
        """What has not been written yet, of each thread that says lines together."""

    @override
    def __repr__(self) -> str:
        return "to_stderr"

    def __call__(self, line: str) -> None:
        """Write a line, or keep it for the end of what is said together."""
        text = f"{_time_of_day()} {line}\n" if self._clock else f"{line}\n"
        gathered = self._gathered.get(threading.get_ident())
        if gathered is None:
            _write(text)
        else:
            gathered.append(text)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Gather what this thread says within. Not within itself."""
        own = threading.get_ident()
        self._gathered[own] = []
        try:
            yield
        finally:
            if gathered := self._gathered.pop(own):
                _write("".join(gathered))

    def flush(self) -> None:
        """Write what has been gathered so far, by whichever thread."""
        for gathered in list(self._gathered.values()):
            text = "".join(gathered)
            gathered.clear()
            if text:
                _write(text)


def _write(text: str) -> None:
    if sys.stderr is None:  # it was closed before the program began
        return
    with contextlib.suppress(OSError, ValueError):  # whoever read it has gone, its disk is full, or it was closed
        sys.stderr.write(text)
        sys.stderr.flush()


def _time_of_day() -> str:
    seconds, ms = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_clock(seconds)}.{ms:03d}"


@functools.lru_cache(maxsize=2)
def _clock(seconds: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


to_stderr = Stderr(clock=True)


def clean(text: object, chars_max: int = 200) -> str:
    """Return one line of text without control characters, and not too long."""
    line = str(text)
    if not line.isprintable():
        line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
    return line if len(line) <= chars_max else line[: chars_max - 1] + "…"


def short(task_id: str) -> str:
    """Return what people need of an id to tell tasks apart: the end of one that was made here, where such ids differ."""
    if len(task_id) == 36 and task_id.count("-") == 4:
        return f"{task_id[:8]}…{task_id[-6:]}"
    return clean(task_id, 40)


def took(seconds: float) -> str:
    """Return a duration as people read it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def counted(number: int, thing: str) -> str:
    """Return so many things: 1 task, 2 tasks."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def reasons(why: QuorlError) -> str:
    """Return what an error says, and of each node why it was none."""
    tries = getattr(why, "tries", ())
    return "; ".join([why.detail, *(f"{clean(one.node)}: {clean(one.why)}" for one in tries)])


class Lines:
    """The lines of one worker; without ``write`` it is silent. ``worker_log.LoggedLines`` tells the same to programs."""

    def __init__(self, write: Callable[[str], None] | None) -> None:
        self._write = write

    def in_child(self) -> Callable[[], None] | None:
        """Return what a process that runs tasks is to do first, so that what is logged there has the same form; it travels."""
        return None

    def together(self) -> contextlib.AbstractContextManager[None]:
        """What is said within, by this thread, may be written in one go at its end."""
        return self._write.together() if isinstance(self._write, Stderr) else contextlib.nullcontext()

    def flush(self) -> None:
        """Write what has been said so far."""
        if isinstance(self._write, Stderr):
            self._write.flush()

    def _say(self, line: str) -> None:
        if self._write is None:
            return
        try:
            self._write(line)
        except Exception:  # of a function that somebody gave; the tasks are others'
            logging.getLogger(LOGGER).exception("a line of the worker could not be written: %s", line)

    def banner(
        self,
        plan: Plan,
        handlers: Mapping[str, Handler],
        servers: Sequence[str],
    ) -> None:
        """Say who begins to work, on what, and where."""
        if self._write is None:
            return
        manner = f"{plan.concurrency} at once in {'processes' if plan.pool == 'process' else 'threads'}"
        manner += " · stand-by" if plan.standby else " · burst" if plan.burst else ""
        manner += f" · crashes at task {plan.crash_at}" if plan.crash_at else ""
        self._say(" ".join(["quorl worker", *([clean(plan.name)] if plan.name else []), f"· {manner}"]))
        self._say(f"  queues   {clean(', '.join(plan.queues), 1000)}")
        self._say(f"  servers  {clean(', '.join(servers), 1000)}")
        for name, one in sorted(handlers.items()):
            self._say(f"  task     {clean(name)}{clean(one.shown())}")

    def registered(self, made: w.WorkerRegistered, *, standby: bool) -> None:
        """Say under which name the cluster knows it."""
        beats = f"heartbeat every {made.heartbeat_ms / 1000:g} s, dead after {made.dead_after_ms / 1000:g} s"
        self._say(f"registered as {made.name} (worker {made.worker_id}), {beats}")
        if standby:
            self._say("standing by: works only in the place of a worker that died, or if there is none")

    # -- the cluster --------------------------------------------------------------------------------------------------
    def unanswered(self, why: QuorlError, kept: int | None) -> None:
        """! no answer from the cluster; ``kept``: results that wait for one, None before it is registered."""
        if kept is None:
            self._say(f"! waiting for the cluster, trying on: {reasons(why)}")
        else:
            self._say(f"! no answer from the cluster, trying on ({counted(kept, 'result')} kept): {reasons(why)}")

    def answered(self) -> None:
        """The cluster answers again."""
        self._say("the cluster answers again")

    def heard(self, why: QuorlError | None) -> None:
        """Say that heartbeats are not heard, and why; or that they are again."""
        self._say("heartbeats are heard again" if why is None else f"! heartbeats are not heard: {why.detail}")

    def died(self, why: QuorlError, dropped: int) -> None:
        """! the cluster has taken it for dead."""
        self._say(f"! {why.detail} {counted(dropped, 'task')} dropped")

    # -- ends ---------------------------------------------------------------------------------------------------------
    def quiet(self) -> None:
        """It was told to claim nothing more."""
        self._say("told to be quiet: nothing more is claimed")

    def ending(self, why: str) -> None:
        """It is about to end, and nobody pressed Ctrl-C."""
        self._say(why)

    def draining(self, running: int, grace_s: float) -> None:
        """It ends after what runs."""
        self._say(f"stopping: {running} running, {grace_s:g} s for them; once more ends it at once")

    def undelivered(self, reports: int) -> None:
        """! of what may not have been reported; a report that arrived counts, though its answer was lost."""
        self._say(f"! not confirmed: {counted(reports, 'report')}. A task whose report did not arrive will run again")

    def stopped(self, done: int, failed: int) -> None:
        """The last line."""
        self._say(f"stopped: {counted(done, 'task')} done, {counted(failed, 'attempt')} failed")

    def crashing(self, number: int) -> None:
        """✸ it was told to crash."""
        self._say(f"✸ crashing on purpose in task {number}")

    # -- tasks --------------------------------------------------------------------------------------------------------
    def cancelled(self, task: e.ClaimedTask) -> None:
        """Somebody cancelled a task that runs here."""
        self._say(f"cancelled: {task.id}")

    def started(self, task: e.ClaimedTask, worker: str) -> None:
        """▶ demo.add 01939f2c → w-7f3a."""
        if self._write is not None:
            again = f" · attempt {task.attempt} of {task.max_attempts}" if task.attempt > 1 else ""
            self._say(f"▶ {clean(task.name)} {short(task.id)} → {clean(worker)}{again}")

    def succeeded(self, task: e.ClaimedTask, seconds: float, result: msgspec.Raw | msgspec.UnsetType) -> None:
        """■ 01939f2c 1 ms → 9."""
        if self._write is not None:
            text = bytes(memoryview(result or b"")[: 4 * RESULT_CHARS_MAX]).decode(errors="replace")
            self._say(f"■ {short(task.id)} {took(seconds)} → {clean(text, RESULT_CHARS_MAX)}")

    def failed(self, task: e.ClaimedTask, seconds: float, failure: e.Failure) -> None:
        """✗ 01939f2c ValueError … attempt 2 of 3, again after its back-off."""
        if self._write is None:
            return
        error = failure.error
        if not is_tried_again(task, failure):
            then = f"FAILED: quorl task show {shlex.quote(clean(task.id))}"
        elif failure.delay_ms is not None:
            then = f"again in {took(failure.delay_ms / 1000)}"
        else:
            then = "again after its back-off"
        what = clean(f"{error.type}: {error.message}" if error.message else error.type, MESSAGE_CHARS_MAX)
        self._say(f"✗ {short(task.id)} {took(seconds)} {what} · attempt {task.attempt} of {task.max_attempts}, {then}")

    def released(self, task: e.ClaimedTask, why: str) -> None:
        """↩ 01939f2c given back: the worker stops."""
        self._say(f"↩ {short(task.id)} given back: {why}")

    def dropped(self, task: e.ClaimedTask, why: str) -> None:
        """⊘ 01939f2c dropped: the lease is gone."""
        self._say(f"⊘ {short(task.id)} dropped: {why}")


def is_tried_again(task: e.ClaimedTask, failure: e.Failure) -> bool:
    """Whether a task that failed gets another attempt."""
    return failure.retry and task.attempt < task.max_attempts


# -- errors --------------------------------------------------------------------------------------------------------
def error_of(error: BaseException) -> k.TaskError:
    """Return an exception as it is reported: its type, its message, and the traceback from the handler on."""
    try:
        message = str(error)
    except (
        BaseException
    ) as broken:  # an error that cannot say what it is must not hide that it happened, nor end a thread
        message = f"(its message cannot be made: {type(broken).__name__})"
    lines = traceback.format_exception(type(error), error, _from_handler(error.__traceback__))
    return k.TaskError(
        type=_text(type(error).__name__, limits.TASK_NAME_CHARS_MAX),
        message=_text(message, limits.ERROR_TEXT_CHARS_MAX),
        traceback=_text("".join(lines), limits.ERROR_TEXT_CHARS_MAX),
    )


def _from_handler(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of the worker itself."""
    while trace is not None and _is_own(pathlib.Path(trace.tb_frame.f_code.co_filename).resolve()):
        trace = trace.tb_next
    return trace


def _is_own(file: pathlib.Path) -> bool:
    """Whether a file is the worker's; the tasks of the demo live beside it, and are tasks like any other."""
    return file.parent == _HOME and file.name != "demo.py"


def _text(text: str, chars_max: int) -> str:
    """Return text that can travel: Unicode, and cut in its middle, for it says most at its end and then at its start."""
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= chars_max:
        return text
    head = (chars_max - len(CUT)) // 4
    return text[:head] + CUT + text[-(chars_max - len(CUT) - head) :]


def made_error(kind: str, message: str) -> k.TaskError:
    """Return an error that no exception stands for."""
    return k.TaskError(type=kind, message=_text(message, limits.ERROR_TEXT_CHARS_MAX))
