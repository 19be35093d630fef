"""``python -m tests.simulation SEED SEEDS``: play seeds, print what broke, and how to replay it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.scenario import Verdict, load_of, play_drawn


def main(argv: list[str]) -> int:
    """Play ``argv[1]`` seeds from ``argv[0]`` on; 1 if any of them failed."""
    first = int(argv[0]) if argv else 0
    count = int(argv[1]) if len(argv) > 1 else 20
    started = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        verdicts = list(pool.map(play_drawn, range(first, first + count), chunksize=4))
    failed = [v for v in verdicts if v.problems]
    for verdict in failed:
        tell(verdict, with_faults=count == 1)
    real_s = time.perf_counter() - started
    print(
        f"{count} seeds from {first}: {len(failed)} failed. {sum(v.virtual_s for v in verdicts):.0f} virtual s in "
        f"{real_s:.0f} s, {sum(v.acknowledged for v in verdicts)} of {sum(v.attempted for v in verdicts)} messages "
        f"acknowledged, {sum(v.looks for v in verdicts)} exact reads, {sum(v.consumed for v in verdicts)} consumed, "
        f"{sum(v.leaders for v in verdicts)} leaderships, {sum(v.snapshots for v in verdicts)} snapshots installed"
    )
    tally = sum((Counter(v.tally) for v in verdicts), Counter())
    print("tasks: " + ", ".join(f"{number} {what}" for what, number in sorted(tally.items())))
    return 1 if failed else 0


def tell(verdict: Verdict, *, with_faults: bool) -> None:
    """Say what a seed broke."""
    print(f"seed {verdict.seed} ({load_of(verdict.seed)}) failed; replay it with: make sim SEED={verdict.seed} SEEDS=1")
    for fault in verdict.faults if with_faults else []:
        print(f"    {fault}")
    for problem in verdict.problems[:8]:
        print(f"  {problem}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
