"""What another server than a node answers, or a proxy before nodes: soon told as that, and never to be not applied where it may have been."""

from __future__ import annotations

import pytest

from quorl.client import errors as e
from quorl.client.flow import Failure, flow
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.wire import Answer
from tests.client.scripted import LOST, World, created

CREATE = t.CreateTopic(name="x")


@pytest.fixture
def world() -> World:
    return World()


def foreign(status: int, body: bytes = b"<html>", **headers: str) -> Answer:
    return Answer(status, {"content-type": "text/html", **headers}, body)


def test_another_server_that_fails_a_write_is_asked_once_and_the_write_stays_in_doubt(world: World) -> None:
    """It may stand before a node, and have passed the write on."""
    with pytest.raises(e.OutcomeUnknown) as caught:
        world.play(flow(world.route, CREATE), *[foreign(500)] * 3)
    assert world.clock.now < 101
    told = str(caught.value)
    assert told.startswith(
        "what answers there is not quorl: create_topic 'x' was not applied, unless something there passed it on to a node"
    )
    assert "500 unreadable_answer (HTTP 500, what answers there is not quorl (text/html): <html>)" in told
    assert "client.repeat(error)" in told


def test_a_write_that_was_lost_before_another_server_answered_is_not_said_to_be_anything_else(world: World) -> None:
    world = World(["http://a"])
    with pytest.raises(e.OutcomeUnknown, match="^what answers there is not quorl, while calling"):
        world.play(flow(world.route, CREATE), LOST, foreign(404))


def test_another_server_that_fails_a_read_is_asked_once(world: World) -> None:
    with pytest.raises(e.Unavailable, match="^what answers there is not quorl, while calling get_topic 'x'"):
        world.play(flow(world.route, t.GetTopic(topic="x")), *[foreign(500)] * 3)


@pytest.mark.parametrize("status", [501, 505])
def test_what_a_server_does_not_even_try_is_not_applied(world: World, status: int) -> None:
    """``python -m http.server`` says 501 to a POST."""
    with pytest.raises(e.Unavailable, match="^what answers there is not quorl, while calling create_topic 'x'"):
        world.play(flow(world.route, CREATE), *[foreign(status)] * 3)


NO_HTTP = Failure("refused", "what answers there does not speak HTTP", foreign=True)
NO_HTTP_AND_SENT = Failure("lost", "connection lost: what answers there does not speak HTTP", foreign=True)


def test_what_does_not_speak_http_is_asked_once_and_nothing_was_sent_to_it(world: World) -> None:
    with pytest.raises(
        e.Unavailable, match="^what answers there is not quorl, while calling create_topic 'x'"
    ) as caught:
        world.play(flow(world.route, CREATE), *[NO_HTTP] * 3)
    assert (caught.value.code, world.clock.now < 101) == ("unreadable_answer", True)
    assert "check the URL" in caught.value.hint


def test_what_does_not_speak_http_and_was_sent_a_write_leaves_it_in_doubt(world: World) -> None:
    with pytest.raises(e.OutcomeUnknown, match="unless something there passed it on to a node"):
        world.play(flow(world.route, CREATE), *[NO_HTTP_AND_SENT] * 3)


def test_one_that_does_not_speak_http_is_no_matter_where_a_node_takes_the_call(world: World) -> None:
    world.play(flow(world.route, CREATE), NO_HTTP, created())


def test_where_a_node_was_heard_one_that_does_not_speak_http_is_asked_again() -> None:
    world = World(["http://a"])
    world.play(flow(world.route, CREATE), created())
    world.play(flow(world.route, CREATE), NO_HTTP, created())


def test_a_json_answer_of_another_server_is_told_as_one(world: World) -> None:
    with pytest.raises(e.OutcomeUnknown, match=r"what answers there is not quorl \(application/json\): {\"error\": 1}"):
        world.play(flow(world.route, CREATE), *[Answer(500, {"content-type": "application/json"}, b'{"error": 1}')] * 3)


@pytest.mark.parametrize("status", [502, 503, 504, 522])
def test_a_proxy_whose_nodes_are_away_is_waited_for(world: World, status: int) -> None:
    """Nodes that start anew behind it take the call then; until that is known it is in doubt."""
    world.play(flow(world.route, CREATE), *[foreign(status)] * 5, created())
    with pytest.raises(e.OutcomeUnknown):
        world.drive(flow(world.route, CREATE, timeout_s=2), lambda _: foreign(status), takes_s=0.1)


def test_a_proxy_that_nothing_of_quorl_was_ever_heard_through_is_not_waited_for_longer_than_refusals_are() -> None:
    world = World(["http://a"])
    world.route.refused_s = 2.0
    start = world.clock.now
    with pytest.raises(e.OutcomeUnknown, match="unless something there passed it on"):
        world.drive(flow(world.route, CREATE), lambda _: foreign(503), takes_s=0.01)
    assert 1.0 < world.clock.now - start < 3.0


def test_an_address_through_which_a_node_was_heard_is_asked_again_after_any_error(world: World) -> None:
    world = World(["http://a"])
    world.play(flow(world.route, CREATE), created())
    world.play(flow(world.route, CREATE), foreign(500), foreign(501), created())


def test_what_a_node_of_ours_said_and_nobody_can_read_is_asked_again(world: World) -> None:
    world = World(["http://a"])
    broken = Answer(500, {"served-by": "n1"}, b'{"type": "/problems/')
    world.play(flow(world.route, CREATE), broken, broken, created())
