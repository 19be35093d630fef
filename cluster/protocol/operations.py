"""THE TABLE of operations: one row per operation, and everything else is driven by it.

Routes, validation, forwarding, OpenAPI, problem documents and the client's typed calls come from these rows. To add an
operation: a message, a row here, and a ``case`` in the machine.
"""

from __future__ import annotations

from quorl.cluster.protocol import system as s
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Operation, operation

_T = "/v1/topics/{topic}"

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
    operation(s.GetCluster, s.ClusterInfo, "GET", "/v1/cluster", consistency="local"),
)

BY_REQUEST = {row.request: row for row in OPERATIONS}
BY_NAME = {row.name: row for row in OPERATIONS}
