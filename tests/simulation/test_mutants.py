"""The simulation can fail: a few mutants are caught here, the others by ``python -m tests.simulation.mutants``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.consensus.repairs.switches import SWITCHES as CONSENSUS_SWITCHES
from tests.simulation.mutant import Mutant
from tests.simulation.mutants import MUTANTS, hunt, strike
from tests.simulation.scenes_words import NeverStaged
from tests.simulation.switches import SWITCHES
from tests.simulation.task_switches import TASK_SWITCHES

QUICK = (
    "lying_disk",
    "barrier",
    "pre_vote",
    "vote_once",
    "commit_clamp",
    "late_barrier",
    "birth",
    "birth_votes",
    "receipt_digest",
    "watch_wake",
    "stale_ack",
    "fsync_fatal",
    "fence",
    "lease_token",
    "sign_claimed",
    "caller_gone",
    "beats_replicated",
    "signs_first",
    "owners",
)
STOCK_FIRST, STOCK_SEEDS = 7, 11


@pytest.mark.parametrize("name", QUICK)
def test_a_mutant_is_caught(name: str) -> None:
    assert hunt(name, 20).seed is not None


def test_every_repair_has_a_mutant_of_its_own() -> None:
    alone = {mutant.switches[0] for mutant in MUTANTS.values() if len(mutant.switches) == 1}
    assert set(CONSENSUS_SWITCHES) <= alone
    assert {name for mutant in MUTANTS.values() for name in mutant.switches} == set(SWITCHES)


def test_a_scene_that_does_not_come_to_its_point_catches_nothing() -> None:
    def never(seed: int) -> list[str]:
        raise NeverStaged

    assert strike(Mutant("never", (), (), never), 0) is None
    assert strike(Mutant("broken", (), (), lambda seed: ["BROKEN"]), 0) == "BROKEN"


def test_no_switch_of_two_tables_has_the_same_name() -> None:
    assert len(SWITCHES) > len(CONSENSUS_SWITCHES) + len(TASK_SWITCHES)
    assert all(SWITCHES[name] is switch for name, switch in TASK_SWITCHES.items())
    assert all(SWITCHES[name] is switch for name, switch in CONSENSUS_SWITCHES.items())


def test_every_mutant_says_what_is_switched_off() -> None:
    for mutant in MUTANTS.values():
        assert mutant.describe().endswith("."), mutant.name


def test_the_library_as_shipped_breaks_the_same_promises() -> None:
    # In a process of its own: the library leaves its files open when it is dropped.
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tests.simulation.stock", str(STOCK_SEEDS), str(STOCK_FIRST)]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    played = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root)
    assert played.returncode == 1, played.stderr
    assert f"of {STOCK_SEEDS} seeds failed" in played.stdout
    assert f"seed {STOCK_FIRST}: " in played.stdout
