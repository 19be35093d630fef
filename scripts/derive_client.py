"""Derive client/topics.py from client/aio_topics.py: ``python scripts/derive_client.py [--check]``.

The two differ in nothing but the words of asyncio, so one is written and the other follows.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

CLIENT = pathlib.Path(__file__).resolve().parent.parent / "client"
SOURCE, TARGET = CLIENT / "aio_topics.py", CLIENT / "topics.py"

WORDS = (
    (r"\basync def\b", "def"),
    (r"\basync with\b", "with"),
    (r"\basync for\b", "for"),
    (r"\bawait ", ""),
    (r"\b__a(iter|next)__\b", r"__\1__"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\bAsync(Client|Consumer|Follower|Iterator|Producer|Topics|Topic)\b", r"\1"),
    (r"\bquorl\.client\.aio_(\w+)", r"quorl.client.\1"),
    (r"\bquorl\.client\.aio\b", "quorl.client.sync"),
)
AWAITED = r"\((self\._client\.call\([^()]*(?:\([^()]*\)[^()]*)*\))\)\."
"""What is left of ``(await call(...)).field``: parentheses that only an await needs."""
HEAD = '''"""Topics, as a program sees them. Derived from ``aio_topics.py`` by ``scripts/derive_client.py``: change that one.'''


def derived(text: str) -> str:
    """Return the synchronous form of an asynchronous module."""
    _, _, rest = text.partition("\n")
    for pattern, word in WORDS:
        rest = re.sub(pattern, word, rest)
    rest = re.sub(AWAITED, r"\1.", rest)
    text = f"{HEAD}\n{rest}"
    for command in (["check", "--quiet", "--fix", "--select", "I"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(TARGET), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, check=True, text=True).stdout
    return text


def main() -> int:
    """Write the derived file, or say whether it is up to date."""
    wanted = derived(SOURCE.read_text(encoding="utf-8"))
    if "--check" in sys.argv[1:]:
        fresh = TARGET.read_text(encoding="utf-8") == wanted
        print("up to date" if fresh else f"{TARGET} is out of date: run python scripts/derive_client.py")
        return 0 if fresh else 1
    TARGET.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
