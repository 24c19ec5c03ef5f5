"""The program itself, many times at once in one directory: right bytes, or a refusal."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from repoman.client.part_names import part_of
from tests.cli.conftest import ROOT
from tests.server import Daemon, Person

CONTENTS = {name: random.Random(name).randbytes(3_000_000) for name in ("foo", "foo.part")}
PART = part_of(Path("out"), hashlib.sha256(CONTENTS["foo"]).hexdigest()).name
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


def start(
    person: Person, place: Path, *words: str, under: Sequence[str] = ()
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*under, sys.executable, "-m", "repoman.cli", "-H", f"localhost:{person.daemon.https}",
         *words],
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


FAULTS = (
    ("flock:error=ENOSYS", 0, "", ["out"]),
    ("fsync:error=EIO:when=1", 1, "out: Input/output error", []),
    ("fsync:error=ENOSPC:when=1", 1, "the same command fetches it anew", []),
    ("pwrite64:error=EDQUOT:when=5", 1, "the same command goes on from there", [PART]),
    ("rename:error=EBUSY", 1, "out: Device or resource busy", [PART]),
)
"""What the system does, the exit code, what is told, and what is there then."""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(("fault", "code", "told", "left"), FAULTS)
def test_what_a_file_system_does_to_a_get_is_told_and_mended_by_the_next(
    person: Person, tmp_path: Path, fault: str, code: int, told: str, left: list[str]
) -> None:
    """What an fsync(2) has failed on is read from memory as if it were on the disk."""
    trace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject={fault}"]
    running = start(person, tmp_path, "get", "foo", "-d", "out", under=trace)
    _, said = running.communicate(timeout=120)
    assert (running.returncode, told in said) == (code, True), said
    assert os.listdir(tmp_path) == left
    again = start(person, tmp_path, "get", "foo", "-d", "out")
    assert (again.communicate(timeout=120), again.returncode)[1] == 0
    assert (tmp_path / "out").read_bytes() == CONTENTS["foo"]
    assert os.listdir(tmp_path) == ["out"]


def test_what_nobody_can_lock_is_not_taken_up(person: Person, tmp_path: Path) -> None:
    (tmp_path / PART).write_bytes(CONTENTS["foo"][:1000])
    trace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "inject=flock:error=ENOSYS"]
    running = start(person, tmp_path, "get", "foo", "-d", "out", under=trace)
    _, said = running.communicate(timeout=120)
    assert (running.returncode, "cannot be locked" in said) == (1, True), said
    assert os.listdir(tmp_path) == [PART]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_file_system_that_does_not_say_how_large_it_is_is_not_full(
    person: Person, tmp_path: Path
) -> None:
    (tmp_path / "place").mkdir()
    mount = 'mount -t ramfs none place && "$@" && cat place/out > out'
    running = start(
        person, tmp_path, "get", "foo", "-d", "place/out",
        under=["unshare", "-m", "sh", "-ec", mount, "sh"],
    )  # fmt: skip
    assert (running.communicate(timeout=120), running.returncode)[1] == 0
    assert (tmp_path / "out").read_bytes() == CONTENTS["foo"]


HOMELESS = "~nobody-has-this-name/x"


@pytest.mark.parametrize(
    "words",
    [
        ["get", "foo", "-d", HOMELESS],
        ["put", "-f", HOMELESS, "foo"],
        ["upload-image", "foo", "--file", HOMELESS],
        ["--proxy", HOMELESS, "list"],
        ["--cert", HOMELESS, "--key", HOMELESS, "list"],
        ["--ca-dir", HOMELESS, "list"],
    ],
)
def test_a_tilde_of_no_account_is_a_name_as_any(
    person: Person, tmp_path: Path, words: list[str]
) -> None:
    running = start(person, tmp_path, *words)
    _, said = running.communicate(timeout=120)
    assert "Traceback" not in said
    assert HOMELESS[:20] in said
    assert running.returncode > 0
