"""PostgreSQL absent at the start, full, or busy with others: 503 soon, and well again by itself."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.end_to_end.conftest import MIB
from tests.end_to_end.test_resumable_uploads import begin, begin_part, offset_of, send
from tests.ledger import (
    ANSWER_WITHIN,
    PROMISED_LAG,
    Board,
    Figures,
    LateDaemon,
    Ledger,
    restart,
    wait_for,
)
from tests.postgres import fresh_database
from tests.server import Daemon, Person


class Guest(LateDaemon):
    """A daemon that uses somebody else's PostgreSQL, and need not find it there."""

    def __init__(self, directory: Path, dsn: str, workers: int = 1) -> None:
        server = {"workers": workers}
        super().__init__(directory, server=server, database={"dsn": dsn}, limits={"uploads": 1})
        self._dsn = dsn

    @property
    def dsn(self) -> str:
        return self._dsn

    def _wait_until_serving(self) -> None:
        self.statuses()

    def statuses(self) -> int:
        """What nobody in particular is told; waits until it is anything at all."""
        for _ in range(400):
            try:
                return self.nobody.ask("GET", "/api/whoami").status
            except OSError:
                time.sleep(0.05)
        raise AssertionError("The server did not start")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose PostgreSQL others use."""
    (place := tmp_path / "host").mkdir()
    with Daemon(place).running() as daemon:
        yield daemon


@pytest.mark.parametrize("workers", [1, 2])
def test_absent_at_the_start_it_is_waited_for(
    host: Daemon, tmp_path: Path, board: Board, workers: int
) -> None:
    dsn = fresh_database(host.dsn)
    (place := tmp_path / "guest").mkdir()
    host.stop()
    guest = Guest(place, dsn, workers)
    with guest.running():
        assert guest.statuses() == 503
        assert guest.admin.ask("PUT", "/api/images/raw/one", body=b"x").status == 503
        processes = 1 if workers == 1 else 1 + workers  # of which one may be on its way up

        def told() -> int:
            return guest.log.read_text().count("Waiting for the database: ")

        wait_for(lambda: told() >= processes, 20)
        assert told() == processes, "once by each process"
        host.start()
        heal = wait_for(lambda: guest.statuses() == 403, 10)
        assert heal < 2
        # And once more, now under a running daemon, with an upload on its way.
        ledger = Ledger(guest)
        guest.admin.ask("POST", "/api/images", form={"name": "one"})
        assert ledger.put(guest.admin, "one", b"before") == 200
        host.stop()
        assert guest.admin.ask("GET", "/api/whoami").status == 503
        host.start()
        heal = max(heal, wait_for(lambda: guest.admin.ask("GET", "/api/whoami").status == 200, 10))
        assert heal < 2
        ledger.check()
        board(ledger, Figures(heal=heal))


@pytest.mark.directory_store
def test_an_upload_whose_daemon_was_killed_can_be_resumed_at_once(
    host: Daemon, tmp_path: Path
) -> None:
    """Nobody else's database tells that the daemon is gone: the upload's lease still runs."""
    (place := tmp_path / "guest").mkdir()
    guest, content = Guest(place, fresh_database(host.dsn)), os.urandom(2 * MIB)
    with guest.running():
        wait_for(lambda: guest.statuses() == 403, 10)
        upload = begin(guest.admin, "one", len(content))
        connection = begin_part(guest.admin, upload, 0, len(content))
        connection.send(content[:MIB])
        time.sleep(0.5)
        restart(guest)
        connection.close()
        wait_for(lambda: guest.statuses() == 403, 10)
        offset = offset_of(guest.admin, upload)
        answer = send(guest.admin, upload, offset, content[offset:], last=True)
        assert answer.status == 200, "one upload at once is allowed, and this is it"
        assert guest.admin.ask("GET", "/api/images/raw/one").body == content
        Ledger(guest).check()


@contextmanager
def locked(dsn: str) -> Iterator[None]:
    """Nobody can read the accounts while the block runs."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.cursor().execute("LOCK TABLE account, login")
        yield


def test_with_all_connections_busy_it_says_so_in_three_seconds(host: Daemon, board: Board) -> None:
    ledger, people = Ledger(host), [Person(host, *_shown(host.admin)) for _ in range(12)]

    def ask(person: Person) -> tuple[int, float]:
        begun = time.monotonic()
        return person.ask("GET", "/api/whoami").status, time.monotonic() - begun

    with ThreadPoolExecutor(len(people)) as pool:
        with locked(host.dsn), ledger.fault() as figures:
            busy = [pool.submit(ask, person) for person in people[:8]]
            time.sleep(0.7)
            late = [pool.submit(ask, person) for person in people[8:]]
            answers = [future.result() for future in late]
        assert {status for status, _ in answers} == {503}
        assert max(seconds for _, seconds in answers) < 4
        begun = time.monotonic()
        assert {future.result()[0] for future in busy} <= {200, 503}
        wait_for(lambda: ask(host.admin)[0] == 200, 5)
        figures.heal = time.monotonic() - begun
    for person in people:
        person.hang_up()
    assert figures.answer < ANSWER_WITHIN
    assert figures.heal < 2
    ledger.check()
    board(ledger, figures)


def _shown(person: Person) -> tuple[Any, ...]:
    return person.name, person.dn, person.proxy, person.credential


@pytest.mark.directory_store
def test_a_full_disk_under_postgresql_is_503_and_heals(tmp_path: Path, board: Board) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    storage = {"directory": tmp_path / "blobs"}
    daemon = LateDaemon(tmp_path, storage=storage, log={"access": tmp_path / "access.log"})
    (state := tmp_path / "state").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200M,mode=700", "none", state], check=True)
    try:
        with daemon.running():
            _fill_and_heal(daemon, state / "ballast", board)
    finally:
        subprocess.run(["umount", "--lazy", state], check=True)


def _fill_and_heal(daemon: LateDaemon, ballast: Path, board: Board) -> None:
    ledger, admin = Ledger(daemon), daemon.admin
    admin.ask("POST", "/api/images", form={"name": "one"})
    assert ledger.put(admin, "one", b"before") == 200
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            pass
    seen = set()
    with ledger.fault() as figures:
        for number in range(400):
            form = {"name": f"i{number}", "description": "x" * 4000}
            seen.add(admin.ask("POST", "/api/images", form=form).status)
            if 503 in seen:
                break
        assert seen == {201, 503}
        ledger.put(admin, "one", b"perhaps")
        ballast.unlink()
        begun = time.monotonic()
        wait_for(lambda: ledger.put(admin, "one", b"after") == 200, 20)
        figures.heal = time.monotonic() - begun
    assert figures.heal < 5
    assert figures.stall < PROMISED_LAG
    ledger.check_bytes()
    assert not ledger.wrong_quotas()
    assert "Traceback" not in daemon.log.read_text()
    board(ledger, figures)
