"""What is wrong, in the words of monitoring: findings with a level, whose worst is the exit code (0, 1, 2, 3)."""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from quorl.client.cli.hints import HINTS, NODE

if TYPE_CHECKING:
    from quorl.client.sync import Client
    from quorl.cluster.protocol.system import ClusterInfo, NodeSettings

COMMIT_S = 5.0
"""So long a commit is waited for that should take milliseconds."""
COMMIT_SLOW_MS = 1_000
"""A hundred times what a commit takes, and less than people call broken."""


_AGREED = {
    "election_timeout_ms": ("[raft] election_timeout_ms", "the least patient node starts elections that nobody needs"),
    "heartbeat_ms": ("[raft] heartbeat_ms", "whether a leader is heard in time depends on which node leads"),
    "max_payload_bytes": ("[http] max_payload_bytes", "what one node takes another refuses as too large"),
    "max_wait_s": ("[http] max_wait_s", "how long a call may wait depends on the node that takes it"),
    "worker_heartbeat_s": ("[tasks] worker_heartbeat_s", "what new workers get depends on which node leads"),
    "worker_dead_after_s": ("[tasks] worker_dead_after_s", "when new workers are given up depends on which node leads"),
    "default_attempts": (
        "[tasks] default_attempts",
        "how often new queues' tasks are tried depends on which node leads",
    ),
}
"""What nodes say of their configs: where it is set, and why it should be the same everywhere."""


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
    from quorl.client.errors import QuorlError, Unavailable, in_one_line

    try:
        ms = commit_ms(client, timeout_s)
    except Unavailable as error:
        why = in_one_line(error.tries) or error.detail
        return Finding(Level.CRIT, "commit", "", f"nothing is committed: {why}", HINTS["no_quorum"])
    except QuorlError as error:
        return Finding(Level.CRIT, "commit", "", error.detail, f"quorl errors {error.code}")
    slow = ms > COMMIT_SLOW_MS
    hint = "Disks that sync slowly, a slow network, or too much work: quorl top" if slow else ""
    return Finding(Level.WARN if slow else Level.OK, "commit", "", f"an entry was committed in {ms:.1f} ms", hint)


def quorum_finding(
    info: ClusterInfo, strangers: Collection[str] = (), running: Collection[str] = frozenset()
) -> Finding:
    """Look how many members there are, and how many more may fail.

    ``strangers`` run, and have another secret; ``running`` answered by themselves, so that starting them helps nobody.
    """
    there = [member.name for member in info.members if member.state == "ok"]
    about = f"{len(there)} of {len(info.members)} members are ok, {info.quorum} are needed"
    gone = [f"{one.name} {one.state.replace('_', ' ')}" for one in info.members if one.state != "ok"]
    missing = [one.name for one in info.members if one.state == "unreachable" and one.name not in strangers]
    full = [f"Make room on the disk of {one.name}." for one in info.members if one.state == "disk_full"]
    start = " ".join(filter(None, [*full, _see_to(missing, running)]))
    if info.health == "no_quorum" and not info.cluster_id:
        all_of_them = f"not founded yet: the very first start needs all {len(info.members)} members once"
        text = f"{all_of_them}, {len(there)} are ok: {', '.join(gone)}; writes are not taken"
        return Finding(Level.CRIT, "quorum", "", text, start)
    if info.health == "no_quorum":
        return Finding(Level.CRIT, "quorum", "", f"{about}: {', '.join(gone)}; writes are not taken", start)
    if info.leader is None:
        return Finding(
            Level.CRIT, "quorum", "", f"{about}, and none leads", "Wait for the election: quorl cluster wait"
        )
    spare = len(there) - info.quorum
    if gone:
        more = "one more failure stops writes" if spare <= 0 else f"{spare} more may fail"
        return Finding(Level.WARN, "quorum", "", f"{about}: {', '.join(gone)}; {more}", start)
    return Finding(Level.OK, "quorum", "", f"{about}, {info.leader} leads in term {info.term}")


def _see_to(missing: Sequence[str], running: Collection[str]) -> str:
    """Say what to do about members that are missing: those that run are cut off, the others are to be started."""
    down = [name for name in missing if name not in running]
    cut_off = [name for name in missing if name in running]
    told = [f"See to the network between {name} and the others, and to its firewall: it runs." for name in cut_off]
    return " ".join([*told, *([f"See to {', '.join(down)}: {NODE}"] if down else [])])


def who_says_what(said: Sequence[tuple[str, object]]) -> str | None:
    """Return who says what, where they differ; None if all say the same."""
    by_text: dict[str, list[str]] = {}
    for who, what in said:
        by_text.setdefault(str(what), []).append(who)
    if len(by_text) <= 1:
        return None
    return "; ".join(f"{', '.join(who)} {'say' if len(who) > 1 else 'says'} {text}" for text, who in by_text.items())


def prints_of(infos: Iterable[ClusterInfo]) -> dict[str, str]:
    """Return by node the fingerprint of its secret; a node of an earlier version says none."""
    return {one.node: one.settings.secret_fingerprint or "none" for one in infos if one.settings is not None}


def strangers(prints: Mapping[str, str], node: str) -> frozenset[str]:
    """Return who has another secret than this node: they and it refuse each other, so it takes them for unreachable."""
    mine = prints.get(node)
    return frozenset(other for other, its in prints.items() if mine is not None and its != mine)


def secret_finding(prints: Mapping[str, str]) -> Finding:
    """Compare the fingerprints of the nodes' secrets."""
    told = who_says_what(list(prints.items()))
    if told is None:
        (its,) = set(prints.values())
        said = "no node has a cluster secret" if its == "none" else f"all have the same, with the fingerprint {its}"
        return Finding(Level.OK, "secret", "", said)
    text = f"the cluster secrets differ, by their fingerprints: {told}; members refuse one that has another"
    (most, count), *others = Counter(prints.values()).most_common()
    if most == "none" or any(count == other for _, other in others):
        hint = "Give all the same secret_file, and restart those that had another."
    else:
        right = [node for node, its in prints.items() if its == most]
        wrong = ", ".join(node for node in prints if node not in right)
        hint = f"Copy the secret_file of {right[0]} to {wrong}, and restart {wrong}."
    return Finding(Level.CRIT, "secret", "", text, hint)


def settings_findings(said: Sequence[tuple[str, NodeSettings]]) -> Iterator[Finding]:
    """Compare what nodes say of their configs; a node of an earlier version says nothing."""
    if not said:
        return
    differ = False
    for key, (place, why) in _AGREED.items():
        if told := who_says_what([(node, getattr(one, key)) for node, one in said]):
            differ = True
            hint = (
                f"Set the same {place} in every config, and restart the nodes whose config changed, one after another."
            )
            yield Finding(Level.WARN, "settings", "", f"they differ in {place}: {told}; {why}", hint)
    if not differ:
        yield Finding(Level.OK, "settings", "", f"all say the same of {', '.join(_AGREED)}")
