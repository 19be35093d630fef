"""The ``quorl`` command.

Data goes to stdout, talk to stderr; ``--json`` gives every answer with the names of the API; the exit codes are a contract
(``common.Exit``). Only click is imported until a command needs more, and of the commands only the one that is asked for.

* Commands: ``api``, ``bench``, ``cheat``, ``cluster``, ``completion``, ``contexts``, ``dead``, ``doctor``, ``info``, ``monitor``,
  ``node`` (``init``, ``nodelogs``), ``queue``, ``task`` (``submit``, ``importing``), ``top``, ``topic`` (``produce``, ``read``), ``up``,
  and ``worker`` (``work``, ``workers``). ``__main__`` is for Python without the script.
* What they share: ``common`` (options, client, exit codes), ``options`` and ``times`` (values of a line), ``names`` (what a shell
  completes), ``asking``, ``waiting``, ``watching``, ``verbose``, ``lines``.
* What they say: ``output`` (data), ``telling`` (tasks), ``loglines``, ``glance``, ``checks`` (findings), ``looking`` (where there is no
  quorum), ``hints``, ``misuse``, ``guessing``, ``fitting``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping, Sequence

import click
from typing_extensions import override

from quorl.client.cli.common import Quorl, common_options

__all__ = ["cli", "main"]


class Commands(MutableMapping[str, click.Command]):
    """The commands by name; a module is imported when its command is looked up."""

    def __init__(self, homes: dict[str, str]) -> None:
        self._homes = homes
        self._found: dict[str, click.Command] = {}

    @override
    def __getitem__(self, name: str) -> click.Command:
        if name not in self._found:
            module, _, attribute = self._homes[name].partition(":")
            found = getattr(importlib.import_module(f"{__name__}.{module}"), attribute or name)
            assert isinstance(found, click.Command)
            self._found[name] = found
        return self._found[name]

    @override
    def __setitem__(self, name: str, command: click.Command) -> None:
        self._homes[name] = ""
        self._found[name] = command

    @override
    def __delitem__(self, name: str) -> None:
        del self._homes[name]
        self._found.pop(name, None)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    @override
    def __len__(self) -> int:
        return len(self._homes)


HELP_CHARS = 120
"""Of a line of help, where a terminal is so wide."""
COMMANDS = {
    "api": "api",
    "bench": "bench",
    "cheat": "cheat",
    "cluster": "cluster",
    "completion": "completion",
    "context": "contexts:context_group",
    "dead": "dead",
    "doctor": "doctor",
    "errors": "info",
    "monitor": "monitor",
    "node": "node",
    "queue": "queue",
    "task": "task",
    "top": "top",
    "topic": "topic",
    "up": "up",
    "version": "info",
    "worker": "worker",
}
"""Each with the module that it is in, and its name there if it is another one."""


def _tell_version(context: click.Context, _param: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from quorl import __version__

        click.echo(f"quorl {__version__}")
        context.exit()


@click.group(
    "quorl",
    cls=Quorl,
    commands=Commands(COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_CHARS},
)
@common_options
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_tell_version,
    help="Print the version of this program, as `quorl version` does.",
)
def cli() -> None:
    """Topics and tasks on a replicated log: work with a cluster of quorl nodes.

    \b
    Exit codes: 0 ok · 1 failed · 2 usage or config · 3 not found · 4 conflict ·
    5 cluster unavailable · 6 time-out or outcome unknown · 7 not allowed
    `cluster check` and `doctor`: 0 ok · 1 warning · 2 critical · 3 not known
    """  # noqa: D301 - click's mark against rewrapping


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        cli.main(args=None if argv is None else list(argv), prog_name="quorl")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1
