"""The pages that a node serves about itself: its release, the OpenAPI document, that document to read, and the problems.

Each is made once, when the node starts, from the tables that the node itself works by; nothing is fetched from elsewhere.
"""

from __future__ import annotations

import gzip
import json
import platform
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from quorl.cluster.api import docs_html as html
from quorl.cluster.api.dashboard import takes_gzip
from quorl.cluster.protocol.openapi import document
from quorl.cluster.protocol.problems import CATALOGUE, Kind, Problem
from quorl.cluster.protocol.routes import nearest
from quorl.cluster.protocol.wire import Answer, Call

_PROBLEMS = "/problems"
_JSON = {"content-type": "application/json", "cache-control": "no-cache", "vary": "accept, accept-encoding"}
_SHOWN_MAX = 6
"""So many words of a choice are shown."""


class Packed:
    """A body that stays as it is, and its packed form for those who take it."""

    def __init__(self, headers: Mapping[str, str], body: bytes) -> None:
        self._plain = Answer(200, dict(headers), body)
        self._zipped = Answer(200, {**headers, "content-encoding": "gzip"}, gzip.compress(body, 6, mtime=0))

    def answer(self, call: Call) -> Answer:
        """Answer with the form that the caller takes."""
        return self._zipped if takes_gzip(call.headers.get("accept-encoding", "")) else self._plain


class Pages:
    """The documentation of one release."""

    def __init__(self, version: str) -> None:
        described = document(version)
        self._version = version
        self._openapi = Packed(_JSON, msgspec.json.encode(described))
        self._docs = Packed(html.HEADERS, html.page("quorl API", _docs(described), version=version))
        self._problems = html.page("quorl: problems", _problems(), version=version)
        about = {"name": "quorl", "version": version, "python": platform.python_version()}
        self._about = msgspec.json.encode(about)

    def version(self, _call: Call) -> Answer:
        """Which release this is."""
        return Answer(200, _JSON, self._about)

    def openapi(self, call: Call) -> Answer:
        """The document."""
        return self._openapi.answer(call)

    def docs(self, call: Call) -> Answer:
        """The document to read."""
        return self._docs.answer(call)

    def problems(self, call: Call) -> Answer | Problem:
        """The page that the ``type`` of a problem document leads to, or the list of them."""
        code = call.path[len(_PROBLEMS) + 1 :]
        if code and code not in CATALOGUE:
            detail = f"No problem has the code `{code[:100]}`{nearest(code, CATALOGUE)}"
            return Problem("route_not_found", detail, f"GET {_PROBLEMS} lists them all.")
        if wants_html(call.headers.get("accept", "")):
            shown = _problem(CATALOGUE[code]) if code else ""
            body = html.page(f"quorl: {code}", shown, version=self._version) if code else self._problems
            return Answer(200, html.HEADERS, body)
        told = _told(CATALOGUE[code]) if code else {"items": [_told(kind) for kind in CATALOGUE.values()]}
        return Answer(200, _JSON, msgspec.json.encode(told))


def wants_html(accept: str) -> bool:
    """Whether a caller prefers a page: browsers name HTML first, programs do not name it."""
    for part in accept.lower().split(","):
        kind, _, weight = part.replace(" ", "").partition(";")
        if kind == "text/html":
            return weight != "q=0"
        if kind == "application/json":
            return False
    return False


# -- problems ------------------------------------------------------------------------------------------------------
def _told(kind: Kind) -> dict[str, Any]:
    return {"type": f"{_PROBLEMS}/{kind.code}"} | kind._asdict()


def _problems() -> str:
    rows = (
        (f'<a href="{_PROBLEMS}/{kind.code}"><code>{kind.code}</code></a>', str(kind.status), html.text(kind.title), html.text(kind.hint))
        for kind in CATALOGUE.values()
    )  # fmt: skip
    return f"<main><h2>Problems</h2>{html.table(('code', 'status', 'what', 'what to do'), rows)}</main>"


def _problem(kind: Kind) -> str:
    again = (
        "Yes: the same call may succeed later, or at another node."
        if kind.retryable
        else "No: it would be refused again."
    )
    said = (("Why", kind.why), ("What to do", kind.hint), ("Is repeating it of use?", again))
    told = "".join(f"<dt>{name}</dt><dd>{html.text(words)}</dd>" for name, words in said)
    return f'<main><h2>{html.text(kind.title)}</h2><p class="soft"><code>{kind.code}</code>, HTTP {kind.status}</p><dl>{told}</dl></main>'


# -- the document to read ------------------------------------------------------------------------------------------
Operation = tuple[str, str, Mapping[str, Any]]
"""Its method, its path, and what the document says of it."""


def _docs(described: Mapping[str, Any]) -> str:
    """The whole document: what is served under each tag, then the shapes."""
    found = [(method, path, one) for path, item in described["paths"].items() for method, one in item.items()]
    shapes = described["components"]["schemas"]
    links, parts = [], []
    for tag in described["tags"]:
        ours = [one for one in found if tag["name"] in one[2]["tags"]]
        links.append(f"<h4>{escape(tag['name'])}</h4>")
        links += [
            f'<a href="#{one["operationId"]}"><span class="verb {m}">{m.upper()}</span>{one["operationId"]}</a>'
            for m, _, one in ours
        ]
        parts.append(f"<h2>{escape(tag['name'])}</h2><p>{html.text(tag['description'])}</p>")
        parts += [_section(one, described) for one in ours]
    parts.append("<h2>Shapes</h2>")
    for name, schema in shapes.items():
        parts.append(
            f'<section id="shape-{name}"><h3>{name}</h3>{html.paragraphs(schema.get("description", ""))}{_fields(schema)}</section>'
        )
    start = (
        f"<p>{html.text(described['info']['description'])} The lines for <code>curl</code> take the node's address from "
        "<code>N</code>, for example <code>N=http://127.0.0.1:7101</code>.</p>"
    )
    return f'<div class="two"><nav>{"".join(links)}</nav><main><h2>The HTTP API</h2>{start}{"".join(parts)}</main></div>'  # fmt: skip


def _section(operation: Operation, described: Mapping[str, Any]) -> str:
    method, path, one = operation
    given = [
        (f"<code>{escape(p['name'])}</code>", p["in"], _default(p["schema"], required=p["required"]), _kind(p["schema"]) + _about(p))
        for p in one["parameters"]
    ]  # fmt: skip
    body = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    shapes = [described["components"]["schemas"][ref] for ref in _refs(body)]
    sent = "".join(f'<p class="soft">body: {_kind(s)}</p>' for s in [body] if s) + "".join(map(_fields, shapes[:1]))
    answers = [(status, html.paragraphs(_resolved(said, described)["description"]) + _returned(_resolved(said, described)))
               for status, said in one["responses"].items()]  # fmt: skip
    good = [row for row in answers if row[0] < "400"]
    bad = [row for row in answers if row[0] >= "400"]
    return (
        f'<section id="{one["operationId"]}"><h3><span class="verb {method}">{method.upper()}</span><code>{escape(path)}</code></h3>'
        f"{html.paragraphs(one['description'] or one['summary'])}<pre>{escape(curl(operation))}</pre>"
        f"{html.table(('parameter', 'in', 'default', 'value'), given)}{sent}{html.table(('status', 'answer'), good)}"
        f"<details><summary>{len(bad)} statuses of refusals</summary>{html.table(('status', 'problems'), bad)}</details></section>"
    )  # fmt: skip


def _resolved(said: Mapping[str, Any], described: Mapping[str, Any]) -> Mapping[str, Any]:
    ref = said.get("$ref")
    found: Mapping[str, Any] = described["components"]["responses"][ref.rpartition("/")[2]] if ref else said
    return found


def _returned(said: Mapping[str, Any]) -> str:
    kinds = [f"{escape(media)} {_kind(content['schema'])}" for media, content in said.get("content", {}).items()]
    return f'<span class="soft">{"; ".join(kinds)}</span>' if kinds else ""


def curl(operation: Operation) -> str:
    """Return a call of an operation as a line for a shell, from the examples of the document; ``$N`` is the node."""
    method, path, one = operation
    query = {p["name"]: p["example"] for p in one["parameters"] if p["in"] == "query" and "example" in p}
    for p in one["parameters"]:
        if p["in"] == "path":
            path = path.replace("{" + p["name"] + "}", quote(str(p.get("example", 1)), safe=""))
    target = path + (f"?{urlencode(query)}" if query else "")
    body = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    words = ["curl", *([] if method == "get" or (method == "post" and body) else ["-X", method.upper()])]
    words.append(f'"$N{target}"')
    return " ".join([*words, *([f"-d '{json.dumps(body)}'"] if body else [])])


def _refs(schema: Mapping[str, Any]) -> Iterator[str]:
    """The names of the shapes that a schema leads to at once."""
    for part in schema.get("anyOf", [schema]):
        if "$ref" in part:
            yield part["$ref"].rpartition("/")[2]


def _fields(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = (
        (f"<code>{escape(name)}</code>", _default(kind, required=name in required), _kind(kind) + _about(kind))
        for name, kind in schema.get("properties", {}).items()
    )
    return html.table(("field", "default", "value"), rows)


def _default(schema: Mapping[str, Any], *, required: bool) -> str:
    if required:
        return "required"
    return (
        f"<code>{escape(json.dumps(schema['default']))}</code>"
        if "default" in schema
        else '<span class="soft">–</span>'
    )


def _about(said: Mapping[str, Any]) -> str:
    words = said.get("description") or said.get("schema", {}).get("description", "")
    return f'<br><span class="soft">{html.text(words)}</span>' if words else ""


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#shape-{name}">{name}</a>'
    if parts := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_kind(part) for part in parts)
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        shown = [f"<code>{escape(str(choice))}</code>" for choice in choices[:_SHOWN_MAX]]
        return " or ".join(shown) + (" or …" if len(choices) > _SHOWN_MAX else "")
    kind = schema.get("type", "any JSON value")
    if isinstance(kind, list):
        return " or ".join(kind)
    low, high = _bounds(schema)
    bounds = f", {low} to {high}" if high is not None else f", from {low}" if low is not None else ""
    inner = f" of {_kind(schema['items'])}" if schema.get("items") else ""
    return f"{kind}{inner}{bounds}"


def _bounds(schema: Mapping[str, Any]) -> tuple[Any, Any]:
    """The least and the most of a number, of a text's characters or of an array's items."""
    for least, most in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
        if least in schema or most in schema:
            return schema.get(least, 0), schema.get(most)
    return None, None
