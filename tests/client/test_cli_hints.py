"""What to do is said in JSON too, and it is what the node that answered says, in the words of whoever is told."""

from __future__ import annotations

import json
from collections import deque

import pytest
from typing_extensions import override

from quorl.client import Client, Unavailable
from quorl.client.cli.hints import HINTS, NODE
from quorl.cluster.protocol.problems import CATALOGUE
from quorl.cluster.protocol.wire import Answer
from tests.client.commands import Quorl
from tests.client.scripted import problem
from tests.client.stand_in import Mishap, StandIn, closed_port


class Always(deque[Mishap]):
    """The same mishap for every call."""

    def __init__(self, answer: Answer) -> None:
        super().__init__([answer])

    @override
    def popleft(self) -> Mishap:
        return self[0]


def all_say(cluster: StandIn, code: str) -> None:
    """And that it is of no use to ask again soon: so the end comes at once, and not because a time is over."""
    cluster.mishaps = [Always(problem(code, retry_after_ms=3_600_000)) for _ in cluster.mishaps]


@pytest.mark.parametrize("code", ["no_quorum", "no_leader", "not_ready", "storage_full", "shutting_down"])
def test_the_hint_of_what_the_nodes_say_is_told_to_people_and_programs(
    quorl: Quorl, cluster: StandIn, code: str
) -> None:
    all_say(cluster, code)
    words = ("topic", "create", "x")
    told = json.loads(quorl(*words, "--json").stderr)["error"]
    assert told["code"] == code
    advice = HINTS.get(code, CATALOGUE[code].hint)
    assert told["hint"] == f"Nothing was applied. {advice} · quorl doctor · quorl errors {code}"
    assert f"try    {told['hint']}" in quorl(*words).stderr


def test_a_program_in_python_is_told_too(cluster: StandIn) -> None:
    all_say(cluster, "no_quorum")
    with Client(cluster.servers) as client, pytest.raises(Unavailable) as caught:
        client.topics.create("x")
    assert (
        "Nothing was applied. See to the members that the detail names: start those that do not run, make room where a disk is full"
        in str(caught.value)
    )
    assert 'Reads still work with consistency="local".' in str(caught.value)


def test_where_no_node_was_asked_nothing_is_said_of_the_cluster() -> None:
    with Client(closed_port()) as client:
        pass
    with pytest.raises(Unavailable) as caught:
        client.topics.list()
    assert str(caught.value).endswith("the client is closed\n  Nothing was applied.")


def test_what_a_command_itself_finds_wrong_has_a_code_too(quorl: Quorl, cluster: StandIn) -> None:
    all_say(cluster, "no_quorum")
    told = json.loads(quorl("cluster", "wait", "--max-wait", "100ms", "--json").stderr)["error"]
    assert (told["code"], told["hint"]) == ("unknown", "quorl doctor")
    told = json.loads(quorl("errors", "no_quorom", "--json").stderr)["error"]
    assert set(told) == {"code", "title", "detail", "hint", "request_id"}
    assert told["code"] == "not_found"


def test_the_check_for_monitoring_has_hints(quorl: Quorl, cluster: StandIn) -> None:
    cluster.health = "no_quorum"
    (check,) = json.loads(quorl("cluster", "check", "--json").stdout)["checks"]
    assert check["hint"] == f"See to n2, n3: {NODE}"
    nowhere = json.loads(quorl("cluster", "check", "--json", "-s", closed_port(), "--timeout", "0.2").stdout)
    assert nowhere["checks"][0]["hint"].startswith("Start them: quorl up")
