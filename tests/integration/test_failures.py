"""What fails and what comes back: nodes that die, restart, stop politely, or do not belong. A5, A6, A11, D1, D3, D4, D7, D15."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import socket
import threading
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from quorl.client import Client, MyQueue
from tests.harness import LocalCluster, LocalNode, call, cluster_in, converge, data_dir, stored, until
from tests.ports import free_ports


def kill_all(cluster: LocalCluster) -> None:
    for node in cluster.nodes.values():
        assert node.process is not None
        node.process.kill()
    for node in cluster.nodes.values():
        node.wait()


def kill_the_leader(cluster: LocalCluster) -> None:
    cluster[cluster.leader()].kill()


def kill_a_follower(cluster: LocalCluster) -> None:
    leader = cluster.leader()
    next(node for node in cluster.nodes.values() if node.name != leader).kill()


def test_a5_a6_ids_go_on_after_a_failover_and_a_restart(own_cluster: LocalCluster) -> None:
    with MyQueue(own_cluster.urls, timeout_s=60) as queue:
        queue.create_topic("t")
        assert [queue.register_producer("t") for _ in range(3)] == [1, 2, 3]
        assert [queue.register_consumer("t") for _ in range(2)] == [1, 2]
        killed = own_cluster.leader()
        own_cluster[killed].kill()
        assert (queue.register_producer("t"), queue.register_consumer("t")) == (4, 3)
        assert own_cluster.leader(other_than=killed)
        kill_all(own_cluster)
        own_cluster.start()
        assert (queue.register_producer("t"), queue.register_consumer("t")) == (5, 4)
        for node in own_cluster.nodes.values():
            assert node.stop() == 0
        own_cluster.start()
        assert (queue.register_producer("t"), queue.register_consumer("t")) == (6, 5)


def test_a11_everything_is_there_after_kill_minus_9(own_cluster: LocalCluster) -> None:
    """Of one node, of the leader, of all."""
    with MyQueue(own_cluster.urls, timeout_s=60) as queue:
        for topic in ("t", "u"):
            queue.create_topic(topic)
        producer_id, consumer_id = queue.register_producer("t"), queue.register_consumer("t")
        for count in range(30):
            queue.enqueue("t", producer_id, count)
        read = 0
        for kill in (kill_a_follower, kill_the_leader, kill_all):
            assert [queue.dequeue("t", consumer_id) for _ in range(5)] == list(range(read, read + 5))
            read += 5
            kill(own_cluster)
            own_cluster.start()
            assert queue.list_topics() == ["t", "u"]
            assert queue.size("t", consumer_id) == 30 - read
        converge(own_cluster)
        for node in own_cluster.nodes.values():
            assert [message.value for message in stored(node, "t")] == list(range(30))
        assert queue.register_producer("t") == producer_id + 1


def test_d3_a_minority_down_and_writes_go_on(own_cluster: LocalCluster) -> None:
    killed = own_cluster.leader()
    with Client(own_cluster.urls, timeout_s=60) as client:
        client.topics.create("d3")
        client.topic("d3").append("before")
        own_cluster[killed].kill()
        started_s = time.monotonic()
        assert client.topic("d3").append("after").offset == 1
        print(f"first write after the leader's death: {time.monotonic() - started_s:.2f} s")
        seen = client.cluster()
        assert seen.leader not in {None, killed}
        assert (seen.health, next(m.state for m in seen.members if m.name == killed)) == ("degraded", "unreachable")


def said(node: LocalNode, words: str) -> bool:
    """Whether a node has said something since its start."""
    assert node.log is not None
    return words in node.log.read_text(encoding="utf-8")


def test_nodes_that_have_run_out_of_descriptors_elect_another_leader(own_cluster: LocalCluster) -> None:
    """A vote has to be written into a file. What connects takes every descriptor that the log does not keep for itself."""
    with Client(own_cluster.urls, timeout_s=60) as client:
        client.topics.create("t")
    former = own_cluster.leader()
    others = [node for node in own_cluster.nodes.values() if node.name != former]
    with contextlib.ExitStack() as stack:
        for node in others:
            assert node.process is not None
            open_now = [int(one.name) for one in Path(f"/proc/{node.process.pid}/fd").iterdir()]
            soft, hard = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (max(open_now) + 1, hard))
            # Whoever has connected goes, but the limit would stay: too low for redialling the former leader and for a client.
            stack.callback(resource.prlimit, node.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
            for _ in open_now:
                stack.enter_context(socket.create_connection(("127.0.0.1", node.ports[0])))
            until(partial(said, node, "out of system resource"), f"{node.name} to be short")
        own_cluster[former].pause()  # a dead one's connections would leave descriptors
        elected = [f'"leader":"{node.name}"' for node in others]
        until(lambda: any(said(node, words) for node in others for words in elected), "another leader")
        assert [node.alive for node in others] == [True, True]
        for node in others:  # a line a second, or the node does nothing else and fills the disk
            assert node.log is not None
            assert node.log.read_text(encoding="utf-8").count("out of system resource") < 30
    with Client([node.url for node in others], timeout_s=60) as client:
        assert client.topic("t").append(1).offset == 0


def test_d4_a_majority_down_is_said_and_local_reads_go_on(own_cluster: LocalCluster) -> None:
    with Client(own_cluster.urls) as client:
        client.topics.create("d4")
        client.topic("d4").append("there")
    converge(own_cluster)
    *dead, alive = own_cluster.nodes.values()
    for node in dead:
        node.kill()
    # A write that a leader took up just before it learnt of its loneliness has an unknown outcome, which is another answer.
    until(lambda: (alive.cluster() or {"leader": ""})["leader"] is None, "the last node to know that nobody leads")
    for method, path, body in (
        ("POST", "/v1/topics/d4/messages", {"messages": [{"value": 1}]}),
        ("POST", "/v1/topics/d4/consumers", {}),
        ("GET", "/v1/topics/d4", None),
    ):
        reply = call(alive.url, method, path, body)
        assert (reply.status, reply.json["retryable"]) == (503, True)
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.json["code"] == "no_quorum"
        for node in dead:
            assert f"{node.name} (127.0.0.1:{node.ports[1]})" in reply.json["detail"]
    founding = call(alive.url, "POST", "/producer/register", {"topic": "d4"})
    assert (founding.status, founding.json["status"]) == (503, "failure")
    local = call(alive.url, "GET", "/v1/topics/d4/messages?consistency=local")
    assert [item["value"] for item in local.json["items"]] == ["there"]
    assert call(alive.url, "GET", "/v1/cluster").json["health"] == "no_quorum"
    ready = call(alive.url, "GET", "/readyz?verbose")
    assert ready.status == 503
    assert b"[-]leader failed" in ready.body
    assert call(alive.url, "GET", "/livez").status == 200
    own_cluster.start()
    assert call(alive.url, "POST", "/v1/topics/d4/messages", {"messages": [{"value": 1}]}).json["first_offset"] == 1


def test_d7_a_key_is_remembered_across_a_failover(own_cluster: LocalCluster) -> None:
    def append() -> Any:
        body, headers = {"messages": [{"value": "once"}]}, {"Idempotency-Key": "k"}
        alive = next(node for node in own_cluster.nodes.values() if node.alive)
        return call(alive.url, "POST", "/v1/topics/d7/messages", body, headers=headers)

    call(own_cluster.urls[0], "POST", "/v1/topics", {"name": "d7"})
    first = append()
    killed = own_cluster.leader()
    own_cluster[killed].kill()
    own_cluster.leader(other_than=killed)
    again = append()
    kill_all(own_cluster)
    own_cluster.start()
    last = append()
    assert first.status == again.status == last.status == 201
    assert first.json == again.json == last.json
    assert again.headers["idempotent-replay"] == last.headers["idempotent-replay"] == "true"
    assert call(own_cluster.urls[2], "GET", "/v1/topics/d7").json["messages"] == 1


def test_d1_a_second_process_on_a_data_directory_is_refused(own_cluster: LocalCluster, tmp_path: Path) -> None:
    first = own_cluster["n1"]
    assert first.process is not None
    config, log = tmp_path / "cluster" / "n1.toml", tmp_path / "second.log"
    http, raft = free_ports(2)
    elsewhere = {"QUORL_NODE__HTTP": f"127.0.0.1:{http}", "QUORL_NODE__RAFT": f"127.0.0.1:{raft}"}
    second = LocalNode(config, log=log, environment=elsewhere)
    second.start()
    assert second.wait(60) == 78
    *_, sentence = log.read_text().splitlines()
    owner = f"{data_dir(first)} is in use by process {first.process.pid}."
    told = json.loads(sentence)
    assert (told["event"], told["level"]) == ("data_in_use", "critical")
    assert told["detail"].startswith(f"{owner} One process per data directory")
    twin = LocalNode(config, log=log)
    twin.start()
    assert twin.wait(60) == 71
    assert f"http = 127.0.0.1:{first.ports[0]} cannot be listened on: address already in use" in log.read_text()
    assert first.alive
    assert call(first.url, "GET", "/readyz").status == 200


def refused_because(node: LocalNode, why: str) -> None:
    """Wait until a node says that the others do not take it in, and why."""

    def said() -> bool:
        status, body = node.ask("/readyz?verbose")
        return status == 503 and why.encode() in body

    until(said, f"{node.name} to be refused", why=lambda: f"{node.ask('/readyz?verbose')}\n{node.last_words()}")
    assert node.alive


def test_d1_a_node_of_another_cluster_is_refused(own_cluster: LocalCluster, tmp_path: Path) -> None:
    """By the id of its cluster, though names, addresses and secret are right; and by the cluster's name."""
    guest = own_cluster["n3"]
    with cluster_in(tmp_path / "other") as other:
        converge(other)  # so that every node of it knows where it belongs
        guest.kill()
        kill_all(other)
        shutil.rmtree(data_dir(guest))
        shutil.copytree(data_dir(other["n3"]), data_dir(guest))
    guest.start()
    refused_because(guest, "belongs to cluster")
    guest.kill()
    shutil.rmtree(data_dir(guest))
    config = tmp_path / "cluster" / "n3.toml"
    right = config.read_text()
    config.write_text(right.replace('name = "test"', 'name = "tset"'))
    guest.start()
    refused_because(guest, "cluster or group of another name")
    guest.kill()
    for url in own_cluster.urls[:2]:
        assert call(url, "GET", "/v1/topics").json["items"] == []
    assert call(own_cluster.urls[0], "POST", "/v1/topics", {"name": "still writable"}).status == 201
    config.write_text(right)
    shutil.rmtree(data_dir(guest))
    guest.start()  # with an empty directory it is one of them again
    own_cluster.wait_ready("n3")
    converge(own_cluster)


def test_d15_sigterm_hands_the_lead_over_and_no_request_fails(own_cluster: LocalCluster) -> None:
    """Each node in turn while a client writes; the gap is printed."""
    stop, times, errors = threading.Event(), [0.0], list[Exception]()

    def write() -> None:
        with Client(own_cluster.urls, timeout_s=30) as client:
            topic = client.topic("d15")
            try:
                while not stop.is_set():
                    assert topic.append(len(times) - 1).offset == len(times) - 1
                    times.append(time.monotonic())
            except Exception as error:
                errors.append(error)

    with Client(own_cluster.urls) as client:
        client.topics.create("d15")
    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        leaving = own_cluster.leader()
        enough = len(times) + 50
        until(lambda enough=enough: len(times) > enough or bool(errors), "the client to write")  # type: ignore[misc]
        assert own_cluster[leaving].stop() == 0
        assert own_cluster.leader(other_than=leaving) != leaving
        own_cluster.start()
    stop.set()
    writer.join(60)
    assert not errors
    gap_s = max(later - earlier for earlier, later in pairwise(times[1:]))
    print(f"{len(times) - 1} writes, longest gap {gap_s * 1000:.0f} ms over three hand-overs")
    converge(own_cluster)
    for node in own_cluster.nodes.values():
        assert [message.value for message in stored(node, "d15")] == list(range(len(times) - 1))


def test_d15_logs_are_json_lines(own_cluster: LocalCluster) -> None:
    node = own_cluster["n1"]
    assert node.stop() == 0
    assert node.log is not None
    lines = [json.loads(line) for line in node.log.read_text().splitlines()]
    assert [line["event"] for line in lines if line["event"].startswith("node_")] == [
        "node_started",
        "node_stopping",
        "node_stopped",
    ]
    (*_, last) = [line for line in lines if line["event"] == "leader_changed" and line["leader"]]
    assert (last["leader"] in own_cluster.nodes, last["term"] >= 1) == (True, True)
    for line in lines:
        assert {"event", "level", "node", "time"} <= line.keys()
        assert line["node"] == "n1"
