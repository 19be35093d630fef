"""The mind of the client, without a socket: every answer it can get, and all of them in any order."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorl.client import errors as e
from quorl.client.flow import Failure, Send, Sleep, flow
from quorl.cluster.protocol import problems, system
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.wire import Answer
from tests.client.scripted import (
    CREATED,
    LOST,
    NODES,
    REFUSED,
    SILENT,
    World,
    created,
    problem,
    reply,
)

CREATE = t.CreateTopic(name="x")
PAGE = reply("list_topics", t.TopicList(items=[], next=None))


@pytest.fixture
def world() -> World:
    return World()


def test_a_reply_is_returned(world: World) -> None:
    assert world.play(flow(world.route, CREATE), created()) == CREATED
    (send,) = world.sends
    assert send.call.method == "POST"
    assert send.call.headers["idempotency-key"] == "key-1"


def test_an_unreachable_node_is_passed_over_at_once(world: World) -> None:
    world.play(flow(world.route, CREATE), REFUSED, REFUSED, created())
    assert world.asked == list(NODES)
    assert not any(isinstance(step, Sleep) for step in world.steps)


def test_after_a_round_it_waits_before_the_next(world: World) -> None:
    world.play(flow(world.route, CREATE), REFUSED, REFUSED, REFUSED, created())
    assert isinstance(world.steps[3], Sleep)
    assert world.asked[3] == NODES[0]


def test_it_stays_with_the_node_that_answers(world: World) -> None:
    world.play(flow(world.route, CREATE), REFUSED, created(leader=None))
    world.play(flow(world.route, CREATE), created(leader=None))
    assert world.asked == [NODES[0], NODES[1], NODES[1]]


def test_it_finds_the_leader_by_the_names_in_the_answers(world: World) -> None:
    world.play(flow(world.route, CREATE), created(node="n1", leader="n3"))
    world.play(flow(world.route, CREATE), created(node="n2", leader="n3"))
    world.play(flow(world.route, CREATE), created(node="n3", leader="n3"))
    world.play(flow(world.route, CREATE), created(node="n3", leader="n1"))
    world.play(flow(world.route, CREATE), created(node="n1", leader="n1"))
    assert [NODES.index(node) for node in world.asked] == [0, 1, 2, 2, 0]


def test_a_leader_that_is_not_on_the_list_is_no_trouble(world: World) -> None:
    for name in ("n1", "n2", "n3", "n3", "n3"):
        world.play(flow(world.route, CREATE), created(node=name, leader="n9"))
    assert [NODES.index(node) for node in world.asked] == [0, 1, 2, 2, 2]


def test_a_failed_leader_is_asked_last_for_a_while(world: World) -> None:
    world.play(flow(world.route, CREATE), created(node="n1", leader="n1"))
    world.play(flow(world.route, CREATE), LOST, created(node="n2", leader="n1"))
    world.play(flow(world.route, CREATE), created(node="n3", leader="n2"))
    assert NODES[0] not in world.asked[2:]


def test_a_node_that_keeps_failing_is_let_be_for_longer(world: World) -> None:
    world.play(flow(world.route, CREATE), created(node="n1", leader="n9"))
    for pause_s in (3, 3, 5, 60):
        world.play(flow(world.route, CREATE), REFUSED, created(node="n3", leader="n9"))
        world.play(flow(world.route, CREATE), created(node="n3", leader="n9"))
        world.clock.now += pause_s
    assert world.asked.count(NODES[1]) < 4


def test_d7_all_repeats_of_a_write_have_one_key_and_one_body(world: World) -> None:
    world.play(flow(world.route, CREATE), LOST, problem("commit_unknown"), problem("no_leader"), REFUSED, created())
    assert len({send.call for send in map(_hashable, world.sends)}) == 1
    assert world.keys == 1


def test_d7_a_key_given_by_the_caller_is_used(world: World) -> None:
    world.play(flow(world.route, CREATE, key="mine"), created())
    assert world.sends[0].call.headers["idempotency-key"] == "mine"


def test_a_refusal_is_final_and_has_its_class(world: World) -> None:
    with pytest.raises(e.AlreadyExists) as caught:
        world.play(flow(world.route, CREATE), problem("already_exists", "it is there"))
    assert (caught.value.code, caught.value.status) == ("already_exists", 409)
    assert caught.value.detail == "it is there"
    assert caught.value.hint
    assert caught.value.request_id == "req-1"
    assert caught.value.node == "n1"


@pytest.mark.parametrize("code", ["validation_failed", "invalid_json", "payload_too_large", "target_too_long"])
def test_what_breaks_a_rule_is_invalid(world: World, code: str) -> None:
    with pytest.raises(e.Invalid):
        world.play(flow(world.route, CREATE), problem(code))


def test_command_failed_is_a_verdict_although_it_is_a_500(world: World) -> None:
    with pytest.raises(e.CommandFailed):
        world.play(flow(world.route, CREATE), LOST, problem("command_failed"))


def test_a_refusal_of_a_newer_server_is_rejected_with_its_code(world: World) -> None:
    body = b'{"code": "topic_frozen", "status": 409, "title": "Frozen", "hint": "thaw it"}'
    with pytest.raises(e.Rejected, match="topic_frozen: Frozen"):
        world.play(flow(world.route, CREATE), Answer(409, {}, body))


def test_nobody_reachable_is_unavailable_and_names_each_node_and_why(world: World) -> None:
    with pytest.raises(e.Unavailable) as caught:
        world.drive(flow(world.route, CREATE, timeout_s=2), lambda _: REFUSED, takes_s=0.01)
    assert caught.value.tries == tuple(e.Try(node, "connection refused") for node in NODES)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("no node answered in ")
    assert lines[0].endswith(" s while calling create_topic 'x'")
    assert lines[1] == "  http://a:7101  connection refused"
    assert "Nothing was applied" in lines[-1]


@pytest.mark.parametrize(
    ("node", "port"), [("http://a", 80), ("https://a/base", 443), ("http://a:80", None), ("http://[::1]:7101", None)]
)
def test_of_a_url_without_a_port_it_is_said_which_was_tried(node: str, port: int | None) -> None:
    html = Answer(404, {"content-type": "text/html"}, b"<html>It works!</html>")
    served: list[Callable[[Send], Answer | Failure]] = [lambda _: REFUSED, lambda _: LOST, lambda _: html]
    for serve in served:
        world = World((node,))
        with pytest.raises(e.QuorlError) as caught:
            world.drive(flow(world.route, CREATE, timeout_s=2), serve, takes_s=0.01)
        assert isinstance(caught.value, (e.Unavailable, e.OutcomeUnknown))
        why = caught.value.tries[0].why
        said = f"; port {port} was tried, as for any URL without one, and nodes listen on 7101"
        assert why.endswith(said) if port else "was tried" not in why


TIMED_OUT = Failure("unreachable", "time-out while connecting")


def impatient(nodes: tuple[str, ...] = NODES) -> World:
    world = World(nodes)
    world.route.refused_s = 2.0
    return world


def took_s(world: World, serve: Callable[[Send], Answer | Failure]) -> float:
    began = world.clock.now
    with pytest.raises(e.Unavailable):
        world.drive(flow(world.route, CREATE), serve, takes_s=0.01)
    return world.clock.now - began


@pytest.mark.parametrize("count", [1, 3])
def test_where_every_node_refuses_a_call_ends_early_if_the_caller_said_so(count: int) -> None:
    assert 0.5 < took_s(impatient(NODES[:count]), lambda _: REFUSED) < 2.0
    assert took_s(World(NODES[:count]), lambda _: REFUSED) > 5.0


@pytest.mark.parametrize("other", [TIMED_OUT, problem("no_leader", retry_after_ms=10)])
def test_one_node_that_refuses_among_others_is_no_reason_to_end_early(other: Answer | Failure) -> None:
    assert took_s(impatient(), lambda send: REFUSED if send.node == NODES[0] else other) > 5.0


MUTE = Failure("silent", "it took the connection and said nothing for 2.0 s")


@pytest.mark.parametrize("others", [MUTE, REFUSED])
def test_where_one_says_nothing_a_call_ends_early_but_later_than_where_all_refuse(others: Failure) -> None:
    assert 3.0 < took_s(impatient(), lambda send: MUTE if send.node == NODES[0] else others) < 4.0
    assert took_s(World(), lambda _: MUTE) > 5.0


@pytest.mark.parametrize("patient", [True, False])
def test_of_a_call_that_ended_early_it_is_known_that_no_node_was_met(patient: bool) -> None:
    world = World() if patient else impatient()
    with pytest.raises(e.Unavailable) as caught:
        world.drive(flow(world.route, CREATE), lambda _: MUTE, takes_s=0.01)
    assert caught.value.nobody is not patient
    assert pickle.loads(pickle.dumps(caught.value)).nobody is not patient


def test_a_node_that_has_not_been_asked_is_not_taken_to_refuse() -> None:
    world = impatient()
    with pytest.raises(e.Unavailable):
        world.drive(flow(world.route, CREATE), lambda _: REFUSED, takes_s=2.1)
    assert set(world.asked) == set(NODES)


def test_a_cluster_that_has_answered_is_waited_for_while_it_starts_anew() -> None:
    world = impatient()
    world.play(flow(world.route, CREATE), created())
    assert took_s(world, lambda _: REFUSED) > 5.0


def test_no_quorum_is_unavailable_and_carries_its_code(world: World) -> None:
    down = problem("no_quorum", "1 of 3 voters reachable", retry_after_ms=1000)
    with pytest.raises(e.Unavailable, match=r"503 no_quorum \(1 of 3 voters reachable\)") as caught:
        world.drive(flow(world.route, CREATE, timeout_s=3), lambda _: down, takes_s=0.1)
    assert caught.value.code == "no_quorum"
    assert caught.value.retry_after_s == 1.0


def test_what_a_node_answered_tells_more_than_that_it_went_away_afterwards(world: World) -> None:
    events: list[Answer | Failure] = [problem("no_quorum", "1 of 3 voters reachable")]
    with pytest.raises(e.Unavailable, match=r"503 no_quorum \(1 of 3 voters reachable\)") as caught:
        world.drive(flow(world.route, CREATE, timeout_s=3), lambda _: events.pop() if events else REFUSED, takes_s=0.1)
    assert caught.value.code == "no_quorum"
    assert [why for _, why in caught.value.tries][1:] == ["connection refused"] * 2


def test_a_time_out_tells_more_than_a_refused_connection_and_the_first_one_most(world: World) -> None:
    events: list[Answer | Failure] = [Failure("lost", "no answer in 0.2 s"), Failure("lost", "no answer in 1.2 s")]
    with pytest.raises(e.OutcomeUnknown) as caught:
        world.drive(flow(world.route, CREATE, timeout_s=3), lambda _: events.pop() if events else REFUSED, takes_s=0.01)
    assert [why for _, why in caught.value.tries] == ["no answer in 1.2 s", "no answer in 0.2 s", "connection refused"]


@pytest.mark.parametrize("timeout_s", [0.4, 1.0, 4.0, 10.0])
def test_one_node_without_quorum_never_puts_a_write_in_doubt(timeout_s: float) -> None:
    world = World(NODES[:1])

    def serve(send: Send) -> Answer:
        told_ms = int(send.headers()["quorl-timeout-ms"])
        world.clock.now += min(2.0, 0.9 * told_ms / 1000)  # as nodes do, who wait 2 s for a leader
        return problem("no_quorum", "1 of 3 members reachable", retry_after_ms=10)

    with pytest.raises(e.Unavailable) as caught:
        world.drive(flow(world.route, CREATE, timeout_s=timeout_s), serve)
    took_s = world.clock.now - 100.0
    assert caught.value.detail == f"no node could take the call in {took_s:.1f} s while calling create_topic 'x'"
    assert took_s <= timeout_s
    assert all(send.timeout_s >= min(0.5, timeout_s / 4) for send in world.sends[1:])
    assert len(world.sends) >= 2


def test_a_write_in_doubt_is_tried_to_the_last(world: World) -> None:
    events: list[Answer | Failure] = [created(), SILENT, SILENT]
    assert world.drive(flow(world.route, CREATE, timeout_s=1), lambda _: events.pop()) == CREATED
    assert world.sends[-1].timeout_s < 0.25


def test_once_lost_it_is_unknown_for_ever(world: World) -> None:
    events: list[Answer | Failure] = [LOST]
    with pytest.raises(e.OutcomeUnknown) as caught:
        world.drive(flow(world.route, CREATE, timeout_s=1), lambda _: events.pop() if events else REFUSED, takes_s=0.01)
    assert caught.value.key == "key-1"
    assert caught.value.request == CREATE
    assert "It may have been applied" in str(caught.value)


@pytest.mark.parametrize("answer", [problem("commit_unknown"), Answer(500, {}, b"oops"), Answer(201, {}, b"<html>")])
def test_answers_that_leave_a_write_in_doubt(world: World, answer: Answer) -> None:
    with pytest.raises(e.OutcomeUnknown):
        world.drive(flow(world.route, CREATE, timeout_s=1), lambda _: answer, takes_s=0.01)


def test_a_refusal_that_is_not_the_machines_does_not_end_doubt(world: World) -> None:
    with pytest.raises(e.OutcomeUnknown):
        world.play(flow(world.route, CREATE), LOST, problem("validation_failed"))


def test_the_machines_refusal_ends_doubt(world: World) -> None:
    with pytest.raises(e.AlreadyExists):
        world.play(flow(world.route, CREATE), LOST, problem("already_exists"))


def test_a_repeat_of_an_unknown_call_is_never_called_unavailable(world: World) -> None:
    with pytest.raises(e.OutcomeUnknown):
        world.drive(flow(world.route, CREATE, key="k", doubt=True, timeout_s=1), lambda _: REFUSED, takes_s=0.01)


def test_reads_are_never_in_doubt(world: World) -> None:
    with pytest.raises(e.Unavailable):
        world.drive(flow(world.route, t.GetTopic(topic="x"), timeout_s=1), lambda _: LOST, takes_s=0.01)
    assert "idempotency-key" not in world.sends[0].call.headers


def test_what_a_repeat_cannot_change_is_asked_of_each_node_once(world: World) -> None:
    with pytest.raises(e.Unavailable):
        world.play(flow(world.route, CREATE), *[problem("storage_full")] * 3)
    with pytest.raises(e.OutcomeUnknown):
        world.play(flow(world.route, CREATE), *[problem("internal")] * 3)


def test_a_strangers_404_is_no_refusal(world: World) -> None:
    with pytest.raises(e.Unavailable, match="404 unreadable_answer"):
        world.play(flow(world.route, CREATE), *[Answer(404, {}, b"<html>not here")] * 3)
    world.play(flow(world.route, CREATE), Answer(404, {}, b"<html>"), created())


def test_too_many_requests_slows_down_for_all_nodes(world: World) -> None:
    start = world.clock.now
    world.play(flow(world.route, CREATE), problem("too_many_requests", retry_after_ms=2000), created())
    assert world.clock.now - start > 2.0


def test_retry_after_in_the_header_counts_too(world: World) -> None:
    document = Answer(429, {"retry-after": "3"}, b'{"code": "too_many_requests", "retryable": true}')
    start = world.clock.now
    world.play(flow(world.route, CREATE), document, created())
    assert world.clock.now - start > 3.0


def test_a_node_that_says_later_is_let_be_while_others_are_asked(world: World) -> None:
    world.play(flow(world.route, CREATE), problem("shutting_down", retry_after_ms=5000), REFUSED, REFUSED, created())
    assert world.asked == [*NODES, NODES[1]]


def test_a_silent_node_does_not_use_all_the_time(world: World) -> None:
    world.play(flow(world.route, CREATE, timeout_s=10), created(leader=None))
    world.play(flow(world.route, CREATE, timeout_s=10), SILENT, created())
    assert world.sends[1].timeout_s == 4.0
    assert world.asked == [NODES[0], NODES[0], NODES[1]]


def test_session_reads_carry_the_highest_sequence_seen(world: World) -> None:
    world.play(flow(world.route, t.ListTopics()), PAGE)
    assert world.sends[-1].call.query == ""
    world.play(flow(world.route, CREATE), created(sequence=41))
    world.play(flow(world.route, CREATE), created(sequence=40))
    world.play(flow(world.route, t.ListTopics(prefix="a&b")), PAGE)
    assert world.sends[-1].call.query == "prefix=a%26b&consistency=session&min_sequence=41"
    world.play(flow(world.route, t.ListTopics(), consistency="local"), PAGE)
    assert world.sends[-1].call.query == "consistency=local"
    info = reply("get_size", t.TopicSize(size=0, total=0))
    world.play(flow(world.route, t.GetSize(topic="x")), info)
    assert world.sends[-1].call.query == ""


def test_inspections_take_no_options(world: World) -> None:
    world.route.sequence = 9
    cluster = system.ClusterInfo(
        name="c",
        cluster_id=None,
        node="n1",
        leader=None,
        term=0,
        quorum=2,
        health="no_quorum",
        sequence=0,
        machine_version=1,
        digest="",
        members=[],
    )
    assert world.play(flow(world.route, system.GetCluster()), reply("get_cluster", cluster, leader=None)) == cluster
    assert world.sends[0].call.query == ""


def test_a_long_poll_has_time_to_wait_and_waits_less_when_it_is_repeated(world: World) -> None:
    page = reply("browse", t.MessagePage(items=[], next=0))
    browse = t.Browse(topic="x", wait=20)
    events: list[Answer | Failure] = [page, SILENT]
    world.drive(flow(world.route, browse, timeout_s=10), lambda _: events.pop())
    first, second = world.sends
    assert first.timeout_s == 24.0
    assert "wait=20" in first.call.query
    assert "wait=" not in second.call.query
    assert second.timeout_s <= 6.0


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_names_that_a_path_cannot_carry_are_refused_here(world: World, name: str) -> None:
    with pytest.raises(e.Invalid):
        world.play(flow(world.route, t.GetTopic(topic=name)))


def test_text_that_is_not_unicode_is_refused_here(world: World) -> None:
    with pytest.raises(e.Invalid):
        world.play(flow(world.route, t.CreateTopic(name="\ud800")))


def test_what_is_no_operation_is_a_mistake_of_the_program(world: World) -> None:
    with pytest.raises(TypeError, match="no operation"):
        next(flow(world.route, t.AppendBatch(topic="x", count=0, size_bytes=0, producers=[], body=b"")))


# -- whatever comes, in whatever order ------------------------------------------------------------------------------
CODES = sorted(problems.CATALOGUE)
EVENTS = st.one_of(
    st.just(REFUSED),
    st.just(LOST),
    st.just(SILENT),
    st.builds(problem, st.sampled_from(CODES), retry_after_ms=st.sampled_from([None, 1, 500, 20_000])),
    st.builds(Answer, st.sampled_from([200, 302, 404, 500, 501, 502, 503, 504]), st.just({}), st.just(b"?")),
    st.builds(created, node=st.sampled_from(["n1", "n2"]), leader=st.sampled_from([None, "n1", "n2", "n7"])),
)
REFUSALS = {code for code, kind in problems.CATALOGUE.items() if kind.status < 500 and not kind.retryable} | {
    "command_failed"
}


@settings(max_examples=300)
@given(
    events=st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 0.001, 0.7, 3.0])), max_size=40),
    timeout_s=st.sampled_from([0.001, 1.0, 10.0]),
    nodes=st.integers(1, 3),
)
def test_d7_flow_in_all_weathers(events: list[tuple[Answer | Failure, float]], timeout_s: float, nodes: int) -> None:
    world = World(NODES[:nodes])
    start = world.clock.now
    happened: list[Answer | Failure] = []

    def serve(send: Send) -> Answer | Failure:
        assert world.clock.now + send.timeout_s <= start + timeout_s + 1e-9, "planned beyond the deadline"
        event, takes_s = events[len(happened)] if len(happened) < len(events) else (REFUSED, 0.01)
        happened.append(event)
        if event is not SILENT:
            world.clock.now += min(takes_s, send.timeout_s)
        return event

    outcome: object
    try:
        outcome = world.drive(flow(world.route, CREATE, timeout_s=timeout_s), serve)
    except e.QuorlError as error:
        outcome = error
    assert world.clock.now <= start + timeout_s + 1e-9
    assert len({_hashable(send).call for send in world.sends}) <= 1, "a repeat with another key or body"
    accepted = [event for event in happened if isinstance(event, Answer) and event.status == 201]
    refused = [event for event in happened if _code(event) in REFUSALS]
    maybe = any(_in_doubt(event) for event in happened)
    if isinstance(outcome, e.Unavailable):
        assert not accepted
        assert not refused
        assert not maybe
    elif isinstance(outcome, e.OutcomeUnknown):
        assert not accepted
        assert maybe
    elif isinstance(outcome, e.Rejected):
        assert _code(happened[-1]) == outcome.code
        assert len(refused) == 1, "asked again after a refusal"
    else:
        assert outcome == CREATED
        assert len(accepted) == 1
        assert happened[-1] is accepted[0]


def _code(event: Answer | Failure) -> str | None:
    if isinstance(event, Failure) or not event.body.startswith(b'{"type"'):
        return None
    return next(code for code in CODES if f'"code":"{code}"'.encode() in event.body)


def _in_doubt(event: Answer | Failure) -> bool:
    if isinstance(event, Failure):
        return event.kind == "lost"
    if event.body == b"?":
        return not (400 <= event.status < 500 or event.status in {501, 505})
    return _code(event) in {"commit_unknown", "internal", "unreadable_answer"}


@dataclasses.dataclass(frozen=True)
class _Hashable:
    call: tuple[object, ...]


def _hashable(send: Send) -> _Hashable:
    call = send.call
    return _Hashable((call.method, call.path, call.query, tuple(sorted(call.headers.items())), call.body))
