"""The documentation says what the code does: links lead somewhere, and nothing that a user meets is left out."""

from __future__ import annotations

import ast
import contextlib
import re
import tomllib
from functools import cache
from http.client import responses
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from quorl.client.cli import cli, common
from quorl.cluster.api.exits import Exit
from quorl.cluster.node import config
from quorl.cluster.protocol import limits, wire
from quorl.cluster.protocol.operations import OPERATIONS
from quorl.cluster.protocol.plans import PLANS
from quorl.cluster.protocol.problems import CATALOGUE, ProblemDocument
from quorl.cluster.protocol.routes import FOUNDING_PATHS
from scripts import derive_docs
from tests import pages

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEST = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+))?")
QUOTED = re.compile(r"`((?:cluster|client|consensus|machine|node|protocol|api|tests|scripts|benchmarks)/[\w/.]+\.py)`")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


def nobody(breaches: list[str]) -> None:
    assert not breaches, "\n" + "\n".join(breaches)


def anchors(page: Path) -> set[str]:
    """The places in a page that can be linked to, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- what the pages name exists ------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    breaches = []
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            breaches.append(f"{shown(page)}: there is no {name}")
        elif anchor and anchor not in anchors(target):
            breaches.append(f"{shown(page)}: {link} leads to no heading")
    nobody(breaches)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    body = page.read_text("utf-8")
    breaches = [
        f"{shown(page)}: there is no {name}"
        for name in QUOTED.findall(body)
        if not (ROOT / name).exists() and not (ROOT / "cluster" / name).exists()
    ]
    for name, test in TEST.findall(body):
        if not (ROOT / name).exists():
            breaches.append(f"{shown(page)}: there is no {name}")
        elif test and test not in functions(ROOT / name):
            breaches.append(f"{shown(page)}: there is no {name}::{test}")
    nobody(breaches)


@cache
def functions(path: Path) -> frozenset[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, kinds))


def test_every_guarantee_names_its_tests_and_the_numbers_run_on() -> None:
    promises, _, rest = text("docs/guarantees.md").partition("## What is not promised")
    parts = re.split(r"^\*\*G(\d+)\. ", promises, flags=re.MULTILINE)
    assert [int(number) for number in parts[1::2]] == list(range(1, len(parts) // 2 + 1))
    nobody(
        [
            f"G{number} names no test"
            for number, part in zip(parts[1::2], parts[2::2], strict=True)
            if not TEST.search(part)
        ]
    )
    assert len(rest) > 1000


def test_make_knows_the_targets_that_are_named() -> None:
    known = set(re.findall(r"^(\w+):", text("Makefile"), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"\bmake ([a-z]+)\b(?=[`\s]| SEED)", code_of(page))}
    assert {"demo", "test"} <= named
    assert named <= known


def code_of(page: Path) -> str:
    """What stands in code marks in a page, and in indented blocks."""
    body = page.read_text("utf-8")
    blocks = [block for _, block in FENCE.findall(body)] + re.findall(r"^ {4}\S.*$", body, re.MULTILINE)
    return "\n".join([*(f"{inline}`" for inline in re.findall(r"`([^`\n]+)`", FENCE.sub("", body))), *blocks])


# -- what exists is named ------------------------------------------------------------------------------------------
def test_derived_passages_are_what_the_code_says() -> None:
    stale = [
        shown(page)
        for page in derive_docs.pages()
        if derive_docs.derived(page.read_text("utf-8")) != page.read_text("utf-8")
    ]
    assert not stale, f"python scripts/derive_docs.py writes {', '.join(stale)} anew"
    found = {
        name for page in derive_docs.pages() for _, name, _ in derive_docs.PASSAGE.findall(page.read_text("utf-8"))
    }
    assert found == set(derive_docs.PASSAGES)


def test_a_stale_passage_is_noticed() -> None:
    page = text("docs/protocol.md")
    changed = page.replace("| `create_topic` |", "| `make_topic` |")
    assert derive_docs.derived(changed) == derive_docs.derived(page) != changed


def test_every_operation_problem_and_limit_is_documented() -> None:
    page = text("docs/protocol.md")
    names = [row.name for row in OPERATIONS] + [f"{row.method} {row.path}" for row in OPERATIONS]
    names += [*CATALOGUE, *FOUNDING_PATHS, *(name for name in vars(limits) if name.isupper())]
    nobody([f"docs/protocol.md says nothing of {name}" for name in names if name not in page])


def test_every_header_is_documented() -> None:
    """Those that the gateway and the wire form set or read."""
    names: set[str] = set()
    for path in (
        "cluster/node/gateway.py",
        "cluster/node/forwarding.py",
        "cluster/node/node.py",
        "cluster/protocol/wire.py",
        "cluster/api/members_only.py",
    ):
        names |= set(re.findall(r'"((?:quorl|idempotency|served|request|retry|cache)-[a-z-]+)"', text(path)))
    page = text("docs/protocol.md").lower()
    assert {"idempotency-key", "quorl-sequence", "quorl-hops"} <= names
    nobody([f"docs/protocol.md says nothing of the header {name}" for name in sorted(names) if f"`{name}`" not in page])


def test_every_config_key_and_section_is_documented() -> None:
    page = text("docs/operating.md")
    shapes: list[type[msgspec.Struct]] = [
        config.Node,
        config.Member,
        config.Cluster,
        config.Raft,
        config.Http,
        config.Auth,
        config.Log,
    ]
    keys = [field.encode_name for shape in shapes for field in msgspec.structs.fields(shape)]
    sections = [f"`[{field.encode_name}]`" for field in msgspec.structs.fields(config.Config)]
    nobody(
        [
            f"docs/operating.md says nothing of {key}"
            for key in [*sections, *(f"| `{key}` |" for key in keys)]
            if key not in page
        ]
    )


def test_every_command_and_exit_code_is_documented() -> None:
    page = text("docs/operating.md")
    commands = [" ".join(words) for words, _ in derive_docs.leaves(cli, ("quorl",))]
    nobody([f"docs/operating.md says nothing of {command}" for command in commands if f"`{command}" not in page])
    of_node, _, of_cli = page.partition("## Exit codes")[2].partition("Of `quorl`:")
    nobody([f"the node's exit code {code} is missing" for code in Exit if f"| {int(code)} |" not in of_node])
    nobody([f"exit code {code} is missing" for code in common.Exit if f"| {int(code)} |" not in of_cli])


def test_every_health_check_and_event_is_documented() -> None:
    page = text("docs/operating.md")
    names = set(re.findall(r'Check\("(\w+)"', text("cluster/api/health.py")))
    for path in (ROOT / "cluster").rglob("*.py"):
        said = re.findall(r"log\.(?:debug|info|warning|error|critical|exception)\(\s*([^,)]+)", path.read_text("utf-8"))
        free = [one for one in said if not re.fullmatch(r'"[a-z_]+"', one)]
        assert not free, f"{shown(path)}: events have stable names, what varies stands in fields: {free}"
        names |= {one.strip('"') for one in said}
    assert {"leader", "node_started", "snapshot_failed", "peer_lost"} <= names
    nobody([f"docs/operating.md says nothing of {name}" for name in sorted(names) if f"`{name}`" not in page])


def test_every_page_of_decisions_is_listed() -> None:
    pages = {page.name for page in (ROOT / "docs/adr").glob("0*.md")}
    assert pages == set(re.findall(r"\((0\d+[\w-]+\.md)\)", text("docs/adr/README.md")))
    assert len(pages) <= 20


# -- what is quoted is so ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("page", "quote"),
    [
        ("docs/guarantees.md", f"**{limits.RECEIPT_AGE_MS_MAX // 3_600_000} hours** of cluster time"),
        ("docs/guarantees.md", f"latest **{derive_docs.number(limits.RECEIPTS_MAX)}** writes"),
        ("docs/guarantees.md", f"at most {derive_docs.number(limits.MESSAGE_VALUE_BYTES_MAX)} bytes"),
        ("docs/guarantees.md", f"a request {derive_docs.number(limits.REQUEST_BYTES_MAX)} bytes"),
        ("docs/guarantees.md", f"{derive_docs.number(limits.APPEND_MESSAGES_MAX)} messages, a topic's name {limits.TOPIC_NAME_CHARS_MAX}"),
        ("docs/guarantees.md", f"a topic {limits.PARTITIONS_MAX} partitions"),
        ("docs/guarantees.md", f"at most {derive_docs.number(limits.COMMANDS_PENDING_MAX)} commands and 64 MiB wait"),
        ("docs/guarantees.md", f"frames of {derive_docs.number(limits.HANDSHAKE_BYTES_MAX)} bytes"),
        ("docs/guarantees.md", f"less than {limits.DISK_SPARE_BYTES // 2**20} MiB are free"),
        ("docs/protocol.md", f"{limits.RECEIPT_AGE_MS_MAX // 3_600_000} hours of cluster time and for the latest {derive_docs.number(limits.RECEIPTS_MAX)} writes"),
        ("docs/guarantees.md", f"holds back at most {limits.LOG_BYTES_KEPT_MAX // 2**20} MiB"),
        ("docs/operating.md", f"hold back up to {limits.LOG_BYTES_KEPT_MAX // 2**20} MiB"),
        ("docs/protocol.md", f"1 to {limits.IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters"),
        ("docs/protocol.md", f"(at most {limits.WAIT_S_MAX:g}, and"),
        ("docs/protocol.md", f"at most {derive_docs.number(limits.LONG_POLLS_MAX)}\nsuch calls"),
        ("docs/protocol.md", f"at most\n{limits.JSON_NESTING_MAX} deep"),
        ("docs/adr/0005-one-entry-in-flight.md", f"up to {derive_docs.number(limits.ENTRY_COMMANDS_MAX)} commands"),
        ("docs/adr/0008-receipts.md", f"{derive_docs.number(limits.RECEIPTS_MAX)} in number"),
        ("README.md", f"{limits.MESSAGE_VALUE_BYTES_MAX // 1024} KiB, a request {limits.REQUEST_BYTES_MAX // 2**20} MiB"),
    ],
)  # fmt: skip
def test_limits_are_quoted_as_they_are(page: str, quote: str) -> None:
    assert quote in text(page), "quote the limit as it is now"


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_python_in_the_pages_compiles_and_imports_what_exists(page: Path) -> None:
    import quorl.client as library

    for kind, block in FENCE.findall(page.read_text("utf-8")):
        if kind == "python":
            tree = compile(block, str(page), "exec", ast.PyCF_ONLY_AST)
            imported = [
                node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "quorl.client"
            ]
            assert {alias.name for node in imported for alias in node.names} <= set(library.__all__)


def is_good_config(block: str, tmp_path: Path) -> None:
    """It is the config of every node that it names, each with a ``[node]`` of its own."""
    values: dict[str, Any] = tomllib.loads(block)
    (tmp_path / values["cluster"]["secret_file"]).write_text("a secret", encoding="utf-8")
    path = tmp_path / "node.toml"
    path.write_text(block, encoding="utf-8")
    for member in values["cluster"]["members"]:
        environ = {f"QUORL_NODE__{key.upper()}": member[key] for key in ("name", "http", "raft")}
        assert config.load(path, environ).me.name == member["name"]


def is_good_http(block: str) -> None:
    """A call is one that a node takes; an answer is one that a node gives."""
    head, _, body = block.partition("\n\n")
    first, *lines = head.splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if first.startswith("HTTP/1.1 "):
        assert responses[int(first.split()[1])] == first.split(maxsplit=2)[2]
        is_good_json(body)
        return
    method, target, _ = first.split()
    path, _, query = target.partition("?")
    wire.decode(wire.Call(method, path, query, headers, body.strip().encode()))


def is_good_json(block: str) -> None:
    """The body of some call, or of some answer, to the last field."""
    shapes = (
        [PLANS[row.request].body.type for row in OPERATIONS] + [row.reply for row in OPERATIONS] + [ProblemDocument]
    )
    for shape in shapes:
        with contextlib.suppress(msgspec.ValidationError):
            found = msgspec.json.decode(block, type=shape)
            if set(msgspec.json.decode(block)) <= {field.encode_name for field in msgspec.structs.fields(found)}:
                return
    raise AssertionError(f"no call or answer looks like {block}")


UNITS = "deploy/systemd/quorl.service"


@pytest.mark.parametrize("page", pages.PAGES, ids=shown)
def test_every_example_is_run_or_checked_or_says_why_not(page: Path, tmp_path: Path) -> None:
    """``sh`` and ``python`` are run by tests/integration/test_docs_examples.py."""
    for one in pages.examples(page):
        if one.kind in {"sh", "python"} or one.reason:
            continue
        match one.kind:
            case "toml":
                is_good_config(one.text, tmp_path)
            case "http":
                is_good_http(one.text)
            case "json":
                is_good_json(one.text)
            case "ini":
                assert one.text == text(UNITS), f"{one}: not what {UNITS} is"
            case _:
                raise AssertionError(f"{one}: nothing checks a block of the kind {one.kind!r}, and it does not say why")


def test_a_wrong_example_is_noticed() -> None:
    for wrong in ("POST /v1/topicz HTTP/1.1\n", "HTTP/1.1 201 OK\n\n{}", 'HTTP/1.1 200 OK\n\n{"no": 1}'):
        with pytest.raises((AssertionError, wire.ProtocolError)):
            is_good_http(wrong)


def test_every_command_in_the_pages_exists() -> None:
    breaches = []
    for page in [page for page in PAGES if page.name != "protocol.md"]:  # which quotes bytes that begin with our name
        breaches += [f"{shown(page)}: there is no command quorl{said}" for said in unknown_commands(code_of(page))]
    nobody(sorted(set(breaches)))


def test_every_command_that_programs_and_the_dashboard_tell_of_exists() -> None:
    breaches = []
    telling = (
        "client/**/*.py",
        "cluster/api/*.py",
        "cluster/dashboard/*/*.js",
        "cluster/machine/*.py",
        "cluster/protocol/*.py",
    )
    for path in [path for pattern in telling for path in ROOT.glob(pattern)]:
        code = path.read_text(encoding="utf-8").replace(
            '", "', " "
        )  # of several words: shell("quorl", "topic", "tail")
        breaches += [
            f"{shown(path)}: there is no command quorl{said}" for said in unknown_commands(code, only_of_groups=True)
        ]
    nobody(sorted(set(breaches)))
    assert unknown_commands('shell("quorl worker terminate", id)', only_of_groups=True) == [" worker terminate"]


def unknown_commands(code: str, *, only_of_groups: bool = False) -> list[str]:
    """Return what follows our name and is none of its commands. ``only_of_groups``: prose is no command's name."""
    unknown = []
    for said in re.findall(r"\bquorl((?: [a-z]+){1,2})(?![\w:=.])", code):
        command: click.Command = cli
        for word in said.split():
            if not isinstance(command, click.Group):
                break  # what follows are its arguments
            if word not in command.commands:
                unknown += [said] * (said != " import" and not (only_of_groups and command is cli))  # of Python
                break
            command = command.commands[word]
    return unknown


def test_the_figures_of_the_table_were_measured() -> None:
    """They stand in the first table of the report for each workload, in the same order: quorl, NATS, RabbitMQ."""
    measured = text("benchmarks/RESULTS.md")
    for row, workload in (("one caller that waits", "append-sync"), ("the same, 64 callers", "append-64")):
        (line,) = re.findall(rf"^\| {row}.*$", text("README.md"), re.MULTILINE)
        cells = [re.match(r"[ *]*(\d[\d ]*\d)\b", cell) for cell in line.split("|")[2:]]
        shown_here = [cell[1].replace(" ", ",") for cell in cells if cell is not None]
        table = measured.partition(f"#### {workload}\n")[2].partition("\n####")[0]
        names = ("quorl", "nats", "rabbit")
        reports = [re.findall(rf"^\| {name} \| {workload} \| ([\d,]+) \[", table, re.MULTILINE) for name in names]
        assert [[figure] for figure in shown_here] == reports


def test_the_readme_is_short() -> None:
    assert len(text("README.md").splitlines()) <= 125
