"""A name and a password in the address of a proxy: sent to it, as every client of HTTP does, and told to nobody."""

from __future__ import annotations

import asyncio
import base64
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typing_extensions import override

from quorl import AsyncClient, Client
from quorl.client.errors import Unavailable
from quorl.client.route import unsigned
from tests.client.commands import Quorl

WANTED = "Basic " + base64.b64encode(b"me:p@ss").decode()


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Lets nobody in who does not say the password, and has no node behind it."""

    heard: list[str | None]

    def do_GET(self) -> None:
        self.heard.append(self.headers["Authorization"])
        self.send_response(401 if self.headers["Authorization"] != WANTED else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "0")
        self.end_headers()

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str | None]]]:
    heard: list[str | None] = []
    handler = type("Proxy", (_Proxy,), {"heard": heard})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", heard
        server.shutdown()
        thread.join()


def _of_the_client(url: str) -> None:
    with Client(url) as client:
        client.topics.list()


def _of_the_async_client(url: str) -> None:
    async def ask() -> None:
        async with AsyncClient(url) as client:
            await client.topics.list()

    asyncio.run(ask())


@pytest.mark.parametrize("ask", [_of_the_client, _of_the_async_client])
def test_a_name_and_a_password_go_to_the_proxy_and_into_no_message(
    proxy: tuple[str, list[str | None]], ask: Callable[[str], None]
) -> None:
    place, heard = proxy
    with pytest.raises(Unavailable) as told:
        ask(f"http://me:p%40ss@{place}")
    assert set(heard) == {WANTED}
    assert "ss@" not in str(told.value)
    assert f"http://{place}" in str(told.value)


@pytest.mark.parametrize(
    "words",
    [["topic", "ls", "-v"], ["node", "status"], ["api", "GET", "/v1/topics"], ["doctor"], ["cluster", "check", "-v"]],
)
def test_no_command_tells_the_password(quorl: Quorl, proxy: tuple[str, list[str | None]], words: list[str]) -> None:
    place, heard = proxy
    told = quorl(*words, "-s", f"http://me:p%40ss@{place}")
    assert set(heard) == {WANTED}
    assert "ss@" not in told.output
    assert "me:" not in told.output


def test_a_context_keeps_the_password_for_its_user_and_shows_it_to_nobody(
    quorl: Quorl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUORL_SERVER", raising=False)
    told = [quorl("context", "add", "live", "https://me:p%40ss@queue.example")]
    monkeypatch.setenv("QUORL_SERVER", "me:p%40ss@10.0.0.1")
    for words in (["ls"], ["ls", "--json"], ["use", "live"], ["rm", "live", "--json"]):
        file = tmp_path / "config" / "quorl" / "contexts.json"
        assert "p%40ss" in file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
        told.append(quorl("context", *words))
    assert all(one.exit_code == 0 and "queue.example" in one.output for one in told)
    assert "10.0.0.1" in told[1].output
    assert not any("ss@" in one.output or "me:" in one.output for one in told)


def test_an_address_without_a_password_is_told_as_it_is() -> None:
    assert unsigned("http://127.0.0.1:7101") == "http://127.0.0.1:7101"
    assert unsigned("https://me:word@queue.example/quorl") == "https://queue.example/quorl"
