"""What a node is told before it starts: one TOML file, and the environment over it.

``Config`` is the whole of it: frozen, checked, every key documented where it is declared. ``load`` either gives a config
that a node can be started from or raises ``ConfigError`` with every mistake at once; it starts nothing and changes
nothing. How mistakes are found in the text is the business of ``configfile``; which values make sense together is
decided here, in ``_contradictions``.

Invariants: a key exists only if it does something; relative paths are relative to the config file; a secret is never
part of the config, only the name of its file.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from quorl.cluster.node.configfile import Address, ConfigError, Mistake, Source, guess, read
from quorl.cluster.protocol import limits

__all__ = ["Address", "Config", "ConfigError", "Member", "Mistake", "cautions", "is_loopback", "load", "read_secret"]

MEMBERS_MAX = 15
"""Beyond this many, every entry waits for more disks than it gains safety from."""
HEARTBEATS_PER_ELECTION_MIN = 3
"""An election must not be caused by one or two late heartbeats."""
HEARTBEATS_PER_LIMIT_MIN = 2
"""A worker must not be given up because of one late heartbeat."""
_SECRET_BYTES_FEW = 16
"""A shorter secret is warned of: it can be guessed from what a connection shows."""
ANY_HOST = frozenset({"0.0.0.0", "::"})
MISSING: Final = object()

NodeName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="1 to 63 letters, digits, `.`, `_` and `-`"),
]
Millis = Annotated[int, Meta(ge=10, le=60_000, description="an integer from 10 to 60000")]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the config file."""


class Node(Section, frozen=True):
    """This node."""

    name: NodeName
    """Must be one of the names in ``[[cluster.members]]``."""
    http: Address
    """Where this node listens for clients and for other nodes' forwarded requests, as host:port."""
    raft: Address
    """Where this node listens for the other members; keep it off the public network."""
    data_dir: Path = Path()
    """Everything that the node keeps. Default: ``../data/<name>``, seen from the config file."""


class Member(Section, frozen=True):
    """One member as the others reach it."""

    name: NodeName
    """Unique in the cluster, and the member's for ever."""
    http: Address
    """Where the others and clients reach its HTTP side, as host:port."""
    raft: Address
    """Where the others reach its Raft side, as host:port."""


class Cluster(Section, frozen=True):
    """The cluster that this node belongs to; the same on every node."""

    name: NodeName
    """Nodes of a cluster with another name are refused."""
    members: Annotated[tuple[Member, ...], Meta(min_length=1, max_length=MEMBERS_MAX)]
    """All members, this one too."""
    secret_file: Path | None = None
    """A file whose content every member must prove to know before a byte of it is read. Needed off loopback."""


class Raft(Section, frozen=True):
    """The replicated log."""

    election_timeout_ms: Annotated[
        tuple[Millis, Millis], Meta(description="two integers from 10 to 60000, the smaller first")
    ] = (500, 1000)
    """A follower that hears nothing for a random time in this range asks for votes."""
    heartbeat_ms: Millis = 100
    """How often a leader makes itself heard when there is nothing to replicate."""
    snapshot_every: Annotated[int, Meta(ge=10, le=100_000_000, description="an integer from 10 to 100000000")] = 50_000
    """After so many log entries the state is made durable by itself and the log before it is dropped."""
    log_bytes_max: Annotated[int, Meta(ge=1024**2, le=1024**4, description="an integer from 1 MiB to 1 TiB")] = (
        64 * 1024**2
    )
    """A log that is larger is shortened earlier, even if a member that is away will need a snapshot then."""
    durability: Literal["fsync"] = "fsync"
    """What an acknowledged write has gone through on a majority of the disks."""


class Http(Section, frozen=True):
    """The HTTP side."""

    max_payload_bytes: Annotated[
        int,
        Meta(ge=1024, le=limits.REQUEST_BYTES_MAX, description=f"an integer from 1024 to {limits.REQUEST_BYTES_MAX}"),
    ] = limits.REQUEST_BYTES_MAX
    """A larger request body is answered with 413."""
    max_wait_s: Annotated[
        float, Meta(ge=0, le=limits.WAIT_S_MAX, description=f"a number from 0 to {limits.WAIT_S_MAX:g}")
    ] = limits.WAIT_S_MAX
    """The longest that a request may wait for a message or a task; a longer ``wait`` is cut to this."""


Seconds = Annotated[
    float,
    Meta(
        ge=limits.HEARTBEAT_MS_MIN / 1000,
        le=limits.HEARTBEAT_MS_MAX / 1000,
        description=f"a number from {limits.HEARTBEAT_MS_MIN / 1000:g} to {limits.HEARTBEAT_MS_MAX / 1000:g}",
    ),
]


class Tasks(Section, frozen=True):
    """What queues and workers get that are not told otherwise. It holds for what is made from now on."""

    worker_heartbeat_s: Seconds = 5
    """How often a worker gives a sign of life."""
    worker_dead_after_s: Seconds = 15
    """A worker that is silent for so long, in cluster time, is DEAD, and its tasks go to others."""
    default_attempts: Annotated[
        int, Meta(ge=1, le=limits.ATTEMPTS_MAX, description=f"an integer from 1 to {limits.ATTEMPTS_MAX}")
    ] = 3
    """How often a task is tried before it is FAILED."""


class Auth(Section, frozen=True):
    """Who may do what."""

    mode: Literal["none", "insecure"] = "none"
    """``none``: everybody on this machine may do everything, so http must listen on loopback. ``insecure``: the same
    for everybody who reaches the node, wherever it listens."""


class Log(Section, frozen=True):
    """What the node says while it runs, on standard error."""

    format: Literal["auto", "console", "json"] = "auto"
    """``auto``: console on a terminal, else one JSON object a line."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written."""


class Metrics(Section, frozen=True):
    """What the node counts, for Prometheus."""

    enabled: bool = True
    """Whether ``GET /metrics`` answers."""


class Config(Section, frozen=True):
    """Everything a node is told before it starts."""

    node: Node
    """This node."""
    cluster: Cluster
    """The cluster that it belongs to."""
    raft: Raft = Raft()
    """The replicated log."""
    http: Http = Http()
    """The HTTP side."""
    tasks: Tasks = Tasks()
    """What queues and workers get that are not told otherwise."""
    auth: Auth = Auth()
    """Who may do what."""
    log: Log = Log()
    """What the node says while it runs."""
    metrics: Metrics = Metrics()
    """What the node counts, for Prometheus."""

    @property
    def members(self) -> dict[str, Member]:
        """All members by name, in the order of the file."""
        return {member.name: member for member in self.cluster.members}

    @property
    def me(self) -> Member:
        """This node as the others see it."""
        return self.members[self.node.name]

    @property
    def peers(self) -> dict[str, Member]:
        """The other members by name, in the order of the file."""
        return {name: member for name, member in self.members.items() if name != self.node.name}


def load(path: str | Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read a config file, with ``QUORL_<SECTION>__<KEY>`` of the environment over it; raises ``ConfigError``."""
    path = Path(path)
    source = read(path, os.environ if environ is None else environ, Config)
    for place, text in _contradictions(source, path.parent):
        source.complain(place, text)
    source.raise_if_any()
    return _resolved(msgspec.convert(source.values, Config), path.parent)


def read_secret(config: Config) -> bytes | None:
    """The cluster secret without the white space around it, None without a file; raises ``OSError``."""
    file = config.cluster.secret_file
    return None if file is None else file.read_bytes().strip()


def cautions(config: Config) -> list[str]:
    """What is allowed and still worth a warning, a sentence each."""
    said = []
    file = config.cluster.secret_file
    if file is not None and file.stat().st_mode & stat.S_IROTH:
        said.append(f"every user of this machine can read the cluster secret: chmod 600 {file}")
    secret = read_secret(config)
    if secret is not None and len(secret) < _SECRET_BYTES_FEW:
        few = f"the cluster secret in {file} has {len(secret)} bytes, so few that who listens on the wire can try them all"
        said.append(f"{few}: take 32 random ones, openssl rand -hex 32")
    if config.auth.mode == "insecure" and not is_loopback(config.node.http.host):
        said.append(f"anyone who reaches {config.node.http} can read and write everything: [auth] mode is insecure")
    if config.cluster.secret_file is None and not is_loopback(config.node.raft.host):
        said.append(f"anyone who reaches {config.node.raft} can speak as a member: [cluster] secret_file is not set")
    for key, address, known in (("http", config.node.http, config.me.http), ("raft", config.node.raft, config.me.raft)):
        if address.port != known.port:
            dialled = f"others look for {config.node.name} at {known}, and node.{key} listens at {address}"
            said.append(f"{dialled}: they reach it only if something forwards from the one port to the other")
    if len(config.cluster.members) % 2 == 0:
        size = len(config.cluster.members)
        said.append(f"{size} members survive the loss of no more nodes than {size - 1} do")
    return said


def _resolved(config: Config, base: Path) -> Config:
    """The same config with every path absolute."""
    node, cluster = config.node, config.cluster
    data_dir = node.data_dir if node.data_dir != Path() else Path("..", "data", node.name)
    node = msgspec.structs.replace(node, data_dir=_absolute(base, data_dir))
    if cluster.secret_file is not None:
        cluster = msgspec.structs.replace(cluster, secret_file=_absolute(base, cluster.secret_file))
    return msgspec.structs.replace(config, node=node, cluster=cluster)


def _absolute(base: Path, path: Path) -> Path:
    return Path(os.path.normpath(Path.cwd() / base / path.expanduser()))


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine, whoever resolves it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# -- which values make sense together ------------------------------------------------------------------------------
Complaint = tuple[str, str]
"""The dotted place of a key or a table, and what is wrong with it."""


def _contradictions(source: Source, base: Path) -> list[Complaint]:
    """Judge what could be read; what could not is None here and was complained about."""
    return [
        *_membership(source),
        *_listening(source),
        *_timing(source),
        *_silence(source),
        *_exposure(source),
        *_files(source, base),
    ]


def _membership(source: Source) -> Iterator[Complaint]:
    members = source.get("cluster.members") or ()
    seen: dict[object, str] = {}
    for number, member in enumerate(members):
        for key in Member.__struct_fields__:
            value = member.get(key)
            if value is None:
                continue
            place = f"cluster.members.{number}.{key}"
            # A name never looks like an address, so one dictionary tells all three apart.
            known = value if key == "name" else (_host(value), value.port)
            if known in seen:
                yield place, f'cluster.members: "{value}" is already the {seen[known]}; each needs its own'
            seen.setdefault(known, f"{key} of {member.get('name', 'another')}")
            if key != "name" and value.host in ANY_HOST:
                yield place, f'cluster.members: "{value}" is no address that other nodes can dial'
    name, names = source.get("node.name"), [member["name"] for member in members if "name" in member]
    if name and names and name not in names:
        yield (
            "node.name",
            f'node.name: "{name}" is not one of [[cluster.members]]: {", ".join(names)}{guess(name, names)}',
        )


def _listening(source: Source) -> Iterator[Complaint]:
    """This node listens where the others look for it, and where nobody else of the cluster does."""
    own = {key: address for key in ("http", "raft") if (address := source.get(f"node.{key}"))}
    if len(own) > 1 and _meet(own["http"], own["raft"]):
        also = "" if own["http"] == own["raft"] else f' ("{own["http"]}")'
        yield "node.raft", f'node.raft: "{own["raft"]}" is also node.http{also}; each needs its own'
        return
    name, members = source.get("node.name"), source.get("cluster.members") or ()
    me: Mapping[str, Any] = next((member for member in members if name and member.get("name") == name), {})
    here = {_host(address) for address in (*own.values(), me.get("http"), me.get("raft")) if address}
    for key, address in own.items():
        mine = me.get(key)
        if not me or (mine is not None and _meet(address, mine, here)):
            continue  # whoever else is there is a mistake of the members
        for member, other in ((member, other) for member in members for other in ("http", "raft")):
            theirs = member.get(other)
            if theirs is not None and _meet(address, theirs, here):
                place = f"the {other} of {member.get('name', 'another')} in [[cluster.members]]"
                yield (
                    f"node.{key}",
                    f'node.{key}: "{address}" is {place}' + (f'; {name} is at "{mine}"' if mine else "") + "\n"
                    f"Each member listens at its own: set node.{key} to where the others look for this one.",
                )


def _host(address: Address) -> str:
    """The host, under one name."""
    return "127.0.0.1" if address.host.lower() == "localhost" else address.host.lower()


def _meet(one: Address, other: Address, here: Collection[str] | None = None) -> bool:
    """Whether listening at both would collide on this machine, of which these hosts are known; None: both are its own."""
    if one.port != other.port:
        return False
    hosts = {_host(one), _host(other)}
    if len(hosts) == 1:
        return True
    return any(host in ANY_HOST for host in hosts) and (
        here is None or all(host in ANY_HOST or host in here or is_loopback(host) for host in hosts)
    )


def _timing(source: Source) -> Iterator[Complaint]:
    patience = source.get("raft.election_timeout_ms", Raft().election_timeout_ms)
    heartbeat = source.get("raft.heartbeat_ms", Raft().heartbeat_ms)
    place = "raft.election_timeout_ms"
    if patience and patience[0] >= patience[1]:
        what = f"{place}: [{patience[0]}, {patience[1]}] is no range"
        yield (
            place,
            f"{what}\nMembers draw their patience from it, so that they do not all ask for votes at once: [500, 1000].",
        )
    if patience and heartbeat and patience[0] < HEARTBEATS_PER_ELECTION_MIN * heartbeat:
        limit = f"{HEARTBEATS_PER_ELECTION_MIN} times heartbeat_ms = {heartbeat}"
        yield place, f"{place}: {patience[0]} is less than {limit}\nOne late heartbeat would depose a healthy leader."


def _silence(source: Source) -> Iterator[Complaint]:
    heartbeat = source.get("tasks.worker_heartbeat_s", Tasks().worker_heartbeat_s)
    dead_after = source.get("tasks.worker_dead_after_s", Tasks().worker_dead_after_s)
    place = "tasks.worker_dead_after_s"
    if heartbeat and dead_after and dead_after < HEARTBEATS_PER_LIMIT_MIN * heartbeat:
        limit = f"{HEARTBEATS_PER_LIMIT_MIN} times worker_heartbeat_s = {heartbeat:g}"
        yield (
            place,
            f"{place}: {dead_after:g} is less than {limit}\nOne late heartbeat would cost a healthy worker its tasks.",
        )


def _exposure(source: Source) -> Iterator[Complaint]:
    """Off loopback, every door needs a lock or the word that says it has none."""
    if source.get("auth.mode", Auth().mode) != "none":
        return
    trusted = '[auth] mode = "insecure" on a network that you trust'
    http, raft = source.get("node.http"), source.get("node.raft")
    if http and not is_loopback(http.host):
        what = f'[auth] mode = "none" but http listens on {http.host} → anyone on the network could read and write everything.'
        yield "node.http", f'{what}\nSet http = "127.0.0.1:{http.port}", or {trusted}.'
    if raft and not is_loopback(raft.host) and source.get("cluster.secret_file", MISSING) is MISSING:
        what = (
            f"no [cluster] secret_file but raft listens on {raft.host} → anyone on the network could speak as a member."
        )
        yield "node.raft", f"{what}\nSet secret_file, the same on every node, or {trusted}."


def _files(source: Source, base: Path) -> Iterator[Complaint]:
    data_dir = source.get("node.data_dir")
    if data_dir and (path := _absolute(base, data_dir)).exists() and not path.is_dir():
        yield "node.data_dir", f"node.data_dir: {path} is not a directory"
    secret_file = source.get("cluster.secret_file")
    if not secret_file:
        return
    place, path = "cluster.secret_file", _absolute(base, secret_file)
    make = f"openssl rand -hex 32 > {path} && chmod 600 {path}"
    remedy = f"Copy that of the other nodes there, for it is the same on all; the first of a new cluster: {make}"
    try:
        if not path.read_bytes().strip():
            yield place, f"{place}: {path} is empty\n{remedy}"
    except FileNotFoundError:
        yield place, f"{place}: {path} does not exist\n{remedy}"
    except OSError as error:
        yield place, f"{place}: {path}: {error.strerror}"
