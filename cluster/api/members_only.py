"""The token by which nodes know each other's calls: derived from the cluster secret, never the secret itself."""

from __future__ import annotations

import hashlib
import hmac

HEADER = "quorl-member"


def token(secret: bytes, cluster: str) -> str:
    """The token of a cluster; empty where there is no secret, which is allowed on loopback only."""
    if not secret:
        return ""
    return hmac.new(secret, b"quorl-http\x00" + cluster.encode(), hashlib.sha256).hexdigest()


def knows(expected: str, given: str | None) -> bool:
    """Whether a call carries the token; compared in constant time."""
    return hmac.compare_digest(expected.encode(), (given or "").encode("utf-8", "replace"))
