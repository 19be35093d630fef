"""A machine that leaves open, prepares, takes back, loses and brings back, beside a twin that applies plainly: nobody sees a difference."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quorl.cluster.consensus.statefile import SqliteStateFiles
from quorl.cluster.machine import books, receipts, topics
from quorl.cluster.machine import state as states
from quorl.cluster.machine.check import check
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.machine.machine import Machine
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import Entry, SignOfLife, encode_entry
from quorl.cluster.protocol.grammar import Command, Query
from tests.machine.rig import START_MS, _filled, message, seal

SEEDS, STEPS = 16, 60
KEYS = 40
"""So many keys: some requests are repeats, some come with the key of another."""
READS: tuple[Query[Any], ...] = (
    t.ListTopics(),
    t.Browse(topic="a", partition=0, start="earliest"),
    q.ListQueues(),
    w.ListWorkers(),
    k.ListTasks(),
)
LogEntry = tuple[int, int, bytes]


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receipts and graves are cleared away all the while."""
    monkeypatch.setattr(limits, "PURGED_ROWS_PER_ENTRY", 5)
    monkeypatch.setattr(limits, "PURGED_ROWS_PER_COMMAND", 0)
    monkeypatch.setattr(limits, "RECEIPTS_LOOSE_BYTES", 300)
    monkeypatch.setattr(limits, "RECEIPTS_MAX", 20)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has that name fails alike everywhere, after it has changed rows."""
    for name in ("create_topic", "register_producer"):
        careful = getattr(topics, name)

        def bug(state: State, command: Any, careful: Callable[..., object] = careful) -> object:
            done = careful(state, command)
            if command.name == "poison":
                raise ValueError("a bug")
            return done

        monkeypatch.setattr(topics, name, bug)


class Drawn:
    """Commands that meet one another: few names, leases that run, keys that come again."""

    def __init__(self, dice: random.Random, leases: dict[int, states.Lease]) -> None:
        self._dice = dice
        self._now_ms = 0
        self._leases = leases

    def entry(self) -> bytes:
        dice = self._dice
        self._now_ms += dice.choice([0, 1, 5, 10, 50, 100, dice.choice([5, 5, 5, 12_000])])
        if dice.random() < 0.02:
            return b"\xc1"
        sealed = tuple(
            seal(self._command(), dice.choice([None, f"key {dice.randrange(KEYS)}"]))
            for _ in range(dice.choice([0, 1, 1, 2, 4, 8]))
        )
        signs = tuple(SignOfLife(worker_id) for worker_id in range(1, 4) if dice.random() < 0.5)
        return encode_entry(
            Entry(
                self._now_ms,
                START_MS + self._now_ms,
                sealed,
                dice.randrange(10**6),
                dice.choice(["n1", "n2"]),
                signs,
                refresh=dice.random() < 0.05,
            )
        )

    def _command(self) -> Command[Any]:
        dice = self._dice
        return dice.choice(
            [self._of_topic, self._of_queue, self._of_lease, self._of_lease, self._of_task, self._of_worker]
        )()

    def _of_topic(self) -> Command[Any]:
        dice, topic = self._dice, self._dice.choice("ab")
        values = [message(dice.randrange(9), dice.choice([None, "k"])) for _ in range(dice.randint(1, 4))]
        append = t.Append(topic=topic, messages=values)
        consume = t.Consume(
            topic=topic, consumer_id=dice.randint(1, 2), max=dice.choice([1, 5]), wait=dice.choice([0, 1])
        )
        seldom: list[Command[Any]] = [
            t.CreateTopic(name=topic, partitions=dice.choice([1, 3])),
            t.CreateTopic(name=topic),
            t.RegisterConsumer(topic=topic),
            t.DeleteTopic(topic=topic),
            t.CreateTopic(name="poison"),
            t.RegisterProducer(topic=topic, name=dice.choice(["", "poison"])),
        ]
        return dice.choice([append, append, consume, dice.choice(seldom)])

    def _of_queue(self) -> Command[Any]:
        dice, queue = self._dice, self._dice.choice("xyz")
        tasks = [
            s.NewTask(
                id=dice.choice([None, f"task{dice.randrange(12)}"]),
                name="add",
                timeout_ms=dice.choice([None, 50]),
                delay_ms=dice.choice([0, 30]),
            )
            for _ in range(dice.randint(1, 3))
        ]
        put = q.PutQueue(
            queue=queue,
            partitions=dice.choice([0, 0, 2]),
            keep_finished_ms=dice.choice([0, 500, 5000]),
            max_depth=dice.choice([0, 5]),
        )
        submit = s.Submit(queue=queue, tasks=tasks)
        return dice.choice(
            [
                *[submit] * 8,
                put,
                q.PatchQueue(queue=queue, paused=False),
                q.DeleteQueue(queue=queue),
                q.PurgeQueue(queue=queue),
            ]
        )

    def _of_task(self) -> Command[Any]:
        task = f"task{self._dice.randrange(12)}"
        return self._dice.choice([k.CancelTask(id=task), k.RetryTask(id=task), k.ForgetTask(id=task)])

    def _of_lease(self) -> Command[Any]:
        dice = self._dice
        claim = c.Claim(worker_id=dice.randint(1, 3), max=dice.randint(1, 4), wait=dice.choice([0, 1]))
        if not self._leases or dice.random() < 0.5:
            return claim
        token, lease = dice.choice([*self._leases.items()])
        return dice.choice(
            [
                *[c.CompleteTask(id=lease.id, lease=token, result=msgspec.Raw(b"1"))] * 3,
                c.FailTask(id=lease.id, lease=token),
                c.ReleaseTask(id=lease.id, lease=token),
                c.HoldTask(id=lease.id, lease=token),
            ]
        )

    def _of_worker(self) -> Command[Any]:
        dice = self._dice
        register = w.RegisterWorker(
            name=f"worker{dice.randrange(3)}",
            queues=tuple(dice.sample("xyz", 2)),
            heartbeat_ms=100,
            dead_after_ms=3000,
            standby=dice.random() < 0.2,
        )
        return dice.choice([*[register] * 5, w.RemoveWorker(worker_id=dice.randint(1, 4))])


class Twins:
    """The machine that is put to the test on files, with the log that brings back what it loses, and the one that is right."""

    def __init__(self, directory: Path, dice: random.Random) -> None:
        self.dice = dice
        self.states = SqliteStateFiles(directory / "one")
        self.open()
        self.twin = Machine(SqliteStateFiles(directory / "twin").open())
        self.drawn = Drawn(dice, self.twin._state.leases)
        self.log: list[LogEntry] = []

    def open(self) -> None:
        self.connection = self.states.open()
        self.machine = Machine(self.connection, self.states.open_reader)

    # -- what becomes of an entry ---------------------------------------------------------------------------------
    def step(self) -> None:
        """The next entry, by both."""
        dice = self.dice
        index = (self.log[-1][0] if self.log else 0) + dice.choice([1, 1, 1, 2])
        entry = index, 1 + index // 40, self.drawn.entry()
        wanted = self.twin.apply(*entry)
        if dice.random() < 0.3:
            self.prepare(entry)
        if dice.random() < 0.1:
            self.interrupt(entry)
        else:
            assert self.machine.apply(*entry, leave_open=dice.random() < 0.8) == wanted
        self.log.append(entry)
        self.bring_back()
        if dice.random() < 0.3:
            dice.choice([self.machine.close_open, self.machine.reload, self.crash, self.lose, self.checkpoint])()
        self.same()
        for outcome in wanted.outcomes:
            if dice.random() < 0.2:
                assert self.machine.render(outcome.value) == self.twin.render(outcome.value)

    def prepare(self, entry: LogEntry) -> None:
        """As a leader does, whose entry may be another than the one that is committed."""
        dice, machine = self.dice, self.machine
        machine.close_open()
        before = machine.position
        machine.prepare(*(entry if dice.random() < 0.8 else (entry[0], entry[1] + 1, self.drawn.entry())))
        assert machine.position == before
        if dice.random() < 0.4:
            dice.choice([machine.retract, self.lose, self.crash])()
        assert self.machine.position == before

    def interrupt(self, entry: LogEntry) -> None:
        """Something that only this machine meets ends an entry anywhere, and with it what is open."""
        steps = iter(range(self.dice.randrange(60)))
        self.connection.set_progress_handler(lambda: next(steps, None) is None, 5)
        try:
            self.machine.apply(*entry, leave_open=self.dice.random() < 0.5)
        except sqlite3.OperationalError:
            self.connection.set_progress_handler(None, 0)
            self.machine.reload()
        self.connection.set_progress_handler(None, 0)

    def lose(self) -> None:
        """What SQLite does when a read fails."""
        self.connection.rollback()

    def crash(self) -> None:
        """The process ends, and begins anew."""
        self.machine.close()
        self.open()
        self.bring_back()

    def bring_back(self) -> None:
        """Apply what the log has more than the machine."""
        for entry in self.log[-STEPS:]:
            if entry[0] > self.machine.position.index:
                self.machine.apply(*entry, leave_open=self.dice.random() < 0.5)

    def checkpoint(self) -> None:
        """The file and a copy of it are what was ended, never more."""
        index = self.states.checkpoint()
        assert index == self.states.copy().index <= self.machine.position.index

    # -- what is seen of it ---------------------------------------------------------------------------------------
    def same(self) -> None:
        """Whether both show the same."""
        one, twin = self.machine, self.twin
        assert (one.position, one.now_ms, one.digest) == (twin.position, twin.now_ms, twin.digest)
        for query in self.dice.sample(READS, 2):
            assert one.query(query) == twin.query(query)
        if self.dice.random() < 0.3:
            assert content_digest(one._readable_from) == content_digest(twin._readable_from)
            self.receipts_as_read()

    def receipts_as_read(self) -> None:
        """What is remembered of receipts must be what their rows say."""
        if (remembered := self.machine._state.receipt_rows) is not None:
            anew = State(self.connection)
            receipts.known(anew, "", "")
            assert _filled(remembered) == _filled(anew.receipt_rows)


@pytest.fixture(params=range(SEEDS))
def twins(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Twins]:
    dice = random.Random(request.param)
    for module, name in (
        (books, "_QUEUES_REMEMBERED_MAX"),
        (books, "_WORKERS_REMEMBERED_MAX"),
        (states, "_TOPICS_REMEMBERED_MAX"),
        (states, "_LEASES_REMEMBERED_MAX"),
    ):
        monkeypatch.setattr(module, name, dice.choice([1, getattr(module, name)]))
    made = Twins(tmp_path, dice)
    yield made
    made.machine.close()
    made.twin.close()


def test_d5_nothing_that_becomes_of_a_transaction_is_seen(twins: Twins) -> None:
    for _ in range(STEPS):
        twins.step()
    twins.machine.close_open()
    assert content_digest(twins.connection) == content_digest(twins.twin._state.connection)
    assert not check(twins.connection)
