"""structlog without rich, in which it would draw tracebacks; ours are plain.

structlog imports rich wherever that is installed, and it is, for the command line: 5 MiB of memory and 75 ms of each start of
a node or worker.
"""

from __future__ import annotations

import sys
import threading

_UNWANTED = "rich"

# Another thread that wants rich in this very moment would be told that there is none.
if _UNWANTED not in sys.modules and threading.active_count() == 1:
    sys.modules[_UNWANTED] = None  # type: ignore[assignment] # which is how Python is told that it cannot be imported
    try:
        import structlog
    finally:
        del sys.modules[_UNWANTED]

import structlog  # noqa: E402

__all__ = ["structlog"]
