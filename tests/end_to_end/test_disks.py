"""Disks that are full, over quota or broken: the right answer, the old file, nothing left."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MIB
from tests.end_to_end.test_resumable_uploads import begin, offset_of, send
from tests.ledger import (
    PROMISED_LAG,
    Board,
    LateDaemon,
    Ledger,
    helper_of,
    pid_of,
    tampered,
)
from tests.server import Person

pytestmark = pytest.mark.directory_store


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    """A daemon whose disk seems to fail."""
    with LateDaemon(tmp_path_factory.mktemp("disks")).running() as daemon:
        yield daemon


@pytest.fixture
def alice(own: LateDaemon) -> Person:
    person = own.newcomer()
    person.ask("POST", "/api/images", form={"name": "one"})
    person.ask("PUT", "/api/images/raw/one", body=b"old")
    return person


IN_HELPER = {"fdatasync:error=EIO:when=1": 503, "fdatasync:error=ENOSPC:when=1": 507,
             "fsync:error=EIO:when=1": 503, "rename:error=EIO:when=1": 503}  # fmt: skip
IN_DAEMON = {"pwritev2:error=ENOSPC:when=3": 507, "pwritev2:error=EDQUOT:when=3": 507,
             "pwritev2:error=EIO:when=1": 503}  # fmt: skip


@pytest.mark.parametrize("fault", [*IN_HELPER, *IN_DAEMON])
def test_a_failing_disk_costs_one_upload_and_says_what_it_was(
    own: LateDaemon, alice: Person, board: Board, fault: str
) -> None:
    ledger = Ledger(own)
    victim = helper_of(own) if fault in IN_HELPER else pid_of(own)
    with ledger.fault() as figures, tampered(victim, fault):
        status = ledger.put(alice, "one", os.urandom(4 * MIB))
    assert status == (IN_HELPER | IN_DAEMON)[fault]
    assert alice.ask("GET", "/api/images/raw/one").body == b"old"
    ledger.check_store()
    assert ledger.put(alice, "one", os.urandom(MIB)) == 200
    ledger.check()
    board(ledger, figures)


@pytest.mark.parametrize("fault", ["fdatasync:error=EIO:when=1", "fsync:error=EIO:when=1"])
def test_a_resumable_upload_goes_on_after_a_failing_sync(
    own: LateDaemon, alice: Person, board: Board, fault: str
) -> None:
    ledger, content = Ledger(own), os.urandom(80 * MIB)
    place = begin(alice, "one", len(content))
    with ledger.fault() as figures, tampered(helper_of(own), fault):
        assert send(alice, place, 0, content, last=True).status == 503
    offset = offset_of(alice, place)
    answer = send(alice, place, offset, content[offset:], last=True)
    assert answer.json["checksum"]["value"] == hashlib.sha256(content).hexdigest()
    assert alice.ask("GET", "/api/images/raw/one").body == content
    ledger.check()
    assert figures.stall < PROMISED_LAG
    board(ledger, figures)


def test_a_read_error_is_never_a_short_200(own: LateDaemon, alice: Person, board: Board) -> None:
    ledger, content = Ledger(own), os.urandom(8 * MIB)
    alice.ask("PUT", "/api/images/raw/one", body=content)
    url = f"{own.url}/api/images/raw/one"
    with tampered(pid_of(own), "preadv2:error=EIO:when=5"):
        command = ["curl", *alice.curl, "--output", "/dev/null", url]
        done = subprocess.run(command, capture_output=True, timeout=30)
    assert done.returncode in (18, 56), "curl says that the end is missing"
    assert alice.ask("GET", "/api/images/raw/one").body == content
    ledger.check()
    board(ledger)


def test_a_really_full_disk(small_disk: Path, tmp_path: Path, board: Board) -> None:
    (site := tmp_path / "site").mkdir()
    storage = {"directory": small_disk / "blobs"}
    with LateDaemon(site, storage=storage, limits={"disk_reserve": "0%"}).running() as daemon:
        ledger, admin = Ledger(daemon), daemon.admin
        for name in ("one", "two"):
            admin.ask("POST", "/api/images", form={"name": name})
        assert ledger.put(admin, "one", os.urandom(20 * MIB)) == 200
        assert ledger.put(admin, "two", b"x" * (13 * MIB)) == 507  # announced
        url = f"{daemon.url}/api/images/raw/two"
        chunked = ["curl", *admin.curl, "-T", "-", "-w", "%{http_code}", "-o", "/dev/null", url]
        said = subprocess.run(chunked, input=b"x" * (13 * MIB), capture_output=True, timeout=60)
        assert said.stdout == b"507"
        assert admin.ask("GET", "/api/images/raw/two").status == 404
        ledger.wait_for_sweep()
        assert ledger.put(admin, "two", os.urandom(10 * MIB)) == 200
        ledger.check_bytes()
        assert not ledger.wrong_quotas()
        board(ledger)


def test_uploads_need_no_temporary_directory(small_disk: Path, tmp_path: Path) -> None:
    (site := tmp_path / "site").mkdir()
    daemon = LateDaemon(site)
    daemon.temporary = small_disk
    with (small_disk / "ballast").open("wb") as ballast:
        try:
            while True:
                ballast.write(bytes(MIB))
        except OSError:
            pass
    with daemon.running():
        ledger = Ledger(daemon)
        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        assert ledger.put(daemon.admin, "one", os.urandom(20 * MIB)) == 200
        ledger.check()


def test_uploads_wait_for_a_slow_disk_without_filling_memory_or_stalling(
    own: LateDaemon, alice: Person, board: Board
) -> None:
    """The helper's syncs take a second each; the client could send all at once."""
    ledger, content = Ledger(own), os.urandom(300 * MIB)

    def resident() -> int:
        lines = Path(f"/proc/{pid_of(own)}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

    before, most, over = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.05):
            most = max(most, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ledger.fault() as figures, tampered(helper_of(own), "fdatasync:delay_exit=1000000"):
        assert ledger.put(alice, "one", content) == 200
    over.set()
    watcher.join()
    assert most - before < 32 * MIB
    ledger.check()
    assert figures.stall < PROMISED_LAG
    board(ledger, figures)
