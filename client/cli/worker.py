"""``quorl worker``: run workers, and look at those that the cluster knows."""

from __future__ import annotations

import click


@click.group()
def worker() -> None:
    """Work with workers: the programs that run tasks."""
