"""Everything of HTTP but the socket: a call comes in, exactly one answer goes out, in time.

Invariants: ``handle`` raises nothing but its own cancellation; it answers within the deadline, plus the seconds that
the caller asked to wait; what the answer says about the outcome is true.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, unbind_contextvars

from quorl.cluster.node import founding
from quorl.cluster.node.claiming import Claiming
from quorl.cluster.node.core import Core, Logger, Peers
from quorl.cluster.node.deadlines import Deadlines
from quorl.cluster.node.forwarding import Leading, gave_up, sequence_of
from quorl.cluster.node.gathering import Gathering
from quorl.cluster.node.meters import UNKNOWN, Meters
from quorl.cluster.node.polls import LongPolls
from quorl.cluster.node.reading import Reading
from quorl.cluster.node.sealing import Sealer
from quorl.cluster.node.syncing import Syncing
from quorl.cluster.node.transferring import Transferring
from quorl.cluster.node.visit import Asked, Declined, PlainVoice, Scene, Visit, Voice
from quorl.cluster.node.writing import Writing
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Errand
from quorl.cluster.protocol.leases import Claim, Sync, Wish
from quorl.cluster.protocol.problems import Problem, ProtocolError
from quorl.cluster.protocol.queues import Defaults
from quorl.cluster.protocol.tasks import GetResult, GetTask
from quorl.cluster.protocol.together import ClaimMany
from quorl.cluster.protocol.wire import Answer, Call, decode

DEADLINE_S = 10.0
"""A call is answered within so long, besides what it asked to wait."""
LEADER_WAIT_S = 2.0
"""So long a call that has certainly done nothing waits for a leader; then its caller had better ask elsewhere."""
_TRYING_SHARE = 0.95
"""The share of the deadline in which new tries begin; the rest is for bringing an answer home."""

_CALLERS_SHARE = 0.9
"""The share of the time that the caller waits; the rest is for bringing the answer to him."""

_TURNED_AWAY = frozenset((413, 429, 503))
"""The statuses that tell a caller to come again later, or with less."""

_WAITING = frozenset({t.Browse, t.Consume, GetTask, GetResult, Claim, ClaimMany, Sync})
"""What may ask to wait."""
_REQUEST_ID = re.compile(r"[!-~]{1,200}")


class _Coded(msgspec.Struct):
    code: str = "refused"


def _code_of(answer: Answer) -> str:
    return msgspec.json.decode(answer.body, type=_Coded).code


class Gateway:
    """The door of one node."""

    def __init__(
        self,
        core: Core,
        peers: Peers,
        new_key: Callable[[], str],
        request_id: Callable[[], str],
        *,
        deadline_s: float = DEADLINE_S,
        leader_wait_s: float = LEADER_WAIT_S,
        wait_s_max: float = limits.WAIT_S_MAX,
        defaults: Defaults | None = None,
        log: Logger | None = None,
        meters: Meters | None = None,
    ) -> None:
        self._core = core
        self._meters = meters or Meters()
        self._new_key = new_key
        self._new_request_id = request_id
        self._deadline_s = deadline_s
        self._wait_s_max = wait_s_max
        self._log: Logger = structlog.get_logger() if log is None else log
        self._polls = LongPolls(core)
        self._deadlines = Deadlines()
        leading = self.leading = Leading(core, peers, leader_wait_s)
        sealer = Sealer(defaults or Defaults(), core.may_pack)
        self._reading = Reading(core, leading, self._polls)
        claiming = Claiming(core, sealer)
        self._gathering = Gathering(core, leading)
        syncing = Syncing(core, claiming, self._gathering, self._reading, sealer)
        self._writing = Writing(core, leading, self._polls, claiming, syncing, sealer)
        self._transferring = Transferring(core, leading, peers)
        self._voice = PlainVoice()
        self.running = 0
        """Calls that are being answered."""

    def drain(self) -> None:
        """Refuse new calls and end long polls now; what runs otherwise goes on to its end."""
        self._polls.drain()
        self._gathering.hurry()

    async def close(self) -> None:
        """Give up what this node does for calls that have ended."""
        await self._gathering.close()

    async def handle(self, call: Call) -> Answer:
        """Answer one call."""
        request_id = self._request_id(call)
        scene = Scene(call.path, request_id, self._core.name, self._core.leader)
        founding_route = founding.route_of(call.path)
        voice = founding_route or self._voice
        self.running += 1
        bind_contextvars(request_id=request_id)  # stands in every line that is written until the answer is known
        try:
            answer = await self._answer(call, founding_route, voice, scene)
        except Exception as error:
            self._log.exception("call_failed", request_id=request_id, method=call.method, path=call.path)
            detail = f"{type(error).__name__}; the log of {self._core.name} has more under this request id."
            answer = voice.problem(Problem("internal", detail), scene)
            self._count(answer)
        finally:
            self.running -= 1
            unbind_contextvars("request_id")
        return self._signed(answer, request_id)

    def _count(self, answer: Answer, operation: str = UNKNOWN, seconds: float | None = None) -> Answer:
        self._meters.called(operation, answer.status, seconds)
        if answer.status in _TURNED_AWAY:
            self._meters.turned_away[_code_of(answer)] += 1
        return answer

    def refuse(self, call: Call, problem: Problem) -> Answer:
        """Answer a call that was not even read with a problem."""
        request_id = self._request_id(call)
        scene = Scene(call.path, request_id, self._core.name, self._core.leader)
        voice = founding.route_of(call.path) or self._voice
        return self._signed(self._count(voice.problem(problem, scene)), request_id)

    async def _answer(self, call: Call, founding_route: founding.Route | None, voice: Voice, scene: Scene) -> Answer:
        try:
            if self._polls.draining:
                raise Declined(Problem("shutting_down", f"{self._core.name} is shutting down."))
            asked = Asked(*decode(call)) if founding_route is None else founding_route.decode(call)
            visit = self._visit(call, asked, voice, scene)
        except (ProtocolError, Declined) as refused:
            return self._count(voice.problem(refused.problem, scene))
        began_s = self._core.monotonic()
        try:
            answer = await self._in_time(visit)
        except Declined as declined:
            problem = declined.problem
            if visit.maybe_applied and problem.code != "commit_unknown":
                problem = gave_up(self._core, visit, problem).problem
            answer = voice.problem(problem, scene)
            if problem.code == "commit_unknown":
                answer.headers["idempotency-key"] = visit.key
        waits = visit.poll_until > began_s
        return self._count(answer, visit.row.name, None if waits else self._core.monotonic() - began_s)

    def _visit(self, call: Call, asked: Asked, voice: Voice, scene: Scene) -> Visit:
        row, request, options = asked
        now, key = self._core.monotonic(), options.key or self._new_key()
        wait_s, answer_s = self._patience(call, asked)
        ready_until = now + _TRYING_SHARE * answer_s
        return Visit(
            call,
            row,
            request,
            options,
            voice,
            scene,
            key,
            ready_until,
            now + wait_s,
            ready_until + wait_s,
            now + answer_s + wait_s,
        )

    def _patience(self, call: Call, asked: Asked) -> tuple[float, float]:
        """The seconds to wait for something to answer with, and those to answer in besides.

        A caller that says how long it waits is answered before that; otherwise it would never learn what is known here.
        """
        wait_s, answer_s = min(_wait_s(call, asked), self._wait_s_max), self._deadline_s
        given_ms = call.headers.get("quorl-timeout-ms", "")
        if given_ms.isdecimal() and len(given_ms) < 10:
            given_s = _CALLERS_SHARE * int(given_ms) / 1000
            answer_s = min(answer_s, max(given_s - wait_s, given_s / 4))
            wait_s = min(wait_s, given_s - answer_s)
        return wait_s, answer_s

    async def _in_time(self, visit: Visit) -> Answer:
        wait_s = visit.until - visit.ready_until
        within_s = visit.deadline - self._core.monotonic()
        scope = self._deadlines.within(within_s)
        try:
            with scope:
                if not wait_s:
                    return await self._routed(visit)
                with self._polls.slot():
                    return await self._routed(visit)
        except TimeoutError:
            if not scope.expired:
                raise
            detail = f"{self._core.name} could not answer within {max(0.0, within_s):.3g} s."
            # A loop that was late for the end of the wait for a leader has come to both ends at once.
            certain = self._core.outage() if visit.leaderless else Problem("not_ready", detail)
            raise gave_up(self._core, visit, certain) from None

    async def _routed(self, visit: Visit) -> Answer:
        if isinstance(visit.request, Errand):
            return await self._transferring.answer(visit)
        if visit.row.writes:
            return await self._writing.write(visit)
        if isinstance(visit.voice, founding.Route):
            match visit.request:
                case t.ListTopics():
                    return await self._reading.list_names(visit)
                case w.ListWorkers():
                    return await self._reading.log_of_heartbeats(visit)
        return await self._reading.read(visit)

    def _request_id(self, call: Call) -> str:
        given = call.headers.get("request-id") or call.headers.get("x-request-id") or ""
        return given if given and _REQUEST_ID.fullmatch(given) else self._new_request_id()

    def _signed(self, answer: Answer, request_id: str) -> Answer:
        """Add the headers of every answer; a sequence that the answer tells of is never undercut."""
        core = self._core
        headers = answer.headers
        headers["quorl-sequence"] = str(max(core.sequence(), sequence_of(answer)))
        headers["served-by"] = core.name
        headers["quorl-leader"] = core.leader() or ""
        headers["quorl-term"] = str(core.term())
        headers["request-id"] = request_id
        headers["cache-control"] = "no-store"
        return answer


def _wait_s(call: Call, asked: Asked) -> float:
    """The seconds that the caller wants to wait, or what a forwarding node says is left of them."""
    if type(asked.request) not in _WAITING:
        return 0.0
    wait_s = 0.0
    match asked.request:
        case t.Browse() | t.Consume() | GetTask() | GetResult() | Claim() | ClaimMany():
            wait_s = asked.request.wait
        case Sync(claim=Wish() as wish):
            wait_s = wish.wait
    left_ms = call.headers.get("quorl-wait-ms", "")
    if asked.options.hops and left_ms.isdecimal() and len(left_ms) < 10:
        return min(wait_s, int(left_ms) / 1000)
    return wait_s
