"""A line for each call that is answered, for whoever set the level to ``debug``; otherwise nothing of this runs.

A call that was forwarded has its line at both nodes, with the same ``request_id``. Bodies, queries and headers are left
out: they are the users', and may hold what nobody else is to read.
"""

from __future__ import annotations

import time
from typing import Protocol

from quorl.cluster.api.app import Handler
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer, Call


class DebugLogger(Protocol):
    """The one word that is said here."""

    def debug(self, event: str, **fields: object) -> object:
        """Say what only somebody who searches wants to hear."""


class Told:
    """Answers as another one does, and says so."""

    def __init__(self, node: Handler, log: DebugLogger) -> None:
        self._node = node
        self._log = log

    async def handle(self, call: Call) -> Answer:
        """See ``Handler``."""
        began_s = time.monotonic()
        return self._say(call, await self._node.handle(call), time.monotonic() - began_s)

    def refuse(self, call: Call, problem: Problem) -> Answer:
        """See ``Handler``."""
        return self._say(call, self._node.refuse(call, problem), 0.0)

    def _say(self, call: Call, answer: Answer, seconds: float) -> Answer:
        self._log.debug(
            "call_answered",
            request_id=answer.headers.get("request-id", ""),
            method=call.method,
            path=call.path,
            status=answer.status,
            ms=round(1000 * seconds, 3),
            hops=call.headers.get("quorl-hops", "0"),
        )
        return answer
