"""The config: defaults, the environment over the file, and every mistake at its line with a way out."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quorl.cluster.node import config as module
from quorl.cluster.node import configfile
from quorl.cluster.node.config import Address, Config, ConfigError, Tasks, cautions, load, read_secret

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "configs").glob("*.toml"))

GOOD = """\
[node]
name = "n1"
http = "127.0.0.1:7101"
raft = "127.0.0.1:7201"

[cluster]
name = "test"
[[cluster.members]]
name = "n1"
http = "127.0.0.1:7101"
raft = "127.0.0.1:7201"
[[cluster.members]]
name = "n2"
http = "127.0.0.1:7102"
raft = "127.0.0.1:7202"
"""


def write(folder: Path, text: str = GOOD) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    return path


def mistakes(folder: Path, text: str = GOOD, **environ: str) -> list[str]:
    """What ``load`` complains about, with the file's name instead of its path."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    lines = str(caught.value).replace(str(path), "node.toml").splitlines()
    count = len(caught.value.mistakes)
    assert lines[-1] == f"{count} problem{'s' if count > 1 else ''}. Nothing was started."
    return lines[:-1]


# -- what is good --------------------------------------------------------------------------------------------------
def test_d1_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path), {})
    assert config.node.data_dir == tmp_path.parent / "data" / "n1"
    assert config.raft == module.Raft(election_timeout_ms=(500, 1000), heartbeat_ms=100, snapshot_every=50_000)
    assert config.auth.mode == "none"
    assert (config.log.format, config.log.level) == ("auto", "info")
    assert (config.me.name, config.me.http.port, config.me.raft.host) == ("n1", 7101, "127.0.0.1")
    assert list(config.members) == ["n1", "n2"]
    assert list(config.peers) == ["n2"]
    assert read_secret(config) is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_d1_the_shipped_configs_run_as_they_are(path: Path) -> None:
    config = load(path, {})
    number = int(path.stem.removeprefix("node"))
    assert (config.node.name, config.node.http, config.node.raft) == (
        f"n{number}",
        f"127.0.0.1:{7100 + number}",
        f"127.0.0.1:{7200 + number}",
    )
    assert config.node.data_dir == ROOT / "data" / config.node.name
    assert (config.me.http, config.me.raft) == (config.node.http, config.node.raft)
    assert cautions(config) == []


def test_the_shipped_configs_differ_only_in_the_node() -> None:
    contents = [tomllib.loads(path.read_text()) for path in SHIPPED]
    assert len(contents) == 3
    for content in contents:
        content.pop("node")
        assert content == contents[0]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_configs_show_every_key_with_its_default(path: Path) -> None:
    """With the comment signs taken from its keys, a file sets every key, each to what it is anyway."""
    shown = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", path.read_text(), flags=re.MULTILINE))
    for section, table in msgspec.structs.asdict(load(path, {})).items():
        given = shown[section]
        assert set(given) == set(table.__struct_fields__), section
        if section not in {"node", "cluster"}:
            assert msgspec.convert(given, type(table)) == table
    assert shown["node"]["data_dir"] == f"../data/{shown['node']['name']}"


def test_every_key_is_documented() -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    sections = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert {"Node", "Member", "Cluster", "Raft", "Http", "Auth", "Log", "Config"} <= {node.name for node in sections}
    for section in sections:
        for statement, following in zip(section.body, [*section.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign):
                assert isinstance(following, ast.Expr), f"{section.name}.{ast.unparse(statement.target)}"
                assert isinstance(following.value, ast.Constant)


def test_the_environment_lies_over_the_file(tmp_path: Path) -> None:
    environ = {
        "QUORL_NODE__NAME": "n2",
        "QUORL_NODE__HTTP": "127.0.0.1:7102",
        "QUORL_NODE__RAFT": "127.0.0.1:7202",
        "QUORL_RAFT__SNAPSHOT_EVERY": "1000",
        "QUORL_RAFT__ELECTION_TIMEOUT_MS": "[300, 900]",
        "QUORL_HTTP__MAX_WAIT_S": "2.5",
        "QUORL_TASKS__WORKER_HEARTBEAT_S": "0.5",
        "QUORL_TASKS__WORKER_DEAD_AFTER_S": "1",
        "QUORL_TASKS__DEFAULT_ATTEMPTS": "7",
        "QUORL_LOG__FORMAT": "json",
        "QUORL_NODE__DATA_DIR": "state",
        "QUORL_SERVER": "http://elsewhere:1",  # the client's: not a key of this file
        "HOME": "/nowhere",
    }
    config = load(write(tmp_path), environ)
    assert (config.node.name, config.me.http) == ("n2", "127.0.0.1:7102")
    assert (config.raft.snapshot_every, config.raft.election_timeout_ms) == (1000, (300, 900))
    assert (config.http.max_wait_s, config.log.format) == (2.5, "json")
    assert config.tasks == Tasks(worker_heartbeat_s=0.5, worker_dead_after_s=1, default_attempts=7)
    assert config.node.data_dir == tmp_path / "state"


def test_members_can_come_from_the_environment(tmp_path: Path) -> None:
    members = '[{"name": "n1", "http": "127.0.0.1:1", "raft": "127.0.0.1:2"}]'
    config = load(write(tmp_path), {"QUORL_CLUSTER__MEMBERS": members})
    assert config.me.raft == "127.0.0.1:2"
    assert config.peers == {}


def test_a_section_can_come_from_the_environment_alone(tmp_path: Path) -> None:
    assert load(write(tmp_path), {"QUORL_AUTH__MODE": "insecure"}).auth.mode == "insecure"


def test_one_config_serves_every_name(tmp_path: Path) -> None:
    hosts = [(name, f"{name}:7101", f"{name}:7201") for name in ("n1", "n2")]
    environ = {"QUORL_CLUSTER__MEMBERS": members(*hosts), **OPEN_HTTP, **OPEN_RAFT, "QUORL_AUTH__MODE": "insecure"}
    path = write(tmp_path)
    assert [load(path, {"QUORL_NODE__NAME": name, **environ}).me.name for name in ("n1", "n2")] == ["n1", "n2"]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7101", "127.0.0.1", 7101),
        ("localhost:1", "localhost", 1),
        ("n1.example.org:65535", "n1.example.org", 65_535),
        ("[::1]:7101", "::1", 7101),
        ("[fe80::1%eth0]:7101", "fe80::1%eth0", 7101),
    ],
)
def test_an_address_knows_its_parts(text: str, host: str, port: int) -> None:
    address = Address(text)
    assert (address, address.host, address.port) == (text, host, port)


@pytest.mark.parametrize(
    "text",
    ["", "n1", ":7101", "n1:", "n1:0", "n1:65536", "::1:7101", "[::1]", "a b:1", "http://n1:7101", "n1:7101/", "n1:-1"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Address(text)


# -- what is wrong -------------------------------------------------------------------------------------------------
def test_every_mistake_is_reported_at_once_at_its_line(tmp_path: Path) -> None:
    text = (
        GOOD.replace("raft = ", "rafft = ", 1).replace('http = "127.0.0.1:7101"', 'http = "0.0.0.0:7101"', 1)
        + '\n[raft]\nsnapshot_every = "soon"\ndurability = "fsink"\n[htp]\nx = 1\n'
    )
    assert mistakes(tmp_path, text, QUORL_LOG__LEVL="debug") == [
        "environment QUORL_LOG__LEVL: no such key; did you mean `QUORL_LOG__LEVEL`?",
        'node.toml:3: [auth] mode = "none" but http listens on 0.0.0.0 → anyone on the network could read and write everything.',
        '    Set http = "127.0.0.1:7101", or [auth] mode = "insecure" on a network that you trust.',
        "node.toml:4: unknown key `rafft` in [node]; did you mean `raft`?",
        'node.toml:18: raft.snapshot_every: expected an integer from 10 to 100000000, got "soon"',
        'node.toml:19: raft.durability: expected "fsync", got "fsink"; did you mean `fsync`?',
        "node.toml:20: unknown key `htp` in this file; did you mean `http`?",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("RAFT__SNAPSHOT_EVERY", "true", "raft.snapshot_every: expected an integer from 10 to 100000000, got true"),
        ("RAFT__SNAPSHOT_EVERY", "9", "raft.snapshot_every: expected an integer from 10 to 100000000, got 9"),
        ("RAFT__ELECTION_TIMEOUT_MS", "500", "expected two integers from 10 to 60000, the smaller first, got 500"),
        ("RAFT__ELECTION_TIMEOUT_MS", "[1000, 500]", "raft.election_timeout_ms: [1000, 500] is no range"),
        ("RAFT__ELECTION_TIMEOUT_MS", "[500, 500]", "raft.election_timeout_ms: [500, 500] is no range"),
        ("RAFT__HEARTBEAT_MS", "400", "raft.election_timeout_ms: 500 is less than 3 times heartbeat_ms = 400"),
        ("RAFT__DURABILITY", "os", 'raft.durability: expected "fsync", got "os"'),
        ("HTTP__MAX_WAIT_S", "1e999", "http.max_wait_s: expected a number from 0 to 60, got Infinity"),
        ("HTTP__MAX_WAIT_S", "NaN", "http.max_wait_s: expected a number from 0 to 60, got NaN"),
        ("HTTP__MAX_PAYLOAD_BYTES", "1" * 40, "http.max_payload_bytes: expected an integer from 1024 to 1048576"),
        ("TASKS__WORKER_HEARTBEAT_S", "0", "tasks.worker_heartbeat_s: expected a number from 0.1 to 3600, got 0"),
        ("TASKS__WORKER_HEARTBEAT_S", "8", "15 is less than 2 times worker_heartbeat_s = 8"),
        ("TASKS__WORKER_DEAD_AFTER_S", "9", "tasks.worker_dead_after_s: 9 is less than 2 times worker_heartbeat_s = 5"),
        ("TASKS__WORKER_DEAD_AFTER_S", "1h", 'tasks.worker_dead_after_s: expected a number from 0.1 to 3600, got "1h"'),
        ("TASKS__DEFAULT_ATTEMPTS", "101", "tasks.default_attempts: expected an integer from 1 to 100, got 101"),
        ("AUTH__MODE", "insecur", 'expected "none" or "insecure", got "insecur"; did you mean `insecure`?'),
        ("NODE__NAME", "n 1", 'node.name: expected 1 to 63 letters, digits, `.`, `_` and `-`, got "n 1"'),
        ("NODE__NAME", "n11", 'node.name: "n11" is not one of [[cluster.members]]: n1, n2; did you mean `n1`?'),
        ("NODE__HTTP", "7101", 'node.http: expected host:port, got "7101"; for example "127.0.0.1:7101"'),
        ("NODE__HTTP", "[::1]:70000", "node.http: expected a port from 1 to 65535"),
        ("NODE__RAFT", "127.0.0.1:7101", 'node.raft: "127.0.0.1:7101" is also node.http; each needs its own'),
        ("NODE__DATA_DIR", "node.toml", "is not a directory"),
        ("NODE__DATA_DIR", "", 'node.data_dir: expected text, got ""'),
        ("CLUSTER__MEMBERS", "[]", "cluster.members: expected a list of length >= 1, got []"),
        ("CLUSTER__MEMBERS", "[1]", "cluster.members.0: expected a table, got 1"),
        ("CLUSTER__MEMBERS", "n1", 'cluster.members: expected a list, got "n1"'),
        ("CLUSTER__SECRET_FILE", "missing", "missing does not exist"),
        ("CLUSTER__SECRET_FILE", ".", "is a directory"),
        ("RAFF__X", "1", "no such key"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    tmp_path: Path, variable: str, value: str, complaint: str
) -> None:
    first, *rest = mistakes(tmp_path, **{f"QUORL_{variable}": value})
    assert first.startswith((f"environment QUORL_{variable}: ", "environment QUORL_NODE__", "node.toml"))
    assert complaint.lower() in "\n".join([first, *rest]).lower()


def members(*rows: tuple[str, str, str]) -> str:
    return str([{"name": name, "http": http, "raft": raft} for name, http, raft in rows]).replace("'", '"')


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([("n1", "a:1", "a:2"), ("n1", "b:1", "b:2")], '"n1" is already the name of n1'),
        ([("n1", "a:1", "a:2"), ("n2", "a:1", "b:2")], '"a:1" is already the http of n1'),
        ([("n1", "a:1", "a:1")], '"a:1" is already the http of n1'),
        ([("n1", "a:1", "a:2"), ("n2", "b:1", "a:2")], '"a:2" is already the raft of n1'),
        ([("n1", "0.0.0.0:1", "a:2")], '"0.0.0.0:1" is no address that other nodes can dial'),
        ([("n1", "a:1", "[::]:2")], '"[::]:2" is no address that other nodes can dial'),
        ([(f"n{number}", f"a:{number}", f"b:{number}") for number in range(1, 17)], "expected at most 15, got 16"),
    ],
)
def test_members_are_told_apart_and_can_be_reached(
    tmp_path: Path, rows: list[tuple[str, str, str]], complaint: str
) -> None:
    (said,) = mistakes(tmp_path, QUORL_CLUSTER__MEMBERS=members(*rows))
    assert said.startswith("environment QUORL_CLUSTER__MEMBERS: cluster.members")
    assert complaint in said


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        (
            {"RAFT": "0.0.0.0:7101"},
            'node.raft: "0.0.0.0:7101" is also node.http ("127.0.0.1:7101"); each needs its own',
        ),
        ({"RAFT": "localhost:7101"}, 'node.raft: "localhost:7101" is also node.http'),
        ({"RAFT": "127.0.0.1:7202"}, 'node.raft: "127.0.0.1:7202" is the raft of n2 in [[cluster.members]]; n1 is at'),
        ({"RAFT": "localhost:7102"}, 'node.raft: "localhost:7102" is the http of n2 in [[cluster.members]]; n1 is at'),
        ({"RAFT": "[::]:7202"}, 'node.raft: "[::]:7202" is the raft of n2 in [[cluster.members]]; n1 is at'),
        ({"HTTP": "127.0.0.1:7102"}, 'node.http: "127.0.0.1:7102" is the http of n2 in [[cluster.members]]; n1 is at'),
        (
            {"NAME": "n2", "RAFT": "127.0.0.1:7202"},
            '"127.0.0.1:7101" is the http of n1 in [[cluster.members]]; n2 is at',
        ),
        (
            {"HTTP": "127.0.0.1:7109", "RAFT": "127.0.0.1:7101"},
            'node.raft: "127.0.0.1:7101" is the http of n1 in [[cluster.members]]; n1 is at "127.0.0.1:7201"',
        ),
    ],
)
def test_a_node_listens_where_nobody_else_of_its_cluster_does(
    tmp_path: Path, environ: dict[str, str], complaint: str
) -> None:
    given = {f"QUORL_NODE__{key}": value for key, value in environ.items()}
    first, *rest = mistakes(tmp_path, **given, QUORL_AUTH__MODE="insecure")
    assert complaint in first
    assert len(rest) <= 1, rest  # what to do


def test_http_and_raft_that_were_exchanged_are_both_named(tmp_path: Path) -> None:
    said = mistakes(tmp_path, QUORL_NODE__HTTP="127.0.0.1:7201", QUORL_NODE__RAFT="127.0.0.1:7101")
    assert [line.partition(" in [[")[0].partition(": ")[2] for line in said[::2]] == [
        'node.http: "127.0.0.1:7201" is the raft of n1',
        'node.raft: "127.0.0.1:7101" is the http of n1',
    ]


def test_members_under_two_names_of_one_host_are_the_same(tmp_path: Path) -> None:
    rows = [("n1", "127.0.0.1:7101", "127.0.0.1:7201"), ("n2", "127.0.0.1:7102", "localhost:7201")]
    (said,) = mistakes(tmp_path, QUORL_CLUSTER__MEMBERS=members(*rows))
    assert '"localhost:7201" is already the raft of n1' in said


def test_the_same_port_on_other_machines_is_their_own(tmp_path: Path) -> None:
    rows = [(name, f"{name}.example:7101", f"{name}.example:7201") for name in ("n1", "n2", "n3")]
    environ = {"QUORL_CLUSTER__MEMBERS": members(*rows), **OPEN_HTTP, **OPEN_RAFT, "QUORL_AUTH__MODE": "insecure"}
    assert not [said for said in cautions(load(write(tmp_path), environ)) if "forwards" in said]


def test_a_port_at_which_nobody_looks_for_the_node_is_warned_about(tmp_path: Path) -> None:
    (said, _) = cautions(load(write(tmp_path), {"QUORL_NODE__RAFT": "127.0.0.1:7299"}))
    assert said.startswith(
        "others look for n1 at 127.0.0.1:7201, and node.raft listens at 127.0.0.1:7299: they reach it only"
    )


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert mistakes(tmp_path, '[node]\nname = "n1"\n') == [
        "node.toml: no [cluster] table",
        "node.toml:1: no `http` in [node]",
        "node.toml:1: no `raft` in [node]",
    ]


def test_a_section_that_is_no_table(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "raft = 5\n" + GOOD, QUORL_RAFT__HEARTBEAT_MS="50") == [
        "node.toml:1: raft: expected a table, got 5"
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[node\n", "node.toml:1: not TOML: Expected ']' at the end of a table declaration"),
        (b"[node]\na = 1\na = 2\n", "node.toml:3: not TOML: Cannot overwrite a value"),
        (
            b"[node]\nhttp = 127.0.0.1:7101\n",
            'node.toml:2: not TOML: Expected newline or end of document after a statement; text stands in quotes: name = "n1"',
        ),
        (b"[node]\nname = n1\n", 'node.toml:2: not TOML: Invalid value; text stands in quotes: name = "n1"'),
        (b"[node]\nname = ", "node.toml:2: not TOML: Invalid value"),
        (b"\xff\xfe", "node.toml: not UTF-8 text"),
    ],
)
def test_what_is_not_toml_is_pointed_at(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value).startswith(f"{tmp_path}/{complaint}")


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing.toml: no such file or directory"):
        load(tmp_path / "nothing.toml", {})
    with pytest.raises(ConfigError, match="is a directory"):
        load(tmp_path, {})


# -- doors ---------------------------------------------------------------------------------------------------------
OPEN_HTTP = {"QUORL_NODE__HTTP": "0.0.0.0:7101"}
OPEN_RAFT = {"QUORL_NODE__RAFT": "[::]:7201"}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.secret"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o600)
    return path


def test_d14_off_loopback_without_a_lock_nothing_starts(tmp_path: Path, secret: Path) -> None:
    with_secret = {"QUORL_CLUSTER__SECRET_FILE": secret.name}
    (http, _) = mistakes(tmp_path, **OPEN_HTTP)
    assert "http listens on 0.0.0.0 → anyone on the network could read and write everything" in http
    (raft, _) = mistakes(tmp_path, **OPEN_RAFT)
    assert "raft listens on :: → anyone on the network could speak as a member" in raft
    # The secret is between members: it locks their door and leaves the clients' as it is.
    assert "http listens on" in mistakes(tmp_path, **OPEN_HTTP, **with_secret)[0]
    assert cautions(load(write(tmp_path), {**OPEN_RAFT, **with_secret}))[:-1] == []
    # An unreadable word is no permission, and is the one thing to mend.
    assert len(mistakes(tmp_path, **OPEN_HTTP, QUORL_AUTH__MODE="insecur")) == 1


def test_d14_the_word_insecure_opens_the_doors_with_a_warning(tmp_path: Path) -> None:
    config = load(write(tmp_path), {**OPEN_HTTP, **OPEN_RAFT, "QUORL_AUTH__MODE": "insecure"})
    assert [caution.partition(" can")[0] for caution in cautions(config)[:2]] == [
        "anyone who reaches 0.0.0.0:7101",
        "anyone who reaches [::]:7201",
    ]


@pytest.mark.parametrize("address", ["localhost:7101", "127.8.9.1:7101", "[::1]:7101"])
def test_d14_loopback_needs_no_lock(tmp_path: Path, address: str) -> None:
    assert load(write(tmp_path), {"QUORL_NODE__HTTP": address}).node.http == address


def test_the_secret_is_read_from_its_file_and_nowhere_shown(tmp_path: Path, secret: Path) -> None:
    config = load(write(tmp_path), {"QUORL_CLUSTER__SECRET_FILE": secret.name})
    assert config.cluster.secret_file == secret
    assert read_secret(config) == b"0123456789abcdef"
    assert "0123456789abcdef" not in repr(config)


def test_a_secret_that_everybody_can_read_is_warned_about(tmp_path: Path, secret: Path) -> None:
    environ = {"QUORL_CLUSTER__SECRET_FILE": str(secret)}
    said = "every user of this machine can read the cluster secret"
    assert not any(said in caution for caution in cautions(load(write(tmp_path), environ)))
    secret.chmod(0o644)
    assert any(said in caution for caution in cautions(load(write(tmp_path), environ)))


def test_a_secret_that_could_be_tried_is_warned_about(tmp_path: Path, secret: Path) -> None:
    environ = {"QUORL_CLUSTER__SECRET_FILE": str(secret)}
    before = cautions(load(write(tmp_path), environ))
    secret.write_text("hunter2\n")
    (said,) = set(cautions(load(write(tmp_path), environ))) - set(before)
    assert said.startswith(f"the cluster secret in {secret} has 7 bytes")
    assert said.endswith("openssl rand -hex 32")


def test_an_empty_secret_is_refused(tmp_path: Path, secret: Path) -> None:
    secret.write_text(" \n")
    first, remedy = mistakes(tmp_path, QUORL_CLUSTER__SECRET_FILE=secret.name)
    assert first.endswith(f"{secret} is empty")
    assert "openssl rand -hex 32" in remedy


def test_an_even_number_of_members_is_warned_about(tmp_path: Path) -> None:
    (caution,) = cautions(load(write(tmp_path), {}))
    assert caution == "2 members survive the loss of no more nodes than 1 do"


# -- pointing ------------------------------------------------------------------------------------------------------
def test_lines_of_all_forms_of_toml_are_found() -> None:
    text = '\n[ node ] # c\n"name" = 1\nlog.level = 2\n[[cluster.members]]\nname=1\n[[cluster.members]]\n  name = 2\n'
    assert configfile._lines(text) == {
        "node": 2,
        "node.name": 3,
        "node.log.level": 4,
        "cluster.members": 5,
        "cluster.members.0": 5,
        "cluster.members.0.name": 6,
        "cluster.members.1": 7,
        "cluster.members.1.name": 8,
    }


def test_a_config_is_frozen(tmp_path: Path) -> None:
    config: Any = load(write(tmp_path), {})
    with pytest.raises(AttributeError, match="immutable"):
        config.node = None
    assert isinstance(config, Config)
