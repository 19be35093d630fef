"""``docs/python.md`` leaves nothing of the library out: each name, each method, each parameter of what programs make.

That it says of them what the code says follows from its passages being derived, which ``tests/test_docs.py`` checks.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import quorl
import quorl.client
from quorl.client import App, Client, errors, tasking
from scripts import derive_library as derive

PAGE = (Path(__file__).resolve().parents[1] / "docs/python.md").read_text(encoding="utf-8")
CLASSES = [name for names in derive.GROUPS.values() for name in names if inspect.isclass(getattr(quorl.client, name))]


def place(name: str) -> str:
    """What the page says below the heading of a name."""
    found = re.search(rf"^### `{name}`\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, f"docs/python.md has no heading for {name}"
    return found[1]


def test_every_name_has_its_place() -> None:
    in_table = {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.QuorlError) and f"`{name}`" in PAGE
    }
    elsewhere = {*derive.TWINS.values(), "AsyncTask", "TaskOptions", "myQueue", "__version__", *in_table}
    headed = set(re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE))
    assert {*quorl.__all__, *quorl.client.__all__} - headed <= elsewhere
    assert [name for name in sorted(elsewhere) if name not in PAGE] == []


@pytest.mark.parametrize("name", [*CLASSES, *derive.TOLD])
def test_whatever_is_public_in_a_class_is_told(name: str) -> None:
    kind, told = getattr(quorl.client, name), place(name)
    hidden = derive.INNER.get(name, set())
    assert hidden <= {key for part in kind.__mro__ for key in vars(part)} | {one.name for one in attributes(kind)}
    for part in derive.ours(kind):
        above = part is not kind and part.__name__ in derive.TOLD  # an error's own heading
        names = [key for key, value in vars(part).items() if inspect.isroutine(value) or isinstance(value, property)]
        for key in names if not above else ():
            if not key.startswith("_") and key not in hidden:
                assert re.search(rf"`(await )?{key}\b", told), f"nothing is said of {name}.{key}"


def attributes(kind: type) -> list[derive.Member]:
    return [one for part in derive.ours(kind) for one in derive.attributes(part)]


@pytest.mark.parametrize("name", CLASSES)
def test_methods_say_what_they_do(name: str) -> None:
    silent = [one.text for one in derive.members(name) if one.called and not one.told]
    assert [text for text in silent if not text.startswith("task(function")] == []  # the last of its forms says it


@pytest.mark.parametrize("name", [name for name in derive.MADE if name != "Retry"])
def test_every_parameter_of_what_programs_make_is_told(name: str) -> None:
    kind = getattr(quorl.client, name)
    told = derive.options(kind)
    assert set(told) == set(inspect.signature(kind).parameters)
    for parameter, default in re.findall(r"^\| `(\w+)` \| .+ \| (.*?) \| .+ \|$", place(name), re.MULTILINE):
        wanted = inspect.signature(kind).parameters[parameter].default
        assert default in {"required", ""} or default == f"`{derive.default(wanted)}`"
    assert all(told.values())


def test_every_option_of_a_task_is_told() -> None:
    told = {one.name: one.told for one in derive.attributes(tasking.TaskOptions)}
    assert set(told) == set(tasking.TaskOptions.__annotations__)
    assert all(told.values())


def test_what_is_had_is_what_the_page_says() -> None:
    def function() -> None:
        """What a task may be made of."""

    with Client("127.0.0.1:1") as client:
        names: dict[str, Any] = {"client": client, "app": App("127.0.0.1:1"), "function": function}
        for name, said in derive.HAD.items():
            assert type(eval(said, names)) is getattr(quorl.client, name)
            assert f"Had as `{said}`." in place(name)


@pytest.mark.parametrize("name", derive.TWINS)
def test_twins_differ_in_nothing_but_asyncio(name: str) -> None:
    """So that the page may tell of one and say the same of the other."""
    here, there = (derive.public(getattr(quorl.client, one), name) for one in (name, derive.TWINS[name]))
    assert set(there) <= set(here)
    for key in there:
        if inspect.isfunction(there[key]):
            texts = [derive.written(kind[key], key) for kind in (here, there)]
            assert texts[0] == tuple(text.replace("Async", "") for text in texts[1])


def test_where_seconds_are_called_timeout_is_told() -> None:
    """Everywhere else their name ends in ``_s``."""
    found = set()
    for name in CLASSES:
        for key, value in derive.public(getattr(quorl.client, name), name).items():
            if inspect.isfunction(value) and "timeout" in inspect.signature(value).parameters:
                found.add(f"{name}.{key}")
    assert found == {"Handle.result", "Handle.aresult", "App.as_completed", "TaskClient.wait_for_result"}
    (told,) = re.findall(r"^- \*\*Seconds\.\*\*.*\n.*$", PAGE, re.MULTILINE)
    assert [one for one in found - {"Handle.aresult"} if f"`{one}`" not in told] == []


def test_links_of_types_lead_somewhere() -> None:
    """Those that stand around code, which ``tests/test_docs.py`` does not see."""
    headings = {re.sub(r"\W", "", name).lower() for name in re.findall(r"^### (.+)$", PAGE, re.MULTILINE)}
    found = set(re.findall(r"`\]\(#(\w+)\)", PAGE))
    assert len(found) > 30
    assert found <= headings


def test_the_words_in_types_are_told() -> None:
    said = "\n".join(re.findall(r"^- `.*$|^`.*$", PAGE, re.MULTILINE))
    for word in derive.WORDS:
        assert re.search(rf"\b{word}\b", said), f"nothing speaks of {word} any more"
