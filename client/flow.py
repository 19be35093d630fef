"""The client's mind without its hands: which node, when again, under which key, what an answer means.

``flow`` is a generator. It yields ``Send`` or ``Sleep``, is sent what came of it (an ``Answer``, a ``Failure``, or None
after a sleep), and ends with the reply or raises one of the errors in ``errors``. Both clients drive this one generator.

What an answer means:

=============================================== ======================================================================
answer                                          meaning
=============================================== ======================================================================
2xx                                             the reply
4xx, ``command_failed``                         refused: the request is the reason
4xx that no node of ours wrote                  not applied: again elsewhere
408, 429, 503, 507, 508 with a code of ours      not applied: again elsewhere, or later
504, any other 5xx, an unreadable 2xx or 5xx    a write may have been applied
501, 505 that no node of ours wrote             not applied: whoever says so has not tried
connection refused, no route, no such host      not applied: again elsewhere; of every node: soon the end, if ``refused_s`` says so
connection taken, and nothing said on it        the same, with twice the patience: a node may be very busy
what speaks no HTTP, before the call is sent    not applied: again elsewhere
connection lost, no answer in time              a write may have been applied
=============================================== ======================================================================

What no node of ours wrote, which has no ``served-by`` and no form of ours, comes from another server, or from a proxy before
nodes. A proxy may have passed a write on whatever it says, so that is in doubt. It is asked again if it was once heard to
have a node behind it, or says that it has something behind it that is away (502, 503, 504, 52x); else this will not change.

Invariants: a write has one idempotency key and one body for all its repeats, so repeating one that may have been applied
is safe; nothing is repeated after a refusal; nothing is sent after the deadline; once a write may have been applied, the
call ends with the machine's own verdict or as ``OutcomeUnknown``, never as ``Unavailable``; a write that was certainly not
applied is not put in doubt by one more attempt that has too little time to bring an answer.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias, TypeVar, cast

import msgspec

from quorl.client.errors import OutcomeUnknown, Try, Unavailable, rejected
from quorl.client.route import Route, unported, unsigned
from quorl.cluster.protocol import problems, wire
from quorl.cluster.protocol.channel import NotHttp, Silent
from quorl.cluster.protocol.grammar import Consistency, Operation, Query, Reply, Request
from quorl.cluster.protocol.leases import Sync
from quorl.cluster.protocol.operations import BY_REQUEST
from quorl.cluster.protocol.wire import Answer, Call

R = TypeVar("R")

TIMEOUT_S = 10.0
"""Of a call. The node is told, and answers a little sooner, so that it is the node that says what became of it."""
CONNECT_TIMEOUT_S = 2.0
"""To any node, far away ones too; who has not answered by then is asked last."""
ATTEMPT_SHARE = 0.4
"""One attempt may take this share of the time for the call, so that a silent node does not use all of it up."""
ATTEMPT_S_MIN = 0.5
"""With less time left, or a quarter of the time for the call if that is less, no write is tried again: nodes answer sooner
than they are waited for (``TIMEOUT_HEADER``), but not in no time."""
TIMEOUT_HEADER = "quorl-timeout-ms"
"""Tells a node how long its answer is waited for, so that it says in time that it could do nothing."""
SILENT_PATIENCE = 2
"""So many times as long as for those that refuse is waited for those that take the connection and say nothing."""
BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 1.0
"""Between rounds through all nodes: at first shorter than an election, then no burden to nodes that are in need."""

_TOO_MANY = 429
_NOT_APPLIED = frozenset(
    {
        "request_timeout",
        "too_many_requests",
        "no_leader",
        "no_quorum",
        "not_ready",
        "shutting_down",
        "storage_full",
        "too_many_streams",
    }
)
_UNREADABLE = "unreadable_answer"
_OF_PROXIES = frozenset({502, 503, 504, *range(520, 531)})
"""What they say when those behind them are away; the last are a large one's own."""
_NOT_TRIED = frozenset({501, 505})
_UNREACHABLE, _LOST, _ANSWERED, _IN_DOUBT = range(4)
"""How much a try tells of why a call led nowhere."""
_OF_THE_MACHINE = frozenset({"idempotency_key_reused", "command_failed"})


class Send(NamedTuple):
    """Send the call to the node and wait no longer than so many seconds for its answer."""

    node: str
    call: Call
    timeout_s: float

    def headers(self) -> dict[str, str]:
        """Return the headers of this attempt."""
        return {**self.call.headers, TIMEOUT_HEADER: str(int(1000 * self.timeout_s))}


class Sleep(NamedTuple):
    """Do nothing for a while."""

    seconds: float


class Failure(NamedTuple):
    """No answer. ``refused``, ``silent``, ``unreachable``: the call certainly did not arrive; ``lost``: it may have.

    ``refused`` is said at once, by whoever is there in the node's place: nothing listens, no route, no such host.
    ``silent``: whoever is there took the connection and said nothing before the call was sent, or broke off.
    """

    kind: Literal["refused", "silent", "unreachable", "lost"]
    why: str
    foreign: bool = False
    """Whether something answered that does not speak HTTP."""


def unreached(error: OSError, why: str) -> Failure:
    """Return the failure of a connection on which the call was not sent yet. ``why``: the error in words."""
    if isinstance(error, NotHttp):
        return Failure("refused", why, foreign=True)
    if isinstance(error, TimeoutError) and not isinstance(error, Silent):
        return Failure("unreachable", "time-out while connecting")
    broke_off = isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)
    return Failure("silent" if broke_off or isinstance(error, Silent) else "refused", why)


Step: TypeAlias = Send | Sleep
Event: TypeAlias = Answer | Failure | None
Plan: TypeAlias = Generator[Step, Event, R]


def flow(
    route: Route,
    request: Request[R],
    *,
    key: str | None = None,
    timeout_s: float = TIMEOUT_S,
    consistency: Consistency | None = None,
    doubt: bool = False,
) -> Plan[R]:
    """Plan one call. ``doubt``: it repeats, under its ``key``, a call that may have been applied already."""
    row = BY_REQUEST.get(type(request))
    if row is None:
        raise TypeError(f"{type(request).__name__} is no operation: see quorl.cluster.protocol.operations")
    campaign = _Campaign(route, row, request, key, timeout_s, consistency, doubt)
    while True:
        node, delay_s = campaign.next_node()
        if delay_s > 0:
            yield Sleep(delay_s)
        event = yield campaign.send(node)
        assert event is not None, "a Send is answered with an Answer or a Failure"
        if isinstance(event, Failure):
            campaign.failed(node, event)
        elif (reply := campaign.answered(node, event)) is not None:
            return cast("R", reply)


class _Campaign:
    """The state of one call: what was tried, who may be asked again when, whether it may have been applied."""

    def __init__(
        self,
        route: Route,
        row: Operation,
        request: Request[Any],
        key: str | None,
        timeout_s: float,
        consistency: Consistency | None,
        doubt: bool,
    ) -> None:
        self.route = route
        self.row = row
        self.request = request
        self.key = (key or route.make_key()) if row.writes else None
        self.consistency = consistency
        self.doubt = doubt and row.writes
        self.timeout_s = timeout_s
        self.wait_s = held_back_s(request)
        self.started = route.clock()
        self.deadline = self.started + timeout_s + self.wait_s
        self.nobody = True
        """Whether all that was tried so far was refused or met with silence, or answered by something else than a node."""
        self.silent = False
        """Whether some of it was met with silence."""
        self.foreign: set[str] = set()
        """Where something else than a node answered last."""
        self.doubt_of_ours = self.doubt
        """Whether a node of ours may have applied it, as far as others than foreign answers tell."""
        self.not_before: dict[str, float] = {}
        self.tries: dict[str, tuple[int, str]] = {}
        """By node what tells most of its tries, and how much that is."""
        self.code, self.advice = "unavailable", ""
        self.request_id = ""
        self.retry_after_s: float | None = None
        self._backoff_s = BACKOFF_S_MIN
        self._call = self._encode()

    def _encode(self) -> Call:
        level: Consistency | None = None
        if issubclass(self.row.request, Query):
            level = self.consistency
            if level is None and self.row.consistency == "local" and self.route.sequence:
                level = "session"  # read what this client has written, whichever node answers
        seen = self.route.sequence if level == "session" else 0
        try:
            return wire.encode(self.request, self.key, consistency=level, min_sequence=seen)
        except problems.ProtocolError as error:
            document = problems.document_of(error.problem, instance="", request_id="", node="", leader=None)
            raise rejected(document) from None

    def next_node(self) -> tuple[str, float]:
        """Return the node to ask next and how long to wait before; raises when that would be too late."""
        now = self.route.clock()
        if not self.tries:  # nearly always: nothing is known against anybody
            if now >= self.deadline:
                self.give_up()
            return self.route.first(), 0.0
        order = self.route.order()
        node = min(order, key=lambda candidate: max(now, self.not_before.get(candidate, now)))
        delay_s = max(0.0, self.not_before.get(node, now) - now)
        if now + delay_s + self._needed_s() >= self.deadline or self._nobody_is_there(now + delay_s):
            self.give_up()
        return node, delay_s

    def _nobody_is_there(self, then: float) -> bool:
        """Whether to give up before the deadline, because no node was there for as long as the route allows."""
        limit_s = self.route.refused_s
        if limit_s is None or self.route.met or then < self.started + limit_s * (SILENT_PATIENCE if self.silent else 1):
            return False
        return self._nobody_was_met()

    def _nobody_was_met(self) -> bool:
        """Whether every node was tried, and none was there."""
        return self.nobody and len(self.tries) == len(self.route.nodes)

    def _needed_s(self) -> float:
        """The time without which an attempt is not worth its risk; there is none once a write is in doubt anyway."""
        again = bool(self.tries) and self.row.writes and not self.doubt
        return min(ATTEMPT_S_MIN, self.timeout_s / 4) if again else 0.0

    def send(self, node: str) -> Send:
        """Return the next attempt; no attempt is planned to outlast the call."""
        now = self.route.clock()
        if now >= self.deadline:
            self.give_up()
        if self.tries and self.wait_s and not self.row.writes:
            left_s = max(0.0, min(self.wait_s, self.deadline - now - self.timeout_s))
            self.request = msgspec.structs.replace(self.request, wait=left_s)
            self._call = self._encode()
        patience_s = self.wait_s + ATTEMPT_SHARE * self.timeout_s
        return Send(node, self._call, min(patience_s, self.deadline - now))

    def failed(self, node: str, failure: Failure) -> None:
        """Take note of a call without an answer."""
        self.route.failed(node)
        (self.foreign.add if failure.foreign else self.foreign.discard)(node)
        self.nobody &= failure.foreign or failure.kind in {"refused", "silent"}
        self.silent |= failure.kind == "silent"
        if self.row.writes and failure.kind == "lost":
            self.doubt = True
            self.doubt_of_ours |= not failure.foreign
        if failure.foreign:
            self.code, self.advice = _UNREADABLE, problems.CATALOGUE[_UNREADABLE].hint
        self._note(node, _LOST if failure.kind == "lost" else _UNREACHABLE, failure.why + unported(node))
        self._later(node, at_least_s=math.inf if failure.foreign and not self.route.knows(node) else 0.0)

    def answered(self, node: str, answer: Answer) -> Reply | None:
        """Return the reply; or raise what the answer says; or take note that the call must be made again."""
        try:
            reply = wire.read_answer(self.row, answer)
        except problems.Refusal as refusal:
            problem = refusal.problem
        else:
            self.route.answered(node, answer)
            return reply
        foreign = problem.code == _UNREADABLE and "served-by" not in answer.headers
        (self.foreign.add if foreign else self.foreign.discard)(node)
        self.nobody &= foreign
        self.request_id = problem.request_id
        meaning = self._meaning(answer.status, problem)
        why = f"{answer.status} {problem.code}" + (f" ({problem.detail})" if problem.detail else "")
        why += unported(node) if problem.code == _UNREADABLE else ""
        self._note(node, _IN_DOUBT if meaning == "doubt" else _ANSWERED, why)
        if meaning == "refused":
            self.route.answered(node, answer)
            if self.doubt and not self._of_the_machine(problem.code):
                self.give_up()
            raise rejected(problem)
        self.code, self.advice = problem.code, problem.hint
        if self.row.writes and meaning == "doubt":
            self.doubt = True
            self.doubt_of_ours |= not foreign
        self._again(node, answer, problem)
        return None

    def _note(self, node: str, telling: int, why: str) -> None:
        """Remember why a try led nowhere, unless an earlier one at the same node tells more.

        The first of several failures tells most, for it had the longest time; of several answers the latest is true.
        """
        known = self.tries.get(node)
        if known is None or telling > known[0] or telling == known[0] >= _ANSWERED:
            self.tries[node] = (telling, why)

    def _meaning(self, status: int, problem: problems.ProblemDocument) -> Literal["refused", "not applied", "doubt"]:
        if problem.code in _NOT_APPLIED:
            return "not applied"
        if problem.code == _UNREADABLE:
            return "not applied" if 400 <= status < 500 or status in _NOT_TRIED else "doubt"
        if self._of_the_machine(problem.code) or (status < 500 and not problem.retryable):
            return "refused"
        return "not applied" if status == _TOO_MANY else "doubt"  # 429 never comes after the deed, whatever its code

    def _again(self, node: str, answer: Answer, problem: problems.ProblemDocument) -> None:
        """Plan the repeat of a call that was not applied, or of one that may have been."""
        self.retry_after_s = _retry_after_s(answer, problem)
        if problem.code == "too_many_requests":  # the leader says so, whichever node relayed it
            self.route.answered(node, answer)
            self._later(*self.route.nodes, at_least_s=self.retry_after_s or 0.0)
            return
        self.route.failed(node)
        hopeless = not problem.retryable or (problem.code == _UNREADABLE and answer.status < 500)
        if node in self.foreign and answer.status not in _OF_PROXIES and not self.route.knows(node):
            hopeless = True
        self._later(node, at_least_s=math.inf if hopeless else self.retry_after_s or 0.0)

    def _of_the_machine(self, code: str) -> bool:
        """Whether a refusal with this code is the verdict of the replicated state, receipts included."""
        return code in _OF_THE_MACHINE or code in {str(r.__struct_config__.tag) for r in self.row.rejections}

    def _later(self, *nodes: str, at_least_s: float = 0.0) -> None:
        """Let nodes be for a while, with decorrelated jitter, so that many clients do not return in step."""
        self._backoff_s = min(BACKOFF_S_MAX, self.route.uniform(BACKOFF_S_MIN, 3 * self._backoff_s))
        until = self.route.clock() + max(at_least_s, 0.0) + self._backoff_s
        for node in nodes:
            self.not_before[node] = max(until, self.not_before.get(node, until))

    def give_up(self) -> NoReturn:
        """Raise what this call has come to."""
        took_s = self.route.clock() - self.started
        tries = tuple(Try(unsigned(node), self.tries.get(node, (0, "not tried"))[1]) for node in self.route.nodes)
        answered = any(telling >= _ANSWERED for telling, _ in self.tries.values())
        did = "could take the call" if answered else "answered"
        called = _describe(self.row, self.request)
        detail = f"no node {did} in {took_s:.1f} s while calling {called}"
        if self.foreign and self.foreign.issuperset(self.tries):
            detail = f"what answers there is not quorl, while calling {called}"
            if self.doubt and not self.doubt_of_ours:
                detail = f"what answers there is not quorl: {called} was not applied, unless something there passed it on to a node"
        if self.doubt:
            assert self.key is not None
            raise OutcomeUnknown(detail, self.key, self.request, tries, self.request_id)
        error = Unavailable(detail, tries, self.code, self.request_id, self.retry_after_s, self.advice)
        error.nobody = self.route.refused_s is not None and not self.route.met and self._nobody_was_met()
        raise error


def _retry_after_s(answer: Answer, problem: problems.ProblemDocument) -> float | None:
    if isinstance(problem.retry_after_ms, int):
        return problem.retry_after_ms / 1000
    header = answer.headers.get("retry-after", "")
    return float(header) if header.isascii() and header.isdigit() else None


def held_back_s(request: Request[Any]) -> float:
    """How long the answer may be held back on purpose."""
    asking = request.claim if isinstance(request, Sync) else request
    return float(getattr(asking, "wait", 0.0))


def _describe(row: Operation, request: Request[Any]) -> str:
    name = next((found for field in ("topic", "queue", "id", "name") if (found := getattr(request, field, None))), None)
    return f"{row.name} {name!r}" if isinstance(name, str) else row.name
