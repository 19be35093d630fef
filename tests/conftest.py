"""What holds for all tests: where a test lies decides when it runs, and one that fails shows what its nodes said."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import harness

# How long an example takes is a property of the machine, which may stand still for a moment in any of them.
settings.register_profile("quorl", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quorl")

OURS = {"QUORL_TOOLS", "QUORL_CHAOS_ROUNDS", "QUORL_CHAOS_SEED", "QUORL_SCREENSHOTS", "QUORL_FUZZ_ANSWERS"}
"""What the tests are told by whoever runs them."""
THEIRS = re.compile(r"(?i)QUORL_.*|.*_PROXY|COLUMNS|LINES|(NO|FORCE)_COLOR|CLICOLOR(_FORCE)?|PYTHONIOENCODING")
"""What may be set for the programs of whoever runs them, which neither commands nor nodes of tests are to heed."""

for found in [name for name in os.environ if THEIRS.fullmatch(name) and name not in OURS]:
    del os.environ[found]
os.environ["TERM"] = "xterm-256color"  # of the terminals that tests open

MARKS = {
    "simulation": pytest.mark.sim,
    "chaos": pytest.mark.chaos,
    "integration": pytest.mark.chaos,
    "benchmarks": pytest.mark.chaos,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of a folder, so that none can be forgotten."""
    here = Path(__file__).parent
    for item in items:
        for part in item.path.relative_to(here).parts:
            if part in MARKS:
                item.add_marker(MARKS[part])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of the logs of all nodes that run to the report of a failure."""
    report = yield
    if report.failed:
        for cluster in harness.running:
            report.sections += [(f"log of {node.name}", node.last_words(40)) for node in cluster.nodes.values()]
    return report
