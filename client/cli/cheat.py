"""``quorl cheat``: commands to copy, by what one wants to do. A test parses each of them."""

from __future__ import annotations

import click

from quorl.client.cli.common import Exit, Settings, common_options, fail

CHEATS: dict[str, tuple[tuple[str, str], ...]] = {
    "start": (
        ("quorl node run -c node.toml", "one node; the same command every time"),
        ("quorl cluster wait", "until the cluster takes writes"),
        ("quorl context add dev http://127.0.0.1:7101,http://127.0.0.1:7102", "no more addresses to type"),
        ("quorl worker run quorl.demo:app", "a worker with the tasks of the demo"),
        ("quorl task submit -q demo demo.add 4 5 --wait", "the first result"),
    ),
    "tasks": (
        ("quorl task submit demo.add 4 5", "its id is on stdout"),
        ("quorl task submit mail.send --kwarg to=a@b.c -q emails --delay 5m", "named arguments, a queue, later"),
        ("quorl task ls --status FAILED --name demo.add", "which tasks"),
        ("quorl task show ID", "every attempt, the traceback, the next step"),
        ("quorl task why ID", "what it waits for"),
        ("quorl task result ID --wait", "its result on stdout"),
        ("quorl task cancel ID", "stop it"),
        ("quorl task import tasks.txt --queue default", "a JSON object a line"),
    ),
    "queues": (
        ("quorl queue ls --watch", "what is in them, again and again"),
        ("quorl queue show default", "one of them, its configuration, its workers"),
        ("quorl queue set default --attempts 5 --backoff exponential:1s:5m", "configure"),
        ("quorl queue pause default", "hand nothing out"),
        ("quorl queue resume default", "go on"),
        ("quorl queue purge default --status FAILED", "forget"),
    ),
    "dead": (
        ("quorl dead errors", "FAILED tasks by what they died of"),
        ("quorl dead ls -q emails", "one by one"),
        ("quorl dead retry --error TimeoutError", "once the cause is mended"),
        ("quorl dead export", "all that is known, a JSON object a line"),
    ),
    "workers": (
        ("quorl worker run shop:app -q emails --concurrency 8", "start one"),
        ("quorl worker ls", "who is there, and what runs"),
        ("quorl monitor", "heartbeats, ALIVE or DEAD"),
        ("quorl worker quiet NAME", "claim nothing more"),
        ("quorl worker stop NAME", "finish, and end"),
    ),
    "topics": (
        ("quorl topic create logs --partitions 4", "messages that stay"),
        ("quorl topic produce logs app.log", "each line is a message; - reads a pipe"),
        ("quorl topic tail logs -f", "look, without a consumer"),
        ("quorl topic consume logs --register --all", "read each message once"),
    ),
    "cluster": (
        ("quorl top", "everything on one screen"),
        ("quorl cluster status", "who leads, who is behind"),
        ("quorl cluster check", "for monitoring: 0 ok, 1 warning, 2 critical, 3 not known"),
        ("quorl doctor", "a report to copy"),
        ("quorl errors no_quorum", "what an error means, offline"),
        ("quorl api GET /v1/overview", "the API itself"),
    ),
    "scripts": (
        ("quorl queue ls -o csv", "tables as CSV; durations are seconds"),
        ("quorl task ls --all -o ndjson", "a JSON object a line"),
        ("quorl task ls --status FAILED --all -o name", "ids alone"),
        ("quorl queue show default --json", "everything, with the names of the API"),
        ("quorl node status --ready -q", "for health checks: 0 or 5"),
    ),
}


@click.command(short_help="Print commands to copy.")
@click.argument("topic", required=False)
@common_options
def cheat(settings: Settings, topic: str | None) -> None:
    """Print commands to copy, all of them or those for a TOPIC: start, tasks, queues, dead, workers, topics, cluster, scripts."""
    if topic is not None and topic not in CHEATS:
        fail(Exit.NOT_FOUND, f"no cheat sheet is called {topic!r}", f"there are: {', '.join(CHEATS)}", "quorl cheat")
    wanted = CHEATS if topic is None else {topic: CHEATS[topic]}
    if settings.as_json:
        from quorl.client.cli import output

        output.emit(
            {name: [{"command": line, "about": about} for line, about in told] for name, told in wanted.items()}
        )
        return
    width = max(len(line) for told in wanted.values() for line, _ in told)
    for place, (name, told) in enumerate(wanted.items()):
        click.echo(f"{chr(10) if place else ''}{name}")
        for line, about in told:
            click.echo(f"  {line:<{width}}  {about}")
