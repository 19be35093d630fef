"""Names as long as they may be, and more alerts than a page has room for: nothing is pushed out of sight."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import ViewportSize, expect

from tests.browser.conftest import NARROW, Open, live, overflow, serious, shot
from tests.harness import LocalCluster, call, cluster_in
from tests.taskkit import Hand, ok, submit_one

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LONG = "department.team.service.purpose-" * 3
ALERTS = 9
HIDDEN_MAX = 40
"""How wide the columns are depends on the fonts of the machine, and on what stands in them, by some letters."""
USUAL: ViewportSize = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        url = cluster.urls[0]
        for number in range(ALERTS):
            submit_one(url, f"lonely-{number}", name="shop.add")
        ok(call(url, "POST", "/v1/topics", {"name": LONG, "partitions": 3}))
        handlers = [{"name": f"shop.{LONG}", "signature": "(order: str) -> None"}]
        lasting = {"heartbeat_ms": 60_000, "dead_after_ms": 600_000}
        hand = Hand(url, LONG, name=LONG, handlers=handlers, **lasting)
        submit_one(url, LONG, name=f"shop.{LONG}", args=["x" * 200], max_attempts=1)
        ok(hand.fail(hand.one(), "No mailbox for anybody. " * 20))
        yield cluster


@pytest.mark.parametrize("size", [NARROW, USUAL], ids=["narrow", "usual"])
@pytest.mark.parametrize(
    "where",
    [
        "overview",
        "queues",
        f"queues/{LONG}",
        "tasks",
        "workers",
        "topics",
        f"topics/{LONG}",
        "dead",
        "submit",
        "cluster",
    ],
)
def test_b1_long_names_make_no_page_wider(opened: Open, cluster: LocalCluster, where: str, size: ViewportSize) -> None:
    with opened(cluster, f"{cluster.urls[0]}/#/{where}", size=size) as seen:
        live(seen.page)
        if where != "cluster":
            expect(seen.page.locator("main")).to_contain_text(LONG[:20])
        shot(seen.page, f"crowded-{where.partition('/')[0]}-{len(where) > len('overview')}-{size['width']}")
        assert overflow(seen.page) == 0


def test_b1_a_long_name_leaves_the_other_columns_of_the_queues_in_sight(opened: Open, cluster: LocalCluster) -> None:
    with opened(cluster, f"{cluster.urls[0]}/#/queues", size=USUAL) as seen:
        live(seen.page)
        expect(seen.page.locator("[data-row]").first).to_be_visible()
        hidden = seen.page.evaluate("(one => one.scrollWidth - one.clientWidth)(document.querySelector('.table-wrap'))")
        assert hidden <= HIDDEN_MAX
        assert seen.page.get_by_role("link", name=LONG).get_attribute("title") == LONG


def test_b1_of_many_alerts_the_first_stand_above_the_numbers_and_a_key_shows_the_others(
    opened: Open, cluster: LocalCluster
) -> None:
    with opened(cluster, f"{cluster.urls[0]}/#/overview", size=USUAL) as seen:
        live(seen.page)
        expect(seen.page.locator(".alert")).to_have_count(5)
        assert serious(seen.page) == []
        numbers = seen.page.get_by_role("region", name="Now").bounding_box()
        assert numbers is not None
        assert numbers["y"] + numbers["height"] <= USUAL["height"]
        button = seen.page.get_by_role("button", name=f"Show {ALERTS - 5} more alerts")
        button.focus()
        seen.page.keyboard.press("Enter")
        expect(seen.page.locator(".alert")).to_have_count(ALERTS)
        seen.page.get_by_role("button", name="Show the first 5").click()
        expect(seen.page.locator(".alert")).to_have_count(5)
