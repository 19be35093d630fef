"""The house rules that a machine can check. Each test is one rule and lists every place that breaks it.

Adding an exception to a rule means changing the rule here, in sight, with its reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cluster", "client", "tests", "examples", "benchmarks", "scripts")
"""Where our Python lies; ``node.py`` beside them."""

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500

FLOORS = {"protocol": 0, "machine": 1, "consensus": 2, "node": 3, "api": 4}
PURE_ROOMS = ("protocol", "machine")
# fmt: off
IMPURE_MODULES = frozenset({
    "aiohttp", "asyncio", "concurrent", "datetime", "http", "io", "logging", "multiprocessing", "os", "pathlib", "pysyncobj",
    "random", "secrets", "select", "shutil", "signal", "socket", "ssl", "structlog", "subprocess", "sys",
    "tempfile", "threading", "time", "urllib3", "uuid",
})
# fmt: on
UNPICKLING_MODULES = frozenset({"cPickle", "cloudpickle", "dill", "marshal", "pickle", "pysyncobj.pickle", "shelve"})


class Module(NamedTuple):
    """One file of ours."""

    path: Path
    name: str
    """Its path from the top, as it is shown."""
    text: str
    tree: ast.Module

    @property
    def rooms(self) -> tuple[str, ...]:
        return self.path.relative_to(ROOT).parts


@cache
def modules() -> tuple[Module, ...]:
    paths = [ROOT / "node.py"]
    for room in ROOMS:
        paths += sorted((ROOT / room).rglob("*.py"))
    texts = [(path, path.read_text(encoding="utf-8")) for path in paths]
    return tuple(Module(path, str(path.relative_to(ROOT)), text, ast.parse(text)) for path, text in texts)


def below(*rooms: str) -> list[Module]:
    """The modules under a folder: ``below("cluster", "machine")``."""
    return [module for module in modules() if module.rooms[: len(rooms)] == rooms]


class Import(NamedTuple):
    """One imported name: ``from a.b import c`` is ``a.b.c``, for ``c`` may be a module."""

    line: int
    name: str
    relative: bool

    def enters(self, *names: str) -> bool:
        """Whether the import reaches one of the modules or something inside it."""
        return any(self.name == name or self.name.startswith(f"{name}.") for name in names)


def imports(module: Module) -> Iterator[Import]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, relative=False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = ".".join(part for part in (node.module, alias.name) if part)
                yield Import(node.lineno, name, relative=node.level > 0)


def nobody(breaches: list[str]) -> None:
    assert not breaches, "\n" + "\n".join(breaches)


# -- floors --------------------------------------------------------------------------------------------------------
def test_there_is_something_to_check() -> None:
    assert {module.rooms[0] for module in modules()} >= {"cluster", "client", "tests", "node.py"}
    assert {"protocol", "machine", "consensus", "node"} <= {module.rooms[1] for module in below("cluster")}


def floor(name: str) -> int:
    """The floor of a module of the server; ``main`` stands above all rooms, the package itself below."""
    room = name.removeprefix("quorl.").removeprefix("cluster").removeprefix(".").partition(".")[0]
    return {**FLOORS, "main": max(FLOORS.values()) + 1}.get(room, -1)


def test_each_package_says_where_each_of_its_modules_belongs() -> None:
    breaches = []
    for package in (module for module in below("cluster") + below("client") if module.rooms[-1] == "__init__.py"):
        if package.rooms[:-1] == ("cluster",):
            continue  # it is told as a table of rooms
        told = set(re.findall(r"``(\w+)``", ast.get_docstring(package.tree) or ""))
        there = {path.stem for path in package.path.parent.glob("*.py")} - {"__init__"}
        breaches += [f"{package.name} says nothing of {name}" for name in sorted(there - told)]
    nobody(breaches)


def test_a_class_of_a_room_has_its_name_for_itself() -> None:
    for room in FLOORS:
        first: dict[str, str] = {}
        breaches = []
        for module in below("cluster", room):
            if module.name == "cluster/node/config.py":
                continue  # its classes are called as the tables of a config are
            for node in module.tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    other = first.setdefault(node.name, module.name)
                    if other != module.name:
                        breaches.append(f"{module.name}:{node.lineno}: {node.name}, as in {other}")
        nobody(breaches)


def test_imports_run_downwards_only() -> None:
    nobody(
        [
            f"{module.name}:{found.line}: {found.name} lies above"
            for module in below("cluster")
            for found in imports(module)
            if found.enters("quorl.cluster") and floor(found.name) > floor(".".join(module.rooms).removesuffix(".py"))
        ]
    )


def test_the_machine_and_the_protocol_are_pure() -> None:
    nobody(
        [
            f"{module.name}:{found.line}: {found.name} brings the outside world in"
            for room in PURE_ROOMS
            for module in below("cluster", room)
            for found in imports(module)
            if found.name.split(".")[0] in IMPURE_MODULES
        ]
    )


def test_the_consensus_room_alone_knows_the_library() -> None:
    nobody(
        [
            f"{module.name}:{found.line}: {found.name}"
            for module in modules()
            for found in imports(module)
            if found.enters("pysyncobj") and module.rooms[:2] != ("cluster", "consensus") and module.rooms[0] != "tests"
        ]
    )


def test_the_floors_above_see_of_the_engine_what_the_replica_offers() -> None:
    above = [module for module in below("cluster") if module.rooms[1] not in {"protocol", "machine", "consensus"}]
    engine = "quorl.cluster.consensus.engine"
    nobody([f"{module.name}:{found.line}" for module in above for found in imports(module) if found.enters(engine)])
    reached = [
        f"{module.name}:{node.lineno}: {ast.unparse(node)}"
        for module in above
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr == "engine"
    ]
    nobody(reached)


def test_the_server_never_imports_the_client() -> None:
    nobody(
        [
            f"{module.name}:{found.line}"
            for module in below("cluster")
            for found in imports(module)
            if found.enters("quorl.client")
        ]
    )


def test_the_client_enters_the_protocol_and_no_other_room() -> None:
    nobody(
        [
            f"{module.name}:{found.line}: {found.name}"
            for module in below("client")
            for found in imports(module)
            if found.enters("quorl.cluster") and not found.enters("quorl.cluster.protocol")
        ]
    )


def test_imports_are_absolute_and_under_one_name() -> None:
    """``cluster`` and ``client`` are reached as ``quorl.*`` only: under two names a class would exist twice."""
    nobody(
        [
            f"{module.name}:{found.line}: {found.name}"
            for module in modules()
            for found in imports(module)
            if found.relative or found.enters("cluster", "client")
        ]
    )


def test_nothing_is_ever_unpickled() -> None:
    nobody(
        [
            f"{module.name}:{found.line}: {found.name}"
            for module in (*below("cluster"), *below("client"), *below("node.py"))
            for found in imports(module)
            if found.enters(*UNPICKLING_MODULES)
        ]
    )


# -- size and shape ------------------------------------------------------------------------------------------------
def test_files_are_short() -> None:
    lengths = [(module.name, module.text.count("\n")) for module in modules()]
    nobody([f"{name}: {lines} lines" for name, lines in lengths if lines > FILE_LINES_MAX])


def test_functions_are_short() -> None:
    nobody(
        [
            f"{module.name}:{node.lineno}: {node.name} has {_length(node)} lines"
            for module in modules()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _length(node) > FUNCTION_LINES_MAX
        ]
    )


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines without decorators and docstring."""
    first = function.body[0]
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def test_every_module_says_what_it_is_for() -> None:
    nobody([module.name for module in modules() if module.tree.body and not ast.get_docstring(module.tree)])


# -- words ---------------------------------------------------------------------------------------------------------
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError|pragma: no cover")
SKIPPED = re.compile(r"pytest\.(skip|xfail|importorskip)\b|mark\.(skip|skipif|xfail|flaky)\b|reruns")
ELSEWHERE = re.compile(
    r"(?<![\w.])/(work|root)/(?!\{)|(?<!\w)\bissues? #?\d|\b(this|last|next|previous|earlier|my|our) session\b"
    r"|\bworkplace\b|\b(house|working) notes\b|\bas (an|the) (AI|assistant)\b",
    re.IGNORECASE,
)
TEXTS = ("*.md", "*.toml", "*.yml", "Makefile", "Dockerfile", ".ci/*", "configs/*", "deploy/*", "docs/**/*.md")


def is_number(value: ast.expr) -> bool:
    match value:
        case ast.Constant(value=int() | float() as found):
            return not isinstance(found, bool)
        case ast.Tuple(elts=parts):
            return all(map(is_number, parts))
        case ast.BinOp(left=left, right=right):
            return is_number(left) and is_number(right)
        case ast.UnaryOp(operand=one):
            return is_number(one)
        case _:
            return False


def test_numbers_with_a_name_have_a_note() -> None:
    """One behind several that follow each other line by line speaks of all of them."""
    breaches = []
    for module in below("cluster") + below("client"):
        silent: list[ast.Assign] = []
        last = 0
        for node in module.tree.body:
            if isinstance(node, ast.Expr) and node.lineno == last + 1:
                silent = []
            elif not isinstance(node, ast.Assign) or node.lineno != last + 1:
                breaches += [f"{module.name}:{one.lineno}: {ast.unparse(one)}" for one in silent]
                silent = []
            if isinstance(node, ast.Assign) and is_number(node.value):
                silent.append(node)
            last = node.end_lineno or node.lineno
        breaches += [f"{module.name}:{one.lineno}: {ast.unparse(one)}" for one in silent]
    nobody(breaches)


def matches(pattern: re.Pattern[str], name: str, text: str) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()}" for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)
    ]


def others() -> list[Module]:
    """Every module but this one, which must name what it forbids."""
    return [module for module in modules() if module.path != Path(__file__).resolve()]


def test_nothing_is_left_for_later() -> None:
    nobody([breach for module in others() for breach in matches(UNFINISHED, module.name, module.text)])


def test_no_test_is_skipped() -> None:
    """But for one reason, in one place: what tests need of the system, and this one has not (``tests/tools.py``)."""
    allowed = ["tests/tools.py"]
    said = [module for module in others() if module.name not in allowed]
    nobody([breach for module in said for breach in matches(SKIPPED, module.name, module.text)])


def test_the_project_speaks_of_itself_alone() -> None:
    breaches = [breach for module in others() for breach in matches(ELSEWHERE, module.name, module.text)]
    for path in sorted({path for pattern in TEXTS for path in ROOT.glob(pattern) if path.is_file()}):
        breaches += matches(ELSEWHERE, str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    nobody(breaches)


def test_tests_wait_for_events_and_not_for_time() -> None:
    """``asyncio.sleep(0)`` yields and is fine; chaos tests watch processes, which offer nothing to wait for."""
    sleep = re.compile(r"\btime\.sleep\(|\basyncio\.sleep\((?!0\))")
    nobody(
        [
            breach
            for module in others()
            if module.rooms[0] == "tests" and module.rooms[1] not in {"chaos", "simulation"}
            for breach in matches(sleep, module.name, module.text)
        ]
    )


# -- the rules can fail --------------------------------------------------------------------------------------------
def test_the_rules_see_what_they_forbid() -> None:
    tree = ast.parse("import os.path\nfrom quorl.cluster import api\nfrom . import x\nimport pickle")
    module = Module(ROOT / "cluster/machine/x.py", "x", "", tree)
    found = list(imports(module))
    assert [entry.name for entry in found] == ["os.path", "quorl.cluster.api", "x", "pickle"]
    assert [entry.relative for entry in found] == [False, False, True, False]
    assert found[3].enters(*UNPICKLING_MODULES)
    assert (
        floor("quorl.cluster.api.server") > floor("quorl.cluster.node") > floor("cluster.machine.x") > floor("cluster")
    )
    assert floor("cluster.main") > floor("quorl.cluster.api")
    assert not Import(1, "quorl.clusters", relative=False).enters("quorl.cluster")
    for text in ("see /root/x", "/work/main", "fixes issue 12", "in this session"):
        assert ELSEWHERE.search(text), text
    for text in ("a reissue", "consistency=session", "ClientSession", "the work/rest ratio", "frame/working"):
        assert not ELSEWHERE.search(text), text
