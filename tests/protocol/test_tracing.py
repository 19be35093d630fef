"""``traceparent`` as W3C Trace Context has it; what is not so counts as none, and is never an error."""

from __future__ import annotations

import msgspec
import pytest

from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol.tracing import Trace, read_trace, tidied, tidied_state
from quorl.cluster.protocol.wire import Call, decode

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE_ID}-{SPAN_ID}-01"
OTHER = f"00-{TRACE_ID}-{'1' * 16}-00"


def test_d15_what_is_valid_is_read_and_written_as_it_was() -> None:
    assert read_trace(GOOD) == Trace(int(TRACE_ID, 16), int(SPAN_ID, 16), 1)
    assert tidied(GOOD) == GOOD
    assert tidied(f"00-{TRACE_ID}-{SPAN_ID}-03") == f"00-{TRACE_ID}-{SPAN_ID}-03"


@pytest.mark.parametrize("more", ["", "-", "-what.the-future-says"])
def test_d15_of_a_newer_version_what_is_known_is_taken(more: str) -> None:
    assert tidied(f"cc-{TRACE_ID}-{SPAN_ID}-09{more}") == GOOD


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        GOOD.upper(),
        GOOD + "-",
        GOOD + "-more",
        GOOD + "\n",
        " " + GOOD,
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"cc-{TRACE_ID}-{SPAN_ID}-01.more",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
        f"00-{TRACE_ID[:-1]}g-{SPAN_ID}-01",
        f"00-{TRACE_ID[:-1]}\u0661-{SPAN_ID}-01",
        "x" * 100_000,
    ],
)
def test_d15_what_is_not_valid_counts_as_none(text: str | None) -> None:
    assert read_trace(text) is None
    assert tidied(text) is None


STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ("", None),
        (STATE, STATE),
        (" rojo=1 ,, \tt@v=2,", "rojo=1,t@v=2"),
        ("a=" + " ~" * 128, "a=" + " ~" * 128),
        ("a=1,a=2", None),
        ("a", None),
        ("=1", None),
        ("A=1", None),
        ("a=", None),
        ("a=1=2", None),
        ("a=\u00fc", None),
        ("a=1\n", None),
        ("@v=1", None),
        ("t@V=1", None),
        ("a=" + "x" * 257, None),
        ("k" * 257 + "=1", None),
        (",".join(f"k{n}=1" for n in range(32)), ",".join(f"k{n}=1" for n in range(32))),
        (",".join(f"k{n}=1" for n in range(33)), None),
        (f"a={'x' * 250},b={'y' * 250},c={'z' * 250}", f"a={'x' * 250},b={'y' * 250}"),
        ("," * 100_000, None),
    ],
)
def test_d15_the_state_of_a_trace_is_handed_on_as_far_as_it_is_valid(given: str | None, kept: str | None) -> None:
    assert tidied_state(GOOD, given) == kept
    assert tidied_state("nonsense", given) is None
    assert tidied_state(None, given) is None


def states(body: bytes, **headers: str) -> list[str | None]:
    _, request, _ = decode(Call("POST", "/v1/queues/q/tasks", "", headers, body))
    assert isinstance(request, b.Submit)
    return [msgspec.json.decode(task.body, type=b.TaskBody).tracestate for task in request.sealed().tasks]


def test_d15_a_state_goes_with_the_traceparent_that_it_came_with() -> None:
    two = (
        b'{"tasks":[{"name":"a","tracestate":"a=1"},{"name":"b","traceparent":"%s","tracestate":"b=2"}]}'
        % OTHER.encode()
    )
    assert states(two) == [None, "b=2"]
    assert states(two, traceparent=GOOD, tracestate=STATE) == [STATE, "b=2"]
    assert states(two, traceparent=GOOD) == [None, "b=2"]
    assert states(two, traceparent="nonsense", tracestate=STATE) == [None, "b=2"]
    assert states(two, tracestate=STATE) == [None, "b=2"]


def carried(body: bytes, **headers: str) -> list[str | None]:
    _, request, _ = decode(Call("POST", "/v1/queues/q/tasks", "", headers, body))
    assert isinstance(request, b.Submit)
    return [msgspec.json.decode(task.body, type=b.TaskBody).traceparent for task in request.sealed().tasks]


def test_d15_the_header_counts_for_tasks_that_say_nothing_themselves() -> None:
    two = b'{"tasks":[{"name":"a"},{"name":"b","traceparent":"%s"}]}'
    assert carried(two % OTHER.encode(), traceparent=GOOD) == [GOOD, OTHER]
    assert carried(two % OTHER.encode()) == [None, OTHER]
    assert carried(two % b"nonsense", traceparent=GOOD) == [GOOD, GOOD]
    assert carried(two % b"nonsense", traceparent="nonsense") == [None, None]


def test_d15_other_calls_do_not_mind_the_header() -> None:
    decode(Call("GET", "/v1/tasks/t", "", {"traceparent": GOOD}, b""))


def test_d15_outside_its_trace_a_submit_is_what_it_would_be_without() -> None:
    plain = b.Submit(queue="q", tasks=[b.NewTask(name="a"), b.NewTask(name="b")])
    assert plain.untraced() is plain
    assert plain.traced("nonsense", STATE) is plain
    assert plain.traced(GOOD, None).untraced() == plain
    assert plain.traced(GOOD, STATE).untraced() == plain
