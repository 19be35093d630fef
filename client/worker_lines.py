"""What a worker says: one line for each thing that happens, for people. And errors, cut to what a report takes.

Names and messages come from anybody, so control characters are shown and never sent to a terminal.
"""

from __future__ import annotations

import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import msgspec

from quorl.client.handlers import Handler
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k

RESULT_CHARS_MAX = 60
MESSAGE_CHARS_MAX = 120
CUT = "\n  … cut …\n"
_HOME = pathlib.Path(__file__).resolve().parent


def to_stderr(line: str) -> None:
    """Write a line with the time of day before it."""
    now = time.time()
    stamp = time.strftime("%H:%M:%S", time.localtime(now))
    sys.stderr.write(f"{stamp}.{int(now * 1000) % 1000:03d} {line}\n")
    sys.stderr.flush()


def clean(text: object, chars_max: int = 200) -> str:
    """Return one line of text without control characters, and not too long."""
    line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))
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


class Lines:
    """The lines of one worker; without ``write`` it is silent."""

    def __init__(self, write: Callable[[str], None] | None) -> None:
        self._write = write

    def say(self, line: str) -> None:
        """Write one line."""
        if self._write is not None:
            self._write(line)

    def banner(
        self,
        worker: str,
        handlers: Mapping[str, Handler],
        queues: Sequence[str],
        servers: Sequence[str],
        manner: str,
    ) -> None:
        """Say who begins to work, on what, and where."""
        if self._write is None:
            return
        self.say(" ".join(["quorl worker", *([clean(worker)] if worker else []), f"· {manner}"]))
        self.say(f"  queues   {clean(', '.join(queues), 1000)}")
        self.say(f"  servers  {clean(', '.join(servers), 1000)}")
        for name, one in sorted(handlers.items()):
            self.say(f"  task     {clean(name)}{clean(one.shown())}")

    def started(self, task: e.ClaimedTask, worker: str) -> None:
        """▶ demo.add 01939f2c → w-7f3a."""
        if self._write is not None:
            again = f" · attempt {task.attempt} of {task.max_attempts}" if task.attempt > 1 else ""
            self.say(f"▶ {clean(task.name)} {short(task.id)} → {clean(worker)}{again}")

    def succeeded(self, task: e.ClaimedTask, seconds: float, result: msgspec.Raw | msgspec.UnsetType) -> None:
        """■ 01939f2c 1 ms → 9."""
        if self._write is not None:
            text = bytes(memoryview(result or b"")[: 4 * RESULT_CHARS_MAX]).decode(errors="replace")
            self.say(f"■ {short(task.id)} {took(seconds)} → {clean(text, RESULT_CHARS_MAX)}")

    def failed(self, task: e.ClaimedTask, seconds: float, failure: e.Failure) -> None:
        """✗ 01939f2c ValueError … attempt 2 of 3, again after its back-off."""
        if self._write is None:
            return
        error = failure.error
        if not failure.retry or task.attempt >= task.max_attempts:
            then = "FAILED"
        elif failure.delay_ms is not None:
            then = f"again in {took(failure.delay_ms / 1000)}"
        else:
            then = "again after its back-off"
        what = clean(f"{error.type}: {error.message}" if error.message else error.type, MESSAGE_CHARS_MAX)
        self.say(f"✗ {short(task.id)} {took(seconds)} {what} · attempt {task.attempt} of {task.max_attempts}, {then}")

    def released(self, task: e.ClaimedTask, why: str) -> None:
        """↩ 01939f2c given back: the worker stops."""
        self.say(f"↩ {short(task.id)} given back: {why}")

    def dropped(self, task: e.ClaimedTask, why: str) -> None:
        """⊘ 01939f2c dropped: the lease is gone."""
        self.say(f"⊘ {short(task.id)} dropped: {why}")


# -- errors --------------------------------------------------------------------------------------------------------
def error_of(error: BaseException) -> k.TaskError:
    """Return an exception as it is reported: its type, its message, and the traceback from the handler on."""
    try:
        message = str(error)
    except Exception as broken:  # an error that cannot say what it is must not hide that it happened
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
