"""Upkeep: keeps the log short, and replaces a copy of the state that fell too far behind.

A checkpoint makes the state's own file durable; only below the index that it certainly holds may the log be trimmed. A
follower whose next entry was trimmed at the leader pulls a checked copy of the leader's state, piece by piece, while
everybody goes on serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import msgspec

from quorl.cluster.consensus.port import Clock, Damaged, Disk, Offload, Snapshot, StateFiles
from quorl.cluster.node.core import SNAPSHOT, Logger, PeerLost, Peers, PeerUnreachable
from quorl.cluster.node.meters import Meters
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.wire import Answer, Call

PIECE_BYTES = 1024 * 1024
"""Of a copy, in one call: one that a break loses is soon sent again, and few calls are needed for a gigabyte."""
_CALL_TIMEOUT_S = 30.0
"""A copy that takes longer to make is asked for again: the leader goes on making it."""
_PAUSE_S_MIN, _PAUSE_S_MAX = 1.0, 15.0
"""After a failure the next try waits, twice as long each time: what failed is mostly the room, which nobody makes soon."""

WRITTEN_BYTES_MAX = 192 * 1024 * 1024
"""Of what entries have written to the state since the last checkpoint: a few seconds of busy single appends."""
_ENTRY_BYTES = 24 * 1024
"""What even the smallest entry writes: the pages of the header, of its rows and of their indexes."""
FRESH_BYTES_MAX = 16 * 1024 * 1024
"""Of what entries have brought since the last checkpoint. Other pages are written over and over before one takes them over,
these are new: waiting spares nothing, and whoever flushes meanwhile waits for all of them."""
_LONG_SHARE = 3 / 4
"""Of ``log_bytes_max``: from here on a checkpoint that is due anyway trims the log, too."""


class Bounds(NamedTuple):
    """When a node makes a checkpoint and trims its log."""

    entries: int
    log_bytes_max: int
    turn: float = 0.0
    """The share of the way to its first checkpoint that this node has behind it when it starts.

    All members apply the same: without turns of their own all would write their checkpoints at the same moment, and the
    fastest majority would be as slow as the slowest member.
    """


class Trimming:
    """Checkpoints every so many entries or bytes, and trims the log below them.

    Checkpoints come more often than trims: what is written to the state beside its file has to be kept until the next one,
    and flushed by it at once.
    """

    def __init__(
        self,
        states: StateFiles,
        offload: Offload,
        trim: Callable[[int], None],
        bounds: Bounds,
        log: Logger,
        meters: Meters | None = None,
    ) -> None:
        self._meters = meters or Meters()
        self._states = states
        self._offload = offload
        self._trim = trim
        self._bounds = bounds
        self._log = log
        self._entries = int(bounds.turn * bounds.entries)
        """How many were applied since the last trim."""
        self._written_bytes = int(bounds.turn * WRITTEN_BYTES_MAX)
        self._fresh_bytes = int(bounds.turn * FRESH_BYTES_MAX)
        self._task: asyncio.Task[None] | None = None
        self.paused = False

    @property
    def running(self) -> bool:
        """Whether a checkpoint is being made."""
        return self._task is not None and not self._task.done()

    def applied(self, size_bytes: int, log_bytes: int) -> None:
        """One more entry was applied, of that size; the log takes so much."""
        bounds = self._bounds
        self._entries += 1
        self._written_bytes += size_bytes + _ENTRY_BYTES
        self._fresh_bytes += size_bytes
        many = self._entries >= bounds.entries
        too_long = log_bytes > bounds.log_bytes_max and self._entries >= min(100, bounds.entries)
        full = self._written_bytes >= WRITTEN_BYTES_MAX or self._fresh_bytes >= FRESH_BYTES_MAX
        if (many or too_long or full) and not self.paused and not self.running:
            self._written_bytes = self._fresh_bytes = 0
            trim = many or log_bytes > _LONG_SHARE * bounds.log_bytes_max
            if trim:
                self._entries = 0
            self._task = asyncio.get_running_loop().create_task(self._checkpoint(trim=trim))

    async def _checkpoint(self, *, trim: bool) -> None:
        began_s = asyncio.get_running_loop().time()
        try:
            index = await self._offload.run(self._states.checkpoint)
        except sqlite3.Error as error:
            # The log keeps what the state's file could not take; the next checkpoint tries again.
            self._log.warning("checkpoint_failed", why=str(error))
            return
        self._meters.checkpoint_s.observe(asyncio.get_running_loop().time() - began_s)
        if trim and index is not None and not self.paused:
            self._trim(index)

    async def close(self) -> None:
        """Let a running checkpoint end, and begin no other."""
        self.paused = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


class CatchUp:
    """Pulls a snapshot from the leader and has it installed; one at a time, and none that there is no room for."""

    def __init__(
        self,
        states: StateFiles,
        offload: Offload,
        peers: Peers,
        disk: Disk,
        clock: Clock,
        install: Callable[[Snapshot], Awaitable[None]],
        log: Logger,
        meters: Meters | None = None,
    ) -> None:
        self._meters = meters or Meters()
        self._states = states
        self._offload = offload
        self._peers = peers
        self._disk = disk
        self._clock = clock
        self._install = install
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._pause_s = 0.0
        self._next_s = 0.0
        """The moment before which nothing is pulled."""

    @property
    def running(self) -> bool:
        """Whether a snapshot is being pulled or installed."""
        return self._task is not None and not self._task.done()

    def needed(self, leader: str) -> None:
        """The leader says that its log does not reach back to where this node stands; it says so again and again."""
        if not self.running and self._clock.monotonic() >= self._next_s:
            self._task = asyncio.get_running_loop().create_task(self._catch_up(leader))

    async def _catch_up(self, leader: str) -> None:
        try:
            snapshot = await self._pull(leader)
            await self._install(snapshot)
        except (PeerUnreachable, PeerLost, Damaged, OSError, sqlite3.Error, msgspec.DecodeError) as error:
            self._pause_s = min(max(_PAUSE_S_MIN, 2 * self._pause_s), _PAUSE_S_MAX)
            self._next_s = self._clock.monotonic() + self._pause_s
            self._meters.snapshots_failed += 1
            self._log.warning("snapshot_failed", leader=leader, why=str(error), retry_in_s=self._pause_s)
            with contextlib.suppress(OSError):  # the next copy takes its place anyway
                await self._offload.run(self._states.forget_incoming)
        else:
            self._pause_s = 0.0
            self._meters.snapshots += 1
            self._meters.snapshot_bytes = snapshot.size_bytes
            self._log.info("snapshot_installed", leader=leader, index=snapshot.index, size_bytes=snapshot.size_bytes)

    async def _pull(self, leader: str) -> Snapshot:
        snapshot = msgspec.json.decode(await self._get(leader, SNAPSHOT, ""), type=Snapshot)
        wanted_bytes = snapshot.size_bytes + limits.DISK_SPARE_BYTES
        missing_bytes = wanted_bytes - self._disk.free_bytes(wanted_bytes)
        if missing_bytes > 0:
            raise OSError(errno.ENOSPC, f"{missing_bytes} bytes more must be free for {snapshot.size_bytes} of state")
        offset = 0
        while offset < snapshot.size_bytes:
            piece = await self._get(leader, f"{SNAPSHOT}/{snapshot.name}", f"offset={offset}")
            if not piece:
                break
            await self._offload.run(partial(self._states.receive, offset, piece))
            offset += len(piece)
        return snapshot

    async def _get(self, leader: str, path: str, query: str) -> bytes:
        answer: Answer = await self._peers.call(leader, Call("GET", path, query, {}, b""), _CALL_TIMEOUT_S)
        if answer.status != 200:
            raise PeerLost(f"{leader} answered {answer.status} to {path}")
        return answer.body

    async def close(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
