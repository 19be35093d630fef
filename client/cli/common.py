"""What all commands share: the options, the client, the exit codes, and how an error is told.

An error is three lines: what happened, why, what to do. With ``--json`` it is one object on stderr.
"""

from __future__ import annotations

import enum
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from typing_extensions import override

from quorl.client.cli.hints import HINTS, START

if TYPE_CHECKING:
    from quorl.client.cli.looking import Looking
    from quorl.client.errors import QuorlError
    from quorl.client.route import Route
    from quorl.client.sync import Client
    from quorl.client.sync_transport import Transport

F = TypeVar("F", bound=Callable[..., Any])

FORMS = ("table", "wide", "json", "ndjson", "csv", "name")
WATCH_S = 2.0
"""Between rounds of ``--watch``."""
REFUSED_S = 2.0
"""A command gives up after so long where every node refuses the connection, unless --timeout says how long to try."""


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
    context: str | None = None
    form: str = "table"
    headers: bool = True
    color: bool = True
    quiet: bool = False
    verbose: bool = False
    timeout_s: float = 10.0
    refused_s: float | None = REFUSED_S
    patience_ms: int | None = None
    """What --timeout says, for those who wait for something to happen; None: as long as it takes."""
    _route: Route | None = None
    """Of the client that was opened last."""
    _looked: Looking | None = None
    """The one that looked last."""

    def wait_ms(self, max_wait: int | None) -> int | None:
        """Return how long to wait at most: what --max-wait says, else --timeout; None for as long as it takes."""
        return self.patience_ms if max_wait is None else max_wait

    @property
    def as_json(self) -> bool:
        """Whether programs are to read the answer as JSON."""
        return self.form in {"json", "ndjson"}

    @property
    def for_people(self) -> bool:
        """Whether there is room for words beside the data."""
        return self.form in {"table", "wide"}

    def servers(self) -> str | None:
        """Return the nodes to ask: by option, else by environment, else those of the context in use; None: nobody said."""
        if self.server is not None:
            return self.server
        if self.context is None and (named := os.environ.get("QUORL_SERVER")):
            return named
        from quorl.client.cli.contexts import chosen

        return chosen(self.context)

    def client(self, nodes: Sequence[str] | None = None) -> Client:
        """Open a client, for these nodes or for all; connects when it is first used."""
        from quorl.client.sync import Client

        nodes = self.nodes() if nodes is None else tuple(nodes)
        return Client(nodes, **self._how(nodes))

    def looking(self) -> Client:
        """Open one that shows people something: without a quorum it is what one node has, and that is said."""
        if self.quiet or not self.for_people:
            return self.client()
        from quorl.client.cli.looking import Looking

        self._looked = Looking(self.nodes(), self.say, former=self._looked, **self._how())
        return self._looked

    def _how(self, nodes: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Return what clients are made with. Each knows what the one before has learnt, as in the rounds of ``--watch``."""
        from quorl.client.route import Route

        route = Route(self.nodes() if nodes is None else nodes, refused_s=self.refused_s)
        if self._route is not None and self._route.nodes == route.nodes:
            route.learn_from(self._route)
        self._route = route
        how = {"timeout_s": self.timeout_s, "refused_s": self.refused_s}
        return {**how, "transport": self.transport(), "route": route}

    def nodes(self) -> tuple[str, ...]:
        """Return the addresses of the nodes to ask, those of this machine if nobody said."""
        from quorl.client.route import SERVERS_DEFAULT, read_servers

        try:
            return read_servers(self.servers() or SERVERS_DEFAULT)
        except ValueError as error:
            named = os.environ.get("QUORL_SERVER") if self.context is None else None
            source = "--server" if self.server is not None else "QUORL_SERVER" if named else "server of its context"
            raise click.BadParameter(str(error), param_hint=source) from None

    def transport(self) -> Transport:
        """Return what carries calls, and tells of each if that is wanted."""
        if self.verbose:
            from quorl.client.cli.verbose import Telling

            return Telling()
        from quorl.client.sync_transport import ChannelTransport

        return ChannelTransport()

    def say(self, text: str) -> None:
        """Talk to whoever watches."""
        if not self.quiet:
            click.echo(text, err=True)


def current() -> Settings:
    """Return the settings of the command that runs."""
    context = click.get_current_context(silent=True)
    return Settings() if context is None else context.ensure_object(Settings)


# -- options -------------------------------------------------------------------------------------------------------
def common_options(command: F) -> F:
    """Give a command the options of every command, and itself the ``Settings`` if it takes them."""
    return _with_options(command, quiet="-q")


def options_beside_queue(command: F) -> F:
    """The same for a command in which ``-q`` names a queue."""
    return _with_options(command)


def list_options(command: F) -> F:
    """The same for a command that prints a table, which can be had in every form, and again and again."""
    return _with_options(command, quiet="-q", lists=True, watched=True)


def list_options_beside_queue(command: F) -> F:
    """The same for one in which ``-q`` names a queue."""
    return _with_options(command, lists=True, watched=True)


def look_options(command: F) -> F:
    """The same for a command that describes one thing, which can be looked at again and again."""
    return _with_options(command, quiet="-q", watched=True)


def _with_options(command: F, *, quiet: str | None = None, lists: bool = False, watched: bool = False) -> F:
    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        context = click.get_current_context()
        settings = context.ensure_object(Settings)
        watch = options.pop("watch", None)
        _take(settings, options)
        if isinstance(context.command, click.Group):
            return command(*arguments, **options)
        if settings.form in {"csv", "name"} and not lists:
            raise click.UsageError(f"-o {settings.form} is for lists, and this is none: -o json")
        run = functools.partial(command, settings, *arguments, **options)
        if watch is None:
            return run()
        from quorl.client.cli.watching import again_and_again

        return again_and_again(settings, run, watch)

    seconds = click.FloatRange(min=0, min_open=True)
    options = [
        click.option("-s", "--server", metavar="URL[,URL]", help="Nodes to ask; QUORL_SERVER by default."),
        click.option("--context", metavar="NAME", help="A cluster of `quorl context ls`; QUORL_CONTEXT by default."),
        click.option("-o", "--output", "form", type=click.Choice(FORMS), help="How to print it; a table by default."),
        click.option("--json", "as_json", is_flag=True, help="The same as -o json: the names of the API."),
        click.option("--no-headers", is_flag=True, help="Tables and CSV without their first line."),
        click.option("--no-color", is_flag=True, help="As with NO_COLOR in the environment."),
        click.option(
            "--timeout",
            "timeout_s",
            type=seconds,
            metavar="SECONDS",
            help="For each call, 10 by default and 2 where no node listens; also for a wait without --max-wait.",
        ),
        click.option(*filter(None, (quiet, "--quiet")), "quiet", is_flag=True, help="Print data only, no talk."),
        click.option("-v", "--verbose", is_flag=True, help="Show every call to a node on stderr."),
    ]
    if watched:
        every = {"is_flag": False, "flag_value": WATCH_S, "type": click.FloatRange(min=0.1)}
        about = f"Again and again until Ctrl-C, every {WATCH_S:g} s by default."
        options.insert(0, click.option("--watch", **every, metavar="[SECONDS]", help=about))  # type: ignore[arg-type]
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def _take(settings: Settings, options: dict[str, Any]) -> None:
    """Move what every command takes from the options of one into the settings."""
    server, context, timeout_s = options.pop("server"), options.pop("context"), options.pop("timeout_s")
    form = "json" if options.pop("as_json") else None
    form = options.pop("form") or form
    if server is not None or context is not None:
        settings.server, settings.context = server, context
    settings.form = form or settings.form
    if timeout_s is not None:
        settings.timeout_s, settings.refused_s, settings.patience_ms = timeout_s, None, round(1000 * timeout_s)
    settings.headers &= not options.pop("no_headers")
    settings.color &= not options.pop("no_color")
    settings.quiet |= options.pop("quiet")
    settings.verbose |= options.pop("verbose")


_SAID = "quorl.said"
"""The words of the line, kept with the context."""


class Quorl(click.Group):
    """The outermost group: it turns what went wrong into words and an exit code."""

    @override
    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        said = list(args)
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            raise self._in_our_words(error, said) from None
        context.meta[_SAID] = said
        return context

    @override
    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            _forget_stdout()  # whoever read the output has had enough, which is no failure
            ctx.exit(Exit.OK)
        except click.ClickException as error:
            raise self._in_our_words(error, ctx.meta[_SAID], ctx) from None
        except (click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            ctx.exit(130)
        except Exception as error:
            from quorl.client.errors import QuorlError

            if not isinstance(error, QuorlError):
                raise
            tell(error, ctx.ensure_object(Settings))
            ctx.exit(exit_code(error))

    def _in_our_words(
        self, error: click.ClickException, said: list[str], context: click.Context | None = None
    ) -> click.ClickException:
        """Return an error of the line as we tell errors; a group that is called alone explains itself instead."""
        from quorl.client.cli.misuse import Misused

        as_json = context is not None and context.ensure_object(Settings).as_json
        told = isinstance(error, click.exceptions.NoArgsIsHelpError)
        return error if told else Misused(error, self, said, as_json=as_json)


def _forget_stdout() -> None:
    """Send what is still buffered to nowhere, so that the interpreter can close without a complaint."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # not a real file: a test's


# -- errors --------------------------------------------------------------------------------------------------------
def exit_code(error: QuorlError) -> Exit:
    """Return the exit code that an error means."""
    from quorl.client.errors import Invalid, OutcomeUnknown, Rejected, Unavailable

    if isinstance(error, Unavailable):
        return Exit.UNAVAILABLE
    if isinstance(error, OutcomeUnknown):
        return Exit.UNKNOWN
    if isinstance(error, Invalid):
        return Exit.USAGE
    return status_exit(error.status) if isinstance(error, Rejected) else Exit.FAILED


def status_exit(status: int) -> Exit:
    """Return the exit code that a refusal with this HTTP status means."""
    by_status = {401: Exit.NOT_ALLOWED, 403: Exit.NOT_ALLOWED, 404: Exit.NOT_FOUND, 409: Exit.CONFLICT}
    return by_status.get(status, Exit.FAILED)


def tell(error: QuorlError, settings: Settings, *, hint: str | None = None) -> None:
    """Print an error: what, why, what to do: ``hint``, or what is usual."""
    from quorl.client.errors import Rejected, in_one_line

    what = error.title if isinstance(error, Rejected) else error.detail
    why = in_one_line(getattr(error, "tries", ())) or error.detail
    if hint is None:
        hint = HINTS.get(error.code, error.hint) if isinstance(error, Rejected) else _hint(error)
    if settings.as_json:
        about = {"code": error.code, "title": what, "detail": why, "hint": hint, "request_id": error.request_id}
        click.echo(json.dumps({"error": about}, ensure_ascii=False), err=True)
        return
    three_lines("error", f"{error.code}: {what}", why, hint)


@contextmanager
def advising(settings: Settings, code: str, hint: str) -> Iterator[None]:
    """Tell of an error with this code what to do here, instead of the usual."""
    from quorl.client.errors import QuorlError

    try:
        yield
    except QuorlError as error:
        if error.code != code:
            raise
        tell(error, settings, hint=hint)
        click.get_current_context().exit(exit_code(error))


def three_lines(word: str, what: str, why: str, hint: str) -> None:
    """Print what, why and what to do on stderr."""
    for first, text in ((word, what), ("why", why), ("try", hint)):
        click.echo(f"{first:<6} {text}", err=True)


def _hint(error: QuorlError) -> str:
    from quorl.client.errors import OWN_LINK, OutcomeUnknown

    if isinstance(error, OutcomeUnknown):
        return "It may have been applied: look before you repeat it."
    if error.code == "unavailable":  # nobody answered at all
        if getattr(error, "advice", "") == OWN_LINK:
            return f"Nothing was applied. {OWN_LINK}"
        return f"Nothing was applied. Does the cluster run?  {START} · quorl doctor"
    advice = HINTS.get(error.code) or getattr(error, "advice", "") or "What is wrong with it?"
    return f"Nothing was applied. {advice} · quorl doctor · quorl errors {error.code}"


def fail(code: Exit, error: str, why: str, hint: str) -> NoReturn:
    """End a command with an error of its own. Programs know it by a code, which is the name of the exit code."""
    if current().as_json:
        about = {"code": code.name.lower(), "title": error, "detail": why, "hint": hint, "request_id": ""}
        click.echo(json.dumps({"error": about}, ensure_ascii=False), err=True)
    else:
        three_lines("error", error, why, hint)
    click.get_current_context().exit(code)
