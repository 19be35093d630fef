"""Sealing: what a request is told from another one by."""

from __future__ import annotations

from quorl.cluster.node.sealing import Sealer
from quorl.cluster.protocol.queues import Defaults
from quorl.cluster.protocol.submitting import NewTask, Submit


def test_d15_a_repeat_from_another_trace_is_the_same_request() -> None:
    def digest(traceparent: str | None, name: str = "a") -> bytes:
        task = NewTask(name=name, traceparent=traceparent)
        return Sealer(Defaults()).seal("submit", Submit(queue="q", tasks=[task]), "k").digest

    traces = [None, *(f"00-{number:032x}-{number:016x}-01" for number in (1, 2))]
    assert len({digest(trace) for trace in traces}) == 1
    assert digest(traces[1]) != digest(traces[1], "b")
    sealed = Sealer(Defaults()).seal("submit", Submit(queue="q", tasks=[NewTask(name="a", traceparent=traces[1])]), "k")
    assert str(traces[1]).encode() in sealed.command
