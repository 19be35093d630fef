"""A cluster as people run it: real nodes, real workers of which one dies, a stand-by, topics with readers that lag, failures."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.harness import CALM, ROOT, LocalCluster, call, cluster_in, die_with_parent, until
from tests.taskkit import ok, put_queue, submit, task_of

SOON_DEAD = {"worker_heartbeat_s": 1.0, "worker_dead_after_s": 4.0}
QUEUES = ("payments", "emails", "imports", "reports", "nightly batch")
TOPICS = ("orders", "app-log")
BIG = 2**53 + 1
"""The first integer that a browser's numbers cannot hold."""


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[LocalCluster]:
    """Three nodes whose workers are soon taken for dead, while the lead moves only if somebody moves it."""
    with cluster_in(directory, name="shop-prod", sections={**CALM, "tasks": SOON_DEAD}) as started:
        yield started


class Scene:
    """What happens on a cluster while somebody looks at it."""

    def __init__(self, cluster: LocalCluster, logs: Path) -> None:
        self.cluster = cluster
        self._logs = logs
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """A node that lives."""
        return next(node.url for node in self.cluster.nodes.values() if node.alive)

    def worker(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a real worker under a name, and wait until it is registered."""
        command = [
            sys.executable,
            "-m",
            "quorl.client.cli",
            "worker",
            "run",
            "tests.browser.shop:app",
            "--name",
            name,
            *options,
        ]
        environment = {
            **os.environ,
            "QUORL_SERVER": ",".join(self.cluster.urls),
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        }
        with (self._logs / f"{name}.log").open("ab") as log:
            self.workers[name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - its life hangs on ours
            )
        until(
            lambda: name in self.alive(),
            f"worker {name} to register",
            60,
            lambda: (self._logs / f"{name}.log").read_text()[-2000:],
        )
        return self.workers[name]

    def alive(self) -> set[str]:
        """Names of the workers that are ALIVE."""
        return {one["name"] for one in ok(call(self.url, "GET", "/v1/workers?status=ALIVE"))["items"]}

    def kill_worker(self, name: str) -> None:
        """Kill -9, and wait until the cluster calls it DEAD."""
        self.workers[name].kill()
        self.workers[name].wait()
        until(lambda: name not in self.alive(), f"{name} to be DEAD", 60)

    def set_up(self) -> None:
        """Queues, topics, workers, tasks that succeed and fail, a worker that dies with work in its hands."""
        url = self.url
        for queue in QUEUES:
            put_queue(url, queue, backoff={"kind": "fixed", "first_ms": 200, "jitter": 0})
        ok(call(url, "PATCH", "/v1/queues/nightly%20batch", {"paused": True}))
        self.worker("web-3", "-q", "imports", "--concurrency", "2")
        slow = submit(url, "imports", *[{"name": "shop.import_rows", "args": ["crash.csv", 4000]} for _ in range(3)])
        until(lambda: any(task_of(url, one["id"])["worker"] == "web-3" for one in slow), "web-3 to have work", 30)
        self.worker("web-1", "-q", "payments", "-q", "emails", "--concurrency", "4")
        self.worker("web-2", "-q", "payments", "-q", "emails", "-q", "imports", "--concurrency", "4")
        self.worker("spare", "-q", "payments", "-q", "imports", "--standby", "--concurrency", "2")
        self._fill(url)
        self._topics(url)
        self.kill_worker("web-3")

    def _fill(self, url: str) -> None:
        submit(url, "reports", *[{"name": "shop.render", "args": [f"report {n}.pdf"]} for n in range(37)])
        submit(
            url,
            "nightly batch",
            *[
                {"name": "shop.import_rows", "args": [f"night-{n}.csv"], "delay_ms": 3_600_000 * (n % 2)}
                for n in range(12)
            ],
        )
        bad = [{"name": "shop.charge", "args": [7000 + n, -n - 0.5]} for n in range(9)]
        lost = [{"name": "shop.send_email", "args": [f"customer {n}"], "kwargs": {"urgent": True}} for n in range(5)]
        submit(url, "payments", *bad, *[{"name": "shop.charge", "args": [n, 9.5 + n]} for n in range(60)])
        submit(url, "emails", *lost, *[{"name": "shop.send_email", "args": [f"c{n}@example.org"]} for n in range(60)])
        until(lambda: len(self.failed()) == len(bad) + len(lost), "what must fail to have failed", 60)

    def failed(self) -> list[dict[str, Any]]:
        """The FAILED tasks."""
        found: list[dict[str, Any]] = ok(call(self.url, "GET", "/v1/tasks?status=FAILED&limit=1000"))["items"]
        return found

    def _topics(self, url: str) -> None:
        for name, partitions in zip(TOPICS, (3, 1), strict=True):
            ok(call(url, "POST", "/v1/topics", {"name": name, "partitions": partitions}))
            for reader in ("billing", "search index"):
                ok(call(url, "POST", f"/v1/topics/{name}/consumers", {"name": reader}))
        orders = [
            {"value": {"order": n, "total": 9.5 + n, "items": ["tea", "cup"]}, "key": f"customer {n % 7}"}
            for n in range(120)
        ]
        ok(call(url, "POST", "/v1/topics/orders/messages", {"messages": orders}))
        lines = [
            {"value": f"2026-11-26 12:00:{n % 60:02d} INFO worker.py:{n} request served in {n % 90} ms"}
            for n in range(400)
        ]
        ok(call(url, "POST", "/v1/topics/app-log/messages", {"messages": lines}))
        ok(call(url, "POST", "/v1/topics/orders/consumers/1/consume?max=100"))
        ok(call(url, "POST", "/v1/topics/app-log/consumers/1/consume?max=395"))

    def go_on(self, every_s: float = 0.25) -> None:
        """Keep submitting and publishing from a thread, at whatever node takes it."""
        thread = threading.Thread(target=self._load, args=(every_s,), name="load")
        thread.start()
        self._threads.append(thread)

    def _load(self, every_s: float) -> None:
        for n in itertools.count(1000):
            if self._stop.wait(every_s):
                return
            with contextlib.suppress(
                OSError, AssertionError, json.JSONDecodeError
            ):  # while nobody leads nothing is taken
                url = self.cluster.urls[n % len(self.cluster.urls)]
                call(
                    url,
                    "POST",
                    "/v1/queues/payments/tasks",
                    {"name": "shop.charge", "args": [n, 12.5 if n % 25 else -1]},
                    timeout_s=5,
                )
                call(
                    url,
                    "POST",
                    "/v1/queues/emails/tasks",
                    {"name": "shop.send_email", "args": [f"c{n}@example.org"]},
                    timeout_s=5,
                )
                if n % 4 == 0:
                    call(
                        url,
                        "POST",
                        "/v1/queues/imports/tasks",
                        {"name": "shop.import_rows", "args": [f"rows-{n}.csv", 40]},
                        timeout_s=5,
                    )
                call(url, "POST", "/v1/topics/orders/messages", {"value": {"order": n, "total": 12.5}}, timeout_s=5)
                call(url, "POST", "/v1/topics/app-log/messages", {"value": f"INFO order {n} taken"}, timeout_s=5)

    def close(self) -> None:
        """Stop what was started here."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for process in self.workers.values():
            process.kill()
            process.wait()


@contextlib.contextmanager
def scene(cluster: LocalCluster, logs: Path) -> Iterator[Scene]:
    """The scene, set up, with load."""
    made = Scene(cluster, logs)
    try:
        made.set_up()
        made.go_on()
        yield made
    finally:
        made.close()
