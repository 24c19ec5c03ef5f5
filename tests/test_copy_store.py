"""``copy-store``: the files move to another store, and nobody notices."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ceph import Ceph
from tests.server import ROOT, Answer, Daemon, Person
from tests.test_operator import operate

CONTENT = bytes(range(256)) * 20_000
SPARSE = bytes(5 << 20) + CONTENT + bytes(20 << 20)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose files are all right."""
    with Daemon(tmp_path).running() as daemon:
        yield daemon


def other(daemon: Daemon, place: Path, name: str = "other.conf") -> Path:
    """The daemon's configuration with another store."""
    file = daemon.directory / name
    file.write_text(daemon.config.read_text() + f"\n[storage]\ndirectory = {place}\n")
    return file


def put(person: Person, name: str, content: bytes) -> None:
    person.ask("POST", "/api/images", form={"name": name})
    assert person.ask("PUT", f"/api/images/raw/{name}", body=content).status == 200


def get(person: Person, name: str) -> Answer:
    return person.ask("GET", f"/api/images/raw/{name}")


def committed(place: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in place.glob("data/*/*")}


def test_a_running_repository_moves_and_moves_back(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    old, new = tmp_path / "state" / "blobs", tmp_path / "new"
    there, home = other(daemon, new), tmp_path / "home.conf"
    home.write_text(daemon.config.read_text())
    with daemon.running():
        put(daemon.admin, "one", SPARSE)
        done = operate("copy-store", "-c", home, "--to", there)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert done.stdout.startswith(f"1 files of {len(SPARSE)} bytes copied to {new}, ")
        put(daemon.admin, "two", b"later")
    done = operate("copy-store", "-c", home, "--to", there, "--json")
    assert json.loads(done.stdout) == {
        "files": 1, "size": 5, "there": 1, "damaged": [], "put_away": 0, "unfinished": 0,
    }  # fmt: skip
    assert committed(new) == committed(old)
    for place in (old, new):
        blocks = sum(file.stat().st_blocks for file in place.glob("data/*/*"))
        assert blocks * 512 < len(CONTENT) * 1.01, f"zeros take room in {place}"
    daemon.config.write_text(there.read_text())
    with daemon.running():
        assert get(daemon.admin, "one").body == SPARSE
        assert get(daemon.admin, "two").body == b"later"
        put(daemon.admin, "one", b"replaced")
    assert "reading it again" not in daemon.log.read_text()
    assert operate("sweep", "-c", there).returncode == 0
    done = operate("copy-store", "-c", there, "--to", home)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "1 copies of what was removed since put in quarantine/." in done.stdout
    assert committed(new) == committed(old)
    daemon.config.write_text(home.read_text())
    with daemon.running():
        assert get(daemon.admin, "one").body == b"replaced"
        assert get(daemon.admin, "two").body == b"later"
    assert "reading it again" not in daemon.log.read_text()


def test_a_copy_that_is_killed_goes_on_and_damage_is_told(own: Daemon, tmp_path: Path) -> None:
    alice = own.newcomer()
    for number in range(4):
        put(alice, f"copied{number}", CONTENT)
    there = other(own, tmp_path / "new", f"{alice.name}.conf")
    command = [sys.executable, "-m", "repoman.operator", "copy-store", "-c", own.config]
    slow = subprocess.Popen(
        [*command, "--to", there, "--rate", "4MiB"], env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )  # fmt: skip
    end, new = time.monotonic() + 60, tmp_path / "new"
    while not (committed(new) and list(new.glob("incoming/*"))) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(slow.pid, signal.SIGKILL)
    slow.wait()
    before = committed(tmp_path / "new")
    assert before
    assert list((tmp_path / "new" / "incoming").iterdir())
    wrong = next(
        file
        for file in (own.directory / "state" / "blobs").glob("data/*/*")
        if file.name not in before and file.read_bytes() == CONTENT
    )
    wrong.write_bytes(CONTENT[::-1])
    done = operate("copy-store", "-c", own.config, "--to", there)
    assert done.returncode == 1
    assert f"{alice.name}/copied" in done.stderr
    assert f"({wrong.name}) is missing or not what was stored: not copied.\n" in done.stderr
    wrong.write_bytes(CONTENT)
    done = operate("copy-store", "-c", own.config, "--to", there)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert committed(tmp_path / "new") == committed(own.directory / "state" / "blobs")


def test_what_is_no_other_store_of_this_repository_is_refused(own: Daemon, tmp_path: Path) -> None:
    done = operate("copy-store", "-c", own.config, "--to", own.config)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("where the files are already\n")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "REPO_ID").write_text("another\n")
    done = operate("copy-store", "-c", own.config, "--to", other(own, tmp_path / "strange"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "belongs to repository another" in done.stderr
    done = operate("copy-store", "-c", own.config, "--to", own.config, "--rate", "quickly")
    assert done.returncode == 2
    assert "'quickly' is not a size" in done.stderr


def test_a_store_that_a_daemon_uses_is_no_target(own: Daemon, tmp_path: Path) -> None:
    there = other(own, tmp_path / "new", "reversed.conf")
    assert operate("copy-store", "-c", own.config, "--to", there).returncode == 0
    done = operate("copy-store", "-c", there, "--to", own.config)
    assert (done.returncode, done.stdout) == (1, "")
    assert "in use by another daemon" in done.stderr


def test_a_repository_moves_into_ceph_and_back_through_a_kill(ceph: Ceph, tmp_path: Path) -> None:
    daemon, bucket = Daemon(tmp_path), ceph.bucket()
    home, there = tmp_path / "home.conf", tmp_path / "there.conf"
    home.write_text(daemon.config.read_text())
    section = "".join(f"{key} = {value}\n" for key, value in ceph.storage(bucket).items())
    there.write_text(daemon.config.read_text() + "\n[storage]\n" + section)
    with daemon.running():
        for number in range(3):
            put(daemon.admin, f"copied{number}", CONTENT)
        killed = subprocess.Popen(
            [sys.executable, "-m", "repoman.operator", "copy-store", "-c", home, "--to", there,
             "--rate", "4MiB"],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + 60
        while "/data/" not in ceph.s3cmd("ls", "-r", f"s3://{bucket}") and time.monotonic() < end:
            time.sleep(0.1)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        done = operate("copy-store", "-c", home, "--to", there)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert done.stdout.startswith(("2 files of", "1 files of"))
    daemon.config.write_text(there.read_text())
    with daemon.running():
        for number in range(3):
            assert get(daemon.admin, f"copied{number}").body == CONTENT
        put(daemon.admin, "late", b"late")
        shutil.rmtree(tmp_path / "state" / "blobs")
        done = operate("copy-store", "-c", there, "--to", home)
        assert (done.returncode, done.stderr) == (0, ""), done
    daemon.config.write_text(home.read_text())
    with daemon.running():
        for number in range(3):
            assert get(daemon.admin, f"copied{number}").body == CONTENT
        assert get(daemon.admin, "late").body == b"late"
    assert "reading it again" not in daemon.log.read_text()
