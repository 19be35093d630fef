"""Who is told how far the log is committed, and when."""

from __future__ import annotations

from tests.consensus.engines import Group, Member


def _waited(leader: Member) -> bool:
    return leader.replica.waited


async def test_d9_a_member_at_which_somebody_waits_is_told_what_is_committed_as_soon_as_it_says_so() -> None:
    group = Group()
    leader = group.found("a")
    group["b"].waited = True
    group.hold("ba")
    proposal = leader.propose(b"one")
    group.settle()
    assert proposal.done()
    assert [group[name].payloads for name in "bc"] == [[b"base"], [b"base"]], "nobody was told yet"
    assert not _waited(leader)
    group.release("ba")
    group.settle()
    assert _waited(leader)
    assert [group[name].payloads for name in "bc"] == [[b"base", b"one"], [b"base"]]


async def test_d9_who_has_been_told_is_not_told_again() -> None:
    group = Group()
    leader = group.found("a")
    group["b"].waited = True
    group.write(leader, b"one")
    leader.engine.announce()
    group.deliver("ab")
    group.hold("ab")
    group.deliver("ba")
    assert not group.queue("ab")
    assert _waited(leader)


async def test_d9_that_somebody_waits_is_forgotten_with_his_word_his_connection_and_the_lead() -> None:
    group = Group()
    leader = group.found("a")

    def wait() -> None:
        group["b"].waited = True
        group["c"].waited = False
        leader.engine.announce()
        group.settle()
        assert _waited(leader)

    wait()
    group["b"].waited = False
    leader.engine.announce()
    group.settle()
    assert not _waited(leader)
    wait()
    group.reset("ab")
    assert not _waited(leader)
    group.connect("ab")
    wait()
    group["b"].waited = False
    group.elect("c")
    group.elect("a")
    assert not _waited(leader)
