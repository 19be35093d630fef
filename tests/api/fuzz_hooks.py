"""What the fuzzer must know of this API that a schema cannot say; ``fuzz.py`` hands it to schemathesis.

Six things alone are kept from it, because the answer to them is a refusal by design: a key that came before with another
request (so each is made a new one); a cursor that no list gave out; a read that asks for entries which no log has yet (503
``not_ready`` is the truth); an integer that is written with a fraction, as 5.0; one task id twice in one request;
and the history of a queue and of a topic in one question.

Besides, what is counted here is counted at the calls themselves: how each operation was answered, so that a run that tried nothing shows.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import schemathesis

_KEY = re.compile(r"[!-~]{1,200}")
_CURSOR = re.compile(r"[A-Za-z0-9_-]{0,4096}")
_LONG = 1000
"""An array of more items than that has short arrays in them."""
_numbers = itertools.count(1)
_answers: defaultdict[str, Counter[int]] = defaultdict(Counter)


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
        case.body = _whole(_slender(case.body))
    if isinstance(case.body, dict) and isinstance(tasks := case.body.get("tasks"), list):
        _unlike(tasks)


@schemathesis.hook
def after_call(_context: Any, case: Any, response: Any) -> None:
    """Count the answer for the operation that was tried."""
    _answers[case.operation.label][response.status_code] += 1


@atexit.register
def _tell() -> None:
    """Leave the counts where the run's parent looks for them."""
    if path := os.environ.get("QUORL_FUZZ_ANSWERS"):
        Path(path).write_text(json.dumps(_answers), encoding="utf-8")


def _slender(value: Any) -> Any:
    """Take away what makes a body too large to be judged: one item too many, each with as many as it may have, is 227 MB.

    That would be refused for its size, after a minute of making it; so the bound on the items would not be tried.
    """
    if isinstance(value, dict):
        return {name: _slender(inner) for name, inner in value.items()}
    if isinstance(value, list) and len(value) > _LONG:
        return [_curt(item) for item in value]
    return value


def _curt(item: Any) -> Any:
    """Keep one item of each array in an item."""
    if not isinstance(item, dict):
        return item
    return {name: inner[:1] if isinstance(inner, list) else inner for name, inner in item.items()}


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
