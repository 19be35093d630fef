"""``quorl task import``: a process, a pipe, and lines for as long as they come."""

from __future__ import annotations

import json
import signal
import threading
import time
from typing import Any

import msgspec
import pytest

from quorl.client.cli import importing, submit
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol.problems import ProtocolError
from tests.client.commands import Quorl, run, start
from tests.client.desk import Desk
from tests.client.scripted import problem
from tests.client.stand_in import StandIn

LINE = '{"task_id": "%s", "task_type": "add", "task_args": ["1","2"], "task_tries": 0}\n'
IMPORT = ("task", "import", "--queue", "jobs")


def keys(cluster: StandIn) -> list[str]:
    """The idempotency keys of the submits."""
    return [call.headers["idempotency-key"] for _, call in cluster.calls if call.path.endswith("/tasks")]


def test_b3_c5_every_spelling_of_a_line_is_a_task(cluster: StandIn) -> None:
    desk = Desk(cluster)
    data = (
        LINE % "d0cf3b56"
        + '{ "task-id": "12345abc", "task": "multiply", "args": [4, 5] }\n\n'
        + '{"name": "demo.sleep", "kwargs": {"s": 1}, "priority": 9}\r\n'
    )
    code, out, err = run(cluster, data.encode(), *IMPORT, "--partitions", "3", "-")
    assert code == 0, err
    first, second, third, total = out.splitlines()
    assert first == '✓ d0cf3b56 add("1", "2") QUEUED'
    assert second == "✓ 12345abc multiply(4, 5) QUEUED"
    assert third.endswith(" demo.sleep(s=1) QUEUED")
    assert total == "# of Tasks -> 3"
    assert err == "4 lines: 3 submitted\n"
    assert list(desk.tasks)[:2] == ["d0cf3b56", "12345abc"]
    assert len(list(desk.tasks)[2]) == 36, "a missing id is made"
    assert desk.known is not None
    assert (desk.known.partitions, desk.known.sealed) == (3, False)


def test_b6_the_line_end_ends_it_and_seals_the_queue(cluster: StandIn) -> None:
    desk = Desk(cluster)
    with start(cluster, *IMPORT) as process:
        assert process.stdin is not None
        process.stdin.write((LINE % "a" + " end\n" + LINE % "b").encode())
        process.stdin.flush()  # and stays open: tail -f never ends
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read().decode().splitlines()[-1] == "# of Tasks -> 1"
        assert process.stderr.read() == b"2 lines: 1 submitted; the queue is sealed\n"
        process.stdin.close()
    assert list(desk.tasks) == ["a"]
    assert desk.known is not None
    assert desk.known.sealed


def test_b2_a_line_leaves_when_it_comes_and_ctrl_c_seals_nothing(cluster: StandIn) -> None:
    desk, names = Desk(cluster), "abcde"
    with start(cluster, *IMPORT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        took_s = []
        for name in names:
            process.stdin.write((LINE % name + ('{"half' if name == names[-1] else "")).encode())
            process.stdin.flush()
            written = time.monotonic()
            assert process.stdout.readline().decode().startswith(f"✓ {name} ")
            assert name in desk.tasks
            took_s.append(time.monotonic() - written)
        # The quickest: the first one waits for the process to start, and any of them for others on a busy machine.
        assert min(took_s) < 1
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout.read() == b"# of Tasks -> 5\n"
        process.stdin.close()
    assert desk.known is not None
    assert not desk.known.sealed


def test_b2_bad_lines_are_reported_with_their_numbers(cluster: StandIn) -> None:
    desk = Desk(cluster)
    lines = [
        LINE % "a",
        '{"task_id": "x", \n',
        '{"args": [1]}\n',
        '{"name": "n", "arguments": []}\n',
        '{"name": "n", "args": 5}\n',
        "[1]\n",
        "x" * (importing.LINE_BYTES_MAX + 300_000) + "\n",
        LINE % "b",
    ]
    code, out, err = run(cluster, "".join(lines).encode() + b'{"name": "\xff"}\n', *IMPORT)
    assert code == 1
    assert list(desk.tasks) == ["a", "b"]
    assert out.splitlines()[-1] == "# of Tasks -> 2"
    told = err.splitlines()
    assert [line.split(":")[0] for line in told[:7]] == [f"line {n}" for n in (2, 3, 4, 5, 6, 7, 9)]
    assert told[0].startswith("line 2: not JSON (column ")
    assert "a task needs a name" in told[1]
    assert "arguments" in told[2]
    assert "`args` must be a list" in told[3]
    assert "longer than" in told[5]
    assert told[-1] == "9 lines: 2 submitted, 7 skipped"


def test_fast_lines_go_in_batches_and_in_order(cluster: StandIn) -> None:
    desk = Desk(cluster)
    data = "".join(LINE % f"t{n}" for n in range(20_000))
    code, out, _ = run(cluster, data.encode(), *IMPORT, "--quiet")
    assert (code, out) == (0, "# of Tasks -> 20000\n")
    assert list(desk.tasks) == [f"t{n}" for n in range(20_000)]
    assert max(desk.batches) <= importing.BATCH_TASKS
    assert len(desk.batches) < 120


def test_one_bad_task_does_not_spoil_the_others(cluster: StandIn) -> None:
    desk = Desk(cluster)
    desk.tasks["t5"] = b.NewTask(id="t5", name="another")
    desk.tasks["t7"] = msgspec.json.decode(LINE % "t7", type=b.NewTask)
    data = "".join(LINE % f"t{n}" for n in range(10)) + LINE % "t0" + "end\n"
    code, out, err = run(cluster, data.encode(), *IMPORT)
    assert code == 1
    assert sorted(desk.tasks) == sorted(f"t{n}" for n in range(10))
    assert "line 6: task_exists: the id t5 is taken, skipped" in err
    assert "12 lines: 10 submitted, 2 of them there already, 1 skipped; the queue is sealed" in err
    assert '✓ t7 add("1", "2") QUEUED, was there already' in out
    assert len(set(keys(cluster))) == len(keys(cluster)), "what is refused goes again under another key"


def test_what_is_not_known_to_be_there_is_sent_again_under_its_key(cluster: StandIn) -> None:
    desk = Desk(cluster)
    with start(cluster, *IMPORT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write((LINE % "a").encode())
        process.stdin.flush()
        assert process.stdout.readline().startswith("✓ a".encode())
        for mishaps in cluster.mishaps:
            mishaps.extend(["reset after", problem("commit_unknown")])
        process.stdin.write((LINE % "b" + "end\n").encode())
        process.stdin.flush()
        assert process.wait(20) == 0
        assert process.stdout.read().decode().splitlines()[-1] == "# of Tasks -> 2"
        process.stdin.close()
    assert list(desk.tasks) == ["a", "b"]
    assert len(desk.batches) > 2, "it was sent again"
    assert len(set(keys(cluster))) == 2


def test_an_outage_is_waited_out_once_the_queue_was_there(cluster: StandIn) -> None:
    desk = Desk(cluster)
    gate = threading.Event()
    with start(cluster, *IMPORT, "--timeout", "2") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write((LINE % "a").encode())
        process.stdin.flush()
        assert process.stdout.readline().startswith("✓ a".encode())
        for mishaps in cluster.mishaps:
            mishaps.extend([gate] * 3)
        process.stdin.write((LINE % "b").encode())
        process.stdin.close()
        assert b"trying until it is known what became of it" in process.stderr.readline()
        for mishaps in cluster.mishaps:
            mishaps.clear()
        gate.set()
        assert process.stdout.readline().startswith("✓ b".encode())
        assert process.wait(20) == 0
        assert process.stderr.readline() == b"going on\n"
    assert list(desk.tasks) == ["a", "b"]
    assert len(set(keys(cluster))) == 2 < len(keys(cluster))


def test_a_cluster_that_is_not_there_is_told_at_once(cluster: StandIn) -> None:
    for mishaps in cluster.mishaps:
        mishaps.extend([problem("no_quorum", retry_after_ms=3_600_000)] * 20)
    code, out, err = run(cluster, b"", *IMPORT)
    assert (code, out) == (5, "")
    assert err.startswith("error  ")


def test_a_full_queue_is_waited_for(cluster: StandIn, quorl: Quorl, tmp_path: Any) -> None:
    desk = Desk(cluster)
    desk.refuse = q.QueueFull(detail="10 tasks wait")
    path = tmp_path / "tasks"
    path.write_text(LINE % "a", encoding="utf-8")
    result = quorl(*IMPORT, str(path), "--seal", "--json")
    assert result.exit_code == 0
    line, total = map(json.loads, result.stdout.splitlines())
    assert line == {"line": 1, "id": "a", "status": "QUEUED", "existing": False}
    assert total == {
        "queue": "jobs",
        "tasks": 1,
        "existing": 0,
        "skipped": 0,
        "lines": 1,
        "settled_lines": 1,
        "sealed": True,
    }


def test_a_queue_that_is_another_or_sealed(cluster: StandIn, quorl: Quorl, tmp_path: Any) -> None:
    desk = Desk(cluster)
    desk.put(q.PutQueue(queue="jobs", partitions=2))
    path = tmp_path / "tasks"
    path.write_text(LINE % "a" + LINE % "b", encoding="utf-8")
    other = quorl(*IMPORT, "--partitions", "3", str(path))
    assert other.exit_code == 4
    assert "it has 2 partitions, which cannot change" in other.stderr
    desk.refuse = q.QueueSealed(detail="sealed meanwhile")
    meanwhile = quorl(*IMPORT, str(path))
    assert meanwhile.exit_code == 4
    assert meanwhile.stdout == "# of Tasks -> 0\n"
    assert "certainly settled: the input up to line 0" in meanwhile.stderr
    desk.patch(q.PatchQueue(queue="jobs", sealed_=True))
    sealed = quorl(*IMPORT, str(path), "--json")
    assert sealed.exit_code == 4
    assert "quorl queue unseal jobs" in json.loads(sealed.stderr)["error"]["hint"]
    assert quorl(*IMPORT, str(tmp_path / "absent")).exit_code == 2


def test_ids_are_made_in_order() -> None:
    made = [submit.new_id() for _ in range(100)]
    assert len(set(made)) == 100
    assert {(one[14], one[19] in "89ab") for one in made} == {("7", True)}
    task = importing.read_task(b'{"task": "add"}')
    assert (task.task, len(task.id or "")) == ("add", 36)
    with pytest.raises(ProtocolError):
        importing.read_task(b'{"task": "add", "name": "add"}')
