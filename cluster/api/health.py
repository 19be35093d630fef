"""Health: whether the process lives, and whether it can serve, check by check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from quorl.cluster.node.node import Node
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.wire import Answer

_BEHIND_MAX = 10_000
"""Some ten seconds of a cluster that is busy with single writes."""
_TEXT = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}


class Check(NamedTuple):
    """One condition of being ready, and what is known about it."""

    name: str
    ok: bool
    detail: str


class Health:
    """Answers ``/livez``, ``/readyz`` and ``/startupz``; all look at this node only, never at others."""

    def __init__(self, node: Node, troubles: Callable[[], Mapping[str, str]], free_bytes: Callable[[], int]) -> None:
        self._node = node
        self._troubles = troubles
        self._free_bytes = free_bytes

    def live(self) -> Answer:
        """The loop turns, so the process lives."""
        return Answer(200, _TEXT, b"ok\n")

    def started(self) -> Answer:
        """A node that answers has read its log and its state; it is not started if it had to stop itself since."""
        fatal = self._node.replica.fatal
        return Answer(200, _TEXT, b"started\n") if fatal is None else Answer(503, _TEXT, b"not started\n")

    def ready(self, *, verbose: bool) -> Answer:
        """Whether this node can take requests, and with ``verbose`` why."""
        checks = self._checks()
        ok = all(check.ok for check in checks)
        lines = [f"[{'+' if c.ok else '-'}]{c.name} {'ok' if c.ok else 'failed'}: {c.detail}" for c in checks]
        shown = lines if verbose or not ok else []
        text = "\n".join([*shown, "ready" if ok else "not ready"]) + "\n"
        return Answer(200 if ok else 503, _TEXT, text.encode())

    def _checks(self) -> list[Check]:
        node = self._node
        status = node.replica.status()
        leader = node.leader()
        free = self._free_bytes()
        behind = status.commit_index - status.applied_index
        troubles = "; ".join(f"{peer}: {why}" for peer, why in sorted(self._troubles().items()))
        missing = troubles or "nothing known"
        return [
            Check("raft", node.replica.fatal is None, f"{status.role}, term {status.term}"),
            Check("leader", leader is not None, f"{leader} leads" if leader else f"none; other members: {missing}"),
            Check("replay", behind <= _BEHIND_MAX, f"{behind} committed entries are not applied here yet"),
            Check("member", not status.blank, "filling an empty disk" if status.blank else "counts for the quorum"),
            Check("disk", free > limits.DISK_SPARE_BYTES, f"{free // 2**20} MiB free"),
            Check("running", not node.stopping, "shutting down" if node.stopping else "takes requests"),
        ]
