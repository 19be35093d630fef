"""One call on its way through the gateway: what it asks for, under which key, until when, and in whose voice.

A voice turns replies and problems into answers: ``/v1`` speaks one, the founding routes another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from quorl.cluster.consensus.port import NotApplied
from quorl.cluster.protocol.entry import Sealed
from quorl.cluster.protocol.grammar import Operation, Reply, Request
from quorl.cluster.protocol.problems import CATALOGUE, Problem
from quorl.cluster.protocol.wire import Answer, Call, Options, answer_problem, answer_reply


class Declined(Exception):
    """The call ends with a problem that is not the call's own fault."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem


class Scene(NamedTuple):
    """What a problem document says about where it happened."""

    instance: str
    request_id: str
    node: str
    leader: Callable[[], str | None]
    """Asked when there is a problem to tell of."""

    def told(self) -> dict[str, Any]:
        """Return it as the fields of a problem document."""
        return {
            "instance": self.instance,
            "request_id": self.request_id,
            "node": self.node,
            "leader": self.leader(),
        }


class Voice(Protocol):
    """How answers look."""

    def reply(self, row: Operation, reply: Reply) -> Answer:
        """Return the answer for an accepted request."""

    def problem(self, problem: Problem, scene: Scene) -> Answer:
        """Return the answer for a problem."""


class PlainVoice:
    """The voice of ``/v1``."""

    reply = staticmethod(answer_reply)
    """See ``Voice``."""

    def problem(self, problem: Problem, scene: Scene) -> Answer:
        """See ``Voice``."""
        return answer_problem(problem, **scene.told())


class Asked(NamedTuple):
    """What a call means."""

    row: Operation
    request: Request[Any]
    options: Options


@dataclass(slots=True)
class Visit:
    """One call under way. Moments are on the core's monotonic clock."""

    call: Call
    row: Operation
    request: Request[Any]
    options: Options
    voice: Voice
    scene: Scene
    key: str
    ready_until: float
    """When to stop trying to become able to answer at all."""
    poll_until: float
    """When the caller's own wait is over."""
    until: float
    """When to stop trying: ``ready_until`` with the caller's wait on top."""
    deadline: float
    """When the answer leaves, whatever it is."""
    maybe_applied: bool = False
    """Whether something may have been done, of which no outcome is known."""
    sealed: Sealed | None = None
    """A write that is one command, once it is needed: it, with its key, the same at every try."""
    leaderless: bool = False
    """Whether it waits for a leader now, and for nothing else."""


_TRY_ELSEWHERE = {"no_leader", "shutting_down"}


def refuse_if_final(visit: Visit, reason: NotApplied) -> None:
    """Let the visit go on only if trying elsewhere may help, or an earlier try may have done something."""
    if reason.code in _TRY_ELSEWHERE or visit.maybe_applied:
        return
    assert reason.code in CATALOGUE, f"no problem is called {reason.code}"
    raise Declined(Problem(reason.code, str(reason)))
