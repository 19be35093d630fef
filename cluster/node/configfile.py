"""Reading a TOML file into typed values, with every mistake at its line.

The shape comes from a msgspec Struct whose fields are Structs themselves (the tables of the file) or lists of Structs
(``[[arrays]]`` of tables). Each value is converted by itself, so that one wrong value hides no other. This module knows
no key by name.

Invariants: nothing is guessed silently, a guess is only ever offered; a value that could not be read is missing from
``Source.values`` and stands in ``Source.mistakes``.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args, get_origin

import msgspec
from typing_extensions import override

ENVIRONMENT_PREFIX = "QUORL_"


class Address(str):
    """``host:port``, with IPv6 in brackets. A plain string to everybody who does not ask for its parts."""

    __slots__ = ("host", "port")

    host: str
    port: int

    def __new__(cls, text: str) -> Self:
        """Check and split; raises ``ValueError`` with a sentence."""
        address = super().__new__(cls, text)
        match = re.fullmatch(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:/\[\]@?#]+)):(?P<port>[0-9]{1,5})", text)
        if match is None:
            msg = f'expected host:port, got "{text}"; for example "127.0.0.1:7101" or "[::1]:7101"'
            raise ValueError(msg)
        address.host = match["six"] or match["host"]
        address.port = int(match["port"])
        if not 1 <= address.port <= 65_535:
            msg = f'expected a port from 1 to 65535, got "{text}"'
            raise ValueError(msg)
        return address


class Mistake(NamedTuple):
    """One thing that is wrong. Lines of ``text`` after the first say what to do about it."""

    where: str
    text: str

    @override
    def __str__(self) -> str:
        """Lay out as a compiler does: place, colon, what."""
        return f"{self.where}: " + self.text.replace("\n", "\n    ")


class ConfigError(Exception):
    """The config cannot be used. Its text is what a person should read."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        closing = f"{count} problem{'' if count == 1 else 's'}. Nothing was started."
        super().__init__("\n".join([*map(str, self.mistakes), closing]))


class Source:
    """The values of one file and what was wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        self.mistakes: list[tuple[int, Mistake]] = []
        self.lines: dict[str, int] = {}
        self.variables: dict[str, str] = {}
        self.spoiled: set[str] = set()

    def get(self, place: str, default: Any = None) -> Any:
        """Give the value at a dotted place, None if it was given and could not be read, else ``default``."""
        if place in self.spoiled:
            return None
        values: Any = self.values
        for key in place.split("."):
            values = values.get(key, msgspec.UNSET)
            if values is msgspec.UNSET:
                return default
        return values

    def complain(self, place: str, text: str) -> None:
        """Note a mistake at the dotted ``place``: at its variable, else at its line or the nearest table around it."""
        self.spoiled.add(place)
        around = [place.rsplit(".", depth)[0] for depth in range(place.count(".") + 1)]
        variable = next((self.variables[key] for key in around if key in self.variables), None)
        line = next((self.lines[key] for key in around if key in self.lines), 0)
        if variable is not None:  # it hides what the file says there
            self.mistakes.append((0, Mistake(f"environment {variable}", text)))
        else:
            self.mistakes.append((line, Mistake(f"{self.path}:{line}" if line else str(self.path), text)))

    def raise_if_any(self) -> None:
        """Raise all mistakes together, in the order of the file."""
        if self.mistakes:
            raise ConfigError(mistake for _, mistake in sorted(self.mistakes, key=lambda pair: pair[0]))


def read(path: Path, environ: Mapping[str, str], shape: type[msgspec.Struct]) -> Source:
    """Read ``path`` and the environment against ``shape``; raises ``ConfigError`` only if there is nothing to read."""
    source = Source(path)
    text = _text(path)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
        line = (match and match[2]) or str(text.count("\n") + 1)
        why = f"not TOML: {match[1] if match else error}"
        if _BARE.match(text.split("\n")[int(line) - 1]):
            why += '; text stands in quotes: name = "n1"'
        raise ConfigError([Mistake(f"{path}:{line}", why)]) from None
    source.lines = _lines(text)
    _overlay(source, raw, environ, shape)
    source.values = _table(source, "", raw, shape)
    return source


def guess(word: str, words: Iterable[str]) -> str:
    """``; did you mean `this`?`` when something among ``words`` is close, else nothing."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return _offer(close[0]) if close else ""


def _offer(word: str) -> str:
    return f"; did you mean `{word}`?"


# -- reading -------------------------------------------------------------------------------------------------------
def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([Mistake(str(path), "not UTF-8 text")]) from None
    except OSError as error:
        advice = "\nquorl node init writes such files." if isinstance(error, FileNotFoundError) else ""
        raise ConfigError([Mistake(str(path), (error.strerror or str(error)).lower() + advice)]) from None


def _lines(text: str) -> dict[str, int]:
    """Where keys and tables stand: dotted place -> first line. Good enough to point at; nothing else relies on it."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[\[\s*([\w.\"' -]+?)\s*\]\]", line):
            name = _plain(match[1])
            table = f"{name}.{counts.get(name, 0)}"
            counts[name] = counts.get(name, 0) + 1
            lines.setdefault(name, number)
            lines.setdefault(table, number)
        elif match := re.match(r"\s*\[\s*([\w.\"' -]+?)\s*\]\s*(?:#|$)", line):
            table = _plain(match[1])
            lines.setdefault(table, number)
        elif match := re.match(r"\s*([\w.\"'-]+(?:\s*\.\s*[\w\"'-]+)*)\s*=", line):
            lines.setdefault(f"{table}.{_plain(match[1])}".lstrip("."), number)
    return lines


def _plain(key: str) -> str:
    return re.sub(r"[\"'\s]", "", key)


def _overlay(source: Source, raw: dict[str, Any], environ: Mapping[str, str], shape: type[msgspec.Struct]) -> None:
    """Put ``QUORL_<SECTION>__<KEY>`` over the file. Everything but text is read as JSON."""
    sections = _fields(shape)
    known = {
        f"{ENVIRONMENT_PREFIX}{section}__{key}".upper(): (section, key, field.type)
        for section, table in sections.items()
        for key, field in _fields(table.type).items()
    }
    for variable, value in sorted(environ.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or "__" not in variable:
            continue
        if variable not in known:
            source.mistakes.append((0, Mistake(f"environment {variable}", f"no such key{guess(variable, known)}")))
            continue
        section, key, kind = known[variable]
        source.variables[f"{section}.{key}"] = variable
        table = raw.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _variable(value, kind)


def _variable(value: str, kind: Any) -> Any:
    if any(text in _alternatives(kind) for text in (str, Address, Path)) or get_origin(kind) is Literal:
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value  # the conversion says what was expected instead


# -- converting ----------------------------------------------------------------------------------------------------
def _table(source: Source, place: str, raw: Any, shape: type[msgspec.Struct]) -> dict[str, Any]:
    """Convert one table key by key."""
    fields = _fields(shape)
    title = f"[{place}]" if place else "this file"
    if not isinstance(raw, dict):
        source.complain(place, f"{place}: expected a table, got {_shown(raw)}")
        return {}
    offers = {key: guess(key, fields) for key in raw if key not in fields}
    for key, offer in offers.items():
        source.complain(f"{place}.{key}".lstrip("."), f"unknown key `{key}` in {title}{offer}")
    values = {}
    for key, field in fields.items():
        inner = f"{place}.{key}".lstrip(".")
        if key in raw:
            converted = _value(source, inner, raw[key], field.type)
            if converted is not msgspec.UNSET:
                values[key] = converted
        elif field.required and _offer(key) not in offers.values():
            what = f"no [{key}] table" if not place else f"no `{key}` in {title}"
            source.complain(place, what)
    return values


def _value(source: Source, place: str, raw: Any, kind: Any) -> Any:
    """Convert one value; UNSET after a complaint."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _table(source, place, raw, kind)
    inner = _element(kind)
    if inner is not None and isinstance(raw, list) and raw:
        most = max((note.max_length or 0 for note in getattr(kind, "__metadata__", ())), default=0)
        if most and len(raw) > most:
            source.complain(place, f"{place}: expected at most {most}, got {len(raw)}")
        return [_table(source, f"{place}.{number}", element, inner) for number, element in enumerate(raw)]
    try:
        return msgspec.convert(raw, kind, dec_hook=_hook)
    except msgspec.ValidationError as error:
        source.complain(place, f"{place}: {_sentence(error, raw, kind)}")
        return msgspec.UNSET


def _hook(kind: type, raw: Any) -> Any:
    if not isinstance(raw, str) or not raw:
        msg = f"expected text, got {_shown(raw)}"
        raise ValueError(msg)
    return kind(raw)


def _sentence(error: msgspec.ValidationError, raw: Any, kind: Any) -> str:
    """Say what was expected and what came, in the words of somebody who has never seen a type."""
    if isinstance(error.__cause__, ValueError):
        return str(error.__cause__)
    choices = [choice for choice in get_args(_bare(kind)) if isinstance(choice, str)]
    if choices:
        offer = guess(raw, choices) if isinstance(raw, str) else ""
        return f"expected {' or '.join(map(_shown, choices))}, got {_shown(raw)}{offer}"
    description = _description(kind)
    if description:
        return f"expected {description}, got {_shown(raw)}"
    said = str(error).split(" - at ")[0]
    said = re.sub(r", got .*$", "", said)
    for name, words in _WORDS.items():
        said = said.replace(f"`{name}`", words)
    return f"{said[0].lower()}{said[1:]}, got {_shown(raw)}"


_BARE = re.compile(r"""[\w.\s-]+=\s*(?!(?:true|false)\b)(?:[A-Za-z/]|\d+(?:\.\d+\.|:))""")
"""A line whose value is text without its quotes: a name, a path, an address."""
_WORDS = {"int": "an integer", "float": "a number", "str": "text", "bool": "true or false", "array": "a list"}


def _shown(raw: Any) -> str:
    return json.dumps(raw, default=str, ensure_ascii=False)


# -- types ---------------------------------------------------------------------------------------------------------
def _fields(shape: Any) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(shape)}


def _bare(kind: Any) -> Any:
    """``Annotated[T, ...]`` without its annotations."""
    return kind.__origin__ if hasattr(kind, "__metadata__") else kind


def _alternatives(kind: Any) -> tuple[Any, ...]:
    bare = _bare(kind)
    return (bare, *get_args(bare))


def _element(kind: Any) -> type[msgspec.Struct] | None:
    """The Struct in a list or tuple of Structs, else None."""
    for argument in get_args(_bare(kind)):
        if isinstance(argument, type) and issubclass(argument, msgspec.Struct):
            return argument
    return None


def _description(kind: Any) -> str:
    """What the type says about itself in its ``Meta``, searched inside lists and tuples too."""
    for note in getattr(kind, "__metadata__", ()):
        if isinstance(note, msgspec.Meta) and note.description:
            return note.description
    for argument in get_args(_bare(kind)):
        if inner := _description(argument):
            return inner
    return ""
