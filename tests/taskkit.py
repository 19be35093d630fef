"""Tasks and workers over plain HTTP: what any program in any language would send, without the client library's help.

A ``Hand`` is one worker at one node that does only what a test tells it, so it can be late, silent, or wrong on purpose.
``Crew`` runs hands in threads that work like real workers: they claim with a wait, run a function, and report.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from tests.harness import LocalCluster, Reply, call, until

Task = dict[str, Any]
_names = count(1)


def fresh(what: str) -> str:
    """A name that no other test uses."""
    return f"{what} {next(_names)}"


def queue_path(queue: str) -> str:
    return f"/v1/queues/{quote(queue, safe='')}"


def task_path(task_id: str, rest: str = "") -> str:
    return f"/v1/tasks/{quote(task_id, safe='')}{rest}"


def ok(reply: Reply) -> Any:
    """The body of an answer that must be a success."""
    assert 200 <= reply.status < 300, (reply.status, reply.body)
    return reply.json if reply.body else None


def submit(url: str, queue: str, *tasks: Task) -> list[Task]:
    """Submit tasks in one request and return what became of each."""
    items: list[Task] = ok(call(url, "POST", f"{queue_path(queue)}/tasks", {"tasks": tasks}))["items"]
    return items


def submit_one(url: str, queue: str, **task: Any) -> str:
    """Submit one task and return its id."""
    (item,) = submit(url, queue, task)
    return str(item["id"])


def put_queue(url: str, queue: str, **config: Any) -> Task:
    """Create a queue as the test wants it."""
    info: Task = ok(call(url, "PUT", queue_path(queue), config))
    return info


def task_of(url: str, task_id: str, **query: Any) -> Task:
    """A task with its history, after everything that was acknowledged before."""
    words = "&".join(f"{name}={value}" for name, value in query.items())
    found: Task = ok(call(url, "GET", task_path(task_id, f"?{words}" if words else "")))
    return found


def finished(url: str, task_id: str, wait_s: float = 60.0) -> Task:
    """The task once it is finished; waits for it without polling faster than the node answers."""
    found: list[Task] = []

    def done() -> bool:
        found[:] = [task_of(url, task_id, wait=5)]
        return found[0]["finished_at"] is not None

    until(done, f"task {task_id} to finish", wait_s, lambda: str(found))
    return found[0]


def events_of(url: str, task_id: str) -> list[Task]:
    """Every transition of a task."""
    items: list[Task] = ok(call(url, "GET", task_path(task_id, "/events")))["items"]
    return items


def worker_of(url: str, worker_id: int) -> Task:
    """A worker as the replicated state knows it."""
    found: Task = ok(call(url, "GET", f"/v1/workers/{worker_id}"))
    return found


def alive(url: str, queue: str) -> list[Task]:
    """Return the workers that are alive and serve the queue."""
    path = f"/v1/workers?status=ALIVE&queue={quote(queue, safe='')}"
    items: list[Task] = ok(call(url, "GET", path))["items"]
    return items


def all_tasks(url: str, queue: str) -> list[Task]:
    """Every task of a queue as one node answers, the oldest first and none that was acknowledged missing."""
    found: list[Task] = []
    cursor = ""
    while True:
        path = f"/v1/tasks?queue={quote(queue, safe='')}&order=oldest&limit=1000&consistency=linearizable&cursor={quote(cursor)}"
        page = ok(call(url, "GET", path))
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            return found


class Hand:
    """One life of one worker at one node."""

    def __init__(self, url: str, *queues: str, name: str = "", **how: Any) -> None:
        self.url = url
        self.queues = queues
        self.name = name or fresh("hand")
        self.registered: Task = ok(call(url, "POST", "/v1/workers", {"name": self.name, "queues": list(queues), **how}))
        self.id: int = self.registered["worker_id"]

    def claim(self, max_: int = 1, wait_s: float = 0.0, **more: Any) -> list[Task]:
        """Claim; nothing when there is nothing."""
        reply = self.claim_reply(max_, wait_s, **more)
        assert reply.status in {200, 204}, (reply.status, reply.body)
        tasks: list[Task] = reply.json["tasks"] if reply.status == 200 else []
        return tasks

    def claim_reply(self, max_: int = 1, wait_s: float = 0.0, **more: Any) -> Reply:
        return call(
            self.url, "POST", "/v1/claims", {"worker_id": self.id, "max": max_, "wait": wait_s, **more}, timeout_s=60
        )

    def one(self, wait_s: float = 20.0) -> Task:
        """Claim one task that is there or comes soon; a claim is answered early when the worker must show itself."""
        deadline_s = time.monotonic() + wait_s
        while time.monotonic() < deadline_s:
            if tasks := self.claim(wait_s=5.0):
                return tasks[0]
        raise AssertionError(f"{self.name} got nothing in {wait_s} s")

    def complete(self, task: Task, result: Any = None) -> Reply:
        return self._report(task, "complete", result=result)

    def fail(self, task: Task, message: str = "it failed", **more: Any) -> Reply:
        error = {"type": "ValueError", "message": message, "traceback": f"Traceback …\nValueError: {message}"}
        return self._report(task, "fail", error=error, **more)

    def release(self, task: Task) -> Reply:
        return self._report(task, "release")

    def hold(self, task: Task, **more: Any) -> Reply:
        return self._report(task, "heartbeat", **more)

    def _report(self, task: Task, what: str, **body: Any) -> Reply:
        return call(self.url, "POST", task_path(task["id"], f"/{what}"), {"lease": task["lease"]["token"], **body})

    def sync(self, **what: Any) -> Reply:
        return call(self.url, "POST", f"/v1/workers/{self.id}/sync", what, timeout_s=60)

    def leave(self) -> Reply:
        return call(self.url, "DELETE", f"/v1/workers/{self.id}")


@contextlib.contextmanager
def beating(hand: Hand, urls: Sequence[str], every_s: float = 0.2) -> Iterator[threading.Event]:
    """Keep a worker alive through each of the nodes, so that no silent one delays what another would hear.

    The event is set once it is told that it is not alive.
    """
    stop, told = threading.Event(), threading.Event()

    def beat(url: str) -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):  # that node may be down, or dying
                reply = call(url, "POST", f"/v1/workers/{hand.id}/sync", {"beat": {}}, timeout_s=3)
                if reply.status in {404, 409}:
                    told.set()
            stop.wait(every_s)

    threads = [threading.Thread(target=beat, args=(url,), name=f"beats of {hand.name}") for url in urls]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def wait_running(cluster: LocalCluster, calls: int) -> None:
    """Wait until the leader answers so many calls: those that wait there, its own and those of other nodes, or none."""

    def so() -> bool:
        text = call(cluster[cluster.leader()].url, "GET", "/metrics").body.decode()
        return float(text.partition("\nquorl_http_requests_running ")[2].partition("\n")[0]) == calls

    until(so, f"{calls} calls to run at the leader")


class Run(NamedTuple):
    """One run of one task: who, under which token, and whether the report counted."""

    worker: str
    task_id: str
    token: int
    accepted: bool


class Crew:
    """Hands in threads, each with so many tasks at a time, until they are told to stop."""

    def __init__(self, work: Callable[[Task], Any] = lambda _: None, slots: int = 1) -> None:
        self.runs: list[Run] = []
        self._work = work
        self._stops: dict[str, threading.Event] = {}
        self._hands: dict[str, Hand] = {}
        self._threads = ThreadPoolExecutor(128)
        self._working: dict[str, list[Future[None]]] = {}
        self._slots = slots

    def join(self, hand: Hand) -> None:
        """Let one more worker in."""
        stop = self._stops[hand.name] = threading.Event()
        self._hands[hand.name] = hand
        self._working[hand.name] = [self._threads.submit(self._loop, hand, stop) for _ in range(self._slots)]

    def leave(self, name: str) -> None:
        """Let one worker finish what it has, and go."""
        self._stops[name].set()
        for slot in self._working.pop(name):
            slot.result(60)
        ok(self._hands[name].leave())

    def _loop(self, hand: Hand, stop: threading.Event) -> None:
        while not stop.is_set():
            for task in hand.claim(wait_s=1.0):
                reply = hand.complete(task, self._work(task))
                self.runs.append(Run(hand.name, task["id"], task["lease"]["token"], reply.status == 200))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stop in self._stops.values():
            stop.set()
        for name in list(self._working):
            self.leave(name)
        self._threads.shutdown()


def wait_status(cluster: LocalCluster, hand: Hand, status: str, timeout_s: float = 30.0) -> None:
    """Wait until a worker is ALIVE, DEAD or LEFT in the eyes of a node that runs."""
    url = next(node.url for node in cluster.nodes.values() if node.alive)

    def there() -> bool:
        reply = call(url, "GET", f"/v1/workers/{hand.id}")
        return reply.status == 200 and bool(reply.json["status"] == status)

    until(there, f"{hand.name} to be {status}", timeout_s)
