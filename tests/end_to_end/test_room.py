"""Room is taken by bytes, not by words: one user's announcements refuse nobody else's upload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MIB
from tests.end_to_end.test_resumable_uploads import begin, begin_part, offset_of, send
from tests.ledger import LateDaemon, Ledger
from tests.postgres import on_server
from tests.server import Daemon, Person

pytestmark = pytest.mark.directory_store

SIZE = 20 * MIB
"""What the greedy announce, each time; the disk has 32 MiB."""


@pytest.fixture
def small(small_disk: Path, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose store has 32 MiB."""
    (site := tmp_path / "site").mkdir()
    storage = {"directory": small_disk / "blobs"}
    limits = {"disk_reserve": "0%", "uploads": "9"}
    with LateDaemon(site, storage=storage, limits=limits).running() as daemon:
        yield daemon


def put_silently(person: Person, name: str) -> HTTPSConnection:
    """Announce an upload in one piece, and send nothing of it."""
    person.ask("POST", "/api/images", form={"name": name})
    connection = person.connection()
    connection.putrequest("PUT", f"/api/images/raw/{name}")
    connection.putheader("Content-Length", str(SIZE))
    connection.endheaders(b"x")
    return connection


def announce(person: Person, name: str) -> None:
    begin(person, name, SIZE)


def announce_and_touch(person: Person, name: str) -> None:
    """Also an empty part, which changes nothing."""
    place = begin(person, name, SIZE)
    for _ in range(3):
        assert send(person, place, 0, b"").status == 204


def announce_and_begin(person: Person, name: str) -> HTTPSConnection:
    """A part is under way that does not go on."""
    place = begin(person, name, SIZE)
    return begin_part(person, place, 0, SIZE)


def announce_and_pause(person: Person, name: str) -> None:
    """One byte came."""
    place = begin(person, name, SIZE)
    assert send(person, place, 0, b"x").status == 204
    assert offset_of(person, place) == 1


WAYS: tuple[Callable[[Person, str], HTTPSConnection | None], ...] = (
    put_silently, announce, announce_and_touch, announce_and_begin, announce_and_pause,
)  # fmt: skip


def test_announcements_of_one_user_never_refuse_anothers_upload(small: Daemon) -> None:
    greedy, other = small.newcomer(), small.newcomer()
    ledger = Ledger(small)
    with ExitStack() as held:
        for way in WAYS:
            for number in range(2):
                if connection := way(greedy, f"{way.__name__}{number}"):
                    held.callback(connection.close)
            other.ask("POST", "/api/images", form={"name": "mine"})
            assert ledger.put(other, "mine", b"x" * SIZE) == 200, way.__name__
            place = begin(other, "resumed", SIZE // 4)
            answer = send(other, place, 0, b"x" * (SIZE // 4), last=True)
            assert answer.status == 200, way.__name__
            for name in ("mine", "resumed"):
                other.ask("DELETE", f"/api/images/{name}")
            ledger.wait_for_sweep()
            ledger.check_store()


def test_who_asks_for_more_than_there_is_hears_so_before_the_first_byte(small: Daemon) -> None:
    greedy = small.newcomer()
    greedy.ask("POST", "/api/images", form={"name": "one"})
    headers = {"Upload-Complete": "?0", "Upload-Length": str(40 * MIB)}
    assert greedy.ask("POST", "/api/images/raw/one", headers=headers).status == 507
    place = begin(greedy, "two", 30 * MIB)
    greedy.ask("POST", "/api/images", form={"name": "ballast"})
    assert greedy.ask("PUT", "/api/images/raw/ballast", body=b"x" * (10 * MIB)).status == 200
    # It was promised nothing, and loses nothing.
    assert send(greedy, place, 0, b"x", last=False).status == 507
    greedy.ask("DELETE", "/api/images/ballast")
    Ledger(small).wait_for_sweep()
    assert send(greedy, place, 0, b"x").status == 204
    assert offset_of(greedy, place) == 1


def test_an_empty_upload_is_kept_an_hour_and_not_renewed(daemon: Daemon) -> None:
    alice = daemon.newcomer()
    place = begin(alice, "empty", SIZE)
    key = place.rsplit("/", 1)[1]

    def minutes_left() -> int:
        rows = on_server(
            daemon.dsn,
            "SELECT extract(epoch FROM keep_until - now())::int / 60 FROM blob"
            f" WHERE blob = '{key}'",
        )
        return int(rows[0][0])

    assert 55 <= minutes_left() <= 60
    on_server(
        daemon.dsn, f"UPDATE blob SET created = created - interval '40 min' WHERE blob = '{key}'"
    )
    assert send(alice, place, 0, b"").status == 204
    assert minutes_left() <= 20
    assert send(alice, place, 0, b"x").status == 204
    assert minutes_left() > 6 * 24 * 60
