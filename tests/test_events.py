"""Events of the service log that no other test provokes, in a real daemon."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from repoman.repository.sweeper import ORPHAN_LIMIT
from tests.ledger import helper_of, kill, pid_of, postmaster_of
from tests.postgres import on_server
from tests.server import Daemon, ask_plain, free_ports
from tests.test_monitoring import number


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon to which bad things happen."""
    with Daemon(tmp_path_factory.mktemp("events")).running() as daemon:
        yield daemon


@contextmanager
def said(daemon: Daemon, *patterns: str) -> Iterator[None]:
    """What the block does must soon make a line of the log that matches each."""
    before = len(daemon.log.read_text())
    yield
    wait_for_lines(daemon, before, *patterns)


def wait_for_lines(daemon: Daemon, before: int, *patterns: str) -> None:
    """Wait until the log has a line that matches each, after so many characters."""
    end = time.monotonic() + 20
    while missing := [
        one for one in patterns if not re.search(one, daemon.log.read_text()[before:])
    ]:
        assert time.monotonic() < end, (missing, daemon.log.read_text()[before:])
        time.sleep(0.05)


def blob_of(daemon: Daemon, image: str, content: bytes) -> Path:
    """Give the administrator an image; answer where its file is."""
    data = daemon.directory / "state" / "blobs" / "data"
    before = set(data.rglob("?" * 32))
    daemon.admin.ask("POST", "/api/images", form={"name": image})
    assert daemon.admin.ask("PUT", f"/api/images/raw/{image}", body=content).status == 200
    [blob] = set(data.rglob("?" * 32)) - before
    return blob


def test_a_start_tells_of_administrators_and_of_the_audit(own: Daemon) -> None:
    audit = r"Audit: row \d+ has the digest [0-9a-f]{64}"
    wait_for_lines(own, 0, f"Administrator {own.admin.name} created", audit)


def test_a_reload_tells_what_was_read(own: Daemon) -> None:
    with said(own, "Trust was reloaded: ", "Certificates, limits and log files were looked at"):
        os.kill(pid_of(own), signal.SIGHUP)


def test_who_is_refused_at_the_door_is_told_with_the_address(own: Daemon) -> None:
    with (
        said(own, r"TLS handshake failed: .+ \[127\.0\.0\.1\]"),
        socket.create_connection(("127.0.0.1", own.https)) as stranger,
    ):
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        stranger.recv(100)
    bad = own.person("Mallory")
    assert bad.credential is not None
    bad.proxy = bad.credential.proxy(limited=True).proxy().write(own.directory / "unlimited")
    with said(own, r"A client was refused: .+ \[127\.0\.0\.1\]"):
        assert bad.ask("GET", "/api/whoami").status == 403


def test_who_is_revoked_on_an_open_connection_is_told(own: Daemon) -> None:
    victim = own.newcomer()
    assert victim.credential is not None
    assert victim.ask("GET", "/api/whoami").status == 200
    own.grid.revoke(victim.credential)
    with said(own, "Trust was reloaded"):
        os.kill(pid_of(own), signal.SIGHUP)
    with said(own, "A client is refused from now on: .*revoked"):
        assert victim.ask("GET", "/api/whoami").status == 403


def test_a_killed_postgresql_is_told_and_so_is_its_return(own: Daemon) -> None:
    with said(
        own,
        "PostgreSQL of our own ended: .*; starting it again",
        "The database cannot be reached: ",
        "The database is reached again",
    ):
        os.kill(postmaster_of(own), signal.SIGKILL)


def test_a_killed_helper_process_is_told_and_the_next_one_works(own: Daemon) -> None:
    own.admin.ask("POST", "/api/images", form={"name": "mended"})
    with said(own, "blob store: the helper process ended: .*signal 9"):
        os.kill(helper_of(own), signal.SIGKILL)
    end = time.monotonic() + 20
    while (told := own.admin.ask("PUT", "/api/images/raw/mended", body=b"whole").status) != 200:
        assert told == 503
        assert time.monotonic() < end, "no next helper process"
        time.sleep(0.1)


def test_bytes_that_were_changed_are_told_when_they_are_asked_for(own: Daemon) -> None:
    blob = blob_of(own, "changed", b"good bytes")
    end, wanted = time.monotonic() + 20, {"Want-Digest": "md5"}
    target = "/api/images/raw/changed"
    while "Digest" not in own.admin.ask("HEAD", target, headers=wanted).headers:
        assert time.monotonic() < end, "the scrubber did not come"
        time.sleep(0.1)
    blob.write_bytes(b"bad  bytes")  # the scrubber comes again in 30 days
    with said(own, f"blob {blob.name} is not what was stored"):
        assert own.admin.ask("GET", target).status == 500


def test_a_refusal_that_the_audit_did_not_take_is_told(own: Daemon) -> None:
    person = own.newcomer()
    person.ask("GET", "/api/whoami")  # a first visit is written down itself
    with (
        closing(psycopg2.connect(own.dsn)) as connection,
        said(own, "A refusal is not in the audit: The database took too long"),
    ):
        connection.cursor().execute("LOCK TABLE audit")
        assert person.ask("POST", "/api/users", form={"user_name": "x"}).status == 403
        end = time.monotonic() + 10
        while not on_server(
            own.dsn,
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND query LIKE '%audit%'",
        ):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_faults_of_ours_are_told_with_a_traceback(own: Daemon) -> None:
    on_server(own.dsn, "ALTER TABLE blob RENAME TO gone")
    try:
        with said(own, "scrub failed\n\tTraceback", r"Request \S+ failed\n\tTraceback"):
            answer = own.admin.ask("PUT", "/api/images/raw/changed", body=b"x")
            assert answer.status == 500
            request_id = answer.headers["X-Request-Id"]
    finally:
        on_server(own.dsn, "ALTER TABLE gone RENAME TO blob")
    assert f"Request {request_id} failed" in own.log.read_text()


def test_a_store_that_is_not_what_the_records_say_is_told_and_counted(tmp_path: Path) -> None:
    [port] = free_ports(1)
    daemon = Daemon(tmp_path, metrics={"endpoint": f"tcp:{port}:interface=127.0.0.1"})

    def troubles(kind: str) -> float:
        text = ask_plain(f"http://127.0.0.1:{port}/metrics").text
        return number(text, f'repoman_store_troubles{{kind="{kind}"}}')

    with daemon.running():
        blob = blob_of(daemon, "one", b"one")
        kill(daemon)
        saved = blob.rename(tmp_path / "saved")
        strays = [blob.with_name(f"{blob.name[:2]}{n:030x}") for n in range(ORPHAN_LIMIT + 1)]
        for stray in strays:
            stray.write_bytes(b"")
        with said(
            daemon,
            f"{len(strays)} files in the store have no record: is this the right database",
            "1 files are missing from the store",
        ):
            daemon.start()
        assert (troubles("suspicious"), troubles("missing")) == (len(strays), 1)
        daemon.stop()
        saved.rename(blob)
        for stray in strays[1:]:
            stray.unlink()
        with said(
            daemon,
            "1 damaged files are whole again",
            "1 files without a record: see quarantine/",
        ):
            daemon.start()
        assert troubles("quarantined") == 1
        assert daemon.admin.ask("GET", "/api/images/raw/one").body == b"one"
