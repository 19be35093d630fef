"""What all commands share: the options, the client, the exit codes, and how an error is told.

An error is three lines: what happened, why, what to do. With ``--json`` it is one object on stderr.
"""

from __future__ import annotations

import enum
import functools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from typing_extensions import override

from quorl.client.cli.hints import HINTS

if TYPE_CHECKING:
    from quorl.client.errors import QuorlError
    from quorl.client.sync import Client

F = TypeVar("F", bound=Callable[..., Any])


class Exit(enum.IntEnum):
    """The exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    UNKNOWN = 6
    NOT_ALLOWED = 7


@dataclass
class Settings:
    """The options that every command takes, wherever they stand on the line."""

    server: str | None = None
    as_json: bool = False
    quiet: bool = False
    timeout_s: float = 10.0

    def client(self) -> Client:
        """Open a client; connects when it is first used."""
        from quorl.client.sync import Client

        try:
            return Client(self.server, timeout_s=self.timeout_s)
        except ValueError as error:
            raise click.UsageError(f"{error} (from --server or QUORL_SERVER)") from None

    def say(self, text: str) -> None:
        """Talk to whoever watches."""
        if not self.quiet:
            click.echo(text, err=True)


def common_options(command: F) -> F:
    """Give a command the options of every command, and itself the ``Settings`` if it takes them."""
    return _with_options(command, "-q", "--quiet")


def options_beside_queue(command: F) -> F:
    """The same for a command in which ``-q`` names a queue."""
    return _with_options(command, "--quiet")


def _with_options(command: F, *quiet_names: str) -> F:
    @functools.wraps(command)
    def wrapped(
        *arguments: Any, server: str | None, as_json: bool, quiet: bool, timeout_s: float | None, **options: Any
    ) -> Any:
        context = click.get_current_context()
        settings = context.ensure_object(Settings)
        settings.server = server or settings.server
        settings.as_json |= as_json
        settings.quiet |= quiet
        settings.timeout_s = settings.timeout_s if timeout_s is None else timeout_s
        if isinstance(context.command, click.Group):
            return command(*arguments, **options)
        return command(settings, *arguments, **options)

    seconds = click.FloatRange(min=0, min_open=True)
    for option in (
        click.option(*quiet_names, "quiet", is_flag=True, help="Print data only, no talk."),
        click.option("--timeout", "timeout_s", type=seconds, metavar="SECONDS", help="For each call; 10 by default."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON with the names of the API."),
        click.option("-s", "--server", metavar="URL[,URL]", help="Nodes to ask; QUORL_SERVER by default."),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


class Quorl(click.Group):
    """The outermost group: it turns what went wrong into words and an exit code."""

    @override
    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            _forget_stdout()  # whoever read the output has had enough, which is no failure
            ctx.exit(Exit.OK)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            ctx.exit(130)
        except Exception as error:
            from quorl.client.errors import QuorlError

            if not isinstance(error, QuorlError):
                raise
            tell(error, ctx.ensure_object(Settings))
            ctx.exit(exit_code(error))


def _forget_stdout() -> None:
    """Send what is still buffered to nowhere, so that the interpreter can close without a complaint."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # not a real file: a test's


def exit_code(error: QuorlError) -> Exit:
    """Return the exit code that an error means."""
    from quorl.client.errors import Invalid, OutcomeUnknown, Rejected, Unavailable

    if isinstance(error, Unavailable):
        return Exit.UNAVAILABLE
    if isinstance(error, OutcomeUnknown):
        return Exit.UNKNOWN
    if isinstance(error, Invalid):
        return Exit.USAGE
    by_status = {401: Exit.NOT_ALLOWED, 403: Exit.NOT_ALLOWED, 404: Exit.NOT_FOUND, 409: Exit.CONFLICT}
    return by_status.get(error.status, Exit.FAILED) if isinstance(error, Rejected) else Exit.FAILED


def tell(error: QuorlError, settings: Settings) -> None:
    """Print an error: what, why, what to do."""
    from quorl.client.errors import Rejected

    tries = getattr(error, "tries", ())
    what = error.title if isinstance(error, Rejected) else error.detail
    why = "; ".join(f"{node} {why}" for node, why in tries) or error.detail
    hint = HINTS.get(error.code, error.hint) if isinstance(error, Rejected) else _hint(error)
    if settings.as_json:
        about = {"code": error.code, "title": what, "detail": why, "hint": hint, "request_id": error.request_id}
        click.echo(json.dumps({"error": about}, ensure_ascii=False), err=True)
        return
    for word, text in (("error", f"{error.code}: {what}"), ("why", why), ("try", hint)):
        click.echo(f"{word:<6} {text}", err=True)


def _hint(error: QuorlError) -> str:
    from quorl.client.errors import OutcomeUnknown

    if isinstance(error, OutcomeUnknown):
        return "It may have been applied: look before you repeat it."
    return "Nothing was applied. Is the cluster running?  quorl cluster status · quorl node run -c FILE"


def fail(code: Exit, error: str, why: str, hint: str) -> NoReturn:
    """End a command with an error of its own."""
    if click.get_current_context().ensure_object(Settings).as_json:
        click.echo(json.dumps({"error": {"title": error, "detail": why, "hint": hint}}, ensure_ascii=False), err=True)
        click.get_current_context().exit(code)
    for word, text in (("error", error), ("why", why), ("try", hint)):
        click.echo(f"{word:<6} {text}", err=True)
    click.get_current_context().exit(code)
