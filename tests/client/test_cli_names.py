"""What a shell completes beside commands and options: names that a running node knows, or silently nothing."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from quorl.client.cli import cli
from quorl.client.cli import names as completing
from tests.client.commands import Quorl
from tests.client.stand_in import StandIn, closed_port


def offered(words: str, incomplete: str = "") -> set[str]:
    complete = ShellComplete(cli, {}, "quorl", "_QUORL_COMPLETE")
    return {one.value for one in complete.get_completions(words.split(), incomplete)}


def test_d15_names_of_the_cluster_are_completed(quorl: Quorl, cluster: StandIn) -> None:
    for name in ("logs", "likes", "orders"):
        quorl("topic", "create", name)
    quorl("queue", "set", "emails", "--max-depth", "9")
    assert offered("topic show") == {"logs", "likes", "orders"}
    assert offered("topic consume", "l") == {"logs", "likes"}
    assert offered("topic tail", "x") == set()
    assert offered("queue pause") == {"emails"}
    assert offered("task ls -q", "e") == {"emails"}
    assert offered("topic create") == set(), "a new name is nobody's to know"
    assert {name for name, _ in cluster.calls} <= set(cluster.names)


def test_d15_contexts_are_completed_without_a_cluster(quorl: Quorl) -> None:
    quorl("context", "add", "dev", closed_port())
    quorl("context", "add", "prod", closed_port())
    assert offered("context use", "p") == {"prod"}
    assert offered("topic show --context prod") == set()


def test_d15_the_cluster_that_the_line_means_is_asked(
    quorl: Quorl, cluster: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    quorl("topic", "create", "logs")
    monkeypatch.setenv("QUORL_SERVER", closed_port())
    assert offered("topic show") == set()
    assert offered(f"topic show -s {closed_port()},{cluster.urls[0]}") == {"logs"}
    assert offered(f"-s {cluster.urls[1]} topic show") == {"logs"}


def test_a_server_that_speaks_no_http_offers_nothing(
    quorl: Quorl, ssh: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completing, "PATIENCE_S", 0.3)
    assert offered(f"topic show -s {ssh}") == set()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("server", ["ftp://x", "a b"])
def test_where_something_is_wrong_nothing_is_said(quorl: Quorl, server: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert offered(f"topic show -s {server.replace(' ', '_:')}") == set()
    assert offered("topic show --context nobodys") == set()
    assert capfd.readouterr() == ("", "")


def test_a_node_that_is_silent_is_not_waited_for(
    quorl: Quorl, cluster: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    quorl("topic", "create", "logs")
    for mishaps in cluster.mishaps:
        mishaps.append("hang")
    monkeypatch.setattr(completing, "PATIENCE_S", 0.05)
    assert offered("topic show") == set()
