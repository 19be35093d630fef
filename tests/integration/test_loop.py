"""The loop of real nodes: the same from outside on uvloop and on asyncio's own: d15."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from quorl.client.local.processes import LocalCluster, LocalNode
from quorl.cluster import loops
from tests.harness import READY_S, ROOT, call, die_with_parent, until, write_configs
from tests.loops import factories

NO_UVLOOP = "raise ImportError('as on a system that has none')\n"


def node_on(loop: str, config: Path, tmp_path: Path) -> LocalNode:
    """A node whose process has uvloop, or has none."""
    quiet = {name: text for name, text in os.environ.items() if not name.startswith("QUORL_")}
    if loop == "asyncio":
        (tmp_path / "without").mkdir(exist_ok=True)
        (tmp_path / "without" / "uvloop.py").write_text(NO_UVLOOP)
        quiet["PYTHONPATH"] = f"{tmp_path / 'without'}:{ROOT / 'src'}:{quiet.get('PYTHONPATH', '')}"
    return LocalNode(config, log=config.with_suffix(".log"), environment=quiet, before_exec=die_with_parent)


def started(node: LocalNode) -> dict[str, Any]:
    assert node.log is not None
    log = node.log
    until(lambda: log.exists() and '"node_started"' in log.read_text(), "the node to start", READY_S, node.last_words)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    (line,) = [line for line in lines if line["event"] == "node_started"]
    found: dict[str, Any] = line
    return found


@pytest.fixture(params=factories())
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_d15_a_cluster_serves_on_each_loop_and_says_which_it_is(loop: str, tmp_path: Path) -> None:
    nodes = [node_on(loop, config, tmp_path) for config in write_configs(tmp_path)]
    with LocalCluster(nodes) as cluster:
        cluster.start()
        leader = cluster.leader()
        other = next(name for name in cluster.nodes if name != leader)
        assert call(cluster[leader].url, "POST", "/v1/topics", {"name": "t"}).status in {200, 201}
        for name in (leader, other):
            assert call(cluster[name].url, "POST", "/v1/topics/t/messages", {"messages": [{"value": 1}]}).status in {
                200,
                201,
            }
        cluster[leader].kill()
        assert cluster.leader(other_than=leader) != leader
        assert call(cluster[other].url, "POST", "/v1/topics/t/messages", {"messages": [{"value": 2}]}).status in {
            200,
            201,
        }
        seen = cluster[other].cluster()
        assert seen is not None
        told = seen["settings"]["loop"]
        assert told.split()[0] == loop
        assert json.loads(cluster[other].ask("/version")[1])["loop"] == told
        assert started(cluster[other])["loop"] == told
        assert cluster[other].stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_d15_a_second_signal_does_not_cut_the_first_one_short(
    loop: str, number: signal.Signals, tmp_path: Path
) -> None:
    node = node_on(loop, write_configs(tmp_path)[0], tmp_path)
    node.start()
    try:
        started(node)
        for again in (number, number, signal.SIGTERM):
            node.signal(again)
        assert node.wait() == 0
        assert "node_stopped" in node.last_words()
        assert "Traceback" not in node.last_words(100)
    finally:
        node.kill()


def test_a_node_takes_uvloop_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvloop", None)
    assert loops.factory() is asyncio.new_event_loop
    with asyncio.Runner(loop_factory=loops.factory()) as runner:
        assert runner.run(named()) == "asyncio"
    monkeypatch.undo()
    if (taken := factories().get("uvloop")) is not None:
        with asyncio.Runner(loop_factory=taken) as runner:
            assert runner.run(named()).startswith("uvloop 0.")


async def named() -> str:
    return loops.name()
