"""Switches beside those of ``tests.consensus.repairs``: what keeps the state, the node and the log's edges right.

They have the same shape: a switch gets a ``Setter`` and takes one repair away through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from quorl.cluster.consensus import logstore, segment
from quorl.cluster.consensus.ballot import Ballot
from quorl.cluster.consensus.election import Election
from quorl.cluster.consensus.engine import Engine
from quorl.cluster.consensus.library import Member
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.consensus.replication import Replication
from quorl.cluster.consensus.segment import Scan
from quorl.cluster.machine import outcomes, receipts, topics
from quorl.cluster.machine.events import Event
from quorl.cluster.machine.machine import Applied, Machine
from quorl.cluster.machine.state import State
from quorl.cluster.node import forwarding, gateway, sealing
from quorl.cluster.node.committer import Committer
from quorl.cluster.node.core import Core
from quorl.cluster.node.timekeeper import Stamp, Timekeeper
from quorl.cluster.node.visit import Declined, Visit
from quorl.cluster.node.watch import Watch
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import Sealed
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.problems import Problem
from tests.consensus.repairs.setter import swapped
from tests.consensus.repairs.switches import SWITCHES as CONSENSUS_SWITCHES
from tests.consensus.repairs.switches import Setter, Switch
from tests.simulation.task_switches import TASK_SWITCHES


# -- the log at its edges ----------------------------------------------------------------------------------------------
def cut_everything(setter: Setter) -> None:
    """Whatever is damaged is cut away, with all that follows."""
    whole = segment.scan

    def scan(name: str, raw: bytes, base: int, term: int) -> Scan:
        found = whole(name, raw, base, term)
        return Scan(found.records, found.end, 0)

    setter(logstore, "scan", scan)
    setter(Ballot, "floor", property(lambda ballot: 0))


def refuse_everything(setter: Setter) -> None:
    """A torn tail is taken for damage."""
    whole = segment.scan

    def scan(name: str, raw: bytes, base: int, term: int) -> Scan:
        found = whole(name, raw, base, term)
        return found if found.end == len(raw) else Scan(found.records, found.end, 1 << 60)

    setter(logstore, "scan", scan)


def full_disk(setter: Setter) -> None:
    """An entry for which there was no room stays in memory."""
    careful = LogStore.add

    def careless(log: LogStore, command: bytes, idx: int, term: int) -> None:
        try:
            careful(log, command, idx, term)
        except OSError:
            log._segments[-1].offsets.append(log._segments[-1].size)
            log._entries.append((command, idx, term))

    setter(LogStore, "add", careless)


def snapshot_reset(setter: Setter) -> None:
    """A snapshot replaces the state, and the log stays as it was."""

    def installed(engine: Engine, index: int, _term: int) -> None:
        engine.filter.forget_conflict()
        engine.applied_index = index
        engine.commit_index = max(engine.commit_index, index)

    setter(Engine, "installed", installed)


def birth_votes(setter: Setter) -> None:
    """Members that never ran vote for whoever asks, although not every member has been seen."""
    setter(Election, "_votes", lambda election: not election._engine.blank)


def one_probe(setter: Setter) -> None:
    """Every request to go back sends the pipeline again."""

    def restart(replication: Replication, member: Member, next_index: int) -> None:
        replication._under_way.pop(member, None)
        replication._engine.next_index[member] = min(next_index, replication._engine.log.last_index + 1)

    setter(Replication, "restart", restart)


# -- the state ---------------------------------------------------------------------------------------------------------
def applied_twice(setter: Setter) -> None:
    """The machine does not mind an index that it has seen."""
    careful = Machine.apply

    def careless(machine: Machine, index: int, term: int, payload: bytes, *, leave_open: bool = False) -> Applied:
        header = machine._state.header
        header.raft_index = min(header.raft_index, index - 1)
        return careful(machine, index, term, payload, leave_open=leave_open)

    setter(Machine, "apply", careless)


def flush_begun(setter: Setter) -> None:
    """A leader's entry counts as durable as soon as its flush has begun."""
    whole = LogStore.sync_soon

    def sync_soon(log: LogStore, ended: Callable[[OSError | None], None]) -> bool:
        begun = whole(log, lambda error: None)
        if begun:
            log._durable = log.last_index
            asyncio.get_running_loop().call_soon(ended, None)
        return begun

    setter(LogStore, "sync_soon", sync_soon)


def kept_prepared(setter: Setter) -> None:
    """What was prepared becomes the state, whatever is committed in its place."""
    careful = Machine.apply

    def careless(machine: Machine, index: int, term: int, payload: bytes, *, leave_open: bool = False) -> Applied:
        if machine._prepared is not None:
            machine._prepared = machine._prepared._replace(index=index, term=term, payload=payload)
        return careful(machine, index, term, payload, leave_open=leave_open)

    setter(Machine, "retract", lambda _machine: None)
    setter(Machine, "apply", careless)


def prepared_seen(setter: Setter) -> None:
    """Reads see what is only prepared."""
    setter(Machine, "_readable_from", property(lambda machine: machine._state.connection))


def open_forgotten(setter: Setter) -> None:
    """When a command fails, the entries before it whose transaction was still open are undone with it."""
    careful = Machine._begin_again

    def careless(machine: Machine, index: int, term: int) -> None:
        machine._open.clear()
        careful(machine, index, term)

    setter(Machine, "_begin_again", careless)


def word_once(setter: Setter) -> None:
    """A member at which somebody waits is told how far the log is committed, whether it knows that or not."""
    setter(Replication, "owes_word", lambda _replication, _member: True)


def receipt_digest(setter: Setter) -> None:
    """A receipt is given to any request with its key."""

    def find(state: State, op: str, key: str, _fingerprint: bytes) -> Any:
        kept = receipts.look(state, op, key)
        return None if kept is None else outcomes.decode(op, kept[1])

    setter(receipts, "find", find)


def producer_ids(setter: Setter) -> None:
    """Which producer id comes next is remembered in memory only."""
    setter(topics, "_INSERT_PRODUCER", swapped(topics._INSERT_PRODUCER, "INSERT", "INSERT OR REPLACE"))
    setter(
        topics, "_NEXT_PRODUCER", "UPDATE topics SET next_producer_id = next_producer_id WHERE ? < 0 AND topic_id = ?"
    )


# -- the node ----------------------------------------------------------------------------------------------------------
def consume_key(setter: Setter) -> None:
    """Taking messages is not done under the key of the request."""
    careful = sealing.Sealer.seal

    def seal(sealer: sealing.Sealer, name: str, request: Command[Any], key: str) -> Sealed:
        made = careful(sealer, name, request, key)
        return msgspec.structs.replace(made, key=None) if isinstance(request, t.Consume) else made

    setter(sealing.Sealer, "seal", seal)


def unknown_is_unknown(setter: Setter) -> None:
    """A node that could not learn what became of a write says that nothing did."""

    def gave_up(_core: Core, _visit: Visit, certain: Problem) -> Declined:
        return Declined(certain)

    setter(forwarding, "gave_up", gave_up)
    setter(gateway, "gave_up", gave_up)


def late_barrier(setter: Setter) -> None:
    """A read joins the barrier of an entry that is under way already."""
    kick, barrier = Committer._kick, Committer.barrier
    under_way: dict[Committer, list[Any]] = {}

    def kicked(committer: Committer) -> None:
        waiting = committer._barriers
        kick(committer)
        if committer._barriers is not waiting and committer._under_way:
            under_way[committer] = waiting

    def joined(committer: Committer) -> Any:
        future = barrier(committer)
        if committer._under_way and committer in under_way:
            committer._barriers.remove(future)
            under_way[committer].append(future)
        return future

    setter(Committer, "_kick", kicked)
    setter(Committer, "barrier", joined)


def cluster_time(setter: Setter) -> None:
    """Cluster time goes by the leader's calendar."""
    begin = Timekeeper.take_over
    started: dict[Timekeeper, int] = {}

    def take_over(keeper: Timekeeper, now_ms: int) -> None:
        begin(keeper, now_ms)
        started[keeper] = keeper._clock.wall_ms()

    def stamp(keeper: Timekeeper) -> Stamp:
        wall_ms = keeper._clock.wall_ms()
        return Stamp(max(0, keeper._base_ms + wall_ms - started[keeper]), wall_ms)

    setter(Timekeeper, "take_over", take_over)
    setter(Timekeeper, "stamp", stamp)


def calendar_holds(setter: Setter) -> None:
    """The calendar's time of an entry is taken as the leader says."""
    careful = Machine._apply_entry

    def careless(machine: Machine, index: int, term: int, payload: bytes) -> Any:
        machine._state.header.wall_ms = 0
        return careful(machine, index, term, payload)

    def stamp(keeper: Timekeeper) -> Stamp:
        return Stamp(keeper._base_ms + int(keeper._elapsed_s * 1000), keeper._clock.wall_ms())

    setter(Machine, "_apply_entry", careless)
    setter(Timekeeper, "stamp", stamp)


def apply_budget(setter: Setter) -> None:
    """One tick applies everything that is committed."""

    def apply_all(engine: Engine) -> bool:
        while engine.commit_index > engine.applied_index and engine.fatal is None and not engine.suspended:
            engine._apply_one(*engine.log.entry(engine.applied_index + 1))
        return False

    setter(Engine, "_SyncObj__applyLogEntries", apply_all)


def watch_wake(setter: Setter) -> None:
    """What is applied wakes nobody who waits for a topic."""
    careful = Watch.applied

    def careless(watch: Watch, sequence: int, _events: list[Event]) -> None:
        careful(watch, sequence, [])

    setter(Watch, "applied", careless)


_TABLE: list[Switch] = [
    cut_everything,
    refuse_everything,
    full_disk,
    snapshot_reset,
    birth_votes,
    one_probe,
    applied_twice,
    flush_begun,
    kept_prepared,
    prepared_seen,
    open_forgotten,
    word_once,
    receipt_digest,
    producer_ids,
    consume_key,
    unknown_is_unknown,
    late_barrier,
    cluster_time,
    calendar_holds,
    apply_budget,
    watch_wake,
]
SWITCHES: dict[str, Switch] = CONSENSUS_SWITCHES | {switch.__name__: switch for switch in _TABLE} | TASK_SWITCHES
"""All of them, by name."""
