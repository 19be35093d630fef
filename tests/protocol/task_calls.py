"""Calls about queues, tasks and workers, and the requests that they mean."""

from __future__ import annotations

from typing import Any

from quorl.cluster.protocol import batches as a
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Request

BACKOFF = q.Backoff(kind="list", delays_ms=(1, 2), jitter=0)

GOOD_OF_TASKS: list[tuple[str, str, bytes, Request[Any]]] = [
    ("GET", "/v1/queues?prefix=a&limit=2&cursor=x", b"", q.ListQueues(prefix="a", limit=2, cursor="x")),
    ("GET", "/v1/queues/a%2Fb", b"", q.GetQueue(queue="a/b")),
    ("PUT", "/v1/queues/q", b"", q.PutQueue(queue="q")),
    (
        "PUT",
        "/v1/queues/q?partitions=4",
        (
            b'{"default_attempts":1,"max_lost":2,"backoff":{"kind":"list","delays_ms":[1,2],"jitter":0},'
            b'"timeout_ms":9,"keep_finished_ms":0,"max_depth":7}'
        ),
        q.PutQueue(
            queue="q",
            partitions=4,
            default_attempts=1,
            max_lost=2,
            backoff=BACKOFF,
            timeout_ms=9,
            keep_finished_ms=0,
            max_depth=7,
        ),
    ),
    ("PATCH", "/v1/queues/q", b'{"paused":true}', q.PatchQueue(queue="q", paused=True)),
    ("PATCH", "/v1/queues/q?sealed=false", b"", q.PatchQueue(queue="q", sealed_=False)),
    (
        "PATCH",
        "/v1/queues/q",
        b'{"sealed":true,"timeout_ms":null}',
        q.PatchQueue(queue="q", sealed_=True, timeout_ms=None),
    ),
    ("PATCH", "/v1/queues/q?timeout_ms=null", b"", q.PatchQueue(queue="q", timeout_ms=None)),
    (
        "PATCH",
        "/v1/queues/q",
        b'{"backoff":{"kind":"list","delays_ms":[1,2],"jitter":0}}',
        q.PatchQueue(queue="q", backoff=BACKOFF),
    ),
    ("DELETE", "/v1/queues/q", b"", q.DeleteQueue(queue="q")),
    ("POST", "/v1/tasks/batch", b'{"action":"cancel","ids":["a","b"]}', a.ChangeTasks(action="cancel", ids=("a", "b"))),
    (
        "POST",
        "/v1/tasks/batch?dry_run=true",
        b'{"action":"retry","queue":"q","name":"n","after":7}',
        a.ChangeTasks(action="retry", queue="q", name="n", after=7, dry_run=True),
    ),
    (
        "POST",
        "/v1/tasks/batch",
        b'{"action":"forget","queue":"q","cause":"0123456789abcdef"}',
        a.ChangeTasks(action="forget", queue="q", cause="0123456789abcdef"),
    ),
    ("GET", "/v1/dead?queue=q&limit=10", b"", a.ListDeadGroups(queue="q", limit=10)),
    ("POST", "/v1/queues/q/purges", b"", q.PurgeQueue(queue="q")),
    (
        "POST",
        "/v1/queues/q/purges?dry_run=true",
        b'{"states":["FAILED"]}',
        q.PurgeQueue(queue="q", states=("FAILED",), dry_run=True),
    ),
    ("GET", "/v1/tasks", b"", k.ListTasks()),
    (
        "GET",
        "/v1/tasks?queue=q&status=FAILED,RETRY&name=n&worker_id=3&order=oldest&limit=5&cursor=c",
        b"",
        k.ListTasks(queue="q", status="FAILED,RETRY", name="n", worker_id=3, order="oldest", limit=5, cursor="c"),
    ),
    ("GET", "/v1/tasks/a%2Fb?wait=2", b"", k.GetTask(id="a/b", wait=2)),
    ("GET", "/v1/tasks/t/result?wait=0.5", b"", k.GetResult(id="t", wait=0.5)),
    ("GET", "/v1/tasks/t/events", b"", k.GetTaskEvents(id="t")),
    ("GET", "/v1/tasks/t/why", b"", k.GetTaskWhy(id="t")),
    ("POST", "/v1/tasks/t/cancel", b"", k.CancelTask(id="t")),
    ("POST", "/v1/tasks/t/retry", b"", k.RetryTask(id="t")),
    ("DELETE", "/v1/tasks/t", b"", k.ForgetTask(id="t")),
    ("POST", "/v1/tasks/t/complete", b'{"lease":3}', e.CompleteTask(id="t", lease=3)),
    ("POST", "/v1/tasks/t/fail?retry=false", b'{"lease":3}', e.FailTask(id="t", lease=3, retry=False)),
    (
        "POST",
        "/v1/tasks/t/fail",
        b'{"lease":3,"error":{"type":"E","message":"m","traceback":"tb"},"delay_ms":0}',
        e.FailTask(id="t", lease=3, error=k.TaskError(type="E", message="m", traceback="tb"), delay_ms=0),
    ),
    ("POST", "/v1/tasks/t/release?lease=3", b"", e.ReleaseTask(id="t", lease=3)),
    (
        "POST",
        "/v1/tasks/t/heartbeat",
        b'{"lease":3,"progress":50,"note":"half"}',
        e.HoldTask(id="t", lease=3, progress=50, note="half"),
    ),
    (
        "POST",
        "/v1/claims/batch?wait=2",
        b'{"claims":[{"worker_id":1},{"worker_id":2,"queues":["a"],"max":3,"number":4}]}',
        g.ClaimMany(claims=(g.OneClaim(worker_id=1), g.OneClaim(worker_id=2, queues=("a",), max=3, number=4)), wait=2),
    ),
    ("POST", "/v1/reports", b"", g.Report()),
    (
        "POST",
        "/v1/reports",
        (
            b'{"complete":[{"task_id":"t","lease":3}],"fail":[{"task_id":"u","lease":4,"retry":false}],'
            b'"release":[{"task_id":"v","lease":5}]}'
        ),
        g.Report(
            complete=(e.Completion(task_id="t", lease=3),),
            fail=(e.Failure(task_id="u", lease=4, retry=False),),
            release=(e.Return(task_id="v", lease=5),),
        ),
    ),
    ("POST", "/v1/workers", b"", w.RegisterWorker()),
    (
        "POST",
        "/v1/workers",
        (
            b'{"name":"w1","host":"h","pid":4,"version":"1","queues":["a","b"],"concurrency":8,"standby":true,'
            b'"handlers":[{"name":"add","signature":"(x, y)","doc":"Adds."}],"heartbeat_ms":1000,"dead_after_ms":30000}'
        ),
        w.RegisterWorker(
            name="w1",
            host="h",
            pid=4,
            version="1",
            queues=("a", "b"),
            concurrency=8,
            handlers=(w.Handler(name="add", signature="(x, y)", doc="Adds."),),
            standby=True,
            heartbeat_ms=1000,
            dead_after_ms=30_000,
        ),
    ),
    ("GET", "/v1/workers?status=DEAD&queue=q&limit=1", b"", w.ListWorkers(status="DEAD", queue="q", limit=1)),
    ("GET", "/v1/workers/7", b"", w.GetWorker(worker_id=7)),
    ("DELETE", "/v1/workers/7", b"", w.RemoveWorker(worker_id=7)),
    ("POST", "/v1/workers/7/quiet", b"", w.QuietWorker(worker_id=7)),
    ("POST", "/v1/workers/7/terminate", b"", w.TerminateWorker(worker_id=7)),
    ("POST", "/v1/workers/7/sync", b"", e.Sync(worker_id=7)),
    (
        "POST",
        "/v1/workers/7/sync",
        (
            b'{"beat":{"tokens":[1,2],"claims":[3],"claimed":4},"complete":[{"task_id":"a","lease":1}],'
            b'"fail":[{"task_id":"b","lease":2,"retry":false}],"release":[{"task_id":"c","lease":3}],'
            b'"progress":[{"task_id":"d","lease":4,"progress":1,"note":"n"}],"claim":{"queues":["q"],"max":2,"wait":1,"number":5}}'
        ),
        e.Sync(
            worker_id=7,
            beat=e.Beat(tokens=(1, 2), claims=(3,), claimed=4),
            complete=(e.Completion(task_id="a", lease=1),),
            fail=(e.Failure(task_id="b", lease=2, retry=False),),
            release=(e.Return(task_id="c", lease=3),),
            progress=(e.Progress(task_id="d", lease=4, progress=1, note="n"),),
            claim=e.Wish(queues=("q",), max=2, wait=1, number=5),
        ),
    ),
    ("POST", "/v1/claims?max=3", b'{"worker_id":7,"queues":["q"]}', e.Claim(worker_id=7, queues=("q",), max=3)),
]
"""Without those that carry JSON of their callers': raw values are compared by their bytes."""
