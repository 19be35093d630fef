"""What a call means, and what is wrong with it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorl.cluster.protocol import limits
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol import system as s
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.appends import AppendAll, TopicAppend
from quorl.cluster.protocol.grammar import Request
from quorl.cluster.protocol.operations import BY_NAME, OPERATIONS
from quorl.cluster.protocol.wire import Call, Options, ProtocolError, decode
from tests.protocol.task_calls import GOOD_OF_TASKS

MESSAGES = "/v1/topics/t/messages"


def call(method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Call:
    path, _, query = target.partition("?")
    return Call(method, path, query, headers or {}, body)


def problem(method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
    with pytest.raises(ProtocolError) as caught:
        decode(call(method, target, body, headers))
    return caught.value.problem


GOOD: list[tuple[str, str, bytes, Request[Any]]] = [
    ("POST", "/v1/topics", b'{"name":"a","partitions":3}', t.CreateTopic(name="a", partitions=3)),
    ("POST", "/v1/topics", b'{"name":"a\\u0000b"}', t.CreateTopic(name="a\0b")),
    ("POST", "/v1/topics", b' {"name":"\\ud83d\\ude00","name":"b"}\n', t.CreateTopic(name="b")),
    (
        "POST",
        "/v1/topics?partitions=2&error_if_exists=true",
        b'{"name":"a"}',
        t.CreateTopic(name="a", partitions=2, error_if_exists=True),
    ),
    ("GET", "/v1/topics", b"", t.ListTopics()),
    ("GET", "/v1/topics?prefix=a+b%2Fc&limit=7", b"", t.ListTopics(prefix="a b/c", limit=7)),
    ("GET", "/v1/topics/%F0%9F%98%80%2F%20x", b"", t.GetTopic(topic="\U0001f600/ x")),
    ("GET", "/v1/topics/.", b"", t.GetTopic(topic=".")),
    ("DELETE", "/v1/topics/t", b"", t.DeleteTopic(topic="t")),
    ("DELETE", "/v1/topics/t?if_empty=1", b"", t.DeleteTopic(topic="t", if_empty=True)),
    ("DELETE", "/v1/topics/t", b'{"if_empty":true}', t.DeleteTopic(topic="t", if_empty=True)),
    ("POST", "/v1/topics/t/producers", b"", t.RegisterProducer(topic="t")),
    ("POST", "/v1/topics/t/consumers", b'{"start":"latest"}', t.RegisterConsumer(topic="t", start="latest")),
    ("GET", "/v1/topics/t/consumers/12", b"", t.GetConsumer(topic="t", consumer_id=12)),
    ("GET", MESSAGES + "?from=5&partition=1&wait=1.5", b"", t.Browse(topic="t", partition=1, start="5", wait=1.5)),
    ("GET", MESSAGES + "/3/4", b"", t.GetMessage(topic="t", partition=3, offset=4)),
    ("POST", "/v1/topics/t/consumers/1/consume?max=9&wait=2", b"", t.Consume(topic="t", consumer_id=1, max=9, wait=2)),
    (
        "POST",
        "/v1/appends",
        b'{"appends":[{"topic":"t","messages":[{"value":1}]},{"topic":"u","messages":[{"value":2,"headers":{"h":"v"}}]}]}',
        AppendAll(
            appends=(
                TopicAppend(topic="t", messages=[t.Message(value=msgspec.Raw(b"1"))]),
                TopicAppend(topic="u", messages=[t.Message(value=msgspec.Raw(b"2"), headers={"h": "v"})]),
            )
        ),
    ),
    ("GET", "/v1/topics/t/size", b"", t.GetSize(topic="t")),
    ("GET", "/v1/topics/t/size?consumer_id=4", b"", t.GetSize(topic="t", consumer_id=4)),
    ("GET", "/v1/cluster", b"", s.GetCluster()),
    ("POST", "/v1/cluster/leader-transfers", b'{"to":"n2"}', s.TransferLeadership(to="n2")),
    ("GET", "/v1/overview", b"", o.GetOverview()),
    ("GET", "/v1/history?step=1&queue=a%2Fb", b"", o.GetHistory(step=1, queue="a/b")),
    ("GET", "/v1/history?topic=t", b"", o.GetHistory(topic="t")),
]


@pytest.mark.parametrize(("method", "target", "body", "request_"), GOOD)
def test_a_call_means_a_request(method: str, target: str, body: bytes, request_: Request[Any]) -> None:
    row, found, _ = decode(call(method, target, body))
    assert found == request_
    assert row is BY_NAME[row.name]


def test_every_row_of_the_table_is_reached() -> None:
    assert {decode(call(method, target, body))[0].name for method, target, body, _ in GOOD + GOOD_OF_TASKS} == {
        row.name for row in OPERATIONS
    } - {"append", "list_producers", "list_consumers", "submit"}
    assert decode(call("GET", "/v1/topics/t/producers"))[0].name == "list_producers"
    assert decode(call("GET", "/v1/topics/t/consumers"))[0].name == "list_consumers"
    assert decode(call("POST", MESSAGES, b'{"value":1}'))[0].name == "append"


@pytest.mark.parametrize(
    "body",
    [
        b'{"value": {"b" :1}, "key":"k", "headers":{"h":"v"}, "producer_id":2}',
        b'{"messages":[{"value": {"b" :1}, "key":"k", "headers":{"h":"v"}, "producer_id":2}]}',
    ],
)
def test_one_message_may_come_bare_and_values_are_kept_byte_for_byte(body: bytes) -> None:
    _, found, _ = decode(call("POST", MESSAGES, body))
    assert isinstance(found, t.Append)
    (message,) = found.messages
    assert bytes(message.value) == b'{"b" :1}'
    assert (message.key, message.headers, message.producer_id) == ("k", {"h": "v"}, 2)


def test_options_travel_beside_the_request() -> None:
    headers = {"idempotency-key": "k!", "quorl-hops": "1", "content-type": "application/json; charset=UTF-8"}
    assert decode(call("POST", MESSAGES, b'{"value":1}', headers))[2] == Options("k!", "linearizable", 0, 1)
    assert decode(call("GET", "/v1/topics"))[2] == Options(None, "local", 0, 0)
    target = "/v1/topics/t?consistency=session&min_sequence=12"
    assert decode(call("GET", target))[2] == Options(None, "session", 12, 0)


LONG_NAME = "n" * (limits.TOPIC_NAME_CHARS_MAX + 1)
BAD: list[tuple[str, str, bytes, str, str, str]] = [
    # method, target, body, code, pointer, a word of the detail
    ("GET", "/v1/topcs", b"", "route_not_found", "", "did you mean `/v1/topics`"),
    ("GET", "/v1/topics/t/mesages", b"", "route_not_found", "", "did you mean `/v1/topics/t/messages`"),
    ("GET", "/" + "x" * 300, b"", "route_not_found", "", "Nothing is served"),
    ("GET", "v1", b"", "route_not_found", "", "Nothing"),
    ("GET", "/docs/", b"", "route_not_found", "", "did you mean `/docs`"),
    ("GET", "/metric", b"", "route_not_found", "", "did you mean `/metrics`"),
    ("GET", "/x", b"", "route_not_found", "", "Nothing is served at /x"),
    ("GET", "/v1/event", b"", "route_not_found", "", "did you mean `/v1/events`"),
    ("PATCH", "/v1/topics/t", b"", "method_not_allowed", "", "DELETE, GET, HEAD"),
    ("GET", "/v1/topics/" + "x" * limits.TARGET_BYTES_MAX, b"", "target_too_long", "", str(limits.TARGET_BYTES_MAX)),
    ("GET", "/v1/topics/" + "é" * limits.TARGET_BYTES_MAX, b"", "target_too_long", "", str(limits.TARGET_BYTES_MAX)),
    ("GET", "/v1/topics/%FF", b"", "invalid_parameter", "", "`topic` in the path"),
    ("GET", "/v1/topics/\udcff", b"", "invalid_parameter", "", "percent-encoded"),
    ("GET", "/v1/topics?prefix=%FF", b"", "invalid_parameter", "", "percent-encoded"),
    ("GET", "/v1/topics?limt=1", b"", "invalid_parameter", "", "did you mean `limit`"),
    ("GET", "/v1/topics?limt=1", b"", "invalid_parameter", "", "Allowed: prefix, limit, cursor"),
    ("GET", "/v1/topics?limit=1&limit=1", b"", "invalid_parameter", "", "more than once"),
    ("GET", "/v1/topics?limit=many", b"", "invalid_parameter", "", "`limit`"),
    ("GET", "/v1/topics?limit=0", b"", "invalid_parameter", "", "`limit` must be at least 1; it is 0"),
    ("GET", "/v1/topics?consistency=strong", b"", "invalid_parameter", "", "local, session, linearizable"),
    ("GET", "/v1/topics?min_sequence=9007199254740992", b"", "invalid_parameter", "", "`min_sequence`"),
    ("GET", "/v1/topics/t/size?consumer_id=null", b"", "invalid_parameter", "", "`consumer_id` must be an integer"),
    ("GET", "/v1/workers?status=null", b"", "invalid_parameter", "", "`status` must be one of ALIVE"),
    ("GET", "/v1/cluster?consistency=local", b"", "invalid_parameter", "", "Allowed: none"),
    ("GET", MESSAGES + "?wait=nan", b"", "invalid_parameter", "", "`wait`"),
    ("GET", MESSAGES + "?wait=inf", b"", "invalid_parameter", "", "`wait`"),
    ("GET", "/v1/topics", b"{}", "invalid_parameter", "", "takes no body"),
    ("POST", "/v1/topics?consistency=local", b'{"name":"a"}', "invalid_parameter", "", "no parameter"),
    ("POST", "/v1/topics?partitions=1", b'{"name":"a","partitions":1}', "invalid_parameter", "", "both"),
    ("POST", MESSAGES + "?messages=1", b'{"value":1}', "invalid_parameter", "", "Allowed: none"),
    ("GET", "/v1/topics/", b"", "route_not_found", "", "Nothing is served at /v1/topics/ - did you mean `/v1/topics`?"),
    ("GET", "/v1/topics/a/", b"", "route_not_found", "", "did you mean `/v1/topics/a`?"),
    ("PUT", "/v1/queues//", b"{}", "route_not_found", "", "did you mean `/v1/queues`?"),
    ("GET", "/v1/nothing/", b"", "route_not_found", "", "Nothing is served at /v1/nothing/"),
    ("GET", "/v1/topics//size", b"", "validation_failed", "/topic", "at least 1 character;"),
    ("GET", "/v1/topics/" + LONG_NAME, b"", "validation_failed", "/topic", "at most 200 characters; it has 201"),
    ("GET", MESSAGES + "/x/1", b"", "validation_failed", "/partition", "must be an integer"),
    ("GET", MESSAGES + "/0/9007199254740992", b"", "validation_failed", "/offset", "at most 9007199254740991"),
    ("POST", "/v1/topics", b"", "validation_failed", "/name", "missing"),
    ("POST", "/v1/topics", b'{"name":""}', "validation_failed", "/name", "`name` must have at least 1 character"),
    ("POST", "/v1/topics", b'{"name":"' + LONG_NAME.encode() + b'"}', "validation_failed", "/name", "it has 201"),
    ("POST", "/v1/topics", b'{"name":"."}', "validation_failed", "/name", "URLs drop"),
    ("POST", "/v1/topics", b'{"name":".."}', "validation_failed", "/name", "URLs drop"),
    ("POST", "/v1/topics", b'{"name":1}', "validation_failed", "/name", "must be text, not an integer"),
    (
        "POST",
        "/v1/topics",
        b'{"name":"a","partitions":"1"}',
        "validation_failed",
        "/partitions",
        "must be an integer, not text",
    ),
    (
        "POST",
        "/v1/topics",
        b'{"name":"a","partitons":1}',
        "validation_failed",
        "/partitons",
        "did you mean `partitions`",
    ),
    ("POST", "/v1/topics", b'{"name":"a","a/~":1}', "validation_failed", "/a~1~0", "no field"),
    ("POST", "/v1/workers", b'{"queues":["a",".."]}', "validation_failed", "/queues", "URLs drop those"),
    ("POST", "/v1/claims", b'{"worker_id":1,"queues":["."]}', "validation_failed", "/queues", "URLs drop those"),
    ("POST", "/v1/topics", b"[]", "validation_failed", "", "got an array"),
    ("POST", "/v1/topics", b"3", "validation_failed", "", "got a number"),
    ("POST", "/v1/topics", b"null", "validation_failed", "", "got null"),
    ("POST", MESSAGES, b"{}", "validation_failed", "/messages", "missing"),
    ("POST", MESSAGES, b'{"messages":[]}', "validation_failed", "/messages", "at least 1 item"),
    ("POST", MESSAGES, b'{"messages":[{"value":1},{"key":"x"}]}', "validation_failed", "/messages/1/value", "missing"),
    ("POST", MESSAGES, b'{"messages":[{"value":1,"kee":1}]}', "validation_failed", "/messages/0/kee", "`key`"),
    (
        "POST",
        MESSAGES,
        b'{"value":1,"headers":{"a":1}}',
        "validation_failed",
        "/headers",
        "a value in `headers` must be text",
    ),
    ("POST", MESSAGES, b'{"value":1,"producer_id":9007199254740992}', "validation_failed", "/producer_id", "at most"),
    ("POST", MESSAGES, b'{"value":1e999}', "validation_failed", "", "out of range"),
    ("POST", MESSAGES, b'{"value":' + b"9" * 5000 + b"}", "validation_failed", "", "out of range"),
    ("POST", MESSAGES, b'{"value":' + b"[" * 100 + b"]" * 100 + b"}", "validation_failed", "", "nested 100 deep"),
    ("POST", MESSAGES, b'{"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "validation_failed", "", "nested 100"),
    ("POST", MESSAGES, b'{"value":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "validation_failed", "", "nested 100 deep"),
    ("POST", "/v1/topics", b'{"name":\n "a",}', "invalid_json", "", "line 2, column 6"),
    ("POST", "/v1/topics", b'{"name":', "invalid_json", "", "line 1, column 9: the body ends too early"),
    ("POST", "/v1/topics", b'{"name":"\xff"}', "invalid_json", "", "line 1, column 10: invalid UTF-8"),
    ("POST", "/v1/topics", "\ufeff{}".encode(), "invalid_json", "", "line 1, column 1"),
    ("POST", MESSAGES, b'{"value":"\xff"}', "invalid_json", "", "invalid UTF-8"),
    ("POST", MESSAGES, b'{"value":NaN}', "invalid_json", "", "column 10"),
    ("POST", MESSAGES, b'{"value":Infinity}', "invalid_json", "", "column 10"),
    ("POST", MESSAGES, b'{"value":"\\uD800"}', "invalid_json", "", "a surrogate without its other half"),
    ("POST", MESSAGES, b'{"value":"\\ud800 and more"}', "invalid_json", "", "surrogate"),
    ("POST", MESSAGES, b'{"value":"\\uDC00 and more"}', "invalid_json", "", "surrogate"),
    ("POST", MESSAGES, b'{"value":1,"value":"\\ud800\\u0041 and more"}', "invalid_json", "", "surrogate"),
    ("POST", MESSAGES, b'{"value":1} 2', "invalid_json", "", "trailing"),
    ("POST", MESSAGES, b'{"value":1} ' + b" " * limits.REQUEST_BYTES_MAX, "payload_too_large", "", "1048576"),
]


@pytest.mark.parametrize(
    ("method", "target", "body", "code", "pointer", "word"), BAD, ids=[f"{n}-{bad[3]}" for n, bad in enumerate(BAD)]
)
def test_a_wrong_call_is_refused_with_the_reason(
    method: str, target: str, body: bytes, code: str, pointer: str, word: str
) -> None:
    found = problem(method, target, body)
    assert found.code == code
    assert word in found.detail
    assert [error.pointer for error in found.errors] == ([pointer] if code == "validation_failed" else [])


def test_a3_names_are_counted_in_characters() -> None:
    name = "\U0001f600" * limits.TOPIC_NAME_CHARS_MAX
    body = msgspec.json.encode({"name": name})
    assert decode(call("POST", "/v1/topics", body))[1] == t.CreateTopic(name=name)
    assert decode(call("GET", f"/v1/topics/{quote(name, safe='')}"))[1] == t.GetTopic(topic=name)
    assert problem("POST", "/v1/topics", msgspec.json.encode({"name": name + "x"})).code == "validation_failed"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-type": "text/plain"}, "unsupported_media_type"),
        (
            {"content-type": "application/x-www-form-urlencoded", "origin": "http://n1:7101", "host": "n1:7101"},
            "unsupported_media_type",
        ),
        ({"content-type": "application/json", "origin": "http://evil.example", "host": "n1:7101"}, "forbidden_origin"),
        ({"origin": "null", "host": "n1:7101"}, "forbidden_origin"),
        ({"content-type": "application/json; charset=latin-1"}, "unsupported_media_type"),
        ({"content-type": "application/json; indent=4; charset=utf-16"}, "unsupported_media_type"),
        ({"content-type": "application/json, text/plain"}, "unsupported_media_type"),
        ({"content-type": "application/x-www-form-urlencoded; charset=utf-8"}, "unsupported_media_type"),
        ({"accept": "text/html"}, "not_acceptable"),
        ({"accept": "application/json;q=0, */*"}, "not_acceptable"),
        ({"accept": "*/*;q=0.0"}, "not_acceptable"),
        ({"idempotency-key": ""}, "invalid_parameter"),
        ({"idempotency-key": "two words"}, "invalid_parameter"),
        ({"idempotency-key": "é"}, "invalid_parameter"),
        ({"idempotency-key": "k" * (limits.IDEMPOTENCY_KEY_CHARS_MAX + 1)}, "invalid_parameter"),
        ({"quorl-hops": "-1"}, "invalid_parameter"),
        ({"quorl-hops": "\u0663"}, "invalid_parameter"),
    ],
)
def test_headers_are_checked(headers: dict[str, str], code: str) -> None:
    assert problem("POST", MESSAGES, b'{"value":1}', headers).code == code


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "application/json", "text/html, */*;q=0.1", "Application/JSON;q=1.0"]
)
def test_callers_that_take_json_get_it(accept: str) -> None:
    decode(call("GET", "/v1/topics", headers={"accept": accept}))


def test_message_limits() -> None:
    value = b'"' + b"v" * (limits.MESSAGE_VALUE_BYTES_MAX - 2) + b'"'
    decode(call("POST", MESSAGES, b'{"value":' + value + b"}"))
    decode(call("POST", MESSAGES, b'{"messages":[{"value":' + value + b'},{"value":' + value + b"}]}"))
    found = problem("POST", MESSAGES, b'{"messages":[{"value":1},{"value":' + value[:-1] + b'v"}]}')
    assert found.code == "payload_too_large"
    assert found.detail.startswith("/messages/1/value has 262145 bytes")

    def headers(names: dict[str, str]) -> bytes:
        return msgspec.json.encode({"messages": [{"value": 1, "headers": names}]})

    longest = {"n" * limits.MESSAGE_HEADER_CHARS_MAX: "v" * limits.MESSAGE_HEADER_CHARS_MAX}
    decode(call("POST", MESSAGES, headers(longest)))
    decode(call("POST", MESSAGES, headers({str(n): "" for n in range(limits.MESSAGE_HEADERS_MAX)})))
    for bad in (
        {str(n): "" for n in range(limits.MESSAGE_HEADERS_MAX + 1)},
        {"n" * (limits.MESSAGE_HEADER_CHARS_MAX + 1): ""},
        {"n": "v" * (limits.MESSAGE_HEADER_CHARS_MAX + 1)},
    ):
        assert problem("POST", MESSAGES, headers(bad)).errors[0].pointer == "/messages/0/headers"


def test_appends_to_several_topics_have_the_bounds_of_one_together() -> None:
    def body(*appends: list[dict[str, object]]) -> bytes:
        return msgspec.json.encode({"appends": [{"topic": "t", "messages": messages} for messages in appends]})

    half = limits.APPEND_MESSAGES_MAX // 2
    decode(call("POST", "/v1/appends", body([{"value": 1}] * half, [{"value": 1}] * half)))
    found = problem("POST", "/v1/appends", body([{"value": 1}] * half, [{"value": 1}] * (half + 1)))
    assert found.errors[0].pointer == "/appends"
    large = problem("POST", "/v1/appends", body([{"value": 1}], [{"value": "x" * limits.MESSAGE_VALUE_BYTES_MAX}]))
    assert large.detail.startswith("/appends/1/messages/0/value has 262146 bytes")
    found = problem("POST", "/v1/appends", body([{"value": 1, "headers": {"n" * 5000: ""}}]))
    assert found.errors[0].pointer == "/appends/0/messages/0/headers"


def test_nesting_up_to_the_limit_passes_however_many_brackets_there_are() -> None:
    decode(call("POST", MESSAGES, b'{"value":' + b"[" * 99 + b"]" * 99 + b"}"))
    decode(call("POST", MESSAGES, b'{"value":[' + b",".join([b'{"a":[]}'] * 1000) + b"]}"))
    decode(call("POST", MESSAGES, msgspec.json.encode({"value": "[" * 1000})))


PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b'"value"',
        b'"messages"',
        b'"name"',
        b"\\ud800",
        b"1e999",
        b"null",
        b"\xff",
    ]
)
WORDS = ["id", "task-id", "task", "name", "args", "task_args", "kwargs", "run_at", "backoff", "kind", "tasks", "lease", "result",
         "error", "queues", "claim", "beat", "complete", "worker_id", "states", "paused", "delays_ms"]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "list", "2024-02-29T12:00:00Z", "FAILED"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=8,
)
BODIES = (
    st.binary(max_size=60)
    | st.lists(PIECES, max_size=25).map(b"".join)
    | st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=5).map(msgspec.json.encode)
)
TARGETS = (
    st.text(max_size=40).map(lambda text: "/v1/topics/" + text)
    | st.text(max_size=40)
    | st.sampled_from([row.path for row in OPERATIONS])
    | st.sampled_from([re.sub(r"{.*?}", "1", row.path) for row in OPERATIONS])
)


@settings(max_examples=500)
@given(
    st.sampled_from(["GET", "POST", "POST", "DELETE", "PUT", "PATCH", "É"]),
    TARGETS,
    BODIES,
    st.dictionaries(st.sampled_from(["accept", "content-type", "idempotency-key", "quorl-hops"]), st.text(max_size=20)),
)
def test_nothing_but_protocol_errors_comes_of_garbage(
    method: str, target: str, body: bytes, headers: dict[str, str]
) -> None:
    refused = None
    try:
        decode(call(method, target, body, headers))
    except ProtocolError as error:
        refused = error.problem
    assert refused is None or (400 <= refused.kind.status < 500 and refused.detail)


def test_a_body_that_curl_calls_a_form_is_taken_for_what_it_is() -> None:
    curl = {"content-type": "application/x-www-form-urlencoded", "host": "n1:7101"}
    _, request, _ = decode(call("POST", "/v1/topics", b'{"name":"t"}', curl))
    assert request == t.CreateTopic(name="t")


@pytest.mark.parametrize(
    "said", ["", "application/json;", "Application/JSON; indent=4", 'application/json;\tcharset="UTF-8"; a=b']
)
def test_what_is_said_of_json_that_json_does_not_have_says_nothing(said: str) -> None:
    assert decode(call("POST", "/v1/topics", b'{"name":"t"}', {"content-type": said}))[1] == t.CreateTopic(name="t")


def test_a_page_of_the_node_itself_may_call_it() -> None:
    own = {"content-type": "application/json", "host": "n1:7101", "origin": "http://n1:7101"}
    _, request, _ = decode(call("POST", "/v1/topics", b'{"name":"t"}', own))
    assert request == t.CreateTopic(name="t")


@pytest.mark.parametrize("target", ["/v1/topics/orders#1", "/v1/topics/orders?if_empty=true#x"])
def test_what_the_next_hop_would_cut_off_is_refused(target: str) -> None:
    refused = problem("DELETE", target)
    assert (refused.code, "%23" in refused.detail) == ("invalid_parameter", True)


def test_history_is_that_of_one_thing() -> None:
    with pytest.raises(ProtocolError, match="either `queue` or `topic`"):
        decode(call("GET", "/v1/history?queue=a&topic=b"))


def test_d13_a_path_is_understood_the_same_however_often_it_comes() -> None:
    """What was found for a path is kept for a while: also that something is wrong with it."""
    message = t.Message(value=msgspec.Raw(b"1"))
    for _ in range(3):
        for name in ("a/b", "x" * 100):
            path = f"/v1/topics/{quote(name, safe='')}/messages"
            assert decode(call("POST", path, b'{"value":1}'))[1] == t.Append(topic=name, messages=[message])
        assert problem("POST", "/v1/topics/%20/messages", b"{}").code == "validation_failed"
        assert problem("POST", "/v1/nothing/at/all", b"{}").code == "route_not_found"
    assert problem("POST", f"/v1/topics/{'x' * limits.TARGET_BYTES_MAX}/messages", b"{}").code == "target_too_long"


@pytest.mark.parametrize("spaces", [0, 2_000], ids=["small", "large"])
def test_of_a_name_that_stands_twice_the_last_counts_and_values_are_kept_as_they_came(spaces: int) -> None:
    body = b'{"key":"a","value":1,"key":"b","headers":{"h":"1","h":"2"},"value":{"x":1,"x":2}}'
    many = b'{"messages":[{"value":0}],"messages":[' + body + b"]}"
    for one in (body, many):
        asked = decode(call("POST", MESSAGES, one + b" " * spaces))[1]
        assert isinstance(asked, t.Append)
        (message,) = asked.messages
        assert (message.key, message.headers) == ("b", {"h": "2"})
        assert bytes(message.value) == b'{"x":1,"x":2}'
