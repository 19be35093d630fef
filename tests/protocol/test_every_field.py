"""Whatever is sent for whatever field: the call is taken, or refused with a reason."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from quorl.cluster.protocol.grammar import Operation
from quorl.cluster.protocol.operations import OPERATIONS
from quorl.cluster.protocol.plans import PLANS
from quorl.cluster.protocol.wire import Call, ProtocolError, decode

TEXTS = ("", "x", "3", "-1", "1.5", "nan", "true", "null", "[]", "{}", "\x00", "é", "9" * 30)
VALUES: tuple[Any, ...] = (None, True, 3, -1, 1.5, 2**53, "", "x", "\x00", [], [None], [[]], {}, {"x": None})


def reason(row: Operation, query: str = "", body: bytes = b"", named: str = "1") -> str:
    path = row.path
    for name in row.placeholders:
        path = path.replace("{" + name + "}", quote(named, safe=""))
    try:
        decode(Call(row.method, path, query, {}, body))
    except ProtocolError as error:
        return error.problem.detail
    return "taken"


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: str(row.name))
def test_whatever_is_sent_for_a_field_is_taken_or_refused_with_a_reason(row: Operation) -> None:
    plan = PLANS[row.request]
    assert all(reason(row, named=text) for text in TEXTS)
    for name in plan.query_names:
        assert all(reason(row, f"{name}={text}") for text in TEXTS)
    for name in plan.body_names if plan.takes_body else ():
        fields: list[dict[str, Any]] = [{name: value} for value in VALUES]
        assert all(reason(row, body=msgspec.json.encode(one)) for one in fields)
        for within in ("messages", "tasks", "appends", "claims", "complete", "fail", "claim", "beat"):
            assert all(reason(row, body=msgspec.json.encode({within: [one]})) for one in fields)
