"""``quorl topic consume`` and ``quorl topic tail``: messages on stdout, one value per line.

Text goes out as it is, any other value as JSON; ``--json`` prints one object per message.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from quorl.client.cli import output
from quorl.client.cli.common import Settings, common_options
from quorl.client.cli.names import names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quorl.client.model import Message
    from quorl.client.topics import Consumer, Follower, Topic

FETCH_MAX = 1000
"""Of one call, as many as it may be."""
REPEATS_MAX = 3
"""So often a read that does not follow fails before that is told."""
PAUSE_S = 1.0
"""Before it is."""


@click.command(short_help="Print the messages that a consumer has not read.")
@click.argument("topic", shell_complete=names("topics"))
@click.option("--consumer", "consumer_id", type=click.IntRange(1), metavar="ID", help="Go on as this one, by its id.")
@click.option("--register", is_flag=True, help="Register a new consumer and print its id on stderr.")
@click.option("--name", default="", help="A name for the new consumer, for people; it goes on by its id.")
@click.option(
    "--start",
    type=click.Choice(["earliest", "latest"]),
    default="earliest",
    show_default=True,
    help="Where the new consumer begins.",
)
@click.option(
    "-n", "--max", "count", type=click.IntRange(1), metavar="N", help="At most so many messages; 1 by default."
)
@click.option("--all", "everything", is_flag=True, help="All messages that the consumer has not read.")
@click.option("-f", "--follow", is_flag=True, help="Go on waiting for messages.")
@common_options
def consume(
    settings: Settings,
    topic: str,
    consumer_id: int | None,
    register: bool,
    name: str,
    start: str,
    count: int | None,
    everything: bool,
    follow: bool,
) -> None:
    """Print the messages that a consumer has not read, which are read from then on."""
    if (consumer_id is None) != register:
        raise click.UsageError("say either --consumer ID or --register")
    if count is not None and everything:
        raise click.UsageError("say either --max or --all")
    left = count if count is not None else None if everything or follow else 1
    with settings.client() as client:
        consumer = client.topic(topic).consumer(
            consumer_id, name=name, start="latest" if start == "latest" else "earliest", stop_at_end=not follow
        )
        consumer.register()
        if register:
            again = f"quorl topic consume {output.word(topic)} --consumer {consumer.consumer_id}"
            settings.say(f"registered consumer {consumer.consumer_id}, which goes on with: {again}")
        printed = _consume(settings, consumer, left, follow=follow)
    if not printed:
        settings.say("no new message")


def _consume(settings: Settings, consumer: Consumer, left: int | None, *, follow: bool) -> int:
    printed = 0
    while left is None or printed < left:
        wanted = FETCH_MAX if left is None else min(FETCH_MAX, left - printed)
        fetched = _fetch(settings, consumer, wanted, follow=follow)
        if fetched:
            _print(settings, fetched)
            printed += len(fetched)
        elif not follow:
            break
    return printed


def _fetch(settings: Settings, consumer: Consumer, wanted: int, *, follow: bool) -> list[Message]:
    """Fetch; what is not known to have been fetched is fetched again under its key, so that nothing is skipped."""
    from quorl.client.errors import OutcomeUnknown, Unavailable

    failures = 0
    while True:
        try:
            return consumer.fetch(wanted)
        except (OutcomeUnknown, Unavailable) as error:
            failures += 1
            if not follow and (failures == REPEATS_MAX or isinstance(error, Unavailable)):
                raise
            settings.say(f"{error.detail}; going on")
            time.sleep(PAUSE_S)


def _print(settings: Settings, messages: Sequence[Message]) -> None:
    import msgspec

    encode = msgspec.json.encode
    if settings.as_json:
        output.write_lines([encode(_object(message)) for message in messages])
    else:
        output.write_lines([m.value.encode() if isinstance(m.value, str) else m.raw for m in messages])


def _object(message: Message) -> dict[str, object]:
    import msgspec

    about = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "value": msgspec.Raw(message.raw),
        "created_at": message.created_at,
        "key": message.key,
        "headers": message.headers or None,
        "producer_id": message.producer_id,
    }
    return {name: value for name, value in about.items() if value is not None}


@click.command()
@click.argument("topic", shell_complete=names("topics"))
@click.option(
    "-n", "--lines", "count", type=click.IntRange(0), metavar="N", help="The last so many messages; 10 by default."
)
@click.option("-f", "--follow", is_flag=True, help="Go on waiting for messages.")
@click.option("--from", "start", metavar="WHERE", help="All from: earliest, latest, an offset, or ts: and a time.")
@click.option("--partition", type=click.IntRange(0), metavar="N", help="Only this one.")
@common_options
def tail(
    settings: Settings, topic: str, count: int | None, follow: bool, start: str | None, partition: int | None
) -> None:
    """Print messages without a consumer; nobody's cursor moves. Without a quorum: as one node has it."""
    if start is not None and count is not None:
        raise click.UsageError("say either --lines or --from")
    with settings.looking() as client:
        handle = client.topic(topic)
        ends = {p.partition: p.next_offset for p in handle.info().details}
        if partition is not None:
            if partition not in ends:
                handle.browse(partition=partition)  # raises what the cluster says about it
            ends = {partition: ends[partition]}
        if start is None:
            following = _print_last(settings, handle, ends, 10 if count is None else count)
        else:
            following = _print_from(settings, handle, ends, start)
        if follow:
            _follow(settings, handle.follow(following))


def _print_last(settings: Settings, handle: Topic, ends: dict[int, int], count: int) -> dict[int, int]:
    """Print the last messages of all partitions together, in order of their times."""
    found: list[Message] = []
    for partition, end in ends.items() if count else ():
        offset = max(0, end - count)
        while offset < end:
            page = handle.browse(offset, partition=partition, limit=min(FETCH_MAX, end - offset))
            found += page
            offset += len(page) or end
    found.sort(key=lambda message: (message.created_at, message.partition, message.offset))
    _print(settings, found[-count:] if count else [])
    return ends


def _print_from(settings: Settings, handle: Topic, ends: dict[int, int], start: str) -> dict[int, int]:
    """Print what each partition has from a place on until where it ends now."""
    following = dict(ends)
    for partition, end in ends.items():
        place: str | int = start
        while place == start or int(place) < end:
            page = handle.browse(place, partition=partition, limit=FETCH_MAX)
            if not page:
                break
            _print(settings, page)
            place = page[-1].offset + 1
            following[partition] = max(end, place)
    return following


def _follow(settings: Settings, follower: Follower) -> None:
    from quorl.client.errors import Unavailable

    while True:
        try:
            _print(settings, follower.fetch())
        except Unavailable as error:
            settings.say(f"{error.detail}; going on")
            time.sleep(PAUSE_S)
