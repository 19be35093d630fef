"""What a seed does to its cluster: kills, power cuts, pauses, partitions of every kind, full, failing and lost disks.

A disk is lost (emptied, or damaged so that its node refuses to start and is emptied then) only while a majority of the
members has lost none since all of them last agreed. Anything else may happen to anybody at any time.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from quorl.cluster.consensus import ballot, segment

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.world import Process, World


class Faults:
    """One seed's adversary. ``step`` may do one thing; ``heal`` undoes everything but the past."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self._world = world
        self._dice = dice
        self.done: list[str] = []
        power = dice.random() < 0.5
        self._power = power
        choices: list[tuple[float, Callable[[], None]]] = [
            (2.0, self._isolate),
            (2.0, self._cut_pair),
            (1.5, self._one_way),
            (1.0, self._bridge),
            (4.0, self._mend_wires),
            (3.0, self._kill_some),
            (4.0, self._boot_one),
            (2.0, self._pause_one),
            (3.0, self._resume),
            (1.0, self._slow_wires),
            (1.0, self._wrong_calendar),
            (0.6, self._fill_disk),
            (1.2, self._empty_disks),
            (0.4, self._fail_sync),
            (0.8, self._die_in_disk_operation),
            (1.0, self._remember_states),
            (1.5, self._blink),
            (1.0, self._slow_link),
            (1.5, self._leave),
            (1.0, self._wipe),
            (1.0, self._rot),
        ]
        # Each seed forgets some kinds of fault, so that the others meet in purer forms.
        self._lost: set[str] = set(world.names)
        self._choices = [(w, f) for w, f in choices if dice.random() < 0.75]

    def step(self) -> None:
        """Maybe do something."""
        if self._lost and self._world.agreed():
            self._lost.clear()
        if self._choices and self._dice.random() < 0.25:
            weights, acts = zip(*self._choices, strict=True)
            self._dice.choices(acts, weights)[0]()

    def heal(self) -> None:
        """End every fault and start everything."""
        world = self._world
        self._mend_wires()
        world.wires.latency_s, world.wires.spikes = 0.002, 0.0
        self._empty_disks()
        for process in world.processes.values():
            process.paused = False
            process.disk.fail_sync = False
            process.disk.dies_in = None
        world.boot_all()

    # -- wires -----------------------------------------------------------------------------------------------------
    def _say(self, text: str) -> None:
        self.done.append(f"{self._world.clock.now - 1000:.2f} {text}")

    def _isolate(self) -> None:
        name = self._dice.choice(self._world.names)
        self._say(f"isolate {name}")
        self._world.wires.isolate(name, self._world.names)

    def _one_way(self) -> None:
        name = self._dice.choice(self._world.names)
        inward = self._dice.random() < 0.5
        self._say(f"one way {name} {'in' if inward else 'out'}")
        self._world.wires.isolate(name, self._world.names, inward=inward, outward=not inward)

    def _cut_pair(self) -> None:
        a, b = self._dice.sample(self._world.names, 2)
        self._say(f"cut {a} {b}")
        self._world.wires.cut |= {(a, b), (b, a)}

    def _bridge(self) -> None:
        """Two halves that meet in one member only."""
        names = list(self._world.names)
        self._dice.shuffle(names)
        half = len(names) // 2
        self._say(f"bridge at {names[half]}")
        for a in names[:half]:
            for b in names[half + 1 :]:
                self._world.wires.cut |= {(a, b), (b, a)}

    def _mend_wires(self) -> None:
        if self._world.wires.cut:
            self._say("mend wires")
        self._world.wires.heal()

    def _blink(self) -> None:
        """The leader is cut off just long enough for another one to come up, or nearly."""
        wires, leader = self._world.wires, self._world.leader()
        if leader is not None and not wires.cut:
            self._say(f"blink {leader}")
            wires.isolate(leader, self._world.names)
            self._world.later(self._dice.uniform(0.5, 1.5), wires.heal)

    def _slow_link(self) -> None:
        a, b = self._dice.sample(self._world.names, 2)
        self._world.wires.slow[a, b] = self._dice.choice([0.05, 0.3, 0.8])
        self._say(f"slow {a} to {b}: {self._world.wires.slow[a, b]}")

    def _slow_wires(self) -> None:
        self._world.wires.latency_s = self._dice.choice([0.001, 0.01, 0.05])
        self._world.wires.spikes = self._dice.choice([0.0, 0.02, 0.2])

    # -- processes -------------------------------------------------------------------------------------------------
    def _running(self) -> list[Process]:
        return [p for p in self._world.processes.values() if p.loop is not None]

    def _kill_some(self) -> None:
        running = self._running()
        count = self._dice.choice([1, 1, 1, 2, len(self._world.names)])
        power = self._power and self._dice.random() < 0.6
        for process in self._dice.sample(running, min(count, len(running))):
            self._say(f"{'power cut' if power else 'kill'} {process.name}")
            process.kill(power=power)

    def _boot_one(self) -> None:
        down = [p for p in self._world.processes.values() if p.loop is None]
        if down:
            process = self._dice.choice(down)
            self._say(f"boot {process.name}")
            process.boot()

    def _leave(self) -> None:
        running = self._running()
        if running:
            process = self._dice.choice(running)
            self._say(f"{process.name} is asked to leave")
            process.leave()

    def _pause_one(self) -> None:
        running = self._running()
        if running:
            process = self._dice.choice(running)
            self._say(f"pause {process.name}")
            process.paused = True

    def _resume(self) -> None:
        for process in self._world.processes.values():
            process.paused = False

    def _wrong_calendar(self) -> None:
        process = self._dice.choice(list(self._world.processes.values()))
        process.clock.wall_error_ms = self._dice.choice([0, -3_600_000, 3_600_000, 10_000_000_000])

    # -- disks -----------------------------------------------------------------------------------------------------
    def _fill_disk(self) -> None:
        process = self._dice.choice(list(self._world.processes.values()))
        self._say(f"fill disk of {process.name}")
        process.disk.full = True

    def _empty_disks(self) -> None:
        for process in self._world.processes.values():
            process.disk.full = False

    def _fail_sync(self) -> None:
        process = self._dice.choice(list(self._world.processes.values()))
        self._say(f"fail sync of {process.name}")
        process.disk.fail_sync = True
        self._world.later(0.5, lambda: setattr(process.disk, "fail_sync", False))

    def _die_in_disk_operation(self) -> None:
        running = self._running()
        if running:
            process = self._dice.choice(running)
            self._say(f"{process.name} dies in a disk operation")
            process.disk.dies_in = self._dice.randrange(1, 30)

    def _may_lose(self, process: Process) -> bool:
        """Whether this disk may go: a majority has to keep theirs."""
        lost = self._lost | {process.name}
        return len(lost) <= len(self._world.names) - self._world.majority

    def _wipe(self) -> None:
        process = self._dice.choice(list(self._world.processes.values()))
        if self._may_lose(process):
            self._say(f"wipe {process.name}")
            self._lost.add(process.name)
            process.wipe()

    def _rot(self) -> None:
        """A byte of a record that was durable long ago turns over while the node is down."""
        process = self._dice.choice(list(self._world.processes.values()))
        if process.rotten or not self._may_lose(process):
            return
        process.kill()
        found = [place for place in durable_records(process) if place.entry > 1]
        if found:
            place = self._dice.choice(found)
            data = bytearray(process.disk.files()[place.file])
            body = self._dice.random() < 0.7
            at = self._dice.randrange(place.start + (segment.RECORD_BYTES if body else 0), place.end)
            data[at] ^= 1 << self._dice.randrange(8)
            process.disk.put(place.file, bytes(data))
            self._lost.add(process.name)
            process.rotten = True
            self._say(f"rot in entry {place.entry} of {process.name}")

    def _remember_states(self) -> None:
        for process in self._world.processes.values():
            process.states.remember()


class Place(NamedTuple):
    """Where a record lies."""

    file: str
    start: int
    end: int
    entry: int


def durable_records(process: Process) -> list[Place]:
    """The records on a dead node's disk of which the disk itself says that they were durable."""
    files = process.disk.files()
    if ballot.NAME not in files:
        return []
    content = ballot._decode(files[ballot.NAME])
    names = sorted(name for name in files if (segment.base_of(name) or 0) >= content.first)
    if content.reset is not None or not names:
        return []
    places: list[Place] = []
    for name in names:
        start = segment.HEADER_BYTES
        records = segment.scan(name, files[name], segment.base_of(name) or 0, 0).records
        for number, record in enumerate(records):
            promised = max([content.floor, *(later.durable for later in records[number + 1 :])])
            if name != names[-1] or record.index <= promised:
                places.append(Place(name, start, record.end, record.index))
            start = record.end
    return places
