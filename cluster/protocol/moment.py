"""Calendar time as text, by arithmetic alone: milliseconds since 1970 in UTC to RFC 3339 and back.

No time zone data, no locale and no clock is consulted, so the same number gives the same text everywhere.
"""

from __future__ import annotations

import re

_DAY_MS = 86_400_000
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, past which RFC 3339 has no years."""

_PATTERN = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def to_text(moment_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: ``2024-02-29T12:00:00.000Z``."""
    days, rest = divmod(moment_ms, _DAY_MS)
    year, month, day = _civil(days)
    seconds, ms = divmod(rest, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{ms:03d}Z"


def from_text(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 time; digits past the milliseconds are dropped. Raises ``ValueError``."""
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise ValueError("not an RFC 3339 time such as 2024-02-29T12:00:00Z")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, zone_hour, zone_minute = found.groups()[6:]
    days = _days(year, month, day) if 1 <= month <= 12 and 1 <= day <= 31 else None
    if days is None or _civil(days) != (year, month, day):
        raise ValueError("no such day in the calendar")
    zone = 60 * int(zone_hour or 0) + int(zone_minute or 0)
    if hour > 23 or minute > 59 or second > 60 or zone > 23 * 60 + 59 or int(zone_minute or 0) > 59:
        raise ValueError("no such time of day")
    east = -zone if sign == "-" else zone
    ms = int((fraction or "0").ljust(3, "0")[:3])
    return days * _DAY_MS + ((hour * 60 + minute - east) * 60 + second) * 1000 + ms


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a count of days since 1970, in the proleptic Gregorian calendar."""
    # Eras of 400 years that begin on 1 March, so that the leap day is the last of its year.
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return era * 400 + year_of_era + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970 of a date; the inverse of ``_civil`` for dates that exist."""
    era, year_of_era = divmod(year - (month <= 2), 400)
    shifted = month - 3 if month > 2 else month + 9
    day_of_year = (153 * shifted + 2) // 5 + day - 1
    return era * 146_097 + 365 * year_of_era + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468
