"""A pre-vote that was won too late is not won: a leader that was found meanwhile is left in peace."""

from __future__ import annotations

from quorl.cluster.consensus.messages import PreVoteGranted
from tests.consensus.engines import Group, Member


def asked_and_granted() -> Group:
    """Nobody leads. c has asked whether it may stand; b has said yes, but c has not read that yet, nor anything of a."""
    group = Group()
    group.found("a")
    group.isolate("a")
    group.hold("bc", "cb")
    group.run(3.0)
    assert group.leaders() == []
    group.deliver("cb")
    assert PreVoteGranted(group["c"].engine.election._round) in group.queue("bc")
    group.hold("ac")
    group.connect("ab", "ac")
    return group


async def test_c7_a_grant_that_is_read_after_the_leader_spoke_is_void() -> None:
    group = asked_and_granted()
    a = group.elect("a")
    term = a.engine.term
    group.release("ac")
    group.run(0.2)
    group.release("bc")
    group.run(2.0)
    assert (group.leaders(), a.engine.term) == (["a"], term)


def sleep(group: Group, name: str, seconds: float) -> None:
    """Let time pass for the others only."""
    awake = [other for other in group.names if other != name]
    group.paused.add(name)
    for _ in range(round(seconds / 0.05)):
        group.clock.now += 0.05
        group.tick(*awake)
        while sum(group._deliver_all()):
            group.tick(*awake)
    group.paused.discard(name)


def elect_with_the_vote_of_c(group: Group) -> Member:
    """Elect a; c votes, and hears no more."""
    group.stand("a")
    group.deliver("ac")
    group.settle()
    a = group["a"]
    assert (a.engine.leads, group["c"].engine.term) == (True, a.engine.term)
    return a


async def test_c7_a_member_that_slept_over_its_grants_disturbs_nobody() -> None:
    """It wakes to the grants, not to the leader: the connection with that one has been given up meanwhile."""
    group = asked_and_granted()
    a = elect_with_the_vote_of_c(group)
    term = a.engine.term
    sleep(group, "c", 2.0)
    group.reset("ac")
    group.deliver("bc")
    group.tick("c")
    group.release("bc", "ac")
    group.connect("ac")
    group.run(2.0)
    assert (group.leaders(), a.engine.term, group["c"].engine.term) == (["a"], term, term)


async def test_c7_a_member_that_slept_after_winning_asks_again() -> None:
    group = asked_and_granted()
    a = elect_with_the_vote_of_c(group)
    term = a.engine.term
    group.deliver("bc")
    assert group["c"].engine.election._won
    sleep(group, "c", 2.0)
    group.reset("ac")
    group.tick("c")
    group.release("bc", "ac")
    group.connect("ac")
    group.run(2.0)
    assert (group.leaders(), a.engine.term, group["c"].engine.term) == (["a"], term, term)
