"""The leader's look at its own copy of the state, before it proposes.

What is seen decides only what is proposed and when, never what comes of it; so a disk that cannot be read is no event
here. What it means is judged where the next entry is applied, and until then everything counts as worth a try.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

from quorl.cluster.machine.machine import Machine
from quorl.cluster.machine.outlook import Outlook, WorkerState
from quorl.cluster.protocol.leases import Claim, Directives, GetDirectives


class StateSight:
    """Implements ``parking.Sight`` over a machine."""

    def __init__(self, machine: Callable[[], Machine]) -> None:
        self._machine = machine

    def claimable(self, claim: Claim) -> bool:
        """See ``Sight``."""
        try:
            return self._machine().claimable(claim)
        except sqlite3.Error:
            return True

    def remembers(self, op: str, key: str) -> bool:
        """See ``Sight``."""
        try:
            return self._machine().remembers(op, key)
        except sqlite3.Error:
            return True

    def worker(self, worker_id: int) -> WorkerState | None:
        """See ``Sight``."""
        try:
            return self._machine().worker(worker_id)
        except sqlite3.Error:
            return None

    def outlook(self, queue: str) -> Outlook:
        """See ``Sight``."""
        try:
            return self._machine().outlook(queue)
        except sqlite3.Error:
            return Outlook(0, drained=False)

    def waits(self) -> bool:
        """Whether any task is QUEUED."""
        try:
            return self._machine().waits()
        except sqlite3.Error:
            return True

    def serves(self, worker_id: int, queue: str) -> bool:
        """See ``Sight``."""
        try:
            return self._machine().serves(worker_id, queue)
        except sqlite3.Error:
            return False

    def due(self, now_ms: int, wall_ms: int) -> Mapping[str, int]:
        """See ``Sight``."""
        try:
            return self._machine().coming(now_ms, wall_ms)
        except sqlite3.Error:
            return {}

    def directives(self, request: GetDirectives) -> Directives:
        """See ``Sight``."""
        try:
            found = self._machine().query(request)
        except sqlite3.Error:
            return Directives()
        return found if isinstance(found, Directives) else Directives()
