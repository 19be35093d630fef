"""A process forks while other threads use its clients: the child goes on by itself."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from quorl.client import App, Client, OutcomeUnknown, Unavailable, forking
from tests.client.stand_in import StandIn

PATIENCE_S = 10

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
"""Forking beside threads is what is tried. From Python 3.15 on a warning that is an error keeps it from happening."""


def in_child(work: Callable[[], object]) -> int:
    """Fork, do that in the child, and return how it ended; a child that hangs is ended by an alarm."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE_S)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_appends_while_its_parent_waits_for_an_answer(cluster: StandIn) -> None:
    with Client(cluster.urls[0]) as client:
        client.topics.create("x")
        cluster.mishaps[0].append("hang")
        cluster.arrived.clear()
        flying = threading.Thread(target=lambda: client.topic("x").append("parent"), daemon=True)
        flying.start()
        assert cluster.arrived.wait(PATIENCE_S)
        assert in_child(lambda: client.topic("x").append("child")) == 0
        flying.join(PATIENCE_S)
        assert sorted(one.value for one in client.topic("x").browse(0)) == ["child", "parent"]


@pytest.mark.parametrize("lock", ["boarding", "route", "http", "app"])
def test_a_lock_that_another_thread_held_is_free_in_the_child(cluster: StandIn, lock: str) -> None:
    with App(cluster.urls[0]) as app:
        client = app.client
        client.topics.create("x")
        transport = client._transport
        held = {
            "boarding": client._boarding,
            "route": client._route._lock,
            "http": transport._http._opening,  # type: ignore[attr-defined]
            "app": app._opening,
        }[lock]

        def go_on() -> None:
            app.client.topic("x").append(1)
            transport._http._open()  # type: ignore[attr-defined]
            transport._free("http://nobody:1")  # type: ignore[attr-defined]

        with held:
            assert in_child(go_on) == 0


def test_a_child_goes_on_with_a_producer_and_leaves_what_was_handed_over_before_to_its_parent(cluster: StandIn) -> None:
    with Client(cluster.urls[0]) as client:
        client.topics.create("x")
        gate = threading.Event()
        cluster.mishaps[0].append(gate)
        with client.topic("x").producer() as producer:
            cluster.arrived.clear()
            parents = [producer.send("flies")]
            assert cluster.arrived.wait(PATIENCE_S)
            parents.append(producer.send("waits"))

            def go_on() -> None:
                with producer:
                    assert producer.send("child").offset() >= 0
                with pytest.raises(OutcomeUnknown, match="interrupted while calling append"):
                    parents[0].place()
                with pytest.raises(Unavailable, match="forked from"):
                    parents[1].place()

            assert in_child(go_on) == 0
            gate.set()
        assert [one.done for one in parents] == [True, True]
        assert sorted(one.value for one in client.topic("x").browse(0)) == ["child", "flies", "waits"]


def test_a_fork_waits_for_a_module_that_another_thread_is_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the child, which has that thread's lock and not the thread, would wait for it for ever."""
    (tmp_path / "loaded_late.py").write_text("import builtins\nbuiltins.loading_begins()\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    begun = threading.Event()

    def begins() -> None:
        begun.set()
        threading.Event().wait(0.2)  # so long it takes to load

    monkeypatch.setattr("builtins.loading_begins", begins, raising=False)

    def load() -> None:
        with forking.loading:
            importlib.import_module("loaded_late")

    thread = threading.Thread(target=load)
    thread.start()
    assert begun.wait(PATIENCE_S)
    assert in_child(load) == 0
    thread.join()
