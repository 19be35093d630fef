"""``quorl monitor``: who is alive, looked at again and again until Ctrl-C."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

import click

from quorl.client.cli import output
from quorl.client.cli.common import Settings, options_beside_queue
from quorl.client.cli.guessing import unknown_queue
from quorl.client.cli.times import span
from quorl.client.cli.workers import now_text, running_tasks, status_text

if TYPE_CHECKING:
    from quorl.client.sync import Client

Row = tuple[str, ...]

COLUMNS = ("NAME", "STATUS", "LAST HEARTBEAT", "AGO", "BUSY", "NOW")


@click.command(short_help="Print who is ALIVE or DEAD, and what runs.")
@click.option("-q", "--queue", metavar="QUEUE", help="Only workers that serve it.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=1.0, show_default=True, metavar="SECONDS", help="Look so often."
)
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option("--all", "everybody", is_flag=True, help="Those that have LEFT, too.")
@options_beside_queue
def monitor(settings: Settings, queue: str | None, every: float, once: bool, everybody: bool) -> None:
    """Print one line per worker: ALIVE or DEAD, its last heartbeat, what it runs. Refreshes until Ctrl-C.

    A worker is DEAD when no sign of life came for its dead-limit, 15 s by default.
    """
    try:
        with settings.client() as client:
            _watch(settings, client, queue, None if once else every, everybody=everybody)
    except KeyboardInterrupt:
        if once:
            raise  # an answer that was asked for and did not come


def _watch(settings: Settings, client: Client, queue: str | None, every: float | None, *, everybody: bool) -> None:
    """Look, print, sleep; what cannot be reached is said, and looked at again."""
    from quorl.client.errors import Unavailable

    with output.screen(live=every is not None and not settings.as_json) as screen:
        nobody = ""
        while True:
            began = time.monotonic()
            try:
                rows = _look(settings, client, queue, everybody=everybody)
            except Unavailable as error:
                if every is None:
                    raise
                screen.say(f"{error.detail}; going on")
            else:
                if rows is not None:
                    screen.show(COLUMNS, rows)
                if rows == []:
                    nobody = nobody or _nobody(client, queue)  # asked once: it costs the cluster an entry
                    screen.say(nobody)
            if every is None:
                return
            time.sleep(max(0.0, began + every - time.monotonic()))


def _nobody(client: Client, queue: str | None) -> str:
    if queue is None:
        return "no worker"
    unknown = unknown_queue(client, queue)
    return f"no worker serves {output.clean(queue)}{'. ' if unknown else ''}{unknown}"


def _look(settings: Settings, client: Client, queue: str | None, *, everybody: bool) -> list[Row] | None:
    """Return the lines of now; with --json they are printed already."""
    found = [one for one in client.workers.list(queue=queue) if everybody or one.status != "LEFT"]
    running = running_tasks(client, found)
    if settings.as_json:
        at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        output.emit({"at": at, "workers": found})
        return None
    return [
        (
            one.name,
            status_text(one),
            one.last_heartbeat,
            span(one.silent_ms),
            f"{one.leases}/{one.concurrency}" if one.status == "ALIVE" else "–",
            now_text(one, running.get(one.worker_id, ())),
        )
        for one in found
    ]
