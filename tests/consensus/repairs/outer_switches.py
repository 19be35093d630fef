"""The switches of what stands around the engine: network, snapshots, outcomes and reads. See ``switches``."""

from __future__ import annotations

import asyncio
from asyncio import constants
from typing import Any

from quorl.cluster.consensus import engine as engine_module
from quorl.cluster.consensus import handshake, library, statefile
from quorl.cluster.consensus.connection import Connection
from quorl.cluster.consensus.engine import Engine
from quorl.cluster.consensus.port import NotApplied
from quorl.cluster.consensus.tcp import TcpNetwork
from quorl.cluster.machine import machine as machine_module
from quorl.cluster.machine import receipts
from quorl.cluster.node import writing
from quorl.cluster.node.reading import Reading
from quorl.cluster.protocol import limits
from tests.consensus.repairs.setter import FOR_EVER_S, Setter


def copy_checked(setter: Setter) -> None:
    """A received copy of the state is put in place as it came."""

    def install(files: statefile.SqliteStateFiles, _snapshot: object) -> None:
        files._incoming.rename(files._state)

    setter(statefile.SqliteStateFiles, "install", install)


# -- the network -----------------------------------------------------------------------------------------------------
def accept_retried(setter: Setter) -> None:
    """A listener that once had no descriptor left does not accept again."""
    setter(constants, "ACCEPT_RETRY_DELAY", FOR_EVER_S)


def handshake_deadline(setter: Setter) -> None:
    """Connections that say nothing are held for ever."""
    setter(Connection, "_late", lambda connection: None)


def early_frames(setter: Setter) -> None:
    """Strangers may send frames as large as members."""
    setter(limits, "HANDSHAKE_BYTES_MAX", 1 << 30)


def proof(setter: Setter) -> None:
    """Nobody has to prove the secret."""
    setter(handshake, "_check_proof", lambda *_: None)


def fence(setter: Setter) -> None:
    """A connection that was replaced goes on being read."""

    def replace(network: TcpNetwork, peer: Any, _old: Connection, _new: Connection) -> None:
        peer.connection = None
        network._events.on_disconnected(peer.name)

    setter(TcpNetwork, "_replace", replace)


# -- outcomes and reads ----------------------------------------------------------------------------------------------
def queueing(setter: Setter) -> None:
    """A payload that comes while nobody leads is queued until somebody does."""
    whole = library.SyncObjConf

    def propose(engine: Engine, payload: bytes) -> asyncio.Future[Any]:
        engine._applyCommand(library.REGULAR + payload, None)
        return asyncio.get_running_loop().create_future()

    setter(library, "SyncObjConf", lambda **options: whole(**{**options, "commandsWaitLeader": True}))
    setter(Engine, "_checkCommandsToApply", library.SyncObj._checkCommandsToApply)
    setter(Engine, "propose", propose)


def library_forwards(setter: Setter) -> None:
    """What comes to a member that does not lead is left to the library."""
    queue_it = library.SyncObj._applyCommand

    def propose(engine: Engine, payload: bytes) -> asyncio.Future[Any]:
        queue_it(engine, library.REGULAR + payload, None)
        return asyncio.get_running_loop().create_future()

    setter(Engine, "_checkCommandsToApply", library.SyncObj._checkCommandsToApply)
    setter(Engine, "propose", propose)


def poison(setter: Setter) -> None:
    """An error while a command is applied is not the command's outcome."""
    setter(machine_module, "_same_everywhere", lambda error: False)


def receipts_kept(setter: Setter) -> None:
    """The machine does not know a request that comes again."""
    setter(receipts, "find", lambda *_: None)
    setter(receipts, "keep", lambda *_: None)


def outcome_colours(setter: Setter) -> None:
    """What is perhaps applied is reported as certainly not applied."""
    setter(engine_module, "OutcomeUnknown", lambda detail: NotApplied("no_leader", detail))


def read_barrier(setter: Setter) -> None:
    """A linearizable read is answered from whatever is applied here."""

    async def nothing(_reading: Reading, _visit: object) -> int:
        return 0

    setter(Reading, "_barrier", nothing)


def relay_wait(setter: Setter) -> None:
    """A forwarded answer is relayed before this node has applied what it tells of."""
    setter(writing, "sequence_of", lambda answer: 0)
