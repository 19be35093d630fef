"""``quorl worker run``: find an app, and work for it; with ``--reload`` in a process that starts anew when files change."""

from __future__ import annotations

import difflib
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from quorl.client.cli import output
from quorl.client.cli.common import Exit, Settings, current, fail, options_beside_queue, three_lines

if TYPE_CHECKING:
    from quorl.client.app import App
    from quorl.client.worker_lines import Lines

RELOADED = "QUORL_RELOADED"
"""Set for a worker that runs under ``--reload``, so that it does not watch by itself."""


@click.command(short_help="Run the tasks of MODULE:APP until told to end.")
@click.argument("target", metavar="MODULE:APP")
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    metavar="QUEUE",
    help="Serve this queue; may be repeated. [those of the app's tasks]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    metavar="N",
    default=8,
    show_default=True,
    help="Tasks at the same time.",
)
@click.option(
    "--prefetch",
    type=click.IntRange(0, 10_000),
    metavar="N",
    help="Tasks claimed ahead. [a few, while they are very short]",
)
@click.option("--name", default="", help="The worker's name; who registers under it takes over from its former self.")
@click.option(
    "--pool",
    type=click.Choice(["thread", "process"]),
    default="thread",
    show_default=True,
    help="Where plain functions run.",
)
@click.option("--burst", is_flag=True, help="End when nothing waits in the queues.")
@click.option("--reload", is_flag=True, help="Start anew when a Python file changes (takes the package watchfiles).")
@click.option("--standby", is_flag=True, help="Work only in the place of a worker that died.")
@click.option(
    "--crash-between",
    type=click.IntRange(1),
    nargs=2,
    metavar="M N",
    help="Crash on purpose in one of the M-th to N-th task.",
)
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="For what runs when it is told to end.",
)
@click.option(
    "--heartbeat",
    "heartbeat_s",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="A sign of life so often. [as the cluster says: 5]",
)
@click.option(
    "--dead-after",
    "dead_after_s",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="DEAD after so long without one. [as the cluster says: 15]",
)
@click.option(
    "--log",
    "layout",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What it says on stderr: lines for people, or one JSON object a line, as nodes log.",
)
@options_beside_queue
def run(
    settings: Settings,
    target: str,
    reload: bool,
    crash_between: tuple[int, int] | None,
    layout: str,
    **options: Any,
) -> None:
    """Run the tasks of MODULE:APP, an App or a dict of functions, until told to end.

    \b
    quorl worker run shop:app -q emails -q default --concurrency 8
    quorl worker run quorl.demo:app                  the tasks of the demo

    The first SIGTERM or Ctrl-C lets what runs finish, the second ends it at once.
    """  # noqa: D301 - click's mark against rewrapping
    if reload and not os.environ.get(RELOADED):
        click.get_current_context().exit(_reloading())
    from quorl.client.worker import Worker
    from quorl.client.worker_lines import to_stderr
    from quorl.client.worker_shift import Superseded

    lines = _logged(settings, options["name"]) if layout == "json" else None  # before the app is imported: it may log
    source = _loaded(target)
    queues = options.pop("queues") or None
    if layout != "json" and not settings.quiet:
        _warn_of_commas(target, queues or ())
    try:
        worker = Worker(
            source,
            queues,
            servers=_servers(settings, source),
            crash_between=crash_between or None,
            write=None if settings.quiet else to_stderr,
            lines=lines,
            **options,
        )
        worker.run()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except Superseded as error:
        hint = "quorl worker ls shows who is alive; give each worker a --name of its own, or none"
        fail(Exit.CONFLICT, "the worker was replaced", str(error), hint)


def _warn_of_commas(target: str, queues: Sequence[str]) -> None:
    """Say how several queues are written, where one name looks like a list of them: it is allowed, and hardly meant."""
    if any("," in queue for queue in queues):
        named = [output.word(name.strip()) for queue in queues for name in queue.split(",") if name.strip()]
        what = f'"{output.clean(next(queue for queue in queues if "," in queue))}" is served as one queue of this name'
        three_lines(
            "warn",
            what,
            "several queues take an option each",
            f"quorl worker run {target} {' '.join(f'-q {name}' for name in named)}",
        )


def _logged(settings: Settings, name: str) -> Lines:
    """Make everything JSON that this process says: its lines, what handlers log, and the errors of the command."""
    from quorl import logs
    from quorl.client import worker_log
    from quorl.client.worker_lines import Lines

    settings.form = "json"
    who = {"worker": name}
    logs.configure("json", "info", who)
    return Lines(None) if settings.quiet else worker_log.LoggedLines(worker_log.to_stderr, who)


def _servers(settings: Settings, source: object) -> str | None:
    """Return the nodes to work for: those said on the line, else the app's own, else those of environment and context."""
    said = settings.server is not None or settings.context is not None
    if not said and getattr(source, "servers", None) is not None:
        return None
    settings.nodes()  # says of one that is no address where it was named
    return settings.servers()


def _loaded(target: str) -> App | Mapping[str, Callable[..., Any]]:
    """Return what is to be run; a module that cannot be imported is told of by its own lines of the traceback alone."""
    try:
        return load(target)
    except click.ClickException:
        raise
    except Exception as error:
        seen = error.__traceback__
        while seen is not None and seen.tb_frame.f_code.co_filename in _IMPORTERS:
            seen = seen.tb_next
        if not current().as_json:
            click.echo("".join(traceback.format_exception(error.with_traceback(seen))), err=True, nl=False)
        hint = "Mend it, and start the worker again."
        if isinstance(error, ModuleNotFoundError):
            hint = f"Is it installed for this Python?  {sys.executable} -m pip list"
        fail(Exit.FAILED, f"{target.partition(':')[0]} cannot be imported", f"{type(error).__name__}: {error}", hint)


_IMPORTERS = {__file__, importlib.__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>"}


def load(target: str) -> App | Mapping[str, Callable[..., Any]]:
    """Import what ``MODULE:APP`` names; explains what is wrong with it."""
    from quorl.client.app import App
    from quorl.client.cli.misuse import Advised

    module_name, colon, path = target.partition(":")
    if not module_name or (colon and not path):
        raise click.BadParameter(f"{target!r} should look like shop:app", param_hint="MODULE:APP")
    if module_name.endswith(".py") or "/" in module_name:
        meant = ".".join(pathlib.PurePath(module_name.removesuffix(".py")).parts)
        hint = f"{module_name} is a file, and a module is wanted; did you mean {meant}{colon}{path}?"
        raise Advised(hint, "MODULE:APP", f"quorl worker run {meant}{colon}{path}")
    if str(pathlib.Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(pathlib.Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module is there, and misses another one
        here = f"no module {error.name!r} in {pathlib.Path.cwd()} nor among the installed packages"
        file = f"{module_name.partition('.')[0]}.py"
        advice = f"Run it in the folder of {file}, or name that folder: PYTHONPATH=FOLDER quorl worker run {target}"
        raise Advised(here, "MODULE:APP", advice) from None
    for part in (path or "app").split("."):
        if not hasattr(found, part):
            apps = [name for name, value in vars(found).items() if isinstance(value, App)]
            there = f"; it has {', '.join(apps)}" if apps else ""
            what = f"{module_name!r} has no {part!r}{there}"
            for meant in apps if len(apps) == 1 else difflib.get_close_matches(part, apps, n=1):
                raise Advised(what, "MODULE:APP", f"quorl worker run {module_name}:{meant}")
            if apps or path:
                raise click.BadParameter(what, param_hint="MODULE:APP")
            advice = (
                f"Write app = quorl.App() in it, or say what its App is called: quorl worker run {module_name}:NAME"
            )
            raise Advised(what, "MODULE:APP", advice)
        found = getattr(found, part)
    if not isinstance(found, (App, Mapping)):
        raise click.BadParameter(
            f"{target} is no App and no dict of functions, but of the type {type(found).__name__}",
            param_hint="MODULE:APP",
        )
    if not (found.tasks if isinstance(found, App) else found):
        advice = f"Write @app.task before a function of {module_name}, or import there the modules that do."
        raise Advised(f"{target} has no tasks", "MODULE:APP", advice)
    return found


# -- reloading -----------------------------------------------------------------------------------------------------
def _reloading() -> int:
    """Run the same command in a process, and anew whenever a Python file below this folder changes."""
    try:
        import watchfiles
    except ImportError:
        fail(Exit.USAGE, "--reload needs the package watchfiles", "it is not installed", "pip install watchfiles")
    command = [sys.executable, "-m", "quorl.client.cli", *sys.argv[1:]]
    return supervise(command, lambda: _changes(watchfiles))


def _changes(watchfiles: Any) -> bool:
    """Wait for a change; False when the program is to end."""
    only_python = watchfiles.PythonFilter()
    for changes in watchfiles.watch(pathlib.Path.cwd(), watch_filter=only_python, raise_interrupt=False):
        names = ", ".join(sorted({pathlib.Path(path).name for _, path in changes}))
        click.echo(f"changed: {names}; starting anew", err=True)
        return True
    return False


def supervise(command: Sequence[str], changed: Callable[[], bool]) -> int:
    """Keep a process running: it ends and starts anew after each change, and ends with this program."""
    environment = {**os.environ, RELOADED: "1"}

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    child = subprocess.Popen(command, env=environment)  # noqa: S603 - this very program
    try:
        while changed():
            child.terminate()
            child.wait()
            child = subprocess.Popen(command, env=environment)  # noqa: S603 - this very program
    except KeyboardInterrupt:
        pass  # its end is what follows in any case
    finally:
        signal.signal(signal.SIGTERM, before)
        child.terminate()
        code = child.wait()
    return max(code, 0)
