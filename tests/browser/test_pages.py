"""Every page over a cluster with load: photographed in light, dark and narrow, quiet, readable, and as the API says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.conftest import NARROW, SHOTS, Open, live, overflow, serious, shot
from tests.browser.scene import BIG, QUEUES, TOPICS, Scene
from tests.harness import call
from tests.taskkit import Hand, finished, ok, submit_one, task_of

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"scheme": "light"},
    "dark": {"scheme": "dark"},
    "narrow": {"size": NARROW},
}
WIDEST: ViewportSize = {"width": 1920, "height": 1080}
USUAL: ViewportSize = {"width": 1280, "height": 900}
SHIFT_MAX = 0.02
FIRST_PAINT_MS_MAX = 300
"""On a machine that paints ``PLAIN``, which has no script, in ``PLAIN_MS``; a slower one may take longer by as much."""
PLAIN, PLAIN_MS = "problems/commit_unknown", 60
# A painted page need not have reported its paint yet: the observer is told of it then, and of one that was before.
FIRST_PAINT = """() => new Promise(told => new PerformanceObserver((seen, observer) => {
    const first = seen.getEntriesByName('first-contentful-paint')[0]
    if (first) { observer.disconnect(); told(first.startTime) }
}).observe({ type: 'paint', buffered: true }))"""
PAGES = {
    "overview": ("#/overview", ".member.leads"),
    "queues": ("#/queues", "[data-row=reports]"),
    "queue": ("#/queues/payments", "text=Workers that serve it"),
    "tasks": ("#/tasks", ".task-row[data-id]"),
    "failed": ("#/tasks?status=FAILED&queue=payments", ".bulk"),
    "workers": ("#/workers", "text=stand-by"),
    "topics": ("#/topics", "[data-row=orders]"),
    "topic": ("#/topics/orders", ".message"),
    "dead": ("#/dead", ".group"),
    "submit": ("#/submit?name=shop.charge", "#param-order"),
    "cluster": ("#/cluster", "text=Who led"),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_b1_every_page_is_whole_in_every_look(opened: Open, scene: Scene, name: str, look: str) -> None:
    """Nothing is wider than the window, nothing serious is found by axe, nothing is said in the console."""
    where, sign = PAGES[name]
    with opened(scene.cluster, f"{scene.url}/{where}", **LOOKS[look]) as seen:
        live(seen.page)
        expect(seen.page.locator(sign).first).to_be_visible()
        shot(seen.page, f"{name}-{look}")
        assert overflow(seen.page) == 0
        assert serious(seen.page) == []


@pytest.mark.parametrize("look", LOOKS)
def test_b1_the_documentation_of_the_api_is_whole_in_every_look(opened: Open, scene: Scene, look: str) -> None:
    for path in ("docs", "problems", "problems/commit_unknown"):
        with opened(scene.cluster, f"{scene.url}/{path}", **LOOKS[look]) as seen:
            seen.page.screenshot(
                path=SHOTS / f"{path.replace('/', '-')}-{look}.png"
            )  # the top of it; the whole takes seconds
            for closed in seen.page.locator("summary").all()[:3]:
                closed.click()
            assert overflow(seen.page) == 0
            assert look != "light" or serious(seen.page) == []


def test_b1_the_overview_fills_a_wide_screen(opened: Open, scene: Scene) -> None:
    with opened(scene.cluster, scene.url, size=WIDEST) as seen:
        live(seen.page)
        expect(seen.page.locator(".member.leads")).to_be_visible()
        expect(seen.page.locator(".tile", has_text="Wait · Run").locator(".value")).to_contain_text("ms")
        shot(seen.page, "overview-wide")
        assert overflow(seen.page) == 0


@pytest.mark.parametrize("look", LOOKS)
def test_b1_drawers_and_dialogs_in_every_look(opened: Open, scene: Scene, look: str) -> None:
    task = scene.failed()[0]["id"]
    dead = next(one for one in ok(call(scene.url, "GET", "/v1/workers"))["items"] if one["status"] == "DEAD")
    drawers = {
        "task": (f"#/tasks/{task}?status=FAILED", ".attempts"),
        "worker": (f"#/workers?open={dead['worker_id']}", "text=Heartbeat log"),
    }
    for name, (where, sign) in drawers.items():
        with opened(scene.cluster, f"{scene.url}/{where}", **LOOKS[look]) as seen:
            live(seen.page)
            expect(seen.page.locator(sign).first).to_be_visible()
            shot(seen.page, f"drawer-{name}-{look}")
            assert serious(seen.page) == []
            assert overflow(seen.page) == 0
    with opened(scene.cluster, f"{scene.url}/#/queues/payments", **LOOKS[look]) as seen:
        live(seen.page)
        seen.page.get_by_role("button", name="Pause").click()
        expect(seen.page.get_by_role("dialog")).to_be_visible()
        shot(seen.page, f"dialog-{look}")
        assert serious(seen.page) == []


def test_b14_b17_b18_the_overview_names_every_node_queue_and_worker(opened: Open, scene: Scene) -> None:
    with opened(scene.cluster, scene.url) as seen:
        live(seen.page)
        for name in scene.cluster.nodes:
            expect(seen.page.locator(".member .name", has_text=name)).to_be_visible()
        for name in (*QUEUES, *TOPICS, "web-1", "web-2", "web-3", "spare"):
            expect(seen.page.get_by_text(name, exact=True).first).to_be_visible()
        expect(seen.page.get_by_text("NO WORKERS").first).to_be_visible()
        expect(seen.page.locator(".alert").filter(has_text="reports")).to_be_visible()
        seen.page.goto(f"{scene.url}/#/workers")
        row = seen.page.locator("tr", has_text="web-3")
        expect(row.get_by_text("DEAD", exact=True)).to_be_visible()
        expect(seen.page.locator("tr", has_text="spare").get_by_text("stand-by")).to_be_visible()
        expect(row.locator(".beats rect.d").first).to_be_attached()
        expect(seen.page.locator("tr", has_text="web-1").locator(".beats rect.b").first).to_be_attached()


def test_b1_the_overview_says_whose_it_is_and_cuts_no_number(opened: Open, scene: Scene) -> None:
    with opened(scene.cluster, scene.url, size=USUAL) as seen:
        expect(seen.page).to_have_title(f"Overview · {ok(call(scene.url, 'GET', '/v1/cluster'))['name']}")
        expect(seen.page.locator(".tile .value")).to_have_count(8)
        cut = "values => values.filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText)"
        assert seen.page.locator(".tile .value").evaluate_all(cut) == []


def test_b17_a_worker_that_has_left_stays_in_sight(opened: Open, scene: Scene) -> None:
    name = "ended-as-it-should"
    with opened(scene.cluster, f"{scene.url}/#/workers") as seen:
        page = seen.page
        live(page)
        row = page.locator("tr", has_text=name)
        expect(page.locator("tr", has_text="web-1")).to_be_visible()
        expect(row).to_have_count(0)
        assert Hand(scene.url, "emails", name=name).leave().status == 200
        expect(row.get_by_text("LEFT", exact=True)).to_be_visible()
        expect(page.get_by_text("1 LEFT in 24 h")).to_be_visible()
        expect(page.locator("tbody tr").last).to_contain_text(name)  # quietly, below those that matter now
        shot(page, "workers-left")
        assert serious(page) == []
        page.get_by_role("button", name="ALIVE", exact=True).click()
        expect(row).to_have_count(0)
        page.get_by_role("button", name="LEFT", exact=True).click()
        expect(page.locator("tbody tr")).to_have_count(1)
        row.get_by_role("link").click()
        expect(page.get_by_role("region", name="Worker").get_by_role("heading", name=name)).to_be_visible()


def test_b14_the_cluster_page_says_how_far_each_member_is_and_how_long_it_runs(opened: Open, scene: Scene) -> None:
    with opened(scene.cluster, f"{scene.url}/#/cluster") as seen:
        live(seen.page)
        for name in scene.cluster.nodes:
            row = seen.page.get_by_label("Members").locator("tr", has=seen.page.get_by_text(name, exact=True))
            own = row.get_by_text("this node").count() == 1
            expect(row.locator("[data-label=RTT]")).to_have_text("–" if own else re.compile(r"^\d+(\.\d)? ms$"))
            expect(row.locator("[data-label=Uptime]")).to_have_text(re.compile(r"^(now|\d+[smhd])$"))


def number(text: str) -> int:
    return int(re.sub(r"\D", "", text))


def test_b1_numbers_are_those_of_the_api(opened: Open, scene: Scene) -> None:
    """Of queues in which nothing moves: what stands in the table is what ``GET /v1/queues`` says."""
    counts = {one["name"]: one["counts"] for one in ok(call(scene.url, "GET", "/v1/queues"))["items"]}
    with opened(scene.cluster, f"{scene.url}/#/queues") as seen:
        for queue in ("reports", "nightly batch"):
            cells = seen.page.locator(f'[data-row="{queue}"] td')
            shown = [number(cells.nth(at).inner_text()) for at in (2, 3, 4, 5, 6)]
            assert shown == [counts[queue][key] for key in ("queued", "processing", "retry", "scheduled", "failed")]
            seen.page.locator(f'[data-row="{queue}"] a').click()
            tiles = seen.page.locator(".states .tile")
            expect(tiles).to_have_count(8)
            states = {
                tile.locator(".label").inner_text().lower(): number(tile.locator(".value").inner_text())
                for tile in tiles.all()
            }
            assert states == counts[queue]
            seen.page.go_back()


@pytest.mark.parametrize("width", [660, 1024, 1280, 1360, 1440])
def test_b1_what_can_be_done_with_a_queue_is_in_sight_in_every_width(opened: Open, scene: Scene, width: int) -> None:
    with opened(scene.cluster, f"{scene.url}/#/queues", size={"width": width, "height": 800}) as seen:
        live(seen.page)
        button = seen.page.get_by_role("button", name="Pause payments")
        expect(button).to_be_visible()
        shot(seen.page, f"queues-{width}")
        place = button.bounding_box()
        assert place is not None
        wrap = seen.page.locator(".table-wrap").first.bounding_box()
        assert wrap is not None
        assert place["x"] + place["width"] <= wrap["x"] + wrap["width"]
        hidden = seen.page.evaluate("(one => one.scrollWidth - one.clientWidth)(document.querySelector('.table-wrap'))")
        assert width < 1360 or hidden <= 0


def test_b1_what_becomes_of_a_task_that_nobody_knows_is_said_before_it_is_submitted(opened: Open, scene: Scene) -> None:
    with opened(scene.cluster, f"{scene.url}/#/submit?name=shop.lost") as seen:
        form = seen.page.get_by_role("form", name="New task")
        unknown = "No worker that is alive knows this name"
        expect(form).to_contain_text(f"{unknown}, and none serves default: it waits for one that does.")
        seen.page.get_by_label("Queue", exact=True).fill("payments")
        expect(form).to_contain_text(f"{unknown}: submitted to payments, it fails at once as UnknownTask.")
        seen.page.get_by_label("Task", exact=True).fill("shop.audit")
        expect(form).not_to_contain_text("knows this name")
        seen.page.get_by_label("Queue", exact=True).fill("reports")
        expect(form).to_contain_text("No worker of reports knows this name, and none serves reports: it waits for")


def test_b1_big_integers_stay_exact(opened: Open, scene: Scene) -> None:
    """From the form through the worker to the result: digits are never rounded, and 1.0 stays 1.0."""
    with opened(scene.cluster, f"{scene.url}/#/submit?name=shop.audit&queue=payments") as seen:
        live(seen.page)
        seen.page.get_by_label("number").fill(str(BIG))
        seen.page.get_by_role("button", name="Submit to payments").click()
        result = seen.page.locator(".followed pre")
        expect(result).to_contain_text(f'"number": {BIG}')
        expect(result).to_contain_text(f'"next": {BIG + 1}')
        expect(result).to_contain_text('"share": 1.0')
        seen.page.locator(".followed a").first.click()
        expect(seen.page.locator(".drawer .call")).to_have_text(f"shop.audit({BIG})")


def test_b1_line_breaks_of_tracebacks_and_attempts_are_kept(opened: Open, scene: Scene) -> None:
    task = task_of(scene.url, next(one["id"] for one in scene.failed() if one["name"] == "shop.charge"))
    with opened(scene.cluster, f"{scene.url}/#/tasks/{task['id']}") as seen:
        expect(seen.page.locator(".attempts details")).to_have_count(3)
        assert seen.page.locator(".attempts details[open] pre").inner_text() == task["errors"][-1]["traceback"]
        seen.page.get_by_role("button", name="CLI").click()
        expect(seen.page.locator(".copyas pre")).to_contain_text("quorl task submit -q payments")


def test_b1_the_policy_is_strict_and_the_first_paint_is_quick(opened: Open, scene: Scene) -> None:
    policy = call(scene.url, "GET", "/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    with opened(scene.cluster, scene.url) as seen:
        paints: dict[str, list[float]] = {PLAIN: [], "": []}
        for _ in range(4):  # the first of which fills the browser's cache
            for path, took_ms in paints.items():
                seen.page.goto(f"{scene.url}/{path}")
                took_ms.append(seen.page.evaluate(FIRST_PAINT))
            live(seen.page)
        slowness = max(1.0, min(paints[PLAIN]) / PLAIN_MS)
        assert min(paints[""]) < FIRST_PAINT_MS_MAX * slowness, paints


@pytest.mark.parametrize("where", ["#/overview", "#/queues", "#/tasks?order=oldest", "#/workers"])
def test_b1_nothing_jumps_while_it_is_live(opened: Open, scene: Scene, where: str) -> None:
    """Four more overviews come; nothing of the layout moves by itself meanwhile."""
    with opened(scene.cluster, f"{scene.url}/{where}") as seen:
        live(seen.page)
        seen.page.wait_for_timeout(1500)
        seen.settle()
        before = seen.page.evaluate("window.shifts")
        seen.page.wait_for_timeout(4000)
        assert seen.page.evaluate("window.shifts") - before < SHIFT_MAX


def keys(page: Page, *names: str) -> None:
    for name in names:
        page.keyboard.press(name)


def test_b1_everything_is_reached_by_keyboard(opened: Open, scene: Scene) -> None:
    with opened(scene.cluster, scene.url) as seen:
        page = seen.page
        live(page)
        for key, title in zip(
            "qtwpdco", ("Queues", "Tasks", "Workers", "Topics", "Dead", "Cluster", "Overview"), strict=True
        ):
            keys(page, "g", key)
            expect(page.locator("h1")).to_have_text(title)
        keys(page, "?")
        expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
        keys(page, "Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        keys(page, "n")
        expect(page.locator("h1")).to_have_text("Submit")
        keys(page, "g", "q")
        expect(page.locator("h1")).to_have_text("Queues")
        keys(page, "/")
        page.keyboard.type("rep")
        expect(page.locator("tbody tr")).to_have_count(1)
        keys(page, "Escape", "j", "Enter")
        expect(page.locator(".title")).to_have_text("reports")
        page.goto(f"{scene.url}/#/tasks?status=FAILED")
        expect(page.locator(".task-row[data-id]").first).to_be_visible()
        keys(page, "j", "j", "x", "Enter")
        expect(page.locator(".drawer .attempts")).to_be_visible()
        keys(page, "Escape")
        expect(page.locator(".drawer")).to_have_count(0)
        expect(page.locator(".bulk")).to_contain_text("1 selected")
        assert "status=FAILED" in page.url


IN_SIGHT = """() => {
    const one = document.activeElement, box = one.getBoundingClientRect()
    return one.matches('[data-jump]') && document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === one
}"""


def test_b1_a_task_is_found_by_its_id_from_every_page(opened: Open, scene: Scene) -> None:
    task = scene.failed()[0]
    with opened(scene.cluster, scene.url) as seen:
        page = seen.page
        live(page)
        keys(page, "i")
        page.keyboard.insert_text(f"  {task['id']}\n")  # as it comes out of a log, with what stands around it
        keys(page, "Enter")
        drawer = page.get_by_role("region", name=f"Task {task['id']}")
        expect(drawer.locator(".attempts details")).to_have_count(task["attempts"])
        assert page.url.endswith(f"#/tasks/{task['id']}")
        expect(page.get_by_label("Task id").first).to_have_value("")
        keys(page, "i")
        assert page.evaluate(IN_SIGHT), "the drawer hides the field"
        keys(page, "Escape", "Escape")
        expect(drawer).to_have_count(0)
        page.get_by_role("button", name="SUCCESS").click()
        page.get_by_role("search", name="Find a task").get_by_label("Task id").fill(task["id"])
        keys(page, "Enter")
        expect(drawer).to_be_visible()  # also where the filters do not show it, and they stay
        assert page.url.endswith(f"#/tasks/{task['id']}?status=SUCCESS")


@pytest.mark.parametrize("look", LOOKS)
def test_b1_an_id_that_nobody_has_is_said_to_be_unknown(opened: Open, scene: Scene, look: str) -> None:
    with opened(scene.cluster, f"{scene.url}/#/tasks", **LOOKS[look]) as seen:
        page = seen.page
        live(page)
        page.get_by_role("search", name="Find a task").get_by_label("Task id").fill("no/such?task")
        keys(page, "Enter")
        drawer = page.get_by_role("region", name="Task no/such?task")
        expect(drawer.locator(".call")).to_have_text("No such task")
        expect(drawer.get_by_role("alert")).to_contain_text('There is no task "no/such?task"')
        shot(page, f"drawer-no-task-{look}")
        assert overflow(page) == 0
        assert serious(page) == []
        keys(page, "Escape")
        expect(drawer).to_have_count(0)
        seen.complaints[:] = [one for one in seen.complaints if "404" not in one]  # the browser tells of the answer


def test_b1_filters_stand_in_the_address_and_survive_a_reload(opened: Open, scene: Scene) -> None:
    with opened(scene.cluster, f"{scene.url}/#/tasks") as seen:
        page = seen.page
        page.get_by_role("button", name="FAILED").click()
        page.get_by_placeholder("Queue").fill("emails")
        expect(page.locator(".task-row[data-id]")).to_have_count(5)
        assert "status=FAILED" in page.url
        assert "queue=emails" in page.url
        page.reload()
        expect(page.locator(".task-row[data-id]")).to_have_count(5)


def test_b1_many_are_done_at_once_after_saying_how_many(opened: Open, scene: Scene) -> None:
    tasks = [submit_one(scene.url, "reports", name="shop.render", args=[n]) for n in range(3)]
    with opened(scene.cluster, f"{scene.url}/#/tasks?queue=reports") as seen:
        page = seen.page
        for one in tasks:
            page.locator(f'[data-id="{one}"] input').check()
        page.locator(".bulk").get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("dialog")).to_contain_text("3 tasks become CANCELLED")
        page.get_by_role("button", name="Cancel 3 tasks").click()
        expect(page.get_by_text("3 tasks cancelled")).to_be_visible()
        for one in tasks:
            assert finished(scene.url, one)["status"] == "CANCELLED"


def test_b1_a_group_of_dead_tasks_is_retried_after_saying_how_many(opened: Open, scene: Scene) -> None:
    with opened(scene.cluster, f"{scene.url}/#/dead?queue=emails") as seen:
        page = seen.page
        group = page.locator(".group", has_text="LookupError: no mailbox for")
        expect(group.locator(".group-count")).to_have_text("5")
        group.locator(".group-head").click()
        expect(group.locator(".sample pre")).to_contain_text("raise LookupError")
        group.get_by_role("button", name="Retry").click()
        asked = page.get_by_role("dialog")
        expect(asked).to_contain_text("5 tasks are queued again")
        asked.get_by_role("button", name="CLI").click()
        expect(asked.locator("pre")).to_have_text(re.compile(r"^quorl dead retry -q emails --error [0-9a-f]{16}$"))
        page.get_by_role("button", name="Keep as it is").click()
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_b1_messages_are_published_browsed_and_followed(opened: Open, scene: Scene) -> None:
    with opened(scene.cluster, f"{scene.url}/#/topics/app-log") as seen:
        page = seen.page
        live(page)
        page.get_by_label("Value").fill(f'{{"exact": {BIG}}}')
        page.get_by_role("button", name="Publish").click()
        expect(page.get_by_text("Stored in partition 0")).to_be_visible()
        expect(page.locator(".message", has_text=str(BIG))).to_be_visible()
        page.get_by_role("button", name="Browse").click()
        expect(page.locator(".message .offset").first).to_have_text("0")
        page.get_by_placeholder("offset").fill("390")
        page.keyboard.press("Enter")
        expect(page.locator(".message .offset").first).to_have_text("390")


def test_b1_how_to_read_a_topic_can_be_copied_whatever_it_is_called(opened: Open, scene: Scene) -> None:
    ok(call(scene.url, "POST", "/v1/topics", {"name": "a b"}))
    try:
        with opened(scene.cluster, f"{scene.url}/#/topics/a%20b") as seen:
            told = seen.page.get_by_role("region", name="Consumers").locator("code")
            expect(told).to_have_text("quorl topic consume 'a b' --register")
    finally:
        ok(call(scene.url, "DELETE", "/v1/topics/a%20b"))


def test_b1_the_theme_can_be_chosen_and_is_kept(opened: Open, scene: Scene) -> None:
    with opened(scene.cluster, scene.url, scheme="light") as seen:
        page = seen.page
        background = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(background)
        page.get_by_role("button", name="Theme").click(click_count=2)
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert page.evaluate(background) != light
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
