"""Derive the tables of docs/ from the code: ``python scripts/derive_docs.py [--check]``.

A derived passage stands between ``<!-- derived: NAME -->`` and ``<!-- end -->``, and is written here and nowhere else.
Everything around it is written by hand. ``tests/test_docs.py`` fails while a passage is not what the code says.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import click  # noqa: E402 - the path comes before the import
import msgspec  # noqa: E402

from quorl.client.cli import cli  # noqa: E402
from quorl.cluster.node import config  # noqa: E402
from quorl.cluster.protocol import limits  # noqa: E402
from quorl.cluster.protocol.grammar import Errand, Operation  # noqa: E402
from quorl.cluster.protocol.operations import OPERATIONS  # noqa: E402
from quorl.cluster.protocol.plans import PLANS  # noqa: E402
from quorl.cluster.protocol.problems import catalogue_markdown  # noqa: E402
from scripts import derive_library  # noqa: E402
from scripts.markdown import plain, table  # noqa: E402

PASSAGE = re.compile(r"(<!-- derived: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


# -- the protocol --------------------------------------------------------------------------------------------------
def routes() -> str:
    """Every operation of the table: its route, what it answers, what it refuses."""
    rows = []
    for row in OPERATIONS:
        refusals = ", ".join(f"`{kind.__struct_config__.tag}`" for kind in row.rejections) or "–"
        reads = "writes" if row.writes else "by the leader" if issubclass(row.request, Errand) else row.consistency
        rows.append(
            (f"`{row.name}`", f"`{row.method} {row.path}`", f"{row.status} `{row.reply.__name__}`", reads, refusals)
        )
    return table(("operation", "route", "answer", "consistency by default", "refusals of its own"), rows)


def operations() -> str:
    """What every operation means and takes."""
    parts = []
    told: set[type[msgspec.Struct]] = set()
    for row in OPERATIONS:
        parts.append(f"#### `{row.name}`: `{row.method} {row.path}`\n\n{plain(row.request.__doc__)}\n")
        rows = list(fields(row))
        if rows:
            parts.append(table(("field", "where", "default", "value"), rows))
        for shape in shapes_in(row.request):
            if shape not in told:
                told.add(shape)
                found = msgspec.structs.fields(shape)
                parts.append(f"Each `{shape.__name__}`: {plain(shape.__doc__)}\n")
                rows = [(f"`{f.encode_name}`", default_of(f), described(f.type)) for f in found]
                parts.append(table(("field", "default", "value"), rows))
    return "\n".join(parts)


def shapes_in(shape: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """The structs that stand in the fields of one, the outer ones first."""
    for field in msgspec.structs.fields(shape):
        for inner in structs_of(field.type):
            yield inner
            yield from shapes_in(inner)


def structs_of(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """The structs in a type, however it is wrapped."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for inner in get_args(kind):
        yield from structs_of(inner)


def fields(row: Operation) -> Iterator[tuple[str, ...]]:
    """The fields of one operation."""
    in_query = PLANS[row.request].query_names
    for field in msgspec.structs.fields(row.request):
        name = field.encode_name
        where = "path" if name in row.placeholders else "query" if row.method == "GET" else "body or query"
        if where == "body or query" and name not in in_query:
            where = "body"
        default = default_of(field, absent="`null`")
        yield f"`{name}`", where, default, described(field.type)


def described(kind: Any) -> str:
    """A type in a few words, from the schema that decodes it."""
    (schema,), _ = msgspec.json.schema_components([kind])
    return " or ".join(worded(part) for part in schema.get("anyOf", [schema]) if part.get("type") != "null")


def worded(schema: dict[str, Any]) -> str:
    """One JSON schema in a few words."""
    kind = schema.get("type", "")
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    low, high = schema.get("minimum"), schema.get("maximum", schema.get("exclusiveMaximum"))
    below = 1 if "exclusiveMaximum" in schema else 0
    match kind:
        case "string":
            low, high = schema.get("minLength", 0), schema.get("maxLength")
            text = f"text of {low} to {number(high)} characters" if high else "text"
            return str(schema.get("description", text)).rstrip(".")
        case "integer" | "number":
            bounds = f" from {number(low)} to {number(high - below)}" if high is not None else ""
            return f"{kind}{bounds}. {schema.get('description', '')}".rstrip(". ")
        case "array":
            bounds = f"{schema.get('minItems', 0)} to {number(schema['maxItems'])} of " if "maxItems" in schema else ""
            inner = schema.get("items")
            return bounds + worded(inner) if bounds and inner else "an array"
        case "boolean":
            return "true or false"
        case "object":
            return "an object of texts" if schema.get("additionalProperties") else "an object"
    return " or ".join(f"`{value}`" for value in schema.get("enum", [])) or "any JSON value"


def number(value: float | None) -> str:
    """A number as people read it."""
    if value is None:
        return ""
    if value == limits.INTEGER_MAX:
        return "2^53 - 1"
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else f"{value:g}"


def problems() -> str:
    """The catalogue."""
    return catalogue_markdown()


def bounds() -> str:
    """Every limit, in the order and with the notes of limits.py."""
    source = Path(limits.__file__).read_text(encoding="utf-8")
    rows: list[tuple[str, ...]] = []
    heading = ""
    headings = {
        number: match[1]
        for number, line in enumerate(source.splitlines(), 1)
        if (match := re.match(r"# -- (.+?) -+$", line))
    }
    body = ast.parse(source).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        above = [text for line, text in headings.items() if line < statement.lineno]
        note = (
            following.value.value
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            else ""
        )
        if above and above[-1] != heading:
            heading = above[-1]
            rows.append((f"**{heading}**", "", ""))
        name = statement.targets[0].id
        rows.append((f"`{name}`", number(getattr(limits, name)), plain(str(note))))
    return table(("limit", "value", "note"), rows)


# -- operating -----------------------------------------------------------------------------------------------------
def settings() -> str:
    """Every key of the config."""
    tree = ast.parse(Path(config.__file__).read_text(encoding="utf-8"))
    shapes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    rows: list[tuple[str, ...]] = []
    for section in ("node", "cluster", "members", "raft", "http", "tasks", "auth", "log", "metrics"):
        shape = "Member" if section == "members" else section.capitalize()
        title = "[[cluster.members]]" if section == "members" else f"[{section}]"
        body = shapes[shape].body
        rows.append((f"**`{title}`**", "", plain(ast.get_docstring(shapes[shape]))))
        found = {field.encode_name: field for field in msgspec.structs.fields(getattr(config, shape))}
        for statement, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                name = statement.target.id
                assert isinstance(following, ast.Expr)
                assert isinstance(following.value, ast.Constant)
                rows.append((f"`{name}`", default_of(found[name]), plain(str(following.value.value))))
    return table(("key", "default", "meaning"), rows)


def default_of(field: msgspec.structs.FieldInfo, absent: str = "not set") -> str:
    """The default of a field as it would be written."""
    if field.default is msgspec.NODEFAULT:
        return "required" if field.default_factory is msgspec.NODEFAULT else "`{}`"
    if field.default is None:
        return absent
    if field.default is msgspec.UNSET:
        return "not given"
    if isinstance(field.default, Path):
        return "see right"
    return f"`{msgspec.json.encode(field.default).decode()}`"


def commands() -> str:
    """Every command of the command line."""
    rows = []
    for words, command in leaves(cli, ("quorl",)):
        arguments = [
            one.make_metavar(click.Context(command)) for one in command.params if isinstance(one, click.Argument)
        ]
        rows.append((f"`{' '.join([*words, *arguments])}`", plain(command.help).split(". ")[0].rstrip(".") + "."))
    return table(("command", "what it does"), rows)


def common_options() -> str:
    """The options that all commands share, and the one that lists and what shows one thing have beside."""
    ls = cli.commands["topic"].commands["ls"]  # type: ignore[attr-defined]
    return table(("option", "meaning"), [row for name, row in options_of(ls).items() if name in shared()])


def command_options() -> str:
    """Every command with what it does and its own options."""
    parts = []
    for words, command in leaves(cli, ("quorl",)):
        usage = " ".join([*words, *command.collect_usage_pieces(click.Context(command))]).replace(" [OPTIONS]", "")
        paragraphs = re.split(r"\n\s*\n", (command.help or "").split("\b\n")[0].strip())
        told = "\n\n".join(plain(paragraph) for paragraph in paragraphs)
        rows = [row for name, row in options_of(command).items() if name not in shared()]
        parts.append(f"### {' '.join(words)}\n\n`{usage}`\n\n{told}\n")
        if rows:
            parts.append("\n" + table(("option", "meaning"), rows))
        parts.append("\n")
    return "\n" + "".join(parts)


def shared() -> frozenset[str]:
    """The names of the options of every command."""
    return frozenset({"watch", *(one.name or "" for one in cli.params)})


def options_of(command: click.Command) -> dict[str, tuple[str, str]]:
    """The options of a command by name, each with how it is written and what it means."""
    found = {}
    for one in command.params:
        record = one.get_help_record(click.Context(command)) if isinstance(one, click.Option) else None
        if record is not None:
            found[one.name or ""] = (f"`{record[0]}`", plain(record[1]))
    return found


def leaves(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The commands below a group."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from leaves(command, (*words, name))
        else:
            yield (*words, name), command


PASSAGES = {
    "routes": routes,
    "operations": operations,
    "problems": problems,
    "limits": bounds,
    "config": settings,
    "commands": commands,
    "common_options": common_options,
    "command_options": command_options,
    **derive_library.PASSAGES,
}


def derived(text: str) -> str:
    """Return a page with its derived passages as the code has them now."""
    return PASSAGE.sub(lambda found: f"{found[1]}{PASSAGES[found[2]]()}{found[3]}", text)


def pages() -> list[Path]:
    """The pages that may hold derived passages."""
    return [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(arguments: list[str]) -> int:
    """Write the passages, or with ``--check`` only say which pages are not up to date."""
    stale = [page for page in pages() if page.exists() and derived(page.read_text("utf-8")) != page.read_text("utf-8")]
    for page in stale:
        print(f"{page.relative_to(ROOT)} {'is not what the code says' if '--check' in arguments else 'written'}")
        if "--check" not in arguments:
            page.write_text(derived(page.read_text("utf-8")), encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
