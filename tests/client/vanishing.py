"""A machine that vanishes under calls that wait for its answer: a network namespace whose cable is pulled.

Run as ``unshare -Urn python -m tests.client.vanishing CABLE``; prints one line of JSON: of each kind of connection what became
of a call that would have waited for a minute, and after how many seconds. ``CABLE``: whose is pulled, ``theirs`` or ``ours``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

from quorl.client import aio_transport, sync_transport
from quorl.client.flow import Failure, Send
from quorl.cluster.api.peers import HttpPeers
from quorl.cluster.node.core import PREFIX, PeerLost, PeerUnreachable
from quorl.cluster.protocol.channel import NAME
from quorl.cluster.protocol.wire import Answer, Call

HERE, THERE, PORT = "10.0.0.1", "10.0.0.2", 7101
WAIT_S = 60.0
CALL = Call("GET", "/v1/cluster", "", {}, b"")
PIECE = CALL._replace(path=f"{PREFIX}snapshot")
"""What nodes never ask for over a channel."""


# -- the machine that vanishes -------------------------------------------------------------------------------------
async def serve() -> None:
    """Take connections, and channels on them, and answer nothing; each call that arrives is a line."""
    done = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # who only looked whether there is somebody
            return
        if f"upgrade: {NAME}".encode() in head.lower():
            writer.write(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {NAME}\r\n\r\n".encode())
            await reader.read(1)
        print("call", flush=True)
        await done.wait()

    await asyncio.start_server(serve_one, THERE, PORT)
    print("serving", flush=True)
    await done.wait()


# -- those who wait for it -----------------------------------------------------------------------------------------
def run(*command: str) -> None:
    """Run a command, and say what it said if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _inside(other: subprocess.Popen[str]) -> tuple[str, str]:
    return "nsenter", f"--net=/proc/{other.pid}/ns/net"


def join(other: subprocess.Popen[str]) -> None:
    """Lay cables from a switch to both machines: a kernel whose own link is down would not even try to ask the other one."""
    assert other.stdout is not None
    assert other.stdout.readline() == "there\n"
    of_other = (*_inside(other), "ip")
    run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "end", "netns", str(other.pid))
    # Without any link the switch would be down itself.
    run("ip", "link", "add", "socket", "type", "veth", "peer", "name", "plug")
    run("ip", "link", "add", "switch", "type", "bridge")
    for port in ("cable", "plug"):
        run("ip", "link", "set", port, "master", "switch")
    run("ip", "addr", "add", f"{HERE}/24", "dev", "switch")
    for link in ("cable", "plug", "socket", "switch"):
        run("ip", "link", "set", link, "up")
    run(*of_other, "addr", "add", f"{THERE}/24", "dev", "end")
    run(*of_other, "link", "set", "end", "up")
    assert other.stdin is not None
    other.stdin.write("joined\n")
    other.stdin.flush()
    assert other.stdout.readline() == "serving\n"
    while not _reaches():  # the first packet may be lost
        pass


def _reaches() -> bool:
    try:
        socket.create_connection((THERE, PORT), WAIT_S / 10).close()
    except OSError:
        return False
    return True


def vanish(cable: str) -> None:
    """Pull its cable out of the switch: nothing that is sent there arrives any more, and nobody is told. Or have no link any more."""
    run("ip", "link", "set", {"theirs": "cable", "ours": "switch"}[cable], "down")


async def _until_it_arrives(way: Callable[[], Awaitable[object]]) -> object:
    """Call until somebody takes the call: on a busy machine a connection may take longer than anybody waits for one."""
    while isinstance(said := await way(), Failure) and said.kind == "refused":
        pass
    return said


async def ask_all(other: subprocess.Popen[str], cable: str) -> dict[str, tuple[str, float]]:
    """Call the other machine in every way there is, let it vanish, and tell what became of the calls."""
    send = Send(f"http://{THERE}:{PORT}", CALL, WAIT_S)
    http = aio_transport.HttpTransport()
    peers = HttpPeers({"n2": f"{THERE}:{PORT}"}, "")

    async def as_peer(call: Call) -> Answer | Failure:
        try:
            return await peers.call("n2", call, WAIT_S)
        except PeerLost as error:
            return Failure("lost", str(error))
        except PeerUnreachable as error:
            return Failure("refused", str(error))

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "channel": lambda: aio_transport.ChannelTransport().send(send),
        "http": lambda: http.send(send),
        "sync channel": lambda: asyncio.to_thread(sync_transport.ChannelTransport().send, send),
        "sync http": lambda: asyncio.to_thread(sync_transport.HttpTransport().send, send),
        "peer channel": lambda: as_peer(CALL),
        "peer http": lambda: as_peer(PIECE),
    }
    calls = {name: asyncio.ensure_future(_until_it_arrives(way)) for name, way in ways.items()}
    for _ in calls:
        assert other.stdout is not None
        assert await asyncio.to_thread(other.stdout.readline) == "call\n"
    vanish(cable)
    began_s, told = time.monotonic(), dict[str, tuple[str, float]]()

    async def wait(name: str) -> None:
        said = await calls[name]
        assert isinstance(said, Failure), said
        told[name] = f"{said.kind}: {said.why}", time.monotonic() - began_s

    await asyncio.gather(*[wait(name) for name in calls])
    await peers.close()
    await http.close()
    return told


def main() -> None:
    """Play both machines."""
    if sys.argv[1:] == ["there"]:
        print("there", flush=True)
        sys.stdin.readline()
        asyncio.run(serve())
        return
    command = ["unshare", "-n", sys.executable, "-m", "tests.client.vanishing", "there"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            join(other)
            print(json.dumps(asyncio.run(ask_all(other, sys.argv[1]))))
        finally:
            other.kill()


if __name__ == "__main__":
    main()
