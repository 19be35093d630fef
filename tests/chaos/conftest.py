"""Clusters for the faults, and how long they are to last."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.load import Load
from tests.harness import LocalCluster, cluster_in

ROUNDS = int(os.environ.get("QUORL_CHAOS_ROUNDS", "1"))
"""How often each fault is repeated within its test; ``make chaos`` asks for more."""
SEED = int(os.environ.get("QUORL_CHAOS_SEED", random.SystemRandom().randrange(10**6)))

Start = Callable[..., tuple[LocalCluster, Load]]


@pytest.fixture
def rounds() -> int:
    return ROUNDS


@pytest.fixture
def dice() -> random.Random:
    print(f"QUORL_CHAOS_SEED={SEED}")
    return random.Random(SEED)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a cluster whose log is trimmed often, and clients that keep it busy."""
    with ExitStack() as stack:

        def starting(**raft: Any) -> tuple[LocalCluster, Load]:
            cluster = stack.enter_context(cluster_in(tmp_path / "cluster", sections={"raft": raft}))
            load = stack.enter_context(Load(cluster.urls, tmp_path / "history.jsonl"))
            return cluster, load

        yield starting
