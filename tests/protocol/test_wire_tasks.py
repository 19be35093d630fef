"""Calls about queues, tasks and workers: what they mean, how they are told, and what is wrong with them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Request
from quorl.cluster.protocol.operations import BY_NAME
from quorl.cluster.protocol.problems import ProtocolError
from quorl.cluster.protocol.wire import Answer, Call, answer_reply, decode, encode, read_answer
from tests.protocol.task_calls import BACKOFF, GOOD_OF_TASKS

SUBMIT = "/v1/queues/q/tasks"
TASK = "/v1/tasks/t"
SYNC = "/v1/workers/7/sync"


def request_of(method: str, target: str, body: bytes = b"") -> Request[Any]:
    path, _, query = target.partition("?")
    return decode(Call(method, path, query, {}, body))[1]


def submitted(body: bytes) -> list[b.QueuedTask]:
    """The tasks of a submit, as they stand in the log."""
    request = request_of("POST", SUBMIT, body)
    assert isinstance(request, b.Submit)
    sealed = request.sealed()
    assert sealed.queue == "q"
    return sealed.tasks


def problem(method: str, target: str, body: bytes = b"") -> Any:
    with pytest.raises(ProtocolError) as caught:
        request_of(method, target, body)
    return caught.value.problem


@pytest.mark.parametrize(("method", "target", "body", "request_"), GOOD_OF_TASKS)
def test_a_call_means_a_request(method: str, target: str, body: bytes, request_: Request[Any]) -> None:
    assert request_of(method, target, body) == request_


@pytest.mark.parametrize("request_", [one for *_, one in GOOD_OF_TASKS])
def test_what_is_encoded_decodes_to_the_same_request(request_: Request[Any]) -> None:
    assert decode(encode(request_, "key"))[1] == request_


# -- the spellings of a task ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"12345abc","name":"add","args":["1", 2]}',
        b'{"task_id":"12345abc","task_type":"add","task_args":["1", 2]}',
        b'{"task-id":"12345abc","task":"add","args":["1", 2]}',
        b'{"tasks":[{"task-id":"12345abc","task_type":"add","args":["1", 2]}]}',
    ],
)
def test_b3_c5_a_task_in_any_spelling_is_the_same_in_the_log(body: bytes) -> None:
    (task,) = submitted(body)
    assert (task.id, task.name, task.body) == ("12345abc", "add", b'{"args":["1", 2]}')


def test_b3_tries_are_kept_as_information() -> None:
    (task,) = submitted(b'{"task_id": "a", "task_type": "add", "task_args": ["1","2"], "task_tries": 0}')
    assert msgspec.json.decode(task.body) == {"args": ["1", "2"], "tries": 0}
    assert task.max_attempts is None


def test_a_task_says_everything_at_most_once_and_keeps_its_json() -> None:
    (task,) = submitted(
        b'{"name":"n","args":[1.50, {"a" :1}],"kwargs":{"b" :[ ]},"priority":9,"key":"k","delay_ms":5,"expires_ms":6,'
        b'"timeout_ms":7,"max_attempts":8,"max_lost":9,"backoff":{"kind":"list","delays_ms":[1,2],"jitter":0},'
        b'"tags":["x"],"meta":{"m":"1"},"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}'
    )
    assert task == b.QueuedTask(
        id=None,
        name="n",
        body=b'{"args":[1.50, {"a" :1}],"kwargs":{"b" :[ ]},"key":"k","tags":["x"],"meta":{"m":"1"},"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}',
        priority=9,
        key="k",
        delay_ms=5,
        run_at_ms=None,
        expires_ms=6,
        timeout_ms=7,
        max_attempts=8,
        max_lost=9,
        backoff=BACKOFF,
    )
    assert msgspec.json.decode(task.body, type=b.TaskBody).tags == ["x"]


def test_a_task_without_arguments_has_none() -> None:
    (task,) = submitted(b'{"name":"n"}')
    assert task.body == b"{}"
    body = msgspec.json.decode(task.body, type=b.TaskBody)
    assert (bytes(body.args), bytes(body.kwargs)) == (b"[]", b"{}")


@pytest.mark.parametrize(
    ("run_at", "ms"),
    [
        ("1970-01-01T00:00:00.001Z", 1),
        ("1969-12-31T23:59:59Z", 0),
        ("2024-02-29T12:00:00.0019+02:00", 1_709_200_800_001),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ("9999-12-31T23:59:59.999-12:00", 253_402_300_799_999),
        ("0001-01-01T00:00:00+12:00", 0),
    ],
)
def test_run_at_is_a_moment_in_milliseconds(run_at: str, ms: int) -> None:
    (task,) = submitted(msgspec.json.encode({"name": "n", "run_at": run_at}))
    assert task.run_at_ms == ms


@given(st.integers(0, 253_402_300_799_999))
def test_run_at_loses_no_millisecond(ms: int) -> None:
    run_at = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ms)
    assert b.queued(b.NewTask(name="n", run_at=run_at.isoformat())).run_at_ms == ms


def test_many_tasks_travel_as_one_request() -> None:
    tasks = [b.NewTask(name="a", args=msgspec.Raw(b"[1]")), b.NewTask(hyphened_id="x", task="b", run_at=None)]
    sent = encode(b.Submit(queue="q/1", tasks=tasks), "key")
    assert (sent.method, sent.path, sent.query) == ("POST", "/v1/queues/q%2F1/tasks", "")
    assert sent.body == b'{"tasks":[{"name":"a","args":[1]},{"task-id":"x","task":"b"}]}'
    assert [(task.id, task.name) for task in submitted(sent.body)] == [(None, "a"), ("x", "b")]


# -- JSON of the callers' ------------------------------------------------------------------------------------------
def test_results_and_checkpoints_are_kept_byte_for_byte() -> None:
    complete = request_of("POST", TASK + "/complete", b'{"lease":3,"result": {"a" :1.50}}')
    assert isinstance(complete, e.CompleteTask)
    assert complete.sealed() == e.Complete(id="t", lease=3, result=b'{"a" :1.50}')
    assert e.CompleteTask(id="t", lease=3).sealed() == e.Complete(id="t", lease=3, result=b"null")
    hold = request_of("POST", TASK + "/heartbeat", b'{"lease":3,"checkpoint":[ 1 ]}')
    assert isinstance(hold, e.HoldTask)
    assert hold.sealed() == e.Hold(id="t", lease=3, progress=None, note="", checkpoint=b"[ 1 ]")
    assert e.HoldTask(id="t", lease=3).sealed().checkpoint is None
    for request in (complete, hold):
        again = decode(encode(request))[1]
        assert isinstance(again, e.CompleteTask | e.HoldTask)
        assert again.sealed() == request.sealed()


def test_a_sync_is_reports_and_a_claim_in_the_log() -> None:
    sync = request_of(
        "POST",
        SYNC,
        b'{"complete":[{"task_id":"a","lease":1,"result":{"x" :1}},{"task_id":"b","lease":2}],'
        b'"progress":[{"task_id":"c","lease":3,"checkpoint":[ ]}],"claim":{"max":2}}',
    )
    assert isinstance(sync, e.Sync)
    assert sync.reports() == e.Settle(
        worker_id=7,
        complete=(e.Done("a", 1, b'{"x" :1}'), e.Done("b", 2, b"null")),
        progress=(e.Held("c", 3, None, "", b"[ ]"),),
    )
    assert sync.wish() == e.Claim(worker_id=7, max=2)
    alone = e.Sync(worker_id=7, beat=e.Beat())
    assert (alone.reports(), alone.wish()) == (None, None)


def test_forms_of_the_log_have_room_for_the_leaders_defaults() -> None:
    for request in (q.PutQueue(queue="q"), w.RegisterWorker(), b.Submit(queue="q", tasks=[b.NewTask(name="n")])):
        sealed: Any = request.sealed()
        assert sealed.defaults == q.Defaults(attempts=3, heartbeat_ms=5_000, dead_after_ms=15_000)
    asked = w.RegisterWorker(name="w", pid=2, queues=("a",), standby=True, heartbeat_ms=100, dead_after_ms=200)
    sealed = asked.sealed()
    for field in asked.__struct_fields__:
        assert getattr(sealed, field) == getattr(asked, field)
    put = q.PutQueue(
        queue="q", partitions=2, max_lost=1, backoff=BACKOFF, timeout_ms=3, keep_finished_ms=4, max_depth=5
    )
    for field in put.__struct_fields__:
        assert getattr(put.sealed(), field) == getattr(put, field)


# -- what is wrong -------------------------------------------------------------------------------------------------
def many(*tasks: bytes) -> bytes:
    return b'{"tasks":[' + b",".join(tasks) + b"]}"


NAMED = b'{"name":"n"}'
BAD_TASKS: list[tuple[bytes, str, str]] = [
    # body, pointer, a word of the detail
    (b"{}", "/tasks", "`tasks` is missing"),
    (b'{"tasks":[]}', "/tasks", "at least 1 item"),
    (many(NAMED)[:-1] + b',"name":"b"}', "/name", "there is no field `name`"),
    (b'{"nmae":"a"}', "/nmae", "did you mean `name`"),
    (b'{"name":""}', "/name", "at least 1 character"),
    (b'{"args":[]}', "/name", "a task needs a name"),
    (many(NAMED, b'{"name":null}'), "/tasks/1/name", "a task needs a name"),
    (b'{"name":"n","id":"a","task_id":"b"}', "/task_id", "two spellings of one field"),
    (b'{"name":"n","id":"a","task-id":"a"}', "/task-id", "two spellings of one field"),
    (b'{"name":"n","task":"n"}', "/task", "`name` and `task`"),
    (b'{"task":"n","task_type":"n"}', "/task_type", "`task` and `task_type`"),
    (b'{"name":"n","args":[],"task_args":[]}', "/task_args", "`args` and `task_args`"),
    (many(NAMED, b'{"name":"n","args":[],"task_args":[]}'), "/tasks/1/task_args", "two spellings"),
    (b'{"name":"n","id":"."}', "/id", "cannot be `.`"),
    (b'{"name":"n","task-id":".."}', "/id", "cannot be `.`"),
    (b'{"name":"n","id":""}', "/id", "at least 1 character"),
    (b'{"name":"n","args":{"a":1}}', "/args", "`args` must be a list"),
    (b'{"name":"n","args":null}', "/args", "`args` must be a list"),
    (b'{"name":"n","task_args":"[]"}', "/task_args", "`task_args` must be a list"),
    (many(b'{"name":"n","kwargs":[]}'), "/tasks/0/kwargs", "`kwargs` must be an object"),
    (many(b'{"name":"n","id":"x"}', b'{"name":"m","task_id":"x"}'), "/tasks/1/id", "the id `x` stands in this request twice"),
    (b'{"name":"n","run_at":"2024-02-29T12:00:00"}', "/run_at", "must be a time with its zone"),
    (b'{"name":"n","run_at":"tomorrow"}', "/run_at", "must be a time with its zone"),
    (b'{"name":"n","run_at":"2023-02-29T12:00:00Z"}', "/run_at", "no such day"),
    (b'{"name":"n","run_at":1709200800}', "/run_at", "must be text or null"),
    (b'{"name":"n","run_at":"2024-02-29T12:00:00Z","delay_ms":1}', "/run_at", "not both"),
    (b'{"name":"n","priority":10}', "/priority", "at most 9; it is 10"),
    (b'{"name":"n","delay_ms":-1}', "/delay_ms", "at least 0"),
    (b'{"name":"n","expires_ms":0}', "/expires_ms", "at least 1"),
    (b'{"name":"n","max_attempts":0}', "/max_attempts", "at least 1"),
    (b'{"name":"n","tags":["a",1]}', "/tags/1", "must be text"),
    (b'{"name":"n","meta":{"a":1}}', "/meta", "a value in `meta` must be text"),
    (b'{"name":"n","backoff":{"kind":"lst"}}', "/backoff/kind", "must be one of fixed, linear, exponential, list; it is lst"),
    (b'{"name":"n","backoff":{"kind":"list"}}', "/backoff", "needs at least one"),
    (b'{"name":"n","backoff":{"delays_ms":[1]}}', "/backoff", "belongs to the kind"),
    (b'{"name":"n","backoff":{"firstms":1}}', "/backoff/firstms", "no field `firstms`"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "pointer", "word"), BAD_TASKS)
def test_a_wrong_task_is_refused_where_it_is_wrong(body: bytes, pointer: str, word: str) -> None:
    found = problem("POST", SUBMIT, body)
    assert found.code == "validation_failed"
    assert word in found.detail
    assert [error.pointer for error in found.errors] == [pointer]


BAD: list[tuple[str, str, bytes, str, str, str]] = [
    # method, target, body, code, pointer, a word of the detail
    ("PUT", "/v1/queues/.", b"", "validation_failed", "/queue", "cannot be called"),
    ("POST", "/v1/queues/../tasks", NAMED, "validation_failed", "/queue", "cannot be called"),
    ("PUT", "/v1/queues/q", b'{"partitions":257}', "validation_failed", "/partitions", "at most 256"),
    ("PUT", "/v1/queues/q", b'{"backoff":{"kind":"list"}}', "validation_failed", "/backoff", "needs at least one"),
    ("PATCH", "/v1/queues/q", b'{"backoff":{"delays_ms":[1]}}', "validation_failed", "/backoff", "belongs to the kind"),
    ("PATCH", "/v1/queues/q", b'{"sealed_":true}', "validation_failed", "/sealed_", "did you mean `sealed`"),
    ("PATCH", "/v1/queues/q?paused=true", b'{"paused":true}', "invalid_parameter", "", "both"),
    ("PATCH", "/v1/queues/q?backoff=1", b"", "invalid_parameter", "", "no parameter `backoff`"),
    (
        "POST",
        "/v1/queues/q/purges",
        b'{"states":["QUEUED","GONE"]}',
        "validation_failed",
        "/states/1",
        "must be one of",
    ),
    ("POST", "/v1/queues/q/purges", b'{"states":["PROCESSING"]}', "validation_failed", "/states/0", "must be one of"),
    ("GET", "/v1/tasks?status=queued", b"", "invalid_parameter", "", "`queued` is no status - did you mean `QUEUED`"),
    ("GET", "/v1/tasks?status=FAILED,QEUED", b"", "invalid_parameter", "", "did you mean `QUEUED`"),
    ("GET", "/v1/tasks?status=", b"", "invalid_parameter", "", "is no status"),
    ("GET", "/v1/tasks?order=up", b"", "invalid_parameter", "", "newest, oldest"),
    ("GET", "/v1/workers?status=GONE", b"", "invalid_parameter", "", "must be one of ALIVE, DEAD, LEFT; it is GONE"),
    ("GET", "/v1/workers/one", b"", "validation_failed", "/worker_id", "must be an integer"),
    ("GET", "/v1/workers/0", b"", "validation_failed", "/worker_id", "at least 1"),
    ("POST", "/v1/workers", b'{"queues":[]}', "validation_failed", "/queues", "at least 1 item"),
    ("POST", "/v1/workers", b'{"queues":["a","a"]}', "validation_failed", "/queues", "twice"),
    (
        "POST",
        "/v1/workers",
        b'{"handlers":[{"name":"a","sig":""}]}',
        "validation_failed",
        "/handlers/0/sig",
        "no field",
    ),
    ("POST", "/v1/claims", b"", "validation_failed", "/worker_id", "missing"),
    ("POST", "/v1/claims", b'{"worker_id":1,"queues":["a","a"]}', "validation_failed", "/queues", "twice"),
    ("POST", "/v1/claims/batch", b'{"claims":[]}', "validation_failed", "/claims", "at least 1 item"),
    (
        "POST",
        "/v1/claims/batch",
        b'{"claims":[{"worker_id":1},{"worker_id":1,"queues":["a","a"]}]}',
        "validation_failed",
        "/claims/1/queues",
        "twice",
    ),
    (
        "POST",
        "/v1/claims/batch",
        b'{"claims":[{"worker_id":1},{"worker_id":1,"max":11}]}',
        "validation_failed",
        "/claims/1/max",
        "at most 10",
    ),
    ("POST", SYNC, b'{"claim":{"queues":["a","a"]}}', "validation_failed", "/claim/queues", "twice"),
    ("POST", SYNC, b'{"beat":{"token":[1]}}', "validation_failed", "/beat/token", "no field"),
    ("POST", SYNC, b'{"complete":[{"task_id":"a"}]}', "validation_failed", "/complete/0/lease", "missing"),
    ("POST", TASK + "/complete?result=1", b'{"lease":1}', "invalid_parameter", "", "no parameter `result`"),
    ("POST", TASK + "/complete", b'{"result":1}', "validation_failed", "/lease", "missing"),
    ("POST", TASK + "/heartbeat", b'{"lease":1,"progress":101}', "validation_failed", "/progress", "at most 100"),
]


@pytest.mark.parametrize(("method", "target", "body", "code", "pointer", "word"), BAD)
def test_a_wrong_call_is_refused_with_the_reason(
    method: str, target: str, body: bytes, code: str, pointer: str, word: str
) -> None:
    found = problem(method, target, body)
    assert found.code == code
    assert word in found.detail
    assert [error.pointer for error in found.errors] == ([pointer] if code == "validation_failed" else [])


def text(size_bytes: int) -> bytes:
    """A JSON text of so many bytes."""
    return b'"' + b"x" * (size_bytes - 2) + b'"'


def test_limits_of_tasks() -> None:
    most = b"[" + text(limits.TASK_ARGUMENT_BYTES_MAX - 2) + b"]"
    submitted(b'{"name":"n","args":' + most + b',"kwargs":{}}')
    for body, place in (
        (b'{"name":"n","args":' + most[:-1] + b" ]}", "/args"),
        (b'{"name":"n","task_args":' + most[:-1] + b" ]}", "/task_args"),
        (many(NAMED, b'{"name":"n","kwargs":{"a":' + most + b"}}"), "/tasks/1/kwargs"),
    ):
        found = problem("POST", SUBMIT, body)
        assert (found.code, found.detail.split()[0]) == ("payload_too_large", place)
    assert len(submitted(many(*[NAMED] * limits.SUBMIT_TASKS_MAX))) == limits.SUBMIT_TASKS_MAX
    assert problem("POST", SUBMIT, many(*[NAMED] * (limits.SUBMIT_TASKS_MAX + 1))).errors[0].pointer == "/tasks"
    names = {str(number): "" for number in range(limits.MESSAGE_HEADERS_MAX + 1)}
    assert problem("POST", SUBMIT, msgspec.json.encode({"name": "n", "meta": names})).errors[0].pointer == "/meta"


def test_limits_of_reports() -> None:
    result, checkpoint = text(limits.RESULT_BYTES_MAX), text(limits.CHECKPOINT_BYTES_MAX)
    longer_result, longer_checkpoint = text(limits.RESULT_BYTES_MAX + 1), text(limits.CHECKPOINT_BYTES_MAX + 1)

    def sync(result: bytes, checkpoint: bytes) -> bytes:
        return (
            b'{"complete":[{"task_id":"a","lease":1},{"task_id":"a","lease":1,"result":' + result + b"}],"
            b'"progress":[{"task_id":"a","lease":1},{"task_id":"a","lease":1,"checkpoint":' + checkpoint + b"}]}"
        )

    request_of("POST", TASK + "/complete", b'{"lease":1,"result":' + result + b"}")
    request_of("POST", TASK + "/heartbeat", b'{"lease":1,"checkpoint":' + checkpoint + b"}")
    request_of("POST", SYNC, sync(result, checkpoint))
    for target, body, place in (
        (TASK + "/complete", b'{"lease":1,"result":' + longer_result + b"}", "/result"),
        (TASK + "/heartbeat", b'{"lease":1,"checkpoint":' + longer_checkpoint + b"}", "/checkpoint"),
        (SYNC, sync(longer_result, checkpoint), "/complete/1/result"),
        (SYNC, sync(result, longer_checkpoint), "/progress/1/checkpoint"),
        (
            "/v1/reports",
            b'{"complete":[{"task_id":"a","lease":1,"result":' + longer_result + b"}]}",
            "/complete/0/result",
        ),
    ):
        found = problem("POST", target, body)
        assert (found.code, found.detail.split()[0]) == ("payload_too_large", place)
    long = "x" * (limits.ERROR_TEXT_CHARS_MAX + 1)
    for field in ("message", "traceback"):
        body = msgspec.json.encode({"lease": 1, "error": {field: long}})
        assert problem("POST", TASK + "/fail", body).errors[0].pointer == f"/error/{field}"


# -- answers -------------------------------------------------------------------------------------------------------
def test_a_submit_answers_201_with_the_place_of_its_one_task() -> None:
    row = BY_NAME["submit"]
    one = b.SubmittedTask(id="a/b", status="QUEUED")
    answer = answer_reply(row, b.Submitted(items=[one], id="a/b", status="QUEUED"))
    assert (answer.status, answer.headers["location"]) == (201, "/v1/tasks/a%2Fb")
    assert answer.body == b'{"items":[{"id":"a/b","status":"QUEUED"}],"id":"a/b","status":"QUEUED"}'
    known = msgspec.structs.replace(one, existing=True)
    both = answer_reply(row, b.Submitted(items=[one, known]))
    assert (both.status, "location" in both.headers) == (201, False)
    assert answer_reply(row, b.Submitted(items=[known], id="a/b", status="QUEUED", existing=True)).status == 200
    assert read_answer(row, both) == b.Submitted(items=[one, known])


def test_a_result_is_200_once_the_task_is_finished() -> None:
    row = BY_NAME["get_result"]
    for status in k.STATES:
        answer = answer_reply(row, k.TaskResult(id="t", status=status, attempts=1, result=msgspec.Raw(b"null")))
        assert (answer.status, answer.headers.get("retry-after")) == ((200, None) if status in k.FINAL else (202, "1"))
        found = read_answer(row, answer)
        assert isinstance(found, k.TaskResult)
        assert (found.status, bytes(found.result), found.error) == (status, b"null", None)


def test_cancelling_is_202_while_a_worker_runs_the_task() -> None:
    row = BY_NAME["cancel_task"]
    done = answer_reply(row, k.Cancelled(id="t", status="CANCELLED", cancel_requested=False))
    asked = answer_reply(row, k.Cancelled(id="t", status="PROCESSING", cancel_requested=True))
    assert (done.status, asked.status, asked.headers["retry-after"]) == (200, 202, "1")


def test_what_a_worker_is_told_is_202_and_not_to_be_repeated() -> None:
    answer = answer_reply(BY_NAME["quiet_worker"], w.WorkerTold(worker_id=1, directive="quiet"))
    assert (answer.status, "retry-after" in answer.headers) == (202, False)


def test_a_worker_is_told_where_it_is() -> None:
    reply = w.WorkerRegistered(worker_id=7, name="w", heartbeat_ms=1, dead_after_ms=3)
    answer = answer_reply(BY_NAME["register_worker"], reply)
    assert (answer.status, answer.headers["location"]) == (201, "/v1/workers/7")


def test_a_claim_that_finds_nothing_is_204_unless_nothing_will_come() -> None:
    row = BY_NAME["claim"]
    nothing = answer_reply(row, e.Claims())
    assert nothing == Answer(204, {}, b"")
    assert read_answer(row, nothing) == e.Claims()
    drained = answer_reply(row, e.Claims(drained=True))
    assert (drained.status, read_answer(row, drained)) == (200, e.Claims(drained=True))
    task = e.ClaimedTask(
        id="t",
        name="n",
        args=msgspec.Raw(b"[ 1 ]"),
        kwargs=msgspec.Raw(b"{}"),
        attempt=1,
        max_attempts=3,
        lease=e.Lease(token=4, expires_in_ms=15_000),
        queue="q",
        partition=None,
        priority=5,
        timeout_ms=None,
        checkpoint=msgspec.Raw(b"null"),
        meta={},
        traceparent=None,
    )
    answer = answer_reply(row, e.Claims(tasks=[task]))
    assert answer.status == 200
    assert b'"args":[ 1 ]' in answer.body
    assert b'"lease":{"token":4,"expires_in_ms":15000}' in answer.body


def test_fields_that_a_request_leaves_out_are_not_sent() -> None:
    assert encode(q.PatchQueue(queue="q")).body == b"{}"
    assert encode(q.PatchQueue(queue="q", timeout_ms=None, sealed_=True)).body == b'{"sealed":true,"timeout_ms":null}'
    assert encode(e.CompleteTask(id="t", lease=1)).body == b'{"lease":1}'
    assert encode(k.ListTasks(status="FAILED", worker_id=2)).query == "status=FAILED&worker_id=2"
    assert q.PatchQueue(queue="q").paused is UNSET
