"""The founding pair: a file of tasks and the workers that run them, while one of these and the leader are killed.

    python -m examples.tasks              # starts three nodes of its own, and stops them at the end

``tasks.txt`` holds good, bad and slow tasks in the spelling of the first task queue and ends with the line ``end``. It is fed
by ``quorl task import`` into three partitions, which three workers share. One of these crashes on purpose between its
third and its fifth task; a stand-by takes its place. Half way the leader is killed with -9. In the end everything is
read back and counted: every task is a SUCCESS or FAILED, a FAILED one ran three times and has three tracebacks, and
nothing was completed twice.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from examples import ROOT
from examples.demo import LeaderKill, own_cluster, same_everywhere, say
from quorl.client import Client
from quorl.client.local.laptop import Refused
from quorl.client.local.processes import LocalCluster, NodeFailed, until
from quorl.cluster.protocol import tasks as k

DATA = ROOT / "data" / "tasks"
FILE = ROOT / "examples" / "tasks.txt"
QUEUE = "founding tasks"
PARTITIONS = 3
ATTEMPTS = 3
NAMES: Mapping[str, Sequence[str]] = {
    "worker 1": (),
    "worker 2": (),
    "crashing": ("--crash-between", "3", "5"),
    "stand-by": ("--standby",),
}
HANDLERS = "quorl.demo:app"
"""Add, subtract, multiply, divide, sleep and flaky, as in the founding systems."""
PATIENCE_S = 120.0


class Share(NamedTuple):
    """What one worker did, and how its process ended."""

    worker: str
    succeeded: int
    failed: int
    lost: int
    exit_code: int


class Verdict(NamedTuple):
    """What came of it."""

    tasks: int
    succeeded: int
    failed: int
    unfinished: int
    wrongly_failed: int
    """FAILED ones without exactly three runs and three tracebacks."""
    completed_twice: int
    run_again: int
    """Tasks whose worker died over them."""
    shares: list[Share]
    longest_gap_s: float
    took_s: float

    @property
    def good(self) -> bool:
        """Whether every promise was kept, and the crash has happened."""
        ends = {share.worker: share.exit_code for share in self.shares}
        crashed = ends.pop("crashing") != 0
        return (
            self.tasks > 0
            and not (self.unfinished or self.wrongly_failed or self.completed_twice)
            and crashed
            and not any(ends.values())
        )


# -- the workers ---------------------------------------------------------------------------------------------------
class Worker:
    """One worker: a process of ``quorl worker run``."""

    def __init__(self, name: str, more: Sequence[str], servers: Sequence[str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name.replace(' ', '-')}.log"
        command = [sys.executable, "-m", "quorl.client.cli", "worker", "run", HANDLERS, "-q", QUEUE, "--name", name]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--concurrency", "1", "--server", ",".join(servers), *more],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> int:
        """Wait for the end of the process and return its exit code."""
        return self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def run(
    servers: Sequence[str],
    directory: Path,
    *,
    lines: Iterable[str] | None = None,
    at_half: Callable[[], None] = lambda: None,
) -> Verdict:
    """Feed the lines, let the workers run them, and judge. ``at_half`` is called when half of all tasks are finished."""
    fed = FILE.read_text(encoding="utf-8").splitlines() if lines is None else list(lines)
    directory.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    workers = [Worker(name, more, servers, directory) for name, more in NAMES.items()]
    try:
        with Client(servers, timeout_s=PATIENCE_S) as client:
            wait_registered(client, workers)
            feed(fed, servers)
            wait_half(client)
            at_half()
            codes = {worker.name: worker.wait() for worker in workers}
            return judge(read_back(client), codes, time.monotonic() - started_s)
    finally:
        for worker in workers:
            worker.stop()


def wait_registered(client: Client, workers: Sequence[Worker]) -> None:
    """Wait until every worker is known to the cluster, so that the partitions are dealt to all of them."""

    def registered() -> bool:
        for worker in workers:
            if worker.process.poll() is not None:
                raise NodeFailed(f"{worker.name} ended at once\n{worker.last_words()}")
        known = {one.name for one in client.workers.list(status="ALIVE", queue=QUEUE)}
        return known >= set(NAMES)

    until(registered, "the workers to register")


def feed(lines: Sequence[str], servers: Sequence[str]) -> None:
    """Pipe the lines through the command line, as anybody would."""
    command = [sys.executable, "-m", "quorl.client.cli", "task", "import", "--queue", QUEUE]
    command += ["--partitions", str(PARTITIONS), "--quiet", "--server", ",".join(servers), "-"]
    text = "".join(line + "\n" for line in lines)
    fed = subprocess.run(
        command,
        input=text,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    say(f"  quorl task import: {fed.stdout.strip()}")


def wait_half(client: Client) -> None:
    """Wait until half of the tasks are finished."""

    def half() -> bool:
        info = client.queues.get(QUEUE)
        return 2 * (info.counts.success + info.counts.failed) >= info.submitted

    until(half, "half of the tasks to finish", PATIENCE_S)


# -- the verdict ---------------------------------------------------------------------------------------------------
def read_back(client: Client) -> list[k.TaskInfo]:
    """Every task with its whole history."""
    found = client.tasks.list(queue=QUEUE, order="oldest", max=1_000_000, consistency="linearizable")
    return [client.tasks.get(one.id) for one in found]


def judge(tasks: Sequence[k.TaskInfo], codes: Mapping[str, int], took_s: float) -> Verdict:
    """Count what was promised, and who did what."""
    runs = [attempt for task in tasks for attempt in task.history]
    outcomes = Counter((attempt.worker, attempt.outcome) for attempt in runs)
    failed = [task for task in tasks if task.status == "FAILED"]
    ended = sorted(
        attempt.ended_at for attempt in runs if attempt.ended_at and attempt.outcome in {"success", "failed"}
    )
    moments = [dt.datetime.fromisoformat(text).timestamp() for text in ended]
    return Verdict(
        tasks=len(tasks),
        succeeded=sum(task.status == "SUCCESS" for task in tasks),
        failed=len(failed),
        unfinished=sum(task.status not in {"SUCCESS", "FAILED"} for task in tasks),
        wrongly_failed=sum(not _failed_well(task) for task in failed),
        completed_twice=sum(sum(run.outcome == "success" for run in task.history) > 1 for task in tasks),
        run_again=sum(any(run.outcome == "lost" for run in task.history) for task in tasks),
        shares=[
            Share(name, outcomes[name, "success"], outcomes[name, "failed"], outcomes[name, "lost"], code)
            for name, code in codes.items()
        ],
        longest_gap_s=max((after - before for before, after in pairwise(moments)), default=0.0),
        took_s=took_s,
    )


def _failed_well(task: k.TaskInfo) -> bool:
    tracebacks = [error for error in task.errors if "Traceback" in error.traceback]
    return task.attempts == len(task.errors) == len(tracebacks) == ATTEMPTS


def report(verdict: Verdict) -> str:
    """The verdict as two small tables."""
    rows = [
        ("tasks", f"{verdict.tasks}"),
        ("SUCCESS", f"{verdict.succeeded}"),
        ("FAILED, after three runs with three tracebacks", f"{verdict.failed - verdict.wrongly_failed}"),
        ("FAILED otherwise", f"{verdict.wrongly_failed}"),
        ("not finished", f"{verdict.unfinished}"),
        ("completed twice", f"{verdict.completed_twice}"),
        ("run again since their worker had died", f"{verdict.run_again}"),
        ("longest gap between two reports", f"{verdict.longest_gap_s:.2f} s"),
        ("time", f"{verdict.took_s:.1f} s"),
    ]
    lines = [f"  {what:<48}{figure:>10}" for what, figure in rows]
    lines += ["", f"  {'worker':<16}{'succeeded':>10}{'failed':>8}{'lost':>6}  ended with"]
    for one in verdict.shares:
        end = "exit code 0" if one.exit_code == 0 else f"a crash ({one.exit_code})"
        lines.append(f"  {one.worker:<16}{one.succeeded:>10}{one.failed:>8}{one.lost:>6}  {end}")
    return "\n".join(lines)


# -- by one command ------------------------------------------------------------------------------------------------
def play(cluster: LocalCluster, directory: Path, kill: LeaderKill) -> bool:
    """The whole on a cluster that serves, with the leader killed half way; whether every promise was kept."""
    say(f"\nThe founding tasks: {', '.join(NAMES)}; {PARTITIONS} partitions")
    try:
        verdict = run(cluster.urls, directory, at_half=kill)
    finally:
        kill.finish()
    digest = same_everywhere(cluster)
    say(
        f"  half way, the leader {kill.killed} was killed with -9; {kill.followed_by} took over; {kill.killed} is back\n"
    )
    say(report(verdict))
    say(f"  {'state of the three nodes':<48}{'the same' if digest else 'DIFFERENT':>10}")
    return verdict.good and digest is not None


def main() -> int:
    """Start a cluster, play, stop it."""
    try:
        with own_cluster(DATA) as cluster:
            cluster.start()
            cluster.leader()
            good = play(cluster, DATA, LeaderKill(cluster, after=lambda _: None))
    except (Refused, NodeFailed) as error:
        say(f"{error}\nWhat nodes and workers said is in {DATA.relative_to(ROOT)}.")
        return 1
    say("\nevery task ended as it had to" if good else "\nSOMETHING IS MISSING OR DONE TWICE: see above")
    return 0 if good else 1


if __name__ == "__main__":
    argparse.ArgumentParser(
        description="Play the founding tasks on a cluster of their own, with the leader killed half way."
    ).parse_args()
    sys.exit(main())
