"""Mutants of tasks and workers, in the table that ``mutants`` joins to its own."""

from __future__ import annotations

from tests.simulation import task_scenes
from tests.simulation.mutant import Mutant
from tests.simulation.scenario import play
from tests.simulation.scenes import Scene


def _one(name: str, *seeds: int) -> Mutant:
    return Mutant(name, (name,), seeds, lambda seed: play(seed, load="tasks").problems)


def _scene(name: str, scene: Scene) -> Mutant:
    return Mutant(name, (name,), (), lambda seed: scene(seed + 1))


TASK_MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        _scene("lease_token", task_scenes.frozen_worker),
        _scene("lease_state", task_scenes.frozen_worker),
        _one("tokens_grow", 1),
        _one("claim_receipt", 6),
        _scene("settle_key", task_scenes.repeated_report),
        _scene("sign_claimed", task_scenes.beat_before_claim),
        _one("sign_waiting", 1),
        _scene("sign_tokens", task_scenes.lost_answer),
        _scene("caller_gone", task_scenes.hung_up),
        _one("result_woken"),
        _scene("parked_woken", task_scenes.parked_together),
        _scene("refresh", task_scenes.changed_leader),
        _scene("beats_replicated", task_scenes.only_beats),
        _scene("signs_first", task_scenes.late_beat),
        _one("wall_clock", 1),
        _one("counted_majority", 20_164),
        _one("dead_let_go", 1),
        _one("silence_noticed", 4),
        _scene("pulse", task_scenes.silent_night),
        _one("due_scheduled"),
        _one("due_retry", 1),
        _one("due_timeout", 1),
        _one("due_expiry"),
        _one("due_calendar"),
        _one("max_lost", 6),
        _one("released_uncounted"),
        _one("released_later"),
        _one("lost_uncounted", 4),
        _scene("replaced_counted", task_scenes.quick_supervisor),
        _scene("retry_history", task_scenes.tried_again),
        _one("cancel_waits", 1),
        _one("seeded_ids", 1),
        _one("seeded_jitter", 4),
        _one("owners", 1),
        _one("standbys", 1),
        _one("paused"),
        _one("turns", 1),
        _one("counts", 1),
        _scene("samples_anew", task_scenes.started_anew),
    )
}
