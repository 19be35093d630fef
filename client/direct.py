"""One GET by Python's own library, for what has no use for a client: the health of a node, completing names, waiting for nodes.

Invariant: it goes to the node itself, as every call of the client does, also where the environment names a proxy.
"""

from __future__ import annotations

import functools
import urllib.request
from http.client import HTTPResponse
from typing import cast


def get(target: str | urllib.request.Request, timeout_s: float) -> HTTPResponse:
    """The answer, whose body is still to be read; raises what ``urllib.request.urlopen`` raises."""
    return cast("HTTPResponse", _opener().open(target, timeout=timeout_s))


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
