"""What a caller is told when nothing can be decided: who is missing, why those who are there are not enough, what to do."""

from __future__ import annotations

from quorl.cluster.node.members import Member
from quorl.cluster.node.outage import Standing, explain

N3 = Member("n3", "h:7103", "h:7203")
N2 = Member("n2", "h:7102", "h:7202")


def test_a_new_cluster_says_whom_it_waits_for() -> None:
    problem = explain("n1", Standing(3, 2, [N3], [], founded=False))
    assert problem.code == "no_quorum"
    assert "not been founded" in problem.detail
    assert "n3 (h:7203)" in problem.detail
    assert "majority is enough" in problem.hint


def test_d4_a_majority_down_is_named() -> None:
    problem = explain("n1", Standing(3, 2, [N2, N3], [], founded=True))
    assert problem.code == "no_quorum"
    assert "1 of 3 members can decide" in problem.detail
    assert "n2 (h:7202), n3 (h:7203)" in problem.detail


def test_members_with_empty_disks_are_there_and_do_not_count() -> None:
    problem = explain("n1", Standing(3, 2, [], ["n2", "n3"], founded=True))
    assert problem.code == "no_quorum"
    assert "empty disk" in problem.detail
    assert "n2, n3" in problem.detail


def test_an_election_is_only_a_moment() -> None:
    for founded in (True, False):
        assert explain("n1", Standing(3, 2, [], [], founded=founded)).code == "no_leader"
    assert explain("n1", Standing(3, 2, [N3], [], founded=True)).code == "no_leader"


def test_members_whose_disks_are_full_are_named_and_counted_once() -> None:
    problem = explain("n1", Standing(3, 2, [], [], founded=True, full=("n2", "n3")))
    assert problem.code == "no_quorum"
    assert "1 of 3 members can decide" in problem.detail
    assert problem.detail.endswith("Without room on the disk, so that nothing new is stored there: n2, n3.")
    assert "make room where a disk is full" in problem.kind.hint
    assert "check the network, the addresses in the configs and the secret" in problem.kind.hint
    one_each = explain("n1", Standing(3, 2, [N3], [], founded=True, full=("n2",)))
    assert "Not reachable: n3 (h:7203). Without room" in one_each.detail
    assert "0 of 3" in explain("n1", Standing(3, 2, [N2, N3], ["n1"], founded=True, full=("n1",))).detail
    assert explain("n1", Standing(3, 2, [], [], founded=True, full=("n2",))).code == "no_leader"
    assert not Standing(3, 2, [], [], founded=False, full=("n2", "n3")).decides
