"""Options of tasks: what is wrong with one is told where it stands."""

from __future__ import annotations

import copy
import re

import pytest

from quorl.client import App, Invalid, TaskOptions, elsewhere


def test_wrong_options_are_told_where_they_stand() -> None:
    app = App()
    with pytest.raises(TypeError, match="no such option of a task: retrys"):
        app.task(retrys=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="no such option of a task: max_attempt - did you mean `max_attempts`"):
        app.task(max_attempt=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="say the same"):
        app.task(retries=3, max_attempts=3)
    with pytest.raises(ValueError, match="is no back-off"):
        app.task(backoff="later")
    with pytest.raises(TypeError, match="retries is a whole number, and '3' is none"):
        app.task(retries="3")  # type: ignore[call-overload]
    with pytest.raises(Invalid, match="`priority` must be at most 9; it is 99"):
        app.task(priority=99)


def test_options_of_one_submit_are_told_where_they_stand_too() -> None:
    """And not where the call is submitted, which may be far away."""
    task = App().task(name="x", max_attempts=5, delay=60)(int)
    with pytest.raises(TypeError, match="no such option of a task: prioritty - did you mean `priority`"):
        task.options(prioritty=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no such option of a task: countdown - here that is `delay`"):
        task.options(countdown=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="say the same"):
        task.options(retries=3, max_attempts=3)
    with pytest.raises(Invalid, match="`run_at` must be a time with its zone") as caught:
        task.options(run_at="tomorrow")
    assert [one.pointer for one in caught.value.errors] == ["/run_at"]
    with pytest.raises(Invalid, match="`timeout_ms` must be at least 1") as caught:
        task.options(timeout=-1)
    assert [one.pointer for one in caught.value.errors] == ["/timeout_ms"]
    assert task.options(retries=1).call().task.max_attempts == 2
    later = task.options(run_at="2030-01-01T00:00:00Z").call().task
    assert (later.delay_ms, later.run_at) == (0, "2030-01-01T00:00:00Z")


def test_what_other_queues_call_an_option_is_one_here() -> None:
    assert set(elsewhere.OPTIONS.values()) <= set(TaskOptions.__annotations__)
    assert not set(elsewhere.OPTIONS) & set(TaskOptions.__annotations__)


@pytest.mark.parametrize("words", ["APP", "TASK", "HANDLE"])
def test_who_calls_a_method_as_elsewhere_is_told_its_name_here(words: str) -> None:
    app = App()
    task = app.task(name="x")(int)
    one = {"APP": app, "TASK": task, "HANDLE": app.handle("x")}[words]
    for name, here in getattr(elsewhere, words).items():
        with pytest.raises(
            AttributeError, match=re.escape(f"has no attribute {name!r}; here that is {here}")
        ) as caught:
            getattr(one, name)
        assert caught.value.name == name
        assert ":" in here or "Retry" in here or hasattr(one, here.partition("(")[0])
    with pytest.raises(AttributeError, match="^'[A-Za-z]+' object has no attribute 'nothing'$"):
        _ = one.nothing  # type: ignore[attr-defined]
    assert not hasattr(one, "get_nothing")
    assert copy.copy(one)


def test_a_task_with_options_is_told_the_same() -> None:
    with pytest.raises(AttributeError, match="'Prepared' object has no attribute 'send'; here that is delay"):
        _ = App().task(name="x")(int).options(priority=9).send  # type: ignore[attr-defined]
