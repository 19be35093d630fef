"""``quorl up``: a cluster, a worker and the dashboard on this machine, with keys that break things and say what it cost."""

from __future__ import annotations

import contextlib
import select
import shutil
import signal
import sys
import textwrap
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from quorl.client.cli.common import Exit, Settings, common_options, fail

if TYPE_CHECKING:
    from quorl.client.local.laptop import Laptop

_LOOK_S = 0.2
"""How often it is looked for keys and for nodes that ended."""
_LINES = 5
"""So many of each log are shown by a key."""
_KEYS = "k kill leader · r restart it · w +worker · W -worker · l logs · ? help"
_HELP = """\
  k   kill the leader with SIGKILL while writes go on, and count what that cost
  r   start the nodes again that do not run
  w   start one more worker          W   stop the last one
  l   the last lines of every log    ?   this
  Ctrl-C stops everything"""


@click.command(short_help="Run a cluster on this machine: nodes, a demo worker, the dashboard.")
@click.option("--nodes", type=click.Choice(["1", "3", "5"]), default="3", help="How many nodes; 3 by default.")
@click.option(
    "--workers", type=click.IntRange(0, 50), default=1, metavar="N", help="How many demo workers; 1 by default."
)
@click.option("--no-demo", is_flag=True, help="No demo worker: the same as --workers 0.")
@click.option(
    "--port-base",
    type=click.IntRange(1024, 60_000),
    default=7100,
    metavar="PORT",
    help="HTTP on PORT+1 and up, Raft on PORT+101 and up.",
)
@click.option("--fresh", is_flag=True, help="Delete what is stored from earlier runs, and begin anew.")
@click.option("--ephemeral", is_flag=True, help="Keep the data in a temporary directory, which is deleted at the end.")
@click.option("--open", "open_", is_flag=True, help="Open the dashboard in a browser.")
@click.option(
    "--log", "log_format", type=click.Choice(["console", "json"]), default="json", help="How the log files look."
)
@common_options
def up(
    settings: Settings,  # noqa: ARG001 - every command takes them
    nodes: str,
    workers: int,
    no_demo: bool,
    port_base: int,
    fresh: bool,
    ephemeral: bool,
    open_: bool,
    log_format: str,
) -> None:
    """Run a cluster on this machine: three nodes, a demo worker, the dashboard. Ctrl-C stops it; the data stays.

    \b
    quorl up                        then, in another terminal:  quorl task submit -q demo demo.add 4 5 --wait
    quorl up --ephemeral --open     nothing stays; opens the dashboard
    """  # noqa: D301 - click's mark against rewrapping
    from quorl.client.local.laptop import Laptop, Refused, state_dir
    from quorl.client.local.processes import NodeFailed

    began_s = time.monotonic()
    directory: Path | None = None if ephemeral else state_dir()
    try:
        with (
            _until_told(),
            Laptop(int(nodes), port_base, directory=directory, fresh=fresh, log_format=log_format) as laptop,
        ):
            _start(laptop, 0 if no_demo else workers, port_base, began_s)
            if open_:
                webbrowser.open(laptop.cluster.urls[0])
            _Keys(laptop).watch()
    except KeyboardInterrupt:
        click.echo("")
    except Refused as refused:
        fail(Exit.FAILED, refused.what, refused.why, refused.hint)
    except NodeFailed as failed:
        from quorl.client.cli.loglines import laid_out, read

        what, *words = str(failed).splitlines()
        fail(
            Exit.FAILED,
            what,
            "\n       ".join(laid_out(read(word)) for word in words) or "its log has nothing to say",
            "Everything is stopped. Try again, or begin anew with --fresh.",
        )
    click.echo("stopped; nothing is left" if ephemeral else f"stopped; the data stays in {directory}")


@contextlib.contextmanager
def _until_told() -> Iterator[None]:
    """The first signal that tells us to end interrupts whatever is waited for; further ones change nothing."""
    told: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        if len(told) == 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(laptop: Laptop, workers: int, wanted_base: int, began_s: float) -> None:
    import quorl
    from quorl.client.local.laptop import DEMO_QUEUE

    where = "a temporary directory" if laptop.ephemeral else str(laptop.directory)
    hint = "deleted at the end" if laptop.ephemeral else "--fresh wipes it, --ephemeral takes a temporary one"
    click.echo(f"quorl {quorl.__version__} · {laptop.size}-node cluster in {where} ({hint})")
    if laptop.base != wanted_base:
        click.echo(f"  ! {laptop.moved}: ports from {laptop.base} on instead")
    laptop.cluster.start()
    leader = laptop.cluster.leader()
    for node in laptop.cluster.nodes.values():
        seen = node.cluster()
        http, raft = node.ports
        role = f"LEADER   term {seen['term'] if seen else '?'}" if node.name == leader else "follower"
        click.echo(f"  ✓ {node.name}  http 127.0.0.1:{http}  raft 127.0.0.1:{raft}  {role}")
    for worker in [laptop.add_worker() for _ in range(workers)]:
        laptop.wait_registered(worker)
        click.echo(f"  ✓ worker {worker.name}  queue {DEMO_QUEUE}  tasks {_demo_tasks()}")
    click.echo(f"Ready in {time.monotonic() - began_s:.1f} s\n")
    click.echo(f"  dashboard   {laptop.cluster.urls[0]}/")
    typed, at = typed_as(), "" if laptop.base == 7100 else f" -s {laptop.servers}"
    if workers:
        click.echo(f"  submit      {typed}{at} task submit -q {DEMO_QUEUE} demo.add 4 5 --wait")
    click.echo(f"  watch       {typed}{at} top")
    if at:
        click.echo(
            f"  or first    export QUORL_SERVER={laptop.servers}     (whoever does not say asks the ports from 7101 on)"
        )
    click.echo(f"  stop        Ctrl-C{f'          keys: {_KEYS}' if sys.stdin.isatty() else ''}")


def typed_as() -> str:
    """What to type for this program in another terminal: its name, or as it was called here if the name is not on the path."""
    called = sys.argv[0]
    return called if shutil.which("quorl") is None and Path(called).name == "quorl" else "quorl"


def _demo_tasks() -> str:
    from quorl.client.demo import app

    return " ".join(name for name in sorted(app.tasks) if name.startswith("demo."))


class _Keys:
    """What happens until somebody says stop."""

    def __init__(self, laptop: Laptop) -> None:
        self._laptop = laptop
        self._down: set[str] = set()
        """Nodes of which it was said that they do not run."""
        self._does: dict[str, Callable[[], None]] = {
            "k": self._kill,
            "r": self._restart,
            "w": self._add,
            "W": self._remove,
            "l": self._logs,
            "?": lambda: click.echo(_HELP),
        }

    def watch(self) -> None:
        """Do what keys say until we are interrupted, or the terminal is gone."""
        with _single_keys() as keys:
            while True:
                self._look()
                if keys is None:
                    time.sleep(_LOOK_S)
                    continue
                if select.select([keys], [], [], _LOOK_S)[0]:
                    key = _read(keys)
                    if key is None:
                        return
                    self._does.get(key, lambda: None)()

    def _look(self) -> None:
        for node in self._laptop.cluster.nodes.values():
            if not node.alive and node.name not in self._down:
                self._down.add(node.name)
                click.echo(f"  ✗ {node.name} {_ended(node.wait())}; r starts it again, l shows its log")

    def _kill(self) -> None:
        from quorl.client.errors import QuorlError
        from quorl.client.local.failover import kill_leader
        from quorl.client.local.processes import NodeFailed

        nodes = self._laptop.cluster.nodes
        alive = sum(node.alive for node in nodes.values())
        if alive - 1 <= len(nodes) // 2:
            click.echo(
                f"  {alive} of {len(nodes)} nodes run: with one less nothing could be written; r starts those that are down"
            )
            return
        try:
            click.echo(f"  ✓ {kill_leader(self._laptop.cluster, self._condemned)}")
        except (QuorlError, NodeFailed) as error:
            click.echo(f"  ✗ it could not be measured: {error}")

    def _condemned(self, leader: str) -> None:
        click.echo(f"  ✗ {leader} is to get SIGKILL while messages and tasks are written…")
        self._down.add(leader)

    def _restart(self) -> None:
        cluster = self._laptop.cluster
        for name in [name for name, node in cluster.nodes.items() if not node.alive]:
            began_s = time.monotonic()
            cluster[name].start()
            cluster.wait_ready(name)
            self._down.discard(name)
            click.echo(f"  ✓ {name} runs again, ready after {time.monotonic() - began_s:.1f} s")

    def _add(self) -> None:
        worker = self._laptop.add_worker()
        self._laptop.wait_registered(worker)
        click.echo(f"  ✓ worker {worker.name} · {len(self._laptop.workers)} run")

    def _remove(self) -> None:
        worker = self._laptop.remove_worker()
        if worker is None:
            click.echo("  no worker runs; w starts one")
        else:
            click.echo(f"  ✓ worker {worker.name} has left · {len(self._laptop.workers)} run")

    def _logs(self) -> None:
        from quorl.client.cli.loglines import laid_out, last

        for log in sorted(self._laptop.directory.glob("*.log")):
            click.echo(f"  {log}")
            for line in last(log, _LINES)[0]:
                click.echo(textwrap.indent(laid_out(line), "    "))


@contextlib.contextmanager
def _single_keys() -> Iterator[int | None]:
    """The terminal, telling each key as it is pressed; None where there is none."""
    if not sys.stdin.isatty():
        yield None
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSANOW)  # what was typed before counts
        yield descriptor
    finally:
        with contextlib.suppress(termios.error):  # a terminal that is gone needs nothing back
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _ended(code: int) -> str:
    """How a process ended, by its exit code."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # one of those for real time has no name
        return f"was killed by signal {-code}"


def _read(descriptor: int) -> str | None:
    """The key that was pressed; None: the terminal is gone."""
    import os

    try:
        pressed = os.read(descriptor, 1)
    except OSError:
        return None
    return pressed.decode(errors="replace") or None
