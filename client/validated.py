"""Models that validate themselves, as those of pydantic do: they travel as the JSON that they say, and are made of it again.

They are known by their methods, so nothing here depends on the package, and whatever else has these is taken as well.
"""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


def to_json(value: Any) -> Any:
    """Return what stands for a value that msgspec does not know; raises ``TypeError`` if it is no such model."""
    if isinstance(value, type) or not hasattr(value, "model_dump"):
        raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")
    return value.model_dump(mode="json")


def from_json(kind: type, value: Any) -> Any:
    """Return such a model, made of a decoded JSON value; raises ``ValueError`` as it does, or ``TypeError`` if it is none."""
    if not hasattr(kind, "model_validate_json"):
        raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
    return kind.model_validate_json(_encode(value))
