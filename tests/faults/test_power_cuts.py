"""The power goes: with the store and PostgreSQL on one disk, nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from pathlib import Path

import pytest

from tests.end_to_end.test_resumable_uploads import begin, offset_of, send
from tests.faults.conftest import MIB, Disk, mounted
from tests.kills import Load
from tests.ledger import Board, Figures, LateDaemon, Ledger, children, frozen, kill, pid_of
from tests.server import ROOT

CUTS = int(os.environ.get("CUTS", "12"))


def everything(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(deep for child in children(pid) for deep in everything(child))]


def standing_still(daemon: LateDaemon) -> AbstractContextManager[None]:
    """Nothing of the daemon moves while its disk is copied."""
    return frozen(*everything(pid_of(daemon)))


@contextmanager
def after_the_cut(daemon: LateDaemon, disk: Disk, copy: Path) -> Iterator[None]:
    """The daemon runs on what the cut has left."""
    place = disk.place.with_name("after")
    state = daemon.directory / "state"
    original = os.readlink(state)
    with mounted(copy, place):
        state.unlink()
        state.symlink_to(place / "state")
        try:
            daemon.start()
            yield
        finally:
            daemon.stop()
            state.unlink()
            state.symlink_to(original)
    copy.unlink()


@pytest.fixture
def on_disk(tmp_path: Path, disk: Disk) -> LateDaemon:
    """A daemon all of whose state is on the disk."""
    (site := tmp_path / "site").mkdir()
    (disk.place / "state").mkdir(mode=0o700)
    (site / "state").symlink_to(disk.place / "state")
    return LateDaemon(site)


def test_power_cuts_under_load_lose_nothing_acknowledged(
    on_disk: LateDaemon, disk: Disk, board: Board
) -> None:
    daemon, figures = on_disk, Figures()
    with daemon.running():
        people = [daemon.newcomer() for _ in range(3)]
        for person in people:
            for number in range(3):
                person.ask("POST", "/api/images", form={"name": f"image{number}"})
        ledger = Ledger(daemon)
        for _ in range(CUTS):
            load = Load(ledger, people)
            load.start()
            time.sleep(random.uniform(0.2, 1.5))
            with standing_still(daemon):
                copy = disk.cut()
                kill(daemon)
            load.stop()
            known, begun = deepcopy(ledger.fates), time.monotonic()
            with after_the_cut(daemon, disk, copy):
                figures.heal = max(figures.heal, time.monotonic() - begun)
                ledger.check()
            # The disk itself may hold more than the cut has left.
            ledger.fates = known
            daemon.start()
            ledger.check()
    board(ledger, figures)


def test_acknowledged_offsets_survive(on_disk: LateDaemon, disk: Disk, board: Board) -> None:
    daemon, content = on_disk, os.urandom(64 * MIB)
    with daemon.running():
        ledger, admin = Ledger(daemon), daemon.admin
        place = begin(admin, "one", len(content))
        answer = send(admin, place, 0, content[: 20 * MIB])
        assert answer.headers["Upload-Offset"] == str(20 * MIB)
        with standing_still(daemon):
            copy = disk.cut()
        daemon.stop()
        with after_the_cut(daemon, disk, copy):
            assert offset_of(admin, place) == 20 * MIB
            assert send(admin, place, 20 * MIB, content[20 * MIB :], last=True).status == 200
            assert admin.ask("GET", "/api/images/raw/one").body == content
            ledger.check()
        board(ledger)


def test_without_the_sync_of_directories_an_acknowledged_upload_would_be_lost(
    tmp_path: Path, on_disk: LateDaemon, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These tests have teeth.  PostgreSQL is elsewhere: its syncs would save the name by chance."""
    forgetful = tmp_path / "forgetful"
    shutil.copytree(ROOT, forgetful, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    operations = forgetful / "repoman" / "storage" / "operations.py"
    source = operations.read_text()
    sync = "os.fsync(os.open(path, os.O_RDONLY | os.O_DIRECTORY))"
    assert source.count(sync) == 1
    operations.write_text(source.replace(sync, "pass"))
    (site := tmp_path / "other").mkdir()
    assert survives(site / "right", disk)
    monkeypatch.setattr("tests.server.ROOT", forgetful)
    assert not survives(site / "wrong", disk)


def survives(site: Path, disk: Disk) -> bool:
    """An upload that got its 200 is in the store after a power cut."""
    site.mkdir(parents=True)
    blobs = disk.place / site.name
    daemon = LateDaemon(site, storage={"directory": blobs})
    with daemon.running():
        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        # The store is laid out, and synced, before.
        assert daemon.admin.ask("PUT", "/api/images/raw/one", body=b"x" * MIB).status == 200
        with standing_still(daemon):
            copy = disk.cut()
    with mounted(copy, disk.place.with_name("after")) as after:
        found = (after.place / site.name / "data").rglob("?" * 32)
        sizes = [path.stat().st_size for path in found]
    copy.unlink()
    return sizes == [MIB]
