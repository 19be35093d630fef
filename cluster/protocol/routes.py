"""Finding the row of the table that a method and an encoded path mean.

Matching works on the encoded segments, so that an encoded ``/`` inside a name never splits it. A literal segment wins
over a placeholder.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

from quorl.cluster.protocol.grammar import Operation
from quorl.cluster.protocol.operations import OPERATIONS
from quorl.cluster.protocol.pages import PAGES, STREAMS
from quorl.cluster.protocol.problems import DETAIL_CHARS_MAX, Problem, ProtocolError

GUESS_CHARS_MAX = 200
"""Longer texts are not guessed at: comparing texts costs the product of their lengths."""

FOUNDING_PATHS = (
    "/topics",
    "/producer/register",
    "/consumer/register",
    "/producer/produce",
    "/consumer/consume",
    "/size",
    "/all_heartbeats",
    "/results/{id}",
)
"""The founding routes, which are served beside ``/v1``."""


class Route(NamedTuple):
    """All rows that share a path."""

    segments: tuple[str, ...]
    """Literal segments, and ``""`` where a placeholder stands."""
    literals: tuple[tuple[int, str], ...]
    """Those segments behind the first two, which are compared, and where they stand."""
    places: tuple[int, ...]
    """Where the placeholders stand."""
    names: tuple[str, ...]
    rows: dict[str, Operation]


def _routes() -> dict[tuple[int, str, str], list[Route]]:
    routes: dict[str, Route] = {}
    for row in OPERATIONS:
        segments = tuple("" if part.startswith("{") else part for part in row.path.split("/")[1:])
        literals = tuple((place, want) for place, want in enumerate(segments) if want and place > 1)
        places = tuple(place for place, want in enumerate(segments) if not want)
        route = routes.setdefault(row.path, Route(segments, literals, places, row.placeholders, {}))
        assert row.method not in route.rows, f"two rows share {row.method} {row.path}"
        route.rows[row.method] = row
    found: dict[tuple[int, str, str], list[Route]] = {}
    for route in sorted(routes.values(), key=lambda route: route.segments, reverse=True):
        version, kind, *_ = route.segments
        assert all((version, kind)), "a path begins with two literal segments, by which it is found"
        found.setdefault((len(route.segments), version, kind), []).append(route)
    return found


_ROUTES = _routes()
"""By the number of segments and the first two of them."""
_PAGES = tuple(page.path for page in (*PAGES, *STREAMS) if page.path != "/")
_TEMPLATES = (*dict.fromkeys(row.path for row in OPERATIONS), *FOUNDING_PATHS, *_PAGES)


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return " - did you mean `x`?" for the candidate that looks most like ``word``, or nothing."""
    if len(word) > GUESS_CHARS_MAX:
        return ""
    found = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return f" - did you mean `{found[0]}`?" if found else ""


def nearest_task(word: str, names: Iterable[str]) -> str:
    """Return the same for names like ``shop.add``: one that ends as ``word`` does, else what looks like it, in whole or at its end."""
    by_end: dict[str, str] = {}
    for name in (known := list(names)):
        by_end.setdefault(name.rpartition(".")[2], name)
    end = word.rpartition(".")[2]
    if (same := by_end.get(end)) is not None:
        return f" - did you mean `{same}`?"
    if (guess := nearest(word, known)) or len(end) > GUESS_CHARS_MAX:
        return guess
    ends = difflib.get_close_matches(end, list(by_end), n=1, cutoff=0.6)
    return f" - did you mean `{by_end[ends[0]]}`?" if ends else ""


def match(method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """Return the row and the decoded values of its placeholders; raises route_not_found or method_not_allowed."""
    parts = path.split("/")[1:] if path.startswith("/") else []
    if (route := _route(parts)) is None:
        raise ProtocolError(Problem("route_not_found", f"Nothing is served at {path[:DETAIL_CHARS_MAX]}{_guess(path)}"))
    row = route.rows.get(method)
    if row is None:
        raise not_allowed(method, path, sorted({*route.rows, *(["HEAD"] if "GET" in route.rows else [])}))
    found = zip(route.names, route.places, strict=True)
    return row, {name: _decoded(name, parts[place]) for name, place in found}


def _route(parts: list[str]) -> Route | None:
    """The route of these segments. A slash at the end names nothing: no route has one."""
    candidates = _ROUTES.get((len(parts), parts[0], parts[1]), ()) if len(parts) > 1 and parts[-1] else ()
    for route in candidates:
        if all([parts[place] == want for place, want in route.literals]):  # noqa: C419 - a generator costs more
            return route
    return None


def _guess(path: str) -> str:
    bare = path.rstrip("/")
    if bare != path and _route(bare.split("/")[1:]) is not None:
        return f" - did you mean `{bare[:DETAIL_CHARS_MAX]}`?"
    parts = path.split("/")[1:]
    return nearest(path, (_filled(template, parts) for template in _TEMPLATES))


def not_allowed(method: str, path: str, allow: list[str]) -> ProtocolError:
    """Return the error for a method that a path does not know."""
    detail = f"{path[:DETAIL_CHARS_MAX]} takes {', '.join(allow)}, not {method[:20]}."
    return ProtocolError(Problem("method_not_allowed", detail, allow=tuple(allow)))


def _decoded(name: str, part: str) -> str:
    if "%" not in part:
        return part
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        detail = f"`{name}` in the path is not percent-encoded UTF-8."
        raise ProtocolError(Problem("invalid_parameter", detail)) from None


def _filled(template: str, parts: list[str]) -> str:
    """Put the actual names into a template of the same length, so that only what is literal is compared."""
    wanted = template.split("/")[1:]
    if len(wanted) != len(parts):
        return template
    filled = (part if want.startswith("{") and part else want for want, part in zip(wanted, parts, strict=True))
    return "/" + "/".join(filled)
