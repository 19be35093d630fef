"""The memory of refused connections: for people, so it is short, recent and does not repeat itself."""

from __future__ import annotations

from typing import NamedTuple

from quorl.cluster.consensus.port import Clock

KEPT_MAX = 64
"""Strangers of whom is known why: more than a cluster has members, few enough to read."""
RECENT_S = 30.0
"""A node that is still there tries several times a second, so what is older concerns nobody any more."""
REPEAT_S = 60.0
"""After this time an unchanged refusal is worth another line in the log."""


class Reason(NamedTuple):
    """Why somebody was refused: for programs, and for people."""

    code: str
    """That of ``handshake.Refused``, behind "told " if it is the other side that refuses."""
    text: str


class _Refusal(NamedTuple):
    reason: Reason
    at: float
    logged_at: float


class Refusals:
    """At most ``KEPT_MAX`` reasons, by who was refused; the one not heard of for the longest time makes room."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Refusal] = {}

    def note(self, who: str, reason: Reason) -> bool:
        """Remember a refusal; True if it should be logged."""
        now = self._clock.monotonic()
        before = self._kept.pop(who, None)
        news = before is None or before.reason != reason or now - before.logged_at >= REPEAT_S
        self._kept[who] = _Refusal(reason, now, now if news or before is None else before.logged_at)
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return news

    def forget(self, who: str) -> None:
        """It got in."""
        self._kept.pop(who, None)

    def recent(self) -> dict[str, Reason]:
        """The reasons that are not old news."""
        now = self._clock.monotonic()
        return {who: refusal.reason for who, refusal in self._kept.items() if now - refusal.at < RECENT_S}
