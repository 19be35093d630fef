"""Torture: whatever happens to the disk, the log that opens again is the one that was promised, or it refuses.

Two kinds. *Crashes*, which an honest disk allows at any operation: the log must open, hold everything that was durable,
and nothing that was never written. *Damage*, which no disk should do: the log must refuse wherever a promise is
touched, and may fall back to a shorter log only where nobody was promised anything.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

import pytest

from quorl.cluster.consensus import segment
from quorl.cluster.consensus.ballot import Ballot
from quorl.cluster.consensus.library import NO_OP
from quorl.cluster.consensus.logstore import Entry, LogStore
from quorl.cluster.consensus.port import Damaged
from tests.simulation.fakedisk import UNLIMITED_BYTES, Died, FakeDisk, FakeFile, FakeView

SMALL = 200
HELD = 100
"""Commands in memory: fewer than the log has, so that others are read back."""


class Truth(NamedTuple):
    """What a log is known to hold."""

    entries: list[Entry]
    durable: int
    floor: int
    term: int
    vote: str | None
    cluster_id: str | None

    @property
    def first(self) -> int:
        return self.entries[0][1]

    def excuses(self, log: LogStore, durable: int) -> bool:
        """Whether the log is this one, perhaps without a tail that was not durable."""
        found = log[:]
        return self.entries[: len(found)] == found and log.last_index >= min(durable, self.entries[-1][1])


def truth(log: LogStore) -> Truth:
    ballot = log.ballot
    return Truth(log[:], log.durable_index, ballot.floor, ballot.term, ballot.vote, ballot.cluster_id)


def boot(disk: FakeDisk) -> LogStore:
    return LogStore(disk.boot(), segment_bytes=SMALL, held_bytes=HELD)


# -- crashes ------------------------------------------------------------------------------------------------------
class Deed(NamedTuple):
    """One call, and what the log is once it has returned."""

    name: str
    run: Callable[[LogStore], None]
    after: Truth
    cut: int
    """What the call takes back, although it was durable: everything from this index on."""


NOTHING_CUT = 1 << 60


def add(now: Truth, random: Random) -> Deed:
    entry = (random.randbytes(random.choice((0, 3, 30, 600))), now.entries[-1][1] + 1, now.term)
    return Deed("add", lambda log: log.add(*entry), now._replace(entries=[*now.entries, entry]), NOTHING_CUT)


def commit(now: Truth, random: Random) -> Deed:
    index = random.randint(now.floor, now.entries[-1][1])

    def run(log: LogStore) -> None:
        log.setRaftCommitIndex(index)
        log.onOneSecondTimer()

    return Deed("commit", run, now._replace(floor=index, durable=max(now.durable, index)), NOTHING_CUT)


def sync(now: Truth, random: Random) -> Deed:
    return Deed("sync", LogStore.sync, now._replace(durable=now.entries[-1][1]), NOTHING_CUT)


def elect(now: Truth, random: Random) -> Deed:
    term, vote = now.term + random.randint(1, 3), random.choice((None, "n1", "n2"))
    return Deed("elect", lambda log: log.setCurrentTerm(term, vote), now._replace(term=term, vote=vote), NOTHING_CUT)


def conflict(now: Truth, random: Random) -> Deed:
    index = random.randint(now.floor + 1, now.entries[-1][1] + 1)
    position = index - now.first
    after = now._replace(entries=now.entries[:position], durable=index - 1)
    if index > now.entries[-1][1]:
        after = now
    return Deed("conflict", lambda log: log.deleteEntriesFrom(position), after, index)


def trim(now: Truth, random: Random) -> Deed:
    index = random.randint(now.first, now.entries[-1][1] + 2)
    return Deed("trim", lambda log: log.trim_to(index), now, NOTHING_CUT)


def reset(now: Truth, random: Random) -> Deed:
    index = random.randint(now.floor + 1, now.entries[-1][1] + 5)
    held = next((entry[2] for entry in now.entries if entry[1] == index), None)
    if held == now.term:
        return sync(now, random)
    entries = [(NO_OP, index, now.term)]
    after = now._replace(entries=entries, durable=index, floor=index)
    return Deed("reset", lambda log: log.reset_to(index, now.term), after, NOTHING_CUT)


def name_cluster(now: Truth, random: Random) -> Deed:
    run = lambda log: log.ballot.set_identity("c-1", blank=random.random() < 0.5)  # noqa: E731
    return Deed("identity", run, now._replace(cluster_id="c-1"), NOTHING_CUT)


DEEDS = [add] * 8 + [sync] * 2 + [commit, commit, elect, conflict, conflict, trim, reset, name_cluster]


def judge(log: LogStore, before: Truth, deed: Deed, *, returned: bool) -> None:
    """Fail unless this log can be what an honest disk held when the machine died in, or after, the deed."""
    after = deed.after
    ballot = (log.getCurrentTerm(), log.getVotedForNodeId(), log.ballot.cluster_id)
    whole = (after.term, after.vote, after.cluster_id)
    if returned:
        assert ballot == whole, f"{deed.name}: the ballot says {ballot} instead of {whole}"
        assert shifted(after, log).excuses(log, after.durable), f"{deed.name}: {log[:]} instead of {after}"
    else:
        assert ballot in {whole, (before.term, before.vote, before.cluster_id)}, f"{deed.name}: {ballot}"
        kept = min(before.durable, deed.cut - 1)
        assert shifted(before, log).excuses(log, kept) or shifted(after, log).excuses(log, min(after.durable, kept)), (
            f"{deed.name}: {log[:]} between {before} and {after}"
        )
    assert log.durable_index == log.last_index
    assert log.last_index >= log.ballot.floor >= before.floor


def shifted(held: Truth, log: LogStore) -> Truth:
    """The same log, trimmed to where this one begins."""
    assert log.first_index >= held.first or held.entries[0] == (NO_OP, held.first, held.entries[0][2])
    return held._replace(entries=held.entries[log.first_index - held.first :] or held.entries)


def live(seed: int, disk: FakeDisk, lives: int = 4) -> None:
    """Several lives of one log: each ends in some operation, and the next one begins with what is left.

    Some end with a full disk or a failed sync instead; the process stops there.
    """
    random = Random(seed)
    log = boot(disk)
    for _ in range(lives):
        disk.dies_in = random.randint(1, 40)
        before = truth(log)
        deed, returned = Deed("birth", boot_nothing, before, NOTHING_CUT), True
        try:
            for _ in range(25):
                before, returned = truth(log), False
                deed = random.choice(DEEDS)(before, random)
                disk.fail_sync = random.random() < 0.02
                if random.random() < 0.02:
                    disk.free = random.randrange(200)
                deed.run(log)
                deed, returned = deed._replace(after=settled(deed.after, log)), True
        except (Died, OSError):
            pass
        disk.fail_sync, disk.free = False, UNLIMITED_BYTES
        log = reborn(disk, random)
        judge(log, before, deed, returned=returned)
        survives(disk, log)
        log = boot(disk)


def boot_nothing(log: LogStore) -> None:
    """The deed of a log that was only opened."""


def survives(disk: FakeDisk, log: LogStore) -> None:
    """What a reopened log shows may be relied upon: the next power cut takes nothing of it."""
    held = truth(log)
    disk.power_cut()
    again = truth(boot(disk))
    assert again == held, f"{again} after {held} had been shown"


def settled(after: Truth, log: LogStore) -> Truth:
    """The truth after a deed that returned, with what a roll or a trim may have done beside."""
    held = truth(log)
    assert held.entries == after.entries[held.first - after.first :]
    assert held.durable >= after.durable
    return held


def reborn(disk: FakeDisk, random: Random) -> LogStore:
    """Start again after a death, perhaps dying a few times while starting."""
    while True:
        disk.power_cut() if random.random() < 0.7 else disk.kill()
        view = disk.boot()
        if random.random() < 0.3:
            disk.dies_in = random.randint(1, 6)
        try:
            log = LogStore(view, segment_bytes=SMALL, held_bytes=HELD)
        except Died:
            continue
        disk.dies_in = None
        return log


def test_a_log_that_could_not_grow_is_the_same_and_can_go_on() -> None:
    for seed in range(300):
        random, disk = Random(seed), FakeDisk(Random(seed))
        log = boot(disk)
        log.setCurrentTerm(1, "n1")
        for _ in range(30):
            before = truth(log)
            deed = random.choice((add, add, elect))(before, random)
            disk.free = random.choice((10, 50, 100, 700))
            try:
                deed.run(log)
            except OSError:
                held = truth(log)
                assert held._replace(durable=before.durable) == before
        disk.free = UNLIMITED_BYTES
        log.sync()
        survives(disk, log)


@pytest.mark.parametrize("block", range(8))
def test_no_crash_loses_what_was_promised_or_brings_back_what_was_not_written(block: int) -> None:
    for seed in range(block * 500, block * 500 + 500):
        live(seed, FakeDisk(Random(seed)))


def failures(disk_of: Callable[[int], FakeDisk], seeds: int = 60) -> int:
    """How many seeds notice something."""
    count = 0
    for seed in range(seeds):
        try:
            live(seed, disk_of(seed))
        except (AssertionError, Damaged, IndexError):
            count += 1
    return count


def test_a_lying_disk_is_noticed() -> None:
    assert failures(lambda seed: FakeDisk(Random(seed), lying=True)) > 30


def half_synced(patch: pytest.MonkeyPatch, name: str, what: str = "sync") -> None:
    """Within this method of the log, syncing a file, or something else, does nothing."""
    careful = getattr(LogStore, name)

    def careless(self: LogStore, *arguments: object, **options: object) -> object:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(FakeFile, what, lambda *_: None)
            return careful(self, *arguments, **options)

    patch.setattr(LogStore, name, careless)


def cut_first(patch: pytest.MonkeyPatch) -> None:
    """A conflict cuts the segment that stays before it removes the later ones."""
    careful = LogStore.deleteEntriesFrom

    def careless(self: LogStore, position: int) -> None:
        index = self.first_index + position
        stays = [piece for piece in self._segments if piece.base < index][-1]
        file = self._disk.open(stays.name)
        if index - stays.base < len(stays.offsets):
            file.truncate(stays.offsets[index - stays.base])
            file.sync()
        careful(self, position)

    patch.setattr(LogStore, "deleteEntriesFrom", careless)


MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "sync does nothing": lambda patch: half_synced(patch, "sync"),
    "a roll does not sync": lambda patch: half_synced(patch, "_roll"),
    "a roll leaves room": lambda patch: half_synced(patch, "_roll", "truncate"),
    "opening leaves room": lambda patch: half_synced(patch, "_cut_torn_tail", "truncate"),
    "a cut is not synced": lambda patch: half_synced(patch, "deleteEntriesFrom"),
    "opening does not sync": lambda patch: half_synced(patch, "__init__"),
    "names are not synced at the start": lambda patch: patch.setattr(FakeView, "lock", lambda view: None),
    "no checksums": lambda patch: patch.setattr(segment, "crc32", lambda *_: 0),
    "a cut begins in the middle": cut_first,
    "a reset without a note": lambda patch: patch.setattr(Ballot, "begin_reset", lambda ballot, index, term: None),
    "what a segment was before counts": lambda patch: patch.setattr(
        segment, "_is_left_over", lambda record, base: False
    ),
    "a trim without a note": lambda patch: patch.setattr(Ballot, "set_first", lambda ballot, first, floor: None),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_less_careful_log_is_noticed(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[mutant](monkeypatch)
    assert failures(lambda seed: FakeDisk(Random(seed)), seeds=100) > 0


SITUATIONS: dict[str, Callable[[Truth, Random], Deed]] = {
    "roll": lambda now, random: deed_of("roll", now, lambda log: log.add(b"x" * 150, 16, 1), [(b"x" * 150, 16, 1)]),
    "add": lambda now, random: deed_of("add", now, lambda log: log.add(b"x", 16, 1), [(b"x", 16, 1)]),
    "conflict": lambda now, random: Deed(
        "conflict", lambda log: log.deleteEntriesFrom(4), now._replace(entries=now.entries[:4], durable=4), 5
    ),
    "trim": lambda now, random: Deed("trim", lambda log: log.trim_to(14), now, NOTHING_CUT),
    "reset": lambda now, random: Deed(
        "reset", lambda log: log.reset_to(9, 2), now._replace(entries=[(NO_OP, 9, 2)], durable=9, floor=9), NOTHING_CUT
    ),
    "vote": lambda now, random: Deed(
        "vote", lambda log: log.setCurrentTerm(3, "n3"), now._replace(term=3, vote="n3"), NOTHING_CUT
    ),
}


def deed_of(name: str, now: Truth, run: Callable[[LogStore], None], entries: list[Entry]) -> Deed:
    return Deed(name, run, now._replace(entries=[*now.entries, *entries]), NOTHING_CUT)


def small_log(disk: FakeDisk) -> LogStore:
    """Fifteen entries in several segments, three of them committed, the last two not synced."""
    log = boot(disk)
    log.setCurrentTerm(1, "n1")
    for index in range(2, 14):
        log.add(b"command %d" % index, index, 1)
    log.sync()
    log.add(b"unsynced 14", 14, 1)
    log.add(b"unsynced 15", 15, 1)
    log.setRaftCommitIndex(3)
    log.onOneSecondTimer()
    return log


@pytest.mark.parametrize("situation", SITUATIONS)
def test_death_at_every_operation_of_a_change(situation: str) -> None:
    operation, completed = 0, False
    while not completed:
        operation += 1
        for seed in range(40):
            disk = FakeDisk(Random(seed))
            log = small_log(disk)
            if situation == "reset":
                log.setCurrentTerm(2, None)
            before = truth(log)
            deed = SITUATIONS[situation](before, Random(seed))
            disk.dies_in = operation
            try:
                deed.run(log)
                completed = True
                deed = deed._replace(after=settled(deed.after, log))
            except Died:
                pass
            disk.power_cut() if seed % 2 else disk.kill()
            again = boot(disk)
            judge(again, before, deed, returned=completed)
            survives(disk, again)
    assert operation > (1 if situation in {"add", "vote"} else 2)


def test_death_at_every_operation_of_a_birth() -> None:
    for operation in range(1, 8):
        for seed in range(40):
            disk = FakeDisk(Random(seed))
            disk.dies_in = operation
            try:
                boot_as_is(disk)
            except Died:
                pass
            disk.power_cut() if seed % 2 else disk.kill()
            log = boot(disk)
            assert (log[:], log.pristine) == ([(NO_OP, 1, 0)], True)
            survives(disk, log)


def boot_as_is(disk: FakeDisk) -> LogStore:
    """Boot without forgetting when the machine is to die."""
    deadline = disk.dies_in
    view = disk.boot()
    disk.dies_in = deadline
    return LogStore(view, segment_bytes=SMALL, held_bytes=HELD)


# -- damage -------------------------------------------------------------------------------------------------------
def spoilt(raw: bytes) -> list[bytes]:
    """Every prefix of a file, and the file with every bit flipped and with every stretch of zeros."""
    room, raw = len(raw), raw.rstrip(b"\0")  # what is written into the room behind the end changes nothing
    found = [raw[:size] + bytes(more) for size in range(len(raw)) for more in {0, room - len(raw)}]
    found += [raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :] for at in range(len(raw)) for bit in range(8)]
    for size in (16, 64):
        found += [raw[:at] + bytes(size) + raw[at + size :] for at in range(0, len(raw) - size, 8)]
    return [content for content in found if content.rstrip(b"\0") != raw]


def test_damage_to_what_was_promised_is_always_refused() -> None:
    disk = FakeDisk(Random(1))
    log = small_log(disk)
    log.setRaftCommitIndex(15)
    log.onOneSecondTimer()
    whole = disk.files()
    assert len(whole) > 3
    for name, raw in whole.items():
        for content in [*spoilt(raw), None]:
            disk.put(name, content)
            with pytest.raises(Damaged):
                boot(disk)
        disk.put(name, raw)
    assert disk.files() == whole
    assert boot(disk).last_index == 15


def test_damage_to_what_was_not_promised_shortens_the_log_and_never_changes_it() -> None:
    disk = FakeDisk(Random(1))
    log = small_log(disk)
    entries, whole = log[:], disk.files()
    last = max(whole)
    witnessed = 13
    cuts = refusals = 0
    for name, raw in whole.items():
        for content in spoilt(raw):
            disk.put(name, content)
            try:
                found = boot(disk)
            except Damaged:
                refusals += 1
                disk.put(name, raw)
                continue
            assert found[:] == entries[: len(found)]
            assert name == last
            assert found.last_index >= witnessed
            cuts += 1
            for other, bytes_before in whole.items():
                disk.put(other, bytes_before)
    assert cuts > 100
    assert refusals > 1000


def test_every_suffix_that_was_not_synced_may_be_missing() -> None:
    disk = FakeDisk(Random(1))
    log = small_log(disk)
    entries, whole = log[:], disk.files()
    last = max(whole)
    start = len(whole[last]) - sum(36 + len(command) for command, index, _ in entries if index > 13)
    for size in range(start, len(whole[last])):
        for rest in (b"", bytes(len(whole[last]) - size), segment._MARKER * 20):
            disk.put(last, whole[last][:size] + rest)
            found = boot(disk)
            assert found[:] == entries[: len(found)]
            assert found.last_index >= 13
            found.add(b"goes on", found.last_index + 1, 1)
            found.sync()
            survives(disk, found)


def test_segments_of_another_time_or_place_are_refused() -> None:
    disk = FakeDisk(Random(1))
    log = small_log(disk)
    log.setRaftCommitIndex(15)
    log.onOneSecondTimer()
    whole = disk.files()
    names = [name for name in whole if name.startswith("log-")]
    for one in names:
        for other in names:
            if one != other:
                disk.put(one, whole[other])
                with pytest.raises(Damaged):
                    boot(disk)
                disk.put(one, whole[one])
    assert boot(disk).last_index == 15


def test_a_record_quoted_in_a_command_is_no_witness() -> None:
    disk = FakeDisk(Random(1))
    log = small_log(disk)
    quoted = segment.encode_record(b"", 99, 1, 98, 0)
    log.add(quoted * 3, 16, 1)
    last = max(disk.files())
    disk.put(last, disk.files()[last].rstrip(b"\0")[:-1])
    assert boot(disk).last_index == 15
