"""A real browser before a real cluster: Debian's Chromium, without a network of its own, and pages that must keep quiet.

Every page fails its test on a message in the console, an error of a script, or a request to anywhere but the cluster. Screenshots go to
``build/screenshots`` (or ``QUORL_SCREENSHOTS``), so that somebody can look at them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, ViewportSize, expect, sync_playwright

from tests.browser import scene as scenes
from tests.harness import ROOT, LocalCluster

CHROMIUM = os.environ.get("CHROMIUM", "chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)
WIDE: ViewportSize = {"width": 1440, "height": 900}
NARROW: ViewportSize = {"width": 360, "height": 740}
PATIENCE_MS = 20_000
SHOTS = Path(os.environ.get("QUORL_SCREENSHOTS", ROOT / "build" / "screenshots"))
_MEASURE = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (!one.hadRecentInput) window.shifts += one.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each module: Playwright keeps an event loop running in this thread until it is left, and no asyncio test runs before."""
    path = shutil.which(CHROMIUM)
    if path is None:
        pytest.fail("No Chromium is here: `apt-get install chromium`, or say where it is in CHROMIUM.")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS.split(), timeout=60_000)
        yield browser
        browser.close()


class Seen:
    """A page and everything that it did which it should not do."""

    def __init__(self, page: Page, cluster: LocalCluster) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.failing_is_fine = False
        """While nodes are killed, requests to them fail, and the browser says so in the console."""
        self._homes = {urlsplit(url).netloc for url in cluster.urls}
        page.on("console", lambda message: self._complain(f"console: {message.text}", network="net::" in message.text))
        page.on("pageerror", lambda error: self._complain(f"error: {error}"))
        self._open: set[Request] = set()
        page.on("request", self._asked)
        page.on("requestfinished", self._answered)
        page.on("requestfailed", self._answered)

    def _complain(self, text: str, *, network: bool = False) -> None:
        # Chromium breaks off its requests, also those on loopback, when an interface of the machine comes or goes: the page lives with it.
        if not (network and (self.failing_is_fine or "net::ERR_NETWORK_CHANGED" in text)):
            self.complaints.append(text)

    def _asked(self, request: Request) -> None:
        if request.resource_type != "eventsource":  # which never ends
            self._open.add(request)
        if urlsplit(request.url).netloc not in self._homes:
            self.complaints.append(f"request to {request.url}")

    def _answered(self, request: Request) -> None:
        self._open.discard(request)

    def settle(self) -> None:
        """Wait until the page has all that it has asked for, and has drawn it."""
        while self._open:
            self.page.wait_for_timeout(20)  # in which the browser tells
        self.page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")

    def quiet(self) -> None:
        """Nothing was complained of."""
        assert not self.complaints, "\n".join(self.complaints)


Open = Callable[..., Any]


@pytest.fixture(scope="module")
def opened(browser: Browser) -> Open:
    """Open a page: ``with opened(cluster, url, scheme="dark", size=NARROW) as page``."""

    @contextmanager
    def open_(cluster: LocalCluster, url: str, *, scheme: Any = "light", size: ViewportSize = WIDE) -> Iterator[Seen]:
        context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.add_init_script(_MEASURE)
        seen = Seen(page, cluster)
        page.goto(url)
        try:
            yield seen
            seen.quiet()
        finally:
            context.close()

    return open_


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[scenes.Scene]:
    """A cluster with load that the tests only look at."""
    with (
        scenes.cluster(tmp_path_factory.mktemp("cluster")) as cluster,
        scenes.scene(cluster, tmp_path_factory.mktemp("workers")) as made,
    ):
        yield made


def live(page: Page) -> None:
    """Wait until the page is live."""
    expect(page.locator(".live")).to_have_attribute("data-state", "live")


def shot(page: Page, name: str) -> None:
    """Keep a picture of the whole page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def serious(page: Page) -> list[str]:
    """What axe finds that keeps readers from using the page."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']][:4]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    return int(
        page.evaluate("Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)")
    )
