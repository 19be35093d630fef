"""Claims that wait at the leader: proposed when there is work, in a fair order, and for nobody who has gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorl.cluster.consensus.port import NotApplied
from quorl.cluster.machine.events import QueueReady
from quorl.cluster.node import parking as p
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.entry import Sealed, SignOfLife, encode_command
from quorl.cluster.protocol.leases import Directives, Granted
from quorl.cluster.protocol.together import ClaimMany, GrantedMany, OneClaim
from quorl.cluster.protocol.workers import WorkerNotAlive
from tests.node.toystate import Leader, Toy, passing, turns


def now() -> float:
    return asyncio.get_running_loop().time()


def tokens(decided: Any) -> list[int]:
    value = decided[0].value
    assert isinstance(value, Granted)
    return [grant.token for grant in value.grants]


# -- looking first -------------------------------------------------------------------------------------------------
async def test_a_claim_that_finds_work_is_proposed_at_once() -> None:
    toy = Toy(a=0)
    toy.tasks["q"] = 2
    leader = Leader(toy)
    assert tokens(await leader.claim(1)) == [1, 2]
    assert leader.said() == [["claim 1 x10"]]


async def test_a_claim_that_finds_nothing_proposes_nothing_and_ends_when_its_time_is_over() -> None:
    leader = Leader(Toy(a=0))
    began = now()
    assert await leader.claim(1, wait_s=0.5) is None
    assert now() - began == pytest.approx(0.5)
    assert leader.said() == []
    assert await leader.claim(1, wait_s=0) is None


async def test_a_submit_and_a_parked_claim_end_in_one_entry() -> None:
    leader = Leader(Toy(a=0))
    claim = leader.claim(1)
    await turns()
    await leader.submit()
    assert tokens(await claim) == [1]
    assert leader.said() == [["submit 1", "claim 1 x1"]]


async def test_an_entry_that_is_proposed_because_something_is_due_takes_claims_along() -> None:
    leader = Leader(Toy(a=0))
    claim = leader.claim(1)
    await turns()
    leader.toy.soon = {"q": 1}
    await leader.committer.barrier()
    assert tokens(await claim) == [1]
    assert leader.said() == [["claim 1 x1"]]


async def test_whoever_waits_is_alive_and_whoever_claims_too() -> None:
    leader = Leader(Toy(a=0, b=0))
    waiting = leader.claim(1)
    await turns()
    await leader.submit(queue="other")
    assert leader.entries[-1].signs == (SignOfLife(1),)
    leader.toy.tasks["q"] = 1
    await leader.claim(2)
    assert leader.entries[-1].signs == (SignOfLife(2),)
    waiting.cancel()


async def test_the_sign_of_a_claim_that_waits_leaves_four_times_in_the_limit() -> None:
    toy = Toy(a=0)
    toy.dead_after_ms = 2_000
    leader = Leader(toy)
    began = now()
    claim = leader.claim(1, wait_s=30)
    while not leader.entries:
        await passing(0.01)
    assert now() - began == pytest.approx(0.5, abs=0.02)
    assert await claim is None
    assert now() - began == pytest.approx(1.0, abs=0.02)  # half of what the worker may be silent


# -- fairness ------------------------------------------------------------------------------------------------------
async def test_tasks_are_dealt_evenly_over_three_that_wait() -> None:
    leader = Leader(Toy(a=0, b=0, c=0))
    claims = [leader.claim(number, most=300) for number in (1, 2, 3)]
    await turns()
    await leader.submit(300)
    assert [len(tokens(await claim)) for claim in claims] == [100, 100, 100]
    assert leader.said() == [["submit 300", "claim 1 x100", "claim 2 x100", "claim 3 x100"]]


async def test_single_tasks_go_to_three_that_wait_in_turn() -> None:
    leader = Leader(Toy(a=0, b=0, c=0))
    claims = {number: leader.claim(number, f"{number}-0") for number in (1, 2, 3)}
    for number in range(30):
        await turns()
        await leader.submit()
        await turns()
        done = [worker for worker, claim in claims.items() if claim.done()]
        assert len(done) == 1
        leader.toy.leases[done[0]] -= 1
        claims[done[0]] = leader.claim(done[0], f"{done[0]}-{number + 1}")
    order = [commands[1] for commands in leader.said()]
    assert order == ["claim 1 x1", "claim 2 x1", "claim 3 x1"] * 10
    for claim in claims.values():
        claim.cancel()


async def test_the_worker_with_the_fewest_leases_is_served_first() -> None:
    leader = Leader(Toy(busy=3, idle=0))
    busy, idle = leader.claim(1), leader.claim(2)
    await turns()
    await leader.submit(2)
    assert len(tokens(await idle)) == 2
    await leader.submit(1)
    assert len(tokens(await busy)) == 1


async def test_among_workers_without_leases_the_one_that_was_granted_the_fewest_is_served_first() -> None:
    """A worker that is quicker back to ask than others gets no more than they do."""
    leader = Leader(Toy(quick=0, slow=0))
    both = [leader.claim(number, f"first-{number}") for number in (1, 2)]
    await turns()
    await leader.submit(2)
    assert [len(tokens(await one)) for one in both] == [1, 1]
    leader.toy.tasks["q"] = 3
    assert len(tokens(await leader.claim(1, "k1", most=3))) == 3
    leader.toy.leases = {1: 0, 2: 0}
    quick, slow = leader.claim(1, "k2", most=9), leader.claim(2, "k3", most=9)
    for number in range(1, 4):
        await turns()
        await leader.submit()
        assert len(tokens(await slow)) == 1
        leader.toy.leases[2] = 0
        slow = leader.claim(2, f"slow-{number}", most=9)
    assert not quick.done()
    await turns()
    await leader.submit()
    assert len(tokens(await quick)) == 1
    slow.cancel()


async def test_nobody_makes_up_for_long_times_gone_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p, "_GRANTS_BEHIND_MAX", 1)
    leader = Leader(Toy(old=0, new=0))
    leader.toy.tasks["q"] = 50
    await leader.claim(1, "k1", most=50)
    leader.toy.leases[1] = 0
    old, new = leader.claim(1, "k2"), leader.claim(2, "k3")
    leader.parking._grants[2] = 0
    served = []
    for number in range(3):
        await turns()
        await leader.submit()
        await turns()
        if old.done():
            served.append("old")
            old = leader.claim(1, f"old-{number}")
        else:
            served.append("new")
            new = leader.claim(2, f"new-{number}")
        leader.toy.leases = {1: 0, 2: 0}
    assert served == ["new", "old", "new"]
    leader.toy.dead = {2}
    leader.change(2)
    assert isinstance((await new)[0].value, WorkerNotAlive)
    assert list(leader.parking._grants) == [1]
    old.cancel()


async def test_two_claims_of_one_worker_count_together() -> None:
    leader = Leader(Toy(a=0, b=0))
    claims = [leader.claim(1, "k1"), leader.claim(1, "k2"), leader.claim(2, "k3")]
    await turns()
    await leader.submit(4)
    assert [len(tokens(await claim)) for claim in claims[::2]] == [2, 2]
    assert leader.toy.leases == {1: 2, 2: 2}
    assert not claims[1].done()
    claims[1].cancel()


async def test_no_more_claims_are_woken_than_there_is_work_for() -> None:
    leader = Leader(Toy(**{f"w{number}": 0 for number in range(50)}))
    claims = [leader.claim(number) for number in range(1, 51)]
    await turns()
    leader.toy.tasks["q"] = 2
    leader.tell(QueueReady("q"), QueueReady("q"))
    await turns()
    assert leader.said() == [["claim 1 x1", "claim 2 x1"]]
    for claim in claims:
        claim.cancel()


async def test_what_was_dealt_wrongly_finds_its_worker() -> None:
    """A claim is taken along, but the task is in a partition of another worker."""
    toy = Toy(a=0, b=0)
    toy.barred = {1}
    leader = Leader(toy)
    wrong, right = leader.claim(1), leader.claim(2)
    await turns()
    await leader.submit()
    assert tokens(await right) == [1]
    assert leader.said() == [["submit 1", "claim 1 x1"], ["claim 2 x1"]]
    await leader.submit(queue="q")
    await turns()
    assert leader.said()[2:] == [["submit 1"]]  # it is not taken along again in vain
    toy.barred = set()
    leader.tell(QueueReady("q"))
    assert tokens(await wrong) == [2]


async def test_who_gets_nothing_anyway_is_not_taken_along() -> None:
    """A stand-by that is not needed, whatever little it was granted so far."""
    toy = Toy(standby=0, active=2)
    toy.resting = {1}
    leader = Leader(toy)
    standby, active = leader.claim(1), leader.claim(2)
    await turns()
    await leader.submit()
    assert tokens(await active) == [1]
    assert leader.said() == [["submit 1", "claim 2 x1"]]
    standby.cancel()


async def test_a_claim_that_finds_nothing_where_something_seems_to_be_is_not_tried_for_ever() -> None:
    toy = Toy(a=0)
    toy.claimable = lambda claim: True  # type: ignore[method-assign]
    leader = Leader(toy)
    assert await leader.claim(1) is None
    assert len([commands for commands in leader.said() if commands]) == p._FRUITLESS_MAX


async def test_a_task_right_behind_a_claim_in_the_same_entry_wakes_it() -> None:
    toy = Toy(a=0)
    toy.tasks["q"] = 1
    leader = Leader(toy, held=True)
    taken = leader.claim(1, "first")
    late = leader.claim(1, "second")  # the state still shows the task
    await turns()
    submitted = leader.submit()
    leader.apply()
    leader.held = False
    assert tokens(await taken) == [1]
    assert tokens(await late) == [2]
    await submitted


# -- callers -------------------------------------------------------------------------------------------------------
async def test_a_caller_who_has_gone_is_never_granted_a_task() -> None:
    leader = Leader(Toy(a=0, b=0))
    gone, there = leader.claim(1), leader.claim(2)
    await turns()
    gone.cancel()
    await turns()
    await leader.submit(2)
    assert tokens(await there) == [1, 2]
    assert leader.toy.leases == {1: 0, 2: 2}
    assert (leader.parking._queues, leader.parking._workers, leader.parking._keys) == ({}, {}, {})


async def test_what_was_dealt_to_a_caller_who_goes_is_dealt_again() -> None:
    leader = Leader(Toy(a=0, b=0), held=True)
    gone, there = leader.claim(1), leader.claim(2)
    await turns()
    barrier = leader.committer.barrier()
    await turns()
    leader.toy.tasks["q"] = 1
    leader.tell(QueueReady("q"))
    await turns()  # the claim of the first waits for the next entry
    gone.cancel()
    await turns()
    leader.held = False
    leader.apply()
    await barrier
    assert tokens(await there) == [1]
    assert leader.toy.leases == {1: 0, 2: 1}


async def test_a_lost_answer_repeated_under_its_key_gives_the_same_tokens() -> None:
    leader = Leader(Toy(a=0, b=0))
    first = leader.claim(1, "k")
    await turns()
    await leader.submit()
    assert tokens(await first) == [1]
    again, replayed = await leader.claim(1, "k"), leader.said()[-1]
    assert (tokens(again), again[0].replayed, replayed) == ([1], True, ["claim 1 x10"])


async def test_two_tries_of_one_claim_that_wait_end_with_the_same_tokens() -> None:
    leader = Leader(Toy(a=0))
    tries = [leader.claim(1, "k"), leader.claim(1, "k")]
    await turns()
    await leader.submit()
    assert [tokens(await one) for one in tries] == [[1], [1]]
    assert leader.toy.leases == {1: 1}


# -- news ----------------------------------------------------------------------------------------------------------
async def test_a_worker_that_dies_while_it_waits_is_told() -> None:
    leader = Leader(Toy(a=0))
    claim = leader.claim(1)
    await turns()
    leader.toy.dead = {1}
    leader.change(1)
    assert isinstance((await claim)[0].value, WorkerNotAlive)


async def test_a_queue_that_is_drained_ends_every_claim_on_it() -> None:
    leader = Leader(Toy(a=0, b=0))
    claims = [leader.claim(number) for number in (1, 2)]
    await turns()
    leader.toy.sealed = True
    leader.tell(QueueReady("q"))
    assert [(await claim)[0].value.drained for claim in claims] == [True, True]


async def test_a_worker_that_is_to_be_told_something_does_not_wait_on() -> None:
    leader = Leader(Toy(a=0, b=0))
    told, other = leader.claim(1, news=True), leader.claim(2)
    await turns()
    leader.change(1)
    await turns()
    assert not told.done()
    leader.toy.told = Directives(cancel=["t"])
    leader.change(1)
    leader.change(2)
    assert await told is None
    assert not other.done()
    began = now()
    assert await leader.claim(1, news=True) is None
    assert now() - began == pytest.approx(1.0)
    other.cancel()


async def test_a_worker_that_may_have_work_now_is_looked_at() -> None:
    """A stand-by that becomes active: the tasks have been there before."""
    toy = Toy(a=0)
    toy.barred, toy.tasks["q"] = {1}, 1
    leader = Leader(toy)
    claim = leader.claim(1)
    await turns()
    assert not leader.entries
    toy.barred = set()
    leader.change(1)
    assert tokens(await claim) == [1]


# -- the end -------------------------------------------------------------------------------------------------------
async def test_who_loses_the_lead_sends_everybody_who_waits_elsewhere() -> None:
    leader = Leader(Toy(a=0, b=0))
    claims = [leader.claim(number) for number in (1, 2)]
    await turns()
    leader.parking.step_aside(NotApplied("no_leader", "n1 does not lead any more"))
    for claim in claims:
        with pytest.raises(NotApplied):
            await claim
    assert leader.parking._queues == {}


async def test_draining_ends_every_wait_and_lets_none_begin() -> None:
    leader = Leader(Toy(a=0))
    claim = leader.claim(1)
    await turns()
    leader.parking.drain()
    assert await claim is None
    began = now()
    assert await leader.claim(1) is None
    assert now() == began


async def test_a_worker_that_is_not_known_waits_for_what_it_asks() -> None:
    """A node looks before it refuses: whether there is such a worker, the state decides."""
    toy = Toy()
    leader = Leader(toy)
    assert await leader.claim(7, wait_s=0.1) is None
    assert leader.entries == []


# -- several claims in one command -----------------------------------------------------------------------------------
def shared(decided: Any) -> dict[int, int]:
    """How many tasks each claim of several was granted, by its place."""
    value = decided[0].value
    assert isinstance(value, GrantedMany)
    return {one.at: len(one.grants) for one in value.items}


async def test_claims_that_came_together_are_proposed_together() -> None:
    toy = Toy(a=0, b=0, c=0)
    toy.tasks["q"] = 2
    leader = Leader(toy)
    assert shared(await leader.claim_many(1, 2, 3)) == {0: 1, 1: 1, 2: 0}
    assert leader.said() == [["claims 1 x1 2 x1 3 x1"]]


async def test_of_claims_that_wait_together_those_go_along_to_which_was_dealt() -> None:
    leader = Leader(Toy(a=5, b=0, c=1))
    claims, single = leader.claim_many(1, 2, 3), leader.claim(1, "single")
    await turns()
    await leader.submit(2)
    assert shared(await claims) == {1: 1, 2: 1}
    assert leader.said() == [["submit 2", "claims 2 x1 3 x1"]]
    await leader.submit(1)
    assert tokens(await single) == [3]


async def test_claims_on_two_queues_are_dealt_from_both_in_one_command() -> None:
    leader = Leader(Toy(a=0, b=0))
    leader.toy.soon = {"q": 1, "r": 1}
    request = ClaimMany(claims=(OneClaim(worker_id=1, queues=("q",)), OneClaim(worker_id=2, queues=("r",))), wait=5)
    sealed = Sealed("k", b"d", encode_command(request))
    claims = asyncio.ensure_future(leader.parking.claim(sealed, request.sealed(), now() + 5, None))
    await turns()
    await leader.committer.barrier()
    assert shared(await claims) == {0: 1, 1: 1}
    assert leader.said() == [["claims 1 x1 2 x1"]]


async def test_what_one_claim_of_several_left_is_dealt_again() -> None:
    leader = Leader(Toy(a=0, b=0, c=0))
    leader.toy.barred = {1}
    claims = leader.claim_many(1, 2)
    await turns()
    other = leader.claim(3)
    await turns()
    await leader.submit(2)
    assert shared(await claims) == {0: 0, 1: 1}
    assert tokens(await other) == [2]
    assert leader.said() == [["submit 2", "claims 1 x1 2 x1"], ["claim 3 x1"]]


async def test_an_entry_that_has_room_for_few_commands_takes_few_places_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ENTRY_COMMANDS_MAX", 2)
    leader = Leader(Toy(a=0, b=0, c=0, d=0))
    claims, more = leader.claim_many(1, 2), leader.claim_many(3, 4, key="more")
    await turns()
    await leader.submit(4)
    assert shared(await claims) == {0: 1, 1: 1}
    assert shared(await more) == {0: 1, 1: 1}
    assert leader.said() == [["submit 4", "claims 1 x1 2 x1"], ["claims 3 x1 4 x1"]]


async def test_a_worker_among_several_that_dies_is_told_and_the_others_may_claim_again() -> None:
    leader = Leader(Toy(a=0, b=0))
    claims = leader.claim_many(1, 2, 2)
    await turns()
    leader.toy.dead.add(2)
    leader.change(2)
    value = (await claims)[0].value
    assert [(one.at, one.code) for one in value.items] == [(1, "worker_not_alive")]
    assert leader.said() == [["claims 2 x1"]]


async def test_a_drained_queue_ends_all_claims_of_a_call() -> None:
    leader = Leader(Toy(a=0, b=0))
    claims = leader.claim_many(1, 2)
    await turns()
    leader.toy.sealed = True
    leader.tell(QueueReady("q"))
    assert [one.drained for one in (await claims)[0].value.items] == [True, True]


async def test_several_claims_that_wait_end_without_an_outcome_when_their_time_is_over() -> None:
    leader = Leader(Toy(a=0, b=0))
    assert await leader.claim_many(1, 2, wait_s=0.5) is None
    assert leader.said() == []
    assert not leader.parking._workers
    assert not leader.parking._queues
    assert not leader.parking._keys


async def test_a_repeat_of_several_claims_gets_the_same_tokens() -> None:
    leader = Leader(Toy(a=0, b=0))
    first, again = leader.claim_many(1, 2), leader.claim_many(1, 2)
    await turns()
    await leader.submit(2)
    one, other = await first, await again
    assert shared(one) == {0: 1, 1: 1}
    assert one[0].value == other[0].value
    late = await leader.claim_many(1, 2)
    assert late[0].replayed
    assert late[0].value == one[0].value
