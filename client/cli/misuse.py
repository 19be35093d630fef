"""A command that was called wrongly, told as every other error is: what, why, what to do; and as JSON where that was asked for."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Sequence
from typing import IO, Any

import click
from typing_extensions import override

from quorl.client.cli.output import clean

CODE = "usage"
_JSON = {"json", "ndjson"}
_FORM = re.compile(r"(?:--output=|-o=?)(.+)")


class Advised(click.BadParameter):
    """An argument that is refused, with what to do about it, which the command's help would not tell."""

    def __init__(self, message: str, param_hint: str, advice: str) -> None:
        super().__init__(message, param_hint=param_hint)
        self.advice = advice


class Unanswered(click.UsageError):
    """A question that nobody is here to answer."""


class Misused(click.ClickException):
    """What click found wrong, in our words. Its exit code is that of what it explains."""

    def __init__(self, error: click.ClickException, root: click.Command, said: Sequence[str], *, as_json: bool) -> None:
        """Explain an error of a line with these words after ``root``."""
        super().__init__(error.format_message())
        self.exit_code = error.exit_code  # type: ignore[misc]  # of the class, says click, and reads it from the exception
        self._lines = tuple(map(clean, _explained(error, root, said)))
        self._as_json = as_json or wants_json(said) or _logs_json(root, said)

    @override
    def show(self, file: IO[Any] | None = None) -> None:
        """Print it on stderr; click's main calls this."""
        what, why, hint = self._lines
        if self._as_json:
            about = {"code": CODE, "title": what, "detail": why, "hint": hint}
            click.echo(json.dumps({"error": about}, ensure_ascii=False), file=file, err=True)
            return
        from quorl.client.cli.common import three_lines

        three_lines("error", what, why, hint)


def wants_json(said: Sequence[str]) -> bool:
    """Whether a line that could not be read asks for JSON, as far as that can be seen."""
    words = said[: said.index("--")] if "--" in said else said
    forms = {found[1] for word in words if (found := _FORM.fullmatch(word))}
    forms |= {after for word, after in itertools.pairwise(words) if word in {"-o", "--output"}}
    return "--json" in words or bool(forms & _JSON)


def _logs_json(root: click.Command, said: Sequence[str]) -> bool:
    """Whether it is a worker that says everything as JSON: ``--log json``. Of other commands that is about their files."""
    asked = "--log=json" in said or ("--log", "json") in itertools.pairwise(said)
    return asked and _context_of(root, said).command_path == "quorl worker run"


def _explained(error: click.ClickException, root: click.Command, said: Sequence[str]) -> tuple[str, str, str]:
    """Return what is wrong, why, and what to do."""
    context = getattr(error, "ctx", None) or _context_of(root, said)
    command = context.command_path
    usage = "usage: " + " ".join(context.get_usage().partition(": ")[2].split())
    hint = f"{command} --help"
    match error:
        case Unanswered():
            words = list(said)
            words.insert(words.index("--") if "--" in words else len(words), "--yes")
            return error.message, "nobody is here to answer, so nothing was done", shlex.join(["quorl", *words])
        case click.exceptions.NoSuchOption():
            guess = _guess(error.possibilities)
            return f"{command} has no option {error.option_name}", guess or "it is none of its options", hint
        case click.exceptions.NoSuchCommand():
            there = context.command.commands if isinstance(context.command, click.Group) else ()
            other = [word for word in _OTHER_WORDS.get(error.command_name, ()) if word in there]
            guess = _guess(other or error.possibilities or _elsewhere(error.command_name, root))
            why = guess or f"there are: {', '.join(sorted(there))}"
            return f"{command} has no command {error.command_name}", why, hint
        case click.MissingParameter(param=param) if param is not None:
            choices = " ".join((param.type.get_missing_message(param, context) or "").split())
            return f"{command} needs {_named(param, context)}", choices or usage, hint
        case click.BadParameter():
            named = error.param_hint if isinstance(error.param_hint, str) else None
            if named is None and error.param is not None:
                named = _named(error.param, context)
            why = _TYPES.sub(lambda found: _NUMBERS[found[1]], _of_choices(error))
            why = _RANGE.sub(_bounds, why)
            return (
                f"{command} does not take this {named or 'value'}",
                why.removesuffix("."),
                getattr(error, "advice", hint),
            )
    message = error.format_message().removesuffix(".")
    if extra := _EXTRA.match(message):
        return f"{command} does not take {extra[1]}", usage, hint
    return message[:1].lower() + message[1:] if message.startswith(_CLICKS) else message, usage, hint


_OTHER_WORDS = {
    "add": ("create", "set", "submit"),
    "create": ("set", "submit"),
    "delete": ("rm",),
    "describe": ("show",),
    "get": ("show",),
    "info": ("show",),
    "list": ("ls",),
    "publish": ("produce",),
    "read": ("consume", "tail"),
    "remove": ("rm",),
    "run": ("submit",),
    "send": ("produce", "submit"),
    "start": ("run",),
    "update": ("set",),
}
"""What other programs call commands that have another name here. Those count that the group has."""
_CLICKS = ("Got unexpected", "Option ", "Missing command", "Argument ")
"""Sentences of click's own, which begin with a capital as ours do not."""
_CHOICE = re.compile(r"['\"](.*)['\"] is not one of ", re.DOTALL)
_EXTRA = re.compile(r"Got unexpected extra arguments? \((.*)\)$", re.DOTALL)
_RANGE = re.compile(r"is not in the range (?:([\d.]+)<=?)?x(<=?|>=?)([\d.]+)")
_NUMBERS = {"integer": "is no whole number", "float": "is no number"}
_TYPES = re.compile(r"is not a valid (integer|float)(?: range)?")


def _of_choices(error: click.BadParameter) -> str:
    """Say what a parameter of few values takes, as it is written everywhere else, and which one may be meant."""
    kind = None if error.param is None else error.param.type
    refused = _CHOICE.match(error.message)
    if not isinstance(kind, click.Choice) or refused is None:
        return error.message
    from quorl.client.cli.guessing import like

    choices = [str(one) for one in kind.choices]
    said = refused[1] if kind.case_sensitive else refused[1].upper()  # as such choices are written here
    return f"'{refused[1]}' is not one of {', '.join(choices)}{like(said, choices)}"


def _bounds(found: re.Match[str]) -> str:
    """Say a range of click's, 1<=x<=9, in words."""
    least, sign, limit = found.groups()
    if least is not None:
        return f"is too much or too little: from {least} to {limit}"
    return f"is too little: {'more than' if sign == '>' else 'at least'} {limit}"


def _context_of(root: click.Command, said: Sequence[str]) -> click.Context:
    """Return the command that a line means, for an error that does not say where it happened."""
    context = click.Context(root, info_name="quorl")
    for word in said:
        if isinstance(context.command, click.Group) and word in context.command.commands:
            context = click.Context(context.command.commands[word], info_name=word, parent=context)
    return context


def _elsewhere(name: str, root: click.Command) -> list[str]:
    """Return the commands of groups that have this name, as they are called: quorl task submit."""
    groups = root.commands.items() if isinstance(root, click.Group) else ()
    return [f"quorl {word} {name}" for word, one in groups if isinstance(one, click.Group) and name in one.commands]


def _named(param: click.Parameter, context: click.Context) -> str:
    """Return how people call a parameter: --lines, or NAME."""
    return max(param.opts, key=len) if isinstance(param, click.Option) else param.get_error_hint(context).strip("'")


def _guess(possibilities: Sequence[str] | None) -> str:
    return f"did you mean {' or '.join(sorted(possibilities))}?" if possibilities else ""
