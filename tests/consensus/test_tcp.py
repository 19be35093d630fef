"""The network between nodes on loopback: who is connected when, and what arrives."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from pathlib import Path

import pytest

from quorl.cluster.consensus import handshake
from quorl.cluster.consensus.connection import DATA, PING, WRITE_BUFFER_BYTES_MAX
from quorl.cluster.consensus.framing import pack
from quorl.cluster.protocol import limits
from tests.consensus.network_kit import (
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
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]


async def test_two_nodes_connect_and_know_each_other() -> None:
    at = addresses("n1", "n2")
    one, two = Node("n1", at, claims={"incarnation": "a"}), Node("n2", at, claims={"incarnation": "b"})
    async with running(one, two):
        await settled(one, two)
        assert one.recorder.hellos["n2"] == two.recorder.mine
        assert two.recorder.hellos["n1"] == one.recorder.mine
        assert one.network.troubles == {}


async def test_frames_arrive_whole_and_in_order_in_both_directions_between_three_nodes() -> None:
    at = addresses("n1", "n2", "n3")
    nodes = {name: Node(name, at) for name in at}
    async with running(*nodes.values()):
        await settled(*nodes.values())
        sent = [bytes([i % 256]) * (i * 37 % 3000) for i in range(300)]
        for name, node in nodes.items():
            for frame in sent:
                assert all(node.network.send(peer, frame) for peer in nodes.keys() - {name})
        for name, node in nodes.items():
            for peer in nodes.keys() - {name}:
                await node.recorder.until(
                    lambda node=node, peer=peer: sum(p == peer for p, _ in node.recorder.frames) == len(sent)  # type: ignore[misc]
                )
                assert [frame for p, frame in node.recorder.frames if p == peer] == sent


async def test_large_frames_arrive() -> None:
    at = addresses("n1", "n2")
    one, two = Node("n1", at), Node("n2", at)
    async with running(one, two):
        await settled(one, two)
        large = random.Random(1).randbytes(8 << 20)
        largest = bytes(limits.FRAME_BYTES_MAX - 1)
        for frame in (large, b"small", largest):
            assert one.network.send("n2", frame)
        assert one.network.buffered("n2") > 0
        await two.recorder.until(lambda: len(two.recorder.frames) == 3)
        assert [frame for _, frame in two.recorder.frames] == [large, b"small", largest]
        assert one.network.buffered("n2") == 0


async def test_a_frame_above_the_cap_is_a_bug_of_the_sender() -> None:
    at = addresses("n1", "n2")
    one = Node("n1", at)
    async with running(one):
        with pytest.raises(AssertionError):
            one.network.send("n2", bytes(limits.FRAME_BYTES_MAX))


async def test_sending_without_a_connection_says_so() -> None:
    at = addresses("n1", "n2")
    one = Node("n1", at)
    async with running(one):
        assert not one.network.send("n2", b"lost")
        assert one.network.buffered("n2") == 0


async def test_an_address_in_use_is_told_at_the_start() -> None:
    at = addresses("n1", "n2")
    one, again = Node("n1", at), Node("n1", at)
    async with running(one):
        with pytest.raises(OSError, match="address already in use"):
            await again.start()
        await again.network.close()


@pytest.mark.parametrize("prefer_own_s", [0.0, QUICK.prefer_own_s])
@pytest.mark.parametrize("head_start", range(-12, 13))
async def test_both_dial_at_once_and_exactly_one_connection_remains(prefer_own_s: float, head_start: int) -> None:
    """Without the turning away of the greater name's dial, too, for it is only a courtesy and not what decides."""
    delays = QUICK._replace(prefer_own_s=prefer_own_s)
    for _ in range(4):
        at = addresses("n1", "n2")
        one, two = Node("n1", at, delays=delays), Node("n2", at, delays=delays)
        async with running():
            await asyncio.gather(_start_after(-head_start, one), _start_after(head_start, two))
            await settled(one, two)
            lives = len(one.recorder.events), len(two.recorder.events)
            assert one.network.send("n2", b"there")
            assert two.network.send("n1", b"back")
            await one.recorder.until(lambda one=one: one.recorder.frames)  # type: ignore[misc]
            await two.recorder.until(lambda two=two: two.recorder.frames)  # type: ignore[misc]
            assert (len(one.recorder.events), len(two.recorder.events)) == lives
            assert _connections(one) == _connections(two) == 1
            await asyncio.gather(one.network.close(), two.network.close())


async def _start_after(turns: int, node: Node) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    await node.start()


def _connections(node: Node) -> int:
    return sum(connection.open for connection in node.network._connections)


async def test_a_connection_dialled_by_the_smaller_name_takes_the_place_of_the_other() -> None:
    at = addresses("n1", "n2")
    two = Node("n2", at)
    async with impersonating(hello("n1"), at["n1"]) as arrivals, running(two):
        dialled_by_two = await arrivals.get()
        await two.until_connected("n1")
        dialled_by_one = await Stranger.visit(two)
        await dialled_by_one.get_in(hello("n1"), SECRET, "n2")
        await dialled_by_two.hear_the_end()
        assert two.recorder.events == [("connected", "n1"), ("disconnected", "n1"), ("connected", "n1")]
        assert two.network.send("n1", b"on the younger")
        while (heard := await dialled_by_one.hear()) != bytes([DATA]) + b"on the younger":
            assert heard is not None
        assert arrivals.empty()  # being replaced is no loss: nothing was dialled again
        await dialled_by_one.leave()


async def test_a_connection_dialled_by_the_greater_name_is_turned_away() -> None:
    at = addresses("n1", "n2")
    one = Node("n1", at)
    async with impersonating(hello("n2"), at["n2"]) as arrivals, running(one):
        dialled_by_one = await arrivals.get()
        await one.until_connected("n2")
        dialled_by_two = await Stranger.visit(one)
        with pytest.raises(handshake.Refused, match="better connection"):
            await dialled_by_two.get_in(hello("n2"), SECRET, "n1")
        assert one.recorder.events == [("connected", "n2")]
        assert one.network.refusals == {}
        assert one.network.send("n2", b"on the elder")
        while (heard := await dialled_by_one.hear()) != bytes([DATA]) + b"on the elder":
            assert heard is not None
        await dialled_by_two.leave()


async def test_who_dials_again_has_lost_what_it_dialled_before() -> None:
    at = addresses("n1", "n2")
    one = Node("n1", at)
    async with running(one):
        before, after = await Stranger.visit(one), await Stranger.visit(one)
        await before.get_in(hello("n2"), SECRET, "n1")
        await after.get_in(hello("n2"), SECRET, "n1")
        await before.hear_the_end()
        assert one.recorder.events == [("connected", "n2"), ("disconnected", "n2"), ("connected", "n2")]
        await before.leave()
        await after.leave()


async def test_a_new_incarnation_replaces_the_former_one() -> None:
    at = addresses("n1", "n2")
    two = Node("n2", at)
    async with running(two):
        before, after = await Stranger.visit(two), await Stranger.visit(two)
        await before.get_in(hello("n1", incarnation="before"), SECRET, "n2")
        await after.get_in(hello("n1", incarnation="after"), SECRET, "n2")
        await before.hear_the_end()
        await two.recorder.until(lambda: two.recorder.count("connected", "n1") == 2)
        assert two.recorder.hellos["n1"].incarnation == "after"
        why = "a new process has this name, but the former one is still connected"
        assert two.log.warnings[-1] == f"peer_doubled, peer: n1, why: {why}, advice: see that only one is running"
        await before.leave()
        await after.leave()


async def test_of_two_processes_of_one_name_the_later_one_stays_until_it_ends() -> None:
    at = addresses("n1", "n2")
    two = Node("n2", at)
    async with running(two):
        before, after, again = [await Stranger.visit(two) for _ in range(3)]
        await before.get_in(hello("n1", incarnation="before"), SECRET, "n2")
        await after.get_in(hello("n1", incarnation="after"), SECRET, "n2")
        with pytest.raises(handshake.Refused, match="is connected with another process of this node's name") as refused:
            await again.get_in(hello("n1", incarnation="before"), SECRET, "n2")
        assert refused.value.code == "twin"
        assert two.network.refusals == {"n1": "runs still, and a later process of its name is connected"}
        assert two.log.warnings[-1].endswith("advice: see that only one process runs as n1")
        assert two.recorder.hellos["n1"].incarnation == "after"
        assert two.network.connected == {"n1"}
        await after.leave()
        await two.recorder.until(lambda: two.recorder.count("disconnected", "n1") == 2)
        back = await Stranger.visit(two)
        await back.get_in(hello("n1", incarnation="before"), SECRET, "n2")
        await two.recorder.until(lambda: two.recorder.count("connected", "n1") == 3)
        assert two.network.refusals == {}
        for stranger in (before, again, back):
            await stranger.leave()


async def test_a_stopped_peer_is_refused_at_once_and_found_again_when_it_is_back() -> None:
    at = addresses("n1", "n2")
    one, two, again = Node("n1", at), Node("n2", at), Node("n2", at, claims={"incarnation": "2"})
    async with running(one):
        assert one.network.troubles == {"n2": "not reached yet"}
        await two.start()
        await settled(one, two)
        await two.network.close()
        await one.recorder.until(lambda: one.recorder.count("refused", "n2"))
        assert one.recorder.events[-2:] == [("disconnected", "n2"), ("refused", "n2")]
        assert not one.network.send("n2", b"")
        assert one.network.troubles == {"n2": f"127.0.0.1:{at['n2'][1]}: connection refused"}
        async with running(again):
            await one.until_connected("n2")
            await again.until_connected("n1")
            assert one.recorder.hellos["n2"].incarnation == "2"
        assert one.recorder.count("refused", "n2") == 1


async def test_a_peer_that_never_was_there_is_not_called_dead() -> None:
    at = addresses("n1", "n2")
    one = Node("n1", at)
    async with running(one):
        await becomes(lambda: "connection refused" in one.network.troubles["n2"])
        assert one.recorder.events == []


async def test_a_killed_process_is_noticed_within_a_moment() -> None:
    at = addresses("n1", "n2")
    one = Node("n1", at)
    script = (
        "import asyncio\n"
        "from tests.consensus.network_kit import Node\n"
        f"async def main():\n    await Node('n2', {at!r}).start()\n    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    async with running(one):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
        )
        await one.until_connected("n2")
        with own_time() as passed_s:
            process.kill()
            await one.recorder.until(lambda: one.recorder.count("refused", "n2"))
            assert passed_s() < 1.0
        await process.wait()
        assert one.recorder.events == [("connected", "n2"), ("disconnected", "n2"), ("refused", "n2")]


async def test_a_peer_that_falls_silent_is_dropped_and_not_called_dead() -> None:
    at = addresses("n1", "n2")
    two = Node("n2", at)
    async with running(two):
        silent = await Stranger.visit(two)
        await silent.get_in(hello("n1"), SECRET, "n2")
        await silent.hear_the_end()
        assert two.network.troubles["n1"].startswith(("it said nothing for 0.4 s", "127.0.0.1"))
        await silent.leave()
        await two.recorder.until(lambda: two.recorder.count("disconnected", "n1"))
        told = ["peer_connected, peer: n1, dialled_by: n1", "peer_lost, peer: n1, why: it said nothing for 0.4 s"]
        assert two.log.infos == told


async def test_pings_alone_keep_a_connection_and_carry_gossip() -> None:
    at = addresses("n1", "n2")
    rounds = iter(range(1_000_000))
    one, two = Node("n1", at, gossip=lambda: b"%d" % next(rounds)), Node("n2", at)
    async with running(one, two):
        enough = 3 * int(QUICK.silence_s / QUICK.ping_s)
        await two.recorder.until(lambda: len(two.recorder.gossip) >= enough)
        heard = [int(gossip) for _, gossip in two.recorder.gossip]
        assert heard == sorted(heard)
        assert {peer for peer, _ in two.recorder.gossip} == {"n1"}
        assert one.recorder.count("disconnected", "n2") == 0


async def test_who_has_news_does_not_wait_for_the_next_ping() -> None:
    at, seldom, news = addresses("n1", "n2"), QUICK._replace(ping_s=60.0, silence_s=600.0), [b"old"]
    one, two = Node("n1", at, gossip=lambda: news[0], delays=seldom), Node("n2", at, delays=seldom)
    one.network.ping()  # there is nobody yet
    async with running(one, two):
        await two.recorder.until(lambda: two.recorder.gossip == [("n1", b"old")])
        news[0] = b"new"
        one.network.ping()
        await two.recorder.until(lambda: two.recorder.gossip == [("n1", b"old"), ("n1", b"new")])


async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    at = addresses("n1", "n2")
    two = Node("n2", at)
    async with running(two):
        deaf = await Stranger.visit(two)
        await deaf.get_in(hello("n1"), SECRET, "n2")
        await two.until_connected("n1")
        frame = bytes(4 << 20)
        sent = 0
        while two.network.send("n1", frame):
            sent += len(frame)
            assert sent < 4 * WRITE_BUFFER_BYTES_MAX
        assert sent > WRITE_BUFFER_BYTES_MAX - 2 * len(frame)
        assert not two.network.send("n1", b"")
        await two.recorder.until(lambda: two.recorder.count("disconnected", "n1"))
        deaf.vanish()


@pytest.mark.parametrize("damage", [b"\xff" * 8, pack(bytes([9]) + b"unknown kind"), pack(b"\x01x")[:-1] + b"y"])
async def test_a_damaged_stream_costs_only_its_connection(damage: bytes) -> None:
    at = addresses("n1", "n2")
    two = Node("n2", at)
    async with running(two):
        peer = await Stranger.visit(two)
        await peer.get_in(hello("n1"), SECRET, "n2")
        await peer.send(pack(bytes([DATA]), b"good") + damage)
        await peer.hear_the_end()
        await peer.leave()
        await two.recorder.until(lambda: two.recorder.count("disconnected", "n1"))
        assert two.recorder.frames in ([("n1", b"good")], [])
        again = await Stranger.visit(two)
        await again.get_in(hello("n1"), SECRET, "n2")
        await again.say(bytes([PING]))
        await two.recorder.until(lambda: ("n1", b"") in two.recorder.gossip)
        await again.leave()


async def test_names_are_resolved_anew_for_each_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    one_port, two_port = free_ports(2)
    at = {"n1": ("127.0.0.1", one_port), "n2": ("peer.invalid", two_port)}
    one = Node("n1", at)
    two = Node("n2", {"n1": ("127.0.0.1", free_ports(1)[0]), "n2": ("127.0.0.1", two_port)})
    asked: list[str] = []

    async def getaddrinfo(host: str, *rest: object, **more: object) -> list[object]:
        asked.append(host)
        if len(asked) < 3:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with running(two, one):
        await one.until_connected("n2")
        assert asked == ["peer.invalid"] * 3


async def test_a_resolver_that_hangs_is_asked_once_and_given_up_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def getaddrinfo(host: str, *rest: object, **more: object) -> list[object]:
        asked.append(host)
        await asyncio.Event().wait()
        return []

    one = Node("n1", {"n1": ("127.0.0.1", free_ports(1)[0]), "n2": ("peer.invalid", 1)})
    one.network._delays = QUICK._replace(connect_s=0.01)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with running(one):
        await becomes(lambda: one.network._peers["n2"].failures == 3)
        assert one.network.troubles == {"n2": "the name peer.invalid: no answer within 0.01 s"}
        assert asked == ["peer.invalid"]


async def test_a_peer_whose_machine_does_not_answer_is_given_up_after_the_timeout() -> None:
    at = addresses("n1", "n2")
    one = Node("n1", at, delays=QUICK._replace(connect_s=0.05))
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(at["n2"])
        full.listen(0)  # with one connection waiting to be accepted, the system answers no more
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(at["n2"])
        async with running(one):
            await becomes(lambda: one.network._peers["n2"].failures == 2)
            assert one.network.troubles == {"n2": f"127.0.0.1:{at['n2'][1]}: no answer within 0.05 s"}


async def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    at = addresses("n1", "n2")
    one = Node("n1", {"n1": at["n1"], "n2": ("peer.invalid", at["n2"][1])})

    async def getaddrinfo(host: str, *rest: object, **more: object) -> list[object]:
        return [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with running(one):
        port = at["n2"][1]
        await becomes(lambda: one.network._peers["n2"].failures == 2)
        both = f"127.0.0.2:{port}: connection refused; 127.0.0.1:{port}: connection refused"
        assert one.network.troubles == {"n2": both}
        async with impersonating(hello("n2"), at["n2"]):
            await one.until_connected("n2")


async def test_an_error_in_the_users_events_reaches_the_loops_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    at = addresses("n1", "n2")
    one, two = Node("n1", at), Node("n2", at)
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(str(context["exception"])))

    def broken(*_: object) -> None:
        raise RuntimeError("the user is broken")

    monkeypatch.setattr(one.recorder, "on_refused", broken)
    async with running(one):
        async with running(two):
            await settled(one, two)
        await one.recorder.until(lambda: one.recorder.count("disconnected", "n2"))
        await becomes(lambda: errors)
        assert errors == ["the user is broken"]
        async with running(Node("n2", at)):
            await one.until_connected("n2")


async def test_closing_does_not_wait_for_a_peer_that_does_not_read() -> None:
    at = addresses("n1", "n2")
    two = Node("n2", at)
    async with running(two):
        deaf = await Stranger.visit(two)
        await deaf.get_in(hello("n1"), SECRET, "n2")
        await two.until_connected("n1")
        assert two.network.send("n1", bytes(limits.FRAME_BYTES_MAX - 1))
        await two.network.close()
        assert two.network._connections == set()
        deaf.vanish()


async def test_the_last_frames_leave_before_the_connection_closes() -> None:
    at = addresses("n1", "n2")
    one, two = Node("n1", at), Node("n2", at)
    async with running(one, two):
        await settled(one, two)
        large = bytes(4 << 20)
        assert one.network.send("n2", large)
        assert one.network.send("n2", b"farewell")
        await one.network.close()
        assert one.network.connected == frozenset()
        assert not one.network.send("n2", b"too late")
        assert one.recorder.events == [("connected", "n2")]  # whoever closes is told nothing any more
        await two.recorder.until(lambda: len(two.recorder.frames) == 2)
        assert two.recorder.frames[-1] == ("n1", b"farewell")


async def test_a_free_port_can_be_asked_for() -> None:
    one = Node("n1", {"n1": ("127.0.0.1", 0)})
    async with running(one):
        assert one.network.port > 0


async def test_a_network_can_be_closed_in_any_state() -> None:
    at = addresses("n1", "n2")
    for pauses in range(12):
        one, two = Node("n1", at), Node("n2", at)
        async with running(one, two):
            for _ in range(pauses):
                await asyncio.sleep(0)
    never_started = Node("n1", at)
    await never_started.network.close()
