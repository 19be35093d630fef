"""``--watch``: the same command again and again, in its place on a terminal, one after the other elsewhere."""

from __future__ import annotations

import io
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import click
from typing_extensions import override

from quorl.client.cli import output
from quorl.client.cli.common import Settings

_HOME, _TO_THE_END = "\x1b[H", "\x1b[J"


class _Page(io.TextIOWrapper):
    """What a command prints, gathered; it is for a terminal."""

    def __init__(self) -> None:
        self.gathered = io.BytesIO()
        super().__init__(self.gathered, encoding="utf-8", write_through=True)

    @override
    def isatty(self) -> bool:
        return True


def again_and_again(settings: Settings, run: Callable[[], Any], every_s: float) -> None:
    """Run until Ctrl-C. What cannot be reached is said, and looked at again; a command's own exit code says nothing here."""
    from quorl.client.errors import Unavailable

    in_place = output.is_terminal() and settings.for_people
    if in_place:
        click.clear()
    with _until_told() as told:
        while not told:
            began = time.monotonic()
            try:
                _shown_in_place(run) if in_place else run()
            except Unavailable as error:
                settings.say(f"{error.detail}; going on")
            except click.exceptions.Exit:
                pass
            sys.stdout.flush()
            if not told:
                time.sleep(max(0.0, began + every_s - time.monotonic()))


@contextmanager
def _until_told() -> Iterator[list[int]]:
    """Let Ctrl-C end what is in here, and note it in the list that is returned.

    An interrupt that comes while something is finalized, such as the connections of a client that is closed, goes no
    further than that: Python prints it and forgets it. The note stays.
    """
    told: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, _frame: object) -> None:
        told.append(number)
        raise KeyboardInterrupt

    heeds = before is signal.default_int_handler  # else it is ignored, as by a shell's background jobs, or another's
    if heeds:
        signal.signal(signal.SIGINT, note)
    try:
        yield told
    except KeyboardInterrupt:
        pass
    finally:
        if heeds:
            signal.signal(signal.SIGINT, before)


def _shown_in_place(run: Callable[[], Any]) -> None:
    """Let a command print a page, and put the page over the last one in one piece.

    What it says on stderr belongs to the page if it goes to the terminal too: the page would be written over it.
    """
    page = _Page()
    try:
        with redirect_stdout(page), redirect_stderr(page if sys.stderr.isatty() else sys.stderr):
            run()
    finally:
        text = page.gathered.getvalue().decode(errors="replace").replace("\n", "\x1b[K\n")
        sys.stdout.write(_HOME + text + _TO_THE_END)
