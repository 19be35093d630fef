"""``quorl topic produce``: each line of the input becomes a message, in order.

One thread reads, another sends: a line of a slow input leaves at once, the lines of a fast one in batches as large as a
request takes, one in flight at a time, so the order of the lines is the order in the topic. What waits is bounded. After
a failure nothing more is sent, so what is stored is always the beginning of the input.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from quorl.client.cli import output
from quorl.client.cli.common import Exit, Settings, common_options
from quorl.client.cli.lines import LINE_BYTES_MAX, Interrupt, open_source, read_blocks, skipped
from quorl.client.cli.names import names

if TYPE_CHECKING:
    from quorl.client.producer import Pending, Producer
    from quorl.cluster.protocol import topics as t

CHUNK_BYTES = 128 * 1024
CHUNK_LINES = 2000
"""What is handed to the producer at once: it is told of each of them when it is stored."""


@click.command()
@click.argument("topic", shell_complete=names("topics"))
@click.argument("source", default="-")
@click.option("--value", "values", multiple=True, metavar="TEXT", help="This text instead of lines; can be repeated.")
@click.option("--json-lines", "as_values", is_flag=True, help="Each line is a JSON value, not text.")
@click.option("--key", help="The key of all messages, which decides their partition.")
@click.option("--create", is_flag=True, help="Create the topic first if it does not exist.")
@click.option("--partitions", type=click.IntRange(1, 256), metavar="N", help="For --create; 1 by default.")
@click.option(
    "--producer", "producer_id", type=click.IntRange(1), metavar="ID", help="The id of a registered producer."
)
@click.option("--register", "register_as", metavar="NAME", help="Register a new producer and use its id.")
@common_options
def produce(
    settings: Settings,
    topic: str,
    source: str,
    values: tuple[str, ...],
    as_values: bool,
    key: str | None,
    create: bool,
    partitions: int | None,
    producer_id: int | None,
    register_as: str | None,
) -> None:
    """Publish the lines of SOURCE, a file or - for standard input. Ctrl-C sends what was read and ends."""
    if producer_id is not None and register_as is not None:
        raise click.UsageError("say either --producer or --register")
    if partitions is not None and not create:
        raise click.UsageError("--partitions is for --create: a topic that is there keeps its number")
    descriptor = (
        -1
        if values
        else open_source(source, f"A text instead of a file: quorl topic produce {output.word(topic)} --value TEXT")
    )
    with settings.client() as client:
        if create:
            _ensure(client, topic, partitions or 1)
        producer = client.topic(topic).producer(producer_id, name=register_as)
        run = _Run(settings, producer, key, as_values)
        try:
            run.all(iter([[value.encode() for value in values]]) if values else read_blocks(descriptor, run.interrupt))
        finally:
            if descriptor > 0:
                os.close(descriptor)
    run.conclude(topic)


def _ensure(client: Any, topic: str, partitions: int) -> None:
    """Create the topic; one that exists is taken as it is."""
    from quorl.client.errors import AlreadyExists

    try:
        client.topics.create(topic, partitions=partitions)
    except AlreadyExists:
        pass  # with other partitions: the order per key is the same


@dataclass
class _Run:
    """One run: what was sent, what was stored, what was wrong with lines."""

    settings: Settings
    producer: Producer
    key: str | None
    as_values: bool
    interrupt: Interrupt = field(default_factory=Interrupt)
    lines: int = 0
    stored: int = 0
    skipped: int = 0
    replaced: int = 0
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    pending: deque[tuple[Pending, int]] = field(default_factory=deque)
    """Batches on their way, each with the number of its last line."""
    settled: int = 0
    """The last line that is known to be stored, or skipped."""
    error: Exception | None = None
    took_s: float = 0.0

    def report(self, text: str) -> None:
        """Say what is wrong with a line."""
        self.skipped += 1
        skipped(self.lines, text)

    def all(self, blocks: Iterator[Sequence[bytes | None]]) -> None:
        """Send every line; whatever happens, what was read and sent is settled afterwards."""
        from quorl.client.errors import QuorlError

        started = time.monotonic()
        try:
            with self.interrupt:
                try:
                    with self.producer:
                        for block in blocks:
                            self._send(block)
                            self._settle()
                finally:
                    self._settle()
        except QuorlError as error:
            self.error = error
        self.took_s = time.monotonic() - started

    def _send(self, block: Sequence[bytes | None]) -> None:
        batch: list[t.Message] = []
        size = 0
        for line in block:
            self.lines += 1
            message = self._message(line)
            if message is None:
                continue
            batch.append(message)
            size += len(line or b"")
            if size >= CHUNK_BYTES or len(batch) >= CHUNK_LINES:
                self.pending.append((self.producer.send_many(batch), self.lines))
                batch, size = [], 0
        if batch:
            self.pending.append((self.producer.send_many(batch), self.lines))

    def _message(self, line: bytes | None) -> t.Message | None:
        import msgspec

        from quorl.client import model
        from quorl.client.errors import Invalid

        if line is None:
            self.report(f"longer than {LINE_BYTES_MAX // 1024} KiB")
            return None
        value: Any
        if self.as_values:
            line = line.strip()
            if not line:
                return None
            try:
                msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self.report(f"not JSON ({error})")
                return None
            value = msgspec.Raw(line)
        else:
            try:
                value = line.decode()
            except UnicodeDecodeError:
                value = line.decode(errors="replace")
                self.replaced += 1
        message = model.message(value, key=self.key, producer=self.producer.producer_id)
        try:
            model.check_size(message)
        except Invalid as error:
            self.report(error.detail)
            return None
        return message

    def _settle(self) -> None:
        """Count what has been stored, in order."""
        while self.pending and self.pending[0][0].done:
            pending, line = self.pending.popleft()
            try:
                ranges = pending.ranges()
            except Exception as error:
                self.error = self.error or error
                return
            self.settled = line
            for one in ranges:
                first, _ = self.places.get(one.partition, (one.first_offset, 0))
                self.places[one.partition] = (first, one.last_offset)
                self.stored += one.last_offset - one.first_offset + 1

    def conclude(self, topic: str) -> None:
        """Print the summary, and raise what went wrong."""
        per_s = self.stored / self.took_s if self.took_s else 0.0
        if self.settings.as_json:
            ranges = [
                {"partition": partition, "first_offset": first, "last_offset": last}
                for partition, (first, last) in sorted(self.places.items())
            ]
            about = {"topic": topic, "messages": self.stored, "ranges": ranges, "skipped": self.skipped}
            output.emit(
                {**about, "replaced": self.replaced, "seconds": round(self.took_s, 3), "per_second": round(per_s)}
            )
        else:
            self.settings.say(self._summary(per_s))
        if self.error is not None:
            upto = f"the input up to line {output.grouped(self.settled)}" if self.settled else "nothing"
            self.settings.say(f"certainly stored: {upto}")
            raise self.error
        if self.skipped:
            click.get_current_context().exit(Exit.FAILED)

    def _summary(self, per_s: float) -> str:
        parts = [output.counted(self.stored, "message")]
        if len(self.places) == 1:
            ((first, last),) = self.places.values()
            parts.append(f"offsets {output.grouped(first)}–{output.grouped(last)}")
        elif self.places:
            parts.append(output.counted(len(self.places), "partition"))
        parts += [f"{self.took_s:.1f} s", f"{output.rounded(per_s)}/s"]
        if self.replaced:
            parts.append(f"{output.counted(self.replaced, 'line')} not in UTF-8")
        if self.skipped:
            parts.append(f"{output.counted(self.skipped, 'line')} skipped")
        return ", ".join(parts)
