"""Real clusters: one that a whole module shares and leaves standing, and one for each test that breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import CALM, LocalCluster, cluster_in


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster for tests that harm nobody, and in which nothing happens by itself; each uses topics of its own."""
    with cluster_in(tmp_path_factory.mktemp("cluster"), sections=CALM) as cluster:
        yield cluster


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster for one test, which may do to it what it likes."""
    with cluster_in(tmp_path / "cluster") as cluster:
        yield cluster
