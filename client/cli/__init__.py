"""The ``quorl`` command.

Data goes to stdout, talk to stderr; ``--json`` gives every answer with the names of the API; the exit codes are a contract
(``common.Exit``). Only click is imported until a command needs more.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from quorl.client.cli.cluster import cluster
from quorl.client.cli.common import Quorl, common_options
from quorl.client.cli.dead import dead
from quorl.client.cli.info import errors, version
from quorl.client.cli.monitor import monitor
from quorl.client.cli.node import node
from quorl.client.cli.queue import queue
from quorl.client.cli.task import task
from quorl.client.cli.topic import topic
from quorl.client.cli.worker import worker

__all__ = ["cli", "main"]


@click.group(cls=Quorl, context_settings={"help_option_names": ["-h", "--help"]})
@common_options
def cli() -> None:
    """Topics and tasks on a replicated log: work with a cluster of quorl nodes.

    \b
    Exit codes: 0 ok · 1 failed · 2 usage or config · 3 not found · 4 conflict ·
    5 cluster unavailable · 6 time-out or outcome unknown · 7 not allowed
    """  # noqa: D301 - click's mark against rewrapping


for command in (cluster, topic, task, queue, dead, worker, monitor, node, errors, version):
    cli.add_command(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        cli.main(args=None if argv is None else list(argv), prog_name="quorl")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1
