"""What one node says of the others: their lags are counted between positions of the same age."""

from __future__ import annotations

from typing import Any

import pytest

from quorl.cluster.consensus.port import Role, Status
from quorl.cluster.node.members import Gossip, Member, Members
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


def test_a_status_that_cannot_be_read_is_no_news(view: View) -> None:
    assert view.members.heard("n2", b"\xc1") is None
    assert view.describe(1)["n2"].sequence is None
