"""What a write is told that does not find its queue, its topic or its task: the one that was perhaps meant, by the node that answers."""

from __future__ import annotations

import sqlite3

import pytest

from quorl.cluster.node.guessing import GUESSED_MAX, with_guess
from quorl.cluster.node.visit import Declined
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Query, Rejection, Reply
from quorl.cluster.protocol.problems import Problem
from tests.node.fakecore import Cluster

QUEUE, TOPIC = "/v1/queues/emials", "/v1/topics/app-lgo"


async def with_names() -> Cluster:
    cluster = Cluster()
    assert (await cluster.call("n1", "PUT", "/v1/queues/emails", {}))[0] == 200
    assert (await cluster.call("n1", "POST", "/v1/topics", {"name": "app-log"}))[0] == 201
    return cluster


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", QUEUE, {"paused": True}),
        ("DELETE", QUEUE, None),
        ("POST", QUEUE + "/purges", {}),
        ("POST", "/v1/tasks/batch", {"action": "retry", "queue": "emials"}),
        ("DELETE", TOPIC, None),
        ("POST", TOPIC + "/messages", {"value": 1}),
        ("POST", TOPIC + "/consumers", {}),
        ("POST", TOPIC + "/consumers/1/consume", None),
    ],
)
async def test_d15_a_write_to_a_name_that_is_misspelt_is_told_what_may_be_meant(
    method: str, path: str, body: object
) -> None:
    cluster = await with_names()
    meant = "emails" if "queue" in f"{path}{body}" else "app-log"
    for node in ("n1", "n2"):
        status, told, _ = await cluster.call(node, method, path, body)
        assert status == 404
        assert told["detail"].endswith(f'. Did you mean "{meant}"?')
    assert cluster.core("n2").machine.position == cluster.core("n1").machine.position


@pytest.mark.parametrize(("method", "what"), [("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")])
async def test_d15_who_cancels_retries_or_forgets_by_a_shortened_id_is_told_the_whole_one(
    method: str, what: str
) -> None:
    cluster = Cluster()
    _, task, _ = await cluster.call("n1", "POST", "/v1/queues/q/tasks", {"name": "add"})
    for node in ("n1", "n2"):
        path = f"/v1/tasks/{task['id'][:8]}%E2%80%A6{task['id'][-6:]}{what}"
        status, told, _ = await cluster.call(node, method, path)
        assert (status, told["detail"].partition(" Did ")[2]) == (404, f'you mean "{task["id"]}"?')


async def test_d15_each_of_several_appends_is_told_of_its_own_topic() -> None:
    cluster = await with_names()
    names = ["app-lgo", "app-log", "app-lgo", "nothing like it", *(f"app-log{n}" for n in range(GUESSED_MAX))]
    appends = [{"topic": name, "messages": [{"value": 1}]} for name in names]
    status, told, _ = await cluster.call("n1", "POST", "/v1/appends", {"appends": appends})
    assert status == 201
    items = told["items"]
    assert [item.get("code", "") for item in items[:4]] == ["topic_not_found", "", "topic_not_found", "topic_not_found"]
    assert items[0]["detail"] == items[2]["detail"] == 'There is no topic "app-lgo". Did you mean "app-log"?'
    assert items[3]["detail"] == 'There is no topic "nothing like it".'
    guessed = ["Did you mean" in item["detail"] for item in items[4:]]
    assert guessed == [True] * (GUESSED_MAX - 2) + [False] * 2, "of one call so many names are looked up"


async def test_nothing_is_guessed_of_a_name_that_exists_meanwhile() -> None:
    asked: list[Query[Reply]] = []

    async def read(request: Query[Reply]) -> Reply | Rejection:
        asked.append(request)
        return t.TopicCreated(name="made", partitions=1, created_at="")

    no_queue, no_topic = q.QueueNotFound(detail="no queue"), t.TopicNotFound(detail="no topic")
    assert await with_guess(read, q.DeleteQueue(queue="a"), no_queue) is no_queue
    assert await with_guess(read, t.DeleteTopic(topic="b"), no_topic) is no_topic
    no_task = k.TaskNotFound(detail="no task")
    assert await with_guess(read, k.CancelTask(id="c"), no_task) is no_task
    assert asked.pop() == k.GetTask(id="c")
    assert asked == [q.GetQueue(queue="a"), t.GetTopic(topic="b")]


@pytest.mark.parametrize(
    "error", [Declined(Problem("shutting_down", "n1 is shutting down.")), sqlite3.DatabaseError("disk I/O error")]
)
async def test_a4_what_was_stored_is_told_also_where_no_guess_can_be_made(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A node that meets a damaged page over a guess stops; that nothing was applied would be a lie."""
    cluster = await with_names()

    async def read(_: Query[object]) -> Reply:
        raise error

    monkeypatch.setattr(cluster.core("n1"), "read", read)
    appends = [{"topic": topic, "messages": [{"value": 1}]} for topic in ("app-log", "app-lgo")]
    status, told, _ = await cluster.call("n1", "POST", "/v1/appends", {"appends": appends})
    assert (status, [item.get("code") for item in told["items"]]) == (201, [None, "topic_not_found"])
