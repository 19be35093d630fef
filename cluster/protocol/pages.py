"""What a node serves beside the operations of the table: health, documentation, problems. One row per path.

The server answers exactly these paths, and the OpenAPI document describes them; a test compares both. A streaming answer is
described in its text, for OpenAPI 3.1 has no other place for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

TEXT, HTML, JSON, EVENTS = "text/plain", "text/html", "application/json", "text/event-stream"
_STRING: dict[str, Any] = {"type": "string"}


class Said(NamedTuple):
    """One answer: what it means, and its media types with the schema of each."""

    description: str
    content: Mapping[str, dict[str, Any]]


class Page(NamedTuple):
    """One path, which is read with GET (or HEAD) by whoever can reach the node."""

    name: str
    path: str
    summary: str
    description: str
    answers: Mapping[int, Said]
    parameters: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
    """What it may be refused with, beside what every path may be."""


def _text(description: str) -> Said:
    return Said(description, {TEXT: _STRING})


_VERBOSE = {
    "name": "verbose",
    "in": "query",
    "required": False,
    "description": "Also list the checks that are good; any value will do.",
    "schema": _STRING,
}
_KIND = {
    "type": "object",
    "properties": {
        "type": _STRING,
        "code": _STRING,
        "status": {"type": "integer"},
        "title": _STRING,
        "why": _STRING,
        "hint": _STRING,
        "retryable": {"type": "boolean"},
    },
    "required": ["type", "code", "status", "title", "why", "hint", "retryable"],
    "additionalProperties": False,
}
_KINDS = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": _KIND}},
    "required": ["items"],
    "additionalProperties": False,
}
_VERSION = {
    "type": "object",
    "properties": {"name": {"const": "quorl"}, "version": _STRING, "python": _STRING},
    "required": ["name", "version", "python"],
    "additionalProperties": False,
}

_UNCHANGED = Said("It is what `If-None-Match` names.", {})

PAGES: tuple[Page, ...] = (
    Page(
        "dashboard",
        "/",
        "The dashboard, for people.",
        "What it loads lies below `/ui/VERSION/` and is no part of the API.",
        {200: Said("The page.", {HTML: _STRING}), 304: _UNCHANGED},
    ),
    Page(
        "icon",
        "/favicon.ico",
        "The dashboard's icon.",
        "Browsers ask for it by themselves.",
        {200: Said("The icon.", {"image/svg+xml": _STRING}), 304: _UNCHANGED},
    ),
    Page(
        "livez",
        "/livez",
        "Whether the process lives.",
        "Never looks at other members: restart the process if it does not answer.",
        {200: _text("The process turns.")},
    ),
    Page(
        "readyz",
        "/readyz",
        "Whether this node can take calls, check by check.",
        "Send it no calls while it answers 503, and do not restart it for that. A line per check: `[+]raft ok: …`.",
        {200: _text("Ready."), 503: _text("Not ready, and which checks failed.")},
        (_VERBOSE,),
    ),
    Page(
        "startupz",
        "/startupz",
        "Whether this node has started.",
        "A node listens once its log and its state have been read, so a start that reads much refuses connections until then.",
        {200: _text("Started."), 503: _text("The node has stopped itself; the process is about to end.")},
    ),
    Page(
        "metrics",
        "/metrics",
        "What this node counts, for Prometheus.",
        "The text format of Prometheus, or of OpenMetrics for callers that accept it. docs/operating.md says what each metric means.",
        {200: Said("All metrics.", {TEXT: _STRING, "application/openmetrics-text": _STRING})},
        problems=("route_not_found",),  # [metrics] enabled = false
    ),
    Page(
        "version",
        "/version",
        "Which release this node runs.",
        "Of the other members, `GET /v1/cluster` says it.",
        {200: Said("The release.", {JSON: _VERSION})},
    ),
    Page(
        "openapi",
        "/openapi.json",
        "This document.",
        "OpenAPI 3.1, of the release that the node runs.",
        {200: Said("The document.", {JSON: {"type": "object"}})},
    ),
    Page(
        "docs",
        "/docs",
        "This document as a page to read.",
        "Made from it by the node itself: without scripts, and without anything from elsewhere.",
        {200: Said("The page.", {HTML: _STRING})},
    ),
    Page(
        "list_problems",
        "/problems",
        "Every problem that a node or a client may tell of.",
        "A page for callers that ask for HTML, as browsers do; JSON for all others.",
        {200: Said("All problems, in order of their status.", {JSON: _KINDS, HTML: _STRING})},
    ),
    Page(
        "get_problem",
        "/problems/{code}",
        "What one problem means, why it happens, and what to do.",
        "The `type` of every problem document leads here. A page for callers that ask for HTML, JSON for all others.",
        {200: Said("The problem.", {JSON: _KIND, HTML: _STRING})},
        ({"name": "code", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},),
        problems=("route_not_found",),
    ),
)

STREAMS: tuple[Page, ...] = (
    Page(
        "events",
        "/v1/events",
        "What changes, as it changes.",
        "Server-sent events, without an end: `retry: 2000`, then frames of `id` (entries applied), `event` and one line of `data`."
        " `overview`: as `GET /v1/overview`, at once and then once a second. `tasks` (`items`, `gone`, `more`) and `topics` (`ends`,"
        " `more`): what changed, four times a second at most. `reset` (`channels`, `why`): something was missed, ask anew. `bye`"
        " (`node`, `nodes`): this node stops. A comment when nothing else came for 15 s.",
        {200: Said("The stream.", {EVENTS: _STRING})},
        (
            {
                "name": "channels",
                "in": "query",
                "required": False,
                "description": "Of `overview`, `tasks`, `topics`, with commas between them; `overview` without it.",
                "schema": {"type": "string", "default": "overview"},
            },
        ),
    ),
)
"""Paths whose answers do not end; described as pages are."""
