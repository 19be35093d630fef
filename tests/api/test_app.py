"""The skin of a node over real sockets: what it answers itself, and what it does not even let in."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import html
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from html.parser import HTMLParser
from typing import cast

import msgspec
import pytest
from aiohttp import ClientSession, web, web_response
from structlog.testing import capture_logs
from typing_extensions import override

from quorl.cluster.api import docs_html
from quorl.cluster.api.app import Skin, introduce
from quorl.cluster.api.docs import wants_html
from quorl.cluster.api.health import Health
from quorl.cluster.api.hosts import Hosts
from quorl.cluster.protocol.pages import PAGES
from quorl.cluster.protocol.problems import CATALOGUE, Kind, Problem, document_of
from quorl.cluster.protocol.wire import Answer, Call, answer_problem

TOKEN = "a token"


class Echo:
    """A node that says what reached it."""

    async def handle(self, call: Call) -> Answer:
        return Answer(200, {"content-type": "text/plain"}, f"{call.method} {call.path}?{call.query}".encode())

    def refuse(self, call: Call, problem: Problem) -> Answer:
        return answer_problem(problem, instance=call.path, request_id="r", node="n1", leader=None)


class Well:
    """A node's health."""

    def live(self) -> Answer:
        return Answer(200, {"content-type": "text/plain"}, b"ok\n")

    started = live

    def ready(self, *, verbose: bool) -> Answer:
        return Answer(503 if verbose else 200, {"content-type": "text/plain"}, b"ok\n")


def counted(_call: Call) -> Answer:
    return Answer(200, {"content-type": "text/plain; version=1.0.0; charset=utf-8"}, b"quorl_sequence 1.0\n")


Ask = Callable[..., Awaitable[tuple[int, str, dict[str, str]]]]


@pytest.fixture
def hosts() -> Hosts:
    return Hosts("127.0.0.1", "quorl.internal")


@pytest.fixture
async def ask(hosts: Hosts) -> AsyncIterator[Ask]:
    """Call a skin that really listens: ``await ask("GET", "/livez", host="localhost")``."""
    skin = Skin(Echo(), cast("Health", Well()), hosts, TOKEN, 1000, "1.2.3", metrics=counted)
    runner = web.ServerRunner(web.Server(skin.handle, access_log=None, auto_decompress=False))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    async with ClientSession() as session:

        async def call(
            method: str, path: str, data: bytes | None = None, **headers: str
        ) -> tuple[int, str, dict[str, str]]:
            async with session.request(method, f"http://{host}:{port}{path}", data=data, headers=headers) as answer:
                return answer.status, await answer.text(), {k.lower(): v for k, v in answer.headers.items()}

        yield call
    await runner.cleanup()


async def test_a_defect_of_a_page_is_one_answer_and_one_log_line(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    skin = Skin(Echo(), cast("Health", Well()), hosts, TOKEN, 1000, "1.2.3")

    def broken(_call: Call) -> Answer:
        raise ValueError("secret")

    monkeypatch.setitem(skin._pages, "/livez", broken)
    with capture_logs() as told:
        answer = await skin.take(Call("GET", "/livez", "", {}, b""))
    assert (answer.status, msgspec.json.decode(answer.body)["code"]) == (500, "internal")
    (line,) = told
    assert (line["event"], line["path"], type(line["exc_info"])) == ("call_failed", "/livez", ValueError)


# -- names of the node ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "localhost.",
        "127.0.0.1:7101",
        "127.8.9.1",
        "[::1]:7101",
        "[::1]",
        "Quorl.Internal:1",
    ],
)
async def test_a_node_on_loopback_has_these_names(ask: Ask, host: str) -> None:
    assert (await ask("GET", "/v1/topics?limit=1", host=host))[:2] == (200, "GET /v1/topics?limit=1")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7101", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "]"]
)
@pytest.mark.parametrize("path", ["/v1/topics", "/livez", "/openapi.json", "/internal/snapshot", "/topics"])
async def test_a_node_on_loopback_is_called_by_its_own_names_only(ask: Ask, host: str, path: str) -> None:
    status, text, _ = await ask("GET", path, host=host, **{"quorl-member": TOKEN})
    problem = msgspec.json.decode(text)
    assert (status, problem["code"]) == (403, "forbidden_host")
    assert host in problem["detail"]


@pytest.mark.parametrize("hosts", [Hosts("0.0.0.0", "n1.example"), Hosts("::"), Hosts("10.0.0.1")])
async def test_off_loopback_any_name_will_do(ask: Ask) -> None:
    assert (await ask("GET", "/livez", host="whatever.example"))[0] == 200


def test_calls_of_old_programs_without_a_host_are_taken() -> None:
    assert Hosts("localhost").take(None)
    assert Hosts("[::1]").take("")


# -- who answers ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", ["0.1.0", "9.9.9"])
async def test_every_answer_names_quorl_as_its_server(monkeypatch: pytest.MonkeyPatch, ask: Ask, version: str) -> None:
    monkeypatch.setattr(web_response, "SERVER_SOFTWARE", "the library and its version")
    introduce(version)
    for path, host in (("/v1/topics", "localhost"), ("/livez", "localhost"), ("/livez", "evil.example")):
        assert (await ask("GET", path, host=host))[2]["server"] == f"quorl/{version}"
    status, _, headers = await ask("GET", "/", x="y" * 10_000)  # refused by the library itself
    assert (status, headers["server"]) == (400, f"quorl/{version}")


# -- pages ---------------------------------------------------------------------------------------------------------
async def test_the_pages_are_those_of_the_document_and_none_besides(ask: Ask, hosts: Hosts) -> None:
    skin = Skin(Echo(), cast("Health", Well()), hosts, TOKEN, 1000, "1.2.3")
    assert set(skin.paths) == {page.path for page in PAGES}
    for page in PAGES:
        path = page.path.replace("{code}", "no_leader")
        status, text, headers = await ask("GET", path)
        assert status == 200
        assert headers["content-type"].partition(";")[0] in page.answers[200].content
        assert (await ask("HEAD", path))[:2] == (200, "")
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            status, text, headers = await ask(method, path)
            assert (status, headers["allow"], msgspec.json.decode(text)["code"]) == (
                405,
                "GET, HEAD",
                "method_not_allowed",
            )
    assert (await ask("GET", "/livez/more"))[1] == "GET /livez/more?"  # everything else is the node's to answer


async def test_a_node_says_which_release_it_is(ask: Ask) -> None:
    told = msgspec.json.decode((await ask("GET", "/version"))[1])
    assert (told["name"], told["version"]) == ("quorl", "1.2.3")


async def test_readiness_is_asked_with_or_without_its_checks(ask: Ask) -> None:
    assert [(await ask("GET", path))[0] for path in ("/readyz", "/readyz?verbose", "/startupz")] == [200, 503, 200]


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize("kind", CATALOGUE.values(), ids=lambda kind: kind.code)
async def test_the_type_of_every_problem_leads_to_its_explanation(ask: Ask, kind: Kind) -> None:
    document = document_of(Problem(kind.code), instance="/", request_id="r", node="n1", leader=None)
    status, text, headers = await ask("GET", document.type)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert msgspec.json.decode(text) == {"type": document.type} | kind._asdict()
    status, text, headers = await ask("GET", document.type, accept=BROWSER)
    assert (status, headers["content-type"], headers["vary"]) == (
        200,
        "text/html; charset=utf-8",
        "accept, accept-encoding",
    )
    read = html.unescape(re.sub(r"</?code>", "", text)).replace("’", "'")
    assert all(part.replace("`", "") in read for part in (kind.code, kind.title, kind.why, kind.hint))


async def test_all_problems_are_listed(ask: Ask) -> None:
    for path in ("/problems", "/problems/"):
        status, text, _ = await ask("GET", path)
        assert (status, [one["code"] for one in msgspec.json.decode(text)["items"]]) == (200, list(CATALOGUE))
        page = (await ask("GET", path, accept=BROWSER))[1]
        assert re.findall(r'href="/problems/(\w+)"', page) == list(CATALOGUE)


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML;q=0.5, */*", True),
        ("text/html;q=0", False),
        ("application/json, text/html", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_pages_are_for_those_who_ask_for_them(accept: str, page: bool) -> None:
    assert wants_html(accept) == page


async def test_there_is_no_page_about_other_problems(ask: Ask) -> None:
    status, text, _ = await ask("GET", "/problems/topic_not_fond")
    problem = msgspec.json.decode(text)
    assert (status, problem["code"]) == (404, "route_not_found")
    assert "did you mean `topic_not_found`" in problem["detail"]


class Reader(HTMLParser):
    """What a page links to and loads, and whether its tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loads: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {found["id"] or ""} & {*found.values()} if "id" in found else set()
        if tag == "a":
            self.links.add(found["href"] or "")
        if tag in {"script", "link", "img", "iframe", "form", "object"} or {"src", "style", "onclick"} & {*found}:
            self.loads.append(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("path", ["/docs", "/problems", "/problems/commit_unknown"])
async def test_pages_load_nothing_and_allow_nothing(ask: Ask, path: str) -> None:
    """Offline, and under a policy that lets nothing run: the one style sheet stands in the page, and is known by its hash."""
    status, text, headers = await ask("GET", path, accept=BROWSER)
    reader = Reader()
    reader.feed(text)
    assert (status, reader.open, reader.loads) == (200, [], [])
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; ")
    assert "unsafe" not in policy
    assert {"http://", "https://"}.isdisjoint(re.findall(r'(?:href|src)="(https?://)', text))
    assert headers["x-content-type-options"] == "nosniff"


async def test_the_documentation_shows_every_operation_and_leads_somewhere(ask: Ask) -> None:
    text = (await ask("GET", "/docs"))[1]
    reader = Reader()
    reader.feed(text)
    described = msgspec.json.decode((await ask("GET", "/openapi.json"))[1])
    names = {one["operationId"] for item in described["paths"].values() for one in item.values()}
    shapes = {f"shape-{name}" for name in described["components"]["schemas"]}
    assert reader.ids == names | shapes
    inside = {link[1:] for link in reader.links if link.startswith("#")}
    assert inside <= reader.ids
    assert inside >= names
    assert {link for link in reader.links if not link.startswith("#")} == {"/docs", "/problems", "/openapi.json"}
    assert text.count("<pre>curl ") == len(names)
    assert len(gzip.compress(text.encode())) < 40_000
    assert """curl &quot;$N/v1/topics&quot; -d &#x27;{&quot;name&quot;: &quot;invoices&quot;}&#x27;""" in text


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
async def test_large_pages_travel_packed_to_those_who_take_it(ask: Ask, path: str) -> None:
    packed = await ask("GET", path, **{"accept-encoding": "gzip, br"})  # the client of this test unpacks
    plain = await ask("GET", path, **{"accept-encoding": "identity"})
    assert packed[:2] == plain[:2]
    assert packed[2]["content-encoding"] == "gzip"
    assert "content-encoding" not in plain[2]
    assert int(packed[2]["content-length"]) < 40_000 < int(plain[2]["content-length"])


def test_a_page_shows_what_it_is_given_as_text() -> None:
    assert docs_html.text("<b> `a` & ``b``") == "&lt;b&gt; <code>a</code> &amp; <code>b</code>"
    assert (
        "<script" not in docs_html.page("<script>", docs_html.table(["<script>"], [["x"]]), version="<script>").decode()
    )
    assert docs_html.table(["a"], []) == ""


async def test_internal_routes_are_for_members(ask: Ask) -> None:
    assert (await ask("GET", "/internal/snapshot"))[0] == 403
    assert (await ask("GET", "/internal/snapshot", **{"quorl-member": TOKEN}))[0] == 200


async def test_a_body_that_is_too_large_is_a_problem(ask: Ask) -> None:
    status, text, _ = await ask("POST", "/v1/topics", bytes(2000))
    assert (status, msgspec.json.decode(text)["code"]) == (413, "payload_too_large")


async def test_d13_a_body_that_never_comes_is_given_up(hosts: Hosts) -> None:
    skin = Skin(Echo(), cast("Health", Well()), hosts, TOKEN, 1000, "1.2.3", body_s_max=0.05)
    runner = web.ServerRunner(web.Server(skin.handle, access_log=None, auto_decompress=False))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    for length in (10, 5000):
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(f"POST /v1/topics HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{{".encode())
        answer = await reader.read(400)
        assert (b" 408 " if length == 10 else b" 413 ") in answer
        writer.close()
        await writer.wait_closed()
    await runner.cleanup()


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_a_packed_body_is_refused_before_it_is_read(ask: Ask, encoding: str) -> None:
    status, text, _ = await ask("POST", "/v1/topics", b"no gzip", **{"Content-Encoding": encoding})
    assert (status, msgspec.json.decode(text)["code"]) == (415, "unsupported_media_type")
