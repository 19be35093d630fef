"""Looking at what there is while the quorum is lost: as one node has it, and it is said whose it is and how old it may be.

Only for people. A program that reads JSON or is told nothing else (``-q``) must not take for the truth what may be old: it gets
the error, as from every other command, and can ask for a local read with ``quorl api``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from typing_extensions import override

from quorl.client.cli import output
from quorl.client.errors import QuorlError, Unavailable
from quorl.client.sync import Client
from quorl.cluster.protocol.grammar import Consistency, Query, Request
from quorl.cluster.protocol.system import GetCluster

R = TypeVar("R")

PATIENCE_S = 4.0
"""For so long it may be an election, which ends by itself."""
PATIENCE_AGAIN_S = 1.0
"""The same where there was no quorum already when it was looked last, as in the rounds of ``--watch``."""
ASK_S = 1.0
"""To tell a lost quorum from an election: what is shown is there already, and does not wait for longer."""
_LACKING = {"no_quorum": "there is no quorum", "no_leader": "there is no leader"}


class Looking(Client):
    """A client that reads what one node has, once there has been no quorum for as long as an election may take."""

    def __init__(
        self, nodes: tuple[str, ...], say: Callable[[str], None], *, former: Looking | None = None, **options: Any
    ) -> None:
        """``former``: the one that looked last."""
        super().__init__(nodes, **options)
        self._say = say
        self._patience_s = PATIENCE_AGAIN_S if former is not None and former.alone else PATIENCE_S
        self.alone: bool = False
        """Whether it reads so from now on: what is shown together is then of the same kind, and waits but once."""

    @override
    def call(
        self,
        request: Request[R],
        *,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        consistency: Consistency | None = None,
    ) -> R:
        looks = consistency is None and isinstance(request, Query)
        if not looks:
            return super().call(request, idempotency_key=idempotency_key, timeout_s=timeout_s, consistency=consistency)
        if self.alone:
            return super().call(request, timeout_s=timeout_s, consistency="local")
        began, whole_s = self.clock(), self.timeout_s if timeout_s is None else timeout_s
        try:
            found = super().call(request, timeout_s=min(self._patience_s, whole_s))
            if self._route.leader is None:  # a list is read at any node, also at one that is cut off
                self._say_whose(self._route.heard(), self._what_lacks())
            return found
        except Unavailable as error:
            lacks = error.code
            if lacks not in _LACKING:
                took_s = self.clock() - began
                if whole_s <= self._patience_s or error.nobody:
                    raise
                return super().call(request, timeout_s=whole_s - took_s)
        found = super().call(request, timeout_s=whole_s, consistency="local")
        self._say_whose(self._route.heard(), lacks)
        return found

    def _what_lacks(self) -> str:
        """Ask the node that knows of no leader why, in the words in which it would refuse what needs one."""
        try:
            info = super().call(GetCluster(), timeout_s=min(ASK_S, self.timeout_s))
        except QuorlError:
            return "no_leader"
        return "no_quorum" if info.health == "no_quorum" else "no_leader"

    def _say_whose(self, heard: tuple[str, int], lacks: str) -> None:
        self.alone = True
        node, sequence = heard
        self._say(
            f"{_LACKING[lacks]}: as of entry {output.grouped(sequence)}, from {output.clean(node)}, which may be behind  → quorl doctor"
        )
