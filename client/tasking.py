"""Tasks as users hand them in and get them back: options, arguments and results, between Python and the wire.

Arguments and results are JSON: whatever msgspec encodes (dataclasses, dates and UUIDs become their JSON form, bytes base64
text) and models that validate themselves (``validated``), and never a pickle. What JSON has no word for comes back as the
annotation says: a handler's ``when: datetime`` is one again.
"""

from __future__ import annotations

import datetime as dt
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

import msgspec
from msgspec import UNSET
from typing_extensions import Format, get_annotations

from quorl.client import elsewhere
from quorl.client.errors import NoResult, TaskCancelled, TaskExpired, TaskFailed, invalid
from quorl.client.model import JSON_HINT
from quorl.client.validated import from_json, to_json
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.problems import ProtocolError
from quorl.cluster.protocol.strictjson import read_typed
from quorl.cluster.protocol.together import OneReport

TASK_OVERHEAD_BYTES = 512
"""What the names of a task's fields and its numbers add to a request, at most."""
REPORT_OVERHEAD_BYTES = 300
"""What the names of a report's fields, its id and its token add, at most; ids count six bytes a character besides."""
QUEUE_DEFAULT = "default"

BackoffLike: TypeAlias = str | Sequence[int] | q.Backoff
"""``fixed``, ``linear`` or ``exponential``; the waits after each attempt in milliseconds; or a ``Backoff``."""

encode = msgspec.json.Encoder(enc_hook=to_json).encode
decode = msgspec.json.Decoder().decode
_read_task = msgspec.json.Decoder(b.NewTask)


class TaskOptions(TypedDict, total=False):
    """What may be said about a task beside its name and arguments. Durations are in seconds."""

    id: str
    """Of your own choice; submitting the very same task under it again changes nothing, another is refused (``TaskExists``)."""
    priority: int
    """0 to 9, 5 by default; among tasks that wait, higher ones go first."""
    key: str
    """In a queue with partitions, tasks with the same key share one."""
    delay: float
    """Seconds of cluster time before it may start."""
    run_at: dt.datetime | str
    """A moment of the calendar, with its zone, before which it does not start; as text in the form of RFC 3339."""
    expires: float
    """Seconds: what has not been started by then never is."""
    timeout: float
    """Seconds that one attempt may take."""
    max_attempts: int
    """Runs in all, the first one included; the queue's default is 3."""
    retries: int
    """The same, said the other way: runs after the first."""
    max_lost: int
    """So many workers may die over it before it is FAILED."""
    backoff: BackoffLike
    """How long it waits after a failed attempt; the queue's default is exponential: 1 s, 2 s, 4 s and so on, 5 min at most."""
    tags: list[str]
    """For people; shown with the task."""
    meta: dict[str, str]
    """For the handler, in ``Context.meta``."""
    traceparent: str
    """The span that submits it, as W3C Trace Context has it; with OpenTelemetry the current one, by itself."""
    tracestate: str
    """What goes with the ``traceparent``."""


_OPTIONS = frozenset(TaskOptions.__annotations__)


def new_task(
    name: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> b.NewTask:
    """Make a task to submit; raises ``Invalid`` for a value without a JSON form, ``TypeError`` for what is no option."""
    given = dict(options or {})
    if unknown := given.keys() - _OPTIONS:
        raise _no_option(unknown)
    _check_shape(name, args, kwargs)
    if "retries" in given:
        if "max_attempts" in given:
            raise TypeError("retries and max_attempts say the same: give one of them")
        retries = given.pop("retries")
        if not isinstance(retries, (int, type(None))):
            raise TypeError(f"retries is a whole number, and {retries!r} is none")
        given["max_attempts"] = None if retries is None else retries + 1
    for seconds, ms in (("expires", "expires_ms"), ("timeout", "timeout_ms"), ("delay", "delay_ms")):
        if seconds in given:
            value = given.pop(seconds)
            if not isinstance(value, (int, float, type(None))):
                raise TypeError(f"{seconds} is a number of seconds, and {value!r} is none")
            given[ms] = None if value is None else round(value * 1000)
    if given.get("delay_ms", 0) is None:
        del given["delay_ms"]
    if isinstance(moment := given.get("run_at"), dt.datetime):
        if moment.tzinfo is None:
            raise invalid("run_at has no zone", "Say which: datetime(…, tzinfo=UTC).", "/run_at")
        given["run_at"] = moment.isoformat()
    if given.get("backoff") is not None:
        given["backoff"] = read_backoff(given["backoff"])
    if args:
        given["args"] = raw(list(args), "/args")
    if kwargs:
        given["kwargs"] = raw(dict(kwargs), "/kwargs")
    return b.NewTask(name=name, **given)


def _no_option(unknown: Iterable[str]) -> TypeError:
    from quorl.cluster.protocol.routes import nearest

    first = min(unknown)
    guess = f" - here that is `{elsewhere.OPTIONS[first]}`" if first in elsewhere.OPTIONS else nearest(first, _OPTIONS)
    return TypeError(
        f"no such option of a task: {', '.join(sorted(unknown))}{guess}; there are {', '.join(sorted(_OPTIONS))}"
    )


def check_options(options: Mapping[str, Any]) -> None:
    """Raise what is wrong with options: ``TypeError`` for what is none, ``Invalid`` for a value that no node takes."""
    task = new_task("x", options=options)
    try:
        read_typed(encode(task), _read_task, b.NewTask.__struct_fields__)
    except ProtocolError as error:
        problem = error.problem
        raise invalid(problem.detail, pointer=problem.errors[0].pointer if problem.errors else "") from None
    if fault := b.fault_of(task):
        raise invalid(fault[1], pointer=f"/{fault[0]}")


def _check_shape(name: str, args: object, kwargs: object) -> None:
    """Refuse arguments that are in no list: of a text or a dict its letters or keys would become the arguments."""
    if isinstance(args, Mapping):
        raise TypeError(f"named arguments of a task go to kwargs: submit({name!r}, kwargs={args!r})")
    if isinstance(args, (str, bytes)) or not isinstance(args, Iterable):
        raise TypeError(f"the arguments of a task come as one list: submit({name!r}, [{args!r}, …])")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs are a dict of named arguments, and not {kwargs!r}")


def read_backoff(backoff: BackoffLike) -> q.Backoff:
    """Return a back-off in any of its spellings."""
    if isinstance(backoff, q.Backoff):
        return backoff
    if isinstance(backoff, str):
        if backoff not in {"fixed", "linear", "exponential"}:
            raise ValueError(f"{backoff!r} is no back-off: fixed, linear, exponential, or a list of milliseconds")
        return msgspec.convert({"kind": backoff}, q.Backoff)
    return list_backoff(backoff)


def list_backoff(delays_ms: Sequence[int]) -> q.Backoff:
    """Return the back-off that waits exactly so long after each attempt, an hour too: there is no other bound."""
    delays = tuple(delays_ms)
    for one in delays:
        if not isinstance(one, int):
            raise TypeError(f"a back-off as a list has whole milliseconds, and {one!r} is none")
    return q.Backoff(kind="list", delays_ms=delays, max_ms=max((q.Backoff().max_ms, *delays)), jitter=0)


def raw(value: Any, pointer: str) -> msgspec.Raw:
    """Encode a value for the wire; raises ``Invalid`` if it has no JSON form."""
    try:
        return msgspec.Raw(encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise invalid(f"the value has no JSON form: {error}", JSON_HINT, pointer) from None


def tasks_bytes(tasks: Iterable[b.NewTask]) -> int:
    """Return about how much of a request the tasks fill, never less than they do."""
    return sum(task_bytes(task) for task in tasks)


def task_bytes(task: b.NewTask) -> int:
    """The same of one task."""
    size = TASK_OVERHEAD_BYTES
    for value in (task.args, task.kwargs):
        if value is not UNSET:
            size += len(memoryview(value))
    for text in (task.id, task.name, task.key, task.traceparent, task.tracestate):
        if text is not None:
            size += 6 * len(text)
    if task.tags:
        size += sum(6 * len(tag) + 3 for tag in task.tags)
    if task.meta:
        size += sum(6 * (len(name) + len(value) + 1) for name, value in task.meta.items())
    if task.backoff is not None:
        size += 20 * len(task.backoff.delays_ms)
    return size


def report_bytes(report: OneReport) -> int:
    """Return about how much of a request a report fills, never less than it does."""
    size = REPORT_OVERHEAD_BYTES + 6 * len(report.task_id)
    match report:
        case e.Completion(result=msgspec.Raw() as result):
            size += len(memoryview(result))
        case e.Failure(error=error):
            size += 6 * (len(error.type) + len(error.message) + len(error.traceback))
        case _:
            pass
    return size


def outcome_of(found: k.TaskResult) -> NoResult | None:
    """Return what is to be raised for a finished task that has no result."""
    if found.status == "FAILED":
        error = found.error or k.TaskError(type="Lost", message="the workers that ran it died")
        return TaskFailed(found.id, error.type, error.message, error.traceback, found.attempts, found.reason)
    if found.status == "CANCELLED":
        return TaskCancelled(found.id, f"task {found.id} was cancelled", found.attempts, found.reason)
    if found.status == "EXPIRED":
        return TaskExpired(
            found.id, f"task {found.id} expired before a worker started it", found.attempts, found.reason
        )
    return None


# -- annotations ---------------------------------------------------------------------------------------------------
_PLAIN = (int, float, str, bool, type(None), list, dict, object, Any)


def shape_of(annotation: Any) -> Any:
    """Return the type that a decoded JSON value must be converted to for an annotation; None if it may stay as it is."""
    if annotation is inspect.Parameter.empty or isinstance(annotation, (str, typing.TypeVar)):
        return None
    if not _needs_shape(annotation):
        return None
    try:
        msgspec.json.Decoder(annotation, dec_hook=from_json)
    except (TypeError, ValueError, NameError):
        return None  # a type that msgspec does not know: the handler gets the plain value
    return annotation


def _needs_shape(annotation: Any) -> bool:
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return False
    if origin is None:
        return annotation not in _PLAIN
    if origin in {tuple, set, frozenset}:
        return True
    return any(_needs_shape(argument) for argument in arguments if argument is not Ellipsis)


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's annotations with their names resolved, as far as that can be done."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that is only there for type checkers: the rest of the world goes on without
        found = get_annotations(function, format=Format.FORWARDREF)
        return {name: one.__forward_arg__ if isinstance(one, typing.ForwardRef) else one for name, one in found.items()}


def signature_as_written(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature, also if an annotation has a name that is only there for type checkers."""
    try:
        return inspect.signature(function)
    except NameError:  # from Python 3.14 on annotations are not looked up before they are asked for
        lenient: Mapping[str, Any] = {"annotation_format": Format.STRING}
        return inspect.signature(function, **lenient)
