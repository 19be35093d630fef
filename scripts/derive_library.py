"""What ``docs/python.md`` derives from the code of the library: its classes with all that is public, and what they answer.

A class is told by its docstrings and annotations and by nothing else, so that the page says what the code does. What is
public and left out stands in ``INNER``, in sight. ``tests/test_docs_python.py`` says that nothing else is missing.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, get_args, get_origin

import msgspec

import quorl
import quorl.client
from quorl.client import errors, tasking
from quorl.cluster.protocol import queues, tasks
from quorl.cluster.protocol.grammar import Consistency, Request
from quorl.cluster.protocol.submitting import NewTask
from scripts.markdown import plain, table

TWINS = {
    "Client": "AsyncClient",
    "Topics": "AsyncTopics",
    "Topic": "AsyncTopic",
    "Producer": "AsyncProducer",
    "Pending": "AsyncPending",
    "Consumer": "AsyncConsumer",
    "Follower": "AsyncFollower",
    "Queues": "AsyncQueues",
    "Tasks": "AsyncTasks",
    "Workers": "AsyncWorkers",
}
"""The classes that exist twice, for threads and for asyncio."""
HAD = {
    "Task": "app.task(function)",
    "Call": "app.task(function).call()",
    "Handle": 'app.handle("ID")',
    "Completed": "app.as_completed([])",
    "Topics": "client.topics",
    "Topic": 'client.topic("NAME")',
    "Producer": 'client.topic("NAME").producer()',
    "Consumer": 'client.topic("NAME").consumer()',
    "Follower": 'client.topic("NAME").follow()',
    "Queues": "client.queues",
    "Tasks": "client.tasks",
    "Workers": "client.workers",
}
"""How to have one of what is not made by calling its class; a test tries each."""
MADE = ("App", "Client", "Worker", "Retry", "MyQueue", "TaskClient", "TaskWorker")
"""What programs make by calling it."""
INNER = {
    "App": {"awaiting"},
    "Task": {"of"},
    "Handle": {"level"},
    "Context": {"stop"},
    "Client": {"clock", "drive", "lane"},
    "Worker": {"plan"},
    "Call": {"shape"},
    "TaskFailed": {"args"},
}
"""What is public for other modules of the library, and nothing for programs."""
GROUPS = {
    "library_tasks": ("App", "Task", "Call", "Handle", "Completed"),
    "library_handlers": ("Context", "NO_CONTEXT", "Retry", "NoRetry", "Stopped"),
    "library_worker": ("Worker",),
    "library_client": ("Client",),
    "library_topics": (
        *("Topics", "Topic", "Producer", "Pending", "Consumer", "Follower"),
        *("Message", "MessageDetails", "Placed", "message"),
    ),
    "library_queues": ("Queues", "Tasks", "new_task", "Workers"),
    "library_founding": ("MyQueue", "TaskClient", "TaskWorker", "QueueError"),
}
"""The passages of the page, and what stands in each."""
TOLD = ("QuorlError", "Rejected", "Unavailable", "OutcomeUnknown", "NoResult", "TaskFailed", "NotFinished", "Try")
"""The errors that have more to say than their name does."""
WORDS: dict[str, tuple[Any, str]] = {
    "BackoffLike": (tasking.BackoffLike, "`fixed`, `linear`, `exponential`; the waits in milliseconds; or a `Backoff`"),
    "Consistency": (Consistency, ""),
    "MessageLike": (Any, "any JSON value, or what `message` made"),
    "PurgeState": (queues.PurgeState, ""),
    "Status": (tasks.Status, ""),
}
"""Names that stand for several things in annotations."""
_OPTION = r"(?:``\w+``, )*``\w+``: "
_KINDS = inspect.Parameter


class Member(NamedTuple):
    """A method, a property or an attribute of a class."""

    name: str
    text: str
    """As it is written, with the types of its parameters."""
    kind: str
    """The type of what it answers or is."""
    told: str = ""
    called: bool = True
    awaited: bool = False


# -- types -------------------------------------------------------------------------------------------------------------
def typed(annotation: object, names: Mapping[str, Any]) -> str:
    """An annotation as people read it: without the modules' names that it has in the code, and without ``UnsetType``."""

    def shortened(found: re.Match[str]) -> str:
        module, name = names.get(found[1]), found[2]
        clash = name in quorl.client.__all__ and getattr(module, name, None) is not getattr(quorl.client, name)
        return f"{str(getattr(module, '__name__', '')).rpartition('.')[2]}.{name}" if clash else name

    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"\b([a-z]\w*)\.([A-Z]\w+)", shortened, text)
    text = text.replace("R_co", "R")  # the same result, of classes that stand for wider types as well
    return re.sub(r"Unpack\[(\w+)\]", r"\1", text).replace(" | UnsetType", "").replace("dt.datetime", "datetime")


def resolved(kind: Any) -> str:
    """A type as the field of a struct has it, without the bounds of its values."""
    origin, inner = get_origin(kind), get_args(kind)
    if hasattr(kind, "__metadata__"):
        return resolved(inner[0])
    if origin in {typing.Union, types.UnionType}:
        return " | ".join(resolved(one) for one in inner if one is not msgspec.UnsetType)
    if origin is typing.Literal:
        named = [name for name, (value, _) in WORDS.items() if value == kind]
        return named[0] if named else " | ".join(repr(one) for one in inner)
    if origin is not None:
        return f"{origin.__name__}[{', '.join('...' if one is Ellipsis else resolved(one) for one in inner)}]"
    return "None" if kind is type(None) else str(getattr(kind, "__name__", kind))


def default(value: object) -> str:
    """A default as it would be written."""
    if value is msgspec.UNSET:
        return "UNSET"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.__name__ if isinstance(value, types.FunctionType) else repr(value)


def written(function: Callable[..., Any], name: str, *, bare: bool = False) -> tuple[str, str]:
    """A function as it is called, ``bare`` without types, and the type of its answer."""
    signature = inspect.signature(function)
    names = inspect.unwrap(function).__globals__
    parts: list[str] = []
    given = [one for one in signature.parameters.values() if one.name != "self"]
    for one, before in zip(given, [None, *given], strict=False):
        if before and before.kind is _KINDS.POSITIONAL_ONLY is not one.kind:
            parts.append("/")
        starred = before and before.kind in {_KINDS.KEYWORD_ONLY, _KINDS.VAR_POSITIONAL}
        if one.kind is _KINDS.KEYWORD_ONLY and not starred:
            parts.append("*")
        stars = "*" if one.kind is _KINDS.VAR_POSITIONAL else "**" if one.kind is _KINDS.VAR_KEYWORD else ""
        text = stars + one.name
        typeless = bare or one.annotation is _KINDS.empty
        text += "" if typeless else f": {typed(one.annotation, names)}"
        equals = "=" if typeless else " = "
        parts.append(text if one.default is _KINDS.empty else f"{text}{equals}{default(one.default)}")
    if given and given[-1].kind is _KINDS.POSITIONAL_ONLY:
        parts.append("/")
    empty = signature.return_annotation in {inspect.Signature.empty, "None"}
    return f"{name}({', '.join(parts)})", "" if empty else typed(signature.return_annotation, names)


# -- what a class has --------------------------------------------------------------------------------------------------
def ours(kind: type) -> list[type]:
    """A class and those of this package that it is made of."""
    return [one for one in kind.__mro__ if one.__module__.startswith("quorl") and one.__name__ != "Renewed"]


def members(name: str) -> list[Member]:
    """All that is public in a class, attributes first; of an error without what those above it tell."""
    kind = getattr(quorl.client, name)
    found: dict[str, Member] = {}
    for part in reversed(ours(kind)):
        for attribute in attributes(part):
            before = found.get(attribute.name)
            found[attribute.name] = before if before and not attribute.told else attribute
    for part in ours(kind):
        for key, value in vars(part).items():
            for method in methods(key, value, part):
                found.setdefault(method.text, method)
    common = [one for base in ours(kind)[1:] if base.__name__ in TOLD for one in members(base.__name__)]
    given = options(kind) if name in MADE else {}
    return [
        one
        for one in found.values()
        if one.name not in INNER.get(name, ()) and one not in common and (one.told or one.name not in given)
    ]


def methods(name: str, value: Any, kind: type) -> Iterator[Member]:
    """A method in each of its forms, or a property; nothing of what is private."""
    also = [f"`{other}`" for other, one in vars(kind).items() if one is value and other != name]
    if isinstance(value, property) and not name.startswith("_"):
        assert value.fget is not None
        returned = typed(value.fget.__annotations__["return"], value.fget.__globals__)
        yield Member(name, name, returned, plain(value.__doc__), called=False)
    elif inspect.isfunction(value) and name == "__call__":
        yield Member(name, *written(value, kind.__name__.lower()), plain(value.__doc__))
    elif inspect.isfunction(value) and not name.startswith("_"):
        if name != value.__name__:
            return  # another spelling, which stands with the first
        *more, last = typing.get_overloads(value) or [value]
        for form in more:
            yield Member(name, *written(form, name))
        told = plain(value.__doc__) + (f" Also {', '.join(also)}." if also else "")
        yield Member(name, *written(last, name), told, awaited=awaited(value))


def attributes(kind: type) -> Iterator[Member]:
    """The attributes that a class declares, or that its ``__init__`` sets, with what the code says below them."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    names = vars(inspect.getmodule(kind))
    made = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    given = {one.arg: one.annotation for init in made for one in [*init.args.args, *init.args.kwonlyargs]}
    for body in (tree.body, *(init.body for init in made)):
        for statement, following in zip(body, [*body[1:], None], strict=True):
            name, annotation = attribute_of(statement, given, of_class=body is tree.body)
            if name and not name.startswith("_"):
                told = following.value if isinstance(following, ast.Expr) else None
                said = str(told.value) if isinstance(told, ast.Constant) else ""
                yield Member(name, name, typed(annotation, names), plain(said), called=False)


def attribute_of(statement: ast.stmt, given: Mapping[str, ast.expr | None], *, of_class: bool) -> tuple[str, str]:
    """The attribute that a statement makes and its type, as far as one is written; without a name if it makes none."""
    target: ast.expr
    if isinstance(statement, ast.AnnAssign):
        target, kind, value = statement.target, ast.unparse(statement.annotation), statement.value
    elif isinstance(statement, ast.Assign) and not of_class:
        target, kind, value = statement.targets[0], "", statement.value
    else:
        return "", ""
    if of_class:
        return ("", "") if kind.startswith("ClassVar") else (ast.unparse(target), kind)
    if not isinstance(target, ast.Attribute):
        return "", ""
    if not kind and isinstance(value, ast.Name) and (annotation := given.get(value.id)) is not None:
        kind = ast.unparse(annotation)
    if not kind and isinstance(value, ast.Call) and (name := ast.unparse(value.func))[0].isupper():
        kind = name
    return target.attr, kind


# -- sections ----------------------------------------------------------------------------------------------------------
def options(kind: type) -> dict[str, str]:
    """What a class says of the parameters of its making: the parts of its docstring that begin with their names."""
    found: dict[str, str] = {}
    for names, told in re.findall(rf"({_OPTION})(.*?)(?=\s{_OPTION}|\n\s*\n|\Z)", kind.__doc__ or "", re.DOTALL):
        found.update(dict.fromkeys(re.findall(r"\w+", names), plain(told)))
    return found


def introduction(kind: type, *, without_options: bool = False) -> str:
    """The paragraphs of a docstring, perhaps without those about parameters."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(kind.__doc__ or ""))
    return "\n\n".join(plain(one) for one in paragraphs if not (without_options and re.match(_OPTION, one)))


def making(name: str, kind: Any) -> list[str]:
    """How a class is called."""
    call, _ = written(kind.__init__, name, bare=True)
    told, rows = options(kind), []
    for one in inspect.signature(kind).parameters.values() if told else ():
        shown = "required" if one.default is one.empty else f"`{default(one.default)}`"
        type_ = typed(one.annotation, vars(inspect.getmodule(kind)))
        rows.append(
            (f"`{one.name}`", f"`{type_}`", "" if one.kind is one.VAR_KEYWORD else shown, told.get(one.name, ""))
        )
    return [f"`{call}`", "", *([table(("parameter", "type", "default", "meaning"), rows)] if rows else [])]


def section(name: str) -> str:
    """One name of the library, with all that it has."""
    found, twin = getattr(quorl.client, name), TWINS.get(name)
    homes = " · ".join(
        f"`from {'quorl' if one in quorl.__all__ else 'quorl.client'} import {one}`" for one in (name, twin) if one
    )
    lines = [f"### `{name}`", "", homes, ""]
    if inspect.isfunction(found):
        lines.append(listed(Member(name, *written(found, name), plain(found.__doc__))))
    elif not isinstance(found, type):
        lines.append(plain(constant(name)))
    else:
        lines += [introduction(found, without_options=name in MADE), ""]
        lines += [f"Had as `{HAD[name]}`.", ""] if name in HAD else making(name, found) if name in MADE else []
        lines += [*(listed(one) for one in members(name)), "", made_for(found), beside(name)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def listed(one: Member) -> str:
    """A member as a point of a list."""
    known = next((name for name in re.findall(r"(?<![\w.])[A-Z]\w+", one.kind) if name in headings()), "")
    kind = f"[`{one.kind}`](#{known.lower()})" if known else f"`{one.kind}`"
    text = f"`{'await ' * one.awaited}{one.text}`"
    if one.kind:
        text = f"{text} → {kind}" if one.called or known else f"`{one.text}: {one.kind}`"
    return f"- {text}" + (f"  \n  {one.told}" if one.told else "")


def constant(name: str) -> str:
    """What stands below a name in the module that it comes from."""
    body = ast.parse(inspect.getsource(inspect.getmodule(type(getattr(quorl.client, name))) or quorl)).body
    for statement, following in itertools.pairwise(body):
        named = isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name
        if named and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            return str(following.value.value)
    raise AssertionError(f"{name} says nothing of itself")


def made_for(kind: type) -> str:
    """Which statements a class is made for."""
    said = {"__enter__": "`with`", "__aenter__": "`async with`", "__iter__": "`for`", "__aiter__": "`async for`"}
    found = [word for method, word in said.items() if hasattr(kind, method) and not issubclass(kind, tuple)]
    return f"Made for {' and '.join(found)}.\n" if found else ""


def beside(name: str) -> str:
    """What differs in the class for asyncio."""
    if name not in TWINS:
        return ""
    here, there = (public(getattr(quorl.client, one), name) for one in (name, TWINS[name]))
    plainly = [one for one, value in there.items() if inspect.isfunction(value) and not awaited(value)]
    said = f"`{TWINS[name]}` is the same for asyncio"
    if any(awaited(value) for value in there.values()):
        said += ": its methods are awaited" + (
            f", but for {', '.join(f'`{one}`' for one in plainly)}" if plainly else ""
        )
    if "__aiter__" in vars(getattr(quorl.client, TWINS[name])):
        said += ", and it is made for `async for`"
    missing = [f"`{one}`" for one in here if one not in there]
    return said + (f"; it has no {', '.join(missing)}" if missing else "") + ".\n"


def public(kind: type, name: str) -> dict[str, Any]:
    """What a class defines for programs."""
    hidden = INNER.get(name, set())
    return {key: value for key, value in vars(kind).items() if not key.startswith("_") and key not in hidden}


def awaited(value: object) -> bool:
    """Whether a call of it is."""
    return inspect.iscoroutinefunction(value)


def task_options() -> str:
    """What may be said about a task."""
    rows = [(f"`{one.name}`", f"`{one.kind}`", one.told) for one in attributes(tasking.TaskOptions)]
    return table(("option", "type", "meaning"), rows)


# -- answers -----------------------------------------------------------------------------------------------------------
def answers() -> str:
    """Every struct that a call of the library answers with, or takes, and those inside them."""
    return "\n" + "\n".join(struct(kind) for _, kind in sorted(structs().items()))


def struct(kind: type[msgspec.Struct]) -> str:
    """One struct: what it is, and its fields; their defaults if programs make it."""
    shown = []
    for one in msgspec.structs.fields(kind):
        equals = f" = {default(one.default)}" if kind.__struct_config__.forbid_unknown_fields else ""
        shown.append(f"`{one.name}: {resolved(one.type)}{equals}`")
    return f"### `{kind.__name__}`\n\n{introduction(kind)}\n\n{' · '.join(shown)}\n"


@cache
def structs() -> dict[str, type[msgspec.Struct]]:
    """The structs by their names; what is asked, and tasks as they are submitted, stand in docs/protocol.md."""
    found: dict[str, type[msgspec.Struct]] = {}
    waiting: list[type[msgspec.Struct]] = [queues.Backoff, *named_in_signatures()]
    while waiting:
        kind = waiting.pop()
        if kind.__name__ not in {*found, *quorl.client.__all__} and not issubclass(kind, (Request, NewTask)):
            found[kind.__name__] = kind
            for field in msgspec.structs.fields(kind):
                waiting += structs_of(field.type)
    return found


def named_in_signatures() -> Iterator[type[msgspec.Struct]]:
    """The structs that the classes of the page name where they say what they answer."""
    for name in (name for names in GROUPS.values() for name in names):
        kind = getattr(quorl.client, name)
        for value in public(kind, name).values() if isinstance(kind, type) else ():
            if inspect.isfunction(value):
                yield from named_in(str(value.__annotations__.get("return", "")), value.__globals__)


def named_in(text: str, names: Mapping[str, Any]) -> Iterator[type[msgspec.Struct]]:
    """The structs that an annotation names."""
    for module, name in re.findall(r"(?:\b(\w+)\.)?\b([A-Z]\w+)", text):
        kind = getattr(names.get(module), name, None) if module else names.get(name)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield kind


def structs_of(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """The structs in a type, however it is wrapped."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for inner in get_args(kind):
        yield from structs_of(inner)


def words() -> str:
    """The names that stand for several things in annotations."""
    rows = [
        (f"`{name}`", told or ", ".join(f"`{one}`" for one in get_args(kind))) for name, (kind, told) in WORDS.items()
    ]
    return table(("name", "stands for"), rows)


# -- errors ------------------------------------------------------------------------------------------------------------
def failures() -> str:
    """Every exception of a call, with its code, and then those that have more to say."""
    rows = []
    codes: dict[type, str] = {kind: code for code, kind in errors.Rejected._by_code.items()}  # noqa: SLF001 - the registry of refusals
    for name in quorl.client.__all__:
        kind = getattr(quorl.client, name)
        if isinstance(kind, type) and issubclass(kind, errors.QuorlError):
            above = kind.__bases__[0].__name__
            code = codes.get(kind, vars(kind).get("code", ""))
            shown = f"[`{name}`](#{name.lower()})" if name in TOLD else f"`{name}`"
            rows.append((shown, f"`{above}`", f"`{code}`" if code else "", introduction(kind).partition("\n")[0]))
    rows.sort(key=lambda row: (row[1] != "`Exception`", row[1] != "`QuorlError`", row[1] == "`Rejected`"))
    return "\n".join([table(("exception", "is a", "`code`", "means"), rows), *(section(name) for name in TOLD)])


def group(names: tuple[str, ...]) -> Callable[[], str]:
    """Return what derives a passage of several names."""
    return lambda: "\n" + "\n".join(section(name) for name in names)


def headings() -> set[str]:
    """The names that have a place of their own in the page."""
    return {*(name for names in GROUPS.values() for name in names), *TOLD, *structs()}


PASSAGES: dict[str, Callable[[], str]] = {
    **{name: group(names) for name, names in GROUPS.items()},
    "library_options": task_options,
    "library_answers": answers,
    "library_words": words,
    "library_errors": failures,
}
