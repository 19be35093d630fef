"""The examples in the documentation: what stands in fences, and what is said about each in a comment above it.

<!-- example: not run, because REASON -->     it cannot run here; the reason is part of the page's source
<!-- example: stays -->                       it runs until the page is over, as a worker does
<!-- example: prints TEXT -->                 TEXT must be in what it prints
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from typing_extensions import override

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_FENCE = re.compile(
    r"(?:^[ ]*<!-- example: (?P<said>[^\n]+) -->\n)?^(?P<indent> *)```(?P<kind>\w*)\n(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
_SAID = re.compile(r"not run, because (?P<reason>.{10,})|stays|prints (?P<output>.+)")


class Example(NamedTuple):
    """One fenced block."""

    page: str
    line: int
    kind: str
    text: str
    reason: str
    """Why it is not run; empty if it is."""
    stays: bool
    output: str

    @override
    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def examples(page: Path) -> list[Example]:
    """Every fenced block of a page, in order."""
    body = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(body):
        said = fence["said"] or ""
        told = _SAID.fullmatch(said)
        assert told or not said, f"{page.name}: nothing is known by <!-- example: {said} -->"
        text = re.sub(rf"^{fence['indent']}", "", fence["text"], flags=re.MULTILINE)
        line = body.count("\n", 0, fence.start("kind")) + 1
        reason, output = (told["reason"] or "", told["output"] or "") if told else ("", "")
        name = str(page.relative_to(ROOT))
        found.append(Example(name, line, fence["kind"], text, reason, said == "stays", output))
    return found
