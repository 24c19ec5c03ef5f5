"""Who makes room where all places are taken: the rule itself."""

from __future__ import annotations

from collections import Counter

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from repoman.crowd import (
    LATE_SECONDS,
    Standing,
    Waiting,
    first_to_go,
    share,
    source_of,
    standing,
)


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8:1:2::1", 1), "2001:db8:1:2::/64"),
        (IPv6Address("TCP", "2001:db8:1:2:ffff::", 1), "2001:db8:1:2::/64"),
        (IPv6Address("TCP", "2001:db8:1:3::1", 1), "2001:db8:1:3::/64"),
        (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::/64"),
        (UNIXAddress("/run/repoman.sock"), ""),
    ],
)
def test_a_source_is_what_one_subscriber_has(peer: object, source: str) -> None:
    assert source_of(peer) == source


def one(name: str, source: str, why: Standing, since: float) -> Waiting[str]:
    return Waiting(name, source, why, since)


@pytest.mark.parametrize(
    ("waiting", "goes"),
    [
        ([], None),
        ([one("new", "a", Standing.IDLE, 2), one("old", "b", Standing.IDLE, 1)], "old"),
        ([one("idle", "a", Standing.IDLE, 1), one("late", "b", Standing.LATE, 2)], "late"),
        ([one("known", "a", Standing.KNOWN_IDLE, 1), one("idle", "b", Standing.IDLE, 2)], "idle"),
        ([one("still", "a", Standing.STALLED, 1), one("known", "b", Standing.KNOWN_IDLE, 2)],
         "known"),
        ([one("still", "crowd", Standing.STALLED, 2), one("late", "a", Standing.LATE, 1)],
         "still"),
    ],
)  # fmt: skip
def test_the_crowd_goes_first_then_by_standing_then_the_oldest(
    waiting: list[Waiting[str]], goes: str | None
) -> None:
    found = first_to_go(waiting, Counter(crowd=6, a=2, b=2), 10)
    assert (found and found.connection) == goes


@pytest.mark.parametrize(("known", "goes"), [(5, "new"), (6, "known0")])
def test_certificates_do_not_take_all_places_but_half(known: int, goes: str) -> None:
    waiting = [one(f"known{n}", "a", Standing.KNOWN_IDLE, n) for n in range(known)]
    waiting.append(one("new", "b", Standing.IDLE, 9))
    found = first_to_go(waiting, Counter(a=5, b=1), 10)
    assert found
    assert found.connection == goes


def test_late_is_who_has_begun_and_does_not_end() -> None:
    late = LATE_SECONDS + 1
    assert standing(False, True, late) == Standing.LATE
    assert standing(False, True, 0) == standing(False, False, late) == Standing.IDLE
    assert standing(True, True, late) == Standing.KNOWN_IDLE


def test_one_source_leaves_a_tenth_to_others() -> None:
    assert [share(limit) for limit in (1, 9, 10, 40, 1000)] == [1, 9, 9, 36, 900]
