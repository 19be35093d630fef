"""The headers of W3C Trace Context, level 1: by which trace something was asked for, and what goes with that.

The `traceparent` names a trace and one of its spans; in the `tracestate` tracing systems tell each other more of it.
They are never a reason to refuse anything: what is not as the specification says counts as none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEADER = "traceparent"
STATE_HEADER = "tracestate"
STATE_CHARS_MAX = 512
STATE_MEMBERS_MAX = 32
"""As W3C Trace Context has them; what is longer is left out."""
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_KEY = r"[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_MEMBER = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")
_SAMPLED = 1
"""The flag by which a caller says that he records it."""


class Trace(NamedTuple):
    """A span of a trace, as numbers. ``flags`` has a bit for whether the caller records it."""

    trace_id: int
    span_id: int
    flags: int

    def text(self) -> str:
        """Return it as the header has it."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"


def read_trace(text: str | None) -> Trace | None:
    """Read a ``traceparent``; None for none, and for one that is not valid.

    Of a version that is newer than the one that is known here, what is known is taken, and nothing else handed on.
    """
    if text is None or (found := _FORM.fullmatch(text)) is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    trace = Trace(int(trace_id, 16), int(span_id, 16), int(flags, 16) & (0xFF if version == "00" else _SAMPLED))
    return trace if trace.trace_id and trace.span_id else None


def tidied(text: str | None) -> str | None:
    """Return a ``traceparent`` to hand on; None for one that is not valid."""
    trace = read_trace(text)
    return None if trace is None else trace.text()


def tidied_state(parent: str | None, state: str | None) -> str | None:
    """Return the ``tracestate`` to hand on with a ``traceparent``; None without a valid one of either.

    Of one that is too long what stands first is kept: that is the newest.
    """
    if state is None or read_trace(parent) is None:
        return None
    members = [member for one in state.split(",") if (member := one.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > STATE_MEMBERS_MAX or len(keys) < len(members) or not all(map(_MEMBER.fullmatch, members)):
        return None
    while len(text := ",".join(members)) > STATE_CHARS_MAX:
        members.pop()
    return text or None
