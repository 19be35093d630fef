"""What a switch is: it gets a ``Setter``, such as ``pytest.MonkeyPatch().setattr``, and replaces names through it."""

from __future__ import annotations

from collections.abc import Callable

Setter = Callable[[object, str, object], None]
"""``setter(owner, name, value)``."""

Switch = Callable[[Setter], None]

FOR_EVER_S = 1e9
