"""The daemon, or what it stands on, is killed in mid-work: nothing acknowledged is lost."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MIB
from tests.end_to_end.test_resumable_uploads import begin, begin_part, offset_of, send
from tests.kills import kill_under_load
from tests.ledger import (
    ANSWER_WITHIN,
    PROMISED_LAG,
    Board,
    Figures,
    LateDaemon,
    Ledger,
    children,
    frozen,
    helper_of,
    kill,
    pid_of,
    postmaster_of,
    restart,
    tampered,
    wait_for,
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    """A daemon that these tests kill."""
    with LateDaemon(tmp_path_factory.mktemp("kills"), limits={"uploads": 100}).running() as daemon:
        yield daemon


@pytest.mark.lasting_store
def test_killed_at_random_under_load_it_loses_nothing_and_leaves_nothing(
    own: LateDaemon, board: Board
) -> None:
    board(*kill_under_load(own, 6))


@pytest.mark.directory_store
@pytest.mark.parametrize("step", ["fdatasync", "rename", "fsync"])
def test_a_commit_that_dies_at_any_step_changes_nothing(
    own: LateDaemon, board: Board, step: str
) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    person.ask("POST", "/api/images", form={"name": "one"})
    assert ledger.put(person, "one", b"before") == 200
    with ledger.fault() as figures, tampered(helper_of(own), f"{step}:signal=SIGKILL:when=1"):
        assert ledger.put(person, "one", os.urandom(3 * MIB)) == 503
    assert ledger.put(person, "one", b"after") == 200
    ledger.check()
    assert figures.stall < PROMISED_LAG
    board(ledger, figures)


@pytest.mark.directory_store
@pytest.mark.parametrize("step", ["fdatasync", "rename", "fsync"])
def test_killed_with_its_daemon_at_any_step_too(own: LateDaemon, board: Board, step: str) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    person.ask("POST", "/api/images", form={"name": "one"})
    assert ledger.put(person, "one", b"before") == 200
    # The daemon dies while its helper stands before, or after, each step.
    for moment in ("delay_enter", "delay_exit"):
        with tampered(helper_of(own), f"{step}:{moment}=800000:when=1"):
            upload = threading.Thread(target=ledger.put, args=[person, "one", os.urandom(MIB)])
            upload.start()
            wait_for(lambda: children(helper_of(own)), 5)
            time.sleep(0.2)
            heal = restart(own)
            upload.join()
            time.sleep(1)  # what the old helper still does
        ledger.check()
    board(ledger, Figures(heal=heal))


@pytest.mark.directory_store
def test_killed_between_the_store_and_the_database_the_old_file_stays(
    own: LateDaemon, board: Board
) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    person.ask("POST", "/api/images", form={"name": "one"})
    assert ledger.put(person, "one", b"before") == 200
    data, postmaster = own.directory / "state/blobs/data", postmaster_of(own)
    before = set(data.rglob("?" * 32))
    with tampered(helper_of(own), "fdatasync:delay_enter=500000:when=1"):
        upload = threading.Thread(target=ledger.put, args=[person, "one", os.urandom(MIB)])
        upload.start()
        wait_for(lambda: children(helper_of(own)), 5)
        with frozen(postmaster, *children(postmaster)):
            wait_for(lambda: set(data.rglob("?" * 32)) != before, 5)
            assert set(data.rglob("?" * 32)) != before, "the file is in its place"
            kill(own)
            upload.join()
    heal = restart(own)
    ledger.check()
    assert person.ask("GET", "/api/images/raw/one").body == b"before"
    board(ledger, Figures(heal=heal))


@pytest.mark.directory_store
def test_a_killed_helper_costs_the_uploads_under_way_and_nothing_else(
    own: LateDaemon, board: Board
) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    for name in ("one", "two"):
        person.ask("POST", "/api/images", form={"name": name})
    assert ledger.put(person, "two", os.urandom(MIB)) == 200
    place = begin(person, "long", 64 * MIB)
    content = os.urandom(64 * MIB)
    with ledger.fault() as figures:
        connection = begin_part(person, place, 0, len(content))
        connection.send(content[: 40 * MIB])
        wait_for(lambda: reported(own, place) >= 32 * MIB, 20)
        os.kill(helper_of(own), 9)
        begun = time.monotonic()
        connection.send(content[40 * MIB :])
        assert connection.getresponse().status == 503
        connection.close()
        wait_for(lambda: ledger.put(person, "one", b"new") == 200, 10)
        figures.heal = time.monotonic() - begun
    # What had been reported durable still counts.
    offset = offset_of(person, place)
    assert offset >= 32 * MIB
    answer = send(person, place, offset, content[offset:], last=True)
    assert answer.json["checksum"]["value"] == hashlib.sha256(content).hexdigest()
    ledger.check()
    assert figures.answer < ANSWER_WITHIN
    assert figures.heal < 2
    board(ledger, figures)


def reported(daemon: LateDaemon, place: str) -> int:
    """How much of an upload the records know to be durable."""
    key = place.rpartition("/")[2]
    return int(Ledger(daemon).query(f"SELECT durable FROM blob WHERE blob = '{key}'")[0][0])


@pytest.mark.directory_store
def test_a_kill_before_the_file_of_a_new_upload_is_there_charges_nothing(own: LateDaemon) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    person.ask("POST", "/api/images", form={"name": "one"})
    with frozen(helper := helper_of(own)):
        connection = person.connection()
        connection.putrequest("POST", "/api/images/raw/one")
        connection.putheader("Upload-Complete", "?0")
        connection.putheader("Upload-Length", str(MIB))
        connection.endheaders()
        rows = f"SELECT 1 FROM account WHERE reserved > 0 AND user_name = '{person.name}'"
        wait_for(lambda: ledger.query(rows), 5)
        assert ledger.query(rows)
        kill(own)
        os.kill(helper, 9)
        connection.close()
    restart(own)
    ledger.check()
    assert not ledger.query(rows)
    assert person.ask("GET", "/api/uploads").json == []


@pytest.mark.directory_store
def test_a_descriptor_is_not_leaked_by_any_of_this(own: LateDaemon) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    person.ask("POST", "/api/images", form={"name": "one"})
    ledger.put(person, "one", b"warm")
    opened = Path(f"/proc/{pid_of(own)}/fd")
    before = len(list(opened.iterdir()))
    for _ in range(5):
        with tampered(helper_of(own), "rename:error=EIO:when=1"):
            assert ledger.put(person, "one", os.urandom(MIB)) == 503
        connection = person.connection()
        connection.request("GET", "/api/images/raw/one")
        connection.sock.close()
        connection.close()
    wait_for(lambda: len(list(opened.iterdir())) <= before, 5)
    assert len(list(opened.iterdir())) <= before
    ledger.check()
