"""Sealing: a request as it goes into the log, with its key and the fingerprint of what was asked.

Invariants: the fingerprint depends on the request alone, and not on the trace that it belongs to. What the node's settings add to it, and how long the caller
wants to wait, are no part of it: a repeat may come to a node that was configured anew, and may have less time left.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import Sealed, digest_of, encode_command, encode_form
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.leases import Claim
from quorl.cluster.protocol.queues import Defaults, SetQueue
from quorl.cluster.protocol.submitting import Submit, SubmitBatch
from quorl.cluster.protocol.workers import EnrolWorker

_WAITING = frozenset({t.Consume, Claim})
_WITH_DEFAULTS = frozenset({SubmitBatch, SetQueue, EnrolWorker})
_REPORTS = ".s"
"""What the key of a ``Sync`` ends with for its reports; its claim goes under the key itself."""


class Sealer:
    """Seals requests, with the defaults of one node's configuration."""

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults

    def seal(self, name: str, request: Command[Any], key: str) -> Sealed:
        """The command for the log; ``name`` is that of the operation."""
        if type(request) in _WAITING:
            request = msgspec.structs.replace(request, wait=0)
        form = request.sealed()
        command = plain = encode_form(form)
        if isinstance(request, Submit) and (untraced := request.untraced()) is not request:
            plain = encode_command(untraced.sealed())
        if type(form) in _WITH_DEFAULTS:
            command = encode_form(msgspec.structs.replace(form, defaults=self._defaults))
        return Sealed(key, digest_of(name, plain), command)


def patient(sealed: Sealed, request: t.Consume) -> Sealed:
    """The same ``Consume`` for every try but the last: if it finds nothing, that is no outcome yet."""
    return msgspec.structs.replace(sealed, command=encode_command(msgspec.structs.replace(request, wait=1)))


def reports_key(key: str) -> str:
    """The key of the reports in a ``Sync``."""
    return key + _REPORTS
