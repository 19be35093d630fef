"""``python -m tests.simulation.mutants [NAME…]``: take one repair away, and see the simulation go red.

A simulation that cannot fail proves nothing. Every repair has a mutant; those of real sockets and directories, which a
simulated world does without, are tried on scenes of their own (``scenes_real``). Each mutant throws switches, plays seeds until one fails, and is *caught*
by it; one that outlives all its seeds shows that a fault, a check or a seed is missing here. Exit code 1 then.
"""

from __future__ import annotations

import itertools
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import NamedTuple

import pytest

from tests.simulation import scenes, scenes_disk, scenes_real, scenes_words
from tests.simulation.mutant import Mutant
from tests.simulation.scenario import play
from tests.simulation.scenes import Scene
from tests.simulation.scenes_words import NeverStaged
from tests.simulation.switches import SWITCHES
from tests.simulation.task_mutants import TASK_MUTANTS
from tests.simulation.world import World

SEEDS_MAX = 400
WORKERS = 2


class Caught(NamedTuple):
    """The end of a mutant; no seed if it lives."""

    name: str
    seed: int | None
    report: str
    played: int
    real_s: float


def _lying(seed: int) -> list[str]:
    def lie(world: World) -> None:
        for process in world.processes.values():
            process.disk.lying = True

    return play(seed, lie).problems


def _one(name: str, *seeds: int) -> Mutant:
    return Mutant(name, (name,), seeds)


def _scene(name: str, scene: Scene) -> Mutant:
    return Mutant(name, (name,), (), lambda seed: scene(seed + 1))


MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        Mutant("lying_disk", (), (), _lying, "A sync returns, and nothing is durable."),
        _scene("barrier", scenes.power_after_yes),
        _scene("leader_barrier", scenes.power_after_yes),
        _one("vote_durable", 3),
        _one("vote_once", 1),
        _scene("commit_clamp", scenes.half_known_tail),
        _scene("snapshot_commit_clamp", scenes.orphan_and_snapshot),
        _one("truncation_guard", 23),
        _one("conflict_hint", 75),
        _one("pre_vote", 24),
        _scene("sticky_leader", scenes.half_seen_leader),
        _one("step_down", 2),
        _one("crc", 14),
        _one("cut_everything", 9),
        _one("refuse_everything", 42),
        _one("blank", 1),
        _one("blank_forever"),
        _scene("birth", scenes.birth),
        _scene("birth_votes", scenes.half_born),
        _one("snapshot_reset"),
        _one("reset_note", 40),
        _one("trim_note"),
        _one("trim_below_checkpoint", 42),
        _one("apply_once"),
        Mutant("applied_twice", ("apply_once", "applied_twice")),
        _scene("flush_begun", scenes.power_during_flush),
        _one("kept_prepared", 75),
        _one("prepared_seen"),
        _scene("open_forgotten", scenes_disk.poison_behind_open),
        _one("word_once"),
        _one("receipts_kept"),
        _one("receipt_digest"),
        _one("unknown_is_unknown", 26),
        _one("outcome_colours", 66),
        _one("read_barrier", 1),
        _scene("late_barrier", scenes.late_barrier),
        _one("relay_wait", 8),
        _one("cluster_time", 10),
        _one("calendar_holds", 10),
        _one("producer_ids"),
        _one("consume_key"),
        _scene("full_disk", scenes.full_partner),
        _one("one_probe", 35),
        _one("apply_budget"),
        _one("watch_wake"),
        _scene("cut_sync", scenes_disk.power_in_a_cut),
        _scene("fsync_fatal", scenes_disk.failing_sync),
        _scene("fail_stop", scenes_disk.state_fails),
        _scene("poison", scenes_disk.poisoned_command),
        _scene("floor", scenes_disk.rotten_end),
        _scene("resigns", scenes_disk.full_at_the_election),
        _scene("append_undone", scenes.full_partner),
        _scene("stale_ack", scenes_words.late_acknowledgement),
        _scene("snapshot_ack", scenes_words.orphans_trimmed),
        _scene("term_hint", scenes_words.old_leader_told),
        _scene("members_only", scenes_words.stranger),
        _scene("distinct_votes", scenes_words.votes_twice),
        _scene("big_window", scenes_words.slow_reader),
        _scene("keep_for_followers", scenes_words.slow_follower),
        _scene("applied_before_told", scenes_words.caller_gone),
        _one("ask_back"),
        _one("one_hint", 20),
        _one("library_apply"),
        _one("library_forwards"),
        _one("queueing"),
        _scene("one_process", scenes_real.two_processes),
        _scene("copy_checked", scenes_real.damaged_copy),
        _scene("accept_retried", scenes_real.lack_of_descriptors),
        _scene("handshake_deadline", scenes_real.silent_strangers),
        _scene("early_frames", scenes_real.endless_stranger),
        _scene("proof", scenes_real.wrong_secret),
        _scene("fence", scenes_real.late_frames),
    )
} | TASK_MUTANTS


def hunt(name: str, seeds_max: int = SEEDS_MAX) -> Caught:
    """Play a mutant's seeds until one fails."""
    mutant, started, played = MUTANTS[name], time.perf_counter(), 0
    for seed in itertools.chain(mutant.seeds, range(seeds_max)):
        report = strike(mutant, seed)
        played += 1
        if report is not None:
            return Caught(name, seed, report, played, time.perf_counter() - started)
    return Caught(name, None, "", played, time.perf_counter() - started)


def strike(mutant: Mutant, seed: int) -> str | None:
    """Play one seed with the repair taken away; what was reported, None if nothing was."""
    with pytest.MonkeyPatch.context() as patch:
        for name in mutant.switches:
            SWITCHES[name](patch.setattr)
        try:
            problems = mutant.play(seed)
        except NeverStaged:
            return None
        except Exception as error:
            return f"ended by {error!r}"
    return problems[0] if problems else None


def main(names: list[str]) -> int:
    """Hunt the mutants of those names, or all; 1 if any lives."""
    with ProcessPoolExecutor(WORKERS) as pool:
        alive = 0
        for done in as_completed([pool.submit(hunt, name) for name in names or MUTANTS]):
            caught = done.result()
            alive += caught.seed is None
            where = "LIVES" if caught.seed is None else f"seed {caught.seed}"
            effort = f"{caught.played} seeds, {caught.real_s:.0f} s"
            print(f"{caught.name:22} {where:10} {effort:18} {MUTANTS[caught.name].describe()}", flush=True)
            if caught.seed is not None:
                print(f"{'':22} {caught.report[:150]}", flush=True)
    print(f"{len(names or MUTANTS)} mutants, {alive} alive")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
