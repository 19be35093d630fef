"""The API of a real node under schemathesis, bounded and seeded; ``make fuzz`` goes on for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.fuzz import fuzz


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_5xx_and_no_answer_that_the_openapi_document_does_not_know(tmp_path: Path) -> None:
    done = fuzz(tmp_path, seed=1, examples=3, seconds=None)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert "Tested: " in done.stdout
