"""``quorl topic``: create, list, describe and delete topics; the streams are in ``produce`` and ``read``."""

from __future__ import annotations

import click

from quorl.client.cli import output
from quorl.client.cli.asking import confirm
from quorl.client.cli.common import Settings, advising, common_options, list_options, look_options
from quorl.client.cli.names import names
from quorl.client.cli.produce import produce
from quorl.client.cli.read import consume, tail


@click.group()
def topic() -> None:
    """Work with topics: ordered messages that stay."""


topic.add_command(produce)
topic.add_command(consume)
topic.add_command(tail)


@topic.command()
@click.argument("name")
@click.option(
    "--partitions",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="Its number cannot change.",
)
@click.option("--error-if-exists", is_flag=True, help="Fail if it exists, even with as many partitions.")
@common_options
def create(settings: Settings, name: str, partitions: int, error_if_exists: bool) -> None:
    """Create a topic. If it is there with as many partitions, that is fine."""
    with settings.client() as client:
        made = client.topics.create(name, partitions=partitions, error_if_exists=error_if_exists)
    if settings.as_json:
        output.emit(made)
    settings.say(
        f"{'exists' if made.existing else 'created'}: {output.clean(name)}, {output.counted(made.partitions, 'partition')}"
    )


@topic.command()
@click.argument("prefix", default="", shell_complete=names("topics"))
@list_options
def ls(settings: Settings, prefix: str) -> None:
    """List topics, or those whose name begins with PREFIX."""
    with settings.looking() as client:
        found = client.topics.list(prefix=prefix)
    if settings.as_json:
        output.emit(found)
        return
    columns = ("TOPIC", "PARTITIONS", "MESSAGES", "BYTES", "PRODUCERS", "CONSUMERS", "CREATED")
    rows = [
        (
            i.name,
            i.partitions,
            output.grouped(i.messages),
            output.grouped(i.bytes),
            i.producers,
            i.consumers,
            i.created_at,
        )
        for i in found
    ]
    output.table(columns, rows, numbers=columns[1:6], spare=("PRODUCERS", "BYTES", "CREATED"), loose=("TOPIC",))
    if not found:
        settings.say("no topics yet: quorl topic create NAME" if not prefix else f"no topic begins with {prefix!r}")


@topic.command()
@click.argument("name", shell_complete=names("topics"))
@look_options
def show(settings: Settings, name: str) -> None:
    """Describe a topic: its partitions and its consumers. Without a quorum: as one node has it."""
    from quorl.cluster.protocol import limits
    from quorl.cluster.protocol import topics as t

    with settings.looking() as client:
        info = client.topics.get(name)
        consumers = client.call(t.ListConsumers(topic=name, limit=limits.PAGE_ITEMS_MAX))
    if settings.as_json:
        output.emit(info)
        return
    click.echo(
        f"{output.clean(info.name)} · created {info.created_at} · {output.counted(info.messages, 'message')}, "
        f"{output.counted(info.bytes, 'byte')} · {output.counted(info.producers, 'producer')}, "
        f"{output.counted(info.consumers, 'consumer')}"
    )
    columns = ("PARTITION", "FIRST", "NEXT", "MESSAGES", "BYTES")
    rows = [(p.partition, p.first_offset, p.next_offset, p.messages, p.bytes) for p in info.details]
    output.table(columns, rows, numbers=columns)
    if consumers.items:
        click.echo()
        lags = [(c.consumer_id, c.name or "–", c.lag, c.created_at) for c in consumers.items]
        output.table(("CONSUMER", "NAME", "LAG", "CREATED"), lags, numbers=("CONSUMER", "LAG"))
    if consumers.next is not None:
        settings.say(f"and more consumers than the first {limits.PAGE_ITEMS_MAX}")


@topic.command()
@click.argument("name", shell_complete=names("topics"))
@click.option("--if-empty", is_flag=True, help="Only if it holds no messages.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common_options
def rm(settings: Settings, name: str, if_empty: bool, yes: bool) -> None:
    """Delete a topic with its messages, producers and consumers."""
    with settings.client() as client, advising(settings, "topic_not_found", "Those that exist: quorl topic ls"):
        if not yes and not if_empty:
            count = output.counted(client.topics.get(name).messages, "message")
            confirm(f"Delete {output.clean(name)} with {count}?", yes=yes)
        gone = client.topics.delete(name, if_empty=if_empty)
    if settings.as_json:
        output.emit(gone)
    settings.say(f"deleted: {output.clean(gone.name)}, {output.counted(gone.messages, 'message')}")


@topic.command(short_help="Count messages, or those that a consumer has not read.")
@click.argument("name", shell_complete=names("topics"))
@click.option(
    "--consumer", "consumer_id", type=click.IntRange(1), metavar="ID", help="Count what this consumer has not read."
)
@common_options
def size(settings: Settings, name: str, consumer_id: int | None) -> None:
    """Print the number of messages, or of those that a consumer has not read."""
    from quorl.cluster.protocol import topics as t

    with settings.client() as client:
        found = client.call(t.GetSize(topic=name, consumer_id=consumer_id))
    if settings.as_json:
        output.emit(found)
    else:
        click.echo(found.size)
