"""What was meant by a name that the cluster does not know, guessed from those that it has.

A guess goes with something that has gone wrong already, so it never fails itself: where nothing can be learned, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from quorl.client.cli import output
from quorl.client.cli.common import Settings, exit_code, tell

if TYPE_CHECKING:
    from quorl.client.sync import Client

PATIENCE_S = 1.0
"""A guess that takes longer is not worth the wait."""


@contextmanager
def meant_topic(settings: Settings, client: Client, name: str, *, hint: str | None = None) -> Iterator[None]:
    """Tell of a topic that is not there as its readers are told, with what may be meant: who changes one is told of no guess.

    ``hint`` says what to do instead of the usual.
    """
    from quorl.client.errors import QuorlError, TopicNotFound
    from quorl.cluster.protocol import topics as t

    try:
        yield
    except TopicNotFound as error:
        told: QuorlError = error
        try:
            client.call(t.GetTopic(topic=name), timeout_s=PATIENCE_S)
        except TopicNotFound as guessed:
            told = guessed
        except QuorlError:
            pass  # that it is not there was said already
        tell(told, settings, hint=hint)
        click.get_current_context().exit(exit_code(told))


def elsewhere(client: Client, queue: str, task: str) -> tuple[str, str]:
    """Return what else a queue may be meant to be called, and on which queues workers that are alive have a task."""
    from quorl.client.errors import QuorlError
    from quorl.cluster.protocol import limits
    from quorl.cluster.protocol import queues as q
    from quorl.cluster.protocol import workers as w
    from quorl.cluster.protocol.routes import nearest

    try:
        workers = client.call(w.ListWorkers(status="ALIVE", limit=limits.PAGE_ITEMS_MAX), timeout_s=PATIENCE_S).items
        known = {one.name for one in client.call(q.ListQueues(limit=limits.PAGE_ITEMS_MAX), timeout_s=PATIENCE_S).items}
    except QuorlError:
        return "", ""
    serving = {name for one in workers if any(task == handler.name for handler in one.handlers) for name in one.queues}
    served = sorted(serving - {queue})
    known |= {name for one in workers for name in one.queues}
    guess = nearest(queue, served) or nearest(queue, sorted(known - {queue}))
    on = f"{output.clean(task)} is served on queue {output.clean(' and '.join(served[:3]))}" if served else ""
    return output.clean(guess), on
