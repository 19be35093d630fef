"""The library's transport: turns its dicts into messages, and keeps the order of disk before wire.

An acknowledgement or a vote leaves only when the log records and the ballot that it speaks of are durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quorl.cluster.consensus import library
from quorl.cluster.consensus.library import Member
from quorl.cluster.consensus.messages import Acknowledge, Message, RequestVote, TimeoutNow, Vote

if TYPE_CHECKING:
    from quorl.cluster.consensus.engine import Engine


class Link(library.Transport):  # type: ignore[misc]
    """What the library sends through; what it should receive comes through ``Filter`` instead."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, None, [])
        self._engine = engine

    def send(self, node: Member, message: dict[str, Any]) -> bool:
        """Send one of the library's messages, after the disk holds what it promises."""
        self.make_durable()
        return self._engine.say(node, self._translated(message))

    def make_durable(self) -> None:
        """The barrier: everything written to the log so far is on disk on return."""
        self._engine.sync_log()

    def _translated(self, m: dict[str, Any]) -> Message:
        engine = self._engine
        match m["type"]:
            case "next_node_idx":
                return Acknowledge(
                    engine.term, m["next_node_idx"], m["reset"], m["success"], engine.blank, engine.waited
                )
            case "request_vote":
                transfer = engine.election.campaign_is_transfer
                return RequestVote(m["term"], m["last_log_index"], m["last_log_term"], transfer)
            case "response_vote":
                return Vote(m["term"])
            case "timeout_now":
                return TimeoutNow(m["term"])
            case other:
                unexpected = f"the library wants to send {other!r}, which it never should"
                raise AssertionError(unexpected)
