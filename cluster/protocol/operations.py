"""THE TABLE of operations: one row per operation, and everything else is driven by it.

Routes, validation, forwarding, OpenAPI, problem documents and the client's typed calls come from these rows. To add an
operation: a message, a row here, and a ``case`` in the machine.
"""

from __future__ import annotations

from quorl.cluster.protocol import batches as a
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import system as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.appends import AppendAll, AppendedAll
from quorl.cluster.protocol.grammar import Operation, operation

_T = "/v1/topics/{topic}"
_Q = "/v1/queues/{queue}"
_K = "/v1/tasks/{id}"
_W = "/v1/workers/{worker_id}"

OPERATIONS: tuple[Operation, ...] = (
    operation(t.CreateTopic, t.TopicCreated, "POST", "/v1/topics", t.AlreadyExists, status=201),
    operation(t.ListTopics, t.TopicList, "GET", "/v1/topics", consistency="local"),
    operation(t.GetTopic, t.TopicInfo, "GET", _T, t.TopicNotFound),
    operation(t.DeleteTopic, t.TopicDeleted, "DELETE", _T, t.TopicNotFound, t.TopicNotEmpty),
    operation(t.RegisterProducer, t.ProducerInfo, "POST", _T + "/producers", t.TopicNotFound, status=201),
    operation(t.ListProducers, t.ProducerList, "GET", _T + "/producers", t.TopicNotFound, consistency="local"),
    operation(t.RegisterConsumer, t.ConsumerInfo, "POST", _T + "/consumers", t.TopicNotFound, status=201),
    operation(t.ListConsumers, t.ConsumerList, "GET", _T + "/consumers", t.TopicNotFound, consistency="local"),
    operation(
        t.GetConsumer, t.ConsumerInfo, "GET", _T + "/consumers/{consumer_id}", t.TopicNotFound, t.ConsumerNotFound
    ),
    operation(t.Append, t.Appended, "POST", _T + "/messages", t.TopicNotFound, t.ProducerNotFound, status=201),
    operation(AppendAll, AppendedAll, "POST", "/v1/appends", status=201),
    operation(
        t.Browse, t.MessagePage, "GET", _T + "/messages", t.TopicNotFound, t.PartitionNotFound, consistency="local"
    ),
    operation(
        t.GetMessage,
        t.MessageInfo,
        "GET",
        _T + "/messages/{partition}/{offset}",
        t.TopicNotFound,
        t.PartitionNotFound,
        t.MessageNotFound,
    ),
    operation(
        t.Consume, t.Consumed, "POST", _T + "/consumers/{consumer_id}/consume", t.TopicNotFound, t.ConsumerNotFound
    ),
    operation(t.GetSize, t.TopicSize, "GET", _T + "/size", t.TopicNotFound, t.ConsumerNotFound),
    operation(q.ListQueues, q.QueueList, "GET", "/v1/queues", consistency="local"),
    operation(q.GetQueue, q.QueueInfo, "GET", _Q, q.QueueNotFound),
    operation(q.PutQueue, q.QueueInfo, "PUT", _Q, q.QueueDiffers),
    operation(q.PatchQueue, q.QueueInfo, "PATCH", _Q, q.QueueNotFound),
    operation(q.DeleteQueue, q.QueueDeleted, "DELETE", _Q, q.QueueNotFound, q.QueueNotEmpty),
    operation(q.PurgeQueue, q.Purged, "POST", _Q + "/purges", q.QueueNotFound),
    operation(b.Submit, b.Submitted, "POST", _Q + "/tasks", k.TaskExists, q.QueueSealed, q.QueueFull, status=201),
    operation(k.ListTasks, k.TaskList, "GET", "/v1/tasks", q.QueueNotFound, consistency="local"),
    operation(a.ChangeTasks, a.TasksChanged, "POST", "/v1/tasks/batch", q.QueueNotFound),
    operation(a.ListDeadGroups, a.DeadGroups, "GET", "/v1/dead", q.QueueNotFound, consistency="local"),
    operation(k.GetTask, k.TaskInfo, "GET", _K, k.TaskNotFound),
    operation(k.GetResult, k.TaskResult, "GET", _K + "/result", k.TaskNotFound),
    operation(k.GetTaskEvents, k.TaskEvents, "GET", _K + "/events", k.TaskNotFound),
    operation(k.GetTaskWhy, k.TaskWhy, "GET", _K + "/why", k.TaskNotFound),
    operation(k.CancelTask, k.Cancelled, "POST", _K + "/cancel", k.TaskNotFound, k.WrongState),
    operation(k.RetryTask, k.TaskStatus, "POST", _K + "/retry", k.TaskNotFound, k.WrongState),
    operation(k.ForgetTask, k.TaskForgotten, "DELETE", _K, k.TaskNotFound, k.WrongState),
    operation(e.CompleteTask, k.TaskStatus, "POST", _K + "/complete", k.TaskNotFound, k.LeaseLost),
    operation(e.FailTask, k.TaskStatus, "POST", _K + "/fail", k.TaskNotFound, k.LeaseLost),
    operation(e.ReleaseTask, k.TaskStatus, "POST", _K + "/release", k.TaskNotFound, k.LeaseLost),
    operation(e.HoldTask, e.TaskHeld, "POST", _K + "/heartbeat", k.TaskNotFound, k.LeaseLost),
    operation(g.Report, g.Reported, "POST", "/v1/reports"),
    operation(w.RegisterWorker, w.WorkerRegistered, "POST", "/v1/workers", w.TooManyWorkers, status=201),
    operation(w.ListWorkers, w.WorkerList, "GET", "/v1/workers", consistency="local"),
    operation(w.GetWorker, w.WorkerInfo, "GET", _W, w.WorkerNotFound),
    operation(w.RemoveWorker, w.WorkerGone, "DELETE", _W, w.WorkerNotFound),
    operation(w.QuietWorker, w.WorkerTold, "POST", _W + "/quiet", w.WorkerNotFound, w.WorkerNotAlive, status=202),
    operation(
        w.TerminateWorker, w.WorkerTold, "POST", _W + "/terminate", w.WorkerNotFound, w.WorkerNotAlive, status=202
    ),
    operation(e.Sync, e.Synced, "POST", _W + "/sync", w.WorkerNotFound, w.WorkerNotAlive),
    operation(e.Claim, e.Claims, "POST", "/v1/claims", w.WorkerNotFound, w.WorkerNotAlive),
    operation(g.ClaimMany, g.ClaimedMany, "POST", "/v1/claims/batch"),
    operation(s.GetCluster, s.ClusterInfo, "GET", "/v1/cluster", consistency="local"),
    operation(
        s.TransferLeadership,
        s.LeadershipTransferred,
        "POST",
        "/v1/cluster/leader-transfers",
        s.MemberNotFound,
        s.TransferRefused,
    ),
    operation(o.GetOverview, o.Overview, "GET", "/v1/overview", consistency="local"),
    operation(o.GetHistory, o.History, "GET", "/v1/history", q.QueueNotFound, t.TopicNotFound, consistency="local"),
)

BY_REQUEST = {row.request: row for row in OPERATIONS}
BY_NAME = {row.name: row for row in OPERATIONS}
