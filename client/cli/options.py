"""Values on the command line that are more than a word: JSON, pairs, back-offs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from quorl.client.cli.times import read_duration

if TYPE_CHECKING:
    import msgspec

    from quorl.cluster.protocol.queues import Backoff

KINDS = ("fixed", "linear", "exponential")
"""The back-offs that have a name."""


def read_json(text: str) -> msgspec.Raw:
    """Return text as the JSON that it is, or else as a JSON string."""
    import msgspec

    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(text))
    return msgspec.Raw(text.strip().encode())


def broken_json(text: str) -> str | None:
    """Return what is wrong with text that was surely meant as JSON; None: it is JSON, or plainly text."""
    import msgspec

    if text.lstrip()[:1] not in {"{", "[", '"'}:
        return None
    try:
        msgspec.json.decode(text)
    except RecursionError:
        return "nested too deep"
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        return str(error).removeprefix("JSON is malformed: ")
    return None


class Pair(click.ParamType[tuple[str, str]]):
    """A name and a value: k=v."""

    name = "pair"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, sign, text = str(value).partition("=")
        if not sign or not name:
            self.fail(f"{value!r} has no name and value: write NAME=VALUE", param, ctx)
        return name, text


class BackoffSpec(click.ParamType[Any]):
    """A back-off: ``KIND[:FIRST[:MAX]]``, or the delays one after the other with commas between them."""

    name = "backoff"
    metavar = "KIND[:FIRST[:MAX]]|DELAY,…"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Backoff:
        from quorl.cluster.protocol import queues as q

        if isinstance(value, q.Backoff):
            return value
        kind, *parts = str(value).split(":")
        if len(parts) > (2 if kind in KINDS else 0):
            self.fail(f"{value!r} has too many parts", param, ctx)
        if kind not in KINDS:
            from quorl.client.tasking import list_backoff

            return list_backoff([self._ms(part, param, ctx) for part in kind.split(",")])
        names = dict(zip(("first_ms", "max_ms"), (self._ms(part, param, ctx) for part in parts), strict=False))
        names.setdefault("max_ms", max(q.Backoff().max_ms, names.get("first_ms", 0)))  # fixed:10m is ten minutes
        return q.Backoff(kind=kind, **names)  # type: ignore[arg-type]

    def _ms(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        ms = read_duration(text.strip())
        if ms is None:
            from quorl.client.cli.guessing import like

            write = "write fixed, linear or exponential, then :FIRST:MAX, or delays as 1s,5s,1m"
            self.fail(f"{text!r}: {write}{like(text, KINDS)}", param, ctx)
        return ms


def backoff_text(backoff: Backoff) -> str:
    """Return a back-off in words."""
    from quorl.client.cli.times import span

    jitter = f", jitter {backoff.jitter:g}" if backoff.jitter else ""
    if backoff.kind == "list":
        return ", ".join(span(ms) for ms in backoff.delays_ms) + jitter
    return f"{backoff.kind} from {span(backoff.first_ms)} to {span(backoff.max_ms)}{jitter}"
