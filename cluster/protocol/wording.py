"""What is wrong with a field, in plain words: msgspec's messages speak of its types.

What is not known here comes out in msgspec's own words, so nothing is ever left unsaid.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from quorl.cluster.protocol.grammar import Consistency
from quorl.cluster.protocol.operations import OPERATIONS
from quorl.cluster.protocol.queues import Backoff
from quorl.cluster.protocol.routes import nearest

_SHOWN_CHARS_MAX = 40
"""Of what was sent and is wrong."""
_PLACE = re.compile(r"^(?P<what>.*) - at `(?:key in )?\$?\.?(?P<path>[^`]*)`$", re.DOTALL)
_STEP = re.compile(r"(?:^|\.)(\w+)|\[(\d+)\]")
_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*)`$", re.DOTALL)
_LENGTH = re.compile(r"Expected `(str|array)(?: \| null)?` of length (>=|<=) (\d+)$")
_BOUND = re.compile(r"Expected `(?:int|float)(?: \| null)?` (>=|<=) (-?[\d.]+)$")
_TYPE = re.compile(r"Expected `([a-z |]+)`(?:, got `(\w+)`)?$")
_CHOICE = re.compile(r"Invalid enum value ")

_LEAST = {">=": "at least", "<=": "at most"}
_TYPES = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "null": "null",
    "object": "an object",
    "str": "text",
}


def _choices(kind: Any) -> tuple[str, ...]:
    """The words that a type allows, wherever in it they stand."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next(filter(None, map(_choices, get_args(kind))), ())


@functools.cache
def _chosen_from() -> dict[str, tuple[str, ...]]:
    """By name of a field what it may be; not made before it is asked for, since it looks at every type there is."""
    asked: tuple[type[msgspec.Struct], ...] = (*(row.request for row in OPERATIONS), Backoff)
    found = {
        field.encode_name: choices
        for kind in asked
        for field in msgspec.structs.fields(kind)
        if (choices := _choices(field.type))
    }
    return found | {"consistency": get_args(Consistency)}


class Fault(NamedTuple):
    """What is wrong: a JSON pointer to where, and a sentence that names it."""

    pointer: str
    sentence: str


def worded(message: str, known: Iterable[str], sent: Any) -> Fault:
    """Word a message of msgspec's about ``sent``, the JSON value or the texts by name; ``known`` are names to guess from."""
    place = _PLACE.match(message)
    what, path = (place["what"], place["path"]) if place else (message, "")
    steps = [name or index for name, index in _STEP.findall(path)]
    if field := _FIELD.search(what):
        name = field["name"]
        steps.append(name)
        unknown = what.startswith("Object contains")
        others = [one for one in known if one != name]  # it may be known elsewhere in the request
        said = f"there is no field `{name}`{nearest(name, others)}" if unknown else f"{_spoken(steps)} is missing"
        return Fault(_pointer(steps), said)
    inside = path.endswith("[...]")
    names = [step for step in steps if not step.isdecimal()]
    phrase = _phrase(what, names[-1] if names else "", None if inside else _value_at(sent, steps))
    subject = ("a value in " if inside else "") + _spoken(steps)
    return Fault(_pointer(steps), f"{subject} {phrase}" if phrase else f"{subject}: {what}")


def _pointer(steps: list[str]) -> str:
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def _spoken(steps: list[str]) -> str:
    if not steps:
        return "the request"
    first, *rest = steps
    return "`" + first + "".join(f"[{step}]" if step.isdecimal() else f".{step}" for step in rest) + "`"


def _value_at(sent: Any, steps: list[str]) -> Any:
    for step in steps:
        sent = sent[int(step)] if isinstance(sent, list) else sent.get(step) if isinstance(sent, dict) else None
    return sent


def _phrase(what: str, name: str, value: Any) -> str:
    """What must be, and what is; nothing if the message is none of those known here."""
    if length := _LENGTH.match(what):
        kind, sign, count = length.groups()
        unit = ("character" if kind == "str" else "item") + ("" if count == "1" else "s")
        has = f"; it has {len(value)}" if isinstance(value, str | list) else ""
        return f"must have {_LEAST[sign]} {count} {unit}{has}"
    if bound := _BOUND.match(what):
        sign, limit = bound.groups()
        shown = f"; it is {str(value)[:_SHOWN_CHARS_MAX]}" if isinstance(value, str | int | float) else ""
        return f"must be {_LEAST[sign]} {limit.removesuffix('.0')}{shown}"
    if kinds := _TYPE.match(what):
        wanted, got = kinds.groups()
        instead = f", not {'a fraction' if got == 'float' else _TYPES.get(got, got)}" if got else ""
        return "must be " + " or ".join(_TYPES.get(kind, kind) for kind in wanted.split(" | ")) + instead
    if _CHOICE.match(what) and name in _chosen_from():
        return f"must be one of {', '.join(map(str, _chosen_from()[name]))}; it is {str(value)[:_SHOWN_CHARS_MAX]}"
    return ""
