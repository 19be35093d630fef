"""How the fields of every request travel over HTTP, worked out from the table, once for each when it is first asked for.

A field named in the path travels there. The others travel in the query (GET), or in a JSON body, whose flat fields the
query may give as well.
"""

from __future__ import annotations

import functools
import operator
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, UNSET, Meta, UnsetType

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Consistency, Operation, Query
from quorl.cluster.protocol.operations import OPERATIONS


class ReadOptions(msgspec.Struct, frozen=True):
    """The query parameters that every read takes beside its own."""

    consistency: Consistency | UnsetType = UNSET
    min_sequence: Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)] = 0


class Plan(NamedTuple):
    """How the fields of one request travel. The struct types are made from the request's own fields."""

    path: type[msgspec.Struct]
    query: type[msgspec.Struct]
    body: msgspec.json.Decoder[Any]
    takes_body: bool
    fields: tuple[msgspec.structs.FieldInfo, ...]
    """Those that are not in the path."""
    body_names: tuple[str, ...]
    query_names: tuple[str, ...]


def _plan(row: Operation) -> Plan:
    """Split the fields: those in the path, and the rest, which a body or the query may carry."""
    fields = msgspec.structs.fields(row.request)
    rest = tuple(field for field in fields if field.encode_name not in row.placeholders)
    takes_body = row.method != "GET"
    flat = [field for field in rest if not _nested(field.type)]
    path = [_field(field, field.default) for field in fields if field.encode_name in row.placeholders]
    query = [_field(field, UNSET) if takes_body else _parameter(field) for field in flat]
    body = [_field(field, field.default) for field in rest]
    names = tuple(field.encode_name for field in flat)
    read = msgspec.structs.fields(ReadOptions) if issubclass(row.request, Query) else ()
    return Plan(
        path=_struct(row, "Path", path),
        query=_struct(row, "Parameters", query + [(field.name, field.type, field.default) for field in read]),
        body=msgspec.json.Decoder(_struct(row, "Body", body)),
        takes_body=takes_body,
        fields=rest,
        body_names=tuple(field.encode_name for field in rest),
        query_names=names + tuple(field.encode_name for field in read),
    )


def _field(field: msgspec.structs.FieldInfo, default: Any) -> tuple[str, Any, Any]:
    kind = field.type | UnsetType if default is UNSET else field.type
    assert field.default_factory is NODEFAULT, "a request's defaults are plain values"
    return field.name, kind, msgspec.field(default=default, name=field.encode_name)


def _parameter(field: msgspec.structs.FieldInfo) -> tuple[str, Any, Any]:
    """A field of a GET: it is null by being left out, so the text "null" is none of its values."""
    if type(None) in get_args(field.type):
        kind = functools.reduce(operator.or_, [one for one in get_args(field.type) if one is not type(None)])
        field = msgspec.structs.replace(field, type=kind)
    return _field(field, field.default)


def _struct(row: Operation, part: str, fields: list[tuple[str, Any, Any]]) -> type[msgspec.Struct]:
    name = row.request.__name__ + part
    return msgspec.defstruct(name, fields, frozen=True, kw_only=True, forbid_unknown_fields=True)


def _nested(kind: Any) -> bool:
    """Whether a type cannot be written as one query parameter."""
    if get_origin(kind) in {list, dict, tuple} or kind is msgspec.Raw:
        return True
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return True
    return any(_nested(part) for part in get_args(kind))


class _Plans(dict[type[Any], Plan]):
    """Plans by request. A command line makes one call, and does not wait for the plans of all others."""

    def __missing__(self, request: type[Any]) -> Plan:
        return self.setdefault(request, _plan(_ROWS[request]))


_ROWS = {row.request: row for row in OPERATIONS}
PLANS = _Plans()
