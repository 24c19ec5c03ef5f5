"""A stop lets what runs end, or keeps it; a second one does not wait."""

from __future__ import annotations

import http.client
import os
import signal
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MIB
from tests.end_to_end.test_main_job import STOPPED
from tests.end_to_end.test_resumable_uploads import begin, begin_part, offset_of, send
from tests.ledger import Board, Figures, LateDaemon, Ledger, wait_for
from tests.server import Person

CONTENT = os.urandom(48 * MIB)


def start_part(person: Person, place: str, count: int) -> http.client.HTTPSConnection:
    """Begin to send the only part of an upload: its first ``count`` bytes."""
    connection = begin_part(person, place, 0, len(CONTENT))
    connection.send(CONTENT[:count])
    return connection


def refuses_new_ones(daemon: LateDaemon) -> bool:
    try:
        daemon.nobody.connection().connect()
    except OSError:
        return True
    return False


@pytest.mark.lasting_store
def test_a_part_of_a_resumable_upload_is_taken_to_its_end(tmp_path: Path, board: Board) -> None:
    with LateDaemon(tmp_path).running() as daemon:
        assert daemon.process is not None
        ledger = Ledger(daemon)
        place = begin(daemon.admin, "one", len(CONTENT))
        connection = start_part(daemon.admin, place, 8 * MIB)
        daemon.process.terminate()
        wait_for(lambda: refuses_new_ones(daemon), 10)
        connection.send(CONTENT[8 * MIB :])
        assert connection.getresponse().status == 200
        connection.close()
        assert daemon.process.wait(30) in STOPPED
        daemon.start()
        assert daemon.admin.ask("GET", "/api/images/raw/one").body == CONTENT
        ledger.check()
        board(ledger)


@pytest.mark.lasting_store
def test_a_second_signal_stops_at_once_and_keeps_what_came(tmp_path: Path, board: Board) -> None:
    with LateDaemon(tmp_path).running() as daemon:
        assert daemon.process is not None
        ledger, admin = Ledger(daemon), daemon.admin
        for name in ("down", "plain"):
            admin.ask("POST", "/api/images", form={"name": name})
        admin.ask("PUT", "/api/images/raw/down", body=CONTENT)
        place = begin(admin, "kept", len(CONTENT))
        part = start_part(admin, place, 30 * MIB)
        plain = admin.connection()
        plain.putrequest("PUT", "/api/images/raw/plain")
        plain.putheader("Content-Length", str(len(CONTENT)))
        plain.endheaders(CONTENT[:MIB])
        down = admin.connection()
        down.request("GET", "/api/images/raw/down")
        response = down.getresponse()
        time.sleep(1)
        daemon.process.terminate()
        wait_for(lambda: refuses_new_ones(daemon), 10)
        time.sleep(1)
        assert daemon.process.poll() is None, "it waits for them"
        begun = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) in STOPPED
        took = time.monotonic() - begun
        said = daemon.log.read_text()
        assert "Told to stop again: running transfers are cut" in said
        assert "3 connections cut, to stop" in said
        cut = False
        try:
            cut = len(response.read()) < len(CONTENT)
        except (OSError, http.client.HTTPException):
            cut = True
        assert cut, "a download that was cut is seen to be"
        for connection in (part, plain, down):
            connection.close()
        daemon.start()
        offset = offset_of(admin, place)
        assert offset > 20 * MIB
        assert send(admin, place, offset, CONTENT[offset:], last=True).status == 200
        assert admin.ask("GET", "/api/images/raw/kept").body == CONTENT
        assert admin.ask("GET", "/api/images/raw/plain").status == 404
        ledger.check()
        board(ledger, Figures(heal=took))
    assert took < 5


def test_a_second_signal_that_comes_with_the_first_is_heeded_too(tmp_path: Path) -> None:
    with LateDaemon(tmp_path).running() as daemon:
        assert daemon.process is not None
        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        connection = daemon.admin.connection()
        connection.putrequest("PUT", "/api/images/raw/one")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"x" * 500)
        time.sleep(0.5)
        # Stopped, it finds both at once; two of one kind would be one.
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            daemon.process.send_signal(number)
        begun = time.monotonic()
        daemon.process.wait(30)
        assert time.monotonic() - begun < 10
        connection.close()
        said = daemon.log.read_text()
        assert "Told to stop again: running transfers are cut" in said
        assert "Traceback" not in said
