"""At start the log and the state agree, or the node refuses: each way in which they can differ."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from quorl.cluster.consensus.align import align
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.consensus.port import Damaged
from quorl.cluster.machine.machine import Position
from tests.simulation.fakedisk import FakeDisk


class _State(NamedTuple):
    """What ``align`` asks of a machine."""

    position: Position
    cluster_id: str | None = "c"


def _log(entries: int, term: int = 2) -> LogStore:
    log = LogStore(FakeDisk(random.Random(1)).boot(), segment_bytes=256)
    log.setCurrentTerm(term, None)
    for index in range(2, entries + 1):
        log.add(b"\x00x", index, term)
    log.ballot.set_identity("c", blank=False)
    log.sync()
    return log


def _state(index: int, term: int = 2, cluster_id: str | None = "c") -> _State:
    return _State(Position(index, index, term), cluster_id)


def test_a_state_that_the_log_goes_on_from_is_taken_as_it_is() -> None:
    log = _log(9)
    align(log, _state(5))  # type: ignore[arg-type]
    assert (log.first_index, log.last_index) == (1, 9)


def test_after_a_snapshot_the_log_begins_behind_it() -> None:
    log = _log(9)
    align(log, _state(40))  # type: ignore[arg-type]
    assert (log.first_index, log.last_index, log.term_at(40)) == (40, 40, 2)


def test_a_log_of_another_history_gives_way_to_the_state() -> None:
    log = _log(9)
    align(log, _state(5, term=1))  # type: ignore[arg-type]
    assert (log.first_index, log.last_index, log.term_at(5)) == (5, 5, 1)


def test_entries_that_neither_holds_are_damage() -> None:
    log = _log(60)
    log.trim_to(50)
    with pytest.raises(Damaged, match="what lies between is lost"):
        align(log, _state(5))  # type: ignore[arg-type]


def test_a_state_beside_an_empty_log_is_damage_because_its_votes_are_gone() -> None:
    log = LogStore(FakeDisk(random.Random(1)).boot(), segment_bytes=256)
    with pytest.raises(Damaged, match="votes beside it are gone"):
        align(log, _state(5))  # type: ignore[arg-type]


def test_a_ballot_that_is_older_than_the_state_is_damage() -> None:
    with pytest.raises(Damaged, match="old copy"):
        align(_log(9), _state(40, term=7))  # type: ignore[arg-type]


def test_files_of_two_clusters_are_damage() -> None:
    with pytest.raises(Damaged, match="two nodes were mixed"):
        align(_log(9), _state(5, cluster_id="other"))  # type: ignore[arg-type]
