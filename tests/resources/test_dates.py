"""What an If-Modified-Since says, of bytes that took the place of others and of the first."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from repoman.resources.headers import http_date, unmodified_since

FIRST = datetime(2026, 11, 28, 9, 0, 0, 500_000, timezone.utc)
REPLACED = FIRST.replace(microsecond=0)


@pytest.mark.parametrize(
    ("bound", "seconds", "unmodified"),
    [
        (FIRST, -1, False), (FIRST, 0, True), (FIRST, 1, True), (FIRST, 3600, True),
        (REPLACED, -1, False), (REPLACED, 0, True), (REPLACED, 1, False),
        (REPLACED, 59, False), (REPLACED, 60, True), (REPLACED, 3600, True),
    ],
)  # fmt: skip
def test_the_time_of_a_fetch_says_nothing_of_what_was_replaced_a_moment_ago(
    bound: datetime, seconds: int, unmodified: bool
) -> None:
    header = http_date(bound + timedelta(seconds=seconds))
    assert unmodified_since(header, bound) is unmodified


@pytest.mark.parametrize("header", ["", "yesterday", "Sat, 31 Feb 2026 00:00:00 GMT", "9" * 5000])
def test_what_is_no_date_is_no_condition(header: str) -> None:
    assert not unmodified_since(header, FIRST)
    assert not unmodified_since(header, REPLACED)


def test_the_same_date_is_the_same_however_it_is_written() -> None:
    for header in ("Saturday, 28-Nov-26 09:00:00 GMT", "Sat Nov 28 09:00:00 2026"):
        assert unmodified_since(header, REPLACED)
        assert not unmodified_since(header.replace(":00:00", ":00:01"), REPLACED)


def test_no_date_is_too_late_to_be_compared() -> None:
    latest = datetime.max.replace(tzinfo=timezone.utc, microsecond=0)
    assert unmodified_since(http_date(latest), latest)
