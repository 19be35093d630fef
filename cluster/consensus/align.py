"""At start: make the log and the state agree, or refuse.

The state says which entry it applied last. The log must go on from there without a gap. Where the state is further than
the log, a snapshot had just been installed: the log then begins anew behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorl.cluster.consensus.damage import REMEDY
from quorl.cluster.consensus.port import Damaged

if TYPE_CHECKING:
    from quorl.cluster.consensus.logstore import LogStore
    from quorl.cluster.machine.machine import Machine


def align(log: LogStore, machine: Machine) -> None:
    """Make ``log`` continue ``machine``'s position; raises ``Damaged`` where entries between them are missing."""
    index, term = machine.position.index, machine.position.term
    if log.first_index > max(index, 1):
        gap = (
            f"The state has applied entries up to {index}, but the log begins only at {log.first_index}: what lies "
            f"between is lost. {REMEDY}"
        )
        raise Damaged(gap)
    if log.pristine and index > 0:
        forgotten = (
            f"The state has applied entries up to {index}, but the log and the votes beside it are gone. {REMEDY}"
        )
        raise Damaged(forgotten)
    if term > log.ballot.term:
        older = (
            f"The state has applied an entry of term {term}, but the ballot beside it knows of term {log.ballot.term} at "
            f"most: it is an old copy. {REMEDY}"
        )
        raise Damaged(older)
    known, stated = log.ballot.cluster_id, machine.cluster_id
    if known is not None and stated is not None and known != stated:
        mixed = (
            f"The log belongs to cluster {known}, but the state to cluster {stated}: files of two nodes were mixed. "
            f"{REMEDY}"
        )
        raise Damaged(mixed)
    if index > 0 and log.term_at(index) != term:
        log.reset_to(index, term)
