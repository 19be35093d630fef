"""Ten thousand rows: only those in sight exist, and scrolling reaches the last."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open, live
from tests.harness import LocalCluster, cluster_in
from tests.taskkit import submit

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROWS = 10_000
ROWS_IN_SIGHT_MAX = 60
BUILT_PER_STEP_MAX = 30
"""A step of the wheel builds the rows that come into sight, about a dozen, and not the list anew."""
_SCROLL = """async () => {
  const box = document.querySelector(".tasks .virtual");
  const built = [], rows = [];
  let changed = 0;
  const watch = new MutationObserver((records) => { changed += records.flatMap((one) => [...one.addedNodes]).length; });
  watch.observe(box, { childList: true, subtree: true });
  for (let n = 0; n < 120; n++) {
    changed = 0;
    box.scrollTop += 400;
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    built.push(changed);
    rows.push(box.querySelectorAll(".task-row").length);
  }
  watch.disconnect();
  return { built: Math.max(...built), most: Math.max(...rows), least: Math.min(...rows) };
}"""


_APART = """() => {
  const [head, row] = [".task-row.head", ".task-row[data-id]"].map((which) => document.querySelector(which));
  return [...row.children].map((cell, n) => Math.abs(cell.getBoundingClientRect().right - head.children[n].getBoundingClientRect().right));
}"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        for start in range(0, ROWS, 2500):
            submit(cluster.urls[0], "many", *[{"name": "row", "args": [n]} for n in range(start, start + 2500)])
        yield cluster


@pytest.mark.parametrize("queue", ["many", "few"])
def test_b1_headings_stand_over_their_columns_with_a_scroll_bar_and_without(
    opened: Open, cluster: LocalCluster, queue: str
) -> None:
    submit(cluster.urls[0], "few", {"name": "row"})
    with opened(cluster, f"{cluster.urls[0]}/#/tasks?queue={queue}") as seen:
        expect(seen.page.locator(".task-row[data-id]").first).to_be_visible()
        apart = seen.page.evaluate(_APART)
        assert len(apart) > 5
        assert max(apart) < 1, f"headings stand {apart} pixels beside their columns"


def test_b1_ten_thousand_rows_scroll(opened: Open, cluster: LocalCluster) -> None:
    with opened(cluster, f"{cluster.urls[0]}/#/tasks?queue=many") as seen:
        page = seen.page
        live(page)
        expect(page.locator(".task-row[data-id]").first).to_contain_text(f"row({ROWS - 1})")
        box = page.locator(".tasks .virtual")
        foot = page.locator(".tasks-foot")
        while foot.get_attribute("data-loaded") != str(ROWS):
            box.evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
            page.wait_for_timeout(30)
        box.evaluate("(box) => { box.scrollTop = box.scrollHeight; }")  # the last page has made it longer once more
        expect(foot).to_contain_text(re.compile(r"^10\s000 tasks loaded of 10\s000$"))
        expect(page.locator(".task-row[data-id]").last).to_contain_text("row(0)")
        box.evaluate("(box) => { box.scrollTop = 0; }")
        expect(page.locator(".task-row[data-id]").first).to_contain_text(f"row({ROWS - 1})")
        found = page.evaluate(_SCROLL)
        assert found["most"] <= ROWS_IN_SIGHT_MAX
        assert found["least"] >= 15
        assert found["built"] <= BUILT_PER_STEP_MAX, found
