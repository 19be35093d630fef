"""``quorl node``: run a node here, or check its configuration. All of it is the server's own command."""

from __future__ import annotations

import importlib

import click

from quorl.client.cli.common import Settings, common_options

_config = click.option("-c", "--config", required=True, metavar="FILE", help="The node's configuration, TOML.")


@click.group()
def node() -> None:
    """Run a node, or check its configuration."""


@node.command()
@_config
@common_options
def run(settings: Settings, config: str) -> None:  # noqa: ARG001 - every command takes them
    """Run a node in the foreground: the same command at first start, at restart and after a crash."""
    _serve(["--config", config])


@node.command()
@_config
@common_options
def check(settings: Settings, config: str) -> None:  # noqa: ARG001 - every command takes them
    """Check a configuration and say what is wrong with it."""
    _serve(["--config", config, "--check"])


def _serve(argv: list[str]) -> None:
    server = importlib.import_module("quorl.cluster.main")  # by name, like any program: this package knows no server
    click.get_current_context().exit(server.main(argv))
