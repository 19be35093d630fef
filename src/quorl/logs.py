"""What nodes and workers say while they run: one event a line, on standard error.

On a terminal lines are laid out for people, elsewhere each is one JSON object. ``event`` is a stable, lower-case name
(``leader_elected``), everything that varies stands in fields beside it; who speaks is a field too, ``node`` or ``worker``.
Lines of libraries that use ``logging`` come out in the same form. What is bound with ``structlog.contextvars`` stands in every
line that is written meanwhile.

Invariants: values of fields whose name speaks of a secret never come out; no traceback shows local variables, because
they may hold one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

import orjson

from quorl.lean import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

HIDDEN = "[hidden]"
SECRET_WORDS = ("authorization", "cookie", "password", "secret", "token")


def configure(
    layout: Literal["auto", "console", "json"], level: str, who: Mapping[str, str], stream: TextIO | None = None
) -> None:
    """Set up structlog and ``logging`` for this process. ``stream`` is standard error unless a test gives another.

    ``who``: fields of every line, as they are when it is written: a worker may learn its name later.
    """
    _keep_a_place_to_write()
    stream = sys.stderr if stream is None else stream
    global _for_people
    _for_people = for_people = layout == "console" or (layout == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    about = [structlog.contextvars.merge_contextvars, _named(who), *_facts()]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(stream, for_people)],
            foreign_pre_chain=[*about, structlog.stdlib.ExtraAdder()],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Libraries tell every small step; what they have to say to an operator is a warning.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *about,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


_for_people = True
"""Whether lines are laid out for people, as they are until somebody says otherwise."""


def end(log: FilteringBoundLogger, event: str, words: str, **facts: object) -> None:
    """Say once why this process ends: people read the words, programs one line with their first as ``detail``, the rest as ``advice``."""
    detail, _, advice = words.partition("\n")
    if not _for_people:
        log.critical(event, detail=detail, **({"advice": advice} if advice else {}), **facts)
        return
    log.critical(event, **facts)
    tell(words)


def tell(words: str) -> None:
    """Write something for people to standard error, if anybody still reads it; how a process ends does not hang on that."""
    _keep_a_place_to_write()
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{words}\n")
        sys.stderr.flush()


def _keep_a_place_to_write() -> None:
    """Where standard error was closed before the program began, what it says goes nowhere.

    Its descriptor would else be that of the next file or connection that is opened, and libraries write what they have to say there.
    """
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives


class _Writer:
    """What structlog hands a finished line to."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.info = self.warning = self.error = write


def lines(logger: str, who: Mapping[str, str], write: Callable[[str], None]) -> FilteringBoundLogger:
    """Return a log of JSON lines that ``write`` takes, whatever else in this process configures logging."""
    made = structlog.wrap_logger(
        _Writer(write),
        processors=[
            structlog.contextvars.merge_contextvars,
            _named(who),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *_for_machines(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    bound: FilteringBoundLogger = made.bind(logger=logger)
    return bound


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the value of every field whose name speaks of a secret, but not the name of a secret's file."""
    for name, value in event.items():
        if value and not name.endswith("_file") and any(word in name.lower() for word in SECRET_WORDS):
            event[name] = HIDDEN
    return event


def _named(who: Mapping[str, str]) -> Processor:
    def add_who(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for name, text in who.items():
            event.setdefault(name, text)
        return event

    return add_who


def _facts() -> list[Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]


def _rendering(stream: TextIO, for_people: bool) -> list[Processor]:
    if for_people:
        console = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        )
        return [hide_secrets, console]
    return _for_machines()


def _for_machines() -> list[Processor]:
    return [hide_secrets, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]


def _json(event: EventDict, **_: object) -> str:
    # Whatever a field holds, the line comes out.
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
