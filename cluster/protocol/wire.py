"""The wire form of the table: requests and replies as HTTP calls and answers, without a socket.

Server and client share it. A request's fields come from the path, from query parameters (read leniently from their
text) and from a JSON body (read strictly); whatever does not fit leaves as a ``ProtocolError`` that says what, why and
what to do. Nothing else is ever raised here, whatever was sent.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from msgspec import UNSET

from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.appends import AppendAll
from quorl.cluster.protocol.grammar import Consistency, Operation, Reply, Request
from quorl.cluster.protocol.operations import BY_REQUEST
from quorl.cluster.protocol.plans import PLANS, Plan
from quorl.cluster.protocol.problems import (
    Problem,
    ProblemDocument,
    ProtocolError,
    Refusal,
    document_of,
    invalid,
)
from quorl.cluster.protocol.routes import match, nearest
from quorl.cluster.protocol.strictjson import faulty, read_object, read_plainly, read_typed
from quorl.cluster.protocol.tracing import HEADER, STATE_HEADER
from quorl.cluster.protocol.wording import worded

__all__ = [
    "Answer",
    "Call",
    "Options",
    "ProtocolError",
    "Refusal",
    "answer_problem",
    "answer_reply",
    "check_headers",
    "check_target",
    "decode",
    "encode",
    "read_answer",
    "read_hops",
    "read_key",
    "read_pairs",
]


class Call(NamedTuple):
    """One HTTP request. ``path`` is percent-encoded and without the query; header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """One HTTP response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Options(NamedTuple):
    """What travels beside an operation's own fields."""

    key: str | None
    consistency: Consistency
    min_sequence: int
    hops: int


class _Many(NamedTuple):
    """A request that carries many of something, of which a body may also be just one."""

    field: str
    decoder: msgspec.json.Decoder[Any]
    names: tuple[str, ...]


def _many(field: str, kind: type[msgspec.Struct]) -> _Many:
    return _Many(field, msgspec.json.Decoder(kind), tuple(one.encode_name for one in msgspec.structs.fields(kind)))


_MANY = {t.Append: _many("messages", t.Message), b.Submit: _many("tasks", b.NewTask)}
_encoder = msgspec.json.Encoder()


@functools.lru_cache(1024)
def _quoted(text: str) -> str:
    """Return a name as it stands in a path; mostly they are few."""
    return quote(text, safe="")


# -- the client's side ---------------------------------------------------------------------------------------------
def encode(
    request: Request[Any], key: str | None = None, *, consistency: Consistency | None = None, min_sequence: int = 0
) -> Call:
    """Return the call that asks for ``request``; the other arguments are its ``Options``."""
    row = BY_REQUEST[type(request)]
    try:
        return _encoded(row, request, key, consistency, min_sequence)
    except UnicodeEncodeError as error:
        raise invalid("", f"text that is not Unicode: {error.reason}") from None


def _encoded(
    row: Operation, request: Request[Any], key: str | None, consistency: Consistency | None, min_sequence: int
) -> Call:
    plan = PLANS[row.request]
    path = row.path
    for name in row.placeholders:
        text = str(getattr(request, name))
        if text in {"", ".", ".."}:
            raise invalid(f"/{name}", f"`{text}` cannot stand in a path: URLs drop it" if text else "it is empty")
        path = path.replace("{" + name + "}", _quoted(text), 1)
    fields = {
        field.encode_name: value
        for field in plan.fields
        if (value := getattr(request, field.name)) != field.default and (value is not None or field.default is UNSET)
    }
    headers = {"accept": "application/json"}
    if key is not None:
        headers["idempotency-key"] = key
    if row.method not in {"GET", "DELETE"}:
        headers["content-type"] = "application/json"
        return Call(row.method, path, "", headers, _encoder.encode(fields))
    if consistency is not None:
        fields["consistency"] = consistency
    if min_sequence:
        fields["min_sequence"] = min_sequence
    pairs = {name: value if isinstance(value, str) else _encoder.encode(value) for name, value in fields.items()}
    return Call(row.method, path, urlencode(pairs, quote_via=quote), headers, b"")


def read_answer(row: Operation, answer: Answer) -> Reply:
    """Return the accepted reply; raises ``Refusal`` with the problem document otherwise."""
    try:
        if answer.status == 204 and 204 in row.reply.also:
            return row.reply()
        if 200 <= answer.status < 300:
            return msgspec.json.decode(answer.body, type=row.reply)
        document = msgspec.json.decode(answer.body, type=ProblemDocument)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = "".join(char if char.isprintable() else " " for char in answer.body[:120].decode(errors="replace"))
        kind = answer.headers.get("content-type", "").partition(";")[0]
        foreign = kind and ("json" not in kind or "served-by" not in answer.headers)
        what = f"what answers there is not quorl ({kind})" if foreign else str(error)
        problem = Problem("unreadable_answer", f"HTTP {answer.status}, {what}: {' '.join(text.split())}")
        document = document_of(problem, instance="", request_id="", node="", leader=None)
        document = msgspec.structs.replace(document, status=answer.status)
    raise Refusal(document)


# -- the server's side ---------------------------------------------------------------------------------------------
def decode(call: Call) -> tuple[Operation, Request[Any], Options]:
    """Return the row, the request and the options that a call means."""
    if call.query:
        check_target(call)
    row, plan, values = (_place if len(call.path) <= _PATH_CHARS_KEPT else _find)(call.method, call.path)
    check_headers(call)
    values = _from_path(plan, match(call.method, call.path)[1]) if values is None else values.copy()
    options, parameters = _from_query(row, plan, call)
    bare = False
    if plan.takes_body:
        found, bare = _from_body(row, plan, call.body or b"{}", parameters)
        values |= found
    elif call.body:
        raise ProtocolError(Problem("invalid_parameter", "A GET takes no body: put its fields into the query."))
    else:
        values |= parameters
    request = row.request(**values)
    if HEADER in call.headers and isinstance(request, b.Submit):
        request = request.traced(call.headers[HEADER], call.headers.get(STATE_HEADER))
    _check(request, len(call.body), bare=bare)
    return row, request, options


def _find(method: str, path: str) -> tuple[Operation, Plan, dict[str, Any] | None]:
    """Return the row, how its fields travel, and those in the path; None: something is wrong with them."""
    _check_target(f"{path}?")
    row, in_path = match(method, path)
    plan = PLANS[row.request]
    try:
        return row, plan, _from_path(plan, in_path)
    except ProtocolError:
        return row, plan, None


_PATH_CHARS_KEPT = 200
"""A longer path is found anew each time, so that a thousand of them do not take megabytes."""
_place = functools.lru_cache(1024)(_find)
"""The same for paths that were asked for lately; most calls are for few."""


def check_target(call: Call) -> None:
    """Refuse a path and query that are too long, not text, or that the next hop would cut off."""
    _check_target(f"{call.path}?{call.query}")


def _check_target(target: str) -> None:
    if "#" in target:
        raise ProtocolError(Problem("invalid_parameter", "A # in the path or the query must be written as %23."))
    try:
        size = len(target) if target.isascii() else len(target.encode())
    except UnicodeEncodeError:
        raise ProtocolError(Problem("invalid_parameter", "Path and query must be percent-encoded UTF-8.")) from None
    if size > limits.TARGET_BYTES_MAX:
        detail = f"Path and query have {size} bytes; {limits.TARGET_BYTES_MAX} are allowed."
        raise ProtocolError(Problem("target_too_long", detail))


def check_headers(call: Call) -> None:
    """Refuse pages of other sites, bodies that claim not to be JSON, and callers that do not take JSON.

    What a browser may send for another site's page without asking always carries that site as its origin. So without
    an origin the type that ``curl -d`` claims by default is taken for what the body is.
    """
    origin = call.headers.get("origin")
    if origin is None and call.headers.get("content-type") == _JSON == call.headers.get("accept"):
        return  # nearly always
    if origin is not None and origin.partition("://")[2] != call.headers.get("host", ""):
        raise ProtocolError(Problem("forbidden_origin", f"The request comes from a page of {origin[:100]}."))
    sent = "".join(call.headers.get("content-type", "").lower().replace('"', "").split())
    kind, _, parameters = sent.partition(";")
    # JSON has no parameters, so that all but another charset say nothing (RFC 8259, 11).
    other = kind not in {"", _JSON} or "charset=" in parameters.replace("charset=utf-8", "")
    if call.body and other and not (sent == _CURL_DEFAULT and origin is None):
        raise ProtocolError(Problem("unsupported_media_type", f"The body is said to be {sent[:100]}."))
    accept = call.headers.get("accept", "")
    if accept not in {"", "*/*", "application/json"} and not _accepts_json(accept):
        raise ProtocolError(Problem("not_acceptable", f"Accept is {accept[:100]}."))


def read_key(headers: Mapping[str, str]) -> str | None:
    """Return the idempotency key, if there is one."""
    key = headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        detail = f"Idempotency-Key must be 1 to {limits.IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters."
        raise ProtocolError(Problem("invalid_parameter", detail))
    return key


def read_hops(headers: Mapping[str, str]) -> int:
    """Return how many nodes have forwarded the call."""
    text = headers.get("quorl-hops")
    if text is None:
        return 0
    if not _HOPS.fullmatch(text):
        raise ProtocolError(Problem("invalid_parameter", "Quorl-Hops must be a small number."))
    return int(text)


def read_pairs(query: str, allowed: tuple[str, ...]) -> dict[str, str]:
    """Return the query's parameters; each must be allowed and stand there once."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise ProtocolError(Problem("invalid_parameter", "The query is not percent-encoded UTF-8.")) from None
    for name, _ in pairs:
        if name not in allowed:
            takes = ", ".join(allowed) or "none"
            guess = nearest(name, allowed) or "."
            detail = f"There is no parameter `{name[:100]}`{guess} Allowed: {takes}."
            raise ProtocolError(Problem("invalid_parameter", detail))
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ProtocolError(Problem("invalid_parameter", "A parameter stands in the query more than once."))
    return found


_LARGE_BYTES = 1024
"""A smaller body is read the long way sooner than it is searched."""
_JSON = "application/json"
_CURL_DEFAULT = "application/x-www-form-urlencoded"
_KEY = re.compile(rf"[!-~]{{1,{limits.IDEMPOTENCY_KEY_CHARS_MAX}}}")
_HOPS = re.compile(r"[0-9]{1,2}")


def _accepts_json(accept: str) -> bool:
    """Whether the most specific media range that covers JSON has a weight above nothing."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = part.replace(" ", "").lower().split(";")
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        weights[name] = 0.0 if not weight.strip("0.") else 1.0
    for name in ("application/json", "application/*", "*/*"):
        if name in weights:
            return weights[name] > 0
    return False


def _from_path(plan: Plan, in_path: dict[str, str]) -> dict[str, Any]:
    try:
        found = msgspec.convert(in_path, plan.path, strict=False)
    except msgspec.ValidationError as error:
        raise faulty(worded(str(error).replace(", got `str`", ""), (), in_path)) from None
    return {field: getattr(found, field) for field in found.__struct_fields__}


def _from_query(row: Operation, plan: Plan, call: Call) -> tuple[Options, dict[str, Any]]:
    """Read the query. What it leaves out keeps its default, which for requests with a body is the body's word."""
    if plan.takes_body and not call.query:  # nearly all writes
        return Options(read_key(call.headers), row.consistency, 0, read_hops(call.headers)), {}
    pairs = read_pairs(call.query, plan.query_names) if call.query else {}
    try:
        found = msgspec.convert(pairs, plan.query, strict=False)
    except msgspec.ValidationError as error:
        fault = worded(str(error).replace(", got `str`", ""), (), pairs)
        raise ProtocolError(Problem("invalid_parameter", fault.sentence)) from None
    values = {name: value for name in found.__struct_fields__ if (value := getattr(found, name)) is not UNSET}
    consistency = cast("Consistency", values.pop("consistency", row.consistency))
    min_sequence = values.pop("min_sequence", 0)
    return Options(read_key(call.headers), consistency, min_sequence, read_hops(call.headers)), values


def _from_body(row: Operation, plan: Plan, body: bytes, parameters: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Read the body; also whether it was just one where there might have been many."""
    if not parameters and len(body) > _LARGE_BYTES and (plain := read_plainly(body, plan.body)) is not None:
        return {field.name: getattr(plain, field.name) for field in plan.fields}, False
    tree = read_object(body)
    many = _MANY.get(row.request)
    if many is not None and many.field not in tree and tree:
        return {many.field: [read_typed(body, many.decoder, (*many.names, many.field))]}, True
    if parameters:  # put in front, so that what the body has stays as it came
        given = {field.encode_name: parameters[field.name] for field in plan.fields if field.name in parameters}
        for name in given:
            if name in tree:
                raise ProtocolError(Problem("invalid_parameter", f"`{name}` stands both in the query and in the body."))
        body = _encoder.encode(given)[:-1] + (b"," if tree else b"") + body.strip()[1:]
    found = read_typed(body, plan.body, (*plan.body_names, *(many.names if many else ())))
    return {field.name: getattr(found, field.name) for field in plan.fields}, False


def _check(request: Request[Any], body_bytes: int, *, bare: bool) -> None:
    """What types cannot say."""
    match request:
        case t.Append():
            _check_messages(request.messages, body_bytes, "" if bare else "/messages")
        case t.CreateTopic() if request.name in {".", ".."}:
            raise invalid("/name", "a topic cannot be called `.` or `..`: URLs drop those")
        case q.PutQueue(queue="." | "..") | b.Submit(queue="." | ".."):
            raise invalid("/queue", "a queue cannot be called `.` or `..`: URLs drop those")
        case AppendAll():
            _check_appends(request, body_bytes)
        case b.Submit():
            _check_tasks(request.tasks, body_bytes, bare=bare)
        case q.PutQueue(backoff=q.Backoff() as backoff) | q.PatchQueue(backoff=q.Backoff() as backoff):
            if fault := b.fault_of_backoff(backoff):
                raise invalid("/backoff", fault)
        case o.GetHistory(queue=str(), topic=str()):
            raise ProtocolError(Problem("invalid_parameter", "Give either `queue` or `topic`, not both."))
        case k.ListTasks(status=str(words)):
            _check_states(words)
        case w.RegisterWorker(queues=queues) | e.Claim(queues=queues):
            _check_queues("/queues", queues)
        case g.ClaimMany():
            _check_claims(request.claims)
        case e.Sync(claim=e.Wish(queues=queues)):
            _check_queues("/claim/queues", queues)
        case e.CompleteTask(result=msgspec.Raw() as result):
            _check_size("/result", result, limits.RESULT_BYTES_MAX)
        case e.HoldTask(checkpoint=msgspec.Raw() as checkpoint):
            _check_size("/checkpoint", checkpoint, limits.CHECKPOINT_BYTES_MAX)
        case _:
            pass
    if body_bytes > limits.CHECKPOINT_BYTES_MAX and isinstance(request, e.Sync | g.Report):
        _check_reports(request)


def _check_appends(request: AppendAll, body_bytes: int) -> None:
    count = sum([len(one.messages) for one in request.appends])
    if count > limits.APPEND_MESSAGES_MAX:
        raise invalid("/appends", f"{count} messages; {limits.APPEND_MESSAGES_MAX} are allowed in one call")
    for number, one in enumerate(request.appends):
        _check_messages(one.messages, body_bytes, f"/appends/{number}/messages")


def _check_messages(messages: list[t.Message], body_bytes: int, pointer: str) -> None:
    """``pointer`` is where the messages are; empty: the body is the only one."""
    doubtful = [number for number, message in enumerate(messages) if message.headers]
    if body_bytes > limits.MESSAGE_VALUE_BYTES_MAX:
        sizes = [len(memoryview(message.value)) for message in messages]
        if max(sizes) > limits.MESSAGE_VALUE_BYTES_MAX:
            doubtful = [*range(len(messages))]  # so that the first fault is the one that is told
    for number in doubtful:
        message, place = messages[number], f"{pointer}/{number}" if pointer else ""
        _check_size(f"{place}/value", message.value, limits.MESSAGE_VALUE_BYTES_MAX)
        _check_headers(f"{place}/headers", message.headers or {})


def _check_tasks(tasks: list[b.NewTask], body_bytes: int, *, bare: bool) -> None:
    ids = set()
    for number, task in enumerate(tasks):
        place = "" if bare else f"/tasks/{number}"
        if fault := b.fault_of(task):
            raise invalid(f"{place}/{fault[0]}", fault[1])
        if task.meta:
            _check_headers(f"{place}/meta", task.meta)
        if body_bytes > limits.TASK_ARGUMENT_BYTES_MAX:
            for name in ("args", "kwargs", "task_args"):
                if (value := getattr(task, name)) is not UNSET:
                    _check_size(f"{place}/{name}", value, limits.TASK_ARGUMENT_BYTES_MAX)
        given = task.id or task.task_id or task.hyphened_id
        if given is not None:
            if given in ids:
                raise invalid(f"{place}/id", f"the id `{given}` stands in this request twice")
            ids.add(given)


def _check_states(words: str) -> None:
    for word in words.split(","):
        if word not in k.STATES:
            guess = nearest(word.upper(), k.STATES) or "."
            detail = f"`{word[:100]}` is no status{guess} Allowed: {', '.join(k.STATES)}."
            raise ProtocolError(Problem("invalid_parameter", detail))


def _check_queues(pointer: str, queues: tuple[str, ...]) -> None:
    if not {".", ".."}.isdisjoint(queues):
        raise invalid(pointer, "a queue cannot be called `.` or `..`: URLs drop those")
    if len(set(queues)) < len(queues):
        raise invalid(pointer, "a queue stands in the list twice")


def _check_claims(claims: tuple[g.OneClaim, ...]) -> None:
    for number, one in enumerate(claims):
        _check_queues(f"/claims/{number}/queues", one.queues)


def _check_size(pointer: str, value: msgspec.Raw, bytes_max: int) -> None:
    if (size := len(memoryview(value))) > bytes_max:
        raise ProtocolError(Problem("payload_too_large", f"{pointer} has {size} bytes; {bytes_max} are allowed."))


def _check_reports(request: e.Sync | g.Report) -> None:
    for number, completion in enumerate(request.complete):
        if completion.result is not UNSET:
            _check_size(f"/complete/{number}/result", completion.result, limits.RESULT_BYTES_MAX)
    for number, progress in enumerate(request.progress if isinstance(request, e.Sync) else ()):
        if progress.checkpoint is not UNSET:
            _check_size(f"/progress/{number}/checkpoint", progress.checkpoint, limits.CHECKPOINT_BYTES_MAX)


def _check_headers(pointer: str, headers: dict[str, str]) -> None:
    if len(headers) > limits.MESSAGE_HEADERS_MAX:
        raise invalid(pointer, f"{len(headers)} names; {limits.MESSAGE_HEADERS_MAX} are allowed")
    if any(max(len(name), len(value)) > limits.MESSAGE_HEADER_CHARS_MAX for name, value in headers.items()):
        raise invalid(pointer, f"names and values may have {limits.MESSAGE_HEADER_CHARS_MAX} characters each")


def answer_reply(row: Operation, reply: Reply) -> Answer:
    """Return the answer for an accepted request."""
    status, headers = reply.http_status(row.status), {"content-type": "application/json"}
    if status == 204:
        return Answer(status, {}, b"")
    if status == 202 != row.status:
        headers["retry-after"] = "1"
    match reply:
        case t.Appended():
            pass  # nearly always
        case b.Submitted(id=str(task_id)):
            headers["location"] = "/v1/tasks/" + quote(task_id, safe="")
        case t.TopicCreated():
            headers["location"] = "/v1/topics/" + quote(reply.name, safe="")
        case w.WorkerRegistered():
            headers["location"] = f"/v1/workers/{reply.worker_id}"
        case _:
            pass
    return Answer(status, headers, _encoder.encode(reply))


def answer_problem(problem: Problem, *, instance: str, request_id: str, node: str, leader: str | None) -> Answer:
    """Return the problem document as an answer."""
    document = document_of(problem, instance=instance, request_id=request_id, node=node, leader=leader)
    headers = {"content-type": "application/problem+json"}
    if document.retry_after_ms is not UNSET:
        headers["retry-after"] = str(-(-document.retry_after_ms // 1000))
    if problem.allow:
        headers["allow"] = ", ".join(problem.allow)
    return Answer(document.status, headers, _encoder.encode(document))
