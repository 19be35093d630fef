"""``quorl context``: clusters by name, kept in a file of the user's, so that commands need no addresses.

The file is ``contexts.json`` in ``$XDG_CONFIG_HOME/quorl`` (``~/.config/quorl``); it is replaced as a whole, and nobody
else may read it: an address may have a password for a proxy in it, which no command shows. Who is asked: ``--server``, else ``--context``, else ``QUORL_SERVER``, else ``QUORL_CONTEXT``, else the
context in use.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import click

from quorl.client.cli import output
from quorl.client.cli.common import Exit, Settings, common_options, fail, list_options
from quorl.client.cli.names import names


def path() -> pathlib.Path:
    """Return where the contexts are kept."""
    home = os.environ.get("XDG_CONFIG_HOME") or pathlib.Path("~", ".config").expanduser()
    return pathlib.Path(home, "quorl", "contexts.json")


def chosen(name: str | None) -> str | None:
    """Return the servers of a context: the one named, that of the environment, or the one in use; None: there is none."""
    said = name or os.environ.get("QUORL_CONTEXT")
    contexts, current = read()
    if said is None and current is None:
        return None
    return contexts[_known(contexts, said or current or "")]


def read() -> tuple[dict[str, str], str | None]:
    """Return the contexts with their servers, and the name of the one in use."""
    try:
        text = path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        fail(
            Exit.USAGE, "the contexts cannot be read", f"{path()}: {error.strerror}", "Mend that, or say --server URL."
        )
    try:
        found = json.loads(text)
        contexts = {str(name): str(servers) for name, servers in found["contexts"].items()}
        current = found.get("current")
    except (ValueError, KeyError, AttributeError, TypeError):
        hint = f"Remove the file and add them anew: rm {path()}; quorl context add NAME URL"
        fail(Exit.USAGE, "the contexts cannot be read", f"{path()} is not what `quorl context add` writes", hint)
    return contexts, current if current in contexts else None


def _write(contexts: dict[str, str], current: str | None) -> None:
    """Replace the file; whoever reads it meanwhile sees the old or the new one."""
    place = path()
    text = json.dumps({"current": current, "contexts": contexts}, ensure_ascii=False, indent=2) + "\n"
    fresh = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(place)
    except OSError as error:
        fail(Exit.FAILED, "the context is not kept", f"{place}: {error.strerror}", "Is XDG_CONFIG_HOME yours to write?")


def _known(contexts: dict[str, str], name: str) -> str:
    if name not in contexts:
        from quorl.cluster.protocol.routes import nearest

        there = f"there are: {', '.join(contexts)}" if contexts else "there are none yet"
        fail(
            Exit.NOT_FOUND,
            f"no context is called {output.clean(name)}{nearest(name, contexts)}",
            output.clean(there),
            "quorl context ls · quorl context add NAME URL[,URL]",
        )
    return name


@click.group("context")
def context_group() -> None:
    """Give clusters names, and choose which one commands talk to."""


@context_group.command()
@list_options
def ls(settings: Settings) -> None:
    """List the contexts, and which one is in use."""
    contexts, current = read()
    in_use = settings.context or os.environ.get("QUORL_CONTEXT") or current
    if settings.as_json:
        output.emit([_about(name, url, current=name == in_use) for name, url in contexts.items()])
        return
    rows = [(name, "*" if name == in_use else "", _shown(url)) for name, url in contexts.items()]
    output.table(("CONTEXT", "USE", "SERVER"), rows, loose=("SERVER",))
    if not contexts:
        settings.say("none yet: quorl context add NAME URL[,URL]")
    if named := settings.server or os.environ.get("QUORL_SERVER"):
        settings.say(
            f"! {'--server' if settings.server else 'QUORL_SERVER'} goes before: {output.clean(_shown(named))}"
        )


@context_group.command(short_help="Keep the addresses of a cluster under a NAME, or change them.")
@click.argument("name")
@click.argument("servers", metavar="URL[,URL]")
@click.option("--use", "use_it", is_flag=True, help="Use it from now on; the first one is used anyway.")
@common_options
def add(settings: Settings, name: str, servers: str, use_it: bool) -> None:
    """Keep the addresses of a cluster's nodes under a NAME, or change those that are kept."""
    from quorl.client.route import read_servers

    if not name.strip():
        raise click.BadParameter("it is empty", param_hint="NAME")
    try:
        nodes = ",".join(read_servers(servers))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from None
    contexts, current = read()
    before = name in contexts
    contexts[name] = nodes
    current = name if use_it or current is None else current
    _write(contexts, current)
    _conclude(settings, _about(name, nodes, current=current == name), "changed" if before else "added")


@context_group.command()
@click.argument("name", shell_complete=names("contexts"))
@common_options
def use(settings: Settings, name: str) -> None:
    """Talk to this cluster from now on."""
    contexts, _ = read()
    _write(contexts, _known(contexts, name))
    _conclude(settings, _about(name, contexts[name], current=True), "in use")


@context_group.command()
@click.argument("name", shell_complete=names("contexts"))
@common_options
def rm(settings: Settings, name: str) -> None:
    """Forget a context; the cluster stays as it is."""
    contexts, current = read()
    gone = contexts.pop(_known(contexts, name))
    _write(contexts, None if current == name else current)
    _conclude(settings, _about(name, gone, current=False), "forgotten")


def _about(name: str, servers: str, *, current: bool) -> dict[str, Any]:
    return {"name": name, "server": _shown(servers), "current": current}


def _shown(servers: str) -> str:
    from quorl.client.route import unsigned

    nodes = servers.split(",")
    return ",".join([unsigned(node) if "://" in node else node.rpartition("@")[2] for node in nodes])


def _conclude(settings: Settings, about: dict[str, Any], word: str) -> None:
    if settings.as_json:
        output.emit(about)
    used = ", in use" if about["current"] and word != "in use" else ""
    settings.say(f"{word}: {output.clean(about['name'])} → {output.clean(about['server'])}{used}")
