"""Clients of tasks in a simulated cluster: submitters, meddlers who cancel and retry and pause, and waiters at any node."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from typing import TYPE_CHECKING, Any

import msgspec

from quorl.client.errors import OutcomeUnknown, Rejected, Unavailable
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from tests.simulation.task_history import Orders, Seen, Submission, TaskHistory
from tests.simulation.workload import Actor

if TYPE_CHECKING:
    from quorl.cluster.protocol.grammar import Command
    from tests.simulation.world import World

PLAIN, PARTED = "plain", "parted"
PARTITIONS = 4
KINDS = ("ok", "ok", "ok", "ok", "fail", "flaky", "flaky", "stop", "poison", "poison", "give_back", "slow", "hold")
SHORT = q.Backoff(kind="fixed", first_ms=300, jitter=0.0)
POLICIES = (
    None,
    SHORT,
    q.Backoff(kind="exponential", first_ms=200, jitter=0.5),
    q.Backoff(kind="linear", first_ms=150, jitter=0.2),
    q.Backoff(kind="list", delays_ms=(0, 400), jitter=1.0),
)


async def set_up(actor: Actor) -> None:
    """Make a queue without partitions and one with some."""
    await actor.surely(q.PutQueue(queue=PLAIN, backoff=SHORT, max_lost=3))
    await actor.surely(q.PutQueue(queue=PARTED, backoff=SHORT, max_lost=2, partitions=PARTITIONS))


def note(actor: Actor, history: TaskHistory) -> None:
    """What this client has seen, nobody may miss from now on."""
    history.sequence = max(history.sequence, actor.route.sequence)


def new_task(dice: random.Random, history: TaskHistory, name: str, *, now: float, plain: bool = False) -> b.NewTask:
    """A task with whatever a submitter may say of it, or a plain one that succeeds."""
    serial = next(history.serials)
    if plain:
        args = msgspec.Raw(msgspec.json.encode(Orders(serial, "ok", 500)))
        return b.NewTask(id=f"{name}.{serial}", name="do_ok", args=args)
    kind = dice.choice(KINDS)
    run_ms = int(1000 * dice.expovariate(1 / 0.2)) if dice.random() < 0.93 else 4000
    orders = Orders(serial, kind, run_ms)
    when = dice.random()
    run_at = _calendar(now + dice.uniform(-1, 2)) if 0.1 < when < 0.18 else None
    return b.NewTask(
        id=f"{name}.{serial}" if dice.random() < 0.5 else None,
        name=f"do_{kind}",
        args=msgspec.Raw(msgspec.json.encode(orders)),
        priority=dice.choice([0, 5, 5, 9]),
        key=dice.choice([None, "a", "b"]),
        delay_ms=dice.choice([100, 700, 2000]) if when < 0.1 else 0,
        run_at=run_at,
        expires_ms=dice.choice([500, 2000]) if dice.random() < 0.08 else None,
        timeout_ms=dice.choice([300, 1000]) if kind == "slow" else None,
        max_attempts=dice.choice([None, 1, 2]),
        max_lost=dice.choice([None, 1, 2]) if kind == "poison" else None,
        backoff=dice.choice(POLICIES),
    )


def _calendar(moment_s: float) -> str:
    """The calendar at a moment of the world's clock."""
    return dt.datetime.fromtimestamp(1_700_000_000 + moment_s, dt.UTC).isoformat(timespec="milliseconds")


async def submit(actor: Actor, history: TaskHistory) -> None:
    """Submit unique tasks, one or several at once, until it is calm."""
    dice = actor.dice
    while not history.calm:
        tasks = [
            new_task(dice, history, actor.name, now=actor.world.clock.now) for _ in range(dice.choice([1, 1, 1, 2, 4]))
        ]
        serials = [msgspec.json.decode(task.args, type=Orders).serial for task in tasks]  # type: ignore[arg-type]
        done = Submission(dice.choice([PLAIN, PLAIN, PARTED]), tasks, serials, actor.world.clock.now)
        history.submissions.append(done)
        history.count("submitted tasks", len(tasks))
        await _submit(actor, history, done)
        if done.outcome == "ok" and dice.random() < 0.1:
            await _repeat(actor, history, done)
        await asyncio.sleep(dice.expovariate(1 / 0.4))


async def _submit(actor: Actor, history: TaskHistory, done: Submission) -> None:
    request = b.Submit(queue=done.queue, tasks=done.tasks)
    key = actor.route.make_key()
    try:
        try:
            submitted = await actor.call(request, key=key, timeout_s=actor.dice.choice([1.0, 3.0, 8.0]))
        except OutcomeUnknown:
            if actor.dice.random() < 0.5:
                return
            submitted = await actor.call(request, key=key, doubt=True, timeout_s=8.0)
    except OutcomeUnknown:
        return
    except Unavailable:
        done.outcome = "no"
    except Rejected as refusal:
        done.outcome = "no"
        history.conflict(f"REFUSED submit: {refusal}")
    else:
        done.outcome, done.ids = "ok", [item.id for item in submitted.items]
        history.known += done.ids
        note(actor, history)


async def _repeat(actor: Actor, history: TaskHistory, done: Submission) -> None:
    """The very same tasks again, under another key: those with ids exist, and nothing comes of it. Others are refused."""
    mine = [task for task in done.tasks if task.id is not None]
    if not mine:
        return
    other = actor.dice.random() < 0.3
    tasks = [msgspec.structs.replace(task, priority=3) for task in mine] if other else mine
    try:
        submitted = await actor.call(b.Submit(queue=done.queue, tasks=tasks), timeout_s=3.0)
    except (OutcomeUnknown, Unavailable):
        return
    except Rejected as refusal:
        if refusal.code != "task_exists" or not other:
            history.conflict(f"REFUSED repeat of {mine[0].id}: {refusal}")
        return
    if (other or not all(item.existing for item in submitted.items)) and not history.tally.get("removed tasks"):
        history.conflict(f"SUBMITTED-AGAIN: {submitted}")


async def meddle(actor: Actor, history: TaskHistory) -> None:
    """Cancel, retry, forget, purge, pause: what people do."""
    dice = actor.dice
    while not history.calm:
        await asyncio.sleep(dice.expovariate(1 / 0.6))
        act = dice.random()
        if act < 0.1:
            queue = dice.choice([PLAIN, PARTED])
            await actor.surely(q.PatchQueue(queue=queue, paused=True))
            await asyncio.sleep(dice.expovariate(1 / 0.5))
            await actor.surely(q.PatchQueue(queue=queue, paused=False))
        elif act < 0.15:
            history.count("removed tasks")
            states: tuple[q.PurgeState, ...] = dice.choice([("QUEUED",), ("SUCCESS",), ("FAILED", "RETRY")])
            await _try(actor, history, q.PurgeQueue(queue=dice.choice([PLAIN, PARTED]), states=states))
        elif history.known:
            task_id = dice.choice(history.known)
            if act < 0.2:
                history.count("removed tasks")
            request = k.ForgetTask if act < 0.2 else k.CancelTask if act < 0.5 else k.RetryTask
            if act >= 0.6:
                task_id = dice.choice(_retriable(actor.world) or [task_id])
            await _try(actor, history, request(id=task_id))


def _retriable(world: World) -> list[str]:
    """Tasks that came to no success, as far as anybody could know."""
    assert world.task_checks is not None
    shadows = world.task_checks.shadows.tasks.values()
    return [shadow.id for shadow in shadows if shadow.state in {"FAILED", "CANCELLED", "EXPIRED"}]


async def _try(actor: Actor, history: TaskHistory, request: Command[Any]) -> None:
    try:
        await actor.call(request, timeout_s=3.0)
    except Rejected as refusal:
        if refusal.code not in {"task_not_found", "wrong_state"}:
            history.conflict(f"REFUSED {request}: {refusal}")
    except (OutcomeUnknown, Unavailable):
        return
    note(actor, history)


async def look(actor: Actor, history: TaskHistory) -> None:
    """Ask how tasks stand, with and without waiting; what is seen is compared with the log in the end."""
    dice = actor.dice
    while True:
        await asyncio.sleep(dice.expovariate(1 / 0.3))
        if history.known:
            recent = history.known[-20:] if dice.random() < 0.7 else history.known
            await look_at(actor, history, dice.choice(recent), dice.choice([0.0, 0.0, 1.0, 4.0]))


async def look_at(actor: Actor, history: TaskHistory, task_id: str, wait_s: float) -> str | None:
    """One look at the result of a task: its status, None if nothing was learnt."""
    low = history.sequence
    seen = Seen(task_id, None, low, low)
    try:
        found = await actor.call(k.GetResult(id=task_id, wait=wait_s), timeout_s=3.0)
    except Rejected as refusal:
        if refusal.code != "task_not_found":
            history.conflict(f"REFUSED look at {task_id}: {refusal}")
            return None
    except (Unavailable, OutcomeUnknown):
        return None
    else:
        seen.status = found.status
        if found.status == "SUCCESS":
            seen.result = bytes(found.result)
            history.told(task_id, bytes(found.result), f"{actor.name} at {actor.world.clock.now - 1000:.2f}")
    note(actor, history)
    seen.high = actor.route.sequence
    history.seen.append(seen)
    history.count("looks at tasks")
    return seen.status
