"""What systemd is told, and that nobody to tell is no trouble."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from quorl.systemd import notify, watchdog_s


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"@quorl-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind("\0" + name[1:] if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify("READY=1", "STATUS=é")
        assert there.recv(100).decode() == "READY=1\nSTATUS=é"


@pytest.mark.parametrize("where", ["", "relative", "/nowhere/at/all"])
def test_nobody_to_tell_is_no_trouble(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", where)
    assert not notify("READY=1")


def test_the_watchdog_is_fed_twice_as_often_as_it_asks_and_only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    for said, found in (("3000000", 1.5), ("", None), ("soon", None)):
        monkeypatch.setenv("WATCHDOG_USEC", said)
        assert watchdog_s() == found
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    for pid, found in ((os.getpid(), 1.5), (1, None)):
        monkeypatch.setenv("WATCHDOG_PID", str(pid))
        assert watchdog_s() == found
