"""``quorl version`` and ``quorl errors``: what this program is, and what its errors mean. Both work offline."""

from __future__ import annotations

import click

from quorl.client.cli.common import Exit, Settings, common_options, fail, list_options
from quorl.client.cli.hints import HINTS


@click.command()
@common_options
def version(settings: Settings) -> None:
    """Print the version of this program."""
    import quorl
    from quorl.client.cli import output

    if settings.as_json:
        output.emit({"version": quorl.__version__})
    else:
        click.echo(f"quorl {quorl.__version__}")


@click.command()
@click.argument("code", required=False)
@list_options
def errors(settings: Settings, code: str | None) -> None:
    """Explain an error CODE, or list all of them."""
    from quorl.client.cli import output
    from quorl.cluster.protocol.problems import CATALOGUE, explained
    from quorl.cluster.protocol.routes import nearest

    kinds = list(CATALOGUE.values())
    if code is None:
        if settings.as_json:
            output.emit([kind._asdict() for kind in kinds])
        else:
            rows = [(kind.code, kind.status, "yes" if kind.retryable else "no", kind.title) for kind in kinds]
            output.table(("CODE", "STATUS", "RETRY", "TITLE"), rows, numbers=("STATUS",), loose=("TITLE",))
        return
    kind = CATALOGUE.get(code)
    if kind is None:
        guess = nearest(code, CATALOGUE)
        fail(
            Exit.NOT_FOUND,
            f"no error has the code {output.clean(code)}{guess}",
            "it is not in the list",
            "quorl errors",
        )
    if settings.as_json:
        output.emit(kind._asdict())
        return
    click.echo(explained(kind), nl=False)
    if kind.code in HINTS:
        click.echo(f"quorl  {HINTS[kind.code]}")
