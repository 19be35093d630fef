"""A worker's heartbeat: a thread of its own, with a connection of its own.

Neither a busy handler nor a blocked event loop stops it, so a worker whose process lives keeps its leases, however long a
task takes. Each beat names the leases that are held, so that those whose grant was lost on its way go back at once; its
answer says what the worker is to do.
"""

from __future__ import annotations

import threading
from typing import Protocol

from quorl.client.errors import QuorlError, WorkerNotAlive, WorkerNotFound
from quorl.client.flow import TIMEOUT_S
from quorl.client.sync import Client
from quorl.client.worker_ledger import Ledger
from quorl.cluster.protocol import leases as e

BEAT_S_MIN = 0.1
"""However little a worker was told: more often says nothing new."""
TIMEOUT_S_MIN = 1.0
"""A silent node is given up and another one asked well before the worker is taken for dead."""


class Body(Protocol):
    """What a heartbeat belongs to. Its methods are called in the heart's thread."""

    @property
    def life(self) -> Ledger | None:
        """The life that is to be kept; None between two."""

    def told(self, life: Ledger, directives: e.Directives) -> None:
        """Follow what the answer to a heartbeat says."""

    def died(self, life: Ledger, why: QuorlError) -> None:
        """Learn that the cluster does not take this life for alive."""

    def unheard(self, why: QuorlError | None) -> None:
        """Learn that no node takes heartbeats, or (None) that they are heard again."""


class Heart:
    """The thread. ``client`` is its alone."""

    def __init__(self, body: Body, client: Client) -> None:
        self._body = body
        self._client = client
        self._period_s = 1.0
        self._timeout_s = TIMEOUT_S
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="quorl-heart", daemon=True)

    def start(self, period_s: float, dead_after_s: float) -> None:
        """Beat from now on; again with other numbers after another registration."""
        self._period_s = max(BEAT_S_MIN, period_s)
        self._timeout_s = max(TIMEOUT_S_MIN, min(TIMEOUT_S, dead_after_s / 2))
        if not self._thread.is_alive() and not self._end.is_set():
            self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._end.set()

    def _run(self) -> None:
        silent = False
        try:
            while True:
                if self._end.wait(self._period_s / 4 if silent else self._period_s):
                    return
                silent = not self._beat()
        finally:
            self._client.close()

    def _beat(self) -> bool:
        """Beat once; says whether it was heard, as far as there is anything to be heard."""
        life = self._body.life
        if life is None:
            return True
        try:
            synced = self._client.call(e.Sync(worker_id=life.worker_id, beat=life.beat()), timeout_s=self._timeout_s)
        except (WorkerNotAlive, WorkerNotFound) as error:
            self._body.died(life, error)
            return True
        except QuorlError as error:
            self._body.unheard(error)
            return False
        self._body.unheard(None)
        self._body.told(life, synced.directives)
        return True
