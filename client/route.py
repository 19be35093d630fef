"""Which node to ask first: what a client has learnt about its nodes. No socket, no clock of its own.

Every node takes every call, so any choice is right and the best one is the leader, which saves a hop. Answers say who
served them and who leads; while the leader's address is not among the known ones, calls go to nodes that have not
introduced themselves yet, which costs nothing and soon finds it. Only addresses that the user gave are ever used: those
that the members know of each other may not be reachable from here.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from typing_extensions import override

from quorl.client.forking import Renewed
from quorl.client.locks import Lock

if TYPE_CHECKING:
    from quorl.cluster.protocol.wire import Answer

PORT_DEFAULT = 7101
"""Where a node listens for HTTP unless its config says otherwise."""
SERVERS_DEFAULT = "http://127.0.0.1:7101,http://127.0.0.1:7102,http://127.0.0.1:7103"
COOLING_S_MIN = 2.0
COOLING_S_MAX = 60.0
"""A node that failed is asked last for so long: twice as long after each further failure, up to the maximum."""

_dice = random.SystemRandom()  # nothing to seed, and nothing that forked processes share


def read_servers(servers: str | Iterable[str]) -> tuple[str, ...]:
    """Return the addresses in a comma list or a list.

    A host alone is the node there, on ``PORT_DEFAULT``; what says http:// or https:// is a URL, with the port that URLs have.
    """
    listed = [servers] if isinstance(servers, str) or not isinstance(servers, Iterable) else list(servers)
    for one in listed:
        if not isinstance(one, str):
            raise TypeError(f"{one!r} is no server address: it should be text like '127.0.0.1:7101', or a list of that")
    given = [part for item in listed for part in item.split(",")]
    nodes = [_read_server(server.strip()) for server in given if server.strip()]
    if not nodes:
        raise ValueError("no server given: say at least one, for example http://127.0.0.1:7101")
    return tuple(dict.fromkeys(nodes))


def chosen_servers(servers: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the addresses that were given, else those that QUORL_SERVER names, else those of a cluster on this machine."""
    named = os.environ.get("QUORL_SERVER")
    if servers or not named:
        return read_servers(servers or SERVERS_DEFAULT)
    try:
        return read_servers(named)
    except ValueError as error:
        raise ValueError(f"QUORL_SERVER in the environment: {error}") from None


def _read_server(server: str) -> str:
    wanted = f"{server!r} is no server address: it should look like 127.0.0.1:7101 or https://queue.example"
    try:
        parts = urlsplit(server if "://" in server else f"http://{server}")
        port = parts.port
    except ValueError as error:  # no port, or half an IPv6 address
        raise ValueError(f"{wanted} ({error})") from None
    odd = " " in server or parts.query or parts.fragment or parts.path.startswith("//")  # http//127.0.0.1:7101
    if odd or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(wanted)
    if "://" not in server and port is None:
        parts = parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{PORT_DEFAULT}")
    return parts.geturl().rstrip("/")


def unsigned(node: str) -> str:
    """The address without the name and the password in it, for messages that others may read."""
    if "@" not in node:
        return node
    parts = urlsplit(node)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def unported(node: str) -> str:
    """What to add where no node answers at an address, if it is a URL without a port: few would know which one was tried."""
    parts = urlsplit(node)
    if parts.port is not None:
        return ""
    return f"; port {443 if parts.scheme == 'https' else 80} was tried, as for any URL without one, and nodes listen on {PORT_DEFAULT}"


class KeyMaker:
    """Idempotency keys: one random prefix per process, and a counter.

    A forked process takes a prefix of its own.
    """

    def __init__(self) -> None:
        self._owner = 0
        self._prefix = ""
        self._numbers = itertools.count()

    def make(self) -> str:
        """Return a key that nobody else makes."""
        if self._owner != os.getpid():
            self._prefix, self._owner = os.urandom(8).hex(), os.getpid()
        return f"{self._prefix}-{next(self._numbers):012d}"


class Route(Renewed):
    """The nodes of one client, and what it knows of them. Safe to share between threads."""

    def __init__(
        self,
        nodes: Iterable[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = _dice.uniform,
        make_key: Callable[[], str] | None = None,
        refused_s: float | None = None,
    ) -> None:
        self.nodes = tuple(nodes)
        self.clock = clock
        self.uniform = uniform
        self.make_key = make_key or KeyMaker().make
        self.refused_s = refused_s
        """While every node refuses the connection, or something else answers there, and none has ever answered, a call is
        tried no longer than this, or twice as long where one takes the connection and says nothing; None: to its end.
        A cluster that has answered is starting anew, and worth the wait."""
        self.met = False
        """Whether a node has answered."""
        self.sequence = 0
        """The highest sequence seen: what a session read must have behind it."""
        self.leader: str | None = None
        self._current = 0
        self._names: dict[str, str] = {}
        self._cooling: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        super().__init__()

    @override
    def _renew(self) -> None:
        self._lock = Lock()  # a signal handler may come while its thread has it

    def learn_from(self, other: Route) -> None:
        """Take over what another one of the same nodes knows of them: who leads, who has failed lately; not how far they are."""
        assert self.nodes == other.nodes
        self.leader, self._current = other.leader, other._current
        self._names, self._cooling, self._failures = dict(other._names), dict(other._cooling), dict(other._failures)

    def order(self) -> list[str]:
        """Return the nodes, the one to ask first in front."""
        now = self.clock()
        turn = self.nodes[self._current :] + self.nodes[: self._current]
        return sorted(turn, key=lambda node: (self._cooling.get(node, now) > now, self._rank(node)))

    def first(self) -> str:
        """Return the node to ask first."""
        node = self.nodes[self._current]
        likely = self.leader is None or self._names.get(node) == self.leader
        return node if likely and not self._cooling else self.order()[0]

    def _rank(self, node: str) -> int:
        if self.leader is None:
            return 0
        name = self._names.get(node)
        if name is None:
            return 1 if self.leader not in self._names.values() else 2
        return 0 if name == self.leader else 2

    def heard(self) -> tuple[str, int]:
        """Return which node answered last, by its name if it has said one, and the highest sequence seen."""
        node = self.nodes[self._current]
        return self._names.get(node, node), self.sequence

    def knows(self, node: str) -> bool:
        """Whether a node has been heard at this address."""
        return node in self._names

    def answered(self, node: str, answer: Answer) -> None:
        """Learn from an answer: who served it, who leads, how far the cluster is."""
        headers = answer.headers
        sequence = headers.get("quorl-sequence", "")
        with self._lock:
            self.met = True
            if self._failures:
                self._cooling.pop(node, None)
                self._failures.pop(node, None)
            if node != self.nodes[self._current]:
                self._current = self.nodes.index(node)
            if "served-by" in headers:
                self._names[node] = headers["served-by"]
            self.leader = headers.get("quorl-leader") or None
            if sequence.isascii() and sequence.isdigit() and (number := int(sequence)) > self.sequence:
                self.sequence = number

    def failed(self, node: str) -> None:
        """Learn that a node could not take a call."""
        with self._lock:
            failures = self._failures.get(node, 0)
            self._failures[node] = min(failures + 1, 30)
            self._cooling[node] = self.clock() + min(COOLING_S_MAX, COOLING_S_MIN * 2**failures)
            if self._names.get(node) == self.leader:
                self.leader = None
