"""What a node is given when it is made: what it is told, and the world outside of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from quorl.cluster.consensus.port import Clock, Disk, Network, Offload, StateFiles, Timing
from quorl.cluster.node.core import Logger, Peers
from quorl.cluster.node.members import Member
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.queues import Defaults
from quorl.cluster.protocol.system import NodeSettings


class Settings(NamedTuple):
    """What a node is told: who it is, who the others are, and when it tidies up."""

    cluster: str
    group: int
    name: str
    members: list[Member]
    version: str
    timing: Timing = Timing()
    snapshot_every: int = 50_000
    log_bytes_max: int = 64 * 1024 * 1024
    wait_s_max: float = limits.WAIT_S_MAX
    defaults: Defaults = Defaults()
    """What queues and workers get that are not told otherwise."""
    told: NodeSettings | None = None
    """What others may know of its config, to compare."""


class Ports(NamedTuple):
    """The outside world of one node."""

    clock: Clock
    dice: random.Random
    disk: Disk
    states: StateFiles
    network: Callable[[Callable[[], bytes], Callable[[str, bytes], None]], Network]
    """Makes the network, given what to gossip and whom to tell of the others' gossip."""
    peers: Peers
    offload: Offload
    new_token: Callable[[], str]
    """Random text for keys, ids and incarnations."""
    log: Logger
