"""The catalogue of problems is complete, and says what to do."""

from __future__ import annotations

import pytest

from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.operations import OPERATIONS
from quorl.cluster.protocol.problems import (
    CATALOGUE,
    CommandFailed,
    IdempotencyKeyReused,
    Kind,
    catalogue_markdown,
    explained,
    kind_of,
    problem_of,
)


@pytest.mark.parametrize("kind", CATALOGUE.values(), ids=lambda kind: kind.code)
def test_every_problem_says_what_and_what_to_do(kind: Kind) -> None:
    assert 400 <= kind.status <= 599
    assert kind.title
    assert kind.why.endswith(".")
    assert kind.hint.endswith(".")
    assert explained(kind).splitlines()[1] == f"what   {kind.title}"
    assert "``" not in explained(kind), "marks of docstrings are for those who read the code"


def test_every_refusal_of_the_table_is_in_the_catalogue() -> None:
    refusals = {rejection for row in OPERATIONS for rejection in row.rejections}
    for rejection in refusals | {IdempotencyKeyReused, CommandFailed}:
        kind = kind_of(rejection)
        assert CATALOGUE[kind.code] == kind


def test_a_refusal_without_a_detail_says_what_its_class_says() -> None:
    assert problem_of(t.TopicNotFound()).detail == "No topic has that name."
    assert problem_of(t.TopicNotFound(detail="no `x`")).detail == "no `x`"
    assert problem_of(CommandFailed()).kind.status == 500


def test_the_catalogue_as_a_table_has_a_line_for_every_problem() -> None:
    lines = catalogue_markdown().splitlines()
    assert lines[0] == "| code | status | retryable | title | what to do |"
    assert len(lines) == len(CATALOGUE) + 2
    assert all(line.count("|") == 6 for line in lines)
