"""The calendar by arithmetic, compared with the library's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.cluster.protocol import moment

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS = -62_135_596_800_000  # the first millisecond of the year 1


@given(st.integers(FIRST_MS, moment.LAST_MS))
def test_text_is_what_the_calendar_says_and_reads_back(ms: int) -> None:
    text = moment.to_text(ms)
    expected = (EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert text == expected
    assert moment.from_text(text) == ms


@given(st.integers())
def test_any_number_has_a_text(ms: int) -> None:
    assert moment.to_text(ms).endswith("Z")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.1239z", 123),
        ("1970-01-01 01:30:00.5+01:30", 500),
        ("1969-12-31T23:00:00-01:00", 0),
        ("2024-02-29T12:00:00Z", 1_709_208_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
    ],
)
def test_times_that_people_write(text: str, ms: int) -> None:
    assert moment.from_text(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2024-02-29", "2024-02-29T12:00:00", "2023-02-29T12:00:00Z", "2024-13-01T00:00:00Z",
        "2024-00-01T00:00:00Z", "2024-01-00T00:00:00Z", "2024-01-32T00:00:00Z", "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z", "2024-01-01T00:00:61Z", "2024-01-01T00:00:00+24:00", "2024-01-01T00:00:00+00:60",
        "٢٠٢٤-01-01T00:00:00Z", "2024-01-01T00:00:00Z\n", "2024-01-01T00:00:00.Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an RFC 3339|no such"):
        moment.from_text(text)
