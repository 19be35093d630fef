"""How a damaged file is reported: where, what it means, what to do. A node never guesses and never goes on."""

from __future__ import annotations

from quorl.cluster.consensus.port import Damaged

REMEDY = (
    "This node stays down rather than guess, and the other members go on without it. Put back the file as it was when "
    "the node stopped, or remove this node's whole data directory and start it again: the others will refill it."
)


def damaged(name: str, offset: int | None, meaning: str) -> Damaged:
    """The refusal for one file; ``offset`` is the byte at which the trouble begins, None for the file as a whole."""
    where = name if offset is None else f"{name}, byte {offset}"
    return Damaged(f"{where}: {meaning}. {REMEDY}")
