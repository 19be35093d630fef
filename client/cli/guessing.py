"""What was meant by a name that the cluster does not know, guessed from those that it has.

A queue or a topic that is not there is guessed by the node that answers. A guess goes with something that has gone wrong
already, so it never fails itself: where nothing can be learned, nothing is said.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from quorl.client.cli import output

if TYPE_CHECKING:
    from quorl.client.sync import Client

PATIENCE_S = 1.0
"""A guess that takes longer is not worth the wait."""


def like(word: str, words: Iterable[str]) -> str:
    """Return "; did you mean x?" for the one of the words that looks most like it, or nothing."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def unknown_queue(client: Client, queue: str) -> str:
    """Return what a node says of there being no queue of this name; nothing if there is one."""
    from quorl.client.errors import QueueNotFound, QuorlError
    from quorl.cluster.protocol import queues as q

    try:
        client.call(q.GetQueue(queue=queue), timeout_s=PATIENCE_S)
    except QueueNotFound as error:
        return output.clean(error.detail)
    except QuorlError:
        pass  # that nobody serves it is true all the same
    return ""


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
