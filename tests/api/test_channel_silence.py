"""A channel on which nothing comes any more, whatever the clock of the loop can tell apart: c4."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import quorl.channel
from quorl.channel import Lost, dial
from quorl.cluster.protocol.channel import NAME, Answered, Frames, frames_of_answers, read_asking
from quorl.cluster.protocol.wire import Call

CALL = Call("POST", "/v1/x", "", {}, b"")


async def one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first call, and then nothing."""
    await reader.readuntil(b"\r\n\r\n")
    head = f"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {NAME}\r\n\r\n"
    writer.write(head.encode())
    frames = Frames(1_000_000)
    with contextlib.suppress(ConnectionError):
        while not (found := list(frames.feed(await reader.read(65536)))):
            pass
        (asked,) = read_asking(found[0]).calls
        writer.write(frames_of_answers([Answered(asked.number, 200, {}, b"{}")]))
        while await reader.read(65536):
            pass
    writer.close()


async def test_c4_a_call_made_as_the_last_answer_came_tells_by_its_end_that_the_channel_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quorl.channel, "SILENT_S", 0.05)
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(one_answer, "127.0.0.1", 0)
    channel = await dial(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", {}, 5)
    stands_still = loop.time()
    first = asyncio.ensure_future(channel.ask(CALL, {}, 5))
    with monkeypatch.context() as patch:
        # A clock that shows the same while an answer comes and the next call is made, as one of milliseconds does.
        patch.setattr(channel, "_loop", Standing(loop, stands_still))
        assert (await first).status == 200
        second = asyncio.ensure_future(channel.ask(CALL, {}, 0.1))
        await asyncio.sleep(0)
    with pytest.raises(Lost, match="no answer"):
        await second
    closed = channel.closed
    channel.abort()
    server.close()
    assert closed


class Standing:
    """A loop whose clock stands still."""

    def __init__(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        self._at = at
        self.create_future = loop.create_future
        self.call_soon = loop.call_soon
        self.call_at = loop.call_at

    def time(self) -> float:
        return self._at
