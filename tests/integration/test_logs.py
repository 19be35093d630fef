"""D15, D14: one call can be followed through the logs of its nodes, and nothing secret stands there."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from quorl.cluster.api.exits import Exit
from tests.harness import CALM, READY_S, LocalNode, call, cluster_in, die_with_parent, node_of, until, write_configs


def lines(node: LocalNode) -> list[dict[str, Any]]:
    assert node.log is not None
    return [json.loads(line) for line in node.log.read_text(encoding="utf-8").splitlines()]


def test_d15_a_forwarded_call_has_one_request_id_at_both_nodes_and_no_secret_is_told(tmp_path: Path) -> None:
    hidden = {"authorization": "Bearer hunter2", "idempotency-key": "hunter3", "cookie": "hunter4"}
    with cluster_in(tmp_path, sections={**CALM, "log": {"level": "debug", "format": "json"}}) as cluster:
        leader = cluster.leader()
        follower = next(name for name in cluster.nodes if name != leader)
        headers = {"request-id": "follow-me", **hidden}
        body = {"name": "n", "args": ["hunter5"]}
        assert call(cluster[follower].url, "POST", "/v1/queues/q/tasks", body, headers=headers).status == 201
        refused = call(cluster[follower].url, "GET", "/v1/topics/none", headers={"request-id": "and-me"})
        assert refused.status == 404

        def told(name: str, request_id: str) -> list[dict[str, Any]]:
            return [line for line in lines(cluster[name]) if line.get("request_id") == request_id]

        until(lambda: bool(told(follower, "follow-me") and told(leader, "follow-me")), "both nodes to tell", READY_S)
        (here,), (there,) = told(follower, "follow-me"), told(leader, "follow-me")
        for line, node, hops in ((here, follower, "0"), (there, leader, "1")):
            assert {name: line[name] for name in ("event", "method", "path", "status", "node", "hops", "level")} == {
                "event": "call_answered",
                "method": "POST",
                "path": "/v1/queues/q/tasks",
                "status": 201,
                "node": node,
                "hops": hops,
                "level": "debug",
            }
        assert here["ms"] >= there["ms"]
        until(lambda: [line["status"] for line in told(follower, "and-me")] == [404], "the refusal to be told", READY_S)
        everything = "".join(node.log.read_text(encoding="utf-8") for node in cluster.nodes.values() if node.log)
        assert "hunter" not in everything
        assert "a secret of this test" not in everything


def test_a_node_that_waits_for_others_says_for_whom(tmp_path: Path) -> None:
    node = node_of(write_configs(tmp_path)[0])
    node.start()
    try:
        until(lambda: len(lines(node)) > 1, "a line behind the first", READY_S)
        started, waiting = lines(node)
        assert (started["event"], waiting["event"], waiting["level"]) == ("node_started", "waiting_for_members", "info")
        assert "needs each of its 3 members once. Not seen by n1 so far: n2 (" in waiting["why"]
        assert waiting["advice"].startswith("See to the members that the detail names: start those")
    finally:
        node.kill()


@pytest.mark.parametrize("stderr", ["nobody reads it", "closed"])
@pytest.mark.parametrize("layout", ["json", "console"])
def test_a_node_of_which_nobody_reads_what_it_says_runs_and_ends_as_any_other(
    tmp_path: Path, layout: str, stderr: str
) -> None:
    (config,) = write_configs(tmp_path, size=1, sections={"log": {"format": layout, "level": "debug"}})
    ours, theirs = os.pipe()
    os.close(ours)

    def mute() -> None:
        die_with_parent()
        os.dup2(theirs, 2)
        if stderr == "closed":
            os.close(2)

    node, twin, lost = (LocalNode(config, before_exec=mute) for _ in range(3))
    lost.command[-1] = str(tmp_path / "nowhere")
    try:
        node.start()
        until(lambda: node.ask("/readyz")[0] == 200, "the node to be ready", READY_S)
        twin.start()
        lost.start()
        assert [one.wait(READY_S) for one in (twin, lost)] == [Exit.MACHINE, Exit.CONFIG]
        node.signal(signal.SIGTERM)
        assert node.wait(READY_S) == Exit.STOPPED
    finally:
        os.close(theirs)
        for one in (node, twin, lost):
            if one.alive:
                one.kill()
