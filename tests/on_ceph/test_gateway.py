"""The daemon while Ceph's gateway is away, and another daemon after the first one was killed."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from twisted.internet import reactor

from tests.ceph import Ceph
from tests.end_to_end.conftest import MIB, sha256
from tests.end_to_end.test_main_job import resident, watched
from tests.end_to_end.test_resumable_uploads import begin, offset_of, send
from tests.postgres import on_server, postgres_for_session
from tests.server import Daemon

LARGE = os.urandom(48 * MIB)


def test_a_gateway_that_goes_is_told_and_heals(daemon: Daemon, ceph: Ceph) -> None:
    alice = daemon.newcomer()
    for name in ("there", "new"):
        alice.ask("POST", "/api/images", form={"name": name})
    assert alice.ask("PUT", "/api/images/raw/there", body=LARGE).status == 200
    assert daemon.process is not None
    reading = alice.connection()
    reading.request("GET", "/api/images/raw/there")
    download = reading.getresponse()
    came = download.read(MIB)
    with watched(daemon.process.pid) as watch, ceph.frozen():
        before, began = resident(daemon.process.pid), time.monotonic()
        refused = alice.ask("PUT", "/api/images/raw/new", body=LARGE)
        assert refused.status == 503
        assert "object store" in refused.text
        assert time.monotonic() - began < 15
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            came += download.read()
        assert LARGE.startswith(came)
        assert alice.ask("GET", "/api/whoami").status == 200
    assert watch.memory - before < 64 * MIB
    reading.close()
    began = time.monotonic()
    assert alice.ask("PUT", "/api/images/raw/new", body=LARGE).status == 200
    assert alice.ask("GET", "/api/images/raw/new").body == LARGE
    assert time.monotonic() - began < 5
    log = daemon.log.read_text()
    assert " came to nothing: silence" in log
    assert "Traceback" not in log


@pytest.fixture
def dsn(tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL that no daemon runs."""
    (tmp_path / "postgres").mkdir()
    with postgres_for_session(reactor, tmp_path / "postgres" / "state") as dsn:
        yield dsn


def test_a_daemon_that_knows_nothing_goes_on_where_a_killed_one_stopped(
    tmp_path: Path, dsn: str, ceph: Ceph
) -> None:
    directory = tmp_path / "daemon"
    directory.mkdir()
    storage = ceph.storage(ceph.bucket(), part_size="5MiB")
    daemon = Daemon(directory, storage=storage, database={"dsn": dsn})
    with daemon.running():
        alice = daemon.newcomer()
        place = begin(alice, "one", len(LARGE))
        assert send(alice, place, 0, LARGE[: 12 * MIB + 5]).status == 204
        slow = alice.connection()
        slow.putrequest("PATCH", place)
        for name, value in (
            ("Content-Type", "application/partial-upload"),
            ("Upload-Offset", str(12 * MIB + 5)),
            ("Upload-Complete", "?1"),
            ("Content-Length", str(len(LARGE) - 12 * MIB - 5)),
        ):
            slow.putheader(name, value)
        slow.endheaders()
        slow.send(LARGE[12 * MIB + 5 : 33 * MIB])
        time.sleep(4)  # as often as progress is recorded, and more
        daemon.stop(signal.SIGKILL)
        slow.close()
        shutil.rmtree(directory / "state")  # as on another machine
        daemon.start()
        end = time.monotonic() + 30  # by then the killed one is known to be gone
        while alice.ask("HEAD", place).status == 503 and time.monotonic() < end:
            time.sleep(0.5)
        offset = offset_of(alice, place)
        assert 25 * MIB <= offset <= 33 * MIB
        assert send(alice, place, offset, LARGE[offset:], last=True).status == 200
        answer = alice.ask("GET", "/api/images/raw/one")
        assert answer.body == LARGE
        image = alice.ask("GET", f"/api/images/{alice.name}/one").text
        assert hashlib.sha256(LARGE).hexdigest() in image
        assert hashlib.sha512(LARGE).hexdigest() in image or "sha512" not in image


def test_what_s3cmd_fetches_has_the_digest_that_we_tell(tmp_path: Path, ceph: Ceph) -> None:
    directory = tmp_path / "daemon"
    directory.mkdir()
    bucket = ceph.bucket()
    with Daemon(directory, storage=ceph.storage(bucket, prefix="vm/")).running() as daemon:
        alice = daemon.newcomer()
        alice.ask("POST", "/api/images", form={"name": "one"})
        assert alice.ask("PUT", "/api/images/raw/one", body=LARGE).status == 200
        ((place, size),) = [
            (line.split()[3], int(line.split()[2]))
            for line in ceph.s3cmd("ls", "--recursive", f"s3://{bucket}/vm/data/").splitlines()
        ]
        assert size == len(LARGE)
        ceph.s3cmd("get", place, str(tmp_path / "fetched"))
        assert sha256(tmp_path / "fetched") == hashlib.sha256(LARGE).hexdigest()
        assert (
            sha256(tmp_path / "fetched") in alice.ask("GET", f"/api/images/{alice.name}/one").text
        )


def test_bytes_that_nobody_may_get_any_more_go_after_the_grace(tmp_path: Path, ceph: Ceph) -> None:
    directory = tmp_path / "daemon"
    directory.mkdir()
    bucket = ceph.bucket()

    def objects() -> int:
        return len(ceph.s3cmd("ls", "--recursive", f"s3://{bucket}/data/").splitlines())

    with Daemon(directory, storage=ceph.storage(bucket)).running() as daemon:
        alice = daemon.newcomer()
        alice.ask("POST", "/api/images", form={"name": "one"})
        for content in (b"old", b"new"):
            assert alice.ask("PUT", "/api/images/raw/one", body=content).status == 200
        time.sleep(1)
        assert objects() == 2
        on_server(daemon.dsn, "UPDATE blob SET gone_since = gone_since - interval '61 min'")
        place = begin(alice, "two")
        alice.ask("DELETE", place)  # work for the sweeper
        end = time.monotonic() + 10
        while objects() > 1 and time.monotonic() < end:
            time.sleep(0.1)
        assert objects() == 1
        assert alice.ask("GET", "/api/images/raw/one").body == b"new"


def test_an_absent_object_store_is_waited_for(tmp_path: Path, ceph: Ceph) -> None:
    directory = tmp_path / "daemon"
    directory.mkdir()
    daemon = Daemon(directory, storage=ceph.storage(ceph.bucket()))
    daemon.start()
    daemon.stop()
    ceph.stop_gateway()
    starting = Thread(target=daemon.start)
    try:
        starting.start()
        end = time.monotonic() + 30
        while "Waiting for the object store: " not in daemon.log.read_text():
            assert time.monotonic() < end
            time.sleep(0.1)
        assert daemon.nobody.ask("GET", "/api/whoami").status == 503
    finally:
        ceph.start_gateway()
        began = time.monotonic()
        starting.join()
        daemon.stop()
    assert time.monotonic() - began < 10
    assert daemon.log.read_text().count("Waiting for the object store: ") == 1
