"""What a leader lets its state prepare, and when that is taken back."""

from __future__ import annotations

import asyncio

import pytest

from tests.consensus.engines import Applied, Group, Member


@pytest.fixture
async def group() -> Group:
    made = Group()
    made.found("a")
    await _turns()
    return made


async def _turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def _prepared(member: Member) -> Applied | None:
    return member.prepared


def _expected(member: Member, payload: bytes) -> Applied:
    return Applied(member.log.last_index, member.engine.term, payload)


async def test_b1_a_leader_prepares_what_it_proposed_while_the_others_write(group: Group) -> None:
    group.hold("ab", "ac")
    leader = group["a"]
    proposal = leader.propose(b"one")
    assert _prepared(leader) is None, "the answers to the entry before leave first"
    await _turns()
    assert _prepared(leader) == _expected(leader, b"one")
    assert not proposal.done()
    assert leader.payloads == [b"base"]
    group.release("ab", "ac")
    group.settle()
    assert proposal.done()
    assert (_prepared(leader), leader.payloads) == (None, [b"base", b"one"])
    assert [group[name].prepared for name in "bc"] == [None, None]


async def test_b1_only_the_next_entry_is_prepared_and_none_that_is_applied_already(group: Group) -> None:
    leader = group["a"]
    leader.propose(b"one")
    group.settle()
    await _turns()
    assert (_prepared(leader), leader.payloads) == (None, [b"base", b"one"])
    group.hold("ab", "ac")
    leader.propose(b"two")
    leader.propose(b"three")
    await _turns()
    found = _prepared(leader)
    assert found is not None
    assert found.payload == b"two"


async def test_b1_what_a_lost_leader_prepared_is_taken_back(group: Group) -> None:
    group.hold("ab", "ac")
    leader = group["a"]
    lost = leader.propose(b"lost")
    await _turns()
    assert _prepared(leader) is not None
    group.isolate("a")
    group.run(3.0)
    assert _prepared(leader) is None
    assert lost.error is not None
    (name,) = [name for name in group.leaders() if name != "a"]
    group.write(group[name], b"instead")
    group.release("ab", "ac")
    group.connect()
    group.run(1.0)
    assert {m.name: m.payloads for m in group.alive()} == {n: [b"base", b"instead"] for n in "abc"}
    assert [m.prepared for m in group.alive()] == [None] * 3


async def test_b1_a_member_that_has_lost_the_lead_meanwhile_prepares_nothing(group: Group) -> None:
    group.hold("ab", "ac")
    leader = group["a"]
    leader.propose(b"lost")
    group.isolate("a")
    group.run(3.0)
    await _turns()
    assert _prepared(leader) is None


@pytest.mark.parametrize("why", ["dead", "suspended"])
async def test_b1_a_member_that_applies_nothing_prepares_nothing(group: Group, why: str) -> None:
    group.hold("ab", "ac")
    leader = group["a"]
    leader.propose(b"one")
    if why == "dead":
        leader.engine.die("a disk failed")
    else:
        leader.engine.suspended = True
    await _turns()
    assert _prepared(leader) is None
