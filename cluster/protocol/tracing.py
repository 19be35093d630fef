"""The `traceparent` of W3C Trace Context, level 1: by which trace, and by which of its spans, something was asked for.

It is never a reason to refuse anything: one that is not as the specification says counts as none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEADER = "traceparent"
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_SAMPLED = 1


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
