"""Streams of events: what changed, told to every browser in the same bytes.

One turn every quarter of a second, while anybody listens: what grew and changed since the last one, and once a second the
overview. Each frame is encoded once. Nothing is gathered for a channel that nobody listens to.

Invariants: a stream holds at most ``STREAM_BYTES_MAX`` that its client has not taken; with more it is cut off, and no other
stream waits for it. Whoever missed something is told so with ``reset``, or is cut off and learns it when it comes back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from quorl.cluster.machine.events import Appended, Event, TasksChanged, TopicDeleted
from quorl.cluster.node.overview import Overviews
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import overview as o

TURN_S = 0.25
"""News are gathered for so long, and written to all at once: eyes do not see more than that, and browsers need not
draw it."""
RETRY_MS = 2_000
"""What browsers are told to wait before they connect again."""
STILL_HERE_S = 15.0
"""A word after so long without one, as proxies cut streams that are silent for a minute, or for half of one."""
STILL_HERE = b": still here\n\n"
CHANNELS: tuple[o.Channel, ...] = ("overview", "tasks", "topics")

_TASKS_NOTED_MAX = 10 * limits.STREAM_TASKS_MAX
"""Tasks that changed and have not been told of: the oldest are left out, and pages ask for what they show."""

_encode = msgspec.json.Encoder().encode


class Line(Protocol):
    """The connection of one client."""

    def unsent(self) -> int:
        """How many bytes were handed to the network and lie there."""

    def cut(self) -> None:
        """End it at once, and lose what lies there."""


class Stream:
    """What one client is to be told and has not been yet."""

    def __init__(self, channels: frozenset[o.Channel], line: Line) -> None:
        """Begin with nothing."""
        self.channels = channels
        self._line = line
        self._frames: deque[bytes] = deque()
        self._size_bytes = 0
        self._news = asyncio.Event()
        self.ended: Literal["", "slow", "bye"] = ""

    def put(self, frame: bytes) -> None:
        """Tell this next, unless the client is too slow: then it is cut off."""
        if self.ended:
            return
        lying = self._size_bytes + self._line.unsent()
        if lying and lying + len(frame) > limits.STREAM_BYTES_MAX:
            self._frames.clear()
            self.end("slow")
            self._line.cut()
            return
        self._frames.append(frame)
        self._size_bytes += len(frame)
        self._news.set()

    def end(self, why: Literal["slow", "bye"]) -> None:
        """Tell nothing more after what is waiting."""
        self.ended = self.ended or why
        self._news.set()

    async def next(self) -> bytes | None:
        """What to send next: a comment when nothing was for long; None: nothing comes any more."""
        while not self._frames:
            if self.ended:
                return None
            self._news.clear()
            try:
                async with asyncio.timeout(STILL_HERE_S):
                    await self._news.wait()
            except TimeoutError:
                return STILL_HERE
        frame = self._frames.popleft()
        self._size_bytes -= len(frame)
        return frame


class Live:
    """All streams of one node."""

    def __init__(
        self,
        overviews: Overviews,
        brief: Callable[[Sequence[str]], o.TasksFrame],
        sequence: Callable[[], int],
        readable: Callable[[], bool],
    ) -> None:
        """Take what makes overviews, and what describes tasks by their ids while there is a state to read."""
        self._overviews = overviews
        self._brief = brief
        self._sequence = sequence
        self._readable = readable
        self._streams: dict[Stream, None] = {}
        self._tasks: dict[str, None] = {}
        self._unnoted = 0
        """So many changed as well in this turn."""
        self._ends: dict[str, dict[int, int]] = {}
        self._wants: frozenset[o.Channel] = frozenset()
        self._turning: asyncio.Task[None] | None = None
        self.closed = False

    def __len__(self) -> int:
        return len(self._streams)

    # -- who listens -----------------------------------------------------------------------------------------------
    def open(self, channels: frozenset[o.Channel], line: Line, *, resumed: bool) -> Stream | None:
        """Begin to tell somebody; None if as many listen as may. Raises ``Declined`` while there is nothing to tell.

        ``resumed``: it has listened before, elsewhere or here.
        """
        if len(self._streams) >= limits.STREAMS_MAX:
            return None
        stream = Stream(channels, line)
        stream.put(b"retry: %d\n\n" % RETRY_MS)
        missed: list[o.Channel] = [channel for channel in CHANNELS if channel in channels and channel != "overview"]
        if resumed and missed:
            stream.put(self._frame("reset", _encode(o.ResetFrame(channels=missed, why="reconnected"))))
        if "overview" in channels:
            stream.put(self._frame("overview", self._overviews.encoded()))
        self._streams[stream] = None
        self._count()
        if self._turning is None:
            self._turning = asyncio.ensure_future(self._turn_on())
        return stream

    def leave(self, stream: Stream) -> None:
        """That client is gone."""
        self._streams.pop(stream, None)
        self._count()

    def _count(self) -> None:
        self._wants = frozenset().union(*(stream.channels for stream in self._streams))
        if "tasks" not in self._wants:
            self._tasks.clear()
        if "topics" not in self._wants:
            self._ends.clear()

    # -- what happens ----------------------------------------------------------------------------------------------
    def applied(self, events: Sequence[Event]) -> None:
        """An entry was applied."""
        if "tasks" in self._wants:
            for event in events:
                if isinstance(event, TasksChanged):
                    for task_id in event.task_ids:
                        self._tasks.pop(task_id, None)
                        self._tasks[task_id] = None
            while len(self._tasks) > _TASKS_NOTED_MAX:
                self._tasks.pop(next(iter(self._tasks)))
                self._unnoted += 1
        if "topics" in self._wants:
            for event in events:
                if isinstance(event, Appended):
                    self._ends.setdefault(event.topic, {})[event.partition] = event.next_offset
                elif isinstance(event, TopicDeleted):
                    self._ends.pop(event.topic, None)

    def replaced(self) -> None:
        """The whole state is another: everything may have changed."""
        self._tasks.clear()
        self._ends.clear()
        for stream in self._streams:
            channels = [channel for channel in CHANNELS if channel in stream.channels]
            reset = o.ResetFrame(channels=channels, why="the state was replaced by a snapshot")
            stream.put(self._frame("reset", _encode(reset)))

    def bye(self, node: str, nodes: list[str]) -> None:
        """This node stops: tell everybody where to go, and end all streams."""
        self.closed = True
        frame = self._frame("bye", _encode(o.ByeFrame(node=node, nodes=nodes)))
        for stream in self._streams:
            stream.put(frame)
            stream.end("bye")
        if self._turning is not None:
            self._turning.cancel()

    # -- one turn --------------------------------------------------------------------------------------------------
    async def _turn_on(self) -> None:
        """Tell what there is to tell, while anybody listens."""
        loop = asyncio.get_running_loop()
        overview_s = loop.time() + self._overviews.period_s
        try:
            while self._streams:
                await asyncio.sleep(TURN_S)
                if not self._readable():
                    continue
                if self._tasks:
                    self._tell("tasks", _encode(self._changed_tasks()))
                if self._ends:
                    self._tell("topics", _encode(self._grown_topics()))
                if loop.time() >= overview_s and "overview" in self._wants:
                    self._tell("overview", self._overviews.encoded())
                    overview_s = max(overview_s + self._overviews.period_s, loop.time() + TURN_S)
        finally:
            self._turning = None

    def _tell(self, channel: o.Channel, data: bytes) -> None:
        frame = self._frame(channel, data)
        for stream in self._streams:
            if channel in stream.channels:
                stream.put(frame)

    def _changed_tasks(self) -> o.TasksFrame:
        """Those that changed last; of the others only how many there are, about."""
        latest = list(self._tasks)
        self._tasks.clear()
        frame = self._brief(latest[-limits.STREAM_TASKS_MAX :])
        more, self._unnoted = self._unnoted + max(0, len(latest) - limits.STREAM_TASKS_MAX), 0
        return msgspec.structs.replace(frame, more=more)

    def _grown_topics(self) -> o.TopicsFrame:
        names = list(self._ends)[: limits.STREAM_TOPICS_MAX]
        ends = {name: self._ends.pop(name) for name in names}
        return o.TopicsFrame(ends=ends, more=len(self._ends))

    def _frame(self, event: str, data: bytes) -> bytes:
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (self._sequence(), event.encode(), data)
