"""The story of a bad day, seen from the page: submit, watch, fail, retry, lose the leader, recover; lose the node itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import scene as scenes
from tests.browser.conftest import NARROW, Open, live, overflow, serious, shot
from tests.harness import call, cluster_in
from tests.taskkit import finished, ok, task_of

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def own_scene(tmp_path: Path) -> Iterator[scenes.Scene]:
    """A scene whose nodes may be killed."""
    (tmp_path / "workers").mkdir()
    with scenes.cluster(tmp_path / "cluster") as cluster, scenes.scene(cluster, tmp_path / "workers") as made:
        yield made


@pytest.mark.timeout(300)
def test_b1_submit_watch_fail_retry_kill_the_leader_recover(opened: Open, own_scene: scenes.Scene) -> None:
    cluster = own_scene.cluster
    leader = cluster[cluster.leader()]
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    with opened(cluster, f"{follower.url}/#/submit") as seen:
        page = seen.page
        live(page)
        # Submit from the form that the worker's signature makes, and watch it succeed.
        page.get_by_role("button", name="shop.charge").click()
        page.get_by_label("Queue").fill("payments")
        page.get_by_label("order").fill("41")
        page.get_by_label("amount").fill("9.5")
        page.get_by_role("button", name="Submit to payments").click()
        expect(page.locator(".followed").first.get_by_text("SUCCESS")).to_be_visible()
        expect(page.locator(".followed pre").first).to_have_text('"41: 9.50 EUR"')
        # One that fails three times, and why.
        page.get_by_label("order").fill("42")
        page.get_by_label("amount").fill("-1")
        page.get_by_role("button", name="Submit to payments").click()
        expect(page.locator(".followed").first.get_by_text("FAILED")).to_be_visible()
        shot(page, "story-1-failed")
        page.locator(".followed a").first.click()
        expect(page.locator(".attempts details")).to_have_count(3)
        task_id = page.url.rpartition("/")[2].partition("?")[0]
        # Retry by hand: it gets three attempts more, and fails again.
        page.locator(".drawer").get_by_role("button", name="Retry").click()
        expect(page.locator(".attempts details")).to_have_count(6)
        # All six stand in the timeline, and that it lay there between the third and the fourth was no waiting.
        runs = page.locator(".pieces li", has_text="run ")
        expect(runs).to_contain_text([f"run {number} failed" for number in range(1, 7)])
        expect(page.locator(".pieces li", has_text="FAILED until it was retried")).to_have_count(1)
        assert finished(follower.url, task_id)["attempts"] == 6
        # Both other nodes die, the leader first: the page says that nothing can be written.
        page.goto(f"{follower.url}/#/overview")
        live(page)
        term = ok(call(follower.url, "GET", "/v1/cluster"))["term"]
        others = [leader, *(node for node in cluster.nodes.values() if node not in {leader, follower})]
        for node in others:
            node.kill()
        expect(page.locator(".banner")).to_contain_text("Read-only")
        expect(page.locator(".member.is-unreachable")).to_have_count(2)
        lamp = page.locator(".live")  # the stream lives, and still the lamp is not lit
        expect(lamp).to_have_text("live, no quorum")
        expect(lamp).to_have_attribute("data-state", "read-only")
        assert lamp.locator(".dot").evaluate("one => getComputedStyle(one).backgroundColor") == "rgba(0, 0, 0, 0)"
        shot(page, "story-2-read-only")
        assert serious(page) == []
        # They come back: the banner goes, a higher term stands there, and submitting works again.
        for node in others:
            node.start()
        expect(page.locator(".banner")).to_have_count(0, timeout=60_000)
        live(page)
        expect(page.locator(".member.is-unreachable")).to_have_count(0, timeout=60_000)
        shot(page, "story-3-recovered")
        assert ok(call(follower.url, "GET", "/v1/cluster"))["term"] > term
        assert task_of(follower.url, task_id)["status"] == "FAILED"


@pytest.mark.timeout(240)
def test_b1_the_page_moves_when_its_node_dies(opened: Open, own_scene: scenes.Scene) -> None:
    cluster = own_scene.cluster
    mine = cluster[cluster.leader()]
    with opened(cluster, f"{mine.url}/#/tasks?status=FAILED") as seen:
        page = seen.page
        live(page)
        seen.failing_is_fine = True
        mine.kill()
        banner = page.locator(".banner")
        expect(banner).to_contain_text("does not answer")
        expect(banner.get_by_role("button", name="Go to")).to_be_visible()
        shot(page, "moving")
        page.wait_for_url(lambda url: not url.startswith(mine.url))
        assert "status=FAILED" in page.url
        live(page)
        expect(page.locator(".task-row[data-id]").first).to_be_visible()


@pytest.mark.timeout(240)
def test_b1_the_lead_is_handed_over_from_the_page(opened: Open, own_scene: scenes.Scene) -> None:
    cluster = own_scene.cluster
    leader = cluster.leader()
    with opened(cluster, f"{cluster[leader].url}/#/cluster") as seen:
        page = seen.page
        live(page)
        heir = next(name for name in cluster.nodes if name != leader)
        page.locator("tr", has_text=cluster[heir].url.removeprefix("http://")).get_by_role(
            "button", name="Let it lead"
        ).click()
        page.get_by_role("button", name=f"Let {heir} lead").click()
        expect(page.get_by_text(f"{heir} leads, after")).to_be_visible()
        expect(page.locator(".member.leads .name")).to_contain_text(heir)


def test_b1_an_empty_cluster_explains_what_to_do_first(opened: Open, tmp_path: Path) -> None:
    with cluster_in(tmp_path / "empty", name="shop-new") as cluster:
        looks: dict[str, dict[str, Any]] = {"light": {}, "dark": {"scheme": "dark"}, "narrow": {"size": NARROW}}
        for look, how in looks.items():
            with opened(cluster, cluster.urls[1], **how) as seen:
                live(seen.page)
                expect(seen.page.get_by_text("What to do first")).to_be_visible()
                expect(seen.page.get_by_text("quorl worker run shop:app").first).to_be_visible()
                shot(seen.page, f"empty-{look}")
                assert serious(seen.page) == []
        for name in ("queues", "tasks", "workers", "topics", "dead", "submit"):
            with opened(cluster, f"{cluster.urls[1]}/#/{name}") as seen:
                live(seen.page)
                shot(seen.page, f"empty-{name}")
                assert serious(seen.page) == []
                seen.page.set_viewport_size(NARROW)
                assert overflow(seen.page) == 0, name
