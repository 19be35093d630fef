"""What one node says of the others: their lags are counted between positions of the same age."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest
import structlog

from quorl.cluster.consensus.logstore import ROOM_BYTES
from quorl.cluster.consensus.port import Role, Status
from quorl.cluster.node.diskroom import DiskRoom
from quorl.cluster.node.members import Gossip, Member, Members
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.system import MemberInfo


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


def gossip(sequence: int, role: Role = Role.FOLLOWER, *, blank: bool = False) -> Gossip:
    return Gossip(sequence, role, 3, blank, 0, "1")


def status(**other: Any) -> Status:
    known: dict[str, Any] = {"connected": frozenset({"n2", "n3"}), "leader": "n1", **other}
    return Status(Role.LEADER, 3, known["leader"], True, 1, 9, 9, 9, {}, known["connected"], False)


class View:
    """What n1 knows of three members."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.members = Members([Member(n, f"{n}:1", f"{n}:2") for n in ("n1", "n2", "n3")], "n1", self.clock)

    def tell(self, sequence: int) -> bytes:
        return self.members.pack(gossip(sequence, Role.LEADER))

    def hear(self, name: str, sequence: int, *, blank: bool = False) -> None:
        other = Members([], name, self.clock)
        assert self.members.heard(name, other.pack(gossip(sequence, blank=blank))) is not None

    def describe(self, own: int, **known: Any) -> dict[str, MemberInfo]:
        return {info.name: info for info in self.members.describe(status(**known), gossip(own, Role.LEADER))}


@pytest.fixture
def view() -> View:
    return View()


def test_what_was_written_since_a_status_came_is_no_lag(view: View) -> None:
    view.tell(100)
    view.hear("n2", 100)
    view.hear("n3", 99)
    view.clock.now += 0.4
    infos = view.describe(5000)
    assert [info.lag for info in infos.values()] == [0, 0, 1]
    assert [info.sequence for info in infos.values()] == [5000, 100, 99]
    assert {info.state for info in infos.values()} == {"ok"}


def test_nobody_is_ahead_of_the_furthest(view: View) -> None:
    view.hear("n2", 110)  # before this node told anything
    view.tell(100)
    view.hear("n3", 105)
    infos = view.describe(100)
    assert [info.lag for info in infos.values()] == [10, 0, 5]


def test_a_member_far_behind_is_catching_up_until_it_is_near(view: View) -> None:
    view.tell(5000)
    view.hear("n2", 3999)
    assert (view.describe(5000)["n2"].state, view.describe(5000)["n2"].lag) == ("catching_up", 1001)
    view.hear("n2", 4001)
    assert view.describe(9000)["n2"].state == "ok"


def test_a_member_with_an_empty_disk_is_catching_up_however_near(view: View) -> None:
    view.hear("n2", 0, blank=True)
    assert view.describe(0)["n2"].state == "catching_up"
    assert view.members.filling(status()) == ["n2"]


def test_a_member_that_is_not_heard_any_more_falls_behind(view: View) -> None:
    view.tell(100)
    view.hear("n2", 100)
    gone = view.describe(150, connected=frozenset({"n3"}))["n2"]
    assert (gone.state, gone.role, gone.lag) == ("unreachable", "unknown", 50)
    view.clock.now += 10
    silent = view.describe(150)["n2"]
    assert (silent.lag, silent.seen_ms_ago) == (50, 10_000)
    assert view.describe(150)["n3"].lag is None


def test_d15_what_a_member_says_of_its_log_and_its_life(view: View) -> None:
    other = Members([], "n2", view.clock)
    view.clock.now += 90
    said = other.own(status(), 100, "9")
    assert view.members.heard("n2", other.pack(said)) is not None
    view.clock.now += 0.5
    n1, n2, n3 = view.describe(100).values()
    assert (n2.term, n2.commit_index, n2.applied_index, n2.uptime_ms, n2.version) == (3, 9, 9, 90_500, "9")
    assert (n1.rtt_ms, n3.term, n3.uptime_ms) == (None, None, None)
    own = view.members.own(status(), 100, "9")
    assert view.members.describe(status(), own)[0].uptime_ms == 90_500
    view.clock.now += 60
    silent = view.describe(100)["n2"]
    assert (silent.commit_index, silent.uptime_ms, silent.rtt_ms) == (9, None, None)


def test_d15_a_round_trip_does_not_count_what_lay_at_the_other_side(view: View) -> None:
    there = Members([], "n2", view.clock)

    def travel(after_s: float, sender: Members, name: str, to: Members) -> None:
        packed = sender.pack(gossip(1))
        view.clock.now += after_s
        assert to.heard(name, packed) is not None

    travel(0.003, view.members, "n1", there)
    view.clock.now += 0.4
    travel(0.002, there, "n2", view.members)
    assert view.describe(1)["n2"].rtt_ms == pytest.approx(5.0)
    view.clock.now += 0.1
    travel(0.004, view.members, "n1", there)
    travel(0.001, there, "n2", view.members)
    assert view.describe(1)["n2"].rtt_ms == pytest.approx(5.0)
    assert view.describe(1, connected=frozenset({"n3"}))["n2"].rtt_ms is None


def test_a_round_trip_that_cannot_be_is_none(view: View) -> None:
    there = Members([], "n2", view.clock)
    assert there.heard("n1", view.members.pack(gossip(1))) is not None
    for moved_s in (-20.0, 3600.0):  # this process began anew, on a machine whose clock did too
        answer = there.pack(gossip(1))
        view.clock.now += moved_s
        assert view.members.heard("n2", answer) is not None
        view.clock.now -= moved_s
        assert view.describe(1)["n2"].rtt_ms is None


def test_a_node_of_an_earlier_release_is_understood(view: View) -> None:
    former = msgspec.msgpack.encode((100, Role.FOLLOWER, 3, False, 0, "0"))
    assert view.members.heard("n2", former) is not None
    found = view.describe(100)["n2"]
    assert (found.sequence, found.term, found.commit_index, found.uptime_ms, found.rtt_ms) == (100, 3, None, None, None)
    told = msgspec.msgpack.decode(view.tell(100))
    assert told[:6] == [100, Role.LEADER, 3, False, 0, "1"]


def test_appends_are_packed_once_all_other_members_have_said_that_they_can_apply_that(view: View) -> None:
    assert Members([Member("n1", "n1:1", "n1:2")], "n1", view.clock).all_unpack()
    assert not view.members.all_unpack()

    def hear(name: str) -> None:
        other = Members([], name, view.clock)
        assert view.members.heard(name, other.pack(other.own(status(), 1, "1"))) is not None

    hear("n2")
    assert not view.members.all_unpack()
    hear("n3")
    assert view.members.all_unpack()
    view.hear("n2", 1)  # it went back to an earlier release
    assert not view.members.all_unpack()


def test_a_status_that_cannot_be_read_is_no_news(view: View) -> None:
    assert view.members.heard("n2", b"\xc1") is None
    assert view.describe(1)["n2"].sequence is None


def test_a_member_without_room_on_its_disk_is_there_and_is_not_counted_on(view: View) -> None:
    other = Members([], "n2", view.clock)
    assert view.members.heard("n2", other.pack(other.own(status(), 100, "9", disk_full=True))) is not None
    view.hear("n3", 100)
    assert [one.state for one in view.describe(100).values()] == ["ok", "disk_full", "ok"]
    assert view.describe(100, connected=frozenset({"n3"}))["n2"].state == "unreachable"
    own = view.members.own(status(), 100, "9")
    assert view.members.cannot_lead(None, status(), own) is None
    refused = view.members.cannot_lead("n2", status(), own)
    assert refused is not None
    assert "n2 has no room on its disk" in refused.detail


def test_the_end_of_the_room_is_said_once_and_so_is_its_return() -> None:
    refused = False
    free_bytes = [limits.DISK_SPARE_BYTES + 1]
    wanted: list[int] = []

    def free(bytes_wanted: int) -> int:
        wanted.append(bytes_wanted)
        return free_bytes[0]

    with structlog.testing.capture_logs() as told:
        room = DiskRoom(free, lambda: refused, structlog.get_logger())
        assert not room.full()
        free_bytes[0] -= 1
        assert room.full()
        assert room.full()
        free_bytes[0] *= 2
        assert not room.full()
        assert not room.full()
    assert [(one["event"], one["log_level"], one["free_mib"]) for one in told] == [
        ("disk_full", "warning", 64),
        ("disk_has_room", "info", 128),
    ]
    assert set(wanted) == {limits.DISK_SPARE_BYTES + 1}


def test_a_log_that_was_refused_room_is_full_until_it_has_what_it_goes_on_with() -> None:
    free_bytes, refused = [limits.DISK_SPARE_BYTES + 1], [True]
    room = DiskRoom(lambda _: free_bytes[0], lambda: refused[0], structlog.get_logger())
    assert room.full()
    free_bytes[0] += ROOM_BYTES
    assert not room.full()
    free_bytes[0], refused[0] = limits.DISK_SPARE_BYTES + 1, False
    assert not room.full()


def say_full(view: View, name: str, *, full: bool = True) -> None:
    other = Members([], name, view.clock)
    assert view.members.heard(name, other.pack(other.own(status(), 100, "9", disk_full=full))) is not None


def test_full_disks_are_why_nothing_is_stored_where_too_few_others_are_left(view: View) -> None:
    lacks = view.members.lacks_room
    say_full(view, "n2", full=False)
    say_full(view, "n3")
    assert lacks(status(), own_full=False) == ""
    assert "disks of n3 and n1: 1 of 3 members can store a write, which needs 2." in lacks(status(), own_full=True)
    say_full(view, "n2")
    told = lacks(status(), own_full=False)
    assert told.startswith("Too little room is left on the disks of n2 and n3: 1 of 3 members")
    assert "This call was not proposed, so nothing of it is stored" in told
    assert "on the disk of n2, and n3 cannot be reached: 1 of 3" in lacks(
        status(connected=frozenset({"n2"})), own_full=False
    )
    say_full(view, "n3", full=False)
    assert lacks(status(), own_full=False) == ""


def test_a_member_that_is_away_counts_for_lacking_room_only_after_a_while(view: View) -> None:
    say_full(view, "n2")
    say_full(view, "n3", full=False)
    lacks = partial(view.members.lacks_room, status(connected=frozenset({"n2"})), own_full=False)
    view.clock.now += 2.9
    assert lacks() == ""
    view.clock.now += 0.1
    assert "Too little room is left on the disk of n2, and n3 cannot be reached: 1 of 3 members" in lacks()
    never = View()
    say_full(never, "n2")
    assert never.members.lacks_room(status(connected=frozenset({"n2"})), own_full=False) == ""
    never.clock.now += 3
    assert "n3 cannot be reached" in never.members.lacks_room(status(connected=frozenset({"n2"})), own_full=False)
    assert view.members.lacks_room(status(connected=frozenset({"n3"})), own_full=True) == ""  # nobody there has said so
