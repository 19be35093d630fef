"""What the package promises: its names, its errors, its weight."""

from __future__ import annotations

import copy
import errno
import pickle
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from http.client import BadStatusLine, RemoteDisconnected
from typing import Any, get_type_hints

import pytest

import quorl
import quorl.client
from quorl.client import aio_transport, sync_transport
from quorl.client import errors as e
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.operations import OPERATIONS
from quorl.cluster.protocol.problems import CATALOGUE, CommandFailed, IdempotencyKeyReused, ProblemDocument


def test_exported_names_are_exactly_these() -> None:
    assert quorl.client.__all__ == sorted(quorl.client.__all__, key=lambda name: (not name.isupper(), name))
    assert set(quorl.client.__all__) == set(quorl.client._HOME)
    for name in quorl.client.__all__:
        assert getattr(quorl.client, name).__doc__, f"{name} has no docstring"
    assert set(quorl.client.__all__) <= set(dir(quorl.client))


def test_the_names_of_the_package_are_listed_before_they_are_loaded() -> None:
    """An interactive prompt completes by ``dir``."""
    code = "import sys, quorl; print(*dir(quorl)); print('quorl.client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=_env())
    names, loaded = done.stdout.splitlines()
    assert {"App", "Client", "AsyncClient", *quorl.__all__} <= set(names.split())
    assert loaded == "False"
    assert set(quorl.__all__) - {"__version__"} <= set(quorl.client.__all__)
    assert all(getattr(quorl, name) is getattr(quorl.client, name) for name in quorl.__all__ if name != "__version__")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        _ = quorl.client.Klient


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import quorl.client", ["aiohttp", "urllib3", "pysyncobj", "msgspec", "asyncio"]),
        ("import quorl.client.cli", ["aiohttp", "urllib3", "pysyncobj", "msgspec", "asyncio", "rich"]),
        ("from quorl.client import Client", ["aiohttp", "pysyncobj", "asyncio"]),
        ("from quorl.client import AsyncClient", ["aiohttp.web", "urllib3", "pysyncobj"]),
    ],
)
def test_importing_stays_light(statement: str, absent: list[str]) -> None:
    code = f"{statement}; import sys; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=_env())
    assert done.stdout.strip() == "[]"


def _env() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}


def test_every_refusal_of_the_table_has_its_error() -> None:
    refusals = {rejection for row in OPERATIONS for rejection in row.rejections} | {IdempotencyKeyReused, CommandFailed}
    codes = {str(rejection.__struct_config__.tag): rejection.__name__ for rejection in refusals}
    assert {code: kind.__name__ for code, kind in e.Rejected._by_code.items()} == codes
    for name in codes.values():
        assert getattr(quorl.client, name) is getattr(e, name)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert e.__doc__ is not None
    drawn: dict[int, str] = {}
    found = {}
    for line in e.__doc__.splitlines():
        match = re.match(r"^([ │├└─]*)([A-Z]\w+)(\s|$)", line)
        if match and (name := match[2]) in vars(e):
            depth = len(match[1]) // 4
            drawn[depth] = name
            found[name] = drawn.get(depth - 1)
    classes = {
        name: kind for name, kind in vars(e).items() if isinstance(kind, type) and issubclass(kind, e.QuorlError)
    }
    wanted = {name: None if kind is e.QuorlError else kind.__bases__[0].__name__ for name, kind in classes.items()}
    assert found == wanted


DOCUMENT = ProblemDocument(code="topic_not_found", status=404, title="T", detail="no x", hint="make it", request_id="r")
ERRORS = [
    e.rejected(DOCUMENT),
    e.invalid("bad", "do better", "/name"),
    e.Unavailable("nobody", (e.Try("http://a", "refused"),), "no_leader", "r", 1.0),
    e.OutcomeUnknown("lost", "k", t.CreateTopic(name="x"), (e.Try("http://a", "reset"),), "r"),
    e.TaskFailed("t-1", "ValueError", "bad", "Traceback …", 3, "ERROR"),
    e.TaskCancelled("t-1", "cancelled", 0, "PURGED"),
    e.NotFinished("t-1", "QUEUED", 5.0),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_and_copying(error: e.QuorlError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
    assert error.code
    assert error.hint
    assert error.detail in str(error)
    assert error.hint in str(error)


def test_hands_have_the_same_methods() -> None:
    for one, other in (("Client", "AsyncClient"), ("Topic", "AsyncTopic"), ("Topics", "AsyncTopics")):
        sync, aio = getattr(quorl.client, one), getattr(quorl.client, other)
        public = [{name for name in vars(kind) if not name.startswith("_")} for kind in (sync, aio)]
        assert public[0] == public[1], one


def test_every_operation_answers_with_its_own_type() -> None:
    hints = get_type_hints(quorl.client.Client.call)
    assert str(hints["return"]) == "~R"


def test_the_synchronous_topics_are_derived_from_the_asynchronous() -> None:
    script = [sys.executable, "scripts/derive_client.py", "--check"]
    done = subprocess.run(script, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout


def test_an_app_that_says_where_its_cluster_is_does_not_ask_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUORL_SERVER", "http//nowhere")
    with quorl.App("127.0.0.1:7109") as app:
        assert app.client.servers == ("http://127.0.0.1:7109",)
    with pytest.raises(ValueError, match="QUORL_SERVER in the environment"):
        quorl.Client()


def test_what_to_do_is_said_in_python() -> None:
    """The cluster's hints speak HTTP; a program reads of methods, which exist."""
    of_http = {code for code, kind in CATALOGUE.items() if re.search(r"POST|PUT|PATCH|GET /v1/|_ms\b", kind.hint)}
    assert of_http <= set(e.IN_PYTHON)
    with quorl.client.Client("127.0.0.1:1") as client:
        for hint in e.IN_PYTHON.values():
            for calls in re.findall(r"\bclient((?:\.\w+(?:\([A-Z]+\))?)+)", hint):
                found: Any = client
                for name, argument in re.findall(r"\.(\w+)(\([A-Z]+\)(?=\.))?", calls):
                    found = getattr(found, name)
                    found = found("a") if argument else found


@pytest.mark.parametrize("explain", [aio_transport.explain, sync_transport.explain])
def test_a_host_that_nobody_knows_is_told_in_words(explain: Callable[[BaseException], str]) -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert explain(unknown) == "its name cannot be resolved (name or service not known)"


@pytest.mark.parametrize("explain", [aio_transport.explain, sync_transport.explain])
def test_a_failure_of_tls_is_not_told_by_a_number_of_the_system(explain: Callable[[BaseException], str]) -> None:
    theirs, ours = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        ssl.create_default_context().wrap_bio(theirs, ours, server_hostname="localhost").do_handshake()
    assert explain(caught.value).startswith("TLS failed (wrong version number); nodes speak plain HTTP")


@pytest.mark.parametrize("wrap", [lambda error: RuntimeError("Connection aborted.", error), RuntimeError])
def test_an_error_that_others_have_wrapped_is_told_in_its_own_words(wrap: Callable[[Exception], Exception]) -> None:
    reset = ConnectionResetError(errno.ECONNRESET, "x")
    assert sync_transport.explain(wrap(wrap(reset))) == "connection reset by peer"
    closed = RemoteDisconnected("Remote end closed connection without response")
    assert sync_transport.explain(wrap(closed)) == "Remote end closed connection without response"
    assert sync_transport.explain(wrap(BadStatusLine("SSH-2.0"))).startswith("what answers there does not speak HTTP")


def test_errors_that_come_from_each_other_are_walked_once() -> None:
    first, second = RuntimeError("first"), RuntimeError()
    first.__cause__, second.args = second, (first,)
    assert sync_transport.explain(second) == "first"
