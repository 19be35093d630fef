"""Bad input: every answer says what, why and what to do, and nothing changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quorl.cluster.api.door import HEADER_BYTES_MAX, HEADERS_MAX
from tests.harness import ROOT, LocalCluster, call, converge, stored, write_configs

MESSAGES = "/v1/topics/bad/messages"
NEVER_LOGGED = [
    ("POST", "/v1/topics", {"name": ""}, 422, "validation_failed", "/name"),
    ("POST", "/v1/topics", {"name": "x" * 201}, 422, "validation_failed", "/name"),
    ("POST", "/v1/topics", {"name": "."}, 422, "validation_failed", "/name"),
    ("POST", "/v1/topics", {"name": 7}, 422, "validation_failed", "/name"),
    ("POST", "/v1/topics", {"name": "x", "partitions": 0}, 422, "validation_failed", "/partitions"),
    ("POST", "/v1/topics", {"name": "x", "partitions": True}, 422, "validation_failed", "/partitions"),
    ("POST", "/v1/topics", {"name": "x", "partition": 1}, 422, "validation_failed", "partition"),
    ("POST", "/v1/topics", {}, 422, "validation_failed", "name"),
    ("POST", "/v1/topics", "[]", 422, "validation_failed", "object"),
    ("POST", "/v1/topics", '{"name": "x', 400, "invalid_json", "line 1"),
    ("POST", "/v1/topics", '{"name": "x"} y', 400, "invalid_json", "line 1"),
    ("POST", "/v1/topics", '{"name": "\\ud800"}', 400, "invalid_json", ""),
    ("POST", "/v1/topics", b'{"name": "\xff"}', 400, "invalid_json", ""),
    ("POST", "/v1/topics", "[" * 100_000, 422, "validation_failed", "nested 100 deep"),
    ("POST", MESSAGES, {"messages": []}, 422, "validation_failed", "/messages"),
    ("POST", MESSAGES, {"messages": [{"value": 1}, {"valu": 2}]}, 422, "validation_failed", "/messages/1"),
    ("POST", MESSAGES, {"messages": [{"value": 1, "producer_id": "1"}]}, 422, "validation_failed", "/producer_id"),
    ("POST", MESSAGES, {"messages": [{"value": 1, "producer_id": -1}]}, 422, "validation_failed", "/producer_id"),
    ("POST", MESSAGES, {"messages": [{"value": "x" * (257 * 1024)}]}, 413, "payload_too_large", "value"),
    ("POST", MESSAGES, {"messages": [{"value": "x" * (2 * 1024**2)}]}, 413, "payload_too_large", "1048576"),
    ("POST", "/v1/topics/bad/consumers/one/consume", {}, 422, "validation_failed", "consumer_id"),
    ("POST", "/v1/topics/bad/consumers/1/consume?max=0", None, 400, "invalid_parameter", "`max`"),
    ("GET", f"{MESSAGES}?limit=100000", None, 400, "invalid_parameter", "`limit`"),
    ("GET", f"{MESSAGES}?from=yesterday", None, 400, "invalid_parameter", "yesterday"),
    ("GET", f"{MESSAGES}?form=0", None, 400, "invalid_parameter", "did you mean `from`"),
    ("GET", "/v1/topics/bad?consistency=strong", None, 400, "invalid_parameter", "`consistency`"),
    ("GET", "/v1/topics/" + "x" * 9000, None, 414, "target_too_long", ""),
    ("GET", "/v1/topicz", None, 404, "route_not_found", "/v1/topicz"),
    ("GET", "/nothing-here", None, 404, "route_not_found", ""),
    ("PUT", "/v1/topics", {"name": "x"}, 405, "method_not_allowed", "PUT"),
    ("DELETE", "/v1/cluster", None, 405, "method_not_allowed", "DELETE"),
]
REFUSED_BY_THE_STATE = [
    ("POST", MESSAGES, {"messages": [{"value": 1, "producer_id": 99}]}, 404, "producer_not_found"),
    ("POST", "/v1/topics/bad/consumers/99/consume", {}, 404, "consumer_not_found"),
    ("GET", "/v1/topics/bad/consumers/99", None, 404, "consumer_not_found"),
    ("GET", "/v1/topics/bad/size?consumer_id=99", None, 404, "consumer_not_found"),
    ("GET", "/v1/topics/bad/messages/0/99", None, 404, "message_not_found"),
    ("GET", f"{MESSAGES}?partition=9", None, 404, "partition_not_found"),
    ("GET", "/v1/topics/nowhere", None, 404, "topic_not_found"),
    ("POST", "/v1/topics/nowhere/producers", {}, 404, "topic_not_found"),
    ("DELETE", "/v1/topics/nowhere", None, 404, "topic_not_found"),
    ("POST", "/v1/topics", {"name": "bad", "partitions": 5}, 409, "already_exists"),
    ("POST", "/v1/topics", {"name": "bad", "error_if_exists": True}, 409, "already_exists"),
    ("DELETE", "/v1/topics/bad?if_empty=true", None, 409, "topic_not_empty"),
    ("POST", "/v1/queues/nowhere/purges", {"states": ["QUEUED"]}, 404, "queue_not_found"),
    ("DELETE", "/v1/queues/bad", None, 409, "queue_not_empty"),
    ("DELETE", "/v1/tasks/waits", None, 409, "wrong_state"),
]


@pytest.fixture(scope="module", autouse=True)
def _topic(cluster: LocalCluster) -> None:
    assert call(cluster.urls[0], "POST", "/v1/topics", {"name": "bad"}).status == 201
    assert call(cluster.urls[0], "POST", MESSAGES, {"messages": [{"value": "good"}]}).status == 201
    assert call(cluster.urls[0], "POST", "/v1/queues/bad/tasks", {"id": "waits", "name": "bad.waits"}).status == 201


def position(cluster: LocalCluster) -> tuple[int, str]:
    sequence = converge(cluster)
    view = cluster["n1"].cluster()
    assert view is not None
    return sequence, view["digest"]


def check_problem(document: dict[str, Any], status: int, code: str) -> None:
    """What, why, what to do."""
    assert (document["status"], document["code"]) == (status, code), document
    for field in ("type", "title", "detail", "hint", "request_id", "node"):
        assert document[field], f"{field} is missing"
    assert "Traceback" not in str(document)
    assert document["retryable"] is False


@pytest.mark.parametrize(("method", "path", "body", "status", "code", "word"), NEVER_LOGGED)
def test_what_is_wrong_by_itself_never_reaches_the_log(
    cluster: LocalCluster, method: str, path: str, body: object, status: int, code: str, word: str
) -> None:
    before = position(cluster)
    for url in cluster.urls:
        reply = call(url, method, path, body)
        assert reply.headers["content-type"] == "application/problem+json"
        check_problem(reply.json, status, code)
        assert word in str(reply.json)
    assert position(cluster) == before


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), REFUSED_BY_THE_STATE)
def test_what_the_state_refuses_changes_nothing(
    cluster: LocalCluster, method: str, path: str, body: object, status: int, code: str
) -> None:
    before = call(cluster.urls[0], "GET", "/v1/topics/bad").json, stored(cluster["n1"], "bad")
    for url in cluster.urls:
        check_problem(call(url, method, path, body).json, status, code)
    converge(cluster)
    for url, node in zip(cluster.urls, cluster.nodes.values(), strict=True):
        assert (call(url, "GET", "/v1/topics/bad").json, stored(node, "bad")) == before


def test_another_media_type_is_refused(cluster: LocalCluster) -> None:
    before = position(cluster)
    reply = call(cluster.urls[1], "POST", "/v1/topics", '{"name": "x"}', headers={"Content-Type": "text/xml"})
    check_problem(reply.json, 415, "unsupported_media_type")
    assert position(cluster) == before


def test_headers_are_bounded_each_and_in_number(cluster: LocalCluster) -> None:
    own = 2  # Host and Accept-Encoding
    for count, size_bytes, status in (
        (HEADERS_MAX - own, HEADER_BYTES_MAX - 100, 200),
        (HEADERS_MAX - own + 1, 1, 431),
        (1, HEADER_BYTES_MAX + 1, 431),
    ):
        headers = {f"X-{number}": "x" * size_bytes for number in range(count)}
        reply = call(cluster.urls[0], "GET", "/v1/topics", headers=headers)
        assert reply.status == status
        if status == 431:
            check_problem(reply.json, 431, "headers_too_large")


def test_a_method_that_is_not_allowed_names_those_that_are(cluster: LocalCluster) -> None:
    assert call(cluster.urls[0], "PUT", "/v1/topics").headers["allow"] == "GET, HEAD, POST"


def test_members_own_routes_are_closed_to_clients(cluster: LocalCluster) -> None:
    for path in ("/internal/snapshot", "/internal/barrier"):
        assert call(cluster.urls[0], "GET", path).status == 403


def test_a_config_with_a_typo_starts_nothing(tmp_path: Path) -> None:
    path, *_ = write_configs(tmp_path, sections={"raft": {"snapshot_evry": 1000}})
    command = [sys.executable, str(ROOT / "node.py"), "--config", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert "unknown key `snapshot_evry` in [raft]; did you mean `snapshot_every`?" in ended.stderr
    assert f"{path.name}:" in ended.stderr
    assert "Nothing was started" in ended.stderr
    assert not (tmp_path / "data").exists()
