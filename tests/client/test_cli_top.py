"""``quorl top``: what is on the screen, what is left out, and how one leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from quorl.client.cli.top import page, shares, spark
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol import queues as q
from tests.client import sights
from tests.client.commands import Quorl, environment
from tests.client.stand_in import StandIn
from tests.client.terminal import terminal


def busy(cluster: StandIn, **changes: Any) -> o.Overview:
    """A cluster with something to see."""
    curve = o.Spark(submitted=[0] * 18 + list(range(12)), succeeded=[0] * 30, failed_attempts=[0] * 30)
    reports = sights.queue("reports", health="no_workers", counts=q.QueueCounts(queued=312), spark=curve, slots=0)
    full = sights.queue("default", full=True, submitted_s=210.4)
    running = [o.OverviewTask(id=f"t{n}", name="demo.add", queue="default", started_at_ms=1) for n in (1, 2)]
    alert = o.Alert(code="no_workers", severity="critical", text="reports: 312 tasks wait", queue="reports")
    topic = o.OverviewTopic(
        topic="logs\x1b[31m", partitions=4, messages=120_000, bytes=1, consumers=0, worst_lag=None, appended_s=1920.0
    )
    plain: dict[str, Any] = {
        "queues": [reports, full],
        "workers": [sights.worker(1, "w-7f3a", running=running, leases=2), sights.worker(2, "w2", status="DEAD")],
        "topics": [topic],
        "alerts": [alert],
    }
    return sights.overview(cluster.info(), **{**plain, **changes})


def drawn(seen: o.Overview, width: int = 120, height: int = 40, trouble: str = "") -> list[str]:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(width=width, height=height, record=True, file=nowhere)
        console.print(page(seen, trouble, width, height))
        return console.export_text().splitlines()


def test_d15_the_screen_shows_everything(cluster: StandIn) -> None:
    screen = drawn(busy(cluster))
    assert screen[0].startswith("dev · OK · leader n1 (term 7) · in 0.0/s, done 0.0/s · ")
    assert screen[1] == "! reports: 312 tasks wait"
    text = "\n".join(screen)
    for told in ("n1", "NO WORKERS", "FULL", "210.4", " ▁▂▂▃▄▄▅▆▆▇█", "w-7f3a", "demo.add ×2", "DEAD", "120 000"):
        assert told in text
    assert "logs\\x1b[31m" in text
    assert screen[-1] == "n1 · q quits"


def test_a_narrow_screen_does_without_what_matters_least(cluster: StandIn) -> None:
    queue = "a-queue-with-a-rather-long-name"
    seen = busy(cluster, queues=[sights.queue(queue)])
    wide, narrow = ("\n".join(drawn(seen, width)) for width in (120, 80))
    assert "IN (2 min)" in wide
    assert "IN (2 min)" not in narrow
    assert all(name in narrow for name in ("HEALTH", "WAITING", "OLDEST", queue[:20]))


@pytest.mark.parametrize("height", [6, 10, 14, 20, 30])
def test_the_screen_is_never_overrun(cluster: StandIn, height: int) -> None:
    many = [sights.queue(f"q{n}") for n in range(200)]
    screen = drawn(busy(cluster, queues=many, queues_more=7), 60, height)
    assert len(screen) <= height
    assert max(map(len, screen)) <= 60
    shown = sum(line.startswith("q") for line in screen)
    if shown:
        assert f"… {207 - shown} more" in "\n".join(screen)


def test_every_table_gets_something_before_one_gets_all() -> None:
    assert shares([3, 200, 2, 0], 30) == [3, 19, 2, None]
    assert shares([3, 200, 2, 1], 7) == [2, 1, None, None]
    assert shares([3, 2], 2) == [None, None]


def test_trouble_is_said_beside_what_was_seen(cluster: StandIn) -> None:
    assert drawn(busy(cluster), trouble="no node answers")[1] == "! as it was: no node answers"
    assert drawn(busy(cluster, read_only="No leader."))[1] == "! No leader."


def test_a_curve() -> None:
    assert spark([0, 1, 4, 8], 4) == " ▁▄█"
    assert spark([], 4) == ""
    assert spark([0, 0]) == "  "


def test_without_a_terminal_it_is_printed_once(quorl: Quorl, cluster: StandIn) -> None:
    seen = busy(cluster, queues_more=3)
    cluster.answers["get_overview"] = lambda _: seen
    printed = quorl("top")
    assert printed.exit_code == 0
    heads = [line.split()[0] for line in printed.stdout.splitlines() if line.isupper() or line.startswith("QUEUE")]
    assert heads[0] == "NODE"
    assert "and 3 more\n" in printed.stdout
    assert json.loads(quorl("top", "--json").stdout) == json.loads(msgspec.json.encode(seen))


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_d15_q_quits_as_ctrl_c_does(cluster: StandIn, key: str) -> None:
    cluster.answers["get_overview"] = lambda _: busy(cluster)
    with terminal("top", "--every", "0.2", environment=environment(cluster), lines=40, columns=120) as screen:
        for _ in range(3):
            screen.until("q quits")
        assert screen.settings != screen.before
        screen.press(key)
        assert screen.ended() == 0
        assert screen.settings == screen.before, "the terminal is as it was"
    assert screen.seen.count("\x1b[?1049h") == screen.seen.count("\x1b[?1049l") == 1
