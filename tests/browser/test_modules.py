"""The page's own arithmetic, asked in the browser that runs it: exact JSON, Python signatures, heartbeats, moments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Open
from tests.browser.scene import BIG, Scene

pytestmark = [pytest.mark.browser, pytest.mark.slow]


class Modules:
    """Modules of the page, called with plain values."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._base = (page.locator("script[type=module]").get_attribute("src") or "").removesuffix("main.js")

    def ask(self, module: str, expression: str, *values: Any) -> Any:
        """The value of an expression over ``m``, the module, and ``v``, the values."""
        program = f"async (v) => {{ const m = await import('{self._base}{module}.js'); return {expression}; }}"
        return self._page.evaluate(program, list(values))


@pytest.fixture(scope="module")
def modules(opened: Open, scene: Scene) -> Iterator[Modules]:
    with opened(scene.cluster, scene.url) as seen:
        yield Modules(seen.page)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"[{BIG},1.0,-0.0,1e400]", f"[{BIG}, 1.0, -0.0, 1e400]"),
        ('{"10":1,"2":[],"a":{}}', '{"10": 1, "2": [], "a": {}}'),
        ('"a, \\"b\\": {c}"', '"a, \\"b\\": {c}"'),
        ("null", "null"),
    ],
)
def test_values_of_users_stay_as_they_were_sent(modules: Modules, text: str, kept: str) -> None:
    answer = f'{{"id": "7", "args": {text}, "n": 3, "meta": {{"x": "{{"}}, "result" : {text}}}'
    found = modules.ask(
        "lib/json",
        "(({args, n, result, meta}) => [m.pretty(args.text), n, result.text, meta.x])(m.parse(v[0]))",
        answer,
    )
    assert found == [kept, 3, text, "{"]


def test_long_values_are_broken_and_lose_nothing(modules: Modules) -> None:
    text = '{"list":[' + ",".join(str(BIG + n) for n in range(9)) + '],"empty":[],"text":"a:b,c"}'
    shown = modules.ask("lib/json", "m.pretty(v[0])", text)
    assert shown.splitlines()[2] == f"    {BIG},"
    assert "".join(shown.split()) == text


def test_calls_are_written_as_people_write_them(modules: Modules) -> None:
    found = modules.ask(
        "lib/json", "m.callText('f', new m.Raw(v[0]), new m.Raw(v[1]))", f'[1,"a b",{BIG}]', '{"key":[1,2]}'
    )
    assert found == f'f(1, "a b", {BIG}, key=[1, 2])'


SIGNATURE = "(a: int, b: dict[str, int] = {'x, y': 1}, /, c='=', *rest, d: Annotated[int, Meta(ge=0)] = 3, e: bool, **more) -> list[int]"


def test_signatures_are_read(modules: Modules) -> None:
    found = modules.ask("lib/signature", "m.parameters(v[0])", SIGNATURE)
    assert [(one["name"], one["kind"], one["only"], one["type"], one["fallback"]) for one in found] == [
        ("a", "positional", True, "int", None),
        ("b", "positional", True, "dict[str, int]", "{'x, y': 1}"),
        ("c", "positional", False, "", "'='"),
        ("rest", "args", False, "", None),
        ("d", "keyword", False, "Annotated[int, Meta(ge=0)]", "3"),
        ("e", "keyword", False, "bool", None),
        ("more", "kwargs", False, "", None),
    ]
    assert modules.ask("lib/signature", "m.parameters('')") is None
    assert modules.ask("lib/signature", "m.parameters('() -> None')") == []


@pytest.mark.parametrize(
    ("values", "args", "kwargs", "wrong"),
    [
        ({"x": str(BIG), "y": "1.50"}, f"[{BIG},1.50]", "{}", []),
        ({"x": "1", "flag": "true"}, "[1]", '{"flag":true}', []),
        ({"x": "1", "y": "2", "name": "a"}, '[1,2,"a"]', "{}", []),
        ({"x": "1", "name": "a"}, "[1]", '{"name":"a"}', []),
        ({"x": "one"}, "[]", "{}", ["x"]),
        ({}, "[]", "{}", ["x"]),
        ({"x": "1", "any": '{"k": 1}'}, "[1]", '{"any":{"k": 1}}', []),
        ({"x": "1", "any": "plain words"}, "[1]", '{"any":"plain words"}', []),
        ({"x": "1", "any": '{"k"'}, "[1]", "{}", ["any"]),
    ],
)
def test_a_filled_form_becomes_arguments(
    modules: Modules, values: dict[str, str], args: str, kwargs: str, wrong: list[str]
) -> None:
    signature = "(x: int, y: float = 2.0, name: str = 'n', any=None, *, flag: bool = False)"
    found = modules.ask("lib/signature", "m.filled(m.parameters(v[0]), v[1])", signature, values)
    assert sorted(found["wrong"]) == wrong
    assert (found["args"], found["kwargs"]) == (args, kwargs)


def test_b17_cells_say_when_a_worker_was_heard(modules: Modules) -> None:
    now = 1_790_426_400_000
    worker = {
        "beats": "0" * 20 + "2" * 30 + "00" + "2" * 8,
        "status": "ALIVE",
        "registered_at_ms": now - 400_000,
        "heartbeat_ms": 5000,
        "ended_at_ms": None,
    }
    cells = "".join(modules.ask("ui/beats", "m.cells(v[0], v[1])", worker, now))
    assert cells == "n" * 20 + "b" * 30 + "mm" + "b" * 8
    dead = {
        **worker,
        "beats": "2" * 50 + "0" * 10,
        "status": "DEAD",
        "registered_at_ms": now - 900_000,
        "ended_at_ms": now - 80_000,
    }
    cells = "".join(modules.ask("ui/beats", "m.cells(v[0], v[1])", dead, now))
    assert cells == "b" * 50 + "mm" + "d" * 8


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (61_000, "1m 01s"),
        (300_000, "5m"),
        (7_500_000, "2h 05m"),
        (604_800_000, "7d"),
    ],
)
def test_durations_are_written_in_two_units(modules: Modules, ms: int, text: str) -> None:
    assert modules.ask("lib/format", "m.duration(v[0])", ms) == text


@pytest.mark.parametrize(
    ("count", "well", "health", "founded", "text"),
    [
        (3, 3, "ok", True, "3 of 3 members are ok, 2 are needed: 1 more failure can be borne."),
        (5, 5, "ok", True, "5 of 5 members are ok, 3 are needed: 2 more failures can be borne."),
        (3, 2, "degraded", True, "2 of 3 members are ok, 2 are needed: one more failure stops writes."),
        (3, 1, "no_quorum", True, "1 of 3 members are ok, 2 are needed: nothing can be written."),
        (1, 0, "no_quorum", True, "0 of 1 members are ok, 1 is needed: nothing can be written."),
        (1, 1, "ok", True, "1 member: nothing is replicated."),
        (3, 2, "no_quorum", False, "2 of 3 members are ok: a new cluster begins once all of them are up together"),
    ],
)
def test_b14_the_cluster_page_counts_on_members_that_are_ok_and_no_others(
    modules: Modules, count: int, well: int, health: str, founded: bool, text: str
) -> None:
    quorum = count // 2 + 1
    seen = {"members": [{}] * count, "quorum": quorum, "health": health, "cluster_id": "c" if founded else None}
    said = modules.ask("pages/cluster", "m.arithmetic(v[0], v[1], v[2])", seen, well, well - quorum)
    assert said.startswith(text)


def test_text_that_turns_the_direction_of_its_neighbours_is_shown_as_an_escape(modules: Modules) -> None:
    render = "(() => { const box = document.createElement('div'); m.render(m.html`<b>${v[0]}</b>`, box); return box.textContent; })()"
    assert modules.ask("lib/html", render, 'pay("\u202egnp.exe\u2066")') == r'pay("\u202egnp.exe\u2066")'
    assert modules.ask("lib/html", render, "שלום <b>\u200f") == "שלום <b>\u200f"


def test_names_that_only_abbreviate_others_are_not_offered(modules: Modules) -> None:
    names = ["add", "charge", "jobs.shop.add", "shop", "shop.charge", "wait"]
    assert modules.ask("lib/signature", "m.picks(v[0])", names) == ["jobs.shop.add", "shop", "shop.charge", "wait"]


def at(seconds: float) -> str:
    return f"2026-01-02T03:04:{seconds:06.3f}Z"


def run(number: int, start: float, outcome: str = "failed") -> dict[str, Any]:
    return {"number": number, "worker": "w1", "started_at": at(start), "ended_at": at(start + 0.5), "outcome": outcome}


def timeline(modules: Modules, history: list[dict[str, Any]], retried: dict[float, str], **task: Any) -> list[Any]:
    """The pieces of a task that was submitted at second 0, each as (what, seconds)."""
    events = []
    for second, status in retried.items():
        events += [
            {"kind": "failed", "status": status, "at": at(0)},
            {"kind": "retried", "status": "QUEUED", "at": at(second)},
        ]
    given = {"created_at": at(0), "finished_at": None, "status": "SUCCESS", "history": history, **task}
    return [
        tuple(one)
        for one in modules.ask("ui/timeline", "m.pieces(v[0], v[1]).map((p) => [p.what, p.ms / 1000])", given, events)
    ]


def test_b1_a_timeline_has_every_run_also_those_before_a_retry_by_hand(modules: Modules) -> None:
    history = [run(1, 1), run(2, 3), run(3, 9), run(4, 11), run(5, 13, "success")]
    assert timeline(modules, history, {8.0: "FAILED"}, finished_at=at(13.5)) == [
        ("waited", 1),
        ("run 1 failed", 0.5),
        ("waited again", 1.5),
        ("run 2 failed", 0.5),
        ("FAILED until it was retried", 4.5),
        ("waited again", 1),
        ("run 3 failed", 0.5),
        ("waited again", 1.5),
        ("run 4 failed", 0.5),
        ("waited again", 1.5),
        ("run 5 success", 0.5),
    ]


def test_b1_a_timeline_says_what_it_does_not_show_and_what_never_ran(modules: Modules) -> None:
    assert timeline(modules, [run(4, 9)], {2.0: "FAILED"}, finished_at=at(9.5)) == [
        ("3 runs before, not shown", 9),
        ("run 4 failed", 0.5),
    ]
    never = timeline(modules, [], {2.0: "EXPIRED", 5.0: "CANCELLED"}, status="CANCELLED", finished_at=at(6))
    assert never == [("EXPIRED until it was retried", 2), ("CANCELLED until it was retried", 3), ("until it ended", 1)]


def test_b1_of_very_many_runs_the_first_and_the_last_are_told(modules: Modules) -> None:
    given = [{"what": f"run {n}", "ms": 1, "from": n, "run": {}} for n in range(100)]
    told = modules.ask("ui/timeline", "m.folded(v[0], 7).map((p) => [p.what, p.ms])", given)
    assert [what for what, _ in told] == ["run 0", "run 1", "run 2", "94 runs more", "run 97", "run 98", "run 99"]
    assert sum(ms for _, ms in told) == 100
    assert len(modules.ask("ui/timeline", "m.folded(v[0], 7)", given[:7])) == 7
