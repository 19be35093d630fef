"""Names that a shell completes: topics, queues and workers of the cluster that a line means, and contexts.

Whoever presses Tab waits for nothing: all nodes are asked at once, the first answer counts, and after half a second, or where
something is wrong, nothing is offered and nothing is said.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import click

PATIENCE_S = 0.5
"""A shell that completes a name does not wait for longer."""
LIMIT = 1000
"""So many names are offered at most."""
_PATHS = {"topics": "/v1/topics", "queues": "/v1/queues", "workers": "/v1/workers"}

Completing: TypeAlias = Callable[[click.Context, click.Parameter, str], list[str]]


def names(kind: str) -> Completing:
    """Return what completes names of a kind: topics, queues, workers or contexts."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                return sorted({name for name in _known(kind, ctx) if name.startswith(incomplete)})
            except Exception:  # whatever it is: a shell has no use for it in the middle of a line
                return []

    return complete


def _known(kind: str, ctx: click.Context) -> list[str]:
    from quorl.client.cli import contexts
    from quorl.client.cli.common import Settings

    if kind == "contexts":
        return list(contexts.read()[0])
    said: dict[str, str | None] = {"server": None, "context": None}
    place: click.Context | None = ctx
    while place is not None:
        said |= {name: place.params.get(name) for name, text in said.items() if text is None}
        place = place.parent
    return [one["name"] for one in _first(Settings(**said).nodes(), f"{_PATHS[kind]}?limit={LIMIT}")]  # type: ignore[arg-type]


def _first(nodes: Sequence[str], target: str) -> list[dict[str, Any]]:
    """Return the items of whichever node answers first; raises if none does in time."""
    import http.client
    import json
    import queue
    import threading

    from quorl.client import direct

    answers: queue.SimpleQueue[list[dict[str, Any]]] = queue.SimpleQueue()

    def ask(node: str) -> None:
        with (
            contextlib.suppress(OSError, ValueError, KeyError, TypeError, http.client.HTTPException),
            direct.get(node + target, PATIENCE_S) as answer,
        ):
            answers.put(json.load(answer)["items"])

    for node in nodes:
        threading.Thread(target=ask, args=(node,), daemon=True).start()
    return answers.get(timeout=PATIENCE_S)
