"""Handlers: the functions that run tasks, and how the arguments of a task become theirs."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from typing_extensions import override

from quorl.client.context import Context
from quorl.client.tasking import annotations_of, shape_of, signature_as_written
from quorl.client.validated import from_json
from quorl.cluster.protocol import workers as w

if TYPE_CHECKING:
    from quorl.client.app import App

TEXT_CHARS_MAX = 2_000
"""Of a signature, which is registered with every worker."""
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class WrongValue(TypeError):
    """An argument that cannot be made into what its parameter is annotated with."""


class Signature(NamedTuple):
    """What must be known of a function to call it with the arguments of a task."""

    context: str | None
    """The parameter that takes the ``Context``."""
    context_at: int | None
    """Where it stands among the positional ones."""
    context_by_position: bool
    names: tuple[str, ...]
    """The positional parameters, without the context."""
    shapes: Mapping[str, Any]
    """What the values of parameters must be made into; those that may stay as JSON has them are not here."""
    visible: inspect.Signature | None
    """As callers see it: without the context."""

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise ``TypeError`` for arguments that the function would not take."""
        if self.visible is not None:
            self.visible.bind(*args, **kwargs)

    def arguments(self, args: list[Any], kwargs: dict[str, Any], context: Context) -> tuple[list[Any], dict[str, Any]]:
        """Return what to call the function with; raises ``WrongValue`` for one that is not as annotated."""
        if self.shapes:
            args = [
                _shaped(value, self.shapes, self.names[at]) if at < len(self.names) else value
                for at, value in enumerate(args)
            ]
            kwargs = {name: _shaped(value, self.shapes, name) for name, value in kwargs.items()}
        if self.context is None:
            return args, kwargs
        at = self.context_at
        if at is not None and (self.context_by_position or at < len(args)):
            return [*args[:at], context, *args[at:]], kwargs
        return args, {**kwargs, self.context: context}


def signature_of(function: Callable[..., Any]) -> Signature:
    """Read a function's signature."""
    try:
        found = signature_as_written(function)
    except (TypeError, ValueError):  # a builtin without one takes its arguments as they come
        return Signature(None, None, False, (), {}, None)
    annotations = annotations_of(function)
    context = next((one for one in found.parameters.values() if _takes_context(one, annotations)), None)
    positional = [one for one in found.parameters.values() if one.kind in _POSITIONAL]
    others = [one for one in found.parameters.values() if one is not context]
    shapes = {
        one.name: shape
        for one in others
        if one.kind in {*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY}
        and (shape := shape_of(annotations.get(one.name, inspect.Parameter.empty))) is not None
    }
    return Signature(
        context=context.name if context else None,
        context_at=positional.index(context) if context in positional else None,
        context_by_position=context is not None and context.kind is inspect.Parameter.POSITIONAL_ONLY,
        names=tuple(one.name for one in positional if one is not context),
        shapes=shapes,
        visible=_visible(found, others),
    )


def _visible(found: inspect.Signature, others: list[inspect.Parameter]) -> inspect.Signature:
    try:
        return found.replace(parameters=others)
    except ValueError:  # a default before one that has none, now that the context is gone
        return found.replace(parameters=[one.replace(default=inspect.Parameter.empty) for one in others])


def _takes_context(parameter: inspect.Parameter, annotations: Mapping[str, Any]) -> bool:
    if parameter.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return False
    annotation = annotations.get(parameter.name)
    return parameter.name == "ctx" or annotation is Context or annotation in {"Context", "quorl.Context"}


def _shaped(value: Any, shapes: Mapping[str, Any], name: str) -> Any:
    shape = shapes.get(name)
    if shape is None:
        return value
    try:
        return msgspec.convert(value, shape, dec_hook=from_json)
    except msgspec.ValidationError as error:
        raise WrongValue(f"argument {name!r}: {error}") from None


class Handler(NamedTuple):
    """One task name, and what runs it."""

    name: str
    function: Callable[..., Any]
    is_async: bool
    signature: Signature

    def described(self) -> w.Handler:
        """Return it as the cluster is told."""
        doc = (inspect.getdoc(self.function) or "").strip()
        return w.Handler(name=self.name, signature=_clipped(self.shown()), doc=_clipped(doc))

    def entered(self, error: BaseException) -> bool:
        """Whether an exception comes from within the function itself, and not from the call of it."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return code is not None and any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__))

    def shown(self) -> str:
        """Return the signature as its author wrote it."""
        visible = self.signature.visible
        if visible is None:
            return ""
        parameters = [one.replace(annotation=_written(one.annotation)) for one in visible.parameters.values()]
        return str(visible.replace(parameters=parameters, return_annotation=_written(visible.return_annotation)))


class _Written:
    """An annotation that is text, shown without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    @override
    def __repr__(self) -> str:
        return self._text


def _written(annotation: Any) -> Any:
    return _Written(annotation) if isinstance(annotation, str) else annotation


def _clipped(text: str) -> str:
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= TEXT_CHARS_MAX else text[: TEXT_CHARS_MAX - 1] + "…"


def handler(name: str, function: Callable[..., Any]) -> Handler:
    """Return the handler for a function."""
    calling = getattr(function, "__call__", None)  # noqa: B004 - of a callable object, its method
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(calling)
    return Handler(name, function, is_async, signature_of(function))


def handlers_of(source: App | Mapping[str, Callable[..., Any]]) -> dict[str, Handler]:
    """Return the handlers of an app, or of a dict of functions by task name."""
    if isinstance(source, Mapping):
        functions = {name: getattr(function, "function", function) for name, function in source.items()}
    else:
        functions = {name: task.function for name, task in source.tasks.items()}
    wrong = [name for name, function in functions.items() if not callable(function)]
    if wrong:
        raise TypeError(f"the handler of {wrong[0]!r} cannot be called")
    return {name: handler(name, function) for name, function in functions.items()}
