"""The founding routes and the founding scenario: A15 and A16; and the demo's way with a real file."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from examples import demo, founding
from tests.harness import ROOT, LocalCluster, call


def test_a16_the_founding_routes(cluster: LocalCluster) -> None:
    n1, n2, n3 = cluster.urls
    assert call(n1, "POST", "/topics", {"name": "a16"}).json["status"] == "success"
    assert "a16" in call(n2, "GET", "/topics").json["topics"]
    assert call(n3, "POST", "/producer/register", {"topic": "a16"}).json == {"status": "success", "producer_id": 1}
    assert call(n2, "POST", "/consumer/register", {"topic": "a16"}).json == {"status": "success", "consumer_id": 1}
    message = {"topic": "a16", "producer_id": 1, "message": "the text"}
    assert call(n3, "POST", "/producer/produce", message).json["status"] == "success"
    size = call(n1, "GET", "/size?topic=a16&consumer_id=1").json
    assert (size["status"], size["size"]) == ("success", 1)
    consume = "/consumer/consume?topic=a16&consumer_id=1"
    assert call(n2, "GET", consume).json == {"status": "success", "message": "the text"}
    nothing = call(n1, "GET", consume)
    assert (nothing.status, nothing.json) == (200, {"status": "failure", "message": "no new message"})


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/topics", {}, 400),
        ("POST", "/topics", {"name": 7}, 400),
        ("POST", "/producer/register", {"topic": "a16 nowhere"}, 404),
        ("POST", "/producer/produce", {"topic": "a16 nowhere", "producer_id": 1, "message": "x"}, 404),
        ("POST", "/producer/produce", {"topic": "a16 nowhere", "producer_id": "one", "message": "x"}, 400),
        ("GET", "/consumer/consume?topic=a16+nowhere&consumer_id=1", None, 404),
        ("GET", "/consumer/consume?topic=a16+nowhere", None, 400),
        ("GET", "/size?topic=a16+nowhere", None, 404),
        ("DELETE", "/topics", None, 405),
    ],
)
def test_a16_failures_have_their_shape(
    cluster: LocalCluster, method: str, path: str, body: object, status: int
) -> None:
    reply = call(cluster.urls[1], method, path, body)
    assert reply.status == status
    assert reply.json["status"] == "failure"
    assert reply.json["message"]


def test_a16_a_repeated_consume_skips_nothing(cluster: LocalCluster) -> None:
    n1, n2, _ = cluster.urls
    call(n1, "POST", "/topics", {"name": "a16 again"})
    call(n1, "POST", "/producer/register", {"topic": "a16 again"})
    call(n1, "POST", "/consumer/register", {"topic": "a16 again"})
    for text in ("one", "two"):
        call(n1, "POST", "/producer/produce", {"topic": "a16 again", "producer_id": 1, "message": text})
    consume = "/consumer/consume?topic=a16+again&consumer_id=1"
    replies = [call(url, "GET", consume, headers={"Idempotency-Key": "once"}) for url in (n1, n2)]
    assert [reply.json["message"] for reply in replies] == ["one", "one"]
    assert replies[1].headers["idempotent-replay"] == "true"
    assert call(n2, "GET", consume).json["message"] == "two"


def test_a15_the_founding_scenario_with_the_leader_killed_half_way(own_cluster: LocalCluster) -> None:
    killed: list[str] = []

    def kill() -> None:
        killed.append(own_cluster.leader())
        own_cluster[killed[0]].kill()

    verdict = founding.run(own_cluster.urls, messages=60, at_half=kill)
    print(founding.report(verdict))
    assert verdict.good
    assert verdict.sent == 60 * len(founding.PRODUCERS)
    assert verdict.read["archive"] == verdict.sent
    assert own_cluster.leader(other_than=killed[0])


def test_a15_the_scenario_can_fail() -> None:
    sent = [founding.Sent("orders", "till 1", number) for number in range(3)]
    progress = founding.Progress(3, lambda: None)
    for message in sent:
        progress.acknowledged(message)
    texts = [message.text for message in sent]
    assert founding.judge(progress, {"a": {"orders": texts}, "b": {"orders": texts}}, 1.0).good
    assert founding.judge(progress, {"a": {"orders": texts[:2]}}, 1.0).lost == 1
    assert founding.judge(progress, {"a": {"orders": [*texts, texts[0]]}}, 1.0).doubled == 1
    swapped = [texts[1], texts[0], texts[2]]
    assert founding.judge(progress, {"a": {"orders": swapped}}, 1.0).disordered == 1
    assert founding.judge(progress, {"a": {"orders": texts}, "b": {"orders": swapped}}, 1.0).disordered == 2


def test_demo_a_real_file_goes_through_and_the_nodes_agree(
    cluster: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "LINES", 5000)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    assert demo.pipe(cluster)
    assert "the checksums are equal" in capsys.readouterr().out
    assert demo.same_everywhere(cluster)


def test_demo_other_processes_are_left_alone() -> None:
    assert not demo.is_ours(os.getpid())


def test_demo_what_to_type_goes_to_the_cluster_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("QUORL_SERVER", raising=False)

    def told(base: int, moved: str) -> str:
        cluster = SimpleNamespace(urls=tuple(f"http://127.0.0.1:{base + number}" for number in (1, 2, 3)))
        monkeypatch.setattr(demo, "Laptop", lambda **_: SimpleNamespace(base=base, moved=moved, cluster=cluster))
        demo.farewell(demo.own_cluster(tmp_path))
        return capsys.readouterr().out

    usual = told(7100, "")
    assert "quorl cluster status\n" in usual
    assert "make clean" not in usual, "which removes far more"
    moved = told(7300, "port 7101 is held by another process")
    assert moved.startswith("! port 7101 is held by another process: ports from 7300 on instead\n")
    at = "-s 127.0.0.1:7301,127.0.0.1:7302,127.0.0.1:7303"
    assert f"quorl {at} cluster status\n" in moved
    assert f"quorl {at} topic tail 'log lines'\n" in moved
    monkeypatch.setenv("QUORL_SERVER", "127.0.0.1:7301")
    assert "quorl -s 127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103 cluster status\n" in told(7100, "")
