"""``make demo``: three real nodes, the leader killed half way, and everything counted.

Starts three nodes as ``quorl up`` does, with fresh data in ``data/demo``, plays the founding scenario while the leader is killed with
-9, lets workers run a file of tasks while one of them and the leader are killed, then pipes a real log file through the
command line and reads it back at every node. The cluster stays up afterwards;
``python -m examples.demo --stop`` stops it. Every figure is computed; the exit code is 1 if anything was lost or doubled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from examples import ROOT
from quorl.client.local.laptop import Laptop, Refused
from quorl.client.local.processes import READY_S, STOP_S, LocalCluster, LocalNode, NodeFailed, until
from quorl.client.route import SERVERS_DEFAULT

DATA = ROOT / "data" / "demo"
PROCESSES = DATA / "processes.json"
LINES = 50_000
TOPIC = "log lines"
LOG_FILES = ("dpkg.log", "apt/history.log", "syslog", "messages", "pacman.log", "dnf.log", "system.log", "install.log")
SOON_DEAD = {"QUORL_TASKS__WORKER_HEARTBEAT_S": "1", "QUORL_TASKS__WORKER_DEAD_AFTER_S": "3"}
"""For the nodes: so that nobody has to watch the usual 15 seconds of a dead worker's silence."""
SMALL_LINES = 500
"""A log shorter than this is taken only if there is no other."""


def say(text: str = "") -> None:
    """Talk to whoever watches, at once."""
    print(text, flush=True)


# -- the cluster ---------------------------------------------------------------------------------------------------
def own_cluster(directory: Path, *, stays: bool = False) -> LocalCluster:
    """Three nodes with empty data directories, as ``quorl up`` makes them; raises ``Refused``."""
    laptop = Laptop(directory=directory, fresh=True, environment=SOON_DEAD, stays=stays)
    if laptop.moved:
        say(f"! {laptop.moved}: ports from {laptop.base} on instead")
    return laptop.cluster


def start() -> LocalCluster:
    """Start the three nodes with empty data directories."""
    if stop():
        say("The cluster of an earlier demo was still up; it is stopped, and a new one starts.")
    cluster = own_cluster(DATA, stays=True)
    try:
        cluster.start()
        cluster.leader()
    except BaseException:
        cluster.stop()
        raise
    remember(cluster)
    return cluster


def remember(cluster: LocalCluster) -> None:
    """Write down which processes belong to the demo, for ``stop``."""
    pids = {node.name: node.process.pid for node in cluster.nodes.values() if node.process is not None}
    PROCESSES.write_text(json.dumps(pids), encoding="utf-8")


def stop() -> bool:
    """Stop the nodes of an earlier demo; whether any was still up."""
    try:
        pids = json.loads(PROCESSES.read_text(encoding="utf-8")).values()
    except (OSError, ValueError):
        return False
    ours = [pid for pid in pids if is_ours(pid)]
    for pid in ours:
        os.kill(pid, signal.SIGTERM)
    for pid in ours:
        try:
            until(lambda pid=pid: not is_ours(pid), f"process {pid} to end", STOP_S)  # type: ignore[misc]
        except NodeFailed:
            os.kill(pid, signal.SIGKILL)
    PROCESSES.unlink()
    return bool(ours)


def is_ours(pid: int) -> bool:
    """Whether the process still is a node of this directory; its number may have been given to another one."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
    except OSError:
        if Path("/proc/self").exists():
            return False
        listed = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
        command = listed.stdout
    return f"quorl.cluster.main --config {DATA}" in command


class LeaderKill:
    """Kills the leader with -9 once, and starts it again as soon as another one leads; ``after`` is called at the end."""

    def __init__(self, cluster: LocalCluster, after: Callable[[LocalCluster], None] = remember) -> None:
        self._cluster = cluster
        self._after = after
        self._thread = threading.Thread(target=self._kill)
        self.killed = ""
        self.followed_by = ""
        self.error: NodeFailed | None = None

    def __call__(self) -> None:
        """Begin; called when half of the messages are stored."""
        self._thread.start()

    def _kill(self) -> None:
        try:
            self.killed = self._cluster.leader()
            self._cluster[self.killed].kill()
            self.followed_by = self._cluster.leader(other_than=self.killed)
            self._cluster[self.killed].start()
            self._cluster.wait_ready(self.killed)
        except NodeFailed as error:
            self.error = error
        finally:
            self._after(self._cluster)

    def finish(self) -> None:
        """Wait until the killed node, if any, serves again."""
        if self._thread.ident is not None:
            self._thread.join()
        if self.error is not None:
            raise self.error


def same_everywhere(cluster: LocalCluster) -> str | None:
    """Wait until every node has applied the same entries; the digest of what came of them, None if they differ."""
    views: list[tuple[int, str]] = []

    def level() -> bool:
        seen = [node.cluster() for node in cluster.nodes.values()]
        views[:] = [(view["sequence"], view["digest"]) for view in seen if view]
        return len(views) == len(seen) and len({sequence for sequence, _ in views}) == 1

    until(level, "the nodes to apply the same entries")
    digests = {digest for _, digest in views}
    return digests.pop() if len(digests) == 1 else None


# -- the founding scenario -----------------------------------------------------------------------------------------
def play(cluster: LocalCluster) -> bool:
    """The founding scenario with the leader killed half way; whether every promise was kept."""
    from examples import founding

    producers, consumers = len(founding.PRODUCERS), len(founding.CONSUMERS)
    say(f"\nThe founding scenario: {producers} producers, {consumers} consumers, {len(founding.TOPICS)} topics")
    kill = LeaderKill(cluster)
    try:
        verdict = founding.run(cluster.urls, at_half=kill)
    finally:
        kill.finish()  # whatever happens, it is known which processes run
    digest = same_everywhere(cluster)
    say(
        f"  half way, the leader {kill.killed} was killed with -9; {kill.followed_by} took over; {kill.killed} is back\n"
    )
    say(founding.report(verdict))
    say(f"  {'state of the three nodes':<44}{'the same' if digest else 'DIFFERENT':>10}")
    return verdict.good and digest is not None


def work(cluster: LocalCluster) -> bool:
    """The founding tasks, with a worker that crashes and the leader killed half way."""
    from examples import tasks

    return tasks.play(cluster, DATA / "workers", LeaderKill(cluster))


# -- a real log file -----------------------------------------------------------------------------------------------
class Source(NamedTuple):
    """Lines of a real file, and what to call it."""

    name: str
    lines: list[bytes]


def find_log() -> Source:
    """A large log file of this machine, else the largest text that every Python has: its own documentation."""
    logs = Path("/var/log")
    paths = [*(logs / name for name in LOG_FILES), *sorted(logs.glob("**/*.log"))]
    sources = [source for path in paths if (source := read_lines(path)) is not None]
    large = [source for source in sources if len(source.lines) >= SMALL_LINES]
    if large or sources:
        return (large or sorted(sources, key=lambda source: -len(source.lines)))[0]
    from pydoc_data import topics

    text = "\n".join(topics.topics.values())
    return Source("Python's documentation, as no log file can be read here", text.encode().splitlines())


def read_lines(path: Path) -> Source | None:
    """The lines of a file, if it can be read and is text."""
    try:
        data = path.read_bytes()
        data.decode()
    except (OSError, UnicodeDecodeError):
        return None
    lines = data.split(b"\n")[:-1]
    return Source(str(path), lines) if lines else None


class Copy(NamedTuple):
    """What one consumer read at one node."""

    node: str
    lines: int
    sha256: str
    took_s: float


def pipe(cluster: LocalCluster) -> bool:
    """Pipe the log through the command line at one node, read it at all three; whether the checksums are equal."""
    source = find_log()
    data = b"".join(line + b"\n" for line in islice(cycle(source.lines), LINES))
    sha256 = hashlib.sha256(data).hexdigest()
    at, *_ = cluster.urls
    say(f"\nReal input: {source.name}, repeated to {LINES} lines ({len(data) / 1e6:.1f} MB)")
    say(f"  | quorl topic produce '{TOPIC}' --create --server {at}\n")
    command = [sys.executable, "-m", "quorl.client.cli", "topic", "produce", TOPIC, "-", "--create", "--json"]
    started_s = time.monotonic()
    produced = subprocess.run([*command, "--server", at], input=data, stdout=subprocess.PIPE, check=False, cwd=ROOT)
    took_s = time.monotonic() - started_s
    if produced.returncode != 0:
        say(f"  quorl topic produce failed with exit code {produced.returncode}")
        return False
    with ThreadPoolExecutor(len(cluster.nodes)) as threads:
        copies = list(threads.map(read_back, cluster.nodes.values()))
    summary = json.loads(produced.stdout)
    say(f"  {'':<10}{'lines':>8}  {'lines/s':>8}  sha256")
    say(f"  {'input':<10}{LINES:>8}  {'':>8}  {sha256}")
    say(f"  {'stored':<10}{summary['messages']:>8}  {LINES / took_s:>8.0f}  (start of the program included)")
    for copy in copies:
        say(f"  {'read at ' + copy.node:<10}{copy.lines:>8}  {copy.lines / copy.took_s:>8.0f}  {copy.sha256}")
    good = all(copy.sha256 == sha256 for copy in copies)
    say(f"  the checksums are {'equal' if good else 'DIFFERENT'}")
    return good


def read_back(node: LocalNode) -> Copy:
    """Read the whole topic as a new consumer that knows one node only."""
    from quorl.client import Client

    digest, lines, started_s = hashlib.sha256(), 0, time.monotonic()
    with Client(node.url, timeout_s=READY_S) as client:
        for message in client.topic(TOPIC).consumer(name=f"reader at {node.name}", max=1000, stop_at_end=True):
            digest.update(message.value.encode() + b"\n")
            lines += 1
    return Copy(node.name, lines, digest.hexdigest(), time.monotonic() - started_s)


# -- the whole -----------------------------------------------------------------------------------------------------
def farewell(cluster: LocalCluster) -> None:
    """Say where the cluster is, and what to do with it."""
    installed = Path(sys.executable).with_name("quorl")
    quorl = os.path.relpath(installed) if installed.exists() else "python -m quorl.client.cli"
    servers = ",".join(url.removeprefix("http://") for url in cluster.urls)
    at = "" if ",".join(cluster.urls) == SERVERS_DEFAULT and not os.environ.get("QUORL_SERVER") else f" -s {servers}"
    say(
        f"\nThe cluster stays up: {' '.join(cluster.urls)}\n"
        f"  look at it   {quorl}{at} cluster status\n"
        f"  read from it {quorl}{at} topic tail '{TOPIC}'\n"
        f"  its logs     {DATA.relative_to(ROOT)}/n1.log …\n"
        f"  stop it      {os.path.relpath(sys.executable)} -m examples.demo --stop"
    )


def main() -> int:
    """Start, play, pipe; or stop what an earlier demo left."""
    parser = argparse.ArgumentParser(description="Three nodes, the leader killed half way, and everything counted.")
    parser.add_argument("--stop", action="store_true", help="only stop the cluster of an earlier demo")
    if parser.parse_args().stop:
        say("The cluster of the demo is stopped." if stop() else "No cluster of the demo is up.")
        return 0
    started_s = time.monotonic()
    try:
        cluster = start()
    except (Refused, NodeFailed) as error:
        say(f"{error}\n{error.why}\n{error.hint}" if isinstance(error, Refused) else str(error))
        return 1
    say(f"Three nodes are up after {time.monotonic() - started_s:.1f} s: {' '.join(cluster.urls)}")
    try:
        kept = [play(cluster), work(cluster), pipe(cluster)]
    except BaseException as error:
        cluster.stop()
        if isinstance(error, NodeFailed):
            say(f"{error}\nThe cluster is stopped; what it said is in {DATA.relative_to(ROOT)}.")
            return 1
        raise
    farewell(cluster)
    verdict = "nothing lost, nothing doubled" if all(kept) else "SOMETHING IS LOST, DOUBLED OR OUT OF ORDER: see above"
    say(f"\n{verdict}; the demo took {time.monotonic() - started_s:.0f} s")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
