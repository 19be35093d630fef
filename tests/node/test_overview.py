"""The overview of one node: made once for all who ask, cheaply, and true about what is wrong."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
import pytest

from quorl.cluster.machine.machine import Machine
from quorl.cluster.node.looking import Looking
from quorl.cluster.node.visit import Declined
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import SignOfLife
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.system import ClusterInfo, MemberInfo
from tests.machine.desk import Desk, new
from tests.machine.rig import START_MS, message, seal


def member(name: str, **values: Any) -> MemberInfo:
    known: dict[str, Any] = {"role": "follower", "state": "ok", "sequence": 5, "lag": 0, "seen_ms_ago": 100}
    return MemberInfo(name=name, http=f"{name}:1", raft=f"{name}:2", version="1", **{**known, **values})


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return START_MS + int(1000 * (self.now_s - 100))


class Node:
    """A node whose machine is a desk, and whose cluster is what the test says."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.clock = Clock()
        self.leader: str | None = "n1"
        self.members = [member("n1", role="leader"), member("n2"), member("n3")]
        self.readable = True
        self.free_bytes = 2**40
        self.judged: list[sqlite3.DatabaseError] = []
        self.machine: Machine = self.desk.machine
        self.looking = Looking(self, "1.2.3", self.clock, lambda: self.free_bytes)
        self.looking.replaced()

    def cluster(self) -> ClusterInfo:
        away = any(one.state != "ok" for one in self.members)
        return ClusterInfo(
            name="prod", cluster_id="c", node="n1", leader=self.leader, term=3, quorum=2,
            health="no_quorum" if self.leader is None else "degraded" if away else "ok",
            sequence=self.sequence(), machine_version=1, digest="d", members=self.members,
        )  # fmt: skip

    def sequence(self) -> int:
        return self.machine.position.sequence

    def outage(self) -> Problem:
        return Problem("no_quorum", "n2 and n3 cannot be reached.")

    def stop_if_damaged(self, error: sqlite3.DatabaseError) -> sqlite3.DatabaseError:
        self.judged.append(error)
        return error

    def do(self, *commands: Any) -> None:
        self.desk.now_ms = self.desk.wall_ms = 0
        self.desk.now_ms = int(1000 * (self.clock.now_s - 100))
        self.desk.wall_ms = self.clock.wall_ms()
        self.looking.applied(self.desk.apply(*map(seal, commands)).events)

    def later(self, seconds: float = 1.0) -> o.Overview:
        self.clock.now_s += seconds
        return self.looking.overviews.latest()

    def alerts(self) -> dict[str, str]:
        return {alert.code: alert.text for alert in self.later().alerts}


def test_it_is_made_once_a_second_for_all_who_ask() -> None:
    node = Node()
    first = node.looking.overviews.encoded()
    node.do(s.Submit(queue="q", tasks=[new()]))
    assert node.looking.overviews.encoded() is first
    node.later(1.0)
    second = node.looking.overviews.encoded()
    assert second is not first
    assert msgspec.json.decode(second, type=o.Overview) == node.looking.overviews.latest()


def test_one_that_is_dear_is_made_less_often() -> None:
    node = Node()
    spent = iter([0.0, 0.1] * 9)
    node.looking.overviews._cost = lambda: next(spent)
    node.looking.overviews.latest()
    assert node.looking.overviews.period_s == pytest.approx(5.0)


def test_an_empty_cluster_has_nothing_to_alert_of() -> None:
    found = Node().later()
    assert (found.alerts, found.queues, found.topics, found.workers, found.read_only) == ([], [], [], [], None)
    assert (found.cluster, found.node, found.version, found.health) == ("prod", "n1", "1.2.3", "ok")
    assert found.as_of_at_ms == found.made_at_ms


def test_rates_and_sums_are_those_of_the_entries_applied_here() -> None:
    node = Node()
    node.later(20)
    node.do(t.CreateTopic(name="t"), t.Append(topic="t", messages=[message(1)] * 50))
    node.do(s.Submit(queue="q", tasks=[new() for _ in range(20)]))
    found = node.later(10)
    assert (found.totals.submitted_s, found.totals.appended_s, found.totals.messages) == (2.0, 5.0, 50)
    assert found.totals.counts.queued == 20
    (queue,), (topic,) = found.queues, found.topics
    assert (queue.submitted_s, queue.drain_s, topic.appended_s, topic.messages) == (2.0, None, 5.0, 50)
    node.do(t.DeleteTopic(topic="t"))
    assert node.later().totals.messages == 0


def test_a_queue_that_shrinks_says_how_long_it_will_take() -> None:
    node = Node()
    node.do(s.Submit(queue="q", tasks=[new() for _ in range(60)]))
    worker = node.desk.enrol("w", "q")
    node.later(20)
    for lease in node.desk.claim(worker, 20):
        node.looking.applied(node.desk.apply(seal(_done(lease))).events)
    found = node.later(10).queues[0]
    assert (found.succeeded_s, found.drain_s) == (2.0, 20.0)


def _done(lease: Any) -> Any:
    from quorl.cluster.protocol.leases import CompleteTask

    return CompleteTask(id=lease.id, lease=lease.token, result=msgspec.Raw(b"1"))


def test_sparks_are_read_every_ten_seconds() -> None:
    node = Node()
    node.do(s.Submit(queue="q", tasks=[new()]))
    assert node.later().queues[0].spark is not None
    node.later(10)
    node.do()
    spark = node.later().queues[0].spark
    assert spark is not None
    assert spark.submitted[-1] == 1


def test_a_queue_that_nobody_serves_is_an_alert_and_comes_first() -> None:
    node = Node()
    node.desk.enrol("w", "good")
    node.do(s.Submit(queue="good", tasks=[new()] * 3), s.Submit(queue="reports", tasks=[new()]))
    node.clock.now_s += 8
    node.do()
    assert node.alerts()["no_workers"] == "reports: 1 task waits and no worker serves it; the first has waited for 8 s."
    assert [queue.health for queue in node.later().queues] == ["no_workers", "ok"]
    node.do(q.PatchQueue(queue="reports", paused=True), q.PatchQueue(queue="good", max_depth=3))
    assert "no_workers" not in node.alerts()
    assert node.alerts()["queue_full"] == "good is full: 3 tasks wait, and new ones are refused."


def test_a_queue_whose_tasks_are_not_due_is_said_to_have_no_workers_without_an_age() -> None:
    node = Node()
    node.do(s.Submit(queue="q", tasks=[new(delay_ms=60_000)]))
    assert node.alerts()["no_workers"] == "q: 1 task waits and no worker serves it."


def test_a_worker_that_died_is_an_alert() -> None:
    node = Node()
    node.desk.enrol("w", "q", dead_after_ms=1_000)
    node.clock.now_s += 2
    node.do()
    node.clock.now_s += 3
    assert node.alerts()["worker_dead"] == "w has been DEAD for 4 s, and nobody came in its place; it lost 0 runs."


def test_members_that_are_away_or_behind_are_alerts() -> None:
    node = Node()
    node.members[2] = member("n3", state="unreachable", seen_ms_ago=12_400)
    assert node.alerts() == {
        "one_failure_left": "n3 cannot help: one more failure stops writes.",
        "member_unreachable": "n3 cannot be reached; it was heard 12 s ago.",
    }
    for ms, said in ((119_000, "119 s"), (804_000, "13 min"), (7_200_000, "2 h"), (10**9, "11 days")):
        node.members[2] = member("n3", state="unreachable", seen_ms_ago=ms)
        assert node.alerts()["member_unreachable"] == f"n3 cannot be reached; it was heard {said} ago."
    node.members[2] = member("n3", state="unreachable", seen_ms_ago=None)
    assert "not heard since" in node.alerts()["member_unreachable"]
    node.members[2] = member("n3", state="catching_up", lag=4_000)
    assert node.alerts()["member_catching_up"] == "n3 is catching up, 4000 entries behind."
    node.members = [member("n1")]
    assert node.alerts() == {}


def test_a_node_without_a_leader_says_that_it_is_read_only_and_since_when() -> None:
    node = Node()
    node.looking.noticed("n1")
    node.leader = None
    node.looking.noticed(None)
    node.looking.noticed(None)
    found = node.later(18)
    assert found.read_only == "n2 and n3 cannot be reached."
    assert found.made_at_ms - found.as_of_at_ms == 18_000
    assert found.alerts[0].text.endswith("Writes are refused; what n1 shows is 18 s old.")
    assert (found.alerts[0].code, found.alerts[0].severity) == ("no_quorum", "critical")
    node.leader = "n2"
    node.looking.noticed("n2")
    assert node.later().read_only is None


def test_a_node_with_a_leader_is_read_only_where_too_few_have_room_for_what_it_decides() -> None:
    node = Node()
    node.looking.noticed("n1")
    seen = msgspec.structs.replace(node.cluster(), health="no_quorum")
    node.cluster = lambda: seen  # type: ignore[method-assign]
    found = node.later(18)
    assert (found.read_only, found.leader) == ("n2 and n3 cannot be reached.", "n1")
    assert found.as_of_at_ms == found.made_at_ms, "what is shown is no older for that"
    assert [(one.code, one.text) for one in found.alerts] == [
        ("no_quorum", "n2 and n3 cannot be reached. Writes are refused.")
    ]


def test_the_full_disk_of_another_member_is_an_alert() -> None:
    node = Node()
    n1, n2, n3 = node.cluster().members
    members = [n1, n2, msgspec.structs.replace(n3, state="disk_full")]
    seen = msgspec.structs.replace(node.cluster(), members=members)
    node.cluster = lambda: seen  # type: ignore[method-assign]
    assert node.alerts() == {
        "one_failure_left": "n3 cannot help: one more failure stops writes.",
        "disk_full": "The disk of n3 is too full: it takes nothing new into its log.",
    }


def test_a_full_disk_is_an_alert() -> None:
    node = Node()
    node.free_bytes = 0
    assert node.alerts() == {"disk_full": "The disk of n1 is too full: it takes nothing new into its log."}


def test_one_and_many_are_told_apart_and_what_is_not_known_is_left_out() -> None:
    node = Node()
    worker = node.desk.enrol("w", "q", dead_after_ms=1_000)
    node.desk.run(worker)
    node.desk.term = 2
    node.clock.now_s += 2
    node.do()
    assert node.alerts()["worker_dead"].endswith("it lost 1 run.")
    node.members[2] = member("n3", state="catching_up", lag=1)
    assert node.alerts()["member_catching_up"] == "n3 is catching up, 1 entry behind."
    node.members[2] = member("n3", state="catching_up", lag=None)
    assert node.alerts()["member_catching_up"] == "n3 is catching up."


def test_how_long_tasks_of_the_last_minute_waited_and_ran() -> None:
    node = Node()
    none = node.later().latency
    assert (none.started, none.wait_p50_ms, none.run_p99_ms) == (0, None, None)
    worker = node.desk.enrol("w", "q")
    node.do(s.Submit(queue="q", tasks=[new()] * 3))
    node.clock.now_s += 4
    node.do()
    node.do(c.Claim(worker_id=worker, max=2, number=1))
    for token in (1, 2):
        node.clock.now_s += 1
        node.do(c.CompleteTask(id=node.desk.id_of(token), lease=token, result=msgspec.Raw(b"1")))
    found = node.later().latency
    assert (found.started, found.wait_p50_ms, found.wait_p99_ms) == (2, 4_032, 4_032)
    assert (found.succeeded, found.run_p50_ms, found.run_p99_ms) == (2, 1_008, 2_016)
    node.later(60)
    assert node.later().latency == none


def test_c3_beats_of_ten_minutes_are_remembered_beyond_those_that_are_replicated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "BEATS_KEPT", 5)
    node = Node()
    node.do(w.RegisterWorker(name="w", queues=("q",), heartbeat_ms=2_000, dead_after_ms=60_000))
    for _ in range(90):
        node.clock.now_s += 2
        node.desk.signs = (SignOfLife(1),)
        node.do()
    (worker,) = node.later().workers
    assert (sum(map(int, worker.beats)), len(worker.beats), worker.beats[-10:-1]) == (91, 60, "5" * 9)
    node.looking = Looking(node, "1.2.3", node.clock, lambda: node.free_bytes)
    node.looking.replaced()
    (worker,) = node.later().workers
    assert sum(map(int, worker.beats)) == 5, "after a restart it has those that are replicated"


def test_lists_are_bounded_and_say_how_much_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OVERVIEW_QUEUES_MAX", "OVERVIEW_TOPICS_MAX", "OVERVIEW_WORKERS_MAX", "OVERVIEW_ALERTS_MAX"):
        monkeypatch.setattr(limits, name, 2)
    node = Node()
    for number in range(5):
        node.do(s.Submit(queue=f"q{number}", tasks=[new()]), t.CreateTopic(name=f"t{number}"))
        node.desk.enrol(f"w{number}", "served")
    found = node.later()
    assert (len(found.queues), found.queues_more) == (2, 3)
    assert (len(found.topics), found.topics_more) == (2, 3)
    assert (len(found.workers), found.workers_more) == (2, 3)
    assert (len(found.alerts), found.alerts_more) == (2, 0)


def test_while_a_snapshot_is_put_in_place_the_last_overview_is_told_or_none() -> None:
    node = Node()
    node.readable = False
    with pytest.raises(Declined, match="not_ready"):
        node.looking.overviews.encoded()
    node.readable = True
    found = node.later()
    node.readable = False
    assert node.later() is found


def test_d5_a_state_that_cannot_be_counted_in_is_judged_as_it_is_wherever_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node, broken = Node(), sqlite3.DatabaseError("database disk image is malformed")
    node.do(t.CreateTopic(name="t"))
    node.do(t.DeleteTopic(topic="t"))  # so that the messages of the others must be counted anew

    def query(_: object) -> object:
        raise broken

    monkeypatch.setattr(node.machine, "query", query)
    with pytest.raises(sqlite3.DatabaseError):
        node.looking.view()
    assert node.judged == [broken]


def test_history_by_the_second_is_told_with_the_leaders_of_that_time() -> None:
    node = Node()
    node.later(5)
    node.desk.term, node.desk.node = 1, "n1"
    node.do(s.Submit(queue="q", tasks=[new()]))
    node.later(5)
    found = node.looking.history(o.GetHistory(step=1, queue="q"))
    assert isinstance(found, o.History)
    assert (found.step, found.counts.submitted) == (1, [0] * 5 + [1] + [0] * 4)
    assert (found.at_ms[-1], found.since_ms) == (node.clock.wall_ms(), START_MS)
    assert [mark.node for mark in found.leaders] == ["n1"]
    node.clock.now_s += 2 * limits.RECORDED_S
    found = node.looking.history(o.GetHistory(step=1))
    assert isinstance(found, o.History)
    assert [mark.node for mark in found.leaders] == ["n1"]
    assert isinstance(node.looking.history(o.GetHistory(step=1, queue="unheard")), q.QueueNotFound)
