"""The process: arguments, config, logs, then the node until it is told to stop.

With which code the process ends, for those who restart nodes, is in ``api/exits.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import errno
import json
import os
import socket
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

from typing_extensions import override

import quorl
from quorl import logs
from quorl.cluster.api.exits import Exit
from quorl.cluster.node import config as configs
from quorl.cluster.protocol import limits

ASK_S = 2.0
"""So long a check waits for what listens at the node's address to say who it is."""


def main(argv: list[str] | None = None) -> int:
    """Run one node; returns the exit code."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as ended:  # the parser has said why
        return ended.code if isinstance(ended.code, int) else Exit.CONFIG
    try:
        config = configs.load(arguments.config)
    except configs.ConfigError as error:
        logs.tell(str(error))
        return Exit.CONFIG
    if arguments.check:
        return _check(arguments.config, config)
    logs.configure(config.log.format, config.log.level, {"node": config.node.name})
    try:
        return _run(config)
    except KeyboardInterrupt:  # Ctrl-C before the node listens to signals: what it needs takes a moment to load
        return Exit.STOPPED


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong with the arguments as every command of quorl does: what, why, what to do."""

    @override
    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        why, hint = " ".join(self.format_usage().split()), f"{self.prog} --help"
        if unknown:
            what = f"{self.prog} does not take {' '.join(unknown)}"
            if close := difflib.get_close_matches(unknown[0].partition("=")[0], _OPTIONS, 1):
                why = f"did you mean {close[0]}?"
        elif message.startswith("the following arguments are required"):
            what = f"{self.prog} needs --config"
            hint = f"{self.prog} --config node.toml · quorl node init (writes such files) · quorl up (a cluster on this machine)"
        else:
            option, _, refusal = message.removeprefix("argument ").rpartition(": ")
            what, why = f"{self.prog} does not take this {option.rpartition('/')[2] or 'argument'}", refusal
        logs.tell(f"error  {what}\nwhy    {why}\ntry    {hint}")
        sys.exit(Exit.CONFIG)


_OPTIONS = ("--config", "--check", "--version", "--help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="quorl-node",
        allow_abbrev=False,
        description="Run one node of a quorl cluster until SIGTERM or Ctrl-C.",
        epilog="The same command starts a node for the first time, again, and after a crash. "
        "Every key of the config can be set by an environment variable: QUORL_<SECTION>__<KEY>.",
    )
    parser.add_argument("-c", "--config", required=True, type=Path, metavar="PATH", help="the node's TOML file")
    parser.add_argument("--check", action="store_true", help="only check the config and say what is wrong with it")
    parser.add_argument("--version", action="version", version=f"quorl {quorl.__version__}")
    return parser


def _check(path: Path, config: configs.Config) -> int:
    """Say whether a node could start from this config, here and now."""
    cautions = []
    refusals = _refusals(config)
    runs = _who_runs_at(config.node.http) if any(error.errno == errno.EADDRINUSE for *_, error in refusals) else None
    mine = runs is not None and (runs.name, runs.cluster) == (config.node.name, config.cluster.name)
    for key, address, error in refusals:
        if error.errno == errno.EADDRINUSE:
            if mine and runs is not None and (key == "http" or runs.raft == config.me.raft):
                continue  # this very node runs, and is asked before it is started anew
            name = f"node {config.node.name} of {config.cluster.name}"
            why = f"address already in use, and not by {name}"
            if key == "http" and runs is not None:
                why = f"node {runs.name} of {runs.cluster} has it"
        elif error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            cautions.append(f"{address} is no address of this machine, so node {config.node.name} starts on another")
            continue
        else:
            why = (error.strerror or str(error)).lower()
        logs.tell(
            f"{_NOT_HERE.format(path)}\n"
            f"[node] {key} = {address} cannot be listened on: {why}\n{_stop_or_move(key, address)}"
        )
        return Exit.MACHINE
    if not cautions:  # else all of it is another machine's
        from quorl.cluster.api.place import trouble_with

        trouble = trouble_with(config.node.data_dir, config.node.name)
        if trouble is not None and trouble.sure:
            logs.tell(f"{_NOT_HERE.format(path)}\n{trouble.what}\n{trouble.advice}".rstrip())
            return Exit.DAMAGED if trouble.damaged else Exit.MACHINE
        cautions += [] if trouble is None else [f"{trouble.what}. {trouble.advice}"]
    print("\n".join([_summary(path, config), *(f"  warning: {caution}" for caution in cautions)]))
    return Exit.STOPPED


_NOT_HERE = "{}: the config makes sense, but the node could not start here now"


class _Runs(NamedTuple):
    """A node that answers, and where it says that the others look for its Raft side."""

    name: str
    cluster: str
    raft: str


def _who_runs_at(address: configs.Address) -> _Runs | None:
    """Which node answers at the address; None: nothing that is known to be one."""
    from http.client import HTTPConnection, HTTPException

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    with contextlib.closing(HTTPConnection(host, address.port, timeout=ASK_S)) as connection:
        try:
            connection.request("GET", "/v1/cluster")
            told = json.loads(connection.getresponse().read(limits.REQUEST_BYTES_MAX))
            rafts = {member["name"]: member["raft"] for member in told["members"]}
            return _Runs(told["node"], told["name"], rafts.get(told["node"], ""))
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            return None


def _summary(path: Path, config: configs.Config) -> str:
    node, names = config.node, ", ".join(config.members)
    lines = [
        f"{path}: good",
        f"  node {node.name} of cluster {config.cluster.name} ({names})",
        f"  http {node.http}  raft {node.raft}",
        f"  data {node.data_dir}",
        *(f"  warning: {caution}" for caution in configs.cautions(config)),
    ]
    return "\n".join(lines)


def _run(config: configs.Config) -> int:
    # Late, so that --check and --version need neither the library nor the network code.
    from quorl.cluster.api.server import serve
    from quorl.cluster.consensus.port import Damaged, InUse, OtherFormat
    from quorl.lean import structlog

    log = structlog.get_logger("quorl.main")
    for caution in configs.cautions(config):
        log.warning("config_caution", detail=caution)
    place = str(config.node.data_dir)
    if (busy := _busy_ports(config)) is not None:
        # Before anything is created: a start that cannot succeed leaves nothing behind.
        logs.end(log, "machine_refused", busy)
        return Exit.MACHINE
    os.umask(0o077)  # what is stored here is nobody else's to read
    try:
        return asyncio.run(serve(config))
    except InUse as error:
        logs.end(log, "data_in_use", str(error), data_dir=place)
        return Exit.DAMAGED
    except OtherFormat as error:
        what = f"{place} was written by another version of quorl: {error}"
        advice = "Nothing is wrong with it and nothing was changed in it. Keep it, and start the version that wrote it."
        logs.end(log, "data_of_another_version", f"{what}\n{advice}", data_dir=place)
        return Exit.DAMAGED
    except Damaged as error:
        what = f"{place} cannot be started from: {error}\nNothing was changed in it."
        logs.end(log, "data_damaged", what, data_dir=place)
        return Exit.DAMAGED
    except OSError as error:
        logs.end(log, "machine_refused", explain(error, config), errno=error.errno)
        return Exit.MACHINE


def explain(error: OSError, config: configs.Config) -> str:
    """Say what the machine refused, where, and what to do about it."""
    if error.errno in {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES} and error.filename is None:
        busy = _busy_ports(config)
        if busy is not None:
            return busy
    if error.errno == errno.ENOSPC:
        return f"the disk of {config.node.data_dir} is full. Make room and start the node again; nothing acknowledged is lost."
    place = error.filename or config.node.data_dir
    refused = f"{place}: {(error.strerror or str(error)).lower()}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EROFS}:
        where = f"[node] data_dir = {config.node.data_dir}"
        return f"{refused}\nThe user as whom the node runs must be able to write in {where}, a folder on a local disk."
    return refused


def _busy_ports(config: configs.Config) -> str | None:
    """Which address of this node cannot be listened on, and what to do about it; None if both can."""
    for key, address, refusal in _refusals(config):
        return (
            f"[node] {key} = {address} cannot be listened on: {(refusal.strerror or str(refusal)).lower()}\n"
            f"{_what_to_do(config.node.name, key, address, refusal)}"
        )
    return None


def _what_to_do(name: str, key: str, address: configs.Address, refusal: OSError) -> str:
    if refusal.errno == errno.EADDRNOTAVAIL or isinstance(refusal, socket.gaierror):
        return (
            f"That is no address of this machine (`ip -brief address` lists those that are). Is this the config of node {name}, and its machine? "
            f'Where addresses are translated, listen on all: QUORL_NODE__{key.upper()}="0.0.0.0:{address.port}".'
        )
    if refusal.errno == errno.EACCES:
        return f"Ports below 1024 are for root: set QUORL_NODE__{key.upper()} and the member's {key} to another."
    return f"Is this node running already? Else {_stop_or_move(key, address, 'stop')}"


def _stop_or_move(key: str, address: configs.Address, stop: str = "Stop") -> str:
    return (
        f"{stop} what uses port {address.port} (ss -ltnp 'sport = :{address.port}'), or set QUORL_NODE__{key.upper()} "
        f"and the member's {key} to an address that is free."
    )


def _refusals(config: configs.Config) -> list[tuple[str, configs.Address, OSError]]:
    """The addresses of this node that cannot be listened on, and what the machine says to that."""
    both = (("http", config.node.http), ("raft", config.node.raft))
    return [(key, address, error) for key, address in both if (error := _refusal(address)) is not None]


def _refusal(address: configs.Address) -> OSError | None:
    """What the machine says to listening on ``address`` now, None if it would."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with contextlib.closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        return error
    return None


if __name__ == "__main__":
    sys.exit(main())
