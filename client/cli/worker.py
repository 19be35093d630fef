"""``quorl worker``: run workers, and look at those that the cluster knows."""

from __future__ import annotations

import click

from quorl.client.cli.work import run
from quorl.client.cli.workers import ls, quiet, show, stop


@click.group()
def worker() -> None:
    """Work with workers: the programs that run tasks."""


for command in (run, ls, show, quiet, stop):
    worker.add_command(command)
