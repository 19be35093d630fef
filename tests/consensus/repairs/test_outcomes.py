"""Repairs of outcomes: what is applied, how often, and what its proposer is told."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from pysyncobj import pickle

from quorl.cluster.consensus import library
from quorl.cluster.consensus.messages import AppendEntries
from quorl.cluster.consensus.port import NotApplied
from quorl.cluster.machine import topics
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import AnyCommand
from quorl.cluster.protocol.problems import CommandFailed
from tests.consensus.engines import FOUND, Group, Member, Proposal, errors
from tests.consensus.repairs.biting import bites
from tests.consensus.repairs.switches import SWITCHES
from tests.machine.rig import Rig, message, seal


@bites("poison")
def test_a1_a_command_that_fails_spoils_only_itself(repaired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()

    def bug(*_: object) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(topics, "create_topic", bug)
        if repaired:
            (outcome,) = rig.apply(seal(t.CreateTopic(name="a"))).outcomes
            assert isinstance(outcome.value, CommandFailed)
        else:
            with pytest.raises(ValueError, match="a bug"):
                rig.apply(seal(t.CreateTopic(name="a")))
    assert (rig.machine.position.sequence == 1) is repaired, "every member passes it, now and after a restart"
    (outcome,) = rig.apply(seal(t.CreateTopic(name="b"))).outcomes
    assert isinstance(outcome.value, t.TopicCreated)


@bites("fail_stop")
async def test_a1_a_state_that_takes_no_more_entries_stops_its_member_alone(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group["b"].spoiled = b"two"
    group.write(a, b"one", b"two", b"three")
    group.run(0.3)
    assert group["c"].payloads == [b"base", b"one", b"two", b"three"]
    if repaired:
        assert "could not be applied" in str(group["b"].died)
        assert group["b"].payloads == [b"base", b"one"]
    else:
        assert group["b"].payloads == [b"base", b"one", b"three"], "it has diverged, and serves"


@bites("applied_before_told")
async def test_a2_an_entry_is_applied_once_whatever_becomes_of_its_caller(
    repaired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    SWITCHES["fail_stop"](monkeypatch.setattr)  # even if it went on after an error
    group = Group()
    a = group.found("a")
    proposal = a.propose(b"once")
    proposal.future.cancel()
    for _ in range(3):
        try:
            group.settle()
        except asyncio.InvalidStateError:
            assert not repaired
    assert (a.payloads == [b"base", b"once"]) is repaired
    assert set(a.payloads) == {b"base", b"once"}


def test_a2_a_loop_that_is_closed_does_not_make_an_entry_apply_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    SWITCHES["fail_stop"](monkeypatch.setattr)
    loop = asyncio.new_event_loop()

    async def propose() -> Group:
        group = Group()
        group.found("a").propose(b"once").future.add_done_callback(print)
        return group

    group = loop.run_until_complete(propose())
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        group.settle()
    group.settle()
    assert group["a"].payloads == [b"base", b"once"]


@bites("library_forwards")
async def test_a3_nothing_is_forwarded_and_nobody_waits_without_end(repaired: bool) -> None:
    group = Group()
    group.found("a")
    group.run(0.3)
    if repaired:
        with pytest.raises(NotApplied, match="does not lead"):
            group["b"].propose(b"elsewhere")
    else:
        waiting = group["b"].propose(b"elsewhere")
        with pytest.raises(AssertionError, match="apply_command"):
            group.settle()
        assert not waiting.done()


async def outlived(group: Group) -> tuple[Member, Proposal]:
    """A leader loses the lead with an entry under way, which its successor commits."""
    a = group.found("a")
    group.run(0.3)
    group.hold("ba", "ca")
    proposal = a.propose(b"perhaps")
    group.settle()
    group.isolate("a")
    group.elect("b")
    group.run(2.0)
    group.connect()
    group.run(0.5)
    return group["b"], proposal


@bites("outcome_colours")
async def test_a4_a_lost_lead_is_an_unknown_outcome(repaired: bool) -> None:
    b, proposal = await outlived(Group())
    assert b.payloads == [b"base", b"perhaps"], "it was decided after all"
    assert errors([proposal]) == (["OutcomeUnknown"] if repaired else ["NotApplied"])


@bites("receipts_kept")
def test_a4_a_repeat_under_the_same_key_happens_once(repaired: bool) -> None:
    rig = Rig()
    rig.apply(seal(t.CreateTopic(name="a")))
    append = seal(t.Append(topic="a", messages=[message("task")]), key="k")
    first, again = rig.apply(append).outcomes[0], rig.apply(append).outcomes[0]
    assert (first.value == again.value) is repaired
    assert again.replayed is repaired


@bites("outcome_colours")
async def test_a5_an_entry_that_another_leader_replaced_is_not_called_refused(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.run(0.3)
    group.isolate("a")
    proposal = a.propose(b"discarded")
    b = group.elect("b")
    group.write(b, b"instead")
    group.connect()
    group.run(0.5)
    assert a.payloads == [b"base", b"instead"]
    assert errors([proposal]) == (["OutcomeUnknown"] if repaired else ["NotApplied"])


@bites("queueing")
async def test_a6_nothing_is_queued_until_somebody_leads(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.isolate(*"abc")
    group.run(2.0)
    assert not a.engine.leads
    if repaired:
        with pytest.raises(NotApplied) as refused:
            a.propose(b"late")
        assert refused.value.code == "no_leader"
    else:
        assert not a.propose(b"late").done()
    group.run(600.0, step_s=1.0)
    group.connect()
    group.elect("a")
    group.run(1.0)
    assert (b"late" in a.payloads) is not repaired


def test_a7_commands_are_known_by_name() -> None:
    kinds = AnyCommand.__args__
    names = {kind: kind.__struct_config__.tag for kind in kinds}
    assert all(isinstance(name, str) for name in names.values()), "a number would shift when a command is added"
    assert len(set(names.values())) == len(kinds)
    encoded = msgspec.msgpack.decode(seal(t.CreateTopic(name="a")).command)
    assert encoded["op"] == names[t.CreateTopic]


async def test_a7_the_library_has_no_method_to_call() -> None:
    group = Group()
    group.boot()
    assert (group["a"].engine._idToMethod, group["a"].engine._methodToID) == ({}, {})


@bites("library_apply")
async def test_a8_version_entries_mean_nothing(repaired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def unpickle(data: bytes) -> int:
        read.append(data)
        return 7

    monkeypatch.setattr(pickle, "loads", unpickle)
    group = Group()
    group.boot()
    a = group["a"]
    a.engine.receive("b", AppendEntries(1, 3, 1, 0, [(b"\x01", 2, 1), (b"\x03a version", 3, 1)]))
    a.engine.tick()
    assert (a.engine.applied_index, read) == ((3, []) if repaired else (2, [b"a version"]))
    more = [(library.REGULAR + b"%d" % i, i, 1) for i in (4, 5)]
    if repaired:
        a.engine.receive("b", AppendEntries(1, 5, 3, 1, more))
        a.engine.tick()
        assert [(x.index, x.payload) for x in a.state] == [(4, b"4"), (5, b"5")]


def left_behind(group: Group) -> tuple[Member, Member, list[Proposal]]:
    """A deposed leader with orphans needs a snapshot; gives it, the new leader, and what the old one still waits for."""
    a = group.found("a")
    group.run(0.3)
    group.isolate("a")
    waiting = [a.propose(b"skipped %d" % i) for i in range(3)]
    b = group.elect("b")
    group.write(b, *(b"%d" % i for i in range(40)))
    group.run(0.3)
    b.replica.trim(b.log.last_index)
    group.connect()
    group.run(0.3)
    assert a.snapshots_asked
    return a, b, waiting


def install(receiver: Member, source: Member) -> None:
    receiver.state = list(source.state)
    receiver.engine.installed(receiver.state[-1].index, receiver.state[-1].term)


async def test_a12_nobody_waits_for_an_entry_that_a_snapshot_skipped() -> None:
    group = Group(segment_bytes=400)
    a, b, waiting = left_behind(group)
    install(a, b)
    group.run(0.3)
    assert errors(waiting) == ["OutcomeUnknown"] * 3
    assert not a.engine._waiting


@bites("ask_back")
async def test_after_a_snapshot_the_log_goes_on(repaired: bool) -> None:
    group = Group(segment_bytes=400)
    a, b, _ = left_behind(group)
    install(a, b)
    asked = len(a.snapshots_asked)
    group.write(b, b"on")
    group.run(1.0)
    assert (a.payloads[-1] == b"on") is repaired
    assert (len(a.snapshots_asked) == asked) is repaired, "one snapshot is enough"


@bites("ask_back")
async def test_a_leader_is_not_lonely_while_its_only_follower_pulls_a_snapshot(repaired: bool) -> None:
    group = Group(segment_bytes=400)
    _, b, _ = left_behind(group)
    group.kill("c")
    term = b.engine.term
    group.run(5.0)
    assert (b.engine.leads and b.engine.term == term) is repaired


@bites("apply_once")
async def test_a_restart_applies_nothing_again(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.write(a, b"one", b"two")
    group.run(0.3)
    group.kill(*"abc")
    group.boot()
    group.connect()
    group.elect("b")
    group.run(0.3)
    assert (group["a"].payloads == [b"base", b"one", b"two"]) is repaired
    assert (sum(x.payload == FOUND for x in group["a"].state) == 1) is repaired
