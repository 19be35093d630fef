"""Being looked at: what one node remembers of what it applied, and tells to pages and terminals.

Joins the recorder of seconds, the overviews and the streams to the node; none of them changes anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from quorl.cluster.consensus.port import Clock
from quorl.cluster.machine.events import Appended, Event, TopicDeleted
from quorl.cluster.machine.machine import Machine
from quorl.cluster.machine.overview_queries import Gauges, GetGauges
from quorl.cluster.machine.task_lists import Briefs, GetBriefs
from quorl.cluster.node.lately import Durations, Timelines
from quorl.cluster.node.live import Live
from quorl.cluster.node.overview import NodeView, Overviews, Past
from quorl.cluster.node.recorder import Recorder
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Query, Rejection, Reply
from quorl.cluster.protocol.overview import GetHistory, History, TasksFrame
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.system import ClusterInfo


class LookedAt(Protocol):
    """The node that is looked at."""

    machine: Machine

    @property
    def readable(self) -> bool:
        """Whether the machine can be asked."""

    def cluster(self) -> ClusterInfo:
        """The cluster as this node sees it."""

    def sequence(self) -> int:
        """The number of entries applied here."""

    def outage(self) -> Problem:
        """Why no leader is known, or what one decides is not stored by enough."""

    def stop_if_damaged(self, error: sqlite3.DatabaseError) -> sqlite3.DatabaseError:
        """Stop the node if this says that its state is damaged; the error again."""


class Looking:
    """All that is told about one node. Implements ``overview.Material``."""

    def __init__(self, node: LookedAt, version: str, clock: Clock, free_bytes: Callable[[], int]) -> None:
        """Begin with nothing seen; ``replaced`` comes before anything is told."""
        self._node = node
        self._version = version
        self._clock = clock
        self._free_bytes = free_bytes
        self._recorder = Recorder(clock.monotonic)
        self._durations = Durations(clock.monotonic)
        self._timelines = Timelines()
        self.overviews = Overviews(self, Past(self._recorder, self._durations, self._timelines), clock)
        self.live = Live(self.overviews, self._brief, node.sequence, self.readable)
        self._messages: int | None = None
        """In all topics; None: they must be counted."""
        self._lost_leader_ms: int | None = None
        """Since when no leader is known, by this node's calendar."""

    def replaced(self) -> None:
        """The state is another one than before."""
        gauges = self._gauges()
        self._recorder.begin(gauges.waiting, gauges.running)
        self._messages = gauges.messages
        self.live.replaced()

    def applied(self, events: Sequence[Event]) -> None:
        """An entry was applied."""
        self._recorder.applied(events)
        self._durations.applied(events)
        self._timelines.applied(events)
        self.live.applied(events)
        for event in events:
            if isinstance(event, Appended):
                self._messages = None if self._messages is None else self._messages + event.messages
            elif isinstance(event, TopicDeleted):
                self._messages = None

    def noticed(self, leader: str | None) -> None:
        """Who leads, as far as is known here now."""
        if leader is not None:
            self._lost_leader_ms = None
        elif self._lost_leader_ms is None:
            self._lost_leader_ms = self._clock.wall_ms()

    def history(self, request: GetHistory) -> Reply | Rejection:
        """What happened when."""
        found = self.ask(request)
        if request.step != 1 or not isinstance(found, History):
            return found
        return self._recorder.refine(found, self._clock.wall_ms())

    def ask(self, request: Query[Any]) -> Reply | Rejection:
        """See ``overview.Material``."""
        try:
            return self._node.machine.query(request)
        except sqlite3.DatabaseError as error:
            raise self._node.stop_if_damaged(error) from None

    def readable(self) -> bool:
        """See ``overview.Material``."""
        return self._node.readable

    def view(self) -> NodeView:
        """See ``overview.Material``."""
        if self._messages is None:
            gauges = self.ask(GetGauges())
            assert isinstance(gauges, Gauges)
            self._messages = gauges.messages
        cluster = self._node.cluster()
        own = next(one for one in cluster.members if one.name == cluster.node)
        return NodeView(
            cluster=cluster,
            version=self._version,
            read_only=self._node.outage().detail if cluster.leader is None or cluster.health == "no_quorum" else None,
            as_of_ms=self._lost_leader_ms or self._clock.wall_ms(),
            messages=self._messages,
            disk_full=self._free_bytes() <= limits.DISK_SPARE_BYTES or own.state == "disk_full",
        )

    def _gauges(self) -> Gauges:
        gauges = self._node.machine.query(GetGauges())  # the node is only beginning
        assert isinstance(gauges, Gauges)
        return gauges

    def _brief(self, task_ids: Sequence[str]) -> TasksFrame:
        found = self.ask(GetBriefs(ids=tuple(task_ids)))
        assert isinstance(found, Briefs)
        return TasksFrame(items=found.items, gone=found.gone, more=0)
