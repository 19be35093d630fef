"""The terminals of the tests themselves: a command that dies, or says something else, is told and not waited for."""

from __future__ import annotations

import pytest

from tests.client import terminal as terminals
from tests.client.commands import environment
from tests.client.stand_in import StandIn
from tests.client.terminal import terminal


def test_a_command_that_dies_ends_the_wait_and_what_it_printed_is_shown(cluster: StandIn) -> None:
    with (
        terminal("topic", "show", "nowhere", environment=environment(cluster)) as screen,
        pytest.raises(AssertionError, match=r"(?s)it ended \(3\) without 'never':\n.*topic_not_found"),
    ):
        screen.until("never")


def test_a_command_that_prints_something_else_is_waited_for_so_long_and_no_longer(
    cluster: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal("top", environment=environment(cluster)) as screen:
        screen.until("q quits")
        monkeypatch.setattr(terminals, "READY_S", 0.0)
        for wait in (lambda: screen.until("never"), screen.ended):
            with pytest.raises(AssertionError, match="waited 0 s for "):
                wait()
