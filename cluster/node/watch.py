"""Waking: who waits for something to be applied is woken by it, not by a timer, and in the order of asking.

Invariants: at most half of those in the heap, and a few, have given up. No subject is remembered for longer than others
of its kind come after it; one that is not remembered counts as changed at the floor, so that a waiter looks once too
often rather than waits for what has happened.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from itertools import count

from quorl.cluster.machine.events import Event
from quorl.cluster.node.subjects import Kind, Subject, subjects_of

_GIVEN_UP_MIN = 64
"""So many that have given up are not worth looking through the heap for."""
_SUBJECTS_REMEMBERED_MAX = 10_000
"""Of each kind: tasks come and go by the thousand, and must not make topics forgotten."""


class _Memory:
    """When the subjects of one kind changed last."""

    def __init__(self, floor: int) -> None:
        self._latest: dict[str | int, int] = {}
        self._before: dict[str | int, int] = {}
        """The last changes: of those that changed lately, and of those that did before."""
        self._floor = floor
        """None that is in neither has changed after this."""

    def __len__(self) -> int:
        return len(self._latest) + len(self._before)

    def note(self, names: Iterable[str | int], sequence: int) -> None:
        """Note a change of some, not earlier than those noted before."""
        if len(self._latest) >= _SUBJECTS_REMEMBERED_MAX // 2:
            self._floor = max(self._before.values(), default=self._floor)
            self._before, self._latest = self._latest, {}
        self._latest.update(dict.fromkeys(names, sequence))

    def last(self, name: str | int) -> int:
        """The last change of one, or a moment after which it certainly has not changed."""
        found = self._latest.get(name)
        return self._before.get(name, self._floor) if found is None else found


class Watch:
    """The sequences and subjects that requests on this node wait for."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ticket = count()
        self._sequences: list[tuple[int, int, asyncio.Future[bool]]] = []
        self._subjects: dict[Kind, dict[str | int, dict[asyncio.Future[bool], None]]] = {}
        self._changed: dict[asyncio.Future[bool], None] = {}
        self._sequence = 0
        self._given_up = 0
        self._memories: dict[Kind, _Memory] = {}
        self._floor = 0
        """Nothing is known of what happened before this."""

    @property
    def waited(self) -> bool:
        """Whether anybody waits for what comes to be applied."""
        return len(self._sequences) > self._given_up or any(self._subjects.values())

    def applied(self, sequence: int, events: list[Event]) -> None:
        """Tell what an entry did."""
        self._sequence = sequence
        while self._sequences and self._sequences[0][0] <= sequence:
            future = heapq.heappop(self._sequences)[2]
            self._given_up -= future.done()
            _wake(future)
        for event in events:
            found = subjects_of(event)
            if found is not None:
                self._happened(found.kind, found.names, sequence)

    def _happened(self, kind: Kind, names: Iterable[str | int], sequence: int) -> None:
        self._memory(kind).note(names, sequence)
        subjects = self._subjects.get(kind)
        if subjects:
            for name in names:
                for future in subjects.pop(name, ()):
                    _wake(future)

    def replaced(self, sequence: int) -> None:
        """The whole state was replaced: anything may have happened."""
        self.applied(sequence, [])
        self._memories.clear()
        self._floor = sequence
        for subjects in self._subjects.values():
            for futures in subjects.values():
                for future in futures:
                    _wake(future)
        self._subjects.clear()

    def changed(self) -> None:
        """Leadership or connections changed."""
        changed, self._changed = self._changed, {}
        for future in changed:
            _wake(future)

    async def wait_applied(self, sequence: int, deadline: float) -> bool:
        """Wait until the entry of that sequence was applied here."""
        if self._sequence >= sequence:
            return True
        future = self._future()
        heapq.heappush(self._sequences, (sequence, next(self._ticket), future))
        try:
            return await self._until(future, deadline)
        finally:
            if future.cancelled():
                self._give_up()

    async def wait_news(self, subject: Subject, sequence: int, deadline: float) -> bool:
        """Wait until something happened to the subject after that sequence."""
        if self._memory(subject.kind).last(subject.name) > sequence:
            return True
        future = self._future()
        self._subjects.setdefault(subject.kind, {}).setdefault(subject.name, {})[future] = None
        try:
            return await self._until(future, deadline)
        finally:
            subjects = self._subjects.get(subject.kind, {})
            waiting = subjects.get(subject.name)
            if waiting is not None:
                waiting.pop(future, None)
                if not waiting:
                    del subjects[subject.name]

    async def wait_changed(self, deadline: float) -> bool:
        """Wait until leadership or connections may have changed."""
        future = self._future()
        self._changed[future] = None
        try:
            return await self._until(future, deadline)
        finally:
            self._changed.pop(future, None)

    def _memory(self, kind: Kind) -> _Memory:
        memory = self._memories.get(kind)
        if memory is None:
            memory = self._memories[kind] = _Memory(self._floor)
        return memory

    def _give_up(self) -> None:
        """One more waiter in the heap waits no longer; take such out before they are the most."""
        self._given_up += 1
        if self._given_up > max(_GIVEN_UP_MIN, len(self._sequences) // 2):
            self._sequences = [waiting for waiting in self._sequences if not waiting[2].done()]
            heapq.heapify(self._sequences)
            self._given_up = 0

    def _future(self) -> asyncio.Future[bool]:
        return asyncio.get_running_loop().create_future()

    async def _until(self, future: asyncio.Future[bool], deadline: float) -> bool:
        try:
            async with asyncio.timeout(max(0.0, deadline - self._monotonic())):
                return await future
        except TimeoutError:
            return False


def _wake(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(True)
