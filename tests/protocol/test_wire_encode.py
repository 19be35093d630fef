"""The client's half of the wire: requests out, replies and problems in."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.cluster.protocol import system as s
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Request
from quorl.cluster.protocol.operations import BY_NAME
from quorl.cluster.protocol.problems import Problem, Refusal
from quorl.cluster.protocol.wire import (
    Answer,
    ProtocolError,
    answer_problem,
    answer_reply,
    decode,
    encode,
    read_answer,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200).filter(
    lambda x: x not in {".", ".."}
)


@given(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=64), st.integers(1, 2**53 - 1))
def test_a3_what_is_encoded_decodes_to_the_same_request(name: str, text: str, number: int) -> None:
    requests: list[Request[Any]] = [
        t.CreateTopic(name=name, partitions=3),
        t.ListTopics(prefix=text, limit=1),
        t.GetTopic(topic=name),
        t.DeleteTopic(topic=name, if_empty=True),
        t.RegisterConsumer(topic=name, name=text, start="latest"),
        t.GetConsumer(topic=name, consumer_id=number),
        t.Browse(topic=name, start=text, wait=1.5),
        t.GetMessage(topic=name, partition=1, offset=number),
        t.Consume(topic=name, consumer_id=number, max=2),
        t.GetSize(topic=name, consumer_id=number),
        t.GetSize(topic=name),
        s.GetCluster(),
    ]
    for request in requests:
        sent = encode(request, "key")
        assert sent.path.isascii()
        assert sent.query.isascii()
        row, found, options = decode(sent)
        assert found == request
        assert (row.request, options.key) == (type(request), "key")


def test_an_append_is_encoded_with_the_bytes_of_its_values() -> None:
    message = t.Message(value=msgspec.Raw(b'{"a" :1}'), key="k")
    sent = encode(t.Append(topic="a/b", messages=[message]))
    assert sent.path == "/v1/topics/a%2Fb/messages"
    assert sent.body == b'{"messages":[{"value":{"a" :1},"key":"k"}]}'
    assert "idempotency-key" not in sent.headers


def test_d9_read_options_are_encoded_into_the_query() -> None:
    sent = encode(t.GetTopic(topic="t"), consistency="session", min_sequence=9)
    assert sent.query == "consistency=session&min_sequence=9"


@pytest.mark.parametrize("name", ["", ".", "..", "\ud800"])
def test_names_that_no_path_can_carry_are_refused_before_they_are_sent(name: str) -> None:
    with pytest.raises(ProtocolError, match="validation_failed"):
        encode(t.GetTopic(topic=name))


def test_replies_come_back_as_they_were() -> None:
    row = BY_NAME["create_topic"]
    new = t.TopicCreated(name="a/b", partitions=1, created_at="x")
    answer = answer_reply(row, new)
    assert (answer.status, answer.headers["location"]) == (201, "/v1/topics/a%2Fb")
    assert read_answer(row, answer) == new
    assert answer_reply(row, msgspec.structs.replace(new, existing=True)).status == 200
    row = BY_NAME["delete_topic"]
    assert answer_reply(row, t.TopicDeleted(name="a", messages=1)) == Answer(
        200, {"content-type": "application/json"}, b'{"name":"a","messages":1}'
    )


def test_replies_may_say_more_than_this_version_knows() -> None:
    answer = Answer(200, {}, b'{"name":"a","messages":1,"later":true}')
    assert read_answer(BY_NAME["delete_topic"], answer) == t.TopicDeleted(name="a", messages=1)


def test_problems_come_back_as_refusals() -> None:
    answer = answer_problem(
        Problem("no_leader", "none", retry_after_ms=1500),
        instance="/v1/x\udcff",
        request_id="r",
        node="n1",
        leader=None,
    )
    assert answer.status == 503
    assert answer.headers == {"content-type": "application/problem+json", "retry-after": "2"}
    with pytest.raises(Refusal, match="no_leader: none") as caught:
        read_answer(BY_NAME["append"], answer)
    found = caught.value.problem
    assert (found.type, found.code, found.status, found.retryable) == ("/problems/no_leader", "no_leader", 503, True)
    assert (found.retry_after_ms, found.request_id, found.node, found.leader) == (1500, "r", "n1", None)
    assert (found.instance, found.errors) == ("/v1/x?", msgspec.UNSET)


def test_a_method_that_is_not_allowed_names_those_that_are() -> None:
    problem = Problem("method_not_allowed", "no", allow=("DELETE", "GET"))
    answer = answer_problem(problem, instance="/", request_id="", node="", leader="n1")
    assert answer.headers["allow"] == "DELETE, GET"
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("status", "body"), [(502, b"<html>"), (200, b"<html>"), (200, b"{}"), (404, b"[]"), (500, b'"\xff"'), (204, b"")]
)
def test_what_is_not_ours_is_a_refusal_that_says_so(status: int, body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        read_answer(BY_NAME["delete_topic"], Answer(status, {}, body))
    assert (caught.value.problem.code, caught.value.problem.status) == ("unreadable_answer", status)


def test_the_page_of_another_server_is_told_in_one_line() -> None:
    page = b"<!DOCTYPE HTML>\n<html>\r\n\t<h1>\x1b[1mIndex\xff" + b" of /" * 100
    with pytest.raises(Refusal) as caught:
        read_answer(BY_NAME["delete_topic"], Answer(404, {"content-type": "text/html; charset=utf-8"}, page))
    detail = caught.value.problem.detail or ""
    assert detail.startswith(
        "HTTP 404, what answers there is not quorl (text/html): <!DOCTYPE HTML> <html> <h1> [1mIndex\ufffd of /"
    )
    assert (detail.isprintable(), len(detail) < 200) == (True, True)
