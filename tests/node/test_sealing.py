"""Sealing: what a request is told from another one by."""

from __future__ import annotations

import msgspec
import pytest

from quorl.cluster.node.sealing import Sealer
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.appends import AppendAll, TopicAppend
from quorl.cluster.protocol.entry import encode_command
from quorl.cluster.protocol.queues import Defaults
from quorl.cluster.protocol.submitting import NewTask, Submit


def test_d15_a_repeat_from_another_trace_is_the_same_request() -> None:
    def digest(traceparent: str | None, name: str = "a") -> bytes:
        task = NewTask(name=name, traceparent=traceparent)
        return Sealer(Defaults(), lambda: True).seal("submit", Submit(queue="q", tasks=[task]), "k").digest

    traces = [None, *(f"00-{number:032x}-{number:016x}-01" for number in (1, 2))]
    assert len({digest(trace) for trace in traces}) == 1
    assert digest(traces[1]) != digest(traces[1], "b")
    sealed = Sealer(Defaults(), lambda: True).seal(
        "submit", Submit(queue="q", tasks=[NewTask(name="a", traceparent=traces[1])]), "k"
    )
    assert str(traces[1]).encode() in sealed.command


def _append(lines: int, last: str = "the end") -> list[t.Message]:
    texts = [*(f"line {number} of a log" for number in range(lines - 1)), last]
    return [t.Message(value=msgspec.Raw(msgspec.json.encode(text))) for text in texts]


@pytest.mark.parametrize("lines", [1, 500])
@pytest.mark.parametrize("several", [False, True])
def test_an_append_is_told_apart_by_its_messages_and_not_by_how_they_are_packed(
    lines: int, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_pack = [True]

    def request(topic: str, messages: list[t.Message]) -> AppendAll | t.Append:
        if several:
            return AppendAll(appends=(TopicAppend(topic=topic, messages=messages),) * 2)
        return t.Append(topic=topic, messages=messages)

    def seal(topic: str, messages: list[t.Message]) -> tuple[bytes, int]:
        sealed = Sealer(Defaults(), lambda: bool(may_pack)).seal("append", request(topic, messages), "k")
        return sealed.digest, len(sealed.command)

    digest, packed_bytes = seal("t", _append(lines))
    others = [
        ("u", _append(lines)),
        ("t", _append(lines, "the enD")),
        ("t", _append(lines, "")),
        ("t", _append(lines + 1)),
    ]
    if lines > 1:
        others.append(("t", [*reversed(_append(lines))]))
    assert len({digest, *(seal(*other)[0] for other in others)}) == 1 + len(others)
    may_pack.clear()
    assert seal("t", _append(lines)) == (digest, len(encode_command(request("t", _append(lines)))))
    may_pack.append(True)
    monkeypatch.setattr(limits, "PACKED_SHARE_MAX", 0)
    again, plain_bytes = seal("t", _append(lines))
    assert again == digest
    assert (packed_bytes < plain_bytes / 3) is (lines > 1)
