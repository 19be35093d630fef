"""The port between the nodes under attack: strangers get nothing in, nothing out, and a genuine peer still gets in."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import socket
import struct
import sys
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from quorl.cluster.consensus import handshake
from quorl.cluster.consensus.framing import HEADER_BYTES, pack
from quorl.cluster.consensus.handshake import Answer, Greeting, Proof, Refusal, encode
from quorl.cluster.consensus.port import Hello
from quorl.cluster.protocol import limits
from tests.consensus.network_kit import (
    PATIENCE_S,
    QUICK,
    SECRET,
    Node,
    Stranger,
    addresses,
    becomes,
    hello,
    impersonating,
    own_time,
    running,
    settled,
)

ROOT = Path(__file__).parents[2]
HERE = "127.0.0.1"


class Trap:
    """Unpickling it would set ``sprung``."""

    sprung = False

    @override
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return setattr, (Trap, "sprung", True)


def victim(**other: Any) -> Node:
    return Node("n2", addresses("n1", "n2", "n3"), **other)


async def still_serves(node: Node) -> None:
    """A genuine peer gets in by the listener, and what it sends arrives."""
    assert not Trap.sprung
    before = node.recorder.count("connected", "n1")
    frames = len(node.recorder.frames)
    peer = await Stranger.visit(node)
    await peer.get_in(hello("n1"), SECRET, "n2")
    await peer.say(b"\x01genuine")
    await node.recorder.until(lambda: len(node.recorder.frames) > frames)
    assert node.recorder.frames[-1] == ("n1", b"genuine")
    assert node.recorder.count("connected", "n1") == before + 1
    await peer.leave()
    await node.recorder.until(lambda: not node.recorder.is_up("n1"))


def code(payload: bytes | None) -> str:
    assert payload is not None
    return msgspec.msgpack.decode(payload, type=Refusal).code


GARBAGE = {
    "random": bytes(range(256)) * 40,
    "zeros": bytes(64),
    "http": b"GET / HTTP/1.1\r\nHost: n2\r\n\r\n",
    "tls": bytes.fromhex("16030100f8010000f40303") + bytes(240),
    "two gibibytes": struct.pack("<II", 2**31, 0) + b"x" * 10_000,
    "four gibibytes": b"\xff" * 5000,
    "above the cap of the handshake": pack(bytes(limits.HANDSHAKE_BYTES_MAX + 1)),
    "wrong checksum": pack(b"x" * 100)[:-1] + b"y",
    "a bare pickle": pickle.dumps(Trap()),
    "a framed pickle": pack(pickle.dumps(Trap())),
    "the library's framing of a pickle": struct.pack("i", len(pickle.dumps(Trap()))) + pickle.dumps(Trap()) * 2,
    "deep nesting": pack(b"\x91" * limits.HANDSHAKE_BYTES_MAX),
    "a proof before the greeting": pack(encode(Proof(bytes(32)))),
    "data before the greeting": pack(b"\x01data"),
    "a pickled hello": pack(encode(Greeting(handshake.PROTOCOL, pickle.dumps(Trap()), bytes(32)))),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_d14_garbage_is_answered_with_a_code_and_the_door(garbage: bytes) -> None:
    node = victim()
    async with running(node):
        stranger = await Stranger.visit(node)
        await stranger.send(garbage)
        heard = await stranger.hear()
        if heard is not None:  # unless what it had sent too much reset the connection
            assert code(heard) == "garbled"
            await stranger.hear_the_end()
        await stranger.leave()
        assert node.recorder.events == []
        assert "does not speak the node protocol" in node.network.refusals[HERE]
        await still_serves(node)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (hello("n1", cluster="other"), "cluster"),
        (hello("n1", group=1), "cluster"),
        (hello("n9"), "member"),
        (hello(""), "member"),
        (hello("n2"), "self"),
    ],
)
async def test_d14_wrong_claims_learn_a_code_and_nothing_about_this_node(claims: Hello, expected: str) -> None:
    node = victim()
    async with running(node):
        stranger = await Stranger.visit(node)
        assert await stranger.greet(claims) == Refusal(expected)
        await stranger.hear_the_end()
        await stranger.leave()
        assert node.recorder.events == []
        assert HERE in node.network.refusals
        await still_serves(node)


@pytest.mark.parametrize("secret", [b"", b"another", SECRET + b"\0", SECRET[:-1]])
async def test_d14_a_wrong_secret_does_not_get_in(secret: bytes) -> None:
    node = victim()
    async with running(node):
        stranger = await Stranger.visit(node)
        answer = await stranger.greet(hello("n1"))
        assert isinstance(answer, Answer)
        # As a dialer of ours it would leave here, for the answer does not prove its secret. This one goes on.
        greeting = encode(hello("n1"))
        transcript = handshake._transcript(greeting, b"n" * 32, answer.hello, answer.nonce)
        await stranger.say(encode(Proof(handshake._prove(secret, b"dialer", transcript))))
        assert code(await stranger.hear()) == "secret"
        await stranger.hear_the_end()
        await stranger.leave()
        assert node.recorder.events == []
        assert node.network.refusals[HERE] == "cannot prove the cluster secret"
        await still_serves(node)


async def test_d14_nodes_with_different_secrets_stay_apart_and_say_why() -> None:
    at = addresses("n1", "n2")
    one, two = Node("n1", at), Node("n2", at, secret=b"another")
    async with running(one, two):
        await _until_refusing(one, "n2")
        await _until_refusing(two, "n1")
        assert one.network.troubles == {"n2": "refused [secret]: cannot prove the cluster secret"}
        assert one.recorder.events == two.recorder.events == []


async def test_d1_nodes_of_different_clusters_stay_apart_and_both_name_both_ids() -> None:
    at = addresses("n1", "n2")
    one, two = Node("n1", at, claims={"cluster_id": "5f2c"}), Node("n2", at, claims={"cluster_id": "77aa"})
    async with running(one, two):
        await _until_refusing(one, "n2")
        await _until_refusing(two, "n1")
        assert one.network.refusals["n2"] == "belongs to cluster '77aa', this is '5f2c'"
        assert two.network.refusals["n1"] == "belongs to cluster '5f2c', this is '77aa'"
        assert one.recorder.events == two.recorder.events == []
        for node in (one, two):  # though they try for ever
            (line,) = [line for line in node.log.warnings if "belongs to cluster" in line]
            assert line.startswith("peer_refused, peer: n")


async def _until_refusing(node: Node, peer: str) -> None:
    await becomes(lambda: peer in node.network.refusals)


async def test_d14_a_reflected_proof_does_not_get_in() -> None:
    node = victim()
    async with running(node):
        stranger = await Stranger.visit(node)
        answer = await stranger.greet(hello("n1"))
        assert isinstance(answer, Answer)
        await stranger.say(encode(Proof(answer.proof)))
        assert code(await stranger.hear()) == "secret"
        await stranger.leave()
        await still_serves(node)


async def test_d14_a_recorded_handshake_does_not_get_in_again() -> None:
    node = victim()
    async with running(node):
        genuine = await Stranger.visit(node)
        side = handshake.dial(handshake.Me(hello("n1"), SECRET, b"g" * 32), "n2")
        greeting = next(side)
        await genuine.say(greeting)
        answer = await genuine.hear()
        assert answer is not None
        proof = side.send(answer)
        await genuine.say(proof)
        await node.until_connected("n1")
        for _ in range(2):
            thief = await Stranger.visit(node)
            await thief.say(greeting)
            assert await thief.hear() != answer
            await thief.say(proof)
            assert code(await thief.hear()) == "secret"
            await thief.leave()
        assert node.recorder.events == [("connected", "n1")]  # and the genuine connection was not disturbed
        side.close()
        await genuine.leave()
        await node.recorder.until(lambda: not node.recorder.is_up("n1"))
        await still_serves(node)


async def test_d14_idle_strangers_are_few_and_short_lived() -> None:
    at = addresses("n1", "n2", "n3")
    node, friend = Node("n2", at), Node("n1", at)
    async with running(node, friend):
        await node.until_connected("n1")
        with own_time() as passed_s:
            crowd = [await Stranger.visit(node) for _ in range(limits.PENDING_HANDSHAKES_MAX + 36)]
            assert len(node.network._pending) <= limits.PENDING_HANDSHAKES_MAX
            async with impersonating(hello("n3"), at["n3"]):  # outgoing connections are not held up by the crowd
                await node.until_connected("n3")
            assert friend.network.send("n2", b"undisturbed")
            await node.recorder.until(lambda: ("n1", b"undisturbed") in node.recorder.frames)
            for stranger in crowd:
                assert await stranger.hear() is None
            assert passed_s() < QUICK.handshake_s + 1
        for stranger in crowd:
            await stranger.leave()
        assert node.network._pending == set()
        assert sum("unproven" in line for line in node.log.warnings) <= 1
        await friend.network.close()
        await node.recorder.until(lambda: not node.recorder.is_up("n1"))
        await still_serves(node)


async def test_d14_dripping_bytes_does_not_buy_time() -> None:
    node = victim()
    async with running(node):
        stranger = await Stranger.visit(node)
        end = asyncio.ensure_future(stranger.hear_the_end())
        with own_time() as passed_s:
            for byte in pack(encode(Greeting(handshake.PROTOCOL, encode(hello("n1")), bytes(32)))):
                await stranger.send(bytes([byte]))
                done, _ = await asyncio.wait([end], timeout=0.02)
                if done:
                    break
            assert end.done()
            assert passed_s() < QUICK.handshake_s + 0.5
        await stranger.leave()
        assert "did not prove" in node.network.refusals[HERE]
        await still_serves(node)


@pytest.mark.parametrize("politely", [True, False])
@pytest.mark.parametrize("state", ["connected", "half a header", "half a greeting", "greeted", "answered", "proved"])
async def test_d14_leaving_in_any_state_of_the_handshake_harms_nobody(state: str, politely: bool) -> None:
    node = victim()
    async with running(node):
        stranger = await Stranger.visit(node)
        side = handshake.dial(handshake.Me(hello("n1"), SECRET, b"l" * 32), "n2")
        greeting = pack(next(side))
        if state.startswith("half"):
            await stranger.send(greeting[: 5 if state == "half a header" else 50])
        elif state != "connected":
            await stranger.send(greeting)
        if state in {"answered", "proved"}:
            answer = await stranger.hear()
            assert answer is not None
            proof = side.send(answer)
            if state == "proved":
                await stranger.say(proof)
        side.close()
        if politely:
            await stranger.leave()
        else:
            stranger.vanish()
        await _until_alone(node)
        await still_serves(node)


async def _until_alone(node: Node) -> None:
    """Wait until no inbound connection is left, and none on its way."""
    probe = await Stranger.visit(node)  # accepted after whoever came before
    await probe.send(bytes(HEADER_BYTES))
    await probe.hear_the_end()
    await probe.leave()
    await becomes(lambda: all(connection.dialled for connection in node.network._connections))


async def test_d14_strangers_fill_no_memory() -> None:
    node = victim()
    async with running(node):
        almost = pack(bytes(limits.HANDSHAKE_BYTES_MAX))[:-1]
        before = _resident_bytes()
        crowd = [await Stranger.visit(node) for _ in range(limits.PENDING_HANDSHAKES_MAX)]
        for stranger in crowd:
            await stranger.send(almost)
        everything = len(crowd) * len(almost)
        await becomes(lambda: sum(c._reader.kept_bytes for c in node.network._pending) == everything)
        assert _resident_bytes() - before < limits.PENDING_HANDSHAKES_MAX * 64 * 1024
        for stranger in crowd:
            await stranger.leave()
        await _until_alone(node)
        taken = await asyncio.get_running_loop().run_in_executor(None, _flood, node.address)
        assert taken < 8 << 20  # no more than the buffers of the two sockets hold
        assert _resident_bytes() - before < 8 << 20
        await still_serves(node)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _flood(address: tuple[str, int]) -> int:
    """Send one frame of 256 MiB, or as much of it as is taken."""
    piece = bytes(1 << 16)
    taken = 0
    with socket.create_connection(address) as sock:
        try:
            sock.sendall(struct.pack("<II", 256 << 20, 0))
            while taken < 256 << 20:
                taken += sock.send(piece)
        except ConnectionError:
            pass
    return taken


async def test_d14_a_frame_above_the_cap_from_a_member_costs_it_its_connection() -> None:
    node = victim()
    async with running(node):
        peer = await Stranger.visit(node)
        await peer.get_in(hello("n1"), SECRET, "n2")
        await peer.send(struct.pack("<II", limits.FRAME_BYTES_MAX + 1, 0))
        await peer.hear_the_end()
        await peer.leave()
        await still_serves(node)


async def test_d14_an_impostor_in_a_peers_place_gets_nothing_but_greetings() -> None:
    """It listens where n1 should, and answers with garbage, a pickle, the node's own words, a refusal, a welcome."""
    at = addresses("n1", "n2")
    node, genuine = Node("n2", at), Node("n1", at)
    heard: list[bytes] = []
    all_tried = asyncio.Event()
    tricks: list[Callable[[Greeting], bytes]] = [
        lambda _: b"\xff" * 100,
        lambda _: struct.pack("<II", 2**31, 0),
        lambda _: pack(pickle.dumps(Trap())),
        lambda greeting: pack(encode(Answer(greeting.hello, greeting.nonce, bytes(32)))),
        lambda greeting: pack(encode(Answer(encode(hello("n1")), greeting.nonce, bytes(32)))),
        lambda _: pack(encode(handshake.Welcome())),
        lambda _: pack(encode(Refusal("\x1b[2J bad\nnews"))),
    ]

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stranger = Stranger(reader, writer)
        first = await stranger.hear()
        if first is not None and tricks:
            await stranger.send(tricks.pop(0)(msgspec.msgpack.decode(first, type=Greeting)))
            while (more := await stranger.hear()) is not None:
                heard.append(more)
            if not tricks:
                all_tried.set()
        await stranger.leave()

    server = await asyncio.start_server(impostor, *at["n1"])
    async with running(node):
        async with asyncio.timeout(PATIENCE_S):
            await all_tried.wait()
        server.close()
        assert heard == []
        assert node.recorder.events == []
        assert not Trap.sprung
        assert "n1" in node.network.refusals
        assert all(line.isprintable() for line in node.log.warnings)
        async with running(genuine):
            await settled(node, genuine)
            assert "n1" not in node.network.refusals


async def test_d14_no_descriptors_left_does_not_close_the_listener() -> None:
    """The listening process may open fewer files than strangers open connections."""
    at = addresses("n1", "n2")
    script = (
        "import asyncio, logging, resource\n"
        "from tests.consensus.network_kit import Node\n"
        "async def main():\n"
        f"    await Node('n2', {at!r}).start()\n"
        "    try: 1 / 0\n"
        "    except ZeroDivisionError: logging.exception('said once, so that all that a traceback needs is loaded')\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))\n"
        "    print('listening', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stdout.readline() == b"listening\n"
        crowd = [Stranger(*await asyncio.open_connection(*at["n2"])) for _ in range(60)]
        async with asyncio.timeout(PATIENCE_S):
            while b"out of system resource" not in await process.stderr.readline():
                pass
        for stranger in crowd:
            await stranger.leave()
        genuine = Stranger(*await asyncio.open_connection(*at["n2"]))
        await genuine.get_in(hello("n1"), SECRET, "n2")
        await genuine.leave()
    finally:
        process.kill()
        _, said = await process.communicate()
    assert said.count(b"out of system resource") < 10  # the log is not flooded either


def test_d14_nothing_in_the_product_unpickles_or_evaluates() -> None:
    """A look at every name in the code, not at prose. There is no list of exceptions, and there should be none."""
    forbidden = re.compile(r"c?pickle|cloudpickle|dill|marshal|shelve|eval|exec|yaml", re.IGNORECASE)
    found: list[str] = []
    for path in [*(ROOT / "cluster").rglob("*.py"), *(ROOT / "client").rglob("*.py")]:
        with path.open("rb") as file:
            found += [
                f"{path.relative_to(ROOT)}:{token.start[0]}: {token.line.strip()}"
                for token in tokenize.tokenize(file.readline)
                if token.type == tokenize.NAME and forbidden.fullmatch(token.string)
            ]
    assert found == []
