"""Repairs of elections: whom a member may vote for, who may stand, who belongs, and when a leader is left in peace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pysyncobj import pickle

from quorl.cluster.consensus import library
from quorl.cluster.consensus.messages import AppendEntries, RequestVote, TimeoutNow, Vote
from quorl.cluster.consensus.port import Damaged
from tests.consensus.engines import Group, acknowledged
from tests.consensus.repairs.biting import bites

ASKED = RequestVote(term=5, last_index=10, last_term=1, transfer=False)


def votes(group: Group, voter: str, term: int) -> list[str]:
    """Whom a member's votes of a term are under way to."""
    return [to for to in group.names if to != voter and Vote(term) in group.queue(voter + to)]


def ask_twice(group: Group, between: Callable[[], None]) -> list[str]:
    """Two candidates of one term ask the same member; gives who got its vote."""
    group.boot()
    group.connect()
    group["a"].engine.receive("b", ASKED)
    first = votes(group, "a", 5)
    between()
    group.connect()
    group["a"].engine.receive("c", ASKED)
    return first + votes(group, "a", 5)


@bites("vote_durable")
@pytest.mark.parametrize("power", [False, True])
async def test_c1_a_vote_survives_a_restart(repaired: bool, power: bool) -> None:
    group = Group()

    def restart() -> None:
        group.kill("a", power=power)
        group.boot("a")
        assert group["a"].engine.term == (5 if repaired else 0), "the term too is remembered"

    assert ask_twice(group, restart) == (["b"] if repaired else ["b", "c"])


@bites("vote_once")
async def test_c1_a_member_votes_once_in_a_term(repaired: bool) -> None:
    assert ask_twice(group := Group(), lambda: group.reset("ab")) == (["b"] if repaired else ["b", "c"])


@bites("fail_stop")
async def test_c1_a_vote_that_cannot_be_written_is_not_given(repaired: bool) -> None:
    group = Group()
    group.boot()
    group.connect()
    group["a"].disk.fail_sync = True
    group["a"].engine.receive("b", ASKED)
    assert votes(group, "a", 5) == []
    assert (group["a"].died is not None) is repaired


@pytest.mark.parametrize("left", [b"", b"quorl-ballot 1 00000000\n{}\n", None])
async def test_c1_a_member_that_lost_its_ballot_does_not_start(left: bytes | None) -> None:
    group = Group()
    with pytest.raises(Damaged, match="ballot"):
        ask_twice(group, lambda: (group.kill("a"), group["a"].disk.put("ballot", left), group.boot("a")))  # type: ignore[arg-type]


@bites("pre_vote")
async def test_c7_a_member_that_was_paused_disturbs_nobody(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.run(1.0)
    term = a.engine.term
    group.paused.add("c")
    group.run(2.0)
    group.paused.discard("c")
    group.tick("c")  # before it reads what has gathered
    group.run(3.0)
    assert (group.leaders() == ["a"] and a.engine.term == term) is repaired


@bites("sticky_leader")
async def test_c7_a_candidate_cannot_depose_a_leader_that_the_others_hear(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.run(1.0)
    term, last = a.engine.term, a.log.last_index
    group["b"].engine.receive("c", RequestVote(term + 1, last, term, transfer=False))
    assert bool(votes(group, "b", term + 1)) is not repaired
    group.run(0.3)
    assert (a.engine.leads and a.engine.term == term) is repaired


@bites("pre_vote")
async def test_c7_a_member_that_was_cut_off_from_the_leader_disturbs_nobody_afterwards(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.run(1.0)
    term = a.engine.term
    group.reset("ac")
    group.run(10.0)
    group.connect("ac")
    group.run(1.0)
    assert (a.engine.term == term) is repaired


@bites("step_down")
async def test_c9_a_leader_without_a_majority_steps_down(repaired: bool) -> None:
    group = Group()
    group.found("a")
    group.isolate("a")
    group.run(group.timing.step_down_s + 0.2)
    assert ("a" in group.leaders()) is not repaired


@bites("distinct_votes")
async def test_c10_a_vote_counts_once(repaired: bool) -> None:
    group = Group("abcde")
    group.found("b")
    group.kill("c", "d", "e")
    group.hold("ab")
    group.stand("a")
    a = group["a"]
    for _ in range(2):
        a.engine.receive("b", Vote(a.engine.term))
    assert a.engine.leads is not repaired


@bites("members_only")
async def test_c10_only_members_take_part(repaired: bool) -> None:
    group = Group()
    group.found("b")
    group.hold("ab", "ac")
    group.stand("a")
    a = group["a"]
    assert a.engine.term == 2
    a.engine.receive("x", Vote(2))
    assert a.engine.leads is not repaired


async def test_c10_no_stranger_may_lead_or_end_a_leadership() -> None:
    group = Group()
    a = group.found("a")
    group.run(0.3)
    term, last = a.engine.term, a.log.last_index
    for message in (
        AppendEntries(term + 1, 99, last, term, [(library.REGULAR + b"bad", last + 1, term + 1)]),
        RequestVote(term + 1, 99, term, transfer=True),
        TimeoutNow(term),
    ):
        for name in "abc":
            group[name].engine.receive("x", message)
    group.run(1.0)
    assert (group.leaders(), a.engine.term, a.log.last_index) == (["a"], term, last)


async def test_c11_a_vote_that_was_lost_on_the_way_costs_one_term() -> None:
    group = Group()
    group.found("c")
    group.run(1.0)
    group.kill("c")
    group.stand("b")
    group.deliver("ba")
    term = group["b"].engine.term
    assert (votes(group, "a", term), group["a"].log.ballot.vote) == (["b"], "b")
    group.reset("ab")  # and with it the vote
    group.connect("ab")
    group.run(5.0)
    (leader,) = group.leaders()
    assert group[leader].engine.term == term + 1


@bites("library_apply")
async def test_c12_membership_entries_mean_nothing(repaired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def unpickle(data: bytes) -> list[str]:
        read.append(data)
        return ["rem", "b"]

    monkeypatch.setattr(pickle, "loads", unpickle)
    group = Group()
    group.boot()
    a = group["a"]
    a.engine.receive("b", AppendEntries(1, 3, 1, 0, [(b"\x02a removal", 2, 1), (b"\x02a removal", 3, 1)]))
    a.engine.tick()
    assert a.engine.applied_index == 3
    if repaired:
        assert ({str(m.id) for m in a.engine._SyncObj__otherNodes}, read) == ({"b", "c"}, [])
    else:
        assert ({str(m.id) for m in a.engine._SyncObj__otherNodes}, read) == ({"c"}, [b"a removal"] * 2)


async def test_c12_the_library_refuses_to_change_the_members() -> None:
    group = Group()
    a = group.found("a")
    for change in (a.engine.addNodeToCluster, a.engine.removeNodeFromCluster):
        with pytest.raises(Exception, match="dynamicMembershipChange is disabled"):
            change("d")


@bites("blank")
async def test_c13_a_member_whose_disk_was_lost_does_not_vote(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.run(0.3)
    group.isolate("c")
    assert acknowledged(group.write(a, b"decided")) == [b"decided"]
    group.kill("b")
    group.wipe("b")
    group.isolate("a")
    group.boot("b")
    group.connect("bc")
    group.run(10.0)
    assert group["b"].engine.blank is repaired
    assert bool(set(group.leaders()) & {"b", "c"}) is not repaired, "what was decided is on neither of them"


@bites("blank_forever")
async def test_c13_a_lost_disk_counts_again_once_it_is_full(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.write(a, b"one")
    group.kill("b")
    group.wipe("b")
    group.boot("b")
    group.connect()
    group.run(1.0)
    assert group["b"].payloads == [b"base", b"one"]
    assert group["b"].engine.blank is not repaired
    group.isolate("c")
    assert acknowledged(group.write(a, b"two")) == ([b"two"] if repaired else [])


@bites("counted_majority")
async def test_c13_a_leader_with_nobody_but_an_emptied_disk_around_it_knows_that_it_decides_nothing(
    repaired: bool,
) -> None:
    group = Group()
    group.found("a")
    group.isolate("c")
    group.elect("b")
    a = group.elect("a")
    group.run(1.0)
    assert a.replica.status().quorum_fresh
    group.kill("b")
    group.wipe("b")
    group.boot("b")
    group.connect("ab")
    group.run(2.0)
    assert group["b"].engine.blank
    assert a.engine.leads, "it is answered"
    assert a.replica.status().quorum_fresh is not repaired
    group.connect("ac")
    group.run(0.2)
    assert a.replica.status().quorum_fresh


@bites("birth")
async def test_c13_two_lost_disks_do_not_found_a_second_cluster(repaired: bool) -> None:
    group = Group()
    group.found("a")
    group.kill(*"abc")
    for name in "ab":
        group.wipe(name)
        group.boot(name)
    group.connect("ab")
    group.run(10.0)
    assert (group.leaders() == []) is repaired, "the third still holds everything"


async def test_c15_the_lead_is_handed_over_without_a_gap() -> None:
    group = Group()
    a = group.found("a")
    group.run(1.0)
    assert a.engine.hand_over()
    group.settle()
    assert group.leaders() == ["b"], "no time passed"
    assert acknowledged(group.write(group["b"], b"on it goes")) == [b"on it goes"]


async def test_the_lead_is_handed_to_the_member_that_is_named() -> None:
    group = Group()
    a = group.found("a")
    group.run(1.0)
    assert not a.engine.hand_over("nobody")
    assert a.engine.hand_over("c")
    group.settle()
    assert group.leaders() == ["c"]


async def test_c15_the_lead_is_handed_to_nobody_who_is_behind() -> None:
    group = Group()
    a = group.found("a")
    group.run(1.0)
    group.hold("ab", "ac")
    proposal = a.propose(b"not there yet")
    assert not a.engine.hand_over()
    group.kill("b", "c")
    assert not a.engine.hand_over()
    assert not proposal.done()


async def test_c16_consensus_asks_no_calendar() -> None:
    group = Group()
    with pytest.raises(AssertionError, match="knows no calendar"):
        group.clock.wall_ms()
    a = group.found("a")
    assert not a.engine.conf.logCompactionSplit, "it compares the clocks of different machines"
