"""One run of a worker: the loop that claims, runs and reports. All of it happens on one event loop.

Calls go out in two kinds. A *claim* may be parked at the cluster until there is a task; it takes along what is to be
reported at that moment. *Reports* that come while a claim is out travel by themselves, one call at a time, so that a parked
claim delays no report; so does what tasks have saved, for the report that ends a lease waits until that has arrived. Whoever is
busy fills both: results that are about to be there are waited for a few milliseconds, so that one call brings all of them and
fetches as many tasks.

Invariants: no more leases are claimed than ``concurrency`` and the prefetch allow; finished results are kept and sent again
under the same key until they are answered; after the cluster has taken this worker for dead nothing of its former life is
reported; a run ends only when everything is answered, given back, or out of time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from quorl import systemd
from quorl.client.errors import OutcomeUnknown, QuorlError, Rejected, Unavailable, WorkerNotAlive, WorkerNotFound
from quorl.client.handlers import Handler
from quorl.client.route import unsigned
from quorl.client.worker_elsewhere import Elsewhere
from quorl.client.worker_floor import Floor, Plan
from quorl.client.worker_heart import Heart
from quorl.client.worker_ledger import Batch, Ledger
from quorl.client.worker_lines import Lines, made_error
from quorl.client.worker_pace import Pace
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.queues import GetQueue

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient
    from quorl.client.sync import Client

CLAIM_WAIT_S = 5.0
"""How long a claim is parked at most, which is also how long a node that has gone silent can keep this worker idle, more or less."""
CLAIM_TIMEOUT_S = 5.0
BURST_WAIT_S = 1.0
"""What a claim may take besides its wait; and how long one waits, in a burst, while tasks are still to come."""
NEWS_S = 0.5
"""Progress and checkpoints travel so long after they were told, at the latest."""
AGAIN_S_MIN = 0.2
AGAIN_S_MAX = 5.0
"""After a call that failed: at first sooner than an election takes, then no burden to nodes that are in need."""
FIRST_S = 2.0
"""The first attempt to register takes so long at most: who starts a worker soon learns that no cluster answers."""
UNWIND_S = 1.0
"""How long a handler that was told to stop may take to clear up when the worker ends."""
DELIVER_S = 10.0
"""How long a worker that ends tries to deliver what it has."""

_dice = random.SystemRandom()


class Superseded(Exception):
    """Another worker has taken this one's name, or somebody has removed it."""


class Shift:
    """The run. ``stop`` may be called from any thread."""

    def __init__(
        self, plan: Plan, handlers: Mapping[str, Handler], client: AsyncClient, heart_client: Client, lines: Lines
    ) -> None:
        self._plan = plan
        self._handlers = handlers
        self._client = client
        self._lines = lines
        self._heart = Heart(self, heart_client)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._pace = Pace(plan.concurrency, plan.prefetch)
        self._floor = Floor(plan, handlers, Elsewhere(client), lines, self._pace, self._wake.set)
        self.life: Ledger | None = None
        self._name = plan.name
        self._calls: set[asyncio.Task[None]] = set()
        self._claim_call: asyncio.Task[None] | None = None
        self._settling = False
        self._news_since: float | None = None
        self._more_later = False
        """For a burst: whether the queues hold something that is not due yet."""
        self._claim_after = 0.0
        """For a burst: while tasks run, an empty queue is asked again then."""
        self._quiet = False
        self._has_signals = False
        self._stopping = False
        self._now = False
        self._again_s = AGAIN_S_MIN
        self._not_before = 0.0
        self._silent = False
        self._unheard = threading.Event()
        self._error: BaseException | None = None

    # -- from the start to the end ------------------------------------------------------------------------------------
    async def run(self, *, signals: bool) -> None:
        """Work until there is an end to it."""
        self._has_signals = signals
        with self._signals() if signals else contextlib.nullcontext():
            try:
                _ = self._start(self._enrol(first=True))
                while not self._stopping:
                    self._wake.clear()
                    self._dispatch()
                    await self._nap()
                await self._leave()
            finally:
                self._close()
                await self._client.close()
        if self._error is not None:
            raise self._error
        self._lines.stopped(self._floor.done, self._floor.failed)

    def stop(self, *, now: bool = False) -> None:
        """End: after what runs, or ``now``."""
        self._loop.call_soon_threadsafe(self._stop, now)

    def _stop(self, now: bool) -> None:
        if not self._stopping and not now and (left := self._floor.running):
            self._lines.draining(left, self._plan.grace_s)
        if not self._stopping and self._has_signals:
            systemd.notify("STOPPING=1")
        self._stopping = True
        self._now |= now
        self._wake.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            self._loop.add_signal_handler(number, lambda: self._stop(self._stopping))
        try:
            yield
        finally:
            for number in numbers:
                self._loop.remove_signal_handler(number)

    async def _nap(self) -> None:
        """Wait until something happens, or the next moment at which something is due by itself."""
        now = self._loop.time()
        until = [self._pace.hold_until, self._not_before, self._claim_after, self._floor.claims_after]
        if self.life is not None and self.life.has_news:
            until.append(now + NEWS_S)
        later = [moment - now for moment in until if moment > now]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(later) if later else None):
                await self._wake.wait()

    def _close(self) -> None:
        self._heart.stop()
        self._floor.close()

    # -- registering --------------------------------------------------------------------------------------------------
    async def _enrol(self, *, first: bool = False) -> None:
        """Register, and try for as long as it takes."""
        request = w.RegisterWorker(
            name=self._name,
            host=self._plan.host,
            pid=self._plan.pid,
            version=_version(),
            queues=self._plan.queues,
            concurrency=self._plan.concurrency,
            handlers=tuple(one.described() for one in self._handlers.values())[: limits.WORKER_HANDLERS_MAX],
            standby=self._plan.standby,
            heartbeat_ms=self._plan.heartbeat_ms,
            dead_after_ms=self._plan.dead_after_ms,
        )
        if first:
            self._lines.banner(self._plan, self._handlers, tuple(map(unsigned, self._client.servers)))
        key: str | None = None
        while not self._stopping:
            try:
                timeout_s = FIRST_S if first and not self._silent else None
                made = await self._client.call(request, idempotency_key=key, timeout_s=timeout_s)
            except Rejected as error:
                if error.status != 429:
                    raise
                self._trouble(error)
            except OutcomeUnknown as error:
                key = error.key
                self._trouble(error)
            except QuorlError as error:
                self._trouble(error)
            else:
                self._well()
                self._name = made.name
                self.life = Ledger(made.worker_id, made.name, made.dead_after_ms / 1000, self._client.make_key)
                self._heart.start(made.heartbeat_ms / 1000, made.dead_after_ms / 1000)
                if first and self._has_signals:  # the program's own run; inside another program it is not ours to say
                    systemd.notify("READY=1", f"STATUS=worker {made.worker_id}")
                self._lines.registered(made, standby=self._plan.standby)
                return
            await self._pause()

    async def _pause(self) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._again_s):
                while not self._stopping:
                    await self._wake.wait()
                    self._wake.clear()

    def _trouble(self, why: QuorlError) -> None:
        """Note that the cluster cannot be reached, and when to try again."""
        if not self._silent:
            self._silent = True
            self._lines.unanswered(why, self.life.undelivered if self.life else None)
        self._again_s = min(AGAIN_S_MAX, 2 * self._again_s)
        self._not_before = self._loop.time() + self._again_s * _dice.uniform(0.5, 1)

    def _well(self) -> None:
        if self._silent:
            self._silent = False
            self._lines.answered()
        self._again_s = AGAIN_S_MIN
        self._not_before = 0.0

    # -- calling ------------------------------------------------------------------------------------------------------
    def _dispatch(self) -> None:
        """Start the calls that are due."""
        life = self.life
        now = self._loop.time()
        if life is None or now < self._not_before or self._floor.crashing:
            return
        if now < self._pace.hold_until and (self._claim_call is not None or self._pace.awaited):
            return
        claims = self._claim_call is None and not self._quiet and not self._stopping
        if now < self._floor.claims_after or (self._floor.running and now < self._claim_after):
            claims = False
        room = self._pace.room(life.unfinished + self._floor.zombies) if claims else 0
        batch = life.take() if not self._settling and self._due(life, now, claims=room > 0) else None
        if batch is not None:
            self._news_since = None
            if batch.sent or batch.progress or not room:
                self._settling = True
                _ = self._start(self._settle(life, batch))
                batch = None
        if room:
            self._claim_call = self._start(self._claim(life, batch, room))

    def _due(self, life: Ledger, now: float, *, claims: bool) -> bool:
        """Whether to send reports now: those that end a lease at once, mere news after a while or along with a claim."""
        if life.has_reports or claims:
            return True
        if not life.has_news:
            return False
        if self._news_since is None:
            self._news_since = now
        return self._stopping or now - self._news_since >= NEWS_S

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        call = self._loop.create_task(work)
        self._calls.add(call)
        call.add_done_callback(self._ended)
        return call

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if call is self._claim_call:
            self._claim_call = None
        if not call.cancelled() and (error := call.exception()) is not None:
            self._error = error
            self._stopping = True
        self._wake.set()

    async def _claim(self, life: Ledger, batch: Batch | None, room: int) -> None:
        """Claim as many tasks as there is room for, and report on the way."""
        number = life.open_claim()
        room = min(room, limits.CLAIM_TASKS_MAX)
        wait_s = min(CLAIM_WAIT_S, life.dead_after_s / 2)
        if self._plan.burst:
            wait_s = BURST_WAIT_S if self._more_later else 0.0
        wish = e.Wish(queues=self._plan.queues, max=room, wait=wait_s, number=number)
        self._pace.claiming(self._loop.time())
        carried = Batch(self._client.make_key()) if batch is None else batch
        try:
            synced = await self._sync(life, carried, wish)
        except BaseException:
            life.close_claim(number)
            raise
        if synced is None:
            life.close_claim(number)
            return
        granted = [self._floor.holding(life, task) for task in synced.tasks]
        for stale in life.close_claim(number, granted):
            self._floor.lost(stale, "the cluster handed it out again")
        if life is not self.life:
            return  # taken for dead meanwhile: what was granted has been given back with the rest
        self._pace.claimed(self._loop.time(), room, len(granted))
        self._follow(life, synced.directives)
        self._floor.take_up(life, granted)
        if self._plan.burst and not granted:
            self._claim_after = self._loop.time() + BURST_WAIT_S
            if life.idle:
                await self._burst(life)

    async def _settle(self, life: Ledger, batch: Batch) -> None:
        """Report."""
        try:
            synced = await self._sync(life, batch, None)
        finally:
            self._settling = False
        if synced is not None:
            self._follow(life, synced.directives)

    async def _sync(self, life: Ledger, batch: Batch, wish: e.Wish | None) -> e.Synced | None:
        """Make one call. None: it brought nothing, and what it carried is kept or no longer matters."""
        batch.sent = True
        kept = False
        try:
            synced = await self._client.call(
                batch.sync(life.worker_id, wish),
                idempotency_key=batch.key,
                timeout_s=None if wish is None else CLAIM_TIMEOUT_S,
            )
            for holding in life.answered(batch, synced.rejected):
                self._floor.lost(holding, "its lease is gone, so its report does not count")
            kept = True
            self._well()
            return synced
        except (WorkerNotAlive, WorkerNotFound) as error:
            self._died(life, error)
            kept = True
        except Rejected as error:
            kept = True
            self._refused(life, batch, error)
        except (Unavailable, OutcomeUnknown) as error:
            self._trouble(error)
        finally:
            if not kept:
                life.unanswered(batch)
        return None

    def _refused(self, life: Ledger, batch: Batch, why: Rejected) -> None:
        """Deal with a call that no node takes: a defect of one report must not take the others with it."""
        if not len(batch):
            life.answered(batch, ())
            self._trouble(why)
            return
        for holding in life.refused(batch):
            error = made_error("ReportRefused", f"{why.code}: {why.detail}")
            if why.code == "validation_failed" and len(batch.fail):
                life.lose([holding.task.lease.token])
                continue
            report = e.Failure(task_id=holding.task.id, lease=holding.task.lease.token, error=error, retry=False)
            life.report(holding, report)

    # -- what the cluster says ----------------------------------------------------------------------------------------
    def told(self, life: Ledger, directives: e.Directives) -> None:
        """Follow the answer to a heartbeat; in the heart's thread."""
        for holding in life.lose(directives.lost):
            holding.context.stop()  # at once, even if the loop is blocked
            self._floor.on_loop(self._floor.lost, holding, "its lease is gone")
        self._floor.on_loop(self._follow, life, directives)

    def died(self, life: Ledger, why: QuorlError) -> None:
        """Learn from a heartbeat that this life is over; in the heart's thread."""
        for holding in life.holdings():
            holding.context.stop()
        self._floor.on_loop(self._died, life, why)

    def unheard(self, why: QuorlError | None) -> None:
        """Learn whether heartbeats are heard; in the heart's thread."""
        if (why is not None) != self._unheard.is_set():
            (self._unheard.set if why is not None else self._unheard.clear)()
            self._floor.on_loop(self._lines.heard, why)

    def _follow(self, life: Ledger, directives: e.Directives) -> None:
        if life is not self.life:
            return
        for holding in life.cancel(directives.cancel):
            self._lines.cancelled(holding.task)
            self._floor.stop(holding)
        if directives.quiet and not self._quiet:
            self._quiet = True
            self._lines.quiet()
        if directives.terminate and not self._stopping:
            self._lines.ending("told to end")
            self._stop(now=False)
        if directives.drained and not self._stopping:
            self._lines.ending("the queues are sealed and empty")
            self._stop(now=False)

    def _died(self, life: Ledger, why: QuorlError) -> None:
        """Drop everything of a life that is over, and begin a new one."""
        if life is not self.life:
            return
        self.life = None
        if self._claim_call is not None and self._claim_call is not asyncio.current_task():
            self._claim_call.cancel()  # it may be parked, and nobody waits for it any more
        held = life.end()
        for holding in held:
            self._floor.lost(holding, "the worker was taken for dead")
        if not self._stopping:
            self._lines.died(why, len(held))
            _ = self._start(self._reborn(life))

    async def _reborn(self, life: Ledger) -> None:
        """Register anew, unless this worker was replaced or removed on purpose.

        Two processes under one name would else end each other's lives in turn, and what they run would count as lost.
        """
        with contextlib.suppress(WorkerNotFound, Unavailable):
            known = await self._client.workers.get(life.worker_id)
            if known.status == "LEFT":
                raise Superseded(f"worker {life.name!r} was removed")
            alive = await self._client.workers.list(status="ALIVE")
            other = next((one for one in alive if one.name == life.name), None)
            if other is not None:
                raise Superseded(f"worker {other.worker_id} runs under its name, {life.name!r}")
        await self._enrol()

    # -- ending -------------------------------------------------------------------------------------------------------
    async def _burst(self, life: Ledger) -> None:
        """End if nothing waits in the queues, not even for another attempt. What is paused or scheduled does not count."""
        waiting = 0
        for name in self._plan.queues:
            try:
                queue = await self._client.call(GetQueue(queue=name))
            except Rejected:  # no such queue: nothing waits in it
                continue
            except QuorlError as error:
                self._trouble(error)
                return
            waiting += 0 if queue.paused else queue.counts.queued + queue.counts.retry
        self._more_later = waiting > 0
        if not waiting and life is self.life and life.idle:
            self._lines.ending("the queues are empty")
            self._stop(now=False)

    async def _leave(self) -> None:
        """Finish what runs, give back the rest, deliver everything, and go."""
        life = self.life
        if self._claim_call is not None:
            self._claim_call.cancel()
            await asyncio.gather(self._claim_call, return_exceptions=True)
        self._floor.shut()
        await self._until(lambda: not self._floor.running or self._now, self._plan.grace_s)
        self._floor.stop_all()
        await self._until(lambda: not self._floor.running, 0.1 if self._now else UNWIND_S)
        if life is not None and life is self.life:
            for holding in life.holdings():
                if not holding.reported:
                    self._floor.give_back(life, holding)
            await self._until(lambda: life.idle or life is not self.life, DELIVER_S / 5 if self._now else DELIVER_S)
            if (left := life.undelivered) and life is self.life:
                self._lines.undelivered(left)
            with contextlib.suppress(QuorlError):
                await self._client.call(w.RemoveWorker(worker_id=life.worker_id), timeout_s=2.0)
        for call in list(self._calls):
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _until(self, condition: Callable[[], object], seconds: float) -> None:
        """Go on reporting until something is so, or the seconds are over."""
        deadline = self._loop.time() + seconds
        while not condition() and self._loop.time() < deadline:
            self._wake.clear()
            self._dispatch()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, self._loop.time() + NEWS_S)):
                    await self._wake.wait()


def _version() -> str:
    import quorl

    return quorl.__version__
