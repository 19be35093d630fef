"""D15: metrics of a real cluster, read by Prometheus' own tool; what the dashboard and the alerts name is there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import ROOT, LocalCluster, LocalNode, call, converge
from tests.tools import tool

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "quorl.rules.yml"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def promtool(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [tool("promtool", "prometheus"), *arguments], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def scrape(url: str) -> Samples:
    answer = call(url, "GET", "/metrics")
    assert answer.status == 200, answer.body
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def follower(cluster: LocalCluster) -> LocalNode:
    """The first node that does not lead."""
    leader = cluster.leader()
    return next(node for name, node in cluster.nodes.items() if name != leader)


@pytest.fixture(scope="module")
def busy(cluster: LocalCluster) -> LocalCluster:
    """A cluster in which each kind of thing has happened."""
    url = follower(cluster).url
    assert call(url, "POST", "/v1/topics", {"name": "metrics topic"}).status == 201
    assert call(url, "POST", "/v1/topics/metrics%20topic/consumers").status == 201
    assert (
        call(url, "POST", "/v1/topics/metrics%20topic/messages", {"messages": [{"value": n} for n in range(3)]}).status
        == 201
    )
    assert call(url, "PUT", "/v1/queues/metrics", {"default_attempts": 1, "max_depth": 3}).status == 200
    tasks = [{"name": "f", "id": f"metrics {n}"} for n in range(3)]
    assert call(url, "POST", "/v1/queues/metrics/tasks", {"tasks": tasks}).status == 201
    assert call(url, "POST", "/v1/queues/metrics/tasks", {"name": "f"}).json["code"] == "queue_full"
    worker = {"name": "metrics worker", "queues": ["metrics"], "dead_after_ms": 600_000}  # alive for all tests
    worker_id = call(url, "POST", "/v1/workers", worker).json["worker_id"]
    claim = {"worker_id": worker_id, "queues": ["metrics"], "max": 2}
    done, failed = call(url, "POST", "/v1/claims", claim).json["tasks"]
    for status in (200, 409):
        report = {"lease": done["lease"]["token"], "result": 9}
        assert call(url, "POST", f"/v1/tasks/{done['id'].replace(' ', '%20')}/complete", report).status == status
    error = {"lease": failed["lease"]["token"], "error": {"type": "ValueError", "message": "no"}}
    assert call(url, "POST", f"/v1/tasks/{failed['id'].replace(' ', '%20')}/fail", error).status == 200
    converge(cluster)
    return cluster


def test_d15_what_the_state_holds_is_the_same_at_every_node(busy: LocalCluster) -> None:
    for node in busy.nodes.values():
        found = scrape(node.url)
        assert value(found, "quorl_topic_messages", topic="metrics topic") == 3
        assert value(found, "quorl_topic_published_total", topic="metrics topic") == 3
        assert value(found, "quorl_consumer_lag_messages", topic="metrics topic", consumer="1") == 3
        states = {
            state: value(found, "quorl_tasks", queue="metrics", state=state)
            for state in ("QUEUED", "SUCCESS", "FAILED")
        }
        assert states == {"QUEUED": 1, "SUCCESS": 1, "FAILED": 1}
        assert value(found, "quorl_tasks_submitted_total", queue="metrics") == 3
        assert value(found, "quorl_tasks_failed_total", queue="metrics") == 1
        assert value(found, "quorl_task_runs_started_total", queue="metrics") == 2
        runs = {
            how: value(found, "quorl_task_runs_total", queue="metrics", outcome=how)
            for how in ("success", "failed", "lost")
        }
        assert runs == {"success": 1, "failed": 1, "lost": 0}
        assert value(found, "quorl_queue_workers", queue="metrics") == 1
        assert value(found, "quorl_queue_depth_limit", queue="metrics") == 3
        assert value(found, "quorl_workers", status="ALIVE") == 1
        assert value(found, "quorl_task_wait_seconds_count") == 2
        assert value(found, "quorl_task_run_seconds_count") == 1
        assert value(found, "quorl_task_fenced_total") == 1
        assert value(found, "quorl_metrics_left_out", kind="queues") == 0


def test_d15_each_node_tells_what_it_does_itself(busy: LocalCluster) -> None:
    leading, following = (scrape(node.url) for node in (busy[busy.leader()], follower(busy)))
    assert (value(leading, "quorl_raft_is_leader"), value(following, "quorl_raft_is_leader")) == (1, 0)
    for found in (leading, following):
        assert value(found, "quorl_raft_has_leader") == 1
        assert value(found, "quorl_member_failures_left") == 1
        assert [value(found, "quorl_member_up", member=name) for name in ("n1", "n2", "n3")] == [1, 1, 1]
        assert value(found, "quorl_fsync_duration_seconds_count") > 0
        assert value(found, "quorl_disk_free_bytes") > 0
        assert value(found, "process_resident_memory_bytes") > 10_000_000
    assert value(leading, "quorl_raft_proposals_total") > 5
    assert value(leading, "quorl_raft_commit_duration_seconds_count") > 5
    assert value(following, "quorl_http_requests_total", operation="submit", code="201") == 1
    assert value(following, "quorl_http_requests_total", operation="submit", code="429") == 1
    assert value(following, "quorl_backpressure_total", reason="queue_full") == 1
    assert value(following, "quorl_http_request_duration_seconds_count", operation="create_topic") == 1
    assert value(following, "quorl_http_forwarded_total") > 5


def test_d15_promtool_accepts_the_metrics(busy: LocalCluster) -> None:
    for node in busy.nodes.values():
        assert promtool("check", "metrics", stdin=call(node.url, "GET", "/metrics").body.decode()) == ""


def test_d15_openmetrics_is_spoken_to_those_who_ask(busy: LocalCluster) -> None:
    answer = call(
        busy[busy.leader()].url, "GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def _expressions() -> dict[str, str]:
    """Every query of the dashboard and of the alerts, by where it stands."""
    dashboard = json.loads((DEPLOY / "grafana" / "quorl.json").read_text(encoding="utf-8"))
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    }
    found |= {note["name"]: note["expr"] for note in dashboard["annotations"]["list"]}
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return found | {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}


def test_d15_every_metric_that_dashboard_and_alerts_name_exists(busy: LocalCluster) -> None:
    names = {name for name, _ in scrape(busy[busy.leader()].url)}
    for place, expression in _expressions().items():
        used = set(re.findall(r"\b(?:quorl|process)_\w+", expression))
        assert used or "up{" in expression, place
        assert used <= names, (place, used - names)


def test_d15_every_query_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$job", "quorl").replace("$queue", ".*")}
        for number, expression in enumerate(_expressions().values())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    promtool("check", "rules", str(path))


def test_d15_promtool_accepts_the_alerts_and_each_of_them_fires() -> None:
    promtool("check", "rules", str(RULES))
    tests = RULES.with_name("quorl.rules.test.yml")
    promtool("test", "rules", str(tests))
    assert all(tests.read_text(encoding="utf-8").count(name) for name in _expressions() if name.startswith("Quorl"))


def test_d15_the_page_says_of_each_metric_and_alert_what_it_means(busy: LocalCluster) -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(quorl_\w+|Quorl\w+)`", page))
    families = text_string_to_metric_families(call(busy[busy.leader()].url, "GET", "/metrics").body.decode())
    shown = {
        {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type, family.name)
        for family in families
        if family.name.startswith("quorl_")
    }
    alerts = {name for name in _expressions() if name.startswith("Quorl")}
    assert told == shown | alerts
