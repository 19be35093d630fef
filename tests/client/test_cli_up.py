"""``quorl up``, without a cluster: what it says."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quorl.client.cli.up import _Keys, typed_as
from quorl.client.local import failover
from quorl.client.local.laptop import Laptop


@pytest.mark.parametrize(
    ("called", "on_the_path", "typed"),
    [
        (".venv/bin/quorl", None, ".venv/bin/quorl"),
        (".venv/bin/quorl", "/usr/bin/quorl", "quorl"),
        ("/usr/lib/quorl/client/cli/__main__.py", None, "quorl"),
    ],
)
def test_e6_what_is_to_be_typed_in_another_terminal_can_be(
    monkeypatch: pytest.MonkeyPatch, called: str, on_the_path: str | None, typed: str
) -> None:
    monkeypatch.setattr(sys, "argv", [called, "up"])
    monkeypatch.setattr(shutil, "which", lambda _: on_the_path)
    assert typed_as() == typed


def test_e6_the_node_that_is_told_to_get_killed_is_the_one_that_leads_when_it_comes_to_that(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lead may move while writers and tasks are started: who is named, and taken to be down by intent, is who was killed."""

    class Moving:
        """A cluster of which another node leads each time that somebody asks."""

        def __init__(self) -> None:
            self.nodes = {name: SimpleNamespace(name=name, alive=True) for name in ("n1", "n2", "n3")}
            self._leaders = iter(self.nodes)

        def leader(self) -> str:
            return next(self._leaders)

    def kill_leader(cluster: Any, tell: Callable[[str], None]) -> str:
        assert cluster.leader() == "n1"
        tell(cluster.leader())
        return "n3 leads"

    monkeypatch.setattr(failover, "kill_leader", kill_leader)
    keys = _Keys(cast("Laptop", SimpleNamespace(cluster=Moving())))
    keys._kill()
    said = capsys.readouterr().out.splitlines()
    assert said == ["  ✗ n2 is to get SIGKILL while messages and tasks are written…", "  ✓ n3 leads"]
    assert keys._down == {"n2"}
