"""``quorl task import``: each line of the input becomes a task, in order, for as long as lines come.

What there is to read is submitted at once, so a line of a slow input leaves when it comes, and the lines of a fast one in
batches, one in flight at a time. Every task has an id before it is sent, and a batch keeps its idempotency key for all
repeats: no task is there twice, whatever is lost on the way. Once something was accepted, an outage of the cluster is
waited out; what is refused is refused for a single line, and the others go on.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from quorl.client.cli import output
from quorl.client.cli.common import Exit, Settings, fail, options_beside_queue
from quorl.client.cli.lines import Interrupt, open_source, read_blocks, skipped
from quorl.client.cli.submit import new_id
from quorl.client.cli.telling import new_call

if TYPE_CHECKING:
    import msgspec

    from quorl.client.sync import Client
    from quorl.cluster.protocol import submitting as b

LINE_BYTES_MAX = 640 * 1024
"""Room for arguments and named arguments of the greatest size."""
BATCH_BYTES = 384 * 1024
BATCH_TASKS = 1000
"""Of one call: well within a request, so that an answer comes soon and progress is seen."""
FULL_PAUSE_S = 0.5
"""Before a queue that is full is tried again."""
END = b"end"


@click.command("import", short_help="Submit the lines of SOURCE: one task each, as JSON.")
@click.argument("source", default="-")
@click.option("-q", "--queue", required=True, metavar="QUEUE", help="Where the tasks go; created if it does not exist.")
@click.option(
    "--partitions",
    type=click.IntRange(0, 256),
    metavar="N",
    help="The partitions of the queue; one that exists must have as many.",
)
@click.option("--seal", is_flag=True, help="Seal the queue at the end of the input too.")
@options_beside_queue
def import_(settings: Settings, source: str, queue: str, partitions: int | None, seal: bool) -> None:
    """Submit the lines of SOURCE, a file or - for standard input: one task each, as JSON, for as long as lines come.

    A line is {"name": "demo.add", "args": [1, 2]} with any field of a task, or has the older names task_id, task-id,
    task_type, task, task_args. Lines that are no task are reported and left out. The line `end` ends the input and
    seals the queue; Ctrl-C submits what was read, ends and does not seal.
    """
    descriptor = open_source(source)
    try:
        with settings.client() as client:
            _prepare(client, queue, partitions)
            run = _Import(settings, client, queue)
            try:
                run.all(descriptor)
                if run.ended or (seal and not run.interrupt.stopped):
                    run.seal()
            finally:
                run.conclude()
    finally:
        if descriptor > 0:
            os.close(descriptor)
    if run.skipped:
        click.get_current_context().exit(Exit.FAILED)


def _prepare(client: Client, queue: str, partitions: int | None) -> None:
    """See that the queue is there, as it is to be, and takes tasks: before anything is read, so that it is told at once."""
    from quorl.client.errors import QueueNotFound

    try:
        info = client.queues.get(queue)
    except QueueNotFound:
        info = client.queues.put(queue, partitions=partitions or 0)
    name = output.clean(queue)
    if partitions is not None and info.partitions != partitions:
        has = f"it has {output.counted(info.partitions, 'partition')}, which cannot change"
        fail(Exit.CONFLICT, f"queue {name} is another", has, f"--partitions {info.partitions}, or another queue")
    if info.sealed:
        fail(
            Exit.CONFLICT,
            f"queue {name} is sealed",
            "it takes no new tasks",
            f"quorl queue unseal {output.word(queue)}, or another queue",
        )


@dataclass
class _Line:
    """A task, and the line that it stands in."""

    number: int
    task: b.NewTask
    size_bytes: int


@dataclass
class _Import:
    """One run: what was read, what was submitted, what was wrong with lines."""

    settings: Settings
    client: Client
    queue: str
    interrupt: Interrupt = field(default_factory=Interrupt)
    lines: int = 0
    accepted: int = 0
    existing: int = 0
    skipped: int = 0
    settled: int = 0
    """The last line that is known to be submitted, or left out."""
    ended: bool = False
    sealed: bool = False
    failed: bool = False

    def all(self, descriptor: int) -> None:
        """Submit every line up to the end of the input, the line ``end``, or Ctrl-C."""
        with self.interrupt:
            for block in read_blocks(descriptor, self.interrupt, LINE_BYTES_MAX):
                for batch in self._batches(block):
                    self._submit(batch)
                self.settled = self.lines
                if self.ended:
                    return

    # -- reading ---------------------------------------------------------------------------------------------------
    def _batches(self, block: Iterable[bytes | None]) -> Iterable[list[_Line]]:
        """Yield the tasks of some lines in batches that one request takes; an id stands in a batch once."""
        batch: list[_Line] = []
        ids: set[str] = set()
        size = 0
        for line in block:
            self.lines += 1
            if line is not None and line.strip() == END:
                self.ended = True
                break
            one = self._read(line)
            if one is None:
                continue
            task_id = _id_of(one.task)
            if batch and (len(batch) >= BATCH_TASKS or size + one.size_bytes > BATCH_BYTES or task_id in ids):
                yield batch
                batch, ids, size = [], set(), 0
            batch.append(one)
            ids.add(task_id)
            size += one.size_bytes
        if batch:
            yield batch

    def _read(self, line: bytes | None) -> _Line | None:
        from quorl.cluster.protocol.problems import ProtocolError

        if line is None:
            self._skip(self.lines, f"longer than {LINE_BYTES_MAX // 1024} KiB")
            return None
        if not line.strip():
            return None
        try:
            return _Line(self.lines, read_task(line.strip()), len(line))
        except ProtocolError as error:
            detail = error.problem.detail
            if error.problem.code == "invalid_json":
                detail = f"not JSON ({detail.removeprefix('line 1, ')})"
            self._skip(self.lines, detail)
            return None

    def _skip(self, number: int, why: str) -> None:
        self.skipped += 1
        skipped(number, output.clean(why.rstrip(".")))

    # -- submitting ------------------------------------------------------------------------------------------------
    def _submit(self, batch: list[_Line]) -> None:
        """Submit a batch; one that is refused goes again by halves, down to the lines that are the reason."""
        from quorl.client.errors import QueueFull, QueueSealed, Rejected

        try:
            submitted = self._certainly(batch)
        except QueueSealed:
            raise
        except Rejected as refused:
            if len(batch) > 1:
                middle = len(batch) // 2
                self._submit(batch[:middle])
                self._submit(batch[middle:])
            elif isinstance(refused, QueueFull):
                self._wait_for_room(batch, refused)
            else:
                self._skip(batch[0].number, f"{refused.code}: {refused.detail}")
            return
        self._note(batch, submitted)

    def _wait_for_room(self, batch: list[_Line], refused: Exception) -> None:
        if self.interrupt.stopped:
            raise refused
        time.sleep(FULL_PAUSE_S)
        self._submit(batch)

    def _certainly(self, batch: list[_Line]) -> b.Submitted:
        """Submit a batch once, however often it takes; raises what the cluster says about it."""
        from quorl.client.errors import OutcomeUnknown, Unavailable
        from quorl.cluster.protocol import submitting as b

        request = b.Submit(queue=self.queue, tasks=[one.task for one in batch])
        key = new_id()
        doubt: OutcomeUnknown | None = None
        waiting = False
        while True:
            try:
                reply = self.client.repeat(doubt) if doubt else self.client.call(request, idempotency_key=key)
            except (OutcomeUnknown, Unavailable) as error:
                doubt = error if isinstance(error, OutcomeUnknown) else doubt
                if self.interrupt.stopped:
                    raise
                if not waiting:
                    self.settings.say(f"{error.detail}; trying until it is known what became of it")
                waiting = True
            else:
                if waiting:
                    self.settings.say("going on")
                assert isinstance(reply, b.Submitted)
                return reply

    def _note(self, batch: list[_Line], submitted: b.Submitted) -> None:
        """Count what was submitted, and print it."""
        import msgspec

        self.settled = batch[-1].number
        lines: list[bytes] = []
        for line, one in zip(batch, submitted.items, strict=True):
            self.accepted += 1
            self.existing += one.existing
            if self.settings.as_json:
                about = {"line": line.number, "id": one.id, "status": one.status, "existing": one.existing}
                lines.append(msgspec.json.encode(about))
            elif not self.settings.quiet:
                call = new_call(line.task)
                there = ", was there already" if one.existing else ""
                lines.append(f"✓ {output.clean(f'{one.id} {call}')} {one.status}{there}".encode())
        if lines:
            output.write_lines(lines)

    # -- the end ---------------------------------------------------------------------------------------------------
    def seal(self) -> None:
        """Seal the queue: its workers end once it is empty."""
        self.client.queues.seal(self.queue)
        self.sealed = True

    def conclude(self) -> None:
        """Print the number of tasks, and how it ended."""
        if self.settings.as_json:
            about = {"queue": self.queue, "tasks": self.accepted, "existing": self.existing, "skipped": self.skipped}
            output.emit({**about, "lines": self.lines, "settled_lines": self.settled, "sealed": self.sealed})
            return
        parts = [f"{output.counted(self.lines, 'line')}: {output.grouped(self.accepted)} submitted"]
        parts += [f"{output.grouped(self.existing)} of them there already"] if self.existing else []
        parts += [f"{output.grouped(self.skipped)} skipped"] if self.skipped else []
        self.settings.say(", ".join(parts) + ("; the queue is sealed" if self.sealed else ""))
        if self.settled < self.lines:
            self.settings.say(f"certainly settled: the input up to line {output.grouped(self.settled)}")
        click.echo(f"# of Tasks -> {self.accepted}")


def read_task(line: bytes) -> b.NewTask:
    """Return the task that a line is, with an id; raises ``ProtocolError`` for what no node would take."""
    import msgspec

    from quorl.cluster.protocol import submitting as b
    from quorl.cluster.protocol.problems import invalid
    from quorl.cluster.protocol.strictjson import read_object, read_typed

    read_object(line)
    decoder, names = _new_task()
    task = read_typed(line, decoder, names)
    if fault := b.fault_of(task):
        raise invalid(*fault)
    return task if _id_of(task) else msgspec.structs.replace(task, id=new_id())


@functools.cache
def _new_task() -> tuple[msgspec.json.Decoder[b.NewTask], tuple[str, ...]]:
    import msgspec

    from quorl.cluster.protocol import submitting as b

    return msgspec.json.Decoder(b.NewTask), tuple(one.encode_name for one in msgspec.structs.fields(b.NewTask))


def _id_of(task: b.NewTask) -> str:
    return task.id or task.task_id or task.hyphened_id or ""
