"""``-v``: every call on stderr, as it was made and what came of it.

It travels as without ``-v``, in the words of HTTP over a channel if the node has one, so that looking changes nothing.
"""

from __future__ import annotations

import time

import click
from typing_extensions import override

from quorl.client.flow import Failure, Send
from quorl.client.route import unsigned
from quorl.client.sync_transport import ChannelTransport
from quorl.cluster.protocol.wire import Answer


class Telling(ChannelTransport):
    """A transport that says what it carries."""

    @override
    def send(self, send: Send) -> Answer | Failure:
        began = time.monotonic()
        answer = super().send(send)
        call = send.call
        target = f"{unsigned(send.node)}{call.path}" + (f"?{call.query}" if call.query else "")
        sent = f" ({len(call.body)} bytes)" if call.body else ""
        took = f"{1000 * (time.monotonic() - began):.0f} ms"
        if isinstance(answer, Failure):
            came = answer.why
        else:
            served = answer.headers.get("served-by")
            came = f"{answer.status}, {len(answer.body)} bytes" + (f" from {served}" if served else "")
        click.echo(f"http   {call.method} {target}{sent} → {came} in {took}", err=True)
        return answer
