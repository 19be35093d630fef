"""Let schemathesis try the API of a real node: ``python -m tests.api.fuzz --seed 1 --examples 200 --seconds 600``.

It makes calls from the OpenAPI document, good ones and bad ones, and holds every answer against that document: no 5xx, no status,
header or content type that is not in it, no body of another shape, no good call refused, no bad one taken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.harness import cluster_in

HERE = Path(__file__).resolve().parent
PHASES = "examples,coverage,fuzzing"


class Fuzzed(NamedTuple):
    """What became of a run: the exit code is 0 if nothing was found."""

    returncode: int
    output: str
    answers: dict[str, dict[str, int]]
    """For each operation, as ``GET /v1/topics``, how often it was answered with which status."""


def fuzz(directory: Path, *, seed: int, examples: int, seconds: int | None, phases: str = PHASES) -> Fuzzed:
    """Try a cluster of one node, in ``directory``, and go on for so long with new calls."""
    answers = directory / "answers.json"
    st = Path(sys.executable).with_name("st")
    with cluster_in(directory, size=1, sections={"http": {"max_wait_s": 0.05}}) as cluster:
        (url,) = cluster.urls
        options = ["--seed", seed, "--max-examples", examples, "--phases", phases]
        options += [] if seconds is None else ["--max-time", seconds]
        options += ["--include-path-regex", "^/"]  # Without it, the document's own route is left out.
        fixed = ["--no-color", "--warnings", "off", "--generation-database", "none", "--request-timeout", "20"]
        done = subprocess.run(
            [
                str(st),
                "--config-file",
                str(HERE / "schemathesis.toml"),
                "run",
                f"{url}/openapi.json",
                *map(str, options),
                *fixed,
            ],
            cwd=directory,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "tests.api.fuzz_hooks",
                "PYTHONPATH": str(HERE.parents[1]),
                "QUORL_FUZZ_ANSWERS": str(answers),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    told = json.loads(answers.read_bytes()) if answers.exists() else {}
    return Fuzzed(done.returncode, f"{done.stdout}\n{done.stderr}", told)


def main() -> int:
    """Fuzz as long as is asked for, and print what was found."""
    parser = argparse.ArgumentParser(description="Let schemathesis try the API of a real node.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=200, help="calls per operation, at most")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--phases", default=f"{PHASES},stateful")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        done = fuzz(
            Path(directory), seed=asked.seed, examples=asked.examples, seconds=asked.seconds, phases=asked.phases
        )
    print(done.output)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
