"""``quorl node init``: the files that a new cluster's machines need, made in one go so that they agree.

One folder for each member, to be copied to ``/etc/quorl`` there: its config and the cluster's secret, which is the same in all
of them and readable by nobody else. Beside them what starts a node: a systemd unit, and a compose file for containers, which
use the network of their machine, so that one config does for both. Nothing that exists is overwritten.
"""

from __future__ import annotations

import ipaddress
import os
import pathlib
import re
import secrets
import sys
from typing import NamedTuple, NoReturn

import click

from quorl.client.cli import output
from quorl.client.cli.common import Exit, Settings, common_options, fail

HTTP_PORT, RAFT_PORT = 7101, 7201
DATA_DIR = "/var/lib/quorl"
SECRET_BYTES = 32
"""From the system's dice, written as twice as many digits."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

UNIT = """\
[Unit]
Description=quorl node
Wants=network-online.target
After=network-online.target
# What the machine refuses now (a full disk, an address that is not there yet) it may give later: never give up.
StartLimitIntervalSec=0

[Service]
Type=notify
User=quorl
ExecStart={node} --config /etc/quorl/node.toml
# A long log takes its time to be read; the node is ready when it listens, with or without the other members.
TimeoutStartSec=600
# A loop that has not turned for so long will not turn again: the node is killed and started anew.
WatchdogSec=30
Restart=on-failure
RestartSec=1
# A wrong config or damaged data does not get better by trying again.
RestartPreventExitStatus=2 78
TimeoutStopSec=20
LimitNOFILE=65536
UMask=0077
StateDirectory=quorl
StateDirectoryMode=0700
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
CapabilityBoundingSet=

[Install]
WantedBy=multi-user.target
"""
"""As ``deploy/systemd/quorl.service``, which a test compares."""


COMPOSE = """\
# The nodes of the cluster {cluster} in containers, which use the network of their machine: the addresses in node.toml hold as they are.
# Nothing else may listen on these ports there; Docker Desktop has to allow host networking in its settings.
#   docker build -t quorl CHECKOUT     the image, from a checkout of quorl
#   {up}
# Config, secret and data lie in this folder; they are read and written as the user who owns it, {user} unless QUORL_USER says another:
#   QUORL_USER=$(id -u):$(id -g) docker compose up -d
services:
"""
SERVICE = """\
  "{name}":
    image: quorl
    command: ["quorl", "node", "run", "--config", "/var/lib/quorl/{name}/node.toml"]
    user: "${{QUORL_USER:-{user}}}"
    network_mode: host
    environment: {{ QUORL_NODE__DATA_DIR: "/var/lib/quorl/data/{name}", QUORL_SERVER: "http://{http}" }}
    volumes: [".:/var/lib/quorl"]
    restart: unless-stopped
    stop_grace_period: 20s
    healthcheck: {{ test: ["CMD", "quorl", "node", "status", "--ready", "-q"], interval: 5s, timeout: 3s, retries: 3, start_period: 30s }}
"""


class Member(NamedTuple):
    """A member of the cluster to be."""

    name: str
    host: str
    http: str
    raft: str


@click.command(short_help="Write configs, a secret, a unit and a compose file.")
@click.option(
    "--cluster", "cluster_name", required=True, metavar="NAME", help="Its name; the nodes of another are refused."
)
@click.option(
    "--members", required=True, metavar="[NAME=]HOST,…", help="Best an odd number of them; n1, n2, … by default."
)
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path), help="A folder for what is written.")
@common_options
def init(settings: Settings, cluster_name: str, members: str, out: pathlib.Path) -> None:
    """Write what a new cluster's machines need: for each a config and the secret, a systemd unit and a compose file.

    \b
    quorl node init --cluster prod-eu --members 10.0.0.11,10.0.0.12,10.0.0.13 --out conf
    """  # noqa: D301 - click's mark against rewrapping
    if not _NAME.fullmatch(cluster_name):
        raise click.BadParameter("1 to 63 letters, digits, `.`, `_` and `-`", param_hint="--cluster")
    found = read_members(members)
    local = all(_loopback(one.host) for one in found)
    secret = secrets.token_hex(SECRET_BYTES) + "\n"
    files = {out / one.name / "node.toml": config(cluster_name, found, one, local=local) for one in found}
    files |= {out / one.name / "cluster.secret": secret for one in found}
    node = pathlib.Path(sys.executable).with_name("quorl-node")
    files |= {} if local else {out / "quorl.service": UNIT.format(node=node)}
    files[out / "compose.yaml"] = compose(cluster_name, found, local=local)
    for path in files:  # all of them first: half of a second cluster, with a secret of its own, helps nobody
        if path.exists():
            _exists(path)
    for path, text in files.items():
        _write(path, text)
    if settings.as_json:
        output.emit({"cluster": cluster_name, "files": [str(path) for path in files]})
        return
    for path in files:
        click.echo(output.clean(path))
    _next_steps(settings, out, found, local=local)


def _next_steps(settings: Settings, out: pathlib.Path, members: list[Member], *, local: bool) -> None:
    if len(members) % 2 == 0:
        settings.say(f"! {len(members)} members survive the loss of no more nodes than {len(members) - 1} do")
    if local:
        settings.say("start each, in a terminal of its own:")
        for one in members:
            settings.say(f"  quorl node run -c {out / one.name / 'node.toml'}")
        settings.say(f"or all of them in containers: docker compose -f {out / 'compose.yaml'} up -d")
        return
    settings.say(
        '! the configs say mode = "insecure": whoever reaches the HTTP port may do everything, so keep it private'
    )
    for host in dict.fromkeys(one.host for one in members):
        here = [one.name for one in members if one.host == host]
        if len(here) > 1:
            settings.say(
                f"! {' and '.join(here)} are on one machine, {host}: its loss takes them all. Give them folders of their own there"
                " (config, data_dir and unit are made for one), or name another machine."
            )
    settings.say("copy to each machine, check there, and start:")
    for one in members:
        settings.say(f"  scp -r {out / one.name}/. {one.host}:/etc/quorl/")
    settings.say(f"  {pathlib.Path(sys.executable).with_name('quorl')} node check -c /etc/quorl/node.toml")
    settings.say(f"  {out / 'quorl.service'} belongs into /etc/systemd/system; its user `quorl` must own /etc/quorl")
    settings.say("  systemctl enable --now quorl")
    settings.say(
        f"or in containers: copy {out} to each machine, and there, in it: docker compose up -d {members[0].name}"
    )


def read_members(text: str) -> list[Member]:
    """Return the members that a comma list names; those on one host get ports of their own."""
    members: list[Member] = []
    for number, part in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
        name, sign, host = part.rpartition("=")
        name = name if sign else f"n{number}"
        if not _NAME.fullmatch(name):
            raise click.BadParameter(
                f"{name!r} is no name of a node: 1 to 63 letters, digits, `.`, `_`, `-`", param_hint="--members"
            )
        if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]", host):
            raise click.BadParameter(
                f"{host!r} is no host: write 10.0.0.11, a name, or [::1], without a port", param_hint="--members"
            )
        if name in {one.name for one in members}:
            raise click.BadParameter(f"two members are called {name}", param_hint="--members")
        beside = sum(one.host == host for one in members)
        members.append(Member(name, host, f"{host}:{HTTP_PORT + beside}", f"{host}:{RAFT_PORT + beside}"))
    if not members:
        raise click.BadParameter("say at least one host", param_hint="--members")
    return members


def config(cluster_name: str, members: list[Member], me: Member, *, local: bool) -> str:
    """Return the config of one member. ``local``: all are on this machine, to try things on."""
    lines = [
        f"# Node {me.name} of the cluster {cluster_name}. Everything but [node] is the same on every machine.",
        "# What else there is to set: docs/operating.md.",
        "[node]",
        f'name = "{me.name}"',
        f'http = "{me.http}"  # clients and forwarded requests',
        f'raft = "{me.raft}"  # the other members; keep it off the public network',
        *([] if local else [f'data_dir = "{DATA_DIR}"']),
        "",
        "[cluster]",
        f'name = "{cluster_name}"',
        'secret_file = "cluster.secret"  # beside this file',
        "",
    ]
    for one in members:
        lines += ["[[cluster.members]]", f'name = "{one.name}"', f'http = "{one.http}"', f'raft = "{one.raft}"', ""]
    if not local:
        lines += ["[auth]", 'mode = "insecure"  # whoever reaches the HTTP port may do everything', ""]
    return "\n".join(lines)


def compose(cluster_name: str, members: list[Member], *, local: bool) -> str:
    """Return a compose file with a service for each member; elsewhere than on one machine, each machine starts its own."""
    user = f"{os.getuid()}:{os.getgid()}"
    up = (
        "docker compose up -d"
        if local
        else f"docker compose up -d {members[0].name}     on the machine of {members[0].name}"
    )
    services = [SERVICE.format(name=one.name, http=one.http, user=user) for one in members]
    return COMPOSE.format(cluster=cluster_name, up=up, user=user) + "".join(services)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _exists(path: pathlib.Path) -> NoReturn:
    hint = "Choose another --out; a secret that is in use must stay the same on all members."
    fail(Exit.CONFLICT, "nothing is overwritten", f"{path} exists", hint)


def _write(path: pathlib.Path, text: str) -> None:
    """Write a new file that nobody but its owner reads."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        _exists(path)
    except OSError as error:
        fail(Exit.FAILED, "the files cannot be written", f"{path}: {error.strerror}", "Choose another --out.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
