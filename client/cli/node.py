"""``quorl node``: run a node here, check its configuration, or ask whether one is ready.

The first two are the server's own command; the last is made for health checks, so it loads little and asks one node only.
"""

from __future__ import annotations

import importlib
import json
import re

import click

from quorl.client.cli.common import Exit, Settings, common_options, fail
from quorl.client.cli.hints import START
from quorl.client.cli.init import init
from quorl.client.cli.nodelogs import logs

_OK = 200
"""HTTP's word for it."""
_CHECK = re.compile(r"\[(?P<ok>[+-])\](?P<name>\S+) \S+: (?P<detail>.*)")
_config = click.option("-c", "--config", required=True, metavar="FILE", help="The node's configuration, TOML.")


@click.group(short_help="Run a node, check its config, ask for its health, read its log.")
def node() -> None:
    """Run a node, check its configuration, ask for its health, read its log."""


node.add_command(init)
node.add_command(logs)


@node.command(short_help="Run a node in the foreground.")
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


@node.command(short_help="Print the health of one node, check by check.")
@click.option("--ready", is_flag=True, help="End with 5 unless the node takes calls.")
@common_options
def status(settings: Settings, ready: bool) -> None:
    """Print the health of one node, check by check: the first of --server, else the one at 127.0.0.1:7101.

    A node that listens at an address of its network alone is asked there, also on its own machine.

    \b
    quorl node status --ready -q                     for health checks: prints nothing, ends with 0 or 5
    quorl node status --ready -s 10.0.0.12           the one at 10.0.0.12:7101
    """  # noqa: D301 - click's mark against rewrapping
    import http.client
    import urllib.error
    import urllib.request

    from quorl.client import direct
    from quorl.client.flow import SILENT_PATIENCE
    from quorl.client.route import unported, unsigned
    from quorl.client.sync_transport import credentials, explain

    timeout_s = settings.timeout_s if settings.refused_s is None else SILENT_PATIENCE * settings.refused_s
    named, *others = settings.nodes()
    url = unsigned(named)
    target = urllib.request.Request(f"{url}/readyz?verbose", headers=credentials(named))  # noqa: S310 - the user's own URL
    try:
        with direct.get(target, timeout_s) as answer:
            code, kind, text = answer.status, answer.headers.get_content_type(), answer.read().decode(errors="replace")
    except urllib.error.HTTPError as refusal:
        with refusal:
            code, kind, text = refusal.code, refusal.headers.get_content_type(), refusal.read().decode(errors="replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, TimeoutError):
            why = f"nothing was said in {timeout_s:g} s"
        elif isinstance(error, http.client.HTTPException):
            why = explain(error)
        else:
            reason = getattr(error, "reason", error)
            why = (getattr(reason, "strerror", None) or str(reason)).lower()
        fail(Exit.UNAVAILABLE, f"no answer from {url}", why + unported(url), f"Does it run?  {START}")
    if kind == "text/html":  # which no node says here
        why = f"what answers there is not quorl ({kind}, HTTP {code})"
        fail(Exit.UNAVAILABLE, f"no node answers at {url}", why, f"Is that its address?  {START}")
    lines = [found for line in text.splitlines() if (found := _CHECK.match(line))]
    if settings.as_json:
        checks = [{"name": one["name"], "ok": one["ok"] == "+", "detail": one["detail"]} for one in lines]
        click.echo(json.dumps({"server": url, "ready": code == _OK, "checks": checks}, ensure_ascii=False))
    elif not settings.quiet:
        if others:
            settings.say(f"of {url}, the first of {1 + len(others)}:")
        click.echo(text, nl=False)
    if ready and code != _OK:
        click.get_current_context().exit(Exit.UNAVAILABLE)


def _serve(argv: list[str]) -> None:
    server = importlib.import_module("quorl.cluster.main")  # by name, like any program: this package knows no server
    click.get_current_context().exit(server.main(argv))
