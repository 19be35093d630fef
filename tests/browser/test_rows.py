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
FRAME_MS_MAX = 50.0
"""A median frame longer than this would be seen; sixty in a second take 17 ms each on a machine that does nothing else."""
_SCROLL = """async () => {
  const box = document.querySelector(".tasks .virtual");
  const frames = [], rows = [];
  for (let last = performance.now(), n = 0; n < 120; n++) {
    box.scrollTop += 400;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push(now - last);
    last = now;
    rows.push(box.querySelectorAll(".task-row").length);
  }
  frames.sort((a, b) => a - b);
  return { median: frames[frames.length / 2], most: Math.max(...rows), least: Math.min(...rows) };
}"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        for start in range(0, ROWS, 2500):
            submit(cluster.urls[0], "many", *[{"name": "row", "args": [n]} for n in range(start, start + 2500)])
        yield cluster


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
        expect(foot).to_contain_text(re.compile(r"^10\s000 tasks loaded of 10\s000$"))
        expect(page.locator(".task-row[data-id]").last).to_contain_text("row(0)")
        box.evaluate("(box) => { box.scrollTop = 0; }")
        found = page.evaluate(_SCROLL)
        assert found["most"] <= ROWS_IN_SIGHT_MAX
        assert found["least"] >= 15
        assert found["median"] < FRAME_MS_MAX
