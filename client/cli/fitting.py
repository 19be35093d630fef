"""Whether arguments fit a signature that a worker has registered, which is text and whose annotations mean nothing here."""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

_KIND = inspect.Parameter


def misfit(signature: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return why a call does not fit, in Python's words; None if it does, or if that cannot be told from the text."""
    try:
        known = _read(signature)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # no Python: a default without a literal, a text that was cut, or what anybody may have sent
    if known is None:
        return None
    try:
        known.bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


def meant_by_name(signature: str, args: Sequence[Any]) -> list[str]:
    """Return the arguments that are texts like ``x=4`` where the signature has an ``x``, and are no named ones."""
    try:
        known = _read(signature)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names = known.parameters if known is not None else {}
    return [one for one in args if isinstance(one, str) and one.partition("=")[0] in names and "=" in one]


def _read(signature: str) -> inspect.Signature | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler has opinions on literals, which are nobody's here
        (function,) = ast.parse(f"def task{signature}: ...").body
    if not isinstance(function, ast.FunctionDef):
        return None
    given = function.args
    only = len(given.posonlyargs)
    positional = [*given.posonlyargs, *given.args]
    needed = len(positional) - len(given.defaults)
    found = [
        _one(one, _KIND.POSITIONAL_ONLY if at < only else _KIND.POSITIONAL_OR_KEYWORD, at >= needed)
        for at, one in enumerate(positional)
    ]
    if given.vararg is not None:
        found.append(_one(given.vararg, _KIND.VAR_POSITIONAL))
    found += [
        _one(one, _KIND.KEYWORD_ONLY, default is not None)
        for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    if given.kwarg is not None:
        found.append(_one(given.kwarg, _KIND.VAR_KEYWORD))
    return inspect.Signature(found)


def _one(argument: ast.arg, kind: Any, optional: bool = False) -> inspect.Parameter:
    return inspect.Parameter(argument.arg, kind, default=None if optional else inspect.Parameter.empty)
