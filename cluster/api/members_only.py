"""What is derived from the cluster secret, and never the secret itself.

The token by which nodes know each other's calls, and a fingerprint by which people see whether two nodes have one secret.
"""

from __future__ import annotations

import hashlib
import hmac

HEADER = "quorl-member"
_FINGERPRINT_CHARS = 4
"""Enough to tell the secrets of a few nodes apart. Of guesses it leaves one in 65 536, so a guessable secret stays unproven."""


def token(secret: bytes, cluster: str) -> str:
    """The token of a cluster; empty where there is no secret, which is allowed on loopback only."""
    if not secret:
        return ""
    return hmac.new(secret, b"quorl-http\x00" + cluster.encode(), hashlib.sha256).hexdigest()


def fingerprint(secret: bytes) -> str | None:
    """What may be shown of a secret: a few characters that say nothing about the token; None without a secret."""
    if not secret:
        return None
    return hmac.new(secret, b"quorl-fingerprint\x00", hashlib.sha256).hexdigest()[:_FINGERPRINT_CHARS]


def knows(expected: str, given: str | None) -> bool:
    """Whether a call carries the token; compared in constant time."""
    return hmac.compare_digest(expected.encode(), (given or "").encode("utf-8", "replace"))
