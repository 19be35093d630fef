"""A program that ends without closing its producer: what it handed over is sent, or it is said that it was not."""

from __future__ import annotations

import subprocess
import sys

from quorl.client import Client
from tests.client.stand_in import StandIn, closed_port

PROGRAM = """
import sys
from quorl import Client

client = Client(sys.argv[1], timeout_s=float(sys.argv[2]))
producer = client.topic("x").producer()
for number in range(100):
    producer.send(number)
"""


def ended(
    servers: str, more: str = "", *, before: str = "", timeout_s: float = 0.5
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", before + PROGRAM + more, servers, str(timeout_s)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_was_handed_over_before_the_program_ends_is_sent(cluster: StandIn) -> None:
    with Client(cluster.servers) as client:
        client.topics.create("x")
        for more in ("", "sys.exit(0)"):
            done = ended(cluster.servers, more, timeout_s=30)
            assert (done.returncode, done.stderr) == (0, "")
        assert client.topic("x").size() == 200
        assert [one.value for one in client.topic("x").browse(100)] == list(range(100))


def test_what_could_not_be_sent_at_the_end_is_said() -> None:
    done = ended(closed_port())
    assert "quorl: not all that was handed to the producer of 'x' is stored: no node answered in" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_no_thread_could_be_started_for_is_said(cluster: StandIn) -> None:
    none = "import _thread\ndef none(*_):\n    raise RuntimeError('no threads left')\n_thread.start_new_thread = none\n"
    with Client(cluster.servers) as client:
        client.topics.create("x")
    done = ended(cluster.servers, before=none)
    assert (done.returncode, done.stderr) == (
        0,
        "quorl: not all that was handed to the producer of 'x' is stored: what waits cannot be sent now: no threads left\n",
    )


def test_what_was_told_before_is_not_said_again() -> None:
    done = ended(
        closed_port(), "try:\n    producer.close()\nexcept Exception as error:\n    print(type(error).__name__)"
    )
    assert (done.stdout, done.stderr) == ("Unavailable\n", "")


def test_a_client_that_was_closed_before_its_producer_is_said(cluster: StandIn) -> None:
    """The end of ``with Client()`` ends what its producers can do."""
    cluster.mishaps[0].append("hang")
    done = ended(cluster.urls[0], "client.close()")
    assert "is stored: " in done.stderr
