"""The grammar of the protocol: what a message is, and what an operation is.

A request is one of four kinds, told apart by its base class:

* a ``Command`` changes state and travels through the replicated log;
* a ``Query`` reads replicated state, and any node answers it from its own copy;
* an ``Inspection`` asks the answering node about itself;
* an ``Errand`` asks the leader for something that is not in the log, and that it does no harm to ask for twice.

``R`` is the type of the accepted answer. It is invariant on purpose: a row of the table that pairs a request with
the wrong reply is then a type error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

R = TypeVar("R")

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Consistency = Literal["local", "session", "linearizable"]
Cursor = Annotated[str, msgspec.Meta(max_length=4096, extra_json_schema={"pattern": "^[A-Za-z0-9_-]*$"})]
"""Where a page of a list begins: empty, or the ``next`` of the page before. Opaque to callers."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What an accepted request gets back."""

    also: ClassVar[dict[int, str]] = {}
    """The statuses that an answer may have beside that of the table's row, and what they say."""

    def http_status(self, accepted: int) -> int:
        """The status of the answer; ``accepted`` is that of the table's row."""
        return accepted


class Rejection(msgspec.Struct, frozen=True, kw_only=True, tag_field="code"):
    """What a refused request gets back: a value in the machine, a problem document over HTTP.

    The tag is the stable problem ``code``. ``transient`` says that the same request may be accepted later, so that no
    receipt is kept for the refusal.
    """

    status: ClassVar[int] = 409
    title: ClassVar[str] = "Refused"
    hint: ClassVar[str] = ""
    transient: ClassVar[bool] = False

    detail: str = ""


class Request(
    msgspec.Struct,
    Generic[R],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="op",
):
    """A request whose accepted answer is an ``R``."""


class Command(Request[R], frozen=True):
    """A request that changes state: it travels through the replicated log."""

    def sealed(self) -> Command[R]:
        """The form in which the command stands in the log; itself, unless its public form carries raw JSON."""
        return self

    def gist(self) -> Command[R]:
        """The log form with checksums for what is large in it: so much is enough to tell requests apart; itself, if nothing is."""
        return self


class Query(Request[R], frozen=True):
    """A request that reads replicated state."""


class Inspection(Request[R], frozen=True):
    """A request about the node that answers it."""


class Errand(Request[R], frozen=True):
    """A request that the leader attends to, beside the log; whether it was done is seen, not remembered."""


@dataclass(frozen=True)
class Operation:
    """One row of the table: everything the outside world needs to know about a request."""

    request: type[Request[Any]]
    reply: type[Reply]
    method: Method
    path: str
    rejections: tuple[type[Rejection], ...]
    status: int
    consistency: Consistency

    @cached_property
    def name(self) -> str:
        """The operation's name, which is the tag of its request: ``create_topic``."""
        return str(self.request.__struct_config__.tag)

    @cached_property
    def writes(self) -> bool:
        """Whether the request travels through the replicated log."""
        return issubclass(self.request, Command)

    @property
    def summary(self) -> str:
        """The first line of the request's docstring."""
        return (self.request.__doc__ or "").strip().splitlines()[0]

    @cached_property
    def placeholders(self) -> tuple[str, ...]:
        """The names in braces in the path, in order."""
        return tuple(re.findall(r"{(\w+)}", self.path))


def operation(
    request: type[Request[R]],
    reply: type[R],
    method: Method,
    path: str,
    *rejections: type[Rejection],
    status: int = 200,
    consistency: Consistency = "linearizable",
) -> Operation:
    """Build a row; the type checker ties ``reply`` to the request's own ``R``."""
    assert issubclass(reply, Reply), f"{reply} is no Reply"
    row = Operation(request, reply, method, path, rejections, status, consistency)
    unknown = set(row.placeholders) - set(request.__struct_encode_fields__)
    assert not unknown, f"{row.name}: the path names unknown fields {unknown}"
    return row
