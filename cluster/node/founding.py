"""The founding routes: the names and shapes that the first queue had, served beside ``/v1`` by the same requests.

Every answer is ``{"status": "success" | "failure", …}``. Wrong input is 400, an unknown topic or id 404, a second
creation 409; that there is no new message is a failure with status 200, because nothing went wrong.

Two routes have shapes of their own: ``/all_heartbeats`` answers ``{"<worker>": {"last_heartbeat": …, "status": …}}``, and
``/results/{id}`` answers ``{"<id>": {"status": "success", "result": "20"}}``, where a result is text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from typing_extensions import override

from quorl.cluster.machine.queries import Names
from quorl.cluster.machine.worker_queries import BeatLog
from quorl.cluster.node.visit import Asked, Scene
from quorl.cluster.protocol import founding as old
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Operation, Reply, Request
from quorl.cluster.protocol.operations import BY_REQUEST
from quorl.cluster.protocol.plans import ReadOptions
from quorl.cluster.protocol.problems import Problem, ProtocolError, document_of, invalid
from quorl.cluster.protocol.routes import FOUNDING_PATHS, not_allowed
from quorl.cluster.protocol.strictjson import faulty, read_object, read_typed
from quorl.cluster.protocol.wire import (
    Answer,
    Call,
    Options,
    answer_problem,
    check_headers,
    check_target,
    read_hops,
    read_key,
    read_pairs,
)
from quorl.cluster.protocol.wording import Fault, worded

NO_NEW_MESSAGE = "no new message"
_INTEGER_DIGITS = len(str(limits.INTEGER_MAX))


# -- what it means -------------------------------------------------------------------------------------------------
def _number(name: str, value: int | str) -> int:
    """An id, which may come as a number or as its text; ids count from 1."""
    text = str(value)
    if not (
        text.isascii() and text.isdecimal() and len(text) <= _INTEGER_DIGITS and 1 <= int(text) <= limits.INTEGER_MAX
    ):
        raise faulty(Fault(f"/{name}", f"`{name}` must be an integer from 1 on"))
    return int(text)


def _create(taken: old.TopicByName) -> t.CreateTopic:
    if taken.name in {".", ".."}:
        raise invalid("/name", "a topic cannot be called `.` or `..`: URLs drop those")
    return t.CreateTopic(name=taken.name, error_if_exists=True)


def _append(taken: old.MessageForTopic) -> t.Append:
    if (size := len(memoryview(taken.message))) > limits.MESSAGE_VALUE_BYTES_MAX:
        detail = f"The message has {size} bytes; {limits.MESSAGE_VALUE_BYTES_MAX} are allowed."
        raise ProtocolError(Problem("payload_too_large", detail))
    message = t.Message(value=taken.message, producer_id=_number("producer_id", taken.producer_id))
    return t.Append(topic=taken.topic, messages=[message])


def _consume(taken: old.ForConsumer) -> t.Consume:
    return t.Consume(topic=taken.topic, consumer_id=_number("consumer_id", taken.consumer_id))


def _get_size(taken: old.ForSize) -> t.GetSize:
    consumer_id = None if taken.consumer_id is None else _number("consumer_id", taken.consumer_id)
    return t.GetSize(topic=taken.topic, consumer_id=consumer_id)


# -- what is answered ----------------------------------------------------------------------------------------------
def _topics(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, Names)
    return {"topics": reply.names}


def _created(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, t.TopicCreated)
    return {"message": f"Topic '{reply.name}' created successfully"}


def _producer(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, t.ProducerInfo)
    return {"producer_id": reply.producer_id}


def _consumer(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, t.ConsumerInfo)
    return {"consumer_id": reply.consumer_id}


def _produced(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, t.Appended)
    return {"partition": reply.partition, "offset": reply.first_offset}


def _consumed(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, t.Consumed)
    if not reply.items:
        return {"status": "failure", "message": NO_NEW_MESSAGE}
    return {"message": reply.items[0].value}


def _size(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, t.TopicSize)
    return {"size": reply.size, "total": reply.total}


def _heartbeats(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, BeatLog)
    return dict(reply.beats)


def _result(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, k.TaskResult)
    text = msgspec.json.format(reply.result, indent=-1).decode()
    if text.startswith('"'):
        text = msgspec.json.decode(text, type=str)
    result = text if reply.status == "SUCCESS" else None
    return {reply.id: {"status": reply.status.lower(), "result": result}}


# -- the routes ----------------------------------------------------------------------------------------------------
class _Way(NamedTuple):
    """One method of a route: what it takes, what that means as a row of the table, and what is said to the reply."""

    takes: type[old.Input]
    row: Operation
    means: Callable[[Any], Request[Any]]
    says: Callable[[Reply], dict[str, Any]]
    bare: bool = False
    """Whether that is the whole answer, without a status of its own."""


class Route:
    """One founding path; also the voice in which it answers."""

    def __init__(self, path: str, ways: dict[str, _Way]) -> None:
        self._path = path
        self._ways = ways
        self._by_name = {way.row.name: way for way in ways.values()}

    def decode(self, call: Call) -> Asked:
        """Return what a call means; raises ``ProtocolError``."""
        check_target(call)
        way = self._ways.get(call.method)
        if way is None:
            raise not_allowed(call.method, self._path, sorted(self._ways))
        check_headers(call)
        if call.method == "POST":
            read_pairs(call.query, ())
            names = tuple(field.encode_name for field in msgspec.structs.fields(way.takes))
            read_object(call.body or b"{}")
            taken, read = read_typed(call.body or b"{}", msgspec.json.Decoder(way.takes), names), ReadOptions()
        else:
            taken, read = _from_query(way, call)
        consistency = "linearizable" if read.consistency is msgspec.UNSET else read.consistency
        options = Options(read_key(call.headers), consistency, read.min_sequence, read_hops(call.headers))
        return Asked(way.row, way.means(taken), options)

    def reply(self, row: Operation, reply: Reply) -> Answer:
        """See ``Voice``."""
        way = self._by_name[row.name]
        body = way.says(reply) if way.bare else {"status": "success"} | way.says(reply)
        return Answer(200, {"content-type": "application/json"}, msgspec.json.encode(body))

    def problem(self, problem: Problem, scene: Scene) -> Answer:
        """See ``Voice``."""
        told = scene.told()
        answer = answer_problem(problem, **told)
        document = document_of(problem, **told)
        status = 400 if problem.code == "validation_failed" else answer.status
        body = {"status": "failure", "message": document.detail, "code": document.code, "hint": document.hint}
        return Answer(status, answer.headers | {"content-type": "application/json"}, msgspec.json.encode(body))


class _ResultRoute(Route):
    """The result of one task, whose id stands in the path."""

    def __init__(self, in_path: str) -> None:
        self._id = unquote(in_path, errors="replace")
        super().__init__(
            _RESULTS + in_path, {"GET": _Way(old.Nothing, BY_REQUEST[k.GetResult], self._means, _result, True)}
        )

    def _means(self, _taken: old.Nothing) -> k.GetResult:
        return k.GetResult(id=self._id)

    @override
    def problem(self, problem: Problem, scene: Scene) -> Answer:
        """See ``Voice``: that there is no such task is told in the shape of a result."""
        answer = super().problem(problem, scene)
        if problem.code != "task_not_found":
            return answer
        return answer._replace(body=msgspec.json.encode({self._id: {"status": "not_found", "result": None}}))


def _from_query(way: _Way, call: Call) -> tuple[old.Input, ReadOptions]:
    own = tuple(field.encode_name for field in msgspec.structs.fields(way.takes))
    beside = () if way.row.writes else tuple(field.encode_name for field in msgspec.structs.fields(ReadOptions))
    pairs = read_pairs(call.query, own + beside)
    try:
        taken = msgspec.convert({name: text for name, text in pairs.items() if name in own}, way.takes)
        options = {name: text for name, text in pairs.items() if name in beside}
        return taken, msgspec.convert(options, ReadOptions, strict=False)
    except msgspec.ValidationError as error:
        raise faulty(worded(str(error), own, pairs)) from None


def _ways() -> dict[str, dict[str, _Way]]:
    row = BY_REQUEST
    topics = _Way(old.Nothing, row[t.ListTopics], lambda _: t.ListTopics(limit=limits.PAGE_ITEMS_MAX), _topics)
    producer = _Way(
        old.ForTopic, row[t.RegisterProducer], lambda taken: t.RegisterProducer(topic=taken.topic), _producer
    )
    consumer = _Way(
        old.ForTopic, row[t.RegisterConsumer], lambda taken: t.RegisterConsumer(topic=taken.topic), _consumer
    )
    return {
        "/topics": {"GET": topics, "POST": _Way(old.TopicByName, row[t.CreateTopic], _create, _created)},
        "/producer/register": {"POST": producer},
        "/consumer/register": {"POST": consumer},
        "/producer/produce": {"POST": _Way(old.MessageForTopic, row[t.Append], _append, _produced)},
        "/consumer/consume": {"GET": _Way(old.ForConsumer, row[t.Consume], _consume, _consumed)},
        "/size": {"GET": _Way(old.ForSize, row[t.GetSize], _get_size, _size)},
        "/all_heartbeats": {"GET": _Way(old.Nothing, row[w.ListWorkers], lambda _: w.ListWorkers(), _heartbeats, True)},
    }


_RESULTS = "/results/"
_ROUTES = {path: Route(path, ways) for path, ways in _ways().items()}
assert (*_ROUTES, _RESULTS + "{id}") == FOUNDING_PATHS


def route_of(path: str) -> Route | None:
    """Return the founding route at a path, if there is one."""
    in_path = path.removeprefix(_RESULTS)
    if in_path and in_path != path and "/" not in in_path:
        return _ResultRoute(in_path)
    return _ROUTES.get(path)
