"""The program itself, many times at once in one directory: right bytes, or a refusal."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT
from tests.server import Daemon, Person

CONTENTS = {name: random.Random(name).randbytes(3_000_000) for name in ("foo", "foo.part")}
SIZE, DATA = 64 * 2**20, 600_000
"""Of the sparse image: all of it, and what is no zeros."""


@pytest.fixture(scope="module")
def person(daemon: Daemon) -> Person:
    person = daemon.newcomer()
    with (daemon.directory / "sparse").open("wb") as file:
        file.truncate(SIZE)
        for at in (0, 20 * 2**20 + 4096, 50 * 2**20):
            file.seek(at)
            file.write(os.urandom(DATA // 3))
    contents = {**CONTENTS, "sparse": (daemon.directory / "sparse").read_bytes()}
    for name, content in contents.items():
        person.ask("POST", "/api/images", form={"name": name})
        person.ask("PUT", f"/api/images/raw/{name}", body=content)
    return person


def start(person: Person, place: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "repoman.cli", "-H", f"localhost:{person.daemon.https}", *words],
        cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOME": str(place),
             "X509_USER_PROXY": str(person.proxy),
             "X509_CERT_DIR": str(person.daemon.ca_directory)},
    )  # fmt: skip


def test_gets_at_once_give_each_name_its_own_bytes(person: Person, tmp_path: Path) -> None:
    (tmp_path / "foo.part.part").write_text("of the user")
    for pause in (0.0, 0.03, 0.1):
        running = []
        for name in ("foo", "foo.part", "foo"):
            running.append(start(person, tmp_path, "get", name))
            time.sleep(pause)
        ended = [(one.communicate(timeout=120), one.returncode) for one in running]
        assert [code for _, code in ended[:2]] == [0, 0] or ended[2][1] == 0, ended
        assert {code for _, code in ended} <= {0, 6}, ended
        for name, content in CONTENTS.items():
            assert (tmp_path / name).read_bytes() == content
            (tmp_path / name).unlink()
    assert os.listdir(tmp_path) == ["foo.part.part"]
    assert (tmp_path / "foo.part.part").read_text() == "of the user"


@pytest.mark.parametrize("streams", ["1", "4"])
def test_a_copy_of_a_sparse_image_takes_the_room_of_its_data(
    person: Person, tmp_path: Path, streams: str
) -> None:
    running = start(person, tmp_path, "get", "sparse", "-j", streams)
    assert (running.communicate(timeout=120), running.returncode)[1] == 0
    original = (person.daemon.directory / "sparse").read_bytes()
    assert (tmp_path / "sparse").read_bytes() == original
    data = sum(any(original[at : at + 4096]) for at in range(0, SIZE, 4096)) * 4096
    assert (tmp_path / "sparse").stat().st_blocks * 512 <= data * 1.01


def test_the_repository_says_what_an_image_takes_where_zeros_are_holes(person: Person) -> None:
    store = person.daemon.directory / "state" / "blobs" / "data"
    [blob] = [path for path in store.glob("*/*") if path.stat().st_size == SIZE]
    told = person.ask("HEAD", "/api/images/raw/sparse").headers
    assert int(told["Repoman-Stored-Size"]) == blob.stat().st_blocks * 512 < 2 * DATA
    assert "Repoman-Stored-Size" not in person.ask("HEAD", "/api/images/raw/foo").headers
