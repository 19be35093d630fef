"""The dashboard's files: one page at ``/``, and what it loads below ``/ui/VERSION/``.

Invariants: what a browser loads comes from this node and from nowhere else, and runs under a strict content security
policy. VERSION is a digest of all files, so a file under it never changes and is kept for ever, while the page
itself is asked for anew each time. Compressed forms are made once. Nothing outside the folder can be named.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import NamedTuple

from quorl.cluster.protocol.wire import Answer

FOLDER = Path(__file__).resolve().parent.parent / "dashboard"
PAGE = "index.html"
_PREFIX = "/ui/"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
_COMPRESSED_FROM_BYTES = 1024
"""A smaller file travels in one packet as it is."""
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_ANEW = "no-cache"


class File(NamedTuple):
    """One file as it is sent."""

    kind: str
    body: bytes
    zipped: bytes | None
    """gzip; None where it is not worth it."""
    tag: str


class Dashboard:
    """The page of one node. ``members`` are the addresses (host:port) at which the page may look for a node that lives."""

    def __init__(self, members: Iterable[str] = (), folder: Path = FOLDER) -> None:
        self._members = sorted(members)
        self._folder = folder
        self._files: dict[str, File] = {}

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        """Answer a call for the page or one of its files; None if the path is neither."""
        if path == "/":
            name, cached = PAGE, _ASK_ANEW
        elif path == "/favicon.ico":
            name, cached = "icon.svg", _ASK_ANEW
        elif path.startswith(_PREFIX):
            version, _, name = path[len(_PREFIX) :].partition("/")
            cached = _FOR_EVER
            if version != self.version or name == PAGE:
                return _plain(404, "No such file of the dashboard; load the page at / anew.\n")
        else:
            return None
        if method not in {"GET", "HEAD"}:
            return _plain(405, "The dashboard's files are for reading.\n", {"allow": "GET, HEAD"})
        file = self._file(name)
        if file is None:
            return _plain(404, "No such file of the dashboard.\n")
        return self._sent(file, cached, headers)

    @cached_property
    def version(self) -> str:
        """A digest of the names and contents of all files."""
        digest = hashlib.sha256()
        for name, text in sorted(self._sources.items()):
            digest.update(f"{name} {len(text)} ".encode() + text)
        return digest.hexdigest()[:16]

    @cached_property
    def _sources(self) -> dict[str, bytes]:
        """What may be asked for, by its path below the folder."""
        found = (path for path in self._folder.rglob("*") if path.suffix in _TYPES)
        return {path.relative_to(self._folder).as_posix(): path.read_bytes() for path in found}

    @cached_property
    def policy(self) -> str:
        """The content security policy: everything from here; the other members only to ask whether they live."""
        others = " ".join(f"http://{address}" for address in self._members)
        return (
            f"default-src 'self'; connect-src 'self' {others}".rstrip()
            + "; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def _file(self, name: str) -> File | None:
        if name not in self._files:
            body = self._sources.get(name)
            if body is None:
                return None
            if name == PAGE:
                body = self._page(body)
            zipped = gzip.compress(body, 9, mtime=0) if len(body) >= _COMPRESSED_FROM_BYTES else None
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            self._files[name] = File(_TYPES[Path(name).suffix], body, zipped, tag)
        return self._files[name]

    def _page(self, body: bytes) -> bytes:
        """The page with its version, and all modules named at once, so that no import waits for another."""
        base = f"{_PREFIX}{self.version}"
        modules = (name for name in sorted(self._sources) if name.endswith(".js") and name != "theme.js")
        loads = "\n".join(f'<link rel="modulepreload" href="{base}/{escape(name)}">' for name in modules)
        return body.replace(b"<!-- modules -->", loads.encode()).replace(b"{base}", base.encode())

    def _sent(self, file: File, cached: str, headers: Mapping[str, str]) -> Answer:
        zipped = file.zipped is not None and takes_gzip(headers.get("accept-encoding", ""))
        tag = f'"{file.tag[1:-1]}-gz"' if zipped else file.tag
        sent = {
            "content-type": file.kind,
            "cache-control": cached,
            "etag": tag,
            "vary": "Accept-Encoding",
            "content-security-policy": self.policy,
            **_SAFE,
        }
        if tag in (part.strip().removeprefix("W/") for part in headers.get("if-none-match", "").split(",")):
            return Answer(304, sent, b"")
        if zipped and file.zipped is not None:
            return Answer(200, {**sent, "content-encoding": "gzip"}, file.zipped)
        return Answer(200, sent, file.body)


_SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def takes_gzip(accepted: str) -> bool:
    """Whether ``gzip`` is among the codings that a client takes, and not refused by ``q=0``."""
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in {"gzip", "*"}:
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def _plain(status: int, text: str, more: Mapping[str, str] | None = None) -> Answer:
    headers = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store", **_SAFE, **(more or {})}
    return Answer(status, headers, text.encode())
