"""Derive client/topics.py and client/tasks.py from their aio twins: ``python scripts/derive_client.py [--check]``.

The two differ in nothing but the words of asyncio, so one is written and the other follows.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

CLIENT = pathlib.Path(__file__).resolve().parent.parent / "client"
HEADS = {"topics": "Topics", "tasks": "Queues, tasks and workers"}
"""The derived modules, and what they hold."""

WORDS = (
    (r"\basync def\b", "def"),
    (r"\basync with\b", "with"),
    (r"\basync for\b", "for"),
    (r"\bawait ", ""),
    (r"\b__a(iter|next)__\b", r"__\1__"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\bAsync(Client|Consumer|Follower|Iterator|Producer|Queues|Tasks|Topics|Topic|Workers)\b", r"\1"),
    (r"\bquorl\.client\.aio_(\w+)", r"quorl.client.\1"),
    (r"\bquorl\.client\.aio\b", "quorl.client.sync"),
)
AWAITED = r"\((self\._client\.call\([^()]*(?:\([^()]*\)[^()]*)*\))\)\."
"""What is left of ``(await call(...)).field``: parentheses that only an await needs."""
SUBSCRIPTED = r"\((self\.submit_many\([^()]*\))\)\["
"""The same before a subscript."""
HEAD = '''"""{}, as a program sees them. Derived from ``aio_{}.py`` by ``scripts/derive_client.py``: change that one.'''


def derived(name: str) -> str:
    """Return the synchronous form of an asynchronous module."""
    _, _, rest = (CLIENT / f"aio_{name}.py").read_text(encoding="utf-8").partition("\n")
    for pattern, word in WORDS:
        rest = re.sub(pattern, word, rest)
    rest = re.sub(AWAITED, r"\1.", rest)
    rest = re.sub(SUBSCRIPTED, r"\1[", rest)
    text = f"{HEAD.format(HEADS[name], name)}\n{rest}"
    for command in (["check", "--quiet", "--fix", "--select", "I"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(CLIENT / f"{name}.py"), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, check=True, text=True).stdout
    return text


def main() -> int:
    """Write the derived files, or say whether they are up to date."""
    stale = 0
    for name in HEADS:
        target, wanted = CLIENT / f"{name}.py", derived(name)
        fresh = target.exists() and target.read_text(encoding="utf-8") == wanted
        if "--check" not in sys.argv[1:]:
            target.write_text(wanted, encoding="utf-8")
        elif not fresh:
            stale = 1
        print("up to date" if fresh else f"{target.name} is out of date: run python scripts/derive_client.py")
    return stale


if __name__ == "__main__":
    sys.exit(main())
