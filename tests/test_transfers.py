"""Administrators see what is on its way: whose, how fast, how long to go."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from repoman.transfers import Pace, Transfer
from tests.server import Daemon, Person

MIB = 1 << 20
SIZE = 64 * MIB


@pytest.fixture
def alice(daemon: Daemon) -> Person:
    person = daemon.newcomer()
    person.ask("POST", "/api/images", form={"name": "big"})
    return person


def running(daemon: Daemon, user: str, wanted: int) -> list[dict[str, Any]]:
    """The transfers of a user, as soon as there are so many."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = daemon.admin.ask("GET", "/api/transfers").json
        mine = [one for one in found if one["user"] == user]
        if len(mine) == wanted:
            return mine
        time.sleep(0.05)
    raise AssertionError(mine)


def test_an_upload_is_seen_and_then_no_more(daemon: Daemon, alice: Person) -> None:
    connection = alice.connection()
    connection.putrequest("PUT", "/api/images/raw/big")
    connection.putheader("Content-Length", str(SIZE))
    connection.endheaders(b"x" * (8 * MIB))
    end = time.monotonic() + 20
    upload = running(daemon, alice.name, 1)[0]
    while upload["moved"] < 8 * MIB or not upload["rate"]:
        assert time.monotonic() < end
        upload = running(daemon, alice.name, 1)[0]
    assert (upload["direction"], upload["path"]) == ("upload", "/api/images/raw/big")
    assert (upload["moved"], upload["total"]) == (8 * MIB, SIZE)
    assert (upload["dn"], upload["address"]) == (alice.dn, "127.0.0.1")
    assert upload["rate"] > 0
    # Told in tenths of a second.
    assert upload["remaining"] == pytest.approx(56 * MIB / upload["rate"], rel=0.05, abs=0.051)
    connection.send(b"x" * (56 * MIB))
    assert connection.getresponse().status == 200
    connection.close()
    assert running(daemon, alice.name, 0) == []


def test_a_download_is_seen_with_the_length_of_its_range(daemon: Daemon, alice: Person) -> None:
    assert alice.ask("PUT", "/api/images/raw/big", body=os.urandom(SIZE)).status == 200
    connection = alice.connection()
    connection.request("GET", "/api/images/raw/big", headers={"Range": f"bytes=100-{SIZE}"})
    response = connection.getresponse()
    [download] = running(daemon, alice.name, 1)
    assert download["direction"] == "download"
    assert download["total"] == SIZE - 100
    assert download["moved"] < SIZE
    response.read()
    connection.close()
    running(daemon, alice.name, 0)


def test_nobody_else_sees_them(daemon: Daemon, alice: Person) -> None:
    assert alice.ask("GET", "/api/transfers").status == 403
    assert daemon.nobody.ask("GET", "/api/transfers").status == 403


def test_the_rate_is_that_of_the_last_seconds() -> None:
    pace = Pace(100.0)
    assert pace.rate(100.0, 0) == 0
    assert pace.rate(102.0, 10) == 5
    pace.note(105.0, 50)
    assert pace.rate(106.0, 60) == 10
    pace.note(110.0, 50)
    pace.note(115.0, 50)
    assert pace.rate(116.0, 50) == 2.5


def test_how_long_to_go_is_said_only_if_it_is_known() -> None:
    made = Transfer("", "", "", "", "upload", "", 10, 110, 1.0, 50.0)
    assert made.remaining == 2.0
    assert Transfer("", "", "", "", "upload", "", 10, None, 1.0, 50.0).remaining is None
    assert Transfer("", "", "", "", "upload", "", 10, 110, 1.0, 0.0).remaining is None
