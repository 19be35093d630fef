"""The fake disk breaks what was never promised, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.simulation.fakedisk import Died, FakeDisk, Fenced


def test_death_of_the_process_keeps_what_was_written() -> None:
    disk = FakeDisk(Random(1))
    file = disk.boot().create("a", b"head")
    file.append(b"tail")
    disk.kill()
    assert disk.boot().read("a") == b"headtail"


def outcomes(prepare: Callable[[FakeDisk], object], name: str = "a") -> set[bytes]:
    """Everything that a power cut may leave of a file, over many seeds."""
    found = set()
    for seed in range(500):
        disk = FakeDisk(Random(seed))
        prepare(disk)
        disk.power_cut()
        found.add(disk.files().get(name, b"missing"))
    return found


def test_a_power_cut_leaves_what_was_synced_and_anything_of_the_rest() -> None:
    def prepare(disk: FakeDisk) -> None:
        file = disk.boot().create("a", b"head")
        file.append(b"++")
        file.sync()
        file.append(b"1")
        file.append(b"23")

    found = outcomes(prepare)
    assert all(content.startswith(b"head++") for content in found)
    rests = {content[6:] for content in found}
    assert rests == {b"", b"1", b"12", b"123", b"1\0\0", b"12\0", b"\0", b"\x0023", b"\x002", b"\x002\0", b"\0\0\0"}


def test_a_cut_may_be_undone_until_it_is_synced() -> None:
    def prepare(disk: FakeDisk) -> None:
        file = disk.boot().create("a", b"head")
        file.truncate(1)
        file.append(b"E")

    assert {b"head", b"h", b"hE", b"hEad"} <= outcomes(prepare)


def test_names_are_durable_on_return_and_not_before() -> None:
    def prepare(disk: FakeDisk) -> None:
        view = disk.boot()
        view.write_atomically("a", b"old")
        disk.dies_in = 1
        with pytest.raises(Died):
            view.write_atomically("a", b"new")

    assert outcomes(prepare) == {b"old", b"new"}

    def relock(disk: FakeDisk) -> None:
        prepare(disk)
        disk.boot().lock()
        seen.append(disk.files()["a"])

    seen: list[bytes] = []
    for seed in range(50):
        disk = FakeDisk(Random(seed))
        relock(disk)
        disk.power_cut()
        assert disk.files()["a"] == seen[-1]
    assert set(seen) == {b"old", b"new"}


def test_a_removal_is_durable_on_return_and_not_before() -> None:
    def prepare(disk: FakeDisk) -> None:
        view = disk.boot()
        view.write_atomically("a", b"old")
        disk.dies_in = 1
        with pytest.raises(Died):
            view.remove("a")

    assert outcomes(prepare) == {b"old", b"missing"}
    assert outcomes(lambda disk: (disk.boot().write_atomically("a", b"old"), disk.boot().remove("a"))) == {b"missing"}


def test_a_name_that_was_set_aside_may_come_back_for_what_its_file_became() -> None:
    def prepare(disk: FakeDisk) -> None:
        view = disk.boot()
        view.create("a", b"old content").close()
        view.set_aside("a")
        if disk.chance():
            view.create("b", b"NEW").close()

    assert outcomes(prepare) == {b"old content", b"missing"}
    assert outcomes(prepare, "b") == {b"NEW content", b"missing"}


def test_the_dead_are_fenced() -> None:
    disk = FakeDisk(Random(1))
    view = disk.boot()
    file = view.create("a", b"")
    disk.boot()
    for call in (
        lambda: file.append(b"x"),
        file.sync,
        lambda: file.size,
        lambda: file.truncate(0),
        view.names,
        view.lock,
        view.free_bytes,
        lambda: view.read("a"),
        lambda: view.open("a"),
        lambda: view.remove("a"),
        lambda: view.write_atomically("b", b""),
    ):
        with pytest.raises(Fenced):
            call()
    assert disk.files() == {"a": b""}


def test_dying_stops_inside_the_chosen_operation() -> None:
    found = set()
    for seed in range(50):
        disk = FakeDisk(Random(seed))
        file = disk.boot().create("a", b"")
        disk.dies_in = 2
        file.append(b"12")
        with pytest.raises(Died):
            file.append(b"34")
        with pytest.raises(Fenced):
            file.append(b"56")
        found.add(disk.files()["a"])
    assert found == {b"12", b"123", b"1234"}


def test_space_is_counted() -> None:
    disk = FakeDisk(Random(1))
    view = disk.boot()
    file = view.create("a", b"1234")
    disk.free = 3
    file.append(b"56")
    assert view.free_bytes() == 1
    with pytest.raises(OSError, match="No space"):
        file.append(b"78")
    with pytest.raises(OSError, match="No space"):
        view.write_atomically("b", b"78")
    assert view.read("a") == b"123456"
    file.truncate(0)
    assert view.free_bytes() == 7
    disk.full = True
    assert view.free_bytes() == 0


def test_what_a_failed_sync_lost_stays_lost() -> None:
    found = set()
    for seed in range(50):
        disk = FakeDisk(Random(seed))
        view = disk.boot()
        file = view.create("a", b"head")
        another = view.open("a")
        file.append(b"tail")
        disk.fail_sync = True
        with pytest.raises(OSError):
            file.sync()
        with pytest.raises(OSError):
            view.write_atomically("b", b"")
        disk.fail_sync = False
        for call in (file.sync, lambda view=view: view.write_atomically("b", b"")):
            with pytest.raises(OSError, match="for good"):
                call()
        another.sync()
        assert view.read("a") == b"headtail"
        disk.kill()
        found.add(disk.files()["a"])
        assert disk.names() == ["a"]
    assert {b"head", b"headtail"} < found


def test_a_lying_disk_loses_what_it_said_was_safe() -> None:
    disk = FakeDisk(Random(1), lying=True)
    file = disk.boot().create("a", b"head")
    file.sync()
    losses = 0
    for seed in range(20):
        disk = FakeDisk(Random(seed), lying=True)
        disk.boot().create("a", b"head").sync()
        disk.power_cut()
        losses += disk.files().get("a") != b"head"
    assert losses > 5
