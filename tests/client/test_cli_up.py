"""``quorl up``, without a cluster: what it says."""

from __future__ import annotations

import shutil
import sys

import pytest

from quorl.client.cli.up import typed_as


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
