"""A module as it is where something that it looks for at its import is there or not."""

from __future__ import annotations

import importlib.util
from types import ModuleType


def loaded_anew(module: ModuleType) -> ModuleType:
    """Run a module once more, beside the one that is in use."""
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_anew", str(module.__file__))
    assert spec is not None
    assert spec.loader is not None
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    return anew
