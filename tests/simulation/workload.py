"""Clients of a simulated cluster, and what they were promised.

Writers append unique values, readers ask linearizable questions, consumers take messages one after the other. All of
them are the client library's own ``flow`` over simulated wires. ``History`` keeps what was asked and answered;
``judge`` compares it with what the nodes hold in the end.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from quorl.client.errors import OutcomeUnknown, Rejected, Unavailable
from quorl.client.flow import Failure, Send, flow
from quorl.client.route import Route
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Request
from quorl.cluster.protocol.operations import BY_REQUEST
from quorl.cluster.protocol.problems import Refusal
from quorl.cluster.protocol.wire import Answer, Call, encode, read_answer
from tests.simulation.network import SimPeers

if TYPE_CHECKING:
    from tests.simulation.world import World

R = TypeVar("R")
TOPIC = "log"
Place = tuple[int, int]


@dataclass
class Write:
    """One append: when it was asked, and what it came to (``ok``, ``no`` or ``maybe``)."""

    writer: str
    values: list[str]
    started: float
    ended: float = 0.0
    outcome: str = "maybe"
    places: list[Place] = field(default_factory=list)


@dataclass
class Look:
    """One linearizable count of the messages."""

    started: float
    ended: float
    size: int


@dataclass
class History:
    """Everything that clients saw."""

    writes: list[Write] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    seen: dict[Place, str] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    consumed: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)
    ids: list[tuple[str, int]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def saw(self, message: t.StoredMessage, where: str) -> None:
        """A message was read somewhere; it must be the same everywhere, always."""
        place, value = (message.partition, message.offset), msgspec.json.decode(message.value)
        known = self.seen.setdefault(place, value)
        if known != value:
            self.conflicts.append(f"INCONSISTENT {place}: {known} and, {where}, {value}")


class Actor:
    """One client process."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.dice = random.Random(world.dice.random())
        self._peers = SimPeers(world, name)
        tokens = random.Random(self.dice.random())
        self.route = Route(
            world.names,
            clock=lambda: world.clock.now,
            uniform=self.dice.uniform,
            make_key=lambda: f"{tokens.getrandbits(96):024x}",
        )

    async def call(self, request: Request[R], **options: Any) -> R:
        """Drive the client library's flow over the simulated wires."""
        plan = flow(self.route, request, **options)
        event: Any = None
        while True:
            try:
                step = plan.send(event)
            except StopIteration as done:
                result: R = done.value
                return result
            event = None
            if isinstance(step, Send):
                try:
                    event = await self._peers.call(step.node, step.call, step.timeout_s)
                except PeerUnreachable as error:
                    event = Failure("unreachable", str(error))
                except PeerLost as error:
                    event = Failure("lost", str(error))
            else:
                await asyncio.sleep(step.seconds)

    async def ask(self, node: str, call: Call, timeout_s: float = 5.0) -> Answer:
        """Ask one node, once."""
        return await self._peers.call(node, call, timeout_s)

    async def wait_at(self, node: str, browse: t.Browse) -> None:
        """Wait for a message at one node, until there is one."""
        while True:
            try:
                answer = await self._peers.call(node, encode(browse, consistency="local"), 60.0)
                if answer.status == 200 and msgspec.json.decode(answer.body)["items"]:
                    return
            except (PeerUnreachable, PeerLost):
                pass
            await asyncio.sleep(0.2)

    async def surely(self, request: Request[R]) -> R:
        """Repeat a write under one key until it is decided."""
        key, doubt = self.route.make_key(), False
        while True:
            try:
                return await self.call(request, key=key, doubt=doubt, timeout_s=4.0)
            except OutcomeUnknown:
                doubt = True
            except Unavailable:
                pass
            await asyncio.sleep(0.2)

    def pause(self) -> float:
        """A while between two requests."""
        return self.dice.expovariate(1 / 0.15)


async def set_up(actor: Actor, partitions: int) -> None:
    """Create the topic."""
    await actor.surely(t.CreateTopic(name=TOPIC, partitions=partitions))


async def write(actor: Actor, history: History) -> None:
    """Append unique values for ever, now and then several at once."""
    producer = (await actor.surely(t.RegisterProducer(topic=TOPIC))).producer_id
    history.ids.append(("producer", producer))
    number = 0
    while True:
        count = actor.dice.choice([1, 1, 1, 2, 5])
        values = [f"{actor.name}.{number + i}" + "." * actor.dice.choice([0, 0, 20, 300]) for i in range(count)]
        number += count
        messages = [t.Message(value=msgspec.Raw(msgspec.json.encode(v)), producer_id=producer) for v in values]
        done = Write(actor.name, values, actor.world.clock.now)
        history.writes.append(done)
        key = actor.route.make_key()
        try:
            request = t.Append(topic=TOPIC, messages=messages)
            appended = await actor.call(request, key=key, timeout_s=actor.dice.choice([1.0, 3.0, 8.0]))
        except OutcomeUnknown:
            pass
        except Unavailable:
            done.outcome = "no"
        except Rejected as refusal:
            done.outcome = "no"
            history.refusals.append(f"append: {refusal}")
        else:
            done.outcome = "ok"
            for r in appended.ranges:
                done.places += [(r.partition, offset) for offset in range(r.first_offset, r.last_offset + 1)]
        done.ended = actor.world.clock.now
        if done.outcome == "ok" and actor.dice.random() < 0.05:
            await _forge(actor, history, key)
        await asyncio.sleep(actor.pause())


async def _forge(actor: Actor, history: History, key: str) -> None:
    """Come with a key that stands for something else already: that must be refused, and change nothing."""
    try:
        request = t.Append(topic=TOPIC, messages=[t.Message(value=msgspec.Raw(b'"forged"'))])
        appended = await actor.call(request, key=key, timeout_s=3.0)
    except (OutcomeUnknown, Unavailable):
        pass
    except Rejected as refusal:
        if refusal.code != "idempotency_key_reused":
            history.refusals.append(f"forged append: {refusal}")
    else:
        history.conflicts.append(f"FORGED: another request under the key {key} came to {appended}")


async def trust(actor: Actor, history: History) -> None:
    """Write at one node, and find it there at once; find it anywhere by naming the sequence."""
    number = 0
    while True:
        node = actor.dice.choice(actor.world.names)
        number += 1
        done = Write(actor.name, [f"{actor.name}.{number}"], actor.world.clock.now)
        history.writes.append(done)
        message = t.Message(value=msgspec.Raw(msgspec.json.encode(done.values[0])))
        try:
            call = encode(t.Append(topic=TOPIC, messages=[message]), actor.route.make_key())
            answer = await actor.ask(node, call, actor.dice.choice([3.0, 12.0]))
            lives = actor.world.processes[node].lives
            appended = read_answer(BY_REQUEST[t.Append], answer)
        except PeerUnreachable:
            done.outcome = "no"
        except PeerLost:
            pass
        except Refusal as refusal:
            if refusal.problem.status in {429, 503, 507}:
                done.outcome = "no"
        else:
            assert isinstance(appended, t.Appended)
            place = (appended.ranges[0].partition, appended.ranges[0].first_offset)
            done.outcome, done.places, done.ended = "ok", [place], actor.world.clock.now
            # At its deadline a node relays an answer rather than keep it, whatever it has applied by then.
            if done.ended - done.started < 0.8 * actor.world.knobs.deadline_s:
                await _find(actor, history, node, place, lives, "local", 0)
            sequence = int(answer.headers["quorl-sequence"])
            await _find(actor, history, actor.dice.choice(actor.world.names), place, None, "session", sequence)
        done.ended = actor.world.clock.now
        await asyncio.sleep(actor.pause())


async def _find(
    actor: Actor,
    history: History,
    node: str,
    place: Place,
    lives: int | None,
    consistency: Literal["local", "session"],
    sequence: int,
) -> None:
    """Read one's own write; a node that was started anew in between promises nothing to a local read."""
    request = t.Browse(topic=TOPIC, partition=place[0], start=str(place[1]), limit=1)
    try:
        answer = await actor.ask(node, encode(request, consistency=consistency, min_sequence=sequence))
        page = read_answer(BY_REQUEST[t.Browse], answer)
        found = isinstance(page, t.MessagePage) and bool(page.items)
    except (PeerUnreachable, PeerLost):
        return
    except Refusal as refusal:
        if refusal.problem.status == 503:
            return
        found = False
    if not found and lives in {None, actor.world.processes[node].lives}:
        history.conflicts.append(f"UNREAD {place}: {consistency} read at {node} after the write was acknowledged")


async def read(actor: Actor, history: History, partitions: int) -> None:
    """Ask for the size, which must be exact, and read places, which must never change."""
    while True:
        started = actor.world.clock.now
        try:
            if actor.dice.random() < 0.6:
                size = await actor.call(t.GetSize(topic=TOPIC), timeout_s=3.0)
                history.looks.append(Look(started, actor.world.clock.now, size.size))
            else:
                start = str(actor.dice.randrange(max(1, len(history.seen) or 1)))
                browse = t.Browse(topic=TOPIC, partition=actor.dice.randrange(partitions), start=start, limit=20)
                page = await actor.call(browse, consistency=actor.dice.choice(["local", "session"]), timeout_s=3.0)
                for message in page.items:
                    history.saw(message, f"{actor.name} at {started:.2f}")
        except (Unavailable, OutcomeUnknown):
            pass
        except Rejected as refusal:
            # A copy that is behind may not know the topic yet; a linearizable read always does.
            if "topic_not_found" not in str(refusal.code):
                history.refusals.append(f"read: {refusal}")
        await asyncio.sleep(actor.pause())


async def consume(actor: Actor, history: History) -> None:
    """Take message after message under a consumer id of one's own."""
    consumer = (await actor.surely(t.RegisterConsumer(topic=TOPIC))).consumer_id
    history.ids.append(("consumer", consumer))
    taken = history.consumed.setdefault(consumer, [])
    while True:
        wait = actor.dice.choice([0.0, 0.0, 1.5])
        request = t.Consume(topic=TOPIC, consumer_id=consumer, max=actor.dice.choice([1, 3, 10]), wait=wait)
        for message in (await actor.surely(request)).items:
            history.saw(message, f"{actor.name}")
            taken.append((message.partition, message.offset, msgspec.json.decode(message.value)))
        await asyncio.sleep(actor.pause())


# -- the verdict ----------------------------------------------------------------------------------------------------
def judge(history: History, stored: dict[str, dict[Place, str]]) -> list[str]:
    """Every broken promise, given what each node holds in the end: place by place."""
    problems = list(history.conflicts[:5]) + history.refusals[:5]
    copies = list(stored.values())
    for name, copy in stored.items():
        if copy != copies[0]:
            problems.append(f"COPIES-DIFFER: {name} holds {len(copy)} messages, another {len(copies[0])}")
    final = copies[0] if copies else {}
    problems += _writes(history, final) + _looks(history) + _consumers(history, final) + _ids(history)
    problems += [f"VANISHED {p}: {v} was read" for p, v in history.seen.items() if final.get(p) != v][:5]
    return problems


def _writes(history: History, final: dict[Place, str]) -> list[str]:
    problems = []
    copies = Counter(final.values())
    problems += [f"DOUBLED {value}: {count} times" for value, count in copies.items() if count > 1][:5]
    attempted = {v for w in history.writes for v in w.values}
    problems += [f"INVENTED {value}" for value in copies if value not in attempted][:5]
    last: dict[tuple[str, int], int] = {}
    for w in history.writes:
        if w.outcome == "ok":
            if [final.get(p) for p in w.places] != w.values:
                problems.append(f"LOST {w.values} acknowledged at {w.ended - 1000:.2f} in {w.places}")
            for partition, offset in w.places:
                if offset <= last.get((w.writer, partition), -1):
                    problems.append(f"REORDERED {w.writer} at {partition}/{offset}")
                last[(w.writer, partition)] = offset
        elif w.outcome == "no" and any(v in copies for v in w.values):
            problems.append(f"REFUSED-BUT-PRESENT {w.values}")
        elif any(v in copies for v in w.values) != all(v in copies for v in w.values):
            problems.append(f"TORN {w.values}")
    return problems[:10]


def _looks(history: History) -> list[str]:
    """An exact count includes every write acknowledged, with all that lies before it, and every count given, before it."""
    problems = []
    done = [w for w in history.writes if w.outcome == "ok"]
    for look in history.looks:
        ends: dict[int, int] = {}
        for w in done:
            if w.ended < look.started:
                for partition, offset in w.places:
                    ends[partition] = max(ends.get(partition, 0), offset + 1)
        before = max((other.size for other in history.looks if other.ended < look.started), default=0)
        least = max(sum(ends.values()), before)
        if look.size < least:
            problems.append(f"STALE read at {look.started - 1000:.2f}: {look.size} < {least}")
    return problems[:5]


def _consumers(history: History, final: dict[Place, str]) -> list[str]:
    problems = []
    for consumer, taken in history.consumed.items():
        following: Counter[int] = Counter()
        for partition, offset, value in taken:
            if offset != following[partition]:
                problems.append(f"CONSUMER {consumer} got {partition}/{offset}, not {following[partition]}")
            if final.get((partition, offset)) != value:
                problems.append(f"CONSUMER {consumer} read {value} at {partition}/{offset}, which is not there")
            following[partition] = offset + 1
    return problems[:5]


def _ids(history: History) -> list[str]:
    return [f"ID {kind} {n} given twice" for (kind, n), count in Counter(history.ids).items() if count > 1]
