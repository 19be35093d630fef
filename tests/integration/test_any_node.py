"""Any node takes any request: forwarding, repeats under one key, and how fresh a read is. D2, D7, D9, D15."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from quorl.client import Client
from tests.harness import ROOT, LocalCluster, Reply, call


def split(cluster: LocalCluster) -> tuple[str, str]:
    """The address of the leader and that of a follower."""
    leader = cluster.leader()
    follower = next(name for name in cluster.nodes if name != leader)
    return cluster[leader].url, cluster[follower].url


def append(url: str, topic: str, value: object, key: str | None = None) -> Reply:
    headers = {} if key is None else {"Idempotency-Key": key}
    return call(url, "POST", f"/v1/topics/{topic}/messages", {"messages": [{"value": value}]}, headers=headers)


def test_d2_a_follower_answers_as_the_leader_does(cluster: LocalCluster) -> None:
    leader, follower = split(cluster)
    made = call(follower, "POST", "/v1/topics", {"name": "d2"})
    assert made.status == 201
    assert made.headers["quorl-leader"] == cluster.leader()
    assert call(leader, "POST", "/v1/topics", {"name": "d2"}).json == {**made.json, "existing": True}
    replies = [append(url, "d2", "x").json for url in (leader, follower)]
    assert replies[0].keys() == replies[1].keys()
    assert [reply["first_offset"] for reply in replies] == [0, 1]
    refusals = [append(url, "d2nowhere", "x") for url in (leader, follower)]
    assert [refusal.json["code"] for refusal in refusals] == ["topic_not_found"] * 2
    assert [refusal.status for refusal in refusals] == [404, 404]


def test_d2_a_forwarding_node_has_seen_what_it_relays(cluster: LocalCluster) -> None:
    """The next local read at the node that relayed a write always sees it."""
    _, follower = split(cluster)
    call(follower, "POST", "/v1/topics", {"name": "d2 own"})
    for count in range(1, 30):
        assert append(follower, "d2%20own", count).status == 201
        assert call(follower, "GET", "/v1/topics/d2%20own?consistency=local").json["messages"] == count


def test_d7_a_repeat_under_the_same_key_changes_nothing(cluster: LocalCluster) -> None:
    call(cluster.urls[0], "POST", "/v1/topics", {"name": "d7"})
    first, *repeats = [append(url, "d7", "once", key="the-key") for url in [*cluster.urls, *cluster.urls]]
    assert first.status == 201
    assert "idempotent-replay" not in first.headers
    for repeat in repeats:
        assert (repeat.status, repeat.json) == (first.status, first.json)
        assert repeat.headers["idempotent-replay"] == "true"
    other = append(cluster.urls[1], "d7", "something else", key="the-key")
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")
    assert call(cluster.urls[2], "GET", "/v1/topics/d7").json["messages"] == 1


def test_d9_a_session_reads_its_own_writes_at_any_node(cluster: LocalCluster) -> None:
    call(cluster.urls[0], "POST", "/v1/topics", {"name": "d9"})
    for count in range(1, 20):
        for writer in cluster.urls:
            sequence = int(append(writer, "d9", count).headers["quorl-sequence"])
            for reader in cluster.urls:
                read = call(reader, "GET", f"/v1/topics/d9/size?consistency=session&min_sequence={sequence}")
                assert read.json["size"] >= (count - 1) * 3 + cluster.urls.index(writer) + 1
                assert int(read.headers["quorl-sequence"]) >= sequence


def test_d9_single_resources_are_linearizable_by_default(cluster: LocalCluster) -> None:
    call(cluster.urls[0], "POST", "/v1/topics", {"name": "d9 lin"})
    for count in range(1, 30):
        append(cluster.urls[count % 3], "d9%20lin", count)
        for reader in cluster.urls:
            assert call(reader, "GET", "/v1/topics/d9%20lin").json["messages"] == count
            assert call(reader, "GET", "/size?topic=d9+lin").json["size"] == count


def test_d9_a_sequence_that_is_never_reached_is_refused_in_time(cluster: LocalCluster) -> None:
    call(cluster.urls[0], "POST", "/v1/topics", {"name": "d9 far"})
    reply = call(cluster.urls[1], "GET", "/v1/topics/d9%20far?consistency=session&min_sequence=99999999")
    assert (reply.status, reply.json["code"]) == (503, "not_ready")
    assert int(reply.headers["retry-after"]) >= 1


def test_d9_a_long_poll_at_any_node_is_woken_by_a_write_at_another(cluster: LocalCluster) -> None:
    call(cluster.urls[0], "POST", "/v1/topics", {"name": "d9 poll"})
    call(cluster.urls[0], "POST", "/v1/topics/d9%20poll/consumers", {})
    for count in range(12):
        reader, writer = cluster.urls[count % 3], cluster.urls[-1 - count % 3]
        browse = ("GET", f"/v1/topics/d9%20poll/messages?from={count}&wait=30")
        consume = ("POST", "/v1/topics/d9%20poll/consumers/1/consume?wait=30")
        with ThreadPoolExecutor(2) as threads:
            polls = [threads.submit(call, reader, *way, timeout_s=60) for way in (browse, consume)]
            started_s = time.monotonic()
            append(writer, "d9%20poll", f"message {count}")
            replies = [poll.result() for poll in polls]
        assert time.monotonic() - started_s < 20, "it was not woken, its time was over"
        assert [reply.json["items"][0]["value"] for reply in replies] == [f"message {count}"] * 2


def test_d15_health_and_the_document_of_every_route(cluster: LocalCluster) -> None:
    for url in cluster.urls:
        assert call(url, "GET", "/livez").status == 200
        ready = call(url, "GET", "/readyz?verbose")
        assert ready.status == 200
        assert b"[+]leader ok" in ready.body
        assert "/v1/topics/{topic}/messages" in call(url, "GET", "/openapi.json").json["paths"]


def test_d15_every_node_describes_the_same_cluster(cluster: LocalCluster) -> None:
    views = [call(url, "GET", "/v1/cluster").json for url in cluster.urls]
    assert [view["node"] for view in views] == list(cluster.nodes)
    assert len({(view["cluster_id"], view["leader"], view["term"]) for view in views}) == 1
    for view in views:
        assert [member["name"] for member in view["members"]] == list(cluster.nodes)
        assert sum(member["role"] == "leader" for member in view["members"]) == 1


def test_d15_request_ids_come_back(cluster: LocalCluster) -> None:
    reply = call(cluster.urls[1], "GET", "/v1/topics/nowhere", headers={"X-Request-ID": "mine-1"})
    assert (reply.status, reply.headers["request-id"], reply.json["request_id"]) == (404, "mine-1", "mine-1")
    assert call(cluster.urls[1], "GET", "/v1/cluster").headers["request-id"]


@pytest.mark.parametrize("arguments", [["cluster", "status"], ["topic", "ls"]])
def test_d15_the_command_line_speaks_json(cluster: LocalCluster, arguments: list[str]) -> None:
    call(cluster.urls[0], "POST", "/v1/topics", {"name": "d15 json"})
    command = [sys.executable, "-m", "quorl.client.cli", *arguments, "--json", "--server", cluster.urls[2]]
    done = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)


def test_d15_lines_follow_a_slow_input_at_once(cluster: LocalCluster) -> None:
    """As with ``tail -f app.log | quorl topic produce``: a line is stored though the input goes on."""
    command = [sys.executable, "-m", "quorl.client.cli", "topic", "produce", "d15", "-", "--create"]
    with (
        Client(cluster.urls[0]) as client,
        subprocess.Popen(
            [*command, "--server", cluster.urls[1]], cwd=ROOT / "src", stdin=subprocess.PIPE, stderr=subprocess.PIPE
        ) as producing,
    ):
        assert producing.stdin is not None
        client.topics.create("d15")
        follower = iter(client.topic("d15").follow())
        for line in ("first", "second", "third"):
            producing.stdin.write(f"{line}\n".encode())
            producing.stdin.flush()
            assert next(follower).value == line
        producing.stdin.close()
        assert producing.wait(30) == 0
