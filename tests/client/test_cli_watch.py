"""``--watch``: what a round has learnt about the nodes the next one knows."""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
import time

import click
import pytest

from quorl.client.cli import looking, output
from quorl.client.cli.common import Settings
from quorl.client.cli.watching import again_and_again
from quorl.cluster.protocol.wire import Answer, Call, decode
from tests.client.commands import heeding_interrupts
from tests.client.scripted import problem
from tests.client.stand_in import StandIn

ROUNDS = 6


@pytest.mark.parametrize("looks", [False, True])
def test_a_node_that_is_silent_is_not_asked_first_in_every_round(
    cluster: StandIn, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    cluster.leader = "n2"
    cluster.mishaps[0].extend(["hang"] * ROUNDS)
    monkeypatch.setattr("quorl.client.route.COOLING_S_MIN", 60.0)
    settings = Settings(server=cluster.servers, timeout_s=1.0, refused_s=None)
    took_s: list[float] = []

    def once() -> None:
        if len(took_s) == ROUNDS:
            raise KeyboardInterrupt
        began = time.monotonic()
        with settings.looking() if looks else settings.client() as client:
            assert client.topics.list() == []
        took_s.append(time.monotonic() - began)

    again_and_again(settings, once, 0.001)
    assert [name for name, _ in cluster.calls].count("n1") == 1
    # The quickest: any of them may wait for others on a busy machine.
    assert min(took_s) < 0.4, "each round would wait for it"


def test_an_interrupt_that_a_finalizer_has_eaten_ends_the_watch_all_the_same() -> None:
    rounds = []

    def once() -> None:
        rounds.append(1)
        with contextlib.suppress(KeyboardInterrupt):  # as Python does with what a finalizer raises
            signal.raise_signal(signal.SIGINT)
        assert len(rounds) == 1, "it goes on"

    before = signal.getsignal(signal.SIGINT)
    with heeding_interrupts():
        again_and_again(Settings(), once, 60.0)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is before


def test_a_watch_that_ignores_interrupts_goes_on_ignoring_them() -> None:
    rounds = []

    def once() -> None:
        rounds.append(signal.getsignal(signal.SIGINT))
        if len(rounds) == 2:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        again_and_again(Settings(), once, 0.001)
    finally:
        signal.signal(signal.SIGINT, before)
    assert rounds == [signal.SIG_IGN] * 2


def test_a_quorum_that_was_lost_in_the_round_before_is_not_waited_for_as_long_as_an_election(
    cluster: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "PATIENCE_S", 0.2)
    monkeypatch.setattr(looking, "PATIENCE_AGAIN_S", 0.1)
    settings = Settings(server=cluster.servers, quiet=False)
    said: list[str] = []
    monkeypatch.setattr(settings, "say", said.append)
    with settings.client() as client:
        client.topics.create("x")
    before = cluster._answer

    async def without_quorum(call: Call) -> Answer:
        return problem("no_quorum") if decode(call)[2].consistency == "linearizable" else await before(call)

    patience_s = []
    for lost in (True, True, False, True):
        monkeypatch.setattr(cluster, "_answer", without_quorum if lost else before)
        with settings.looking() as client:
            assert isinstance(client, looking.Looking)
            patience_s.append(client._patience_s)
            assert client.topics.get("x").name == "x"
    assert len(said) == 3, "each round says that it is one node's"
    assert patience_s == [0.2, 0.1, 0.1, 0.2]


def test_a_round_that_found_no_cluster_gives_up_as_soon_as_the_first(cluster: StandIn) -> None:
    """That a node was heard once is not known for ever: nobody listens any more, and that is to be said."""
    settings = Settings(server=cluster.servers)
    with settings.client() as client:
        client.topics.list()
        assert client._route.met
    with settings.client() as client:
        assert not client._route.met
        assert client._route.sequence == 0, "a cluster that began anew has fewer entries"
        assert client._route.leader == "n1"


def test_another_cluster_is_met_without_prejudice(cluster: StandIn) -> None:
    settings = Settings(server=cluster.servers)
    with settings.client() as client:
        client.topics.list()
    settings.server = cluster.urls[1]
    with settings.client() as client:
        assert client._route.leader is None


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_round_says_stands_below_its_page_and_is_not_written_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    rounds = itertools.count(1)

    def once() -> None:
        if (number := next(rounds)) == 3:
            raise KeyboardInterrupt
        click.echo(f"page {number}")
        click.echo(f"alarm {number}", err=True)

    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    again_and_again(Settings(), once, 0.001)
    shown = capsys.readouterr()
    assert shown.out.count("page 2\x1b[K\nalarm 2\x1b[K\n\x1b[J") == terminal
    assert shown.err == ("" if terminal else "alarm 1\nalarm 2\n")
