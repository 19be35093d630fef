"""What holds the repairs, their switches and their description together."""

from __future__ import annotations

import re
from pathlib import Path

from tests.consensus.repairs.switches import SWITCHES

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(HERE.glob("test_*.py"))}
ROWS = {"C": 16, "A": 12, "D": 12, "S": 11}
"""How many defects there are in each part of the description; C14 is what the library does right."""


def test_every_switch_makes_a_test_bite() -> None:
    bitten = {
        name
        for text in TEXTS.values()
        for found in re.findall(r"@bites\(([^)]*)\)", text)
        for name in re.findall(r"\w+", found)
    }
    assert bitten == set(SWITCHES)


def test_every_switch_says_what_it_takes_away() -> None:
    assert all(switch.__doc__ for switch in SWITCHES.values())


def test_the_description_has_every_row_and_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([CADS]\d+) \|", text, flags=re.MULTILINE)
    assert rows == [f"{part}{i + 1}" for part, count in ROWS.items() for i in range(count)]
    tests = set(
        re.findall(
            r"^(?:async )?def (test_\w+)",
            "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py")),
            flags=re.MULTILINE,
        )
    )
    assert set(re.findall(r"`(test_\w+)`", text)) <= tests
    for row in rows:
        if any(f"test_{row.lower()}_" in name for name in re.findall(r"def (test_\w+)", "\n".join(TEXTS.values()))):
            line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
            assert f"test_{row.lower()}_" in line, f"{row} has tests here that the table does not name"
