"""What it costs one node to apply entries: the machine alone, on a file of its own, without log, network or callers.

``python -m benchmarks.applying`` (with ``--json``: one line of JSON per workload) applies entries as a leader would make
them and prints, for each task or message, microseconds of processor time (of the process, so that others on the machine
disturb it less), SQL statements, function calls (Python's and C's, as cProfile counts them), bytes written to SQLite's log,
and the microseconds that the node spends on telling who waits, counters and histories of it. Microseconds are the smallest
of the rounds; statements, calls and bytes are those of one more round and the same in every run. There are as many
receipts as may be, as after some seconds of load.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import itertools
import json
import pstats
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from quorl.client import load
from quorl.cluster.consensus.statefile import STATE_NAME, SqliteStateFiles
from quorl.cluster.machine import ids
from quorl.cluster.machine.machine import Applied, Machine
from quorl.cluster.node.lately import Durations, Timelines
from quorl.cluster.node.meters import Meters
from quorl.cluster.node.recorder import Recorder
from quorl.cluster.node.watch import Watch
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import Entry, Sealed, SignOfLife, encode_command, encode_entry
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.system import Found

ROUNDS = 5
TASKS = 3_200
WORKERS = 16
MANY = 32
QUEUE = "work"
TOPIC = "lines"
START_MS = 1_764_000_000_000
STEP_MS = 5
"""Cluster time from one entry to the next."""
_ARGS = msgspec.Raw(b"[" + load.payload() + b"]")


class Held(NamedTuple):
    """A lease that is to be settled with a later entry."""

    worker_id: int
    task_id: str
    token: int


class Bench:
    """A machine on a file, with the leader's part of the entries: clock, keys, signs of life."""

    def __init__(self, directory: Path, share: int = 1) -> None:
        self._share = share
        self._files = SqliteStateFiles(directory)
        self._wal = directory / f"{STATE_NAME}-wal"
        self.connection = self._files.open()
        self.machine = Machine(self.connection)
        self._numbers = itertools.count()
        self._now_ms = 0
        self._turn = 0
        self._held: deque[Held] = deque()
        self._told = Telling()
        self.applying_s = self.telling_s = 0.0
        workers = [
            w.RegisterWorker(name=f"w{one}", queues=(QUEUE,), heartbeat_ms=20_000, dead_after_ms=60_000)
            for one in range(WORKERS)
        ]
        self.entry(t.CreateTopic(name=TOPIC), *workers)

    def entry(self, *commands: Command[Any]) -> list[Any]:
        """Apply the commands in one entry, each under a key as clients make it."""
        sealed, signs = [], dict[int, SignOfLife]()
        for command in commands:
            blob = encode_command(command)
            digest = hashlib.blake2b(blob, digest_size=16).digest()
            sealed.append(Sealed(f"0123456789abcdef-{next(self._numbers):012d}", digest, blob))
            claims = command.claims if isinstance(command, g.ClaimBatch) else [command]
            for one in claims:
                if isinstance(one, c.Claim | c.Settle | g.Seat):
                    signs[one.worker_id] = SignOfLife(one.worker_id)
        self._now_ms += STEP_MS
        number = self.machine.position.index + 1
        entry = Entry(self._now_ms, START_MS + self._now_ms, tuple(sealed), number * 7919, "n1", tuple(signs.values()))
        payload = encode_entry(entry)
        before_s = time.process_time()
        applied = self.machine.apply(number, 1, payload, leave_open=bool(number % self._share))
        between_s = time.process_time()
        self._told.applied(applied)
        self.applying_s += between_s - before_s
        self.telling_s += time.process_time() - between_s
        return [outcome.value for outcome in applied.outcomes]

    def fill(self) -> None:
        """Keep as many receipts as may be."""
        for _ in range(limits.RECEIPTS_MAX // limits.ENTRY_COMMANDS_MAX):
            self.entry(*[Found(cluster_id="bench")] * limits.ENTRY_COMMANDS_MAX)

    def note(self, granted: c.Granted | g.Share) -> None:
        """Remember what a claim was granted; the worker learns the ids when the answer is read."""
        marks = ", ".join("?" * len(granted.grants))
        rows = self.connection.execute(
            f"SELECT ordinal, {ids.of('tasks')} FROM tasks WHERE ordinal IN ({marks})",
            [one.ordinal for one in granted.grants],
        )
        named = dict(rows.fetchall())
        self._held += [Held(granted.worker_id, named[one.ordinal], one.token) for one in granted.grants]

    def take(self, count: int) -> list[Held]:
        """The leases that are settled next."""
        return [self._held.popleft() for _ in range(min(count, len(self._held)))]

    def next_worker(self) -> int:
        """Whose turn it is."""
        self._turn += 1
        return self._turn % WORKERS + 1

    def checkpoint(self) -> None:
        """Begin the write-ahead log anew."""
        self.machine.close_open()
        self._files.checkpoint()
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def wal_bytes(self) -> int:
        """How long the write-ahead log is."""
        return self._wal.stat().st_size

    def close(self) -> None:
        """End it."""
        self.connection.close()


class Telling:
    """What a node does with the events of an entry, but for what only a leader does or somebody must look at."""

    def __init__(self) -> None:
        self._watch = Watch(time.monotonic)
        self._others = (Recorder(time.monotonic), Durations(time.monotonic), Timelines(), Meters())

    def applied(self, applied: Applied) -> None:
        """An entry was applied."""
        self._watch.applied(applied.sequence, applied.events)
        for one in self._others:
            one.applied(applied.events)


# -- workloads -----------------------------------------------------------------------------------------------------
def tasks_by_many(bench: Bench, tasks: int) -> None:
    """Entries with one submit of 32 tasks, one sync's reports on 32 and its claim of 32."""
    for _ in range(tasks // MANY):
        commands: list[Command[Any]] = [_submit(MANY)]
        held = bench.take(MANY)
        worker_id = held[0].worker_id if held else bench.next_worker()
        if held:
            done = tuple([c.Done(one.task_id, one.token, b"null") for one in held])
            commands.append(c.Settle(worker_id=worker_id, complete=done))
        commands.append(c.Claim(worker_id=worker_id if held else bench.next_worker(), max=MANY))
        bench.note(bench.entry(*commands)[-1])


def tasks_singly(bench: Bench, tasks: int) -> None:
    """Entries with 16 submits, 16 claims and 16 completions of one task each."""
    for _ in range(tasks // 16):
        commands: list[Command[Any]] = [_submit(1) for _ in range(16)]
        commands += [c.Complete(id=one.task_id, lease=one.token, result=b"null") for one in bench.take(16)]
        commands += [c.Claim(worker_id=bench.next_worker()) for _ in range(16)]
        for granted in bench.entry(*commands)[-16:]:
            bench.note(granted)


def tasks_together(bench: Bench, tasks: int) -> None:
    """The same, as a client sends them that makes 16 of each at a time: one command of each kind."""
    for _ in range(tasks // 16):
        commands: list[Command[Any]] = [_submit(16)]
        if held := bench.take(16):
            commands.append(g.ReportBatch(complete=tuple([c.Done(one.task_id, one.token, b"null") for one in held])))
        commands.append(g.ClaimBatch(claims=tuple([g.Seat(bench.next_worker(), (), 1, 0) for _ in range(16)])))
        for share in bench.entry(*commands)[-1].items:
            bench.note(share)


def appends_of(each: int, calls: int) -> Callable[[Bench, int], None]:
    """Entries with so many appends of so many messages."""

    def run(bench: Bench, messages: int) -> None:
        command = t.Append(topic=TOPIC, messages=load.payloads().messages(each)).sealed().packed()
        for _ in range(messages // (each * calls)):
            bench.entry(*[command] * calls)

    return run


def _submit(count: int) -> s.SubmitBatch:
    return s.Submit(queue=QUEUE, tasks=[s.NewTask(name="nothing", args=_ARGS) for _ in range(count)]).sealed()


WORKLOADS: dict[str, tuple[Callable[[Bench, int], None], int]] = {
    "task-32": (tasks_by_many, TASKS),
    "task-1": (tasks_singly, TASKS),
    "task-1-together": (tasks_together, TASKS),
    "append-1": (appends_of(1, 1), TASKS),
    "append-1-by-16": (appends_of(1, 16), TASKS),
    "append-1-by-64": (appends_of(1, 64), TASKS),
    "append-500": (appends_of(500, 1), 32_000),
}
"""What one round does, and with how many tasks or messages."""


# -- measuring -----------------------------------------------------------------------------------------------------
def measure(name: str, directory: Path, rounds: int, *, full: bool, share: int = 1) -> dict[str, float]:
    """The figures of one workload, after as many receipts as may be or a short one after none."""
    run, things = WORKLOADS[name]
    bench = Bench(directory, share)
    if full:
        bench.fill()
    else:
        things //= 4
    run(bench, things)  # whatever is done for the first time
    best_us, telling_us = [], []
    for _ in range(rounds):
        bench.checkpoint()
        bench.applying_s = bench.telling_s = 0.0
        run(bench, things)
        best_us.append(1e6 * bench.applying_s / things)
        telling_us.append(1e6 * bench.telling_s / things)
    bench.checkpoint()
    statements = 0

    def count(_statement: str) -> None:
        nonlocal statements
        statements += 1

    machine, real = bench.machine, bench.machine.apply
    profiler = cProfile.Profile()

    def counted(index: int, term: int, payload: bytes, *, leave_open: bool = False) -> Applied:
        bench.connection.set_trace_callback(count)
        profiler.enable()
        try:
            return real(index, term, payload, leave_open=leave_open)
        finally:
            profiler.disable()
            bench.connection.set_trace_callback(None)

    machine.apply = counted  # type: ignore[method-assign]
    run(bench, things)
    calls = cast("Any", pstats.Stats(profiler)).total_calls
    written = bench.wal_bytes()
    bench.close()
    return {
        "us": round(min(best_us), 2),
        "statements": round(statements / things, 3),
        "calls": round(calls / things, 2),
        "wal_bytes": round(written / things),
        "telling_us": round(min(telling_us), 2),
    }


def figures(
    names: Sequence[str], rounds: int, *, full: bool = True, share: int = 1
) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure workloads, each on a fresh file."""
    for name in names:
        with tempfile.TemporaryDirectory() as directory:
            yield name, measure(name, Path(directory), rounds, full=full, share=share)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.applying", description=__doc__)
    parser.add_argument("workloads", nargs="*", choices=[[], *WORKLOADS], help="all of them without")
    parser.add_argument("--json", action="store_true", help="one line of JSON per workload")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--share", type=int, default=1, help="so many entries share a transaction; a node lets those of 10 ms"
    )
    given = parser.parse_args(arguments)
    if not given.json:
        print("| workload | µs | statements | calls | bytes of SQLite's log | µs of telling |")
        print("| --- | --- | --- | --- | --- | --- |")
    for name, found in figures(given.workloads or list(WORKLOADS), given.rounds, share=given.share):
        if given.json:
            print(json.dumps({"workload": name, **found}), flush=True)
        else:
            print(f"| {name} | {' | '.join(f'{number:,}' for number in found.values())} |", flush=True)


if __name__ == "__main__":
    main()
