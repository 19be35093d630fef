"""What the fuzzer must know of this API that a schema cannot say; ``fuzz.py`` hands it to schemathesis.

Six things alone are kept from it, because the answer to them is a refusal by design: a key that came before with another
request (so each is made a new one); a cursor that no list gave out; a read that asks for entries which no log has yet (503
``not_ready`` is the truth); an integer that is written with a fraction, as 5.0; one task id twice in one request;
and the history of a queue and of a topic in one question.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import schemathesis

_KEY = re.compile(r"[!-~]{1,200}")
_CURSOR = re.compile(r"[A-Za-z0-9_-]{0,4096}")
_numbers = itertools.count(1)


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """Replace those six where they are well-formed; what is malformed travels as it is."""
    headers, query = case.headers or {}, case.query or {}
    for name, key in headers.items():
        if name.lower() == "idempotency-key" and isinstance(key, str) and _KEY.fullmatch(key):
            headers[name] = f"{next(_numbers)}-{key}"[:200]
    if isinstance(cursor := query.get("cursor"), str) and _CURSOR.fullmatch(cursor):
        query["cursor"] = ""
    if "queue" in query and str(case.path).endswith("/history"):
        query.pop("topic", None)
    sequence = str(query.get("min_sequence"))
    if sequence.isdecimal() and int(sequence) < 2**53:
        query["min_sequence"] = 0
    if isinstance(case.body, dict | list):
        case.body = _whole(case.body)
    if isinstance(case.body, dict) and isinstance(tasks := case.body.get("tasks"), list):
        _unlike(tasks)


def _unlike(tasks: list[Any]) -> None:
    """Take away ids that stood in the request before."""
    seen: set[str] = set()
    for task in tasks:
        for name in ("id", "task_id", "task-id"):
            if isinstance(task, dict) and isinstance(given := task.get(name), str):
                if given in seen:
                    del task[name]
                seen.add(given)


def _whole(value: Any) -> Any:
    """Write numbers without a fraction where they have none."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
