"""``quorl api``: one raw call to the HTTP API, with the addresses of the context.

The next node is asked only if nothing can have arrived at the one before, so a call is made once at most.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import sys
from typing import TYPE_CHECKING

import click

from quorl.client.cli import output
from quorl.client.cli.common import Exit, Settings, common_options, fail, status_exit, three_lines

if TYPE_CHECKING:
    from quorl.cluster.protocol.wire import Answer, Call

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
_BY_STATUS = {400: Exit.USAGE, 422: Exit.USAGE, 429: Exit.UNAVAILABLE, 504: Exit.UNKNOWN} | dict.fromkeys(
    (502, 503, 507), Exit.UNAVAILABLE
)


@click.command(short_help="Make one raw call to the HTTP API.")
@click.argument("method")
@click.argument("path")
@click.option("-d", "--data", metavar="JSON|@FILE|-", help="The body: JSON, a file that holds it, or standard input.")
@click.option("-H", "--header", "given", multiple=True, metavar="NAME:VALUE", help="Can be repeated.")
@click.option("-i", "--include", is_flag=True, help="Print the status and the headers too.")
@common_options
def api(settings: Settings, method: str, path: str, data: str | None, given: tuple[str, ...], include: bool) -> None:
    """Make one call to the HTTP API and print the body of its answer as it came.

    \b
    quorl api GET /v1/queues
    quorl api POST /v1/queues/default/tasks -d '{"tasks": [{"name": "demo.add", "args": [4, 5]}]}'
    The routes: http://NODE/docs. The exit code is that of the problem, if the answer is one.
    """  # noqa: D301 - click's mark against rewrapping
    from quorl.cluster.protocol.wire import Call

    method = method.upper()
    if method not in METHODS:
        from quorl.client.cli.guessing import like

        none_of = f"{method!r} is none of {', '.join(METHODS)}{like(method, METHODS)}"
        raise click.BadParameter(none_of, param_hint="METHOD")
    before, _, query = path.partition("?")
    body = b"" if data is None else _read(data)
    call = Call(method, "/" + before.lstrip("/"), query, _headers(given, body), body)
    answer = _ask(settings, call)
    if include:
        click.echo(f"HTTP {answer.status}")
        for name, text in answer.headers.items():
            click.echo(f"{name}: {output.clean(text)}")
        click.echo()
    sys.stdout.flush()
    sys.stdout.buffer.write(answer.body + (b"" if answer.body.endswith(b"\n") or not answer.body else b"\n"))
    sys.stdout.buffer.flush()
    if answer.status >= 300:
        _tell(settings, answer)
        click.get_current_context().exit(_BY_STATUS.get(answer.status) or status_exit(answer.status))


def _read(data: str) -> bytes:
    """Return the body, which must be JSON: a quote that a shell has eaten is found here and not by the node."""
    import msgspec

    if data == "-":
        body = sys.stdin.buffer.read()
    elif data.startswith("@"):
        try:
            body = pathlib.Path(data[1:]).read_bytes()
        except OSError as error:
            raise click.UsageError(f"cannot read {data[1:]}: {error.strerror}") from None
    else:
        body = data.encode()
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"the body is not JSON: {error}") from None
    return body


def _headers(given: tuple[str, ...], body: bytes) -> dict[str, str]:
    headers = {"content-type": "application/json"} if body else {}
    for one in given:
        name, sign, text = one.partition(":")
        if not sign or not re.fullmatch(r"[A-Za-z0-9-]+", name.strip()):
            raise click.UsageError(f"{one!r} is no header: write NAME:VALUE")
        headers[name.strip().lower()] = text.strip()
    return headers


def _ask(settings: Settings, call: Call) -> Answer:
    from quorl.client.flow import Failure, Send
    from quorl.client.route import unported, unsigned

    refused, lost = [], ""
    with contextlib.closing(settings.transport()) as transport:
        for node in settings.nodes():
            answer = transport.send(Send(node, call, settings.timeout_s))
            if not isinstance(answer, Failure):
                return answer
            refused.append(f"{unsigned(node)} {answer.why}{unported(node)}")
            if answer.kind == "lost":
                lost = refused[-1]
                break
    if lost:
        hint = "Look what became of it, if it was to change anything. Or ask for less, or with a longer --timeout."
        fail(Exit.UNKNOWN, "no answer came", lost, hint)
    why, hint = "; ".join(refused), "Is the cluster running?  quorl doctor"
    return fail(Exit.UNAVAILABLE, "no node can be reached", why, hint)


def _tell(settings: Settings, answer: Answer) -> None:
    """Say on stderr what the problem is that the body describes; with --json the body says it all."""
    import msgspec

    from quorl.client.cli.hints import HINTS

    if settings.as_json:
        return
    try:
        problem = msgspec.json.decode(answer.body)
        code, title, detail = problem["code"], problem["title"], problem["detail"]
    except (msgspec.DecodeError, TypeError, KeyError):
        settings.say(f"error  HTTP {answer.status}")
        return
    hint = HINTS.get(code) or problem.get("hint") or f"quorl errors {code}"
    three_lines("error", f"{output.clean(code)}: {output.clean(title)}", output.clean(detail), output.clean(hint))
