"""What is wrong, in the words of monitoring: findings with a level, whose worst is the exit code (0, 1, 2, 3)."""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from quorl.client.sync import Client
    from quorl.cluster.protocol.system import ClusterInfo

COMMIT_S = 5.0
"""So long a commit is waited for that should take milliseconds."""
COMMIT_SLOW_MS = 1_000


class Level(enum.IntEnum):
    """How bad it is; the exit code of a check."""

    OK = 0
    WARN = 1
    CRIT = 2
    UNKNOWN = 3


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Level
    check: str
    node: str
    text: str
    hint: str = ""


def worst(findings: list[Finding]) -> Level:
    """Return the worst level: critical before not known, for what is known to be wrong is not in doubt."""
    order = (Level.OK, Level.WARN, Level.UNKNOWN, Level.CRIT)
    return max((one.level for one in findings), key=order.index, default=Level.UNKNOWN)


def commit_ms(client: Client, timeout_s: float = COMMIT_S) -> float:
    """Let the cluster commit an entry, and return how long that took from here; raises as any call does.

    It is a linearizable read, for which the leader commits a barrier: nothing is changed.
    """
    from quorl.cluster.protocol.topics import ListTopics

    began = time.perf_counter()
    client.call(ListTopics(limit=1), consistency="linearizable", timeout_s=timeout_s)
    return 1000 * (time.perf_counter() - began)


def commit_finding(client: Client, timeout_s: float = COMMIT_S) -> Finding:
    """Look whether the cluster commits."""
    from quorl.client.errors import QuorlError, Unavailable

    try:
        ms = commit_ms(client, timeout_s)
    except Unavailable as error:
        why = "; ".join(f"{node} {why}" for node, why in error.tries) or error.detail
        return Finding(Level.CRIT, "commit", "", f"nothing is committed: {why}", "Start the members that are missing.")
    except QuorlError as error:
        return Finding(Level.CRIT, "commit", "", error.detail, f"quorl errors {error.code}")
    slow = ms > COMMIT_SLOW_MS
    hint = "Disks that sync slowly, a slow network, or too much work: quorl top" if slow else ""
    return Finding(Level.WARN if slow else Level.OK, "commit", "", f"an entry was committed in {ms:.1f} ms", hint)


def quorum_finding(info: ClusterInfo) -> Finding:
    """Look how many members there are, and how many more may fail."""
    there = [member.name for member in info.members if member.state == "ok"]
    about = f"{len(there)} of {len(info.members)} members are ok, {info.quorum} are needed"
    gone = [f"{one.name} {one.state.replace('_', ' ')}" for one in info.members if one.state != "ok"]
    start = f"See to {', '.join(one.name for one in info.members if one.state != 'ok')}: quorl node run -c FILE"
    if info.health == "no_quorum":
        return Finding(Level.CRIT, "quorum", "", f"{about}: {', '.join(gone)}; writes are not taken", start)
    if info.leader is None:
        return Finding(
            Level.CRIT, "quorum", "", f"{about}, and none leads", "Wait for the election: quorl cluster wait"
        )
    if gone:
        spare = len(there) - info.quorum
        more = "one more failure stops writes" if spare <= 0 else f"{spare} more may fail"
        return Finding(Level.WARN, "quorum", "", f"{about}: {', '.join(gone)}; {more}", start)
    return Finding(Level.OK, "quorum", "", f"{about}, {info.leader} leads in term {info.term}")
