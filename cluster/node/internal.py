"""What nodes ask each other, beside forwarding: a barrier for a read, heartbeats into an entry, pieces of a snapshot."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import parse_qs

import msgspec

from quorl.cluster.consensus.damage import REMEDY, is_damage
from quorl.cluster.consensus.port import Damaged, NotApplied, Offload, OutcomeUnknown, Snapshot, StateFiles
from quorl.cluster.node.core import BARRIER, BEATS, SNAPSHOT, Logger
from quorl.cluster.node.gathering import decode_signs
from quorl.cluster.node.upkeep import PIECE_BYTES
from quorl.cluster.protocol.entry import SignOfLife
from quorl.cluster.protocol.wire import Answer, Call
from quorl.shielding import shield

_READ_LATELY_S = 10.0
"""A copy that was read from this lately is being pulled: whoever comes next gets the same one."""
_COPY_AGE_S_MAX = 600.0
"""Nobody pulls it, and it is older than this: a new one is made, should the file have been damaged since."""


class Answerer(Protocol):
    """What these calls need of the node."""

    def leads(self) -> bool:
        """Whether this node leads and serves."""

    async def barrier(self) -> int:
        """A sequence that contains every write acknowledged before this call."""

    async def sign(self, signs: Sequence[SignOfLife]) -> int:
        """Put signs of life into the next entry; gives its sequence."""

    def first_index(self) -> int:
        """The oldest entry that this node's log still holds."""

    def monotonic(self) -> float:
        """Seconds that never run backwards."""


class Internal:
    """Answers the calls under ``/internal/``; whether the caller is a member was checked before."""

    def __init__(
        self, node: Answerer, states: StateFiles, offload: Offload, log: Logger, hand_over: Callable[[], bool]
    ) -> None:
        """``hand_over`` asks another member to lead, if one can."""
        self._log = log
        self._hand_over = hand_over
        self._node = node
        self._states = states
        self._offload = offload
        self._snapshot: Snapshot | None = None
        self._made_s = self._read_s = 0.0
        self._making: asyncio.Future[Snapshot] | None = None

    async def handle(self, call: Call) -> Answer:
        """Answer one call."""
        if call.path == BARRIER:
            return await self._barrier()
        if call.path == BEATS:
            return await self._beats(call.body)
        if call.path == SNAPSHOT:
            return await self._copy()
        if call.path.startswith(f"{SNAPSHOT}/"):
            return await self._piece(call.path.removeprefix(f"{SNAPSHOT}/"), parse_qs(call.query))
        return _json(404, {"code": "route_not_found"})

    async def _barrier(self) -> Answer:
        if not self._node.leads():
            return _json(503, {"code": "no_leader"})
        try:
            return _json(200, {"sequence": await self._node.barrier()})
        except (NotApplied, OutcomeUnknown) as error:
            full = isinstance(error, NotApplied) and error.code == "storage_full"
            return _json(507 if full else 503, {"code": "storage_full" if full else "no_leader", "detail": str(error)})

    async def _beats(self, body: bytes) -> Answer:
        try:
            signs = decode_signs(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _json(400, {"code": "invalid_parameter", "detail": str(error)})
        if not self._node.leads():
            return _json(503, {"code": "no_leader"})
        try:
            return _json(200, {"sequence": await self._node.sign(signs)})
        except (NotApplied, OutcomeUnknown) as error:
            return _json(503, {"code": "no_leader", "detail": str(error)})

    async def _copy(self) -> Answer:
        try:
            snapshot = await self._shared_copy()
        except (OSError, sqlite3.Error, Damaged) as error:
            # A copy that fails its own check is thrown away; the state that it was taken from is not touched.
            if isinstance(error, Damaged) or is_damage(error):
                # Only a copy of another member's can fill who asks. This one goes on, for now it may be needed to decide.
                handed_over = self._node.leads() and self._hand_over()
                self._log.error("state_damaged", why=str(error), advice=REMEDY, handed_over=handed_over)
            return _json(503, {"code": "not_ready", "detail": f"no copy of the state could be made: {error}"})
        if snapshot is not self._snapshot:
            self._snapshot, self._made_s = snapshot, self._node.monotonic()
        return _json(200, snapshot)

    async def _shared_copy(self) -> Snapshot:
        """One copy for all and for as long as it serves: to make one costs as much as the state is large.

        Two followers that pull at the same time would else take each other's away for ever, and one that has no room
        for it would have it made again and again. Whoever asked may go away; the copy is made all the same, and no
        second one beside it.
        """
        if self._making is None or self._making.done():
            if self._snapshot is not None and self._is_shared(self._snapshot):
                return self._snapshot
            self._making = asyncio.ensure_future(self._offload.run(self._states.copy))
            self._making.add_done_callback(lambda made: made.cancelled() or made.exception())
        return await shield(self._making)

    def _is_shared(self, snapshot: Snapshot) -> bool:
        """Whether this node's log goes on from this copy, and nothing speaks for another one."""
        now = self._node.monotonic()
        kept = now - self._made_s < _COPY_AGE_S_MAX or now - self._read_s < _READ_LATELY_S
        return kept and snapshot.index >= self._node.first_index()

    async def _piece(self, name: str, query: dict[str, list[str]]) -> Answer:
        snapshot = self._snapshot
        offset = query.get("offset", ["0"])[0]
        if snapshot is None or snapshot.name != name or not offset.isdecimal():
            return _json(404, {"code": "route_not_found", "detail": "that snapshot has been replaced by a newer one"})
        try:
            data = await self._offload.run(lambda: self._states.read(snapshot, int(offset), PIECE_BYTES))
            self._read_s = self._node.monotonic()
        except FileNotFoundError:
            self._snapshot = None
            return _json(404, {"code": "route_not_found", "detail": "that snapshot has been replaced by a newer one"})
        return Answer(200, {"content-type": "application/octet-stream"}, data)


def _json(status: int, body: object) -> Answer:
    return Answer(status, {"content-type": "application/json"}, msgspec.json.encode(body))
