"""What a switch is: it gets a ``Setter``, such as ``pytest.MonkeyPatch().setattr``, and replaces names through it."""

from __future__ import annotations

from collections.abc import Callable

Setter = Callable[[object, str, object], None]
"""``setter(owner, name, value)``."""

Switch = Callable[[Setter], None]

FOR_EVER_S = 1e9


def swapped(statement: str, old: str, new: str) -> str:
    """The statement with something else in a place that it must have: a switch that changes nothing is none."""
    assert old in statement, f"{old!r} is not in {statement!r}"
    return statement.replace(old, new)
