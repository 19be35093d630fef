"""Workers of a simulated cluster, honest and not: they beat, claim, run, report; crash, freeze, forget, and come back.

A life runs on a loop of its own, so that a crash ends it where it stands and a freeze lets nothing of it move, its heartbeat
included. Some lives do everything with ``Sync``, others with a call for each thing.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from quorl.client.errors import OutcomeUnknown, Unavailable
from quorl.client.errors import Rejected as Refused
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.operations import BY_REQUEST
from quorl.cluster.protocol.problems import Refusal
from quorl.cluster.protocol.wire import encode, read_answer
from tests.simulation.task_history import Life, Orders, TaskHistory
from tests.simulation.task_workload import note
from tests.simulation.workload import Actor

if TYPE_CHECKING:
    from tests.simulation.loop import SimLoop
    from tests.simulation.world import World

R = TypeVar("R")

ROOM = 3
"""Tasks that one worker runs at the same time."""
_GONE = {"worker_not_alive", "worker_not_found"}


class Badge(NamedTuple):
    """What all lives of one worker have in common."""

    name: str
    queues: tuple[str, ...]
    standby: bool = False
    dead_after_ms: int = 2000
    heartbeat_ms: int = 400


class Report(NamedTuple):
    """How a run ended."""

    task_id: str
    token: int
    how: str
    result: bytes = b""


class Program:
    """One life. ``done`` is called once, with the seconds after which it comes back."""

    def __init__(self, world: World, history: TaskHistory, badge: Badge, dice: random.Random, number: int) -> None:
        self.world = world
        self.history = history
        self.badge = badge
        self.dice = dice
        self.actor = Actor(world, f"{badge.name}.{number}")
        self.life: Life
        self.loop: SimLoop
        self.ended = False
        self.back_after_s = 0.0
        self._finished: list[Report] = []
        self._wanted = asyncio.Event()
        self._stop: set[int] = set()
        self._at_work: list[asyncio.Task[None]] = []
        self._quiet = False
        self._syncs = dice.random() < 0.6

    async def run(self) -> None:
        """Register, and work until the life is over."""
        badge, running = self.badge, asyncio.get_running_loop()
        self.loop = running  # type: ignore[assignment]
        registered = await self.actor.surely(
            w.RegisterWorker(
                name=badge.name,
                queues=badge.queues,
                standby=badge.standby,
                heartbeat_ms=badge.heartbeat_ms,
                dead_after_ms=badge.dead_after_ms,
            )
        )
        self.life = Life(registered.worker_id, badge.name, registered.dead_after_ms)
        if registered.worker_id in self.history.lives:
            self.history.conflict(f"ID worker {registered.worker_id} given twice")
        self.history.lives[registered.worker_id] = self.life
        beating = running.create_task(self._beat())
        while not self.life.over:
            self._misbehave()
            await (self._sync() if self._syncs else self._claim_and_report())
            if self._quiet and not self.life.held:
                await self._leave()
        # What still runs finds out that nobody wants to know; let it try.
        await asyncio.sleep(self.dice.choice([0.0, 1.0]))
        await beating
        self.end(self.dice.expovariate(1 / 0.5))

    def end(self, back_after_s: float) -> None:
        """Stop where it stands."""
        self.life.over = True
        self.ended = True
        self.back_after_s = back_after_s
        self.world.later(0.0, lambda: self.world.drop(self.loop))

    def _misbehave(self) -> None:
        if self.history.calm:
            return
        act = self.dice.random()
        limit_s = self.badge.dead_after_ms / 1000
        if act < 0.015:
            self.history.count("crashes")
            self.end(self.dice.choice([0.1, 0.5 * limit_s, 2 * limit_s]))
        elif act < 0.035:
            self.history.count("freezes")
            self.world.freeze(self.loop, self.dice.choice([0.5, 1.3, 2.0]) * limit_s)
        elif act < 0.04:
            self._quiet = True

    async def _leave(self) -> None:
        self.life.over = True
        try:
            await self.actor.call(w.RemoveWorker(worker_id=self.life.worker_id), timeout_s=3.0)
        except (Refused, Unavailable, OutcomeUnknown):
            return

    # -- beating -----------------------------------------------------------------------------------------------------
    def _sign(self) -> e.Beat:
        life = self.life
        return e.Beat(tokens=tuple(sorted(life.held)), claims=tuple(life.waiting), claimed=life.claimed)

    async def _beat(self) -> None:
        """Beat at one node after the other, as a thread of its own would."""
        names, turn = self.world.names, self.dice.randrange(5)
        while not self.life.over:
            turn += 1
            beat = self._sign() if self.dice.random() < 0.9 else e.Beat()
            sent_at = self.world.clock.now
            try:
                call = encode(e.Sync(worker_id=self.life.worker_id, beat=beat), self.actor.route.make_key())
                answer = await self.actor.ask(names[turn % len(names)], call, 1.0)
                synced = read_answer(BY_REQUEST[e.Sync], answer)
            except (PeerUnreachable, PeerLost):
                await asyncio.sleep(0.05)
            except Refusal as refusal:
                if refusal.problem.code in _GONE:
                    self.life.over = True
                    return
                await asyncio.sleep(0.1)
            else:
                assert isinstance(synced, e.Synced)
                self._beaten(sent_at, synced)
                await asyncio.sleep(self.badge.heartbeat_ms / 1000)

    def _beaten(self, sent_at: float, synced: e.Synced) -> None:
        self.life.beaten_at = max(self.life.beaten_at, sent_at)
        self.history.count("beats")
        said = synced.directives
        self._quiet |= said.quiet or said.terminate
        for token in said.lost:
            if token in self.world.task_checks.shadows.leases and token in self.life.held:  # type: ignore[union-attr]
                self.history.conflict(f"LOST-TOLD: {self.badge.name} was told that lease {token} is lost, and it lives")
            self._stop.add(token)
            self.life.held.pop(token, None)

    # -- claiming and reporting --------------------------------------------------------------------------------------
    async def _sync(self) -> None:
        """Everything in one call, which waits for tasks only while there is nothing to report."""
        life, room = self.life, ROOM - len(self.life.held)
        if not self._finished and (room <= 0 or self._quiet):
            await self._something()
            return
        finished, self._finished = self._finished, []
        wish = None
        if room > 0 and not self._quiet:
            life.claimed += 1
            life.waiting[life.claimed] = None
            wait = 0.0 if finished else self.dice.choice([0.0, 0.5, 2.0])
            wish = e.Wish(max=self.dice.randint(1, room), wait=wait, number=life.claimed)
        number = life.claimed
        request = e.Sync(
            worker_id=life.worker_id,
            beat=self._sign() if self.dice.random() < 0.7 else None,
            complete=tuple(
                e.Completion(task_id=r.task_id, lease=r.token, result=msgspec.Raw(r.result))
                for r in finished
                if r.how == "complete"
            ),
            fail=tuple(
                e.Failure(task_id=r.task_id, lease=r.token, error=_error(r), retry=r.how != "stop")
                for r in finished
                if r.how in {"fail", "stop"}
            ),
            release=tuple(
                e.Return(task_id=r.task_id, lease=r.token, delay_ms=_later_ms(r.token))
                for r in finished
                if r.how == "release"
            ),
            claim=wish,
        )
        sent_at = self.world.clock.now
        synced = await self._insist(request)
        if wish is not None:
            life.waiting.pop(number, None)
        if synced is None:
            for report in finished:
                life.held.pop(report.token, None)
            return
        if request.beat is not None:
            self._beaten(sent_at, synced)
        rejected = {one.task_id: one.code for one in synced.rejected}
        for report in finished:
            self._reported(report, rejected.get(report.task_id))
        self._take(synced.tasks)
        if wish is not None and not synced.tasks:
            await asyncio.sleep(self.dice.expovariate(1 / 0.1))

    async def _claim_and_report(self) -> None:
        """A call for each thing."""
        finished, self._finished = self._finished, []
        if len(finished) > 1:
            await self._report_together(finished)
        else:
            for report in finished:
                await self._report(report)
        life, room = self.life, ROOM - len(self.life.held)
        if room <= 0 or self._quiet:
            await self._something()
            return
        wait = self.dice.choice([0.0, 0.3, 1.5])
        if room > 1 and self.dice.random() < 0.5:
            await self._claim_together(wait)
            return
        number = self._number()
        claims = await self._insist(
            e.Claim(worker_id=life.worker_id, max=self.dice.randint(1, room), wait=wait, number=number)
        )
        life.waiting.pop(number, None)
        if claims is not None:
            self._take(claims.tasks)
        if claims is None or not claims.tasks:
            await asyncio.sleep(self.dice.expovariate(1 / 0.1))

    def _number(self) -> int:
        """That of the claim that leaves now."""
        self.life.claimed += 1
        self.life.waiting[self.life.claimed] = None
        return self.life.claimed

    async def _claim_together(self, wait: float) -> None:
        """Several claims in one call, as a client's lane sends them; what came to nothing is claimed for again later."""
        life = self.life
        numbers = [self._number() for _ in range(2)]
        request = g.ClaimMany(
            claims=tuple(g.OneClaim(worker_id=life.worker_id, number=number) for number in numbers), wait=wait
        )
        told = await self._insist(request)
        self.history.count("claims together")
        for number in numbers:
            life.waiting.pop(number, None)
        for item in told.items if told is not None else ():
            if item.code in _GONE:
                life.over = True
            self._take(item.tasks)
        if told is None or not any(item.tasks for item in told.items):
            await asyncio.sleep(self.dice.expovariate(1 / 0.1))

    async def _report(self, report: Report) -> None:
        task_id, token = report.task_id, report.token
        request: e.CompleteTask | e.FailTask | e.ReleaseTask
        if report.how == "complete":
            request = e.CompleteTask(id=task_id, lease=token, result=msgspec.Raw(report.result))
        elif report.how == "release":
            request = e.ReleaseTask(id=task_id, lease=token, delay_ms=_later_ms(token))
        else:
            request = e.FailTask(id=task_id, lease=token, error=_error(report), retry=report.how != "stop")
        try:
            told = await self._insist(request)
        except Refused as refusal:
            self._reported(report, refusal.code)
            return
        if told is None:
            self.life.held.pop(token, None)
        else:
            self._reported(report, None)

    async def _report_together(self, finished: list[Report]) -> None:
        """Several in one call, as a client's lane sends them."""
        complete = [one for one in finished if one.how == "complete"]
        fail = [one for one in finished if one.how in {"fail", "stop"}]
        release = [one for one in finished if one.how == "release"]
        request = g.Report(
            complete=tuple(
                e.Completion(task_id=r.task_id, lease=r.token, result=msgspec.Raw(r.result)) for r in complete
            ),
            fail=tuple(
                e.Failure(task_id=r.task_id, lease=r.token, error=_error(r), retry=r.how != "stop") for r in fail
            ),
            release=tuple(e.Return(task_id=r.task_id, lease=r.token, delay_ms=_later_ms(r.token)) for r in release),
        )
        told = await self._insist(request)
        self.history.count("reports together")
        for place, report in enumerate((*complete, *fail, *release)):
            if told is None:
                self.life.held.pop(report.token, None)
            else:
                self._reported(report, told.items[place].code)

    def _reported(self, report: Report, code: str | None) -> None:
        """A report was taken or refused."""
        self.life.held.pop(report.token, None)
        note(self.actor, self.history)
        if code is None:
            self.history.settled[report.token] = (report.task_id, report.how)
            self.history.count(f"accepted {report.how}")
            if report.how == "complete":
                self.history.told(report.task_id, report.result, f"as {self.badge.name} was told")
        else:
            self.history.refused[report.token] = report.task_id
            self.history.count("refused reports")
            if code not in {"lease_lost", "task_not_found"}:
                self.history.conflict(f"REFUSED report of {report}: {code}")

    async def _insist(self, request: Command[R]) -> R | None:
        """Repeat a call under its key for a while; None if it is never known what came of it, or the life is over."""
        key, doubt = self.actor.route.make_key(), False
        for _ in range(self.dice.choice([1, 2, 4])):
            try:
                return await self.actor.call(request, key=key, doubt=doubt, timeout_s=self.dice.choice([1.0, 3.0]))
            except OutcomeUnknown:
                doubt = True
            except Unavailable:
                pass
            except Refused as refusal:
                if refusal.code in _GONE:
                    self.life.over = True
                    return None
                raise
            if self.life.over:
                return None
        return None

    async def _something(self) -> None:
        """Wait until something is finished, and look up now and then."""
        self._wanted.clear()
        try:
            async with asyncio.timeout(0.5):
                await self._wanted.wait()
        except TimeoutError:
            return

    # -- running -------------------------------------------------------------------------------------------------------
    def _take(self, tasks: list[e.ClaimedTask]) -> None:
        for task in tasks:
            self.history.count("claimed tasks")
            if not self.history.calm and self.dice.random() < 0.03:
                self.history.count("lost answers")
                continue  # as if the answer had been lost: the next beat does not name it
            self.life.held[task.lease.token] = task.id
            self._at_work.append(asyncio.get_running_loop().create_task(self._work(task)))

    async def _work(self, task: e.ClaimedTask) -> None:
        """Do what the task says."""
        orders = msgspec.json.decode(task.args, type=Orders)
        token, kind = task.lease.token, orders.kind
        await asyncio.sleep(orders.run_ms / 1000)
        how = "complete"
        if kind == "poison" and not self.history.calm:
            self.history.count("crashes")
            self.end(1.5 * self.badge.dead_after_ms / 1000)
            return
        if kind == "slow" and self.dice.random() < 0.7:
            await asyncio.sleep(2.0)
        elif kind == "hold":
            await self._hold(task)
        elif kind == "fail" or (kind == "flaky" and task.attempt == 1):
            how = "fail"
        elif kind == "stop":
            how = "stop"
        elif kind == "give_back" and self.dice.random() < 0.5 and not self.history.calm:
            how = "release"  # not for ever: a coin may fall so a dozen times
        if token in self._stop:
            return
        self._finished.append(Report(task.id, token, how, msgspec.json.encode([orders.serial, token])))
        self._wanted.set()

    async def _hold(self, task: e.ClaimedTask) -> None:
        request = e.HoldTask(id=task.id, lease=task.lease.token, progress=50.0, checkpoint=msgspec.Raw(b'"half"'))
        try:
            held = await self.actor.call(request, timeout_s=1.0)
        except (Unavailable, OutcomeUnknown):
            return
        except Refused as refusal:
            if refusal.code not in {"lease_lost", "task_not_found"}:
                self.history.conflict(f"REFUSED hold of {task.id}: {refusal}")
            return
        if held.cancel:
            self.history.count("cancels told")


def _later_ms(token: int) -> int:
    """What is given back is for later every other time."""
    return 0 if token % 2 else 700


def _error(report: Report) -> k.TaskError:
    return k.TaskError(type="Planned", message=f"{report.how} under {report.token}")


def employ(world: World, history: TaskHistory, badge: Badge) -> None:
    """Let one life of this worker follow the other."""
    dice = random.Random(world.dice.random())
    lives = 0

    async def supervise() -> None:
        nonlocal lives
        while True:
            lives += 1
            program = Program(world, history, badge, dice, lives)
            life = world.actor(program.run())
            while not program.ended:
                await asyncio.sleep(0.05)
                if life.done() and not program.ended:
                    return  # by an error of its own, which is told when the actors are dismissed
            await asyncio.sleep(program.back_after_s)

    world.send_off(supervise())
