"""Sealing: a request as it goes into the log, with its key and the fingerprint of what was asked.

Invariants: the fingerprint depends on the request alone, and not on the trace that it belongs to, nor on how this node compresses. What the node's settings add to it, and how long the caller
wants to wait, are no part of it: a repeat may come to a node that was configured anew, and may have less time left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from quorl.cluster.node.visit import Visit
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.appends import AppendBatches
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
    """Seals requests, with the defaults of one node's configuration; ``may_pack``: see ``Core``."""

    def __init__(self, defaults: Defaults, may_pack: Callable[[], bool]) -> None:
        self._defaults = defaults
        self._may_pack = may_pack

    def of(self, visit: Visit) -> Sealed:
        """The command of a visit, sealed once."""
        if visit.sealed is None:
            assert isinstance(visit.request, Command)
            visit.sealed = self.seal(visit.row.name, visit.request, visit.key)
        return visit.sealed

    def seal(self, name: str, request: Command[Any], key: str) -> Sealed:
        """The command for the log; ``name`` is that of the operation."""
        if type(request) in _WAITING:
            request = msgspec.structs.replace(request, wait=0)
        form = request.sealed()
        packed = form.packed() if isinstance(form, t.AppendBatch | AppendBatches) and self._may_pack() else form
        gist = form.gist()
        command = plain = encode_form(packed)
        if gist is not packed:
            plain = encode_form(gist)
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
