"""Why nothing can be decided right now, in words that say who is missing, whose disk is full or empty, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quorl.cluster.node.members import Member
from quorl.cluster.protocol.problems import SEE_TO, Problem


class Standing(NamedTuple):
    """How a node's cluster stands: who is missing, whose disk is empty and does not count yet, and whose is full."""

    members: int
    quorum: int
    missing: list[Member]
    filling: list[str]
    founded: bool
    full: Sequence[str] = ()
    """Who is there and has no room for anything new."""

    @property
    def able(self) -> int:
        """How many members are there, count, and have room for what is to be decided."""
        gone = len(self.missing) + len(self.filling)
        return self.members - gone - len(set(self.full) - set(self.filling))

    @property
    def decides(self) -> bool:
        """Whether these are enough; a new cluster needs every member once."""
        return self.able >= self.quorum and (self.founded or not self.missing)


def explain(node: str, standing: Standing) -> Problem:
    """The problem that a call gets which needs a leader where there is none."""
    names = ", ".join(f"{m.name} ({m.raft})" for m in standing.missing)
    if not standing.founded and standing.missing:
        return Problem(
            "no_quorum",
            f"This cluster has not been founded yet: its very first start needs each of its {standing.members} members "
            f"once. Not seen by {node} so far: {names}.",
            hint=f"{SEE_TO} From then on a majority is enough.",
        )
    if standing.decides:
        return Problem("no_leader", f"{node} knows of no leader at the moment; an election takes about a second.")
    detail = (
        f"{standing.able} of {standing.members} members can decide, as seen from {node}; writes need {standing.quorum}."
    )
    if names:
        detail += f" Not reachable: {names}."
    if standing.filling:
        filling = ", ".join(standing.filling)
        detail += f" Started from an empty disk, so they do not count until a majority of the others has filled it: {filling}."
    if standing.full:
        detail += f" Without room on the disk, so that nothing new is stored there: {', '.join(standing.full)}."
    return Problem("no_quorum", detail)
