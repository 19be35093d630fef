"""Small HTML pages that need nothing from anywhere: no scripts, no fonts, one style sheet that stands in the page itself.

Everything that is shown goes through ``html.escape``; and the policy of the pages allows nothing but that style sheet, by its
hash, so that what an escape should ever let through could still not run.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root{color-scheme:light dark;--fg:#1d2530;--soft:#5d6b7c;--bg:#fff;--panel:#f5f7f9;--line:#dde3e9;--link:#0b62c4;
--get:#0b62c4;--post:#1a7f37;--put:#8a5a00;--patch:#8a5a00;--delete:#b42318}
@media (prefers-color-scheme:dark){:root{--fg:#dfe6ee;--soft:#93a1b1;--bg:#12171d;--panel:#1a2129;--line:#2c3641;
--link:#6cb0ff;--get:#6cb0ff;--post:#56d17c;--put:#e3b341;--patch:#e3b341;--delete:#ff7b72}}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg)}
code,pre{font-family:ui-monospace,monospace;font-size:13px}
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:8px 12px;white-space:pre-wrap;overflow-wrap:anywhere}
a{color:var(--link);text-decoration:none}main a,a:hover{text-decoration:underline}
header{display:flex;flex-wrap:wrap;align-items:baseline;gap:2px 16px;padding:14px 24px;border-bottom:1px solid var(--line)}header b{font-size:18px}
.soft{color:var(--soft)}
main{max-width:1000px;padding:0 24px 80px;margin:auto}
.two{display:grid;grid-template-columns:260px minmax(0,1fr);max-width:1400px;margin:auto}
.two main{margin:0;min-width:0}
nav{position:sticky;top:0;max-height:100vh;overflow-y:auto;padding:16px 0 40px 24px;font-size:13px}
nav h4{margin:14px 0 2px}nav a{display:block;color:var(--fg);overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
h2{margin:40px 0 4px}h3{margin:0;font-size:15px;font-weight:600}
section{border-top:1px solid var(--line);padding:14px 0;scroll-margin-top:8px}
.get{color:var(--get)}.post{color:var(--post)}.put{color:var(--put)}.patch{color:var(--patch)}.delete{color:var(--delete)}
.verb{display:inline-block;min-width:66px;font-weight:700}
table{border-collapse:collapse;width:100%;margin:6px 0 10px;font-size:14px}
td,th{text-align:left;vertical-align:top;padding:4px 12px 4px 0;border-bottom:1px solid var(--line)}
td p{margin:0 0 4px}th{color:var(--soft);font-weight:500}summary{cursor:pointer;color:var(--soft);margin:4px 0}
dt{color:var(--soft);margin-top:12px}dd{margin:0}
@media (max-width:800px){.two{display:block}nav{position:static;max-height:none}
tr{display:block;padding:4px 0;border-bottom:1px solid var(--line)}td,th{display:inline;border:0}
td,p,dd,h3{overflow-wrap:anywhere}}
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-cache",
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "vary": "accept, accept-encoding",
    "x-content-type-options": "nosniff",
}
"""Of every page."""


def text(words: str) -> str:
    """Escape a text, and set what stands in backticks as code."""
    return re.sub(r"``?([^`]+)``?", r"<code>\1</code>", escape(words))


def paragraphs(words: str) -> str:
    """Escape a text; empty lines part its paragraphs."""
    return "".join(f"<p>{text(part)}</p>" for part in words.split("\n\n") if part)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, or nothing if it has no rows; cells are HTML."""
    found = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    return f"<table><tr>{head}</tr>{''.join(found)}</table>" if found else ""


def page(title: str, body: str, *, version: str) -> bytes:
    """Return a whole page; ``body`` is HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>'
        f'<body><header><b>quorl</b><span class="soft">{escape(version)}</span>'
        '<a href="/docs">API</a><a href="/problems">Problems</a><a href="/openapi.json">openapi.json</a></header>'
        f"{body}</body></html>\n"
    ).encode()
