"""What a program's traceback shows of an error of the library: the program's own lines, and next to nothing of ours."""

from __future__ import annotations

import asyncio
import pathlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import quorl.client
from quorl.client import App, AsyncClient, Client, QuorlError, TaskClient
from quorl.client.definitions import Call
from tests.client.stand_in import closed_port

OURS = str(pathlib.Path(quorl.client.__file__).parent.parent)
NOWHERE = closed_port()


@pytest.fixture
def app() -> Iterator[App]:
    with App(NOWHERE, timeout_s=0.2) as app:

        @app.task(name="add")
        def add(x: int, y: int) -> int:
            return x + y

        yield app


def frames(error: BaseException) -> tuple[list[str], list[str]]:
    """The functions in the traceback: those of the library, and those of this file."""
    seen = traceback.extract_tb(error.__traceback__)
    ours = [one.name for one in seen if one.filename.startswith(OURS)]
    return ours, [one.name for one in seen if one.filename == __file__]


def shown(call: Callable[[], Any], kind: type[BaseException] = QuorlError) -> tuple[list[str], list[str]]:
    with pytest.raises(kind) as caught:
        call()
    return frames(caught.value)


def test_a_task_that_cannot_be_submitted_or_waited_for_shows_the_callers_line_alone(app: App) -> None:
    add: Any = app.tasks["add"]
    calls: list[Callable[[], Any]] = [
        lambda: add.delay(1, 2),
        lambda: add.delay(object(), 2),
        lambda: app.submit("other", 1),
        lambda: app.handle("x").result(timeout=0.1),
        lambda: asyncio.run(add.adelay(1, 2)),
        lambda: asyncio.run(app.asubmit("other", 1)),
        lambda: asyncio.run(app.handle("x").aresult(timeout=0.1)),
    ]
    for call in calls:
        assert shown(call) == ([], ["shown", "<lambda>"])
    assert shown(lambda: add.delay(1), TypeError) == (["delay"], ["shown", "<lambda>"])


def test_a_client_shows_its_public_method_at_most() -> None:
    with Client(NOWHERE, timeout_s=0.2) as client, TaskClient(NOWHERE, timeout_s=0.2) as words:
        assert shown(client.cluster)[0] == ["cluster"]
        assert shown(lambda: client.topics.create("x"))[0] == ["create"]
        assert shown(lambda: client.topic("x").append("a"))[0] == ["append", "_append"]
        assert shown(lambda: client.tasks.submit("x"))[0] == []
        assert shown(lambda: list(client.topic("x").consumer(name="b")))[0] == []
        assert shown(lambda: list(client.topic("x").follow()))[0] == []
        assert shown(lambda: words.submit("x"))[0] == []

    async def aio() -> None:
        async with AsyncClient(NOWHERE, timeout_s=0.2) as client:
            await client.topics.create("x")

    assert shown(lambda: asyncio.run(aio()))[0] == ["create"]


def test_lines_of_the_program_within_a_call_of_the_library_stay(app: App) -> None:
    def calls() -> Iterator[Call[int]]:
        app.submit("within")
        yield from ()

    ours, mine = shown(lambda: app.submit_many(calls()))
    assert (ours, mine) == (["submit_many"], ["shown", "<lambda>", "calls"])


def test_what_was_the_cause_stays(app: App) -> None:
    def call() -> None:
        try:
            raise ValueError("the reason")
        except ValueError:
            app.submit("x")

    with pytest.raises(QuorlError) as caught:
        call()
    assert isinstance(caught.value.__context__, ValueError)
    assert not caught.value.__suppress_context__
