"""``quorl completion``: the script that makes a shell complete our commands and options."""

from __future__ import annotations

import click

from quorl.client.cli.common import Settings, common_options

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
@common_options
def completion(settings: Settings, shell: str) -> None:  # noqa: ARG001 - every command takes them
    """Print the completion script for a SHELL: bash, zsh or fish.

    \b
    bash   quorl completion bash > ~/.local/share/bash-completion/completions/quorl
    zsh    quorl completion zsh > "${fpath[1]}/_quorl"
    fish   quorl completion fish > ~/.config/fish/completions/quorl.fish
    """  # noqa: D301 - click's mark against rewrapping
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(click.get_current_context().find_root().command, {}, "quorl", "_QUORL_COMPLETE")
    click.echo(script.source_template % script.source_vars())
