"""``quorl node logs``: what the nodes of ``quorl up`` have written, all of them in the order of time.

A node writes to standard error and keeps no file: whoever started it has its log. For ``quorl up`` that is a file beside its
data; elsewhere this says whom to ask.
"""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import IO

import click

from quorl.client.cli import output
from quorl.client.cli.common import Exit, Settings, common_options, fail
from quorl.client.cli.loglines import Line, laid_out, last, read

LEVELS = ("debug", "info", "warning", "error", "critical")
_LOOK_S = 0.2
"""How often it is looked for new lines."""
_UNITS = ("/run/systemd/units/invocation:quorl.service", "/etc/systemd/system/quorl.service")
_ELSEWHERE = "systemd: journalctl -u quorl -f · Docker: docker compose logs -f n1 · Kubernetes: kubectl logs -f quorl-0"


@click.command(short_help="Print the logs of the nodes of `quorl up`.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "-n", "--lines", type=click.IntRange(0), metavar="N", default=20, show_default=True, help="The last so many."
)
@click.option("-f", "--follow", is_flag=True, help="Then those that come, until Ctrl-C.")
@click.option("--level", type=click.Choice(LEVELS), default="debug", help="Only lines of this level and above.")
@common_options
def logs(settings: Settings, names: tuple[str, ...], lines: int, follow: bool, level: str) -> None:
    """Print the logs of the nodes that `quorl up` runs or ran here, or of those NAMEs: n1, or a worker, w-demo.

    \b
    quorl node logs -f --level warning
    quorl node logs n1 -n 100 --json | jq .event
    """  # noqa: D301 - click's mark against rewrapping
    if settings.server is not None or settings.context is not None:
        raise click.UsageError(f"a node's log is read on the node's machine, and not over the network. {_ELSEWHERE}")
    files = _files(names)
    logs = {name: last(path, lines, lambda line: _matters(line, level)) for name, path in files.items()}
    found = _by_time([(name, line) for name, (written, _) in logs.items() for line in written])
    for name, line in found[max(0, len(found) - lines) :]:
        _print(settings, name, line)
    if follow:
        for name, line in _coming(files, {name: end for name, (_, end) in logs.items()}):
            if _matters(line, level):
                _print(settings, name, line)


def _files(names: tuple[str, ...]) -> dict[str, pathlib.Path]:
    """Return the logs by the name of who writes them; explains where others are if there are none."""
    home = _home()
    there = {} if home is None else {path.stem: path for path in sorted(home.glob("*.log"))}
    if not there:
        unit = next((unit for unit in _UNITS if pathlib.Path(unit).exists()), None)
        hint = _ELSEWHERE if unit is None else "journalctl -u quorl -f"
        why = (
            "`quorl up` has not run here"
            if unit is None
            else "the node here is a service of systemd, which keeps its log"
        )
        fail(Exit.NOT_FOUND, "there is no log to read here", why, hint)
    unknown = [name for name in names if name not in there]
    if unknown:
        told = f"there are: {', '.join(there)}"
        fail(
            Exit.NOT_FOUND,
            f"{output.clean(unknown[0])} has no log in {home}",
            told,
            f"quorl node logs {next(iter(there))}",
        )
    return {name: path for name, path in there.items() if (name in names if names else not name.startswith("w-"))}


def _home() -> pathlib.Path | None:
    """Return the directory of the cluster that runs here; of the one that ran last if none does, None if there was none."""
    from quorl.client.local.laptop import state_dir

    lasting = state_dir()
    passing = sorted(pathlib.Path(tempfile.gettempdir()).glob("quorl-up-*"), key=lambda one: -one.stat().st_mtime)
    running = [one for one in (lasting, *passing) if _is_held(one)]
    return next(iter(running), lasting if lasting.is_dir() else None)


def _is_held(home: pathlib.Path) -> bool:
    """Whether a program has a directory."""
    try:
        lock = (home / "lock").open("rb")
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _by_time(found: list[tuple[str, Line]]) -> list[tuple[str, Line]]:
    """Order lines by their time; one that has none stays behind the one before it in its log."""
    keyed: list[tuple[float, int]] = []
    at: dict[str, float] = {}
    for place, (name, line) in enumerate(found):
        at[name] = line.at.timestamp() if line.at is not None else at.get(name, 0.0)
        keyed.append((at[name], place))
    return [found[place] for _, place in sorted(keyed)]


def _matters(line: Line, level: str) -> bool:
    """Whether a line is at least as bad; what is no line of a node is told in any case: it may be its last words."""
    said = (line.fields or {}).get("level")
    return said not in LEVELS or LEVELS.index(said) >= LEVELS.index(level)


def _print(settings: Settings, name: str, line: Line) -> None:
    if settings.as_json:
        output.write_lines([line.text.encode()]) if line.fields else output.emit({"node": name, "text": line.text})
    else:
        click.echo(laid_out(line, who=name, dated=True))


def _coming(files: dict[str, pathlib.Path], starts: dict[str, int]) -> Iterator[tuple[str, Line]]:
    """Yield what is written from now on, line by line; a log that was begun anew is read from its start."""
    with contextlib.ExitStack() as stack:
        opened: dict[str, IO[bytes]] = {name: stack.enter_context(path.open("rb")) for name, path in files.items()}
        halves = dict.fromkeys(files, b"")
        for name, file in opened.items():
            file.seek(starts[name])
        while True:
            for name, file in opened.items():
                if files[name].exists() and files[name].stat().st_size < file.tell():
                    file.seek(0)
                *whole, halves[name] = (halves[name] + file.read()).split(b"\n")
                yield from ((name, read(line.decode(errors="replace"))) for line in whole)
            time.sleep(_LOOK_S)
