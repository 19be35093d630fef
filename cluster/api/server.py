"""The process of one node: puts real time, disk and sockets under it, and takes them away in order.

SIGTERM and SIGINT stop it gracefully: the lead is handed over, running requests end, and the exit code is 0. A node that
must not go on (a failed fsync, a log that contradicts what is committed) ends with 71, as where its state finds no room on
the disk; one that meets damage in its state ends with 78.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import random
import re
import secrets
import signal
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

import quorl
from quorl import logs, systemd
from quorl.cluster.api import events
from quorl.cluster.api.app import Skin, introduce
from quorl.cluster.api.dashboard import Dashboard
from quorl.cluster.api.door import Door, connections_max, raise_file_limit
from quorl.cluster.api.exits import Exit
from quorl.cluster.api.health import Health
from quorl.cluster.api.hosts import Hosts
from quorl.cluster.api.members_only import fingerprint, token
from quorl.cluster.api.metered import LoopLag, MeteredDisk
from quorl.cluster.api.offload import Threads
from quorl.cluster.api.peers import HttpPeers
from quorl.cluster.api.secondlook import second_look
from quorl.cluster.api.told import Told
from quorl.cluster.consensus.damage import REMEDY
from quorl.cluster.consensus.disk import RealDisk
from quorl.cluster.consensus.listening import listen
from quorl.cluster.consensus.port import Timing
from quorl.cluster.consensus.statefile import SqliteStateFiles
from quorl.cluster.consensus.tcp import TcpNetwork
from quorl.cluster.node.config import Config, read_secret
from quorl.cluster.node.members import Member
from quorl.cluster.node.meters import Meters
from quorl.cluster.node.node import Node
from quorl.cluster.node.setting import Ports, Settings
from quorl.cluster.protocol.queues import Defaults
from quorl.cluster.protocol.system import NodeSettings
from quorl.cluster.protocol.wire import Answer, Call

if TYPE_CHECKING:
    from quorl.cluster.api.metrics import Exposition

_SHUTDOWN_S = 1.0
"""At a stop: how long connections may take to end by themselves, after the node has answered what ran."""
_FOUNDING_S = 3.0
"""Who has no leader after so long says whom it waits for: nothing else would be heard of a first start until all are up."""
_STEP_DOWN_S = 1.0
"""Answers that were under way when a leader was cut off count for it still: so less than the 1.5 s that are promised."""


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's ``mallopt``."""
_KEPT_BYTES = 8 * 1024 * 1024
"""Larger buffers come from the system and go back to it, and so does more than this that is free at the end of the heap."""


class RealClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    """See ``port.Clock``."""

    def wall_ms(self) -> int:
        """See ``port.Clock``."""
        return time.time_ns() // 1_000_000


async def serve(config: Config) -> int:
    """Run a node until it is told to stop, or cannot go on; the exit code."""
    log = structlog.get_logger("quorl.node")
    data_dir = config.node.data_dir
    data_dir.mkdir(parents=True, exist_ok=True)
    secret = read_secret(config) or b""
    member_token = token(secret, config.cluster.name)
    peers = HttpPeers({name: str(m.http) for name, m in config.peers.items()}, member_token)
    threads, clock, meters = Threads(), RealClock(), Meters()
    disk = MeteredDisk(RealDisk(data_dir), meters.fsync_s)
    dice = random.SystemRandom()
    networks: list[TcpNetwork] = []

    def network(gossip: Callable[[], bytes], on_gossip: Callable[[str, bytes], None]) -> TcpNetwork:
        addresses = {name: (m.raft.host, m.raft.port) for name, m in config.peers.items()}
        listen = (config.node.raft.host, config.node.raft.port)
        made = TcpNetwork(
            config.node.name, listen, addresses, secret, clock, dice, log, gossip=gossip, on_gossip=on_gossip
        )
        networks.append(made)
        return made

    ports = Ports(
        clock=clock,
        dice=dice,
        disk=disk,
        states=SqliteStateFiles(data_dir),
        network=network,
        peers=peers,
        offload=threads,
        new_token=lambda: secrets.token_hex(8),
        log=log,
    )
    node, lag = Node(settings_of(config, secret), ports, meters), LoopLag()
    try:
        await node.start()
        health = Health(node, lambda: networks[0].troubles, disk.free_bytes)
        hosts = Hosts(config.node.http.host, config.me.http.host)
        most, page = config.http.max_payload_bytes, Dashboard(str(m.http) for m in config.cluster.members)
        streams = {events.PATH: functools.partial(events.stream, node)}
        told = functools.partial(_metrics, node, disk.free_bytes, lag) if config.metrics.enabled else None
        door = Told(node, log) if config.log.level == "debug" else node
        skin = Skin(
            door, health, hosts, member_token, most, quorl.__version__, dashboard=page, streams=streams, metrics=told
        )
        return await _listen(config, node, skin)
    finally:
        lag.close()
        await peers.close()
        threads.close()
        disk.close()


def _metrics(node: Node, free_bytes: Callable[[], int], lag: LoopLag, call: Call) -> Answer:
    """What a scrape is answered with. The library is loaded by the first one: a restart does not wait for it."""
    return _exposition(node, free_bytes, lag).answer(call)


@functools.cache
def _exposition(node: Node, free_bytes: Callable[[], int], lag: LoopLag) -> Exposition:
    from quorl.cluster.api.metrics import Exposition

    return Exposition(node, quorl.__version__, free_bytes, lag)


def settings_of(config: Config, secret: bytes) -> Settings:
    """What of the config the node itself is told."""
    low, high = config.raft.election_timeout_ms
    return Settings(
        cluster=config.cluster.name,
        group=0,
        name=config.node.name,
        members=[Member(m.name, str(m.http), str(m.raft)) for m in config.cluster.members],
        version=quorl.__version__,
        timing=Timing(low / 1000, high / 1000, config.raft.heartbeat_ms / 1000, max(_STEP_DOWN_S, low / 1000)),
        snapshot_every=config.raft.snapshot_every,
        log_bytes_max=config.raft.log_bytes_max,
        wait_s_max=config.http.max_wait_s,
        defaults=Defaults(
            attempts=config.tasks.default_attempts,
            heartbeat_ms=round(1000 * config.tasks.worker_heartbeat_s),
            dead_after_ms=round(1000 * config.tasks.worker_dead_after_s),
        ),
        told=NodeSettings(
            secret_fingerprint=fingerprint(secret),
            election_timeout_ms=[low, high],
            heartbeat_ms=config.raft.heartbeat_ms,
            max_payload_bytes=config.http.max_payload_bytes,
            max_wait_s=config.http.max_wait_s,
            worker_heartbeat_s=config.tasks.worker_heartbeat_s,
            worker_dead_after_s=config.tasks.worker_dead_after_s,
            default_attempts=config.tasks.default_attempts,
        ),
    )


async def _listen(config: Config, node: Node, skin: Skin) -> int:
    """Serve HTTP until a signal or the node's own end."""
    log = structlog.get_logger("quorl.node")
    introduce(quorl.__version__)
    server = Door(
        skin.handle,
        most=connections_max(raise_file_limit()),
        refuse=skin.unreadable,
        auto_decompress=False,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=75.0,
    )
    runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    stopped: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()

    def stop(number: signal.Signals) -> None:
        if not stopped.done():
            stopped.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        with contextlib.closing(await listen(server, config.node.http.host, config.node.http.port)) as port:
            _load_for_tracebacks()
            _calm_memory()
            log.info(
                "node_started",
                http=str(config.node.http),
                raft=str(config.node.raft),
                data_dir=str(config.node.data_dir),
            )
            systemd.notify("READY=1", f"STATUS=serving on {config.node.http}")
            ends: list[asyncio.Future[Any]] = [stopped, node.died]
            await asyncio.wait(ends, timeout=_FOUNDING_S, return_when=asyncio.FIRST_COMPLETED)
            if node.leader() is None and not any(end.done() for end in ends):
                problem = node.outage()
                log.info("waiting_for_members", why=problem.detail, advice=problem.hint or problem.kind.hint)
            await _until_one_of(ends)
            systemd.notify("STOPPING=1")
            if node.died.done():
                damaged = node.replica.damaged
                advice = await asyncio.to_thread(second_look, config.node.data_dir) if damaged else None
                return _died(config.node.name, node.died.result(), damaged=damaged, advice=advice)
            log.info("node_stopping", signal=stopped.result().name)
            port.close()  # whoever comes now is refused at once and asks another node
            await node.stop()
            skin.channels.close()
            log.info("node_stopped")
            return Exit.STOPPED
    finally:
        await runner.cleanup()


_FULL = re.compile("disk is full|No space left")
"""How SQLite and the system say that of a disk."""


def _died(name: str, reason: str, *, damaged: bool, advice: str | None) -> int:
    """Say why a node stopped itself, and what to do if not the usual; the exit code."""
    full = "Make room where its data_dir is: its next start goes on. " if _FULL.search(reason) else ""
    advice = advice or (REMEDY if damaged else f"{full}Nothing acknowledged is lost.")
    logs.end(structlog.get_logger("quorl.node"), "node_died", f"{name} stopped itself: {reason}\n{advice}")
    return Exit.DAMAGED if damaged else Exit.MACHINE


async def _until_one_of(ends: list[asyncio.Future[Any]]) -> None:
    """Wait for an end; meanwhile tell systemd's watchdog, if there is one, that the loop turns."""
    pause_s = systemd.watchdog_s()
    while not (await asyncio.wait(ends, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED))[0]:
        systemd.notify("WATCHDOG=1")


def _load_for_tracebacks() -> None:
    """Load what writing a traceback needs, which Python loads then: a node without descriptors could not say so any more."""
    try:
        raise OSError
    except OSError as error:
        traceback.format_exception(error)


def _calm_memory() -> None:
    """Keep full collections from stalling the loop, and freed memory from going to the system only to be asked for again.

    A batch of messages passes through some ten buffers of its size; the kernel would clear each of them page by page anew.
    """
    with contextlib.suppress(OSError, AttributeError):  # not every C library has this
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
