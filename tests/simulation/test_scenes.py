"""Scenes with one fault each, and the figure or promise that is asserted of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from quorl.cluster.node import applying
from tests.simulation import scenes, scenes_disk, scenes_real, scenes_words
from tests.simulation.scenes import Scene
from tests.simulation.stage import Stage
from tests.simulation.task_scenes import TASK_SCENES
from tests.simulation.workload import Write
from tests.simulation.world import NodeLogger

SCENES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (
        scenes.late_barrier,
        scenes.birth,
        scenes.half_born,
        scenes.half_known_tail,
        scenes.orphan_and_snapshot,
        scenes.half_seen_leader,
        scenes.power_after_yes,
        scenes.power_during_flush,
        scenes.full_partner,
        scenes_words.late_acknowledgement,
        scenes_words.orphans_trimmed,
        scenes_words.old_leader_told,
        scenes_words.stranger,
        scenes_words.votes_twice,
        scenes_words.slow_reader,
        scenes_words.slow_follower,
        scenes_words.caller_gone,
        scenes_disk.failing_sync,
        scenes_disk.power_in_a_cut,
        scenes_disk.rotten_end,
        scenes_disk.full_at_the_election,
        scenes_disk.full_majority,
        scenes_disk.state_fails,
        scenes_disk.poisoned_command,
        scenes_disk.poison_behind_open,
        scenes_disk.end_fails,
        scenes_real.lack_of_descriptors,
        scenes_real.silent_strangers,
        scenes_real.endless_stranger,
        scenes_real.wrong_secret,
        scenes_real.late_frames,
        scenes_real.two_processes,
        scenes_real.damaged_copy,
    )
}


@pytest.mark.parametrize("name", [*SCENES, *TASK_SCENES])
def test_every_promise_holds_in_the_scene(name: str) -> None:
    assert (SCENES | TASK_SCENES)[name](1) == []


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_killed_leader_is_replaced_within_a_second_because_its_port_refuses(seed: int) -> None:
    with Stage(seed) as stage:
        old, term = stage.leader(), stage.node(stage.leader()).term()
        stage.written(old, 3)
        stage.process(old).kill()
        killed_at = stage.world.clock.now
        assert stage.world.run(1.0, lambda: any(node.leads() and node.term() > term for node in stage.world.nodes()))
        assert stage.world.clock.now - killed_at < 1.0
        stage.written(stage.leader())
        stage.process(old).boot()
        assert stage.problems() == []


def test_a_leader_that_is_cut_off_says_so_within_a_second_and_a_half() -> None:
    with Stage() as stage:
        old = stage.leader()
        stage.world.run(1.0)
        stage.world.wires.isolate(old, stage.world.names)
        assert stage.world.run(1.5, lambda: not stage.node(old).leads())
        assert stage.problems() == []


def test_a_minority_never_acknowledges() -> None:
    with Stage(members=5) as stage:
        old, partner, *rest = stage.leader(), *stage.followers()
        for name in (old, partner):
            for other in rest:
                stage.world.wires.cut |= {(name, other), (other, name)}
        written = [stage.write(name, 12.0) for name in (old, partner) for _ in range(3)]
        stage.world.run(8.0)
        # What was proposed may still come to be; what only waited certainly did not happen.
        assert {write.outcome for write in written} == {"maybe", "no"}
        assert stage.problems() == []


def test_the_term_of_each_member_is_known_to_all_as_soon_as_it_has_begun() -> None:
    with Stage() as stage:
        stage.written(stage.leader())
        for name in [*stage.followers(), stage.leader()]:
            stage.lead(name)
            assert stage.world.run(0.2, lambda: _terms_told(stage) == {stage.node(stage.leader()).term()})
        assert stage.problems() == []


def _terms_told(stage: Stage) -> set[int | None]:
    return {member.term for node in stage.world.nodes() for member in node.cluster().members}


def test_each_member_says_that_there_is_no_quorum_while_too_few_have_room_for_what_the_leader_decides() -> None:
    with Stage() as stage:
        world, (full, other) = stage.world, stage.followers()
        stage.written(stage.leader())

        def health() -> set[tuple[str, bool]]:
            return {(one.health, one.leader == stage.leader()) for one in [node.cluster() for node in world.nodes()]}

        assert world.run(2.0, lambda: health() == {("ok", True)})
        stage.process(full).disk.full = True
        assert world.run(2.0, lambda: health() == {("degraded", True)})
        stage.process(other).disk.full = True
        assert world.run(2.0, lambda: health() == {("no_quorum", True)})
        for node in world.nodes():
            assert (node.looking.view().read_only or "").endswith(
                f"nothing new is stored there: {', '.join(sorted([full, other]))}."
            )
        stage.process(full).disk.full = stage.process(other).disk.full = False
        assert world.run(2.0, lambda: health() == {("ok", True)})
        stage.written(stage.leader())
        assert stage.problems() == []


def test_who_hears_the_leader_and_nobody_else_does_not_say_that_there_is_no_quorum() -> None:
    with Stage(members=5) as stage:
        leader, apart, *rest = stage.leader(), *stage.followers()
        stage.written(leader)
        stage.world.run(1.0)
        stage.world.wires.cut |= {pair for one in rest for pair in ((apart, one), (one, apart))}

        def seen() -> tuple[str, str | None, int]:
            told = stage.node(apart).cluster()
            return told.health, told.leader, sum(member.state == "unreachable" for member in told.members)

        assert stage.world.run(5.0, lambda: seen() == ("degraded", leader, 3))
        stage.written(apart)
        assert stage.problems() == []


def test_an_emptied_member_does_not_vote_before_it_is_caught_up() -> None:
    with Stage(snapshot_every=8, log_bytes_max=4096) as stage:
        world, (kept, emptied) = stage.world, stage.followers()
        stage.process(kept).kill()
        stage.written(stage.leader(), 40)
        stage.process(emptied).wipe()
        leader = stage.leader()
        stage.process(emptied).boot()
        assert world.run(
            2.0, lambda: stage.process(emptied).node is not None and stage.node(emptied).replica.engine.blank
        )
        world.wires.isolate(emptied, world.names)
        stage.process(leader).kill()
        stage.process(kept).boot()
        world.wires.heal()
        # The two that run are a majority, but one of them has forgotten what it promised to whom.
        assert not world.run(5.0, lambda: any(node.leads() for node in world.nodes()))
        stage.process(leader).boot()
        assert world.run(10.0, world.agreed)
        assert stage.problems() == []


def test_members_make_their_checkpoints_each_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """They apply the same entries: else all would write theirs at once, and no majority would be quick meanwhile."""
    with Stage(snapshot_every=60, log_bytes_max=1_000_000) as stage:
        first: dict[str, int] = {}

        def watched(name: str, checkpoint: Callable[[], int | None]) -> Callable[[], int | None]:
            def watch() -> int | None:
                first.setdefault(name, stage.node(name).replica.engine.applied_index)
                return checkpoint()

            return watch

        for name, process in stage.world.processes.items():
            monkeypatch.setattr(process.states, "checkpoint", watched(name, process.states.checkpoint))
        stage.written(stage.leader(), 80)
        assert stage.world.run(2.0, lambda: len(first) == len(stage.world.names))
        early, middle, late = sorted(first.values())
        assert min(middle - early, late - middle) > 10
        assert stage.problems() == []


def test_a_follower_that_was_away_for_longer_than_the_log_is_caught_up_while_writes_go_on() -> None:
    with Stage(snapshot_every=8, log_bytes_max=4096) as stage:
        world, away = stage.world, stage.followers()[0]
        stage.process(away).kill()
        world.run(2.5)
        stage.written(stage.leader(), 60)
        stage.process(away).boot()
        for _ in range(40):
            stage.written(stage.leader())
        assert world.run(5.0, lambda: stage.process(away).states.installs == 1 and world.agreed())
        assert stage.problems() == []


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_leader_that_is_asked_to_leave_hands_over_without_a_failed_write(seed: int) -> None:
    with Stage(seed) as stage:
        world, old = stage.world, stage.leader()
        entry = stage.followers()[0]
        stage.process(old).leave()
        written: list[Write] = []
        while stage.process(old).loop is not None or len(written) < 20:
            written.append(stage.write(entry))
            world.run(0.02)
        world.run(2.0)
        assert {write.outcome for write in written} == {"ok"}
        assert max(write.ended - write.started for write in written) < 1.0
        stage.process(old).boot()
        assert stage.problems() == []


@pytest.mark.parametrize("pause_s", [0.3, 1.5, 8.0])
def test_a_pause_of_a_follower_never_changes_the_leader(pause_s: float) -> None:
    with Stage() as stage:
        leader, term = stage.leader(), stage.node(stage.leader()).term()
        for name in stage.followers():
            stage.process(name).paused = True
            stage.world.run(pause_s)
            stage.written(leader)
            stage.process(name).paused = False
            stage.world.run(3.0)
            assert (stage.leader(), stage.node(leader).term()) == (leader, term)
        assert stage.problems() == []


def test_jumping_calendars_change_nothing() -> None:
    with Stage() as stage:
        leader, term = stage.leader(), stage.node(stage.leader()).term()
        for name, error_ms in zip(
            stage.world.names * 3, [3_600_000, -3_600_000, 10**13, 0, -(10**12)] * 2, strict=False
        ):
            stage.process(name).clock.wall_error_ms = error_ms
            stage.world.run(0.7)
            stage.written(leader)
            assert (stage.leader(), stage.node(leader).term()) == (leader, term)
        assert stage.problems() == []


@pytest.mark.parametrize("inward", [True, False])
def test_two_of_three_go_on_when_one_can_only_speak_or_only_listen(inward: bool) -> None:
    with Stage() as stage:
        world = stage.world
        for name in stage.followers():
            world.wires.isolate(name, world.names, inward=inward, outward=not inward)
            world.run(4.0)
            leader = stage.leader()
            assert leader != name
            stage.written(leader, 3)
            world.wires.heal()
            world.run(4.0)
        assert stage.problems() == []


def test_a_member_that_reaches_both_halves_of_five_leads_or_follows_in_peace() -> None:
    with Stage(members=5) as stage:
        world = stage.world
        world.run(1.0)
        for left, right in ((0, 3), (0, 4), (1, 3), (1, 4)):
            a, b = world.names[left], world.names[right]
            world.wires.cut |= {(a, b), (b, a)}  # n3 is the bridge
        world.run(5.0)
        leader, term = stage.leader(), stage.node(stage.leader()).term()
        stage.written(leader, 3)
        world.run(10.0)
        assert (stage.leader(), stage.node(leader).term()) == (leader, term)
        stage.written(leader, 3)
        assert stage.problems() == []


def test_a_node_that_stops_says_when_its_state_could_not_keep_the_last_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[tuple[str, object]] = []

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with Stage() as stage:
        monkeypatch.setattr(applying, "OPEN_S", 60.0)
        monkeypatch.setattr(NodeLogger, "warning", lambda _, event, **fields: warnings.append((event, fields["why"])))
        process = stage.process(stage.followers()[0])
        node = stage.node(process.name)
        stage.written(stage.leader())
        assert stage.world.run(2.0, lambda: bool(node.machine._open))
        monkeypatch.setattr(node.machine._state, "commit", fail)
        process.leave()
        assert stage.world.run(10.0, lambda: process.node is None)
        assert warnings == [("stopped_without_last_commit", "OperationalError: disk I/O error")]
        process.boot()
        assert stage.problems() == [], "and the next start finds them in the log"
