"""The ballot: votes are never forgotten, never doubled, and never read from a damaged file."""

from __future__ import annotations

import zlib
from random import Random

import pytest

from quorl.cluster.consensus.ballot import NAME, Ballot
from quorl.cluster.consensus.port import Damaged
from tests.simulation.fakedisk import Died, FakeDisk


def load(disk: FakeDisk) -> Ballot:
    ballot = Ballot.load(disk.boot())
    assert ballot is not None
    return ballot


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk(Random(1))


@pytest.fixture
def ballot(disk: FakeDisk) -> Ballot:
    return Ballot.birth(disk.boot())


def facts(ballot: Ballot) -> tuple[object, ...]:
    names = ("term", "vote", "floor", "first", "reset", "cluster_id", "blank", "pristine")
    return tuple(getattr(ballot, name) for name in names)


def test_no_file_is_no_ballot(disk: FakeDisk) -> None:
    assert Ballot.load(disk.boot()) is None


def test_a_born_ballot_is_pristine_and_its_log_is_still_to_be_made(disk: FakeDisk, ballot: Ballot) -> None:
    disk.power_cut()
    assert facts(load(disk)) == facts(ballot) == (0, None, 1, 1, (1, 0), None, False, True)


def test_everything_is_durable_on_return(disk: FakeDisk, ballot: Ballot) -> None:
    ballot.end_reset()
    ballot.set_term(7, None)
    ballot.set_term(7, "ünïcode")
    ballot.raise_floor(40)
    ballot.set_first(30, 41)
    ballot.set_identity("c-1", blank=True)
    disk.power_cut()
    assert facts(load(disk)) == facts(ballot) == (7, "ünïcode", 41, 30, None, "c-1", True, False)
    ballot = load(disk)
    ballot.set_identity("c-1", blank=False)
    ballot.begin_reset(90, 6)
    disk.power_cut()
    assert facts(load(disk)) == (7, "ünïcode", 90, 90, (90, 6), "c-1", False, False)


def test_terms_never_decrease_and_votes_never_change(ballot: Ballot) -> None:
    ballot.set_term(5, None)
    ballot.set_term(5, "n2")
    for term, vote in ((4, None), (4, "n2"), (5, None), (5, "n3")):
        with pytest.raises(AssertionError):
            ballot.set_term(term, vote)
    ballot.set_term(5, "n2")
    ballot.set_term(6, "n3")
    assert (ballot.term, ballot.vote) == (6, "n3")


def test_the_floor_never_falls(ballot: Ballot) -> None:
    ballot.raise_floor(10)
    ballot.raise_floor(5)
    ballot.set_term(1, None, floor=7)
    assert ballot.floor == 10
    ballot.set_term(2, None, floor=12)
    assert ballot.floor == 12
    with pytest.raises(AssertionError, match="committed"):
        ballot.begin_reset(11, 1)


def test_a_disk_belongs_to_one_cluster(ballot: Ballot) -> None:
    ballot.set_identity(None, blank=False)
    ballot.set_identity("c-1", blank=False)
    for other in ("c-2", None):
        with pytest.raises(AssertionError, match="cluster"):
            ballot.set_identity(other, blank=False)


def test_repeating_what_is_known_costs_no_write(disk: FakeDisk, ballot: Ballot) -> None:
    ballot.set_term(5, "n2", floor=9)
    writes = disk.operations
    ballot.set_term(5, "n2", floor=20)
    ballot.raise_floor(9)
    assert disk.operations == writes


def test_a_failed_write_changes_nothing_in_memory(disk: FakeDisk, ballot: Ballot) -> None:
    ballot.set_term(5, None)
    before = facts(ballot)
    disk.full = True
    with pytest.raises(OSError, match="No space"):
        ballot.set_term(5, "n2")
    with pytest.raises(OSError, match="No space"):
        ballot.raise_floor(9)
    assert facts(ballot) == facts(load(disk)) == before


def test_a_vote_is_there_or_not_whenever_the_power_fails() -> None:
    found = set()
    for seed in range(60):
        disk = FakeDisk(Random(seed))
        ballot = Ballot.birth(disk.boot())
        ballot.set_term(5, "n1")
        disk.dies_in = 1
        with pytest.raises(Died):
            ballot.set_term(6, "n2")
        if seed % 2:
            disk.power_cut()
        ballot = load(disk)
        found.add((ballot.term, ballot.vote))
    assert found == {(5, "n1"), (6, "n2")}


def test_every_flipped_bit_and_every_lost_byte_is_noticed(disk: FakeDisk, ballot: Ballot) -> None:
    ballot.set_term(5, "n2")
    ballot.set_identity("c-1", blank=False)
    raw = disk.files()[NAME]
    spoilt = [raw[:size] for size in range(len(raw))]
    spoilt += [raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :] for at in range(len(raw)) for bit in range(8)]
    spoilt += [raw + b"\0", raw + raw, raw[1:]]
    for content in spoilt:
        disk.put(NAME, content)
        with pytest.raises(Damaged, match=NAME):
            Ballot.load(disk.boot())


def test_a_ballot_of_a_later_version_says_so(disk: FakeDisk, ballot: Ballot) -> None:
    disk.put(NAME, disk.files()[NAME].replace(b"quorl-ballot 1 ", b"quorl-ballot 2 "))
    with pytest.raises(Damaged, match="written in format 2, and this quorl reads format 1"):
        Ballot.load(disk.boot())


def test_a_ballot_with_other_fields_is_not_guessed_at(disk: FakeDisk) -> None:
    line = b'{"term":1}\n'
    disk.put(NAME, b"quorl-ballot 1 %08x\n" % zlib.crc32(line) + line)
    with pytest.raises(Damaged, match="cannot be read"):
        Ballot.load(disk.boot())


def test_the_promises_of_one_member_are_not_anothers(disk: FakeDisk, ballot: Ballot) -> None:
    ballot.claim("n1")
    load(disk).claim("n1")
    with pytest.raises(Damaged, match="data directory of n1, and this node is n2"):
        load(disk).claim("n2")
