"""Answers without a server: what the tests of the client's mind send into its generators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from quorl.client.flow import Failure, Plan, Send, Sleep, Step
from quorl.client.route import Route
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import wire
from quorl.cluster.protocol.grammar import Reply
from quorl.cluster.protocol.operations import BY_NAME
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer

R = TypeVar("R")
Event = Answer | Failure

NODES = ("http://a:7101", "http://b:7101", "http://c:7101")
REFUSED = Failure("refused", "connection refused")
LOST = Failure("lost", "connection lost: connection reset by peer")
CREATED = t.TopicCreated(name="x", partitions=1, created_at="2026-01-01T00:00:00.000Z")


class Clock:
    """Time that passes when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    monotonic = __call__

    def sleep(self, seconds: float) -> None:
        """Let time pass. So this is all of the module ``time`` that a command knows of."""
        self.now += seconds


class World:
    """A route on a fake clock with known keys, and the record of every step that was taken."""

    def __init__(self, nodes: Iterable[str] = NODES) -> None:
        self.clock = Clock()
        self.keys = 0
        self.route = Route(nodes, clock=self.clock, uniform=lambda low, high: (low + high) / 2, make_key=self._key)
        self.steps: list[Step] = []

    def _key(self) -> str:
        self.keys += 1
        return f"key-{self.keys}"

    @property
    def sends(self) -> list[Send]:
        return [step for step in self.steps if isinstance(step, Send)]

    @property
    def asked(self) -> list[str]:
        return [send.node for send in self.sends]

    def drive(self, plan: Plan[R], serve: Callable[[Send], Event], *, takes_s: float = 0.0) -> R:
        """Carry out a plan; every answer takes so long, and a lost one takes all its time."""
        event: Event | None = None
        try:
            step = next(plan)
            while True:
                self.steps.append(step)
                if isinstance(step, Sleep):
                    assert step.seconds >= 0
                    self.clock.now += step.seconds
                    event = None
                else:
                    event = serve(step)
                    self.clock.now += step.timeout_s if event is SILENT else takes_s
                step = plan.send(event)
        except StopIteration as done:
            result: R = done.value
            return result

    def play(self, plan: Plan[R], *events: Event) -> R:
        """Carry out a plan whose sends get these answers, in this order, and no more."""
        script = list(events)
        result = self.drive(plan, lambda _: script.pop(0))
        assert not script, f"not asked for: {script}"
        return result


SILENT = Failure("lost", "no answer in time")


def reply(
    operation: str, value: Reply, *, node: str = "n1", leader: str | None = "n1", sequence: int | None = None
) -> Answer:
    """Return the answer of an accepted call."""
    answer = wire.answer_reply(BY_NAME[operation], value)
    headers = {"served-by": node, **({"quorl-leader": leader} if leader else {})}
    if sequence is not None:
        headers["quorl-sequence"] = str(sequence)
    return Answer(answer.status, {**answer.headers, **headers}, answer.body)


def problem(code: str, detail: str = "", *, retry_after_ms: int | None = None, **headers: Any) -> Answer:
    """Return the answer of a call that has a problem."""
    found = Problem(code, detail, retry_after_ms=retry_after_ms)
    answer = wire.answer_problem(found, instance="/", request_id="req-1", node="n1", leader=None)
    return Answer(answer.status, {**answer.headers, **headers}, answer.body)


def created(**options: Any) -> Answer:
    return reply("create_topic", CREATED, **options)


def appended(count: int, *, first: int = 0, partition: int = 0, **options: Any) -> Answer:
    ranges = [t.Range(partition=partition, first_offset=first, last_offset=first + count - 1)]
    return reply("append", t.Appended(ranges=ranges), **options)
