"""The synchronous client's way to a node: channels where there are some, HTTP where there are none, and what is said of failures."""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from quorl.client import sync_transport
from quorl.client.flow import Failure, Send
from quorl.client.sync_transport import ChannelTransport
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.channel import Answered, Frames, frames_of_answers, read_asking
from quorl.cluster.protocol.wire import Answer, Call

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: quorl-channel/1\r\nConnection: Upgrade\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain"


class Node:
    """A server that is played by a thread for each connection. What it says to the upgrade and to calls is the test's."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.switched = SWITCHED
        self.plain = PLAIN
        self.heads: list[bytes] = []
        self.calls: list[Call] = []
        self.connections: list[socket.socket] = []
        self.ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        """The numbers of connections that the client has closed."""
        self.says: Any = lambda asked: frames_of_answers([Answered(asked.number, 200, {"served-by": "n1"}, asked.body)])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(len(self.connections), connection), daemon=True).start()

    def _serve(self, number: int, connection: socket.socket) -> None:
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65536)
                if not data:
                    return
                head += data
            self.heads.append(head.partition(b"\r\n")[0])
            if b"/v1/channel" not in head:
                connection.sendall(self.plain)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # to close with a body unread would reset it, and take the answer back
                    pass
                return
            connection.sendall(self.switched)
            frames = Frames(limits.CHANNEL_FRAME_BYTES_MAX)
            while self.switched == SWITCHED and (data := connection.recv(65536)):
                for frame in frames.feed(data):
                    for asked in read_asking(frame).calls:
                        self.calls.append(Call(asked.method, asked.path, asked.query, asked.headers, asked.body))
                        said = self.says(asked)
                        if said is None:
                            return
                        connection.sendall(said)
        except OSError:
            pass
        finally:
            connection.close()
            self.ended.put(number)

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
        self.listening.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


@pytest.fixture
def transport() -> Iterator[ChannelTransport]:
    transport = ChannelTransport()
    yield transport
    transport.close()


def send(node: Node, body: bytes = b"1", timeout_s: float = 5.0) -> Send:
    return Send(node.url, Call("POST", "/v1/x", "a=1", {"accept": "application/json"}, body), timeout_s)


def answered(found: Answer | Failure) -> bytes:
    assert isinstance(found, Answer), found
    return found.body


def lost(found: Answer | Failure) -> str:
    assert isinstance(found, Failure), found
    assert found.kind == "lost"
    return found.why


def test_calls_of_a_thread_share_one_connection(node: Node, transport: ChannelTransport) -> None:
    assert [answered(transport.send(send(node, body))) for body in (b"1", b"2", b"3")] == [b"1", b"2", b"3"]
    assert node.heads == [b"GET /v1/channel HTTP/1.1"]
    (call, *_) = node.calls
    assert call == Call("POST", "/v1/x", "a=1", {"accept": "application/json", "quorl-timeout-ms": "5000"}, b"1")


def test_a_kept_connection_is_used_by_a_program_without_descriptors(node: Node, transport: ChannelTransport) -> None:
    assert answered(transport.send(send(node))) == b"1"
    limits_before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits_before[1]))
    try:
        found = transport.send(send(node, b"2"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits_before)
    assert answered(found) == b"2"
    assert len(node.connections) == 1


def test_an_answer_may_come_in_pieces_and_be_large(node: Node, transport: ChannelTransport) -> None:
    body = b"x" * 900_000
    assert answered(transport.send(send(node, body))) == body
    assert answered(transport.send(send(node, body[1:]))) == body[1:]


def test_threads_that_call_at_the_same_time_have_a_connection_each(node: Node, transport: ChannelTransport) -> None:
    both = threading.Barrier(2)

    def say(asked: Any) -> bytes:
        both.wait(10)
        return frames_of_answers([Answered(asked.number, 200, {}, asked.body)])

    node.says = say
    found: dict[bytes, bytes] = {}

    def call(body: bytes) -> None:
        found[body] = answered(transport.send(send(node, body)))

    threads = [threading.Thread(target=call, args=(body,)) for body in (b"1", b"2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == {b"1": b"1", b"2": b"2"}
    assert len(node.heads) == 2


def test_a_node_that_says_nothing_may_have_done_it_and_sees_its_caller_go(
    node: Node, transport: ChannelTransport
) -> None:
    answered(transport.send(send(node)))  # to connect takes its time, too
    node.says = lambda _asked: b""
    assert lost(transport.send(send(node, timeout_s=0.1))) == "no answer in 0.1 s"
    assert node.ended.get(timeout=10) == 1


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "connection lost: closed by the node"),
        (b"\xff\xff\xff\xff", "connection lost: a frame of"),
        (b"\0\0\0\1\xc1", "connection lost: a frame that cannot be read"),
        (frames_of_answers([Answered(0, 400, {}, b"the channel ends")]), "connection lost: the channel ends"),
    ],
)
def test_what_is_no_answer_ends_the_channel(
    node: Node, transport: ChannelTransport, said: bytes | None, why: str
) -> None:
    well = node.says
    node.says = lambda _asked: said
    assert lost(transport.send(send(node))).startswith(why)
    node.says = well
    assert answered(transport.send(send(node))) == b"1"
    assert len(node.heads) == 2


def test_a_connection_that_the_node_has_closed_is_not_used(node: Node, transport: ChannelTransport) -> None:
    assert answered(transport.send(send(node))) == b"1"
    node.connections[0].shutdown(socket.SHUT_RDWR)
    assert answered(transport.send(send(node))) == b"1"
    assert len(node.heads) == 2


@pytest.mark.parametrize("why", ["idle", "forked", "closed"])
def test_a_channel_that_may_be_ending_or_is_anothers_is_not_used(
    node: Node, transport: ChannelTransport, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    assert answered(transport.send(send(node))) == b"1"
    if why == "idle":
        monkeypatch.setattr(sync_transport, "IDLE_S_MAX", 0.0)
    elif why == "forked":
        transport._renew()  # what a child does; the channel stays the parent's
    else:
        transport.close()
    assert answered(transport.send(send(node))) == b"1"
    assert len(node.heads) == 2
    assert node.ended.get(timeout=10) == 1


def test_a_channel_that_was_in_use_while_the_client_closed_is_not_kept(node: Node, transport: ChannelTransport) -> None:
    well = node.says

    def say(asked: Any) -> Any:
        transport.close()
        return well(asked)

    node.says = say
    assert answered(transport.send(send(node))) == b"1"
    assert node.ended.get(timeout=10) == 1


def test_nobody_there_certainly_did_nothing(node: Node, transport: ChannelTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    found = transport.send(send(node)._replace(node=f"http://127.0.0.1:{port}"))
    assert isinstance(found, Failure)
    assert found.kind == "refused"


@pytest.mark.parametrize("said", [b"HTTP/1.1 404 Not Found\r\n\r\n", b"HTTP/1.1 503 No\r\n\r\n", b"HTTP/1.1 half"])
def test_where_there_is_no_channel_calls_go_over_http(
    node: Node, transport: ChannelTransport, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    node.switched = said
    for _ in range(2):
        assert answered(transport.send(send(node))) == b"plain"
    assert node.heads == [b"GET /v1/channel HTTP/1.1", *[b"POST /v1/x?a=1 HTTP/1.1"] * 2]
    monkeypatch.setattr(transport, "_plain_until_s", {})
    node.switched = SWITCHED
    assert answered(transport.send(send(node))) == b"1"


def test_what_speaks_no_http_is_said_to_be_another_port_perhaps(node: Node, transport: ChannelTransport) -> None:
    node.switched = b"\x11\x00\x00\x00\x01\xa7refusal\xa7garbled"  # a raft port's
    found = transport.send(send(node))
    assert found == Failure("refused", found.why if isinstance(found, Failure) else "", foreign=True)
    assert "does not speak HTTP; is it a node's raft port (7201)" in found.why
    assert node.calls == []


def test_what_speaks_no_http_is_known_without_a_channel_too_and_may_have_passed_the_call_on(node: Node) -> None:
    node.plain = b"SSH-2.0-x\r\n"
    with contextlib.closing(sync_transport.HttpTransport()) as http:
        found = http.send(send(node))
    assert isinstance(found, Failure)
    assert (found.kind, found.foreign) == ("lost", True)
    assert "does not speak HTTP" in found.why


def test_whoever_closes_without_a_word_was_not_sent_the_call(node: Node, transport: ChannelTransport) -> None:
    node.switched = b""
    found = transport.send(send(node))
    assert isinstance(found, Failure)
    assert (found.kind, found.foreign) == ("silent", False)
    assert found.why.startswith("it took the connection and closed it without a word")
    assert node.calls == []


def test_whoever_takes_the_connection_and_says_nothing_is_told_from_who_does_not_take_it(
    transport: ChannelTransport,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # the system takes connections for it
        call = Call("POST", "/v1/x", "", {}, b"1")
        found = transport.send(Send(f"http://127.0.0.1:{mute.getsockname()[1]}", call, 0.2))
    assert isinstance(found, Failure)
    assert found.kind == "silent"
    assert found.why.startswith("it took the connection and said nothing for 0.2 s: a node that hangs, or")


def test_what_fits_into_no_frame_goes_over_http(node: Node, transport: ChannelTransport) -> None:
    call = Call("POST", "/v1/x", "", {}, b"x" * (limits.REQUEST_BYTES_MAX + 1))
    found = transport.send(Send(node.url, call, 5))
    assert isinstance(found, Answer | Failure)
    assert node.heads == [b"POST /v1/x HTTP/1.1"]


def test_a_thread_that_is_interrupted_lets_its_connection_go(
    node: Node, transport: ChannelTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answered(transport.send(send(node))) == b"1"

    def interrupted(_pipe: object, _send: Send, _until: float) -> Answer:
        raise KeyboardInterrupt

    monkeypatch.setattr(sync_transport.Pipe, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        transport.send(send(node))
    assert node.ended.get(timeout=10) == 1
