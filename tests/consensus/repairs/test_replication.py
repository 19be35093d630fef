"""Repairs of replication: what a message may do to a log, to the commit index, and to what is said to be known."""

from __future__ import annotations

import itertools

import pytest

from quorl.cluster.consensus import library
from quorl.cluster.consensus.messages import Acknowledge, AppendEntries
from quorl.cluster.consensus.port import Damaged
from quorl.cluster.protocol import limits
from tests.consensus.engines import Group, acknowledged, errors
from tests.consensus.repairs.biting import bites

SMALL = 400
"""Bytes of a segment where the log is to be trimmed after a few entries."""


def put(group: Group, leader: str, count: int, name: str) -> None:
    """Write, and let everybody learn that it is committed."""
    group.write(group[leader], *(b"%s %d" % (name.encode(), i) for i in range(count)))
    group.run(0.3)


@bites("snapshot_commit_clamp", "commit_clamp")
async def test_c2_a_commit_index_without_proof_commits_nothing(repaired: bool) -> None:
    group = Group(segment_bytes=SMALL)
    a = group.found("a")
    group.run(0.3)
    group.isolate("a")
    orphans = [a.propose(b"orphan %d" % i) for i in range(5)]
    b = group.elect("b")
    put(group, "b", 60, "new")
    b.replica.trim(b.log.last_index)
    assert b.log.first_index > a.log.last_index, "the old leader is beyond help by entries"
    group.connect("ab")
    group.run(1.0)
    assert set(a.snapshots_asked) == {"b"}
    assert not any(b"orphan" in payload for payload in b.payloads)
    if repaired:
        assert a.payloads == [b"base"]
        assert errors(orphans) == ["OutcomeUnknown"] * 5
    else:
        assert acknowledged(orphans) == [b"orphan %d" % i for i in range(5)], "acknowledged, and nowhere else"


@bites("truncation_guard")
async def test_c3_a_batch_that_comes_twice_cuts_nothing_off(repaired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "APPEND_BYTES_MAX", 100)
    group = Group()
    a = group.found("a")
    group.run(0.3)
    group.hold("ab")
    group.isolate("c")
    proposals = [a.propose(b"W%d" % i + b"x" * 60) for i in range(4)]
    batches = list(group.queue("ab"))
    assert len(batches) == 4
    group.release("ab")
    group.settle()
    told = acknowledged(proposals)
    assert len(told) == 4
    b = group["b"]
    b.engine.receive("a", batches[0])  # a leader that was asked twice to go back sends it again
    group.kill("a")
    group.connect("bc")
    group.elect("b")
    kept = [payload for payload in b.logged if payload in told]
    assert kept == (told if repaired else told[:1])


@bites("fail_stop")
async def test_c3_a_conflict_with_what_is_committed_stops_the_member(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    put(group, "a", 3, "kept")
    b = group["b"]
    before = b.logged
    assert b.engine.commit_index == b.log.last_index
    bad = (library.REGULAR + b"another", b.log.last_index, a.engine.term + 1)
    prev = b.log.last_index - 1
    message = AppendEntries(a.engine.term + 1, 0, prev, a.engine.term, [bad])
    b.engine.receive("a", message)
    assert ("committed" in str(b.died)) is repaired
    assert b.logged == before, "nothing is cut in any case"


@bites("stale_ack")
async def test_c4_an_acknowledgement_of_an_earlier_leadership_does_not_count(repaired: bool) -> None:
    group = Group("abcde")
    a = group.found("a")
    group.run(0.3)
    group.only("ab", "cd", "ce", "de")
    group.hold("ba")
    for i in range(6):
        a.propose(b"old %d" % i)
    group.settle()
    late = len(group.queue("ba"))
    assert late >= 6, "b holds the old entries, and its answers are slow"
    group.elect("c")
    group.connect("ac")
    group.run(0.3)
    assert not any(b"old" in payload for payload in a.logged), "c has overwritten them at a"
    group.kill("c")
    group.connect("ad", "ae")
    group.elect("a")
    group.isolate("e")
    news = [a.propose(b"new %d" % i) for i in range(3)]
    group.settle()
    group.deliver("ba", late)
    group.tick("a")
    holders = [m.name for m in group.alive() if b"new 0" in m.logged]
    assert holders == ["a", "d"], "two of five"
    assert acknowledged(news) == ([] if repaired else [b"new 0", b"new 1", b"new 2"])


@bites("floor")
async def test_c5_a_log_that_ends_before_what_was_committed_is_refused(repaired: bool) -> None:
    group = Group()
    group.found("a")
    put(group, "a", 5, "old")
    group.run(1.2)
    names = {name: [n for n in group[name].disk.files() if n.endswith(".seg")][-1] for name in "abc"}
    platter = {name: group[name].disk.files()[names[name]] for name in "abc"}
    put(group, "a", 30, "mid")
    group.run(1.2)
    group.kill(*"abc")
    for name in "abc":
        group[name].disk.put(names[name], platter[name])
        group[name].state = group[name].state[:6]
    if repaired:
        for name in "abc":
            with pytest.raises(Damaged, match="the log ends here, but everything up to index"):
                group.boot(name)
    else:
        group.boot()
        group.connect()
        assert not any(b"mid" in payload for payload in group.elect("a").logged), "acknowledged, and silently gone"


async def test_c5_a_restarted_leader_commits_nothing_alone() -> None:
    group = Group()
    group.found("a")
    put(group, "a", 5, "old")
    group.run(1.2)
    group.kill(*"abc")
    group.boot()
    group.connect()
    a = group.elect("a")
    group.isolate("a")
    solo = group.write(a, b"solo")
    group.run(1.0)
    assert not solo[0].done()


def stuck(group: Group) -> None:
    """A deposed leader with one orphan comes back to a leader that has more than one message to send."""
    a = group.found("a")
    group.run(0.3)
    group.reset("ab", "ac")
    a.propose(b"orphan")
    group.elect("b")
    group.connect("ab", "ac")
    group.hold("ab", "ac", "ba", "ca")  # a black hole, for a while unnoticed
    group["b"].engine.announce()
    for i in range(6):
        group.write(group["b"], b"x" * 40_000 + b"%d" % i)
    group.run(1.5)
    group.reset("ab", "ac")
    group.connect()
    group.run(20.0)


@bites("conflict_hint")
async def test_c6_a_member_with_an_orphan_always_catches_up(repaired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "APPEND_BYTES_MAX", 64 * 1024)
    group = Group()
    stuck(group)
    caught_up = group["a"].logged == group["b"].logged
    assert caught_up is repaired


async def test_c6_a_conflict_is_passed_in_one_step_per_term() -> None:
    group = Group()
    a = group.found("a")
    group.run(0.3)
    group.isolate("a")
    for i in range(500):
        a.propose(b"orphan %d" % i)
    group.elect("b")
    put(group, "b", 600, "new")
    group.hold("ab")
    group.connect("ab")
    steps = itertools.count()
    while a.log.term_at(a.log.last_index) != group["b"].engine.term:
        group.clock.now += 0.1
        group.settle()
        assert next(steps) < 5


@bites("term_hint")
async def test_c8_a_leader_of_an_old_term_is_told_at_once(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.isolate("a")
    group.elect("b")
    group.connect("ac")
    a.engine.announce()
    group.settle()
    assert a.engine.leads is not repaired


async def test_c10_an_acknowledgement_of_what_was_never_sent_is_ignored() -> None:
    group = Group()
    a = group.found("a")
    group.isolate("a")
    alone = a.propose(b"alone")
    a.engine.receive("b", Acknowledge(a.engine.term, 1_000_000, False, True, False))
    group.tick("a")
    assert not alone.done()


@bites("snapshot_ack")
async def test_a10_a_member_that_needs_a_snapshot_acknowledges_nothing(repaired: bool) -> None:
    group = Group(segment_bytes=SMALL)
    a = group.found("a")
    group.run(0.3)
    group.isolate("a")
    for i in range(36):
        a.propose(b"orphan %d" % i)
    b = group.elect("b")
    put(group, "b", 25, "new")
    b.replica.trim(b.log.last_index)
    assert 3 < b.log.first_index < b.log.last_index < a.log.last_index
    group.isolate("c")
    news = [b.propose(b"more %d" % i) for i in range(20)]
    group.connect("ab")
    group.run(0.5)
    assert a.snapshots_asked
    assert bool(acknowledged(news)) is not repaired


async def test_a11_an_entry_of_any_size_travels_whole() -> None:
    group = Group()
    a = group.found("a")
    sizes = [limits.APPEND_BYTES_MAX - 60, limits.APPEND_BYTES_MAX, 2 * limits.APPEND_BYTES_MAX - 60]
    futures = group.write(a, *(b"x" * size for size in sizes))
    group.run(0.3)
    assert [len(payload) for payload in acknowledged(futures)] == sizes
    assert [len(payload) for payload in group["c"].payloads[1:]] == sizes


@bites("keep_for_followers")
async def test_d10_a_follower_that_is_a_moment_behind_needs_no_snapshot(repaired: bool) -> None:
    group = Group(segment_bytes=SMALL)
    a = group.found("a")
    put(group, "a", 5, "old")
    group.hold("ac")
    put(group, "a", 40, "new")
    a.replica.trim(a.log.last_index)
    group.reset("ac")
    group.connect("ac")
    group.run(0.5)
    assert bool(group["c"].snapshots_asked) is not repaired


async def test_d10_a_connected_follower_that_stores_nothing_does_not_hold_the_log_back_for_ever() -> None:
    group = Group(segment_bytes=SMALL)
    a = group.found("a")
    put(group, "a", 5, "old")
    group["c"].disk.full = True
    put(group, "a", 40, "new")
    a.replica.trim(a.log.last_index)
    held = a.log.first_index
    a.replica.log_bytes_kept = 0
    a.replica.trim(a.log.last_index)
    assert a.log.first_index > held


@bites("one_hint")
async def test_d11_a_follower_that_needs_a_snapshot_is_told_so_once_per_heartbeat(repaired: bool) -> None:
    group = Group(segment_bytes=SMALL)
    a = group.found("a")
    group.kill("c")
    put(group, "a", 40, "new")
    a.replica.trim(a.log.last_index)
    group.boot("c")
    group.connect("ac")
    group.run(0.2)
    group.hold("ac")
    group.run(1.0)
    hints = [m for m in group.queue("ac") if isinstance(m, AppendEntries) and m.prev_index is None]
    assert (0 < len(hints) <= 12) is repaired


@bites("big_window")
async def test_d12_what_is_under_way_to_one_follower_is_bounded(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.run(0.3)
    group.hold("ac")
    for _ in range(48):
        group.write(a, b"x" * 250_000)
    under_way = sum(len(e[0]) for m in group.queue("ac") if isinstance(m, AppendEntries) for e in m.entries)
    assert (under_way < 8 * 1024 * 1024 + 250_001) is repaired
    group.release("ac")
    group.run(0.5)
    assert len(group["c"].payloads) == 49
